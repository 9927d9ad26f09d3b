"""Staged search: the contract, who judges what, and what it finds where the cheap reward breaks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policies.errors import InputError
from search import PolicySpace, RandAugmentSpace, StagedSearcher, make_searcher
from search.searchers.additive import FEWEST_DEAR, AdditiveModel, CorrectedModel
from search.testing import SearcherContract, drive, evaluation
from search.trial import CHEAP, MAIN


class TestStaged(SearcherContract):
    count = 90

    def make(self, seed):
        return StagedSearcher(PolicySpace(), seed, cheap_cost=0.1, prior=4.0)


class TestStagedPPO(SearcherContract):
    count = 50

    def make(self, seed):
        return StagedSearcher(
            PolicySpace(3, 1), seed, cheap_cost=0.1, prior=2.0, proposer="ppo", batch_size=4
        )


class TestStagedWithoutCheapEvaluations(SearcherContract):
    count = 40

    def make(self, seed):
        return StagedSearcher(PolicySpace(), seed, lag=0)


def scorers(count, **options):
    searcher = StagedSearcher(PolicySpace(), 0, **options)
    told = drive(searcher, count, judge=lambda candidate: evaluation(0.5))
    return [told[key].scorer for key in sorted(told)][:count]


def test_the_cheap_evaluator_comes_first_and_keeps_its_share():
    asked = scorers(400, cheap_cost=0.1, prior=5.0, share=0.25)
    assert asked[:60] == [CHEAP] * 60 and asked[60] == MAIN  # in whole batches of 20
    cost = np.cumsum([0.1 if scorer == CHEAP else 1.0 for scorer in asked])
    cheap = np.cumsum([0.1 if scorer == CHEAP else 0.0 for scorer in asked])
    late = cost > 24
    # Off by at most a batch of either kind: 2 and 5.
    assert np.abs(cheap - 0.25 * cost)[late].max() <= 2 + 0.25 * 5
    assert MAIN in asked[100:] and CHEAP in asked[100:]


def test_without_a_cheap_evaluator_everything_is_dear():
    assert set(scorers(40)) == {MAIN}
    assert CHEAP not in scorers(100, cheap_cost=0.1, prior=1.0, share=0.0)[20:]


def test_without_a_cheap_evaluator_startup_says_how_many_are_uniform():
    def asked(sign, startup):
        searcher = StagedSearcher(PolicySpace(), 0, startup=startup, lag=0)
        told = drive(searcher, 25, judge=lambda each: evaluation(sign * (each.slot - 2.0)))
        return [told[key].augmentation for key in sorted(told)][:25]

    assert asked(1, 15)[:15] == asked(-1, 15)[:15] and asked(1, 15)[15:20] != asked(-1, 15)[15:20]
    assert asked(1, 0)[5:10] != asked(-1, 0)[5:10]  # two rewards are needed


def test_as_many_may_be_open_as_two_batches_of_the_larger_kind_have():
    staged, dear = (StagedSearcher(PolicySpace(), cheap_cost=cost) for cost in (0.1, 0.0))
    assert (staged.most_open, dear.most_open) == (40, 10)


def test_rewards_of_the_two_are_never_compared():
    """A diverged child is below those of its own evaluator; the others' are on another scale."""
    searcher = StagedSearcher(PolicySpace(), 0, cheap_cost=0.1, prior=1.0, startup=0)
    seen = []
    searcher._proposer._update = lambda batch, decisions, rewards, notes: seen.append(rewards)

    def judge(candidate):
        if candidate.scorer == CHEAP:
            return evaluation(-1000.0 - candidate.slot)
        return evaluation(0.5 + candidate.slot / 10) if candidate.slot else _diverged()

    drive(searcher, 40, judge=judge)
    assert seen[0] == pytest.approx([0.6 - 0.3 / 4, 0.6, 0.7, 0.8, 0.9])


def _diverged():
    return dataclasses.replace(evaluation(0.0), diverged=True)


@pytest.mark.parametrize("proposer", ["thompson", "ppo"])
def test_what_the_dear_evaluator_says_is_believed_against_the_cheap_one(proposer):
    """The cheap reward likes Invert, and says nothing of Color, which is what helps."""
    space = PolicySpace(1, 1, ops=("Rotate", "Color", "Invert", "Solarize"))

    def judge(candidate):
        name, probability, _ = candidate.augmentation[0][0]
        liked = "Invert" if candidate.scorer == CHEAP else "Color"
        harmful = candidate.scorer == MAIN and name == "Invert"
        noise = np.random.default_rng(candidate.seed).normal(0, 0.1)
        return evaluation(probability * ((name == liked) - harmful) + noise)

    searcher = make_searcher(
        "staged", space, 1, {"cheap_cost": 0.1, "prior": 4.0, "startup": 0, "proposer": proposer}
    )
    told = drive(searcher, 320, judge=judge)
    dear = [told[key].augmentation[0][0].name for key in sorted(told) if told[key].scorer == MAIN]
    first, last = dear[:10], dear[-30:]
    assert first.count("Invert") > first.count("Color")
    # Of uniform candidates a quarter: 18 of 30 has a probability below 1e-4.
    assert last.count("Color") >= 18 and last.count("Invert") <= 6


