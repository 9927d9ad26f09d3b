"""The engine's logic, on a pool that needs no Ray: order, duplicates, crashes, resuming.

test_pool.py has the same with real workers.
"""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import Policy
from policies.errors import InputError
from proxy_tasks.evaluators.config import EvaluatorConfig
from search import FixedSearcher, fixed_candidates
from search.engine import loop as engine
from search.engine.resources import PoolConfig
from search.errors import JournalError, SearchInterrupted
from search.runs.journal import Journal
from tests.search.fakes import (
    FakePool,
    Killed,
    LearningSearcher,
    TwinSearcher,
    bad,
    good,
    random_searcher,
    trial,
)
from tests.search.running import lines, results, run

# Order ---------------------------------------------------------------------------------------


def test_a_run_evaluates_what_was_asked_for(patch, tmp_path):
    pool = FakePool()
    result = run(patch, tmp_path, random_searcher(), pool)
    assert (result.finished, result.ok, result.new) == (40, 40, 40)
    expected = [(b, s) for b in range(7) for s in range(6)][:40]
    assert sorted(lines(tmp_path)) == expected
    assert [job.candidate.key for job in pool.submitted] == expected
    rewards = sorted((r["evaluation"]["reward"] for r in lines(tmp_path).values()), reverse=True)
    assert [trial.evaluation.reward for trial in result.best] == rewards[:5]


@given(order=st.integers(0, 10**6), workers=st.integers(1, 12))
@settings(max_examples=25)
@pytest.mark.long
def test_neither_workers_nor_arrival_order_change_the_journal(tmp_path_factory, order, workers):
    with pytest.MonkeyPatch.context() as patch:
        one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
        first = run(patch, one, LearningSearcher(), workers=1)
        second = run(patch, other, LearningSearcher(), FakePool(order), workers=workers)
    assert lines(one) == lines(other)
    assert results(first) == results(second)


def test_no_worker_waits_at_a_batch_boundary(patch, tmp_path):
    """With lag 1 the next batch is asked for while the last of this one is still evaluated."""

    class Slow(FakePool):
        idle = 0

        def wait(self, timeout):
            self.idle += self.capacity()
            self._jobs.sort(key=lambda job: job.candidate.key)
            return [good(self._jobs.pop(0))]

    pool = Slow()
    run(patch, tmp_path, LearningSearcher(), pool, workers=3, evaluations=60)
    # Only the very end of the run leaves room: 1 + 2 places while the last three finish.
    assert pool.idle == 3


def test_evaluations_may_end_inside_a_batch(patch, tmp_path):
    assert run(patch, tmp_path, LearningSearcher(), evaluations=7).finished == 7


def test_a_finite_searcher_ends_by_itself(patch, tmp_path):
    policy = Policy([[("Rotate", 0.5, 3)]])
    searcher = FixedSearcher(fixed_candidates({"none": None, "rotate": policy}, [1, 2, 3]))
    result = run(patch, tmp_path, searcher, evaluations=None)
    assert result.finished == 6 and searcher.finished
    assert lines(tmp_path)[0, 0]["augmentation"] is None
    assert lines(tmp_path)[0, 1]["augmentation"] == [[["Rotate", 0.5, 3]]]
    assert lines(tmp_path)[2, 1]["label"] == "rotate"


def test_a_searcher_that_waits_for_nothing_is_a_bug_not_a_hang(patch, tmp_path):
    class Stuck(LearningSearcher):
        def ask(self):
            return None

    with pytest.raises(RuntimeError, match="Stuck waits"):
        run(patch, tmp_path, Stuck())


# Duplicates ----------------------------------------------------------------------------------


@given(order=st.integers(0, 10**6), workers=st.integers(1, 9))
@settings(max_examples=20)
def test_identical_candidates_are_evaluated_once(tmp_path_factory, order, workers):
    directory = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        pool = FakePool(order)
        result = run(patch, directory, TwinSearcher(), pool, evaluations=40, workers=workers)
    # A batch is [new, old, new, old]; new becomes old: 10 new ones and the first old one.
    assert len(pool.submitted) == 11
    assert (result.ok, result.duplicates) == (11, 29)
    found = lines(directory)
    for (batch, slot), record in found.items():
        original = (0, slot % 2) if batch == 0 else (batch - slot % 2, 0)
        if original == (batch, slot):
            assert record["status"] == "ok" and record["duplicate_of"] is None
        else:
            assert record["status"] == "duplicate"
            assert record["duplicate_of"] == list(original)
            assert record["evaluation"] == found[original]["evaluation"]


