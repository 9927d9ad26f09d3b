"""Rank correlations against scipy's, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from analysis.ranks import rank_ceiling, rank_correlation
from analysis.statistics import noise_floor


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    x = rng.normal(size=20).round(1)  # rounded, so that ties occur
    y = (x + rng.normal(size=20)).round(1)
    result = rank_correlation(x, y)
    assert result.rho == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert result.n == 20 and result.low < result.rho < result.high


def test_rank_correlation_averages_over_seeds():
    rng = np.random.default_rng(0)
    scores, reference = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    each = [scipy.stats.spearmanr(scores[:, s], reference[:, s]).statistic for s in range(3)]
    assert rank_correlation(scores, reference).rho == pytest.approx(np.mean(each))


@pytest.mark.long
def test_bootstrap_interval_agrees_with_scipys():
    rng = np.random.default_rng(5)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    mine = rank_correlation(x, y, draws=4000)
    theirs = scipy.stats.bootstrap(
        (x, y),
        lambda a, b: scipy.stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=4000,
        method="percentile",
        random_state=rng,
    ).confidence_interval
    # Two bootstraps of 4000 draws: the 2.5 % quantile scatters by about 0.01 here.
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.04)


def test_a_resample_without_a_rank_correlation_is_drawn_anew():
    found = rank_correlation(np.arange(4.0), np.array([0.0, 2.0, 1.0, 3.0]))
    assert -1 <= found.low < found.rho < found.high <= 1


def test_constant_scores_have_no_rank_correlation():
    assert np.isnan(rank_correlation(np.ones(10), np.arange(10.0)).rho)


@pytest.mark.parametrize("seeds", [2, 4])
def test_the_ceiling_of_rho_is_that_of_ranks(seeds):
    """A few policies far off: Pearson's correlation would be nearly 1, whatever the others do."""
    rng = np.random.default_rng(6)
    true = rng.normal(0, 1, 4000)
    true[:40] += 100
    table = true[:, None] + rng.normal(0, 1, (4000, seeds))
    perfect = scipy.stats.spearmanr(true, table.mean(axis=1)).statistic
    assert rank_ceiling(table) == pytest.approx(perfect, abs=0.02)
    assert np.sqrt(noise_floor(table).reliability) > 0.99 > 0.93 > perfect


def test_the_ceiling_of_rho_by_hand():
    """Spearman's rho of these two seeds is 0.8; of seeds that contradict each other nothing is."""
    table = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0], [4.0, 4.0]])
    assert rank_ceiling(table) == pytest.approx(np.sqrt(1.6 / 1.8))
    assert rank_ceiling(table * [1, -1]) == 0
    assert np.isnan(rank_ceiling(table * [1, 0]))


def test_resamples_that_are_all_the_same_are_no_interval():
    found = rank_correlation(np.arange(8.0), np.arange(8.0))
    assert found.rho == 1 and np.isnan([found.low, found.high]).all()
