"""Evaluations that fail: retried, told, counted, journalled, and made again on request."""

from __future__ import annotations

import json
import logging
import math
import pickle
from dataclasses import replace

import pytest

from policies import Policy
from policies.errors import InputError
from search import FixedSearcher, fixed_candidates
from search.engine import loop
from search.engine.budget import Budget
from search.engine.worker import failure
from search.errors import WorkerError, resume_command
from search.runs.journal import Journal
from search.trial import CHEAP
from tests.search.commands import PLANTED, answer, ending, invoke
from tests.search.fakes import (
    FakePool,
    Killed,
    LearningSearcher,
    bad,
    good,
    random_searcher,
)
from tests.search.running import lines, run


def test_retries_are_bounded_counted_and_journalled(patch, tmp_path):
    def answer(job):
        if job.candidate.key == (0, 2) and job.attempt < 3:
            return bad(job, "crash")
        return bad(job, "timeout") if job.candidate.key == (1, 1) else None

    pool = FakePool(3, answer)
    result = run(patch, tmp_path, random_searcher(), pool, config={"retries": 2})
    assert (result.ok, result.failed, result.retried) == (39, 1, 4)
    with Journal(tmp_path / "trials.jsonl") as journal:
        assert journal.get((0, 2)).attempts == 3 and journal.get((0, 2)).status == "ok"
        assert journal.get((0, 0)).attempts == 1
        failed = journal.get((1, 1))
    assert failed.attempts == 3 and failed.status == "failed"
    assert failed.error == "ValueError: no" and failed.evaluation is None
    tries = [job.attempt for job in pool.submitted if job.candidate.key == (1, 1)]
    assert tries == [1, 2, 3]
    log = (tmp_path / "run.log").read_text()
    assert log.count("Traceback: all of it") == 5
    assert "batch 1, slot 1, attempt 3 of 3 on host:1: ValueError: no" in log


def test_a_failed_candidate_is_told_as_none_and_the_search_goes_on(patch, tmp_path):
    told = {}

    class Recording(LearningSearcher):
        def tell(self, candidate, evaluation):
            told[candidate.key] = evaluation
            super().tell(candidate, evaluation)

    answer = lambda job: bad(job) if job.candidate.slot == 0 else None  # noqa: E731
    run(patch, tmp_path, Recording(), FakePool(1, answer))
    assert len(told) == 40
    assert {key for key, value in told.items() if value is None} == {(b, 0) for b in range(8)}