def test_duplicates_of_a_failure_fail_too(patch, tmp_path):
    answer = lambda job: bad(job) if job.candidate.key == (0, 0) else None  # noqa: E731
    run(patch, tmp_path, TwinSearcher(), FakePool(0, answer), evaluations=8)
    twin = lines(tmp_path)[0, 2]
    assert twin["status"] == "duplicate" and twin["duplicate_of"] == [0, 0]
    assert twin["evaluation"] is None and twin["error"] == "ValueError: no"


@pytest.mark.parametrize("arrival", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_duplicate_names_the_earliest_original(patch, tmp_path, arrival):
    """Whatever order results came in, and whichever of them a run goes on from."""
    [one] = fixed_candidates({"none": None}, [7])
    candidates = [replace(one, batch=batch) for batch in range(4)]
    with Journal(tmp_path / "trials.jsonl") as journal:
        for batch in arrival:
            journal.append(trial(batch, 0, augmentation=None, label="none"))
    run(patch, tmp_path, FixedSearcher(candidates), evaluations=None, resume=True)
    assert lines(tmp_path)[3, 0]["duplicate_of"] == [0, 0]


def test_what_is_asked_for_in_another_order_is_evaluated_once_too(patch, tmp_path):
    [one] = fixed_candidates({"none": None}, [7])
    asked = FixedSearcher([replace(one, batch=batch) for batch in (2, 0, 1)])
    assert run(patch, tmp_path, asked, evaluations=None).duplicates == 2


@pytest.mark.parametrize("field", ["scorer", "part", "seed"])
def test_only_the_very_same_evaluation_is_a_duplicate(patch, tmp_path, field):
    [one] = fixed_candidates({"none": None}, [1])
    other = {"scorer": "other", "part": "test", "seed": 2}[field]
    twin = replace(one, slot=1, label="another", **{field: other})
    same = replace(one, slot=2, label="a third")
    result = run(patch, tmp_path, FixedSearcher([one, twin, same]), evaluations=None)
    assert (result.ok, result.duplicates) == (2, 1)


# Crashes and resuming ------------------------------------------------------------------------


@given(
    order=st.integers(0, 10**6),
    kills=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    twins=st.booleans(),
)
@settings(max_examples=40)
@pytest.mark.long
def test_killed_anywhere_and_resumed_ends_in_the_same_run(tmp_path_factory, order, kills, twins):
    new = TwinSearcher if twins else LearningSearcher
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patch:
        undisturbed = run(patch, whole, new())
        for number, kill in enumerate(kills):
            try:
                run(patch, broken, new(), FakePool(order + number, killed_after=kill), resume=True)
            except Killed:
                continue
        result = run(patch, broken, new(), FakePool(order), resume=True)
    assert lines(broken) == lines(whole)
    assert result.finished == undisturbed.finished == 40
    assert results(result) == results(undisturbed)


@pytest.mark.long
def test_every_cut_of_the_journal_leads_to_the_same_end(patch, tmp_path):
    """kill -9 while the journal is being written: any prefix of the file resumes to the whole."""
    run(patch, tmp_path / "whole", LearningSearcher(), evaluations=15)
    raw = (tmp_path / "whole" / "trials.jsonl").read_bytes()
    expected = lines(tmp_path / "whole")
    for number, cut in enumerate(range(0, len(raw), 97)):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "trials.jsonl").write_bytes(raw[:cut])
        pool = FakePool(number)
        result = run(patch, directory, LearningSearcher(), pool, evaluations=15, resume=True)
        assert lines(directory) == expected
        assert result.new == len(pool.submitted) == 15 - raw[:cut].count(b"\n")


def test_a_kill_repeats_only_what_was_in_flight(patch, tmp_path):
    first, second = FakePool(1, killed_after=20), FakePool(2)
    with pytest.raises(Killed):
        run(patch, tmp_path, LearningSearcher(), first, workers=4)
    run(patch, tmp_path, LearningSearcher(), second, workers=4, resume=True)
    repeated = {j.candidate.key for j in first.submitted} & {
        j.candidate.key for j in second.submitted
    }
    assert len(first.submitted) + len(second.submitted) - 40 == len(repeated) <= 4


