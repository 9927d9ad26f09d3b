"""PBA: levels and exploring by counts, members that go on exactly, a run through Tune, the file."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policies import CIFAR10, IMAGENET, Policy, PolicyTransform, load_schedule, save_schedule
from policies.errors import InputError
from policies.schedule import (
    Schedule,
    ScheduleTransform,
    augmentation_for_epoch,
)
from proxy_tasks import EvaluatorConfig, get_task
from search import Config
from search.studies.pba import (
    OPS,
    SPACE,
    Member,
    explore,
    levels_to_policy,
    run_pba,
    start_levels,
)

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
    ([(0, IMAGENET), (5, IMAGENET)], 5, "above 5"),
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


def test_a_member_goes_on_from_a_checkpoint_exactly(task):
    config = EvaluatorConfig(epochs=4)
    policies = [levels_to_policy(start_levels(), 0), CIFAR10]
    straight = Member(config, task, 1)
    for policy in policies:
        straight.train(policy, 2)
    first = Member(config, task, 1)
    first.train(policies[0], 2)
    second = Member(config, task, 1)
    second.load_state_dict(first.state_dict())
    second.train(policies[1], 2)
    assert second.epoch == straight.epoch == 4
    for a, b in zip(
        straight.learner.network.parameters(), second.learner.network.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert straight.reward() == second.reward()
    straight.train(CIFAR10, 2)
    assert straight.epoch == 4  # over


def test_bad_arguments(tmp_path):
    for change in ({"population": 3}, {"interval": 0}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(change))):
            Config.of("pba", **change)
    (tmp_path / "old").write_text("")
    for resume in (False, True):
        with pytest.raises(InputError, match="new folder"):
            run_pba(Config.of("pba"), tmp_path, resume=resume)


@pytest.mark.ray
def test_a_population_through_tune(tmp_path):
    config = Config.of(
        "pba", population=4, interval=1, seed=1, epochs=4, workers=2,
        train_images=60, validation_images=40,
    )  # fmt: skip
    schedule = run_pba(config, tmp_path / "run")
    assert schedule.epochs == 4
    assert all(SPACE.contains(policy) for _, policy in schedule)
    assert isinstance(schedule[0][1], Policy)
    saved = (tmp_path / "run" / "schedule.json").read_bytes()
    # Complete: resuming trains nothing; another configuration is refused.
    again = run_pba(config, tmp_path / "run", resume=True)
    assert again == schedule
    assert (tmp_path / "run" / "schedule.json").read_bytes() == saved
    with pytest.raises(InputError, match="resume"):
        run_pba(config.changed(population=5), tmp_path / "run", resume=True)
