"""Spaces: numbering is a bijection up to magnitudes that mean nothing, sampling is uniform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policies import IMAGENET, OPS, PAPER_OPS, Policy, RandAugment, TrivialAugmentWide
from policies.errors import InputError
from search import PolicySpace, RandAugmentSpace

SPACE = PolicySpace()
GRID = RandAugmentSpace((0, 1, 3), (0, 9, 30))


@st.composite
def spaces(draw):
    ops = draw(st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=17, unique=True))
    return PolicySpace(
        draw(st.integers(1, 6)), draw(st.integers(1, 3)), tuple(ops), draw(st.integers(2, 40)),
        draw(st.integers(2, 30)),
    )  # fmt: skip


def test_the_papers_space():
    assert SPACE.size == (16 * 11 * 10) ** 10
    assert SPACE.decisions == (16, 11, 10) * 10
    assert SPACE.ops == PAPER_OPS


@given(space=spaces(), seed=st.integers(0, 2**32 - 1))
def test_sampled_policies_are_contained_and_survive_numbering(space, seed):
    policy = space.sample(np.random.default_rng(seed))
    assert space.contains(policy)
    numbers = space.encode(policy)
    assert all(type(number) is int for number in numbers)
    assert all(0 <= number < size for number, size in zip(numbers, space.decisions, strict=True))
    assert space.decode(numbers) == policy
    assert space.decode(numbers).bins == space.bins


@given(space=spaces(), data=st.data())
def test_numbering_normalises_only_magnitudes_of_operations_without(space, data):
    drawn = tuple(data.draw(st.integers(0, size - 1)) for size in space.decisions)
    back = space.encode(space.decode(drawn))
    for i in range(0, len(drawn), 3):
        assert back[i : i + 2] == drawn[i : i + 2]
        has_magnitude = OPS[space.ops[drawn[i]]].has_magnitude
        assert back[i + 2] == (drawn[i + 2] if has_magnitude else 0)


def test_probabilities_are_the_decimal_numbers_of_the_tables():
    for index in range(11):
        policy = SPACE.decode((0, index, 0) * 10)
        assert policy[0][0].probability == float(f"{index / 10:.1f}")


def test_published_rows_can_be_numbered():
    policy = Policy(IMAGENET[:5])
    assert SPACE.decode(SPACE.encode(policy)) == policy


@pytest.mark.parametrize("policy", [
    IMAGENET,
    Policy(IMAGENET[:4]),
    Policy(IMAGENET[:5], bins=31),
    tuple(IMAGENET[:5]),
    None,
    Policy([[("Rotate", 0.5, 3)]] * 5),
    Policy([[("Rotate", 0.55, 3), ("Color", 0.5, 3)]] * 5),
    Policy([[("Identity", 0.5, None), ("Color", 0.5, 3)]] * 5),
])  # fmt: skip
def test_what_is_not_in_the_papers_space(policy):
    assert not SPACE.contains(policy)
    with pytest.raises(InputError, match="policy: must have 5 sub-policies of 2"):
        SPACE.encode(policy)


def test_sampling_is_uniform():
    """chi-squared over every decision; 30 tests, so a true one fails with 0.3 %, once (seeded)."""
    rng = np.random.default_rng(0)
    policies = [SPACE.sample(rng) for _ in range(2000)]
    decisions = np.array([SPACE.encode(policy) for policy in policies])
    with_magnitude = np.array([OPS[name].has_magnitude for name in SPACE.ops])
    for i, size in enumerate(SPACE.decisions):
        column = decisions[:, i]
        if i % 3 == 2:
            column = column[with_magnitude[decisions[:, i - 2]]]
        assert stats.chisquare(np.bincount(column, minlength=size)).pvalue > 1e-4


@pytest.mark.parametrize(("arguments", "text"), [
    ({"num_subpolicies": 0}, "num_subpolicies"),
    ({"num_operations": 0}, "num_operations"),
    ({"bins": 1}, "bins"),
    ({"probability_bins": 1}, "probability_bins"),
    ({"ops": ()}, "ops"),
    ({"ops": ("Rotat",)}, "ops"),
    ({"ops": ("Rotate", "Rotate")}, "ops"),
])  # fmt: skip
def test_policy_space_refuses(arguments, text):
    with pytest.raises(InputError, match=f"^{text}: must"):
        PolicySpace(**arguments)


@pytest.mark.parametrize("decisions", [(0,) * 29, (16, *(0,) * 29), (-1, *(0,) * 29)])
def test_decode_refuses(decisions):
    with pytest.raises(InputError, match="decisions"):
        SPACE.decode(decisions)


def test_grid():
    assert GRID.size == 9
    assert GRID.decode((1, 2)) == RandAugment(1, 30)
    for cell in map(GRID.decode, np.ndindex(GRID.decisions)):
        assert GRID.contains(cell)
        assert GRID.decode(GRID.encode(cell)) == cell
    for other in (RandAugment(2, 9), RandAugment(1, 10), TrivialAugmentWide(), None, IMAGENET):
        assert not GRID.contains(other)
        with pytest.raises(InputError, match="augmentation"):
            GRID.encode(other)
    seen = {GRID.encode(GRID.sample(np.random.default_rng(i))) for i in range(200)}
    assert len(seen) == 9


@pytest.mark.parametrize(("ns", "ms", "text"), [
    ((), (1,), "ns: must be whole numbers"),
    ((1,), (), "ms: must be whole numbers"),
    ((1,), (31,), "ms: must be whole numbers"),
    ((-1,), (3,), "ns: must be whole numbers"),
    ((1.5,), (3,), "ns: must be whole numbers"),
    ((2, 1), (3,), "ns: must be ascending"),
    ((1,), (3, 3), "ms: must be ascending"),
])  # fmt: skip
def test_grid_refuses(ns, ms, text):
    with pytest.raises(InputError, match=text):
        RandAugmentSpace(ns, ms)