def test_a_result_is_on_the_disk_before_the_searcher_hears_of_it(patch, tmp_path):
    class Suspicious(LearningSearcher):
        def tell(self, candidate, evaluation):
            text = (tmp_path / "trials.jsonl").read_text()
            assert f'"batch":{candidate.batch},"slot":{candidate.slot},' in text
            super().tell(candidate, evaluation)

    assert run(patch, tmp_path, Suspicious()).finished == 40


def test_a_finished_run_needs_no_workers(patch, tmp_path):
    run(patch, tmp_path, LearningSearcher())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != "run.log"}
    result = run(patch, tmp_path, LearningSearcher(), pytest.fail, resume=True)
    assert (result.finished, result.new) == (40, 0)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != "run.log"}


def test_a_fresh_run_over_a_journal_is_refused(patch, tmp_path):
    run(patch, tmp_path, LearningSearcher(), evaluations=3)
    before = (tmp_path / "trials.jsonl").read_bytes()
    with pytest.raises(InputError, match="must not hold a run already"):
        run(patch, tmp_path, LearningSearcher())
    assert (tmp_path / "trials.jsonl").read_bytes() == before


@pytest.mark.parametrize("field", ["seed", "scorer", "part", "augmentation"])
def test_a_journal_that_differs_in_one_thing_is_refused(patch, tmp_path, field):
    [one] = fixed_candidates({"none": None}, [7])
    run(patch, tmp_path, FixedSearcher([one]), evaluations=None)
    other = {"seed": 8, "scorer": "other", "part": "test",
             "augmentation": Policy([[("Rotate", 0.5, 3)]])}[field]  # fmt: skip
    changed = FixedSearcher([replace(one, **{field: other})])
    with pytest.raises(JournalError, match=f"with {field} .*another configuration or version"):
        run(patch, tmp_path, changed, evaluations=None, resume=True)


def test_the_journal_of_another_search_is_refused(patch, tmp_path):
    run(patch, tmp_path, LearningSearcher(seed=1))
    with pytest.raises(JournalError, match="another configuration or version"):
        run(patch, tmp_path, LearningSearcher(seed=2), resume=True, evaluations=80)


# A journal in other hands --------------------------------------------------------------------


@pytest.mark.parametrize("after", [20, 40], ids=["in the middle", "at the end"])
def test_a_journal_that_disappears_ends_the_run(patch, tmp_path, after):
    journal = tmp_path / "trials.jsonl"

    class Removing(FakePool):
        def wait(self, timeout):
            if journal.exists() and journal.read_bytes().count(b"\n") >= after - 5:
                journal.rename(tmp_path / "elsewhere")
            return super().wait(timeout)

    with pytest.raises(JournalError, match="removed"):
        run(patch, tmp_path, LearningSearcher(), Removing())


def test_a_journal_removed_after_the_last_line_is_noticed(patch, tmp_path):
    class Removing(LearningSearcher):
        def tell(self, candidate, evaluation):
            super().tell(candidate, evaluation)
            if candidate.key == (7, 4):
                (tmp_path / "trials.jsonl").unlink()

    with pytest.raises(JournalError, match="removed"):
        run(patch, tmp_path, Removing(), workers=1)


# Signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_cleanly_with_a_hint(patch, tmp_path, number, code):
    class Signalling(FakePool):
        sent = False

        def wait(self, timeout):
            if len(self.submitted) > 20 and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)
            return super().wait(timeout)

    # SIGINT is ignored in what a shell runs in the background, these tests perhaps.
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    original = signal.signal(number, default)
    try:
        _stopped_by(patch, tmp_path, Signalling(), code)
        assert signal.getsignal(number) is default
    finally:
        signal.signal(number, original)
    run(patch, tmp_path / "whole", LearningSearcher())
    run(patch, tmp_path, LearningSearcher(), resume=True)
    assert lines(tmp_path) == lines(tmp_path / "whole")


