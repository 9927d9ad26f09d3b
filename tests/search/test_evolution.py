"""Regularised evolution: the contract, its mutations, and that it forgets what is old."""

from __future__ import annotations

import numpy as np
import pytest

from policies.errors import InputError
from search import EvolutionSearcher, PolicySpace, RandAugmentSpace, make_searcher
from search.testing import SearcherContract, drive, evaluation, reward_of


class TestEvolution(SearcherContract):
    def make(self, seed):
        return EvolutionSearcher(PolicySpace(), seed, population=10, tournament=3)


class TestEvolutionOnGrid(SearcherContract):
    def make(self, seed):
        return EvolutionSearcher(RandAugmentSpace(), seed, batch_size=1, population=5, lag=0)


def differences(one, other):
    """[(operation's place, fields that differ)] of two policies of the same shape."""
    return [
        (place, [field for field in a._fields if getattr(a, field) != getattr(b, field)])
        for place, (a, b) in enumerate(
            zip((op for row in one for op in row), (op for row in other for op in row), strict=True)
        )
        if a != b
    ]


def test_a_child_differs_from_one_of_the_population_in_one_decision():
    searcher = EvolutionSearcher(PolicySpace(), 2, population=10, tournament=3, batch_size=5, lag=1)
    told = drive(searcher, 100, judge=lambda candidate: evaluation(reward_of(candidate)))
    ordered = sorted(told)
    fields = set()
    for number, key in enumerate(ordered[10:], 10):
        # Batch b sees all batches up to b - 2, of which the latest 10 live.
        seen = 5 * (key[0] - 1)
        population = [told[k].augmentation for k in ordered[max(0, seen - 10) : seen]]
        found = [differences(told[key].augmentation, parent) for parent in population]
        near = [changes[0][1] for changes in found if len(changes) == 1]
        # A new kind of operation may lose its magnitude, or bring one.
        single = [names for names in near if len(names) == 1 or names == ["name", "magnitude"]]
        assert single, number
        fields.add(single[0][0])
    assert fields == {"name", "probability", "magnitude"}


def test_what_was_lucky_long_ago_has_no_offspring():
    """The best reward ever is told first; once it is the oldest it is gone."""
    searcher = EvolutionSearcher(
        RandAugmentSpace((1, 2, 3), tuple(range(31))), 1,
        population=4, tournament=4, batch_size=1, lag=0,
    )  # fmt: skip
    first = searcher.ask()
    searcher.tell(first, evaluation(100.0))
    children = []
    for number in range(1, 12):
        candidate = searcher.ask()
        searcher.tell(candidate, evaluation(number / 100))
        children.append(candidate.augmentation)
    near = [(c.n == first.augmentation.n) + (c.m == first.augmentation.m) for c in children]
    assert near[3] == 1  # the whole population competes: the lucky one is the parent
    # Of the last children the parent is the latest of the population, the best that lives.
    for parent, child in zip(children[4:], children[5:], strict=False):
        assert (parent.n == child.n) + (parent.m == child.m) == 1


def test_the_first_population_is_uniform_and_the_rest_is_not():
    """Whatever the rewards, so that no lucky first few found the whole population."""
    found = []
    for sign in (1, -1):
        searcher = EvolutionSearcher(PolicySpace(), 3, population=20, batch_size=5)
        told = drive(searcher, 50, judge=lambda c, s=sign: evaluation(s * reward_of(c)))
        found.append([told[key].augmentation for key in sorted(told)])
    assert found[0][:20] == found[1][:20]
    assert not {repr(policy) for policy in found[0][20:]} & {repr(each) for each in found[1][20:]}


def test_it_climbs():
    space = PolicySpace(1, 2)

    def judge(candidate):
        return evaluation(sum(op.probability for op in candidate.augmentation[0]))

    told = drive(EvolutionSearcher(space, 0), 200, judge=judge)
    last = [judge(told[key]).reward for key in sorted(told)[-20:]]
    # Uniform: 1, with a standard deviation of 0.45 a candidate.
    assert np.mean(last) > 1 + 5 * 0.45 / np.sqrt(20)


def test_a_space_of_one_candidate_is_survived():
    searcher = EvolutionSearcher(RandAugmentSpace((1,), (5,)), 0, population=2, tournament=1)
    assert len(drive(searcher, 20)) == 20


@pytest.mark.parametrize(
    ("options", "what"),
    [({"population": 1}, "population"), ({"tournament": "5"}, "tournament"),
     ({"population": 5, "tournament": 6}, "tournament")],
)  # fmt: skip
def test_wrong_options_are_refused(options, what):
    with pytest.raises(InputError, match=what):
        make_searcher("evolution", PolicySpace(), 0, options)
