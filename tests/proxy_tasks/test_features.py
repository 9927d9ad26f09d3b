"""Policies in numbers: against what is counted from the images' point of view."""

from __future__ import annotations

import numpy as np
import pytest

from policies import (
    IMAGENET,
    InputError,
    Policy,
    PolicyTransform,
    RandAugment,
    Schedule,
    ScheduleTransform,
    TrivialAugmentWide,
    UniformAugment,
)
from proxy_tasks.features import NAMES, NUM_FEATURES, SUMMARIES, policy_features


def summaries(augmentation):
    return dict(zip(SUMMARIES, policy_features(augmentation)[-len(SUMMARIES) :], strict=True))


def of_operation(augmentation, name):
    """(times applied, times strength -1..1, times squared strength less a third)."""
    return policy_features(augmentation)[: 3 * len(NAMES)].reshape(-1, 3)[NAMES.index(name)]


def test_by_hand():
    policy = Policy([
        [("Rotate", 0.5, 9), ("Invert", 0.2, None)],
        [("Rotate", 1.0, 0), ("Rotate", 0.0, 4)],
    ])  # fmt: skip
    assert of_operation(policy, "Rotate") == pytest.approx([0.75, 0.25 - 0.5, 0.75 * 2 / 3])
    assert of_operation(policy, "Invert") == pytest.approx([0.1, 0.1, 0.1 * 2 / 3])
    found = summaries(policy)
    assert found["applied"] == pytest.approx(0.85)
    assert found["untouched"] == pytest.approx((0.5 * 0.8 + 0) / 2)
    assert found["repeats"] == 0
    assert summaries(Policy([*policy, *policy]))["repeats"] == 0.5
    # The operations count, in whatever order and with whatever magnitudes.
    turned = [policy[0], policy[0][::-1], [("Rotate", 1.0, 1)], [("Rotate", 0.1, 2)]]
    assert summaries(Policy(turned))["repeats"] == 0.5


def test_no_augmentation_is_nothing():
    assert summaries(None)["untouched"] == 1 and policy_features(None)[: 3 * len(NAMES)].max() == 0
    never = Policy([[("Rotate", 0.0, 9)]])
    np.testing.assert_array_equal(policy_features(never), policy_features(None))


@pytest.mark.parametrize("transform", [RandAugment(2, 9), RandAugment(1, 30), TrivialAugmentWide()])
def test_a_transform_has_the_features_of_the_policy_that_it_is(transform):
    policy = PolicyTransform(transform.as_policy(), transform.convention)
    # As many of its sub-policies differ only in the place of an operation; that is not counted.
    np.testing.assert_allclose(
        policy_features(transform)[: 3 * len(NAMES) + 3],
        policy_features(policy)[: 3 * len(NAMES) + 3],
        atol=1e-12,
    )


@pytest.mark.long
def test_uniform_augment_is_the_mean_of_what_it_draws():
    rng = np.random.default_rng(0)
    names = NAMES[:15]
    rows = [
        [(names[rng.integers(15)], rng.integers(11) / 10, int(rng.integers(10))) for _ in range(2)]
        for _ in range(16_000)
    ]
    rows = [[(n, p, None if n in ("AutoContrast", "Invert", "Equalize") else m)
             for n, p, m in row] for row in rows]  # fmt: skip
    drawn, exact = policy_features(Policy(rows)), policy_features(UniformAugment())
    # 32,000 operations: the share of one has a standard error of 0.0014. Squared strengths of ten
    # magnitudes and of a continuum differ by 0.005, of Posterize, which rounds to bits, by 0.012.
    np.testing.assert_allclose(drawn[:-5], exact[:-5], atol=0.014)
    assert drawn[-4] == pytest.approx(exact[-4], abs=0.01)


def test_the_order_of_sub_policies_says_nothing():
    np.testing.assert_allclose(
        policy_features(Policy(IMAGENET[::-1])), policy_features(IMAGENET), atol=1e-12
    )
    assert policy_features(IMAGENET).shape == (NUM_FEATURES,)


def test_a_schedule_is_refused():
    schedule = Schedule.from_json(
        {"epochs": 2, "ranges": [{"first_epoch": 0, "policy": IMAGENET.to_json()}]}
    )
    with pytest.raises(InputError, match="one distribution"):
        policy_features(ScheduleTransform(schedule))


def test_variety_is_the_logarithm_of_the_number_of_sub_policies():
    row = [("Rotate", 0.5, 9)]
    for augmentation, count in (
        (None, 1), (Policy([row, row]), 1), (Policy([row, [("Rotate", 0.5, 8)]]), 2),
        (RandAugment(2, 9), 14**2), (RandAugment(3, 9), 1000), (UniformAugment(), 1000),
    ):  # fmt: skip
        assert summaries(augmentation)["variety"] == pytest.approx(np.log(count) / np.log(1000))