def _stopped_by(patch, directory, pool, code):
    with pytest.raises(SearchInterrupted, match="augsearch resume") as caught:
        run(patch, directory, LearningSearcher(), pool)
    assert caught.value.exit_code == code


def test_what_has_arrived_when_a_signal_comes_is_kept(patch, tmp_path):
    class Signalling(FakePool):
        def wait(self, timeout):
            if len(self.submitted) < 6:
                os.kill(os.getpid(), signal.SIGTERM)
                return []  # the results come in while the signal is being noticed
            raise AssertionError("goes on after a signal")

        def arrived(self):
            jobs, self._jobs = self._jobs, []
            return [good(job) for job in jobs]

    class Late(Signalling):
        def wait(self, timeout):
            return self.arrived() if timeout == 0 else super().wait(timeout)

    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SearchInterrupted, match="after 3 evaluations"):
            run(patch, tmp_path, random_searcher(), Late(), workers=3)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert sorted(lines(tmp_path)) == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize("moment", ["__enter__", "prepare"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_so_do_signals_while_workers_start(patch, tmp_path, moment, number, code):
    """In the first seconds, before anything is evaluated."""
    pool, real = FakePool(), getattr(FakePool, moment)

    def signalled(self, *arguments):
        os.kill(os.getpid(), number)
        if (moment, number) == ("__enter__", signal.SIGTERM):
            raise SystemExit(1)  # as Ray does
        return real(self, *arguments)

    patch.setattr(FakePool, moment, signalled)
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    previous = signal.signal(number, default)
    try:
        _stopped_by(patch, tmp_path, pool, code)
    finally:
        signal.signal(number, previous)
    assert lines(tmp_path) == {} and pool.submitted == []


def test_a_signal_that_is_ignored_stays_ignored(patch, tmp_path):
    class Signalling(FakePool):
        def wait(self, timeout):
            os.kill(os.getpid(), signal.SIGINT)
            return super().wait(timeout)

    original = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(patch, tmp_path, LearningSearcher(), Signalling()).finished == 40
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, original)


# Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", 0),
        ("workers", -1),
        ("workers", 1.5),
        ("workers", True),
        ("cpus", 0),
        ("cpus", -1),
        ("cpus", math.nan),
        ("gpus", -0.5),
        ("gpus", math.inf),
        ("gpus", 1.5),
        ("time_limit", 0),
        ("time_limit", -1.0),
        ("time_limit", math.nan),
        ("retries", -1),
        ("address", ""),
        ("address", 8),
    ],
)
def test_pool_config_names_what_is_wrong(field, value):
    with pytest.raises(InputError, match=rf"^{field}: must be .*but got"):
        PoolConfig(**{field: value})


@pytest.mark.parametrize("evaluations", [0, -5, 2.5, True])
def test_evaluations_must_be_positive(patch, tmp_path, evaluations):
    with pytest.raises(InputError, match="evaluations"):
        run(patch, tmp_path, random_searcher(), evaluations=evaluations)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_evaluator_names_stay_inside_the_folder(tmp_path, name):
    with pytest.raises(InputError, match="evaluator_configs"):
        engine.run(random_searcher(), {name: EvaluatorConfig()}, None, tmp_path)


def test_threads_must_agree(tmp_path):
    configs = {"a": EvaluatorConfig(threads=1), "b": EvaluatorConfig(threads=2)}
    with pytest.raises(InputError, match="threads"):
        engine.run(random_searcher(), configs, None, tmp_path)


def test_disk_full_in_the_middle_of_a_run(patch, tmp_path):
    """The journal stays whole, and the same run goes on once there is room."""
    real = os.write
    budget = [12_000]

    def write(handle, data):
        budget[0] -= len(data)
        if budget[0] < 0:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    run(patch, tmp_path / "whole", LearningSearcher())
    patch.setattr(os, "write", write)
    with pytest.raises(JournalError, match="No space left"):
        run(patch, tmp_path / "full", LearningSearcher())
    patch.setattr(os, "write", real)
    text = (tmp_path / "full" / "trials.jsonl").read_text()
    assert text.endswith("\n") and all(json.loads(row) for row in text.splitlines())
    run(patch, tmp_path / "full", LearningSearcher(), resume=True)
    assert lines(tmp_path / "full") == lines(tmp_path / "whole")
