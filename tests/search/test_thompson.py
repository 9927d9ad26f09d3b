"""Thompson sampling: the contract, the posterior it draws from, and what it proposes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from policies.errors import InputError
from search import PolicySpace, RandAugmentSpace, ThompsonSearcher, make_searcher
from search.searchers.additive import AdditiveModel
from search.testing import SearcherContract, drive, evaluation

SPACE = PolicySpace(2, 1, ops=("Rotate", "Color", "Invert"))


class TestThompson(SearcherContract):
    def make(self, seed):
        return ThompsonSearcher(PolicySpace(), seed, pool=200)


class TestThompsonOfOneOperation(SearcherContract):
    """Of two combinations at most, so that sub-policies have to repeat one."""

    count = 40

    def make(self, seed):
        return ThompsonSearcher(
            PolicySpace(4, 1, ops=("Color", "Rotate")), seed, batch_size=3, lag=0, pool=1
        )


def fitted(rng, count, noise):
    """(model, true weights) after `count` rewards of random sub-policies with a large offset."""
    model = AdditiveModel(SPACE, ridge=0.5)
    rows = rng.integers(0, SPACE.decisions[:3], (count, 3))
    features = model.features(rows)
    weights = rng.normal(0, noise / np.sqrt(0.5), model.num_features)
    # The squared magnitude of an operation without one is no feature.
    model.add(features, 7.0 + features @ weights + noise * rng.standard_normal(count))
    model.fit()
    return model, weights


@pytest.mark.parametrize("count", [3, 25])
def test_the_posterior_covers_the_truth_as_often_as_it_says(count):
    """Weights drawn from the prior lie below a draw from the posterior with even probability at
    every quantile (Cook, Gelman and Rubin 2006): here in few rewards, where s is not known; and
    in three, where most of what is known of it comes from the prior of the weights."""
    ranks = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        model, weights = fitted(rng, count, noise=0.3)
        draws = np.array([model.sample(rng)[0] for _ in range(49)])
        ranks.append((draws < weights[0]).sum())
    counts = np.bincount(np.array(ranks) // 5, minlength=10)
    # A draw's rank is one of 50, all equally likely; chi-squared with 9 degrees of freedom.
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_draws_scatter_about_the_estimate():
    rng = np.random.default_rng(0)
    model, _ = fitted(rng, 400, noise=0.3)
    draws = np.array([model.sample(rng) for _ in range(4000)])
    assert np.abs(draws.mean(axis=0) - model.weights).max() < 0.02
    features = model.features(np.array([[0, 10, 9], [1, 5, 0]]))
    # With 400 rewards, the two ways to see the noise agree.
    assert (draws @ features.T).std(axis=0) == pytest.approx(model.uncertainty(features), rel=0.1)


def test_the_model_is_asked_after_the_uniform_candidates(monkeypatch):
    """And not before: batches of 5, of which the first two are the `startup` of 10."""
    chosen = (0,) * len(PolicySpace().decisions)
    monkeypatch.setattr(ThompsonSearcher, "_candidate", lambda self, rng: chosen)
    told = drive(ThompsonSearcher(PolicySpace(), 0, batch_size=5, startup=10), 30)
    asked = PolicySpace().decode(chosen)
    assert {key[0] for key in told if told[key].augmentation == asked} == set(range(2, 6))


@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_it_ends_at_the_operation_that_helps(failing):
    """Also where some evaluations fail, which say nothing of the others."""
    space = PolicySpace(1, 1, ops=("Rotate", "Color", "Invert", "Solarize"))

    def judge(candidate):
        name, probability, magnitude = candidate.augmentation[0][0]
        if candidate.seed % 1000 < 1000 * failing:
            return None
        noise = np.random.default_rng(candidate.seed).normal(0, 0.3)
        worth = probability if name == "Color" and magnitude > 4 else -probability
        return evaluation(worth + noise)

    told = drive(ThompsonSearcher(space, 3), 120, judge=judge)
    last = [told[key].augmentation[0][0] for key in sorted(told)[-30:]]
    helping = [op.name == "Color" and op.magnitude > 4 and op.probability > 0.5 for op in last]
    # Of uniform candidates one in 18 does: 8 of 30 have a probability below 1e-4.
    assert sum(helping) >= 20


def test_sub_policies_of_a_candidate_differ_in_their_operations():
    told = drive(ThompsonSearcher(PolicySpace(), 1), 60)
    for key in sorted(told)[15:]:
        pairs = {tuple(sorted(op.name for op in row)) for row in told[key].augmentation}
        assert len(pairs) == 5


@pytest.mark.parametrize(
    ("options", "what"),
    [({"ridge": 0}, "ridge"), ({"startup": 0}, "startup"), ({"pool": True}, "pool")],
)
def test_wrong_options_are_refused(options, what):
    with pytest.raises(InputError, match=what):
        make_searcher("thompson", PolicySpace(), 0, options)
    with pytest.raises(InputError, match=what):
        ThompsonSearcher(PolicySpace(), **options)


def test_a_grid_is_refused():
    with pytest.raises(InputError, match="PolicySpace"):
        ThompsonSearcher(RandAugmentSpace())
