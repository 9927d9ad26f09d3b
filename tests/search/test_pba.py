"""PBA: levels and exploring by counts, members that go on exactly, who replaces whom, runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policies import CIFAR10, IMAGENET, PolicyTransform, load_schedule, save_schedule
from policies.augmentations import encode_augmentation
from policies.errors import InputError
from policies.schedule import (
    Schedule,
    ScheduleTransform,
    augmentation_for_epoch,
)
from proxy_tasks import EvaluatorConfig, get_task
from proxy_tasks.evaluators.registry import make_evaluator
from search import Config
from search.errors import JournalError
from search.searchers.population import (
    OPS,
    SPACE,
    PopulationSearcher,
    ancestry,
    explore,
    levels_to_policy,
    schedule_of,
    start_levels,
)
from search.studies.pba import run_pba
from search.testing import SearcherContract, evaluation
from tests.proxy_tasks.test_evaluators import torch_bytes
from tests.search.commands import answer, ending, invoke
from tests.search.fakes import FakePool, bad, good, trial

SCHEDULE = Schedule([(0, IMAGENET), (4, CIFAR10), (9, [[("Rotate", 0.5, 3)]])], epochs=10)


@pytest.fixture(scope="module")
def task():
    return get_task("reduced-fashion", train_images=60, validation_images=40, test_images=20)


# Schedules -----------------------------------------------------------------------------------


def test_which_policy_when():
    assert [SCHEDULE.policy_at(e) for e in (0, 3, 4, 8)] == [IMAGENET, IMAGENET, CIFAR10, CIFAR10]
    assert SCHEDULE.policy_at(9)[0][0].name == "Rotate"
    # Stretched to 100 epochs: ten for each of the ten.
    for first, last, wanted in ((0, 39, 0), (40, 89, 1), (90, 99, 2)):
        for epoch in (first, last):
            assert SCHEDULE.policy_at(epoch, 100) == SCHEDULE[wanted][1]
    for epoch in (-1, 10):
        with pytest.raises(InputError, match="epoch"):
            SCHEDULE.policy_at(epoch)


def test_transform_of_an_epoch_draws_on_one_generator():
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)

    def augmented(transform):
        return [augmentation_for_epoch(transform, e, 10)(images) for e in (0, 1, 4)]

    def seeded():
        return torch.Generator().manual_seed(3)

    transform = ScheduleTransform(SCHEDULE).with_generator(seeded())
    one = augmented(transform)
    two = augmented(ScheduleTransform(SCHEDULE, seeded()))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    generator = seeded()
    for epoch, got in zip((0, 1, 4), one, strict=True):
        wanted = PolicyTransform(SCHEDULE.policy_at(epoch), generator=generator)(images)
        assert torch.equal(wanted, got)
    plain = PolicyTransform(IMAGENET)
    assert augmentation_for_epoch(plain, 3, 10) is plain
    assert augmentation_for_epoch(None, 3, 10) is None


def test_file_round_trip(tmp_path):
    save_schedule(tmp_path / "s.json", SCHEDULE, {"reward": 0.5})
    assert load_schedule(tmp_path / "s.json") == SCHEDULE
    assert pickle.loads(pickle.dumps(SCHEDULE)) == SCHEDULE
    assert json.loads((tmp_path / "s.json").read_text())["provenance"] == {"reward": 0.5}


@pytest.mark.parametrize(("rows", "epochs", "text"), [
    ([], 5, "at least one"),
    ([(1, IMAGENET)], 5, "start at 0"),
    ([(0, IMAGENET), (0, IMAGENET)], 5, "ascend"),
    ([(0, IMAGENET), (5, IMAGENET)], 5, "at least 6"),
    ([(0.0, IMAGENET)], 5, "start at 0"),
    ([0], 5, "pair"),
    ([(0, [[("Rotat", 0.5, 3)]])], 5, "Rotate"),
])  # fmt: skip
def test_schedules_that_are_refused(rows, epochs, text):
    with pytest.raises(InputError, match=text):
        Schedule(rows, epochs)


@pytest.mark.parametrize("change", [
    lambda d: d.update(format="augsearch-policy"),
    lambda d: d.update(version=2),
    lambda d: d.update(epochs="ten"),
    lambda d: d.update(ranges=[[0, []]]),
    lambda d: d["ranges"][0].update(policy=[[["Rotate", 2.0, 3]]]),
    lambda d: d["ranges"][0].update(first_epoch=None),
    lambda d: d.pop("epochs"),
])  # fmt: skip
def test_files_that_are_refused(tmp_path, change):
    path = tmp_path / "s.json"
    save_schedule(path, SCHEDULE)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError):
        load_schedule(path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match="JSON"):
        load_schedule(path)
    with pytest.raises(InputError, match="existing"):
        load_schedule(tmp_path / "none.json")


# Levels --------------------------------------------------------------------------------------


def test_the_start_does_nothing_and_every_operation_comes_twice():
    policy = levels_to_policy(start_levels(), 0)
    names = [operation.name for row in policy for operation in row]
    assert sorted(names) == sorted(2 * OPS)
    images = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8)
    assert torch.equal(PolicyTransform(policy)(images), images)
    # Each level is that of one operation: all distinct positions are read.
    for place in range(len(start_levels())):
        levels = start_levels()
        levels[place] = 7
        changed = [(a, b) for x, y in zip(policy, levels_to_policy(levels, 0), strict=True)
                   for a, b in zip(x, y, strict=True) if a != b]  # fmt: skip
        if place % 2 == 0:
            assert [b.probability for _, b in changed] == [0.7]
            assert changed[0][1].name == OPS[place // 2 % len(OPS)]
        else:
            assert len(changed) <= 1


@given(seed=st.integers(0, 1000), rounds=st.integers(1, 20))
def test_explored_levels_are_legal(seed, rounds):
    rng = np.random.default_rng(seed)
    levels = start_levels()
    for _ in range(rounds):
        levels = explore(levels, rng)
    assert all(type(level) is int for level in levels)
    assert SPACE.contains(levels_to_policy(levels, seed))


def test_exploring_moves_by_the_published_chances():
    """A level in the middle: anew with 0.2, else 0 to 3 steps up or down. chi-squared, seeded."""
    rng = np.random.default_rng(0)
    levels = [5, 5] * 30
    moved = np.array([explore(levels, rng) for _ in range(1500)])
    for column, choices in ((0, 11), (1, 10)):
        wanted = np.full(choices, 0.2 / choices)
        wanted[5] += 0.8 / 4
        for step in (1, 2, 3):
            wanted[[5 - step, 5 + step]] += 0.8 / 8
        counts = np.bincount(moved[:, column::2].ravel(), minlength=choices)
        assert stats.chisquare(counts, wanted * counts.sum()).pvalue > 1e-4


# Members -------------------------------------------------------------------------------------


def test_a_member_goes_on_as_if_it_had_never_been_left(task):
    """Two epochs and two more, in another process, are the four of a longer interval."""
    config = EvaluatorConfig("population", epochs=4, options={"interval": 2})
    first, left = make_evaluator(config, task).go_on(IMAGENET, 1, "validation", None)
    second, end = make_evaluator(config, task).go_on(IMAGENET, 1, "validation", left)
    whole = make_evaluator(replace(config, options={"interval": 9}), task)
    straight, straight_end = whole.go_on(IMAGENET, 1, "validation", None)
    assert straight.metrics == second.metrics != first.metrics
    assert (first.details["epoch"], second.details["epoch"]) == (2, 4)
    assert first.image_passes + second.image_passes - straight.image_passes == pytest.approx(13, 1)
    states = [torch.load(io.BytesIO(b), weights_only=True) for b in (end, straight_end)]
    assert states[0]["epoch"] == states[1]["epoch"] == 4
    for name, value in states[0]["learner"]["network"].items():
        assert torch.equal(value, states[1]["learner"]["network"][name])


def test_what_a_member_inherits_matters(task):
    config = EvaluatorConfig("population", epochs=4, options={"interval": 2})
    evaluator = make_evaluator(config, task)
    heirs = []
    for seed in (1, 2):
        _, left = evaluator.go_on(None, seed, "validation", None)
        heirs.append(evaluator.go_on(None, 3, "validation", left)[0].metrics)
    assert heirs[0] != heirs[1]
    assert evaluator.evaluate(None, 3).metrics not in heirs


@pytest.mark.parametrize("content", [b"", b"PK", torch_bytes({"epoch": 1})])
def test_a_foreign_inheritance_is_refused(task, content):
    evaluator = make_evaluator(EvaluatorConfig("population", epochs=4), task)
    with pytest.raises(InputError, match="artifact: must be"):
        evaluator.go_on(None, 0, "validation", content)


def test_nothing_in_an_inheritance_is_executed(task, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    evaluator = make_evaluator(EvaluatorConfig("population", epochs=4), task)
    for content in (pickle.dumps(Evil(), 2), torch_bytes({"epoch": Evil()})):
        with pytest.raises(InputError, match="artifact: must be"):
            evaluator.go_on(None, 0, "validation", content)
    assert not (tmp_path / "executed").exists()


# Populations ---------------------------------------------------------------------------------


class TestPopulation(SearcherContract):
    count = 40

    def make(self, seed):
        return PopulationSearcher(6, 20, seed)

    def space_contains(self, searcher, candidate):
        return SPACE.contains(candidate.augmentation)


def test_the_worst_quarter_goes_on_from_the_best_and_explores():
    searcher = PopulationSearcher(8, 3, seed=4)
    first = [searcher.ask() for _ in range(8)]
    assert searcher.ask() is None
    rewards = [0.5, 0.1, 0.9, 0.4, 0.4, 0.2, 0.8, 0.3]
    for candidate, reward in zip(first, rewards, strict=True):
        assert candidate.parent is None
        searcher.tell(candidate, evaluation(reward))
    second = [searcher.ask() for _ in range(8)]
    for slot in (0, 2, 3, 4, 6, 7):
        assert second[slot].parent == (0, slot)
        assert second[slot].augmentation == first[slot].augmentation
    for slot in (1, 5):
        assert second[slot].parent in {(0, 2), (0, 6)}
        assert second[slot].augmentation != first[slot].augmentation
        assert second[slot].seed == first[slot].seed
    assert searcher.may_continue((0, 2)) and not searcher.finished
    for candidate in second:
        searcher.tell(candidate, evaluation(0.5))
    searcher.ask()
    assert not searcher.may_continue((0, 2)) and searcher.may_continue((1, 2))


def test_who_failed_or_diverged_is_replaced_however_many():
    searcher = PopulationSearcher(4, 2)
    for slot in range(4):
        result = evaluation(0.5 if slot == 2 else 9.0)
        failed = None if slot == 0 else replace(result, diverged=slot != 2)
        searcher.tell(searcher.ask(), failed)
    assert [searcher.ask().parent for _ in range(4)] == [(0, 2)] * 4


def test_a_population_that_died_out_is_at_its_end():
    searcher = PopulationSearcher(4, 5)
    for _ in range(4):
        searcher.tell(searcher.ask(), None)
    assert searcher.finished and searcher.ask() is None


def planted_trials():
    """Three generations of four; the best at the end, member 1, came from member 3."""
    policies = [levels_to_policy([(7 * i + j) % 10 for j in range(60)], 0) for i in range(12)]
    rewards = {(2, 1): 0.9, (2, 0): 0.9, (2, 3): 0.2}
    parents = {(2, 1): (1, 3), (1, 3): (0, 0)}
    trials = [
        trial(g, s, augmentation=encode_augmentation(policies[4 * min(g, 1) + s]),
              parent=parents.get((g, s), (g - 1, s)) if g else None,
              evaluation=evaluation(rewards.get((g, s), 0.3)))
        for g in range(3) for s in range(4)
    ]  # fmt: skip
    trials[8] = replace(trials[8], evaluation=replace(evaluation(1e9), diverged=True))
    return trials, policies


def test_the_schedule_is_that_of_the_best_ones_ancestors():
    trials, policies = planted_trials()
    assert [t.key for t in ancestry(trials, (2, 1))] == [(0, 0), (1, 3), (2, 1)]
    schedule, best = schedule_of(trials, 3, 2, 5)
    assert best.key == (2, 1)
    assert schedule == Schedule([(0, policies[0]), (2, policies[7]), (4, policies[5])], 5)
    assert schedule_of(trials, 4, 2, 8) is None


def test_epochs_under_one_policy_are_one_range():
    trials, policies = planted_trials()
    trials = [replace(t, augmentation=trials[0].augmentation) for t in trials]
    assert schedule_of(trials, 3, 2, 5)[0] == Schedule([(0, policies[0])], 5)


# Runs ----------------------------------------------------------------------------------------


def test_bad_arguments(tmp_path):
    for change in ({"population": 3}, {"interval": 0}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(change))):
            Config.of("pba", **change)
    (tmp_path / "old").write_text("")
    for resume in (False, True):
        with pytest.raises(InputError, match="new folder"):
            run_pba(Config.of("pba"), tmp_path, resume=resume)
    with pytest.raises(InputError, match="children: must be 4 seeds"):
        PopulationSearcher(4, children=[1, 2])


COMMAND = """pba --population 4 --interval 1 --epochs 3 --task reduced-fashion --train-images 20
    --validation-images 20 --workers 3 --retries 0"""


def child(job):
    return replace(good(job), artifact=b"weights")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_as_it_ends_any_run(tmp_path, number, code):
    class Signalling(FakePool):
        sent = False

        def wait(self, timeout):
            if len(self.submitted) > 6 and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)
            return super().wait(timeout)

    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    previous = signal.signal(number, default)
    try:
        said = invoke(f"{COMMAND} --quiet", tmp_path, Signalling(0, child), code=code)
    finally:
        signal.signal(number, previous)
    assert "augsearch resume run" in said
    invoke("resume run --quiet", tmp_path, FakePool(0, child))
    assert (tmp_path / "run" / "schedule.json").is_file()


@pytest.mark.parametrize("quiet", [False, True])
def test_it_shows_how_far_it_is_unless_it_is_to_be_quiet(tmp_path, monkeypatch, quiet):
    monkeypatch.setattr("search.engine.progress.SECONDS_BETWEEN_LINES", 0.0)
    said = invoke(COMMAND + " --quiet" * quiet, tmp_path, FakePool(0, child))
    assert ("12 of " in said or "12 evaluations" in said) is not quiet, said
    assert ("best reward" in said) is not quiet, said


class TestFailedMember:
    """A member of the second of six generations failed; the others went on."""

    COMMAND = COMMAND.replace("--epochs 3", "--epochs 6") + " --quiet"

    @staticmethod
    def child(job):
        weights = (job.artifact or b"") + repr(job.candidate.key).encode()
        return replace(answer(job), artifact=weights)

    def failing(self, job):
        return bad(job) if job.candidate.key == (1, 1) else self.child(job)

    @pytest.fixture
    def broken(self, tmp_path):
        said = invoke(self.COMMAND, tmp_path / "broken", FakePool(answer=self.failing), code=1)
        assert "1 of 24 evaluations failed" in said
        return tmp_path / "broken"

    def test_is_made_again_with_all_that_followed(self, broken, tmp_path):
        invoke(self.COMMAND, tmp_path / "whole", FakePool(answer=self.child))
        invoke("resume run --retry-failed --quiet", broken, FakePool(answer=self.child))
        assert ending(broken / "run", ()) == ending(tmp_path / "whole" / "run", ())

    def test_without_what_it_went_on_from_nothing_is_lost(self, broken):
        journal = broken / "run" / "trials.jsonl"
        lines = journal.read_bytes()
        for path in (broken / "run" / "artifacts").glob("0-*.bin"):
            path.unlink()
        said = invoke(
            "resume run --retry-failed --quiet", broken, FakePool(answer=self.child), code=2
        )
        assert "must find what the failed evaluations had gone on from" in said
        assert journal.read_bytes() == lines


@pytest.mark.long
@pytest.mark.usefixtures("in_process")
def test_a_population_survives_a_kill_with_the_same_schedule(tmp_path):
    config = Config.of(
        "pba", population=4, interval=1, seed=1, epochs=4, workers=2,
        train_images=60, validation_images=40,
    )  # fmt: skip

    def run(folder, **options):
        return run_pba(config, tmp_path / folder, progress=False, **options)[0]

    schedule = run("whole")
    assert schedule.epochs == 4
    assert all(SPACE.contains(policy) for _, policy in schedule)
    saved = (tmp_path / "whole" / "schedule.json").read_bytes()
    # Only the weights of the last two generations are kept.
    kept = {path.stem for path in (tmp_path / "whole" / "artifacts").iterdir()}
    assert kept == {f"{g}-{s}" for g in (2, 3) for s in range(4)}
    assert run("whole", resume=True) == schedule

    # As a kill in the third generation would leave it: its artifacts are there, its lines partly.
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    journal = tmp_path / "killed" / "trials.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    third = [number for number, line in enumerate(lines) if json.loads(line)["batch"] == 3]
    journal.write_bytes(b"".join(lines[: third[1]]) + lines[third[1]][:50])
    (tmp_path / "killed" / "schedule.json").unlink()
    assert run("killed", resume=True) == schedule
    assert (tmp_path / "killed" / "schedule.json").read_bytes() == saved

    # An artifact with a flipped bit is never gone on from.
    journal.write_bytes(b"".join(lines[: third[0]]))
    (tmp_path / "killed" / "schedule.json").unlink()
    for broken in (tmp_path / "killed" / "artifacts").glob("2-*.bin"):
        content = bytearray(broken.read_bytes())
        content[len(content) // 2] ^= 1
        broken.write_bytes(content)
    with pytest.raises(JournalError, match=r"2-\d.bin is damaged"):
        run("killed", resume=True)
    with pytest.raises(InputError, match="resume"):
        run_pba(config.changed(population=5), tmp_path / "whole", resume=True)