@pytest.mark.parametrize("where", ["reward", "metrics"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_fail_the_attempt(patch, tmp_path, where, value):
    def answer(job):
        outcome = good(job)
        if job.candidate.key != (0, 1):
            return outcome
        data = outcome.evaluation
        changed = {"reward": value} if where == "reward" else {"metrics": {"accuracy": value}}
        return replace(outcome, evaluation={**data, **changed})

    result = run(patch, tmp_path, random_searcher(), FakePool(0, answer), evaluations=6)
    assert (result.ok, result.failed) == (5, 1)
    name = "evaluation.reward" if where == "reward" else "evaluation.metrics.accuracy"
    assert lines(tmp_path)[0, 1]["error"] == f"{name} is {value}"


def test_a_diverged_child_is_a_result(patch, tmp_path):
    def answer(job):
        outcome = good(job)
        return replace(outcome, evaluation={**outcome.evaluation, "diverged": True})

    result = run(patch, tmp_path, random_searcher(), FakePool(0, answer), evaluations=6)
    assert result.ok == 6


def test_too_many_failures_in_a_row_stop_with_the_first_error(patch, tmp_path):
    def answer(job):
        key = job.candidate.key
        return None if key == (0, 0) else bad(job, error=f"OSError: no data at {key}")

    pool = FakePool(0, answer)
    patch.setattr("search.engine.failures.MAX_IN_A_ROW", 5)
    with pytest.raises(WorkerError, match=r"5 candidates in a row failed; the first with: OSError"):
        run(
            patch,
            tmp_path,
            random_searcher(),
            pool,
            workers=1,
            config={"retries": 0},
        )
    assert len(lines(tmp_path)) == 6
    assert "no data at (0, 1)" in (tmp_path / "run.log").read_text()


def test_failures_in_between_do_not_stop(patch, tmp_path):
    answer = lambda job: bad(job) if job.candidate.slot % 2 else None  # noqa: E731
    patch.setattr("search.engine.failures.MAX_IN_A_ROW", 2)
    result = run(
        patch,
        tmp_path,
        random_searcher(),
        FakePool(0, answer),
        workers=1,
        config={"retries": 0},
    )
    assert result.failed == 20


def warnings_in(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("workers", "retries", "attempts"), [(1, 0, 2), (1, 2, 4), (2, 2, 3), (5, 1, 5)]
)
def test_an_evaluator_that_never_works_is_said_once(
    patch, tmp_path, caplog, workers, retries, attempts
):
    """Not once for each attempt of each of ten candidates on each worker."""
    pool = FakePool(0, lambda job: bad(job, error=f"KeyError: seed {job.candidate.seed}"))
    with pytest.raises(WorkerError, match=rf"no evaluation .* {attempts} attempts ended with: Key"):
        run(patch, tmp_path, random_searcher(), pool, workers=workers, config={"retries": retries})
    told, counted = warnings_in(caplog)
    assert "KeyError: seed" in told
    assert counted == f"{attempts} attempts ended with: KeyError: seed #"
    log = (tmp_path / "run.log").read_text()
    assert log.count("Traceback: all of it") == attempts + 1
    # Ended after that many, and nothing is kept of what would be made again.
    assert len(lines(tmp_path)) == (attempts - 1) // (retries + 1) * (workers == 1)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("hopeless", [{(0, 0)}, {(3, 1), (3, 2)}])
def test_a_few_candidates_that_always_fail_end_no_run_however_often_it_is_resumed(
    patch, tmp_path, workers, hopeless
):
    """Where one is the first to be asked for, too, and where there are no others left: others have
    worked, or will."""
    answer = lambda job: bad(job) if job.candidate.key in hopeless else None  # noqa: E731
    whole = run(patch, tmp_path / "whole", random_searcher(), FakePool(0, answer), workers=workers)
    assert (whole.finished, whole.failed) == (40, len(hopeless))
    with pytest.raises(Killed):
        run(patch, tmp_path / "run", random_searcher(), FakePool(0, answer, killed_after=16),
            workers=workers)  # fmt: skip
    for again in ({}, {"retry_failed": True}):
        result = run(patch, tmp_path / "run", random_searcher(), FakePool(0, answer),
                     workers=workers, resume=True, **again)  # fmt: skip
        assert (result.finished, result.failed) == (40, len(hopeless))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_a_mistake_of_the_user_is_not_tried_again(patch, tmp_path, caplog):
    mistake = InputError("augmentation", "must not be a schedule", "a schedule", "use another")

    def answer(job):
        wrong = job.candidate.key == (1, 2)
        return replace(bad(job, error="InputError: ..."), mistake=mistake) if wrong else None

    pool = FakePool(0, answer)
    with pytest.raises(InputError) as caught:
        run(patch, tmp_path, random_searcher(), pool, workers=1)
    assert caught.value is mistake
    assert len(pool.submitted) == 9 == len(lines(tmp_path)) + 1
    assert warnings_in(caplog) == []  # whoever catches it says it


class Own(InputError):
    def __init__(self):
        super().__init__("own", "must", (each for each in ()), "fix")


@pytest.mark.parametrize("error", [InputError("a", "must", (each for each in ()), "fix"), Own()])
def test_a_mistake_about_what_cannot_travel_is_a_mistake_elsewhere(error):
    there = pickle.loads(pickle.dumps(failure(error)))
    assert isinstance(there["mistake"], InputError) and str(there["mistake"]) == str(error)


def test_results_that_come_with_a_fatal_failure_are_kept(patch, tmp_path):
    mistake = InputError("a", "must", 1, "fix")

    class Together(FakePool):
        def wait(self, timeout):
            jobs, self._jobs = sorted(self._jobs, key=lambda job: job.candidate.key), []
            return [
                replace(bad(job), mistake=mistake) if job.candidate.slot == 2 else good(job)
                for job in jobs
            ]

    with pytest.raises(InputError):
        run(patch, tmp_path, random_searcher(), Together(), workers=3)
    assert sorted(lines(tmp_path)) == [(0, 0), (0, 1)]


def test_the_same_error_is_shown_once_in_a_run_that_goes_on(patch, tmp_path, caplog):
    answer = lambda job: bad(job) if job.candidate.slot == 3 else None  # noqa: E731
    result = run(patch, tmp_path, random_searcher(), FakePool(0, answer), workers=1)
    assert result.failed == 7
    told, counted = warnings_in(caplog)
    assert "slot 3, attempt 1 of 3" in told and counted == "21 attempts ended with: ValueError: no"
    assert (tmp_path / "run.log").read_text().count("Traceback") == 21


# Failures made again -------------------------------------------------------------------------


def failing_at(*keys):
    return lambda job: bad(job) if job.candidate.key in keys else None


def test_failures_are_made_again_on_request_only(patch, tmp_path):
    """A fixed list: nothing but what failed, duplicates of it included."""
    arms = {"none": None, "twin": None, "rotate": Policy([[("Rotate", 0.5, 3)]])}
    candidates = fixed_candidates(arms, [1, 2, 3])
    run(patch, tmp_path / "whole", FixedSearcher(candidates), evaluations=None)
    broken, pool = tmp_path / "broken", FakePool(0, failing_at((1, 0)))
    assert run(patch, broken, FixedSearcher(candidates), pool, evaluations=None).failed == 1
    again = run(patch, broken, FixedSearcher(candidates), evaluations=None, resume=True)
    assert (again.new, again.failed) == (0, 1)
    pool = FakePool()
    mended = run(
        patch, broken, FixedSearcher(candidates), pool,
        evaluations=None, resume=True, retry_failed=True,
    )  # fmt: skip
    assert [job.candidate.key for job in pool.submitted] == [(1, 0)]
    assert (mended.new, mended.ok, mended.failed, mended.duplicates) == (2, 6, 0, 3)
    assert lines(broken) == lines(tmp_path / "whole")


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_what_was_learnt_from_a_failure_is_made_again_too(patch, tmp_path, lag):
    """Batches are of 5: after a mended failure in batch 2 the run is as if nothing had failed."""

    def new():
        return LearningSearcher(lag=lag)

    run(patch, tmp_path / "whole", new())
    broken, pool = tmp_path / "broken", FakePool()
    assert run(patch, broken, new(), FakePool(1, failing_at((2, 3), (5, 0)))).failed == 2
    result = run(patch, broken, new(), pool, resume=True, retry_failed=True)
    assert lines(broken) == lines(tmp_path / "whole")
    kept = 5 * (2 + lag + 1) - 1
    assert result.new == len(pool.submitted) == 40 - kept


def crashing(job):
    return bad(job, "crash")


def test_a_run_stopped_by_failures_can_be_completed(patch, tmp_path):
    with pytest.raises(WorkerError, match=r"augsearch resume \S*broken --retry-failed") as caught:
        run(patch, tmp_path / "broken", LearningSearcher(), FakePool(0, crashing))
    assert caught.value.exit_code == 1
    run(patch, tmp_path / "whole", LearningSearcher())
    run(patch, tmp_path / "broken", LearningSearcher(), resume=True, retry_failed=True)
    assert lines(tmp_path / "broken") == lines(tmp_path / "whole")


def test_an_evaluator_that_the_run_has_not_is_told_before_the_first_worker(patch, tmp_path):
    [one] = fixed_candidates({"none": None}, [7])
    with pytest.raises(InputError, match="must ask evaluators of the run, main.*, but got 'cheap'"):
        run(patch, tmp_path, FixedSearcher([replace(one, scorer=CHEAP)]), evaluations=None)
    assert not (tmp_path / "trials.jsonl").read_bytes()


def test_steps_of_less_than_a_tenth_of_a_child_count_for_the_time_left(patch, tmp_path):
    told = []
    patch.setattr(loop.Progress, "update", lambda self, done, new, *_: told.append(new))
    budget = Budget(400, {"main": 4}, unit=100)
    run(patch, tmp_path, random_searcher(), evaluations=None, workers=1, budget=budget)
    assert sum(told) == pytest.approx(4)


def test_the_command_to_go_on_with_names_the_run_not_its_stage(tmp_path):
    for folder, kind in (("re", "rederive"), ("re/search", "search"), ("s", "search"),
                         ("rep", "replicate"), ("rep/draw-0/ppo/select", "select")):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text(json.dumps({"kind": kind}))
    (tmp_path / "config.json").write_text('{"of": "another program"}')
    for folder, named in (
        ("re/search", "re"),
        ("rep/draw-0/ppo/select", "rep"),
        ("rep/draw-0/ppo/select/final", "rep"),
        ("s/final", "s"),
        ("s", "s"),
        ("elsewhere", "elsewhere"),
    ):
        assert resume_command(tmp_path / folder) == f"augsearch resume {tmp_path / named}"
    # A run that a user put there is no stage.
    (tmp_path / "s/another").mkdir()
    (tmp_path / "s/another/config.json").write_text('{"kind": "select"}')
    assert resume_command(tmp_path / "s/another", "--retry-failed").endswith(
        "s/another --retry-failed"
    )


def test_a_search_with_failures_is_not_complete(place):
    """Exit code 1 whenever it is asked, until they are made again; then the undisturbed end."""
    command = f"search {PLANTED} --searcher random --evaluations 20"

    def failing(job):
        return bad(job) if job.candidate.key == (0, 1) else answer(job)

    whole, broken = place("whole"), place("broken")
    invoke(command, whole)
    for words in (command, "resume run --quiet"):
        said = " ".join(invoke(words, broken, FakePool(answer=failing), code=1).split())
        assert "1 of 20 evaluations failed" in said and "resume run --retry-failed" in said
    invoke("resume run --retry-failed --quiet", broken)
    assert ending(broken / "run", ["policy.*"]) == ending(whole / "run", ["policy.*"])