def rewarded(rng, count, weights):
    model = AdditiveModel(PolicySpace())
    rows = rng.integers(0, PolicySpace().decisions, (count, 30)).reshape(count, 5, 6)
    features = model.features(rows).mean(axis=1)
    return features, features @ weights + 0.01 * rng.standard_normal(count)


@pytest.mark.parametrize("proposer", ["thompson", "ppo"])
def test_cheap_rewards_decide_what_is_asked_of_the_dear_evaluator_after_the_first(proposer):
    def asked(sign, startup):
        searcher = StagedSearcher(PolicySpace(), 0, cheap_cost=0.1, prior=12.0, proposer=proposer,
                                  startup=startup, batch_size=4, lag=0)  # fmt: skip
        rewards = iter(sign * np.random.default_rng(0).standard_normal(200))
        told = drive(searcher, 150, judge=lambda candidate: evaluation(next(rewards)))
        dear = [each for _, each in sorted(told.items()) if each.scorer == MAIN]
        batches = [each.batch for each in dear]
        assert all(batches.count(batch) == 4 for batch in batches[:-4])
        return [each.augmentation for each in dear]

    first, other = asked(1, 0), asked(-1, 0)
    assert first[:4] != other[:4]
    first, other = asked(1, 8), asked(-1, 8)
    assert first[:8] == other[:8] and first[8:12] != other[8:12]


@pytest.mark.parametrize("proposer", ["thompson", "ppo"])
def test_the_first_dear_rewards_tell_the_scale_of_the_cheap_ones(proposer):
    """A cheap reward that is a fifth of the dear one is scaled by five; by its own proposals, which
    are alike in its eyes, the scale would be anything."""
    weights = np.random.default_rng(1).standard_normal(48)
    searcher = StagedSearcher(PolicySpace(), 0, cheap_cost=0.05, prior=10.0, lag=0,
                               proposer=proposer)  # fmt: skip
    model = searcher._model

    def judge(candidate):
        rows = np.array(PolicySpace().encode(candidate.augmentation)).reshape(5, 6)
        worth = float(model.features(rows).mean(axis=0) @ weights)
        noise = np.random.default_rng(candidate.seed).normal(0, 0.1)
        return evaluation((worth + noise) * (0.2 if candidate.scorer == CHEAP else 1))

    drive(searcher, 211, judge=judge)  # told before the next batch
    model.fit()
    assert (model.cheap.count, len(model._rewards)) == (200, 10)
    rows = np.random.default_rng(2).integers(0, PolicySpace().decisions[:6], (500, 6))
    slope = np.polyfit(model.features(rows) @ weights, model.worth(model.features(rows)), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("failed", [(), (3,)])
def test_a_reward_of_zero_is_a_reward_and_a_failure_is_none(failed):
    searcher = StagedSearcher(PolicySpace(), 0, cheap_cost=0.1, prior=2.0, lag=0, ridge=5.0)

    def judge(candidate):
        return None if candidate.slot in failed else evaluation(0.0)

    drive(searcher, 21, judge=judge)  # told before the next batch
    assert searcher._model.cheap.count == 20 - len(failed)
    assert searcher._model.cheap.ridge == 5


@pytest.mark.parametrize("proposer", ["thompson", "ppo"])
def test_what_the_dear_evaluator_is_asked_depends_on_the_seed(proposer):
    first, other = (
        StagedSearcher(PolicySpace(), seed, proposer=proposer).ask().augmentation for seed in (1, 2)
    )
    assert first != other


def test_the_model_is_that_of_whichever_rewards_there_are():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(AdditiveModel(PolicySpace()).num_features)
    cheap, dear = rewarded(rng, 200, weights), rewarded(rng, 40, -weights)
    known = AdditiveModel(PolicySpace(), 0.1)
    known.add(*cheap)
    known.fit()
    model = CorrectedModel(PolicySpace())
    model.cheap.add(*cheap)
    model.fit()
    assert np.array_equal(model.worth(cheap[0]), known.worth(cheap[0]))
    model.add(dear[0][: FEWEST_DEAR - 1], dear[1][: FEWEST_DEAR - 1])
    model.fit()
    assert np.array_equal(model.worth(cheap[0]), known.worth(cheap[0]))
    model.add(dear[0][FEWEST_DEAR - 1 :], dear[1][FEWEST_DEAR - 1 :])
    model.fit()
    assert np.allclose(model.worth(cheap[0]), known.corrected(*dear).worth(cheap[0]))
    assert np.corrcoef(model.worth(cheap[0]), cheap[0] @ -weights)[0, 1] > 0.9
    assert model.count == 240
    alone, only = CorrectedModel(PolicySpace()), AdditiveModel(PolicySpace(), 0.1)
    for each in (alone, only):
        each.add(*dear)
        each.fit()
    assert np.array_equal(alone.worth(cheap[0]), only.worth(cheap[0]))


@pytest.mark.parametrize(
    ("options", "what"),
    [({"share": 1.0}, "share"), ({"proposer": "tpe"}, "proposer"), ({"cheap_cost": -1}, "cheap")],
)
def test_wrong_options_are_refused(options, what):
    with pytest.raises(InputError, match=what):
        make_searcher("staged", PolicySpace(), 0, options)


def test_a_grid_is_refused():
    with pytest.raises(InputError, match="PolicySpace"):
        StagedSearcher(RandAugmentSpace())
