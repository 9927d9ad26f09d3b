"""Statistics against independent arithmetic, simulation and properties."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.statistics import (
    holm,
    mean_interval,
    minimum_detectable_difference,
    noise_floor,
    paired_difference,
    rank_correlation,
    seeds_needed,
)

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


@given(values)
def test_interval_agrees_with_scipy(sample):
    estimate = mean_interval(sample)
    sem = scipy.stats.sem(sample)
    assert estimate.n == len(sample)
    assert estimate.mean == pytest.approx(np.mean(sample), abs=1e-9)
    if sem > 1e-9:
        low, high = scipy.stats.t.interval(0.95, len(sample) - 1, np.mean(sample), sem)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)


def test_interval_of_one_run_does_not_pretend_to_know_the_spread():
    estimate = mean_interval([58.5])
    assert estimate.mean == 58.5 and estimate.n == 1
    assert np.isnan([estimate.sd, estimate.low, estimate.high]).all()


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_interval_refuses_what_is_no_sample(bad):
    with pytest.raises(ValueError, match="finite"):
        mean_interval(bad)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for sample in rng.normal(3.0, 2.0, size=(4000, 4)):
        estimate = mean_interval(sample)
        hits += estimate.low <= 3.0 <= estimate.high
    # Binomial(4000, 0.95): six standard deviations are 83, so chance fails once in 1e9.
    assert abs(hits - 3800) < 83


def test_pairing_removes_what_the_seeds_share():
    seeds = np.array([50.0, 55.0, 60.0, 65.0])
    difference = paired_difference(seeds + [1.0, 1.1, 0.9, 1.0], seeds)
    assert difference.estimate.mean == pytest.approx(1.0)
    assert difference.p == pytest.approx(scipy.stats.ttest_1samp([1.0, 1.1, 0.9, 1.0], 0).pvalue)
    assert difference.p < 0.001


def test_constant_differences_have_the_limits_of_the_t_test():
    assert paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p == 1.0
    assert paired_difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).p == 0.0
    assert np.isnan(paired_difference([2.0], [1.0]).p)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([1.0, 2.0], [1.0])


def test_holm_by_hand():
    # Sorted: 0.01*3, max(0.03, 0.02*2), max(0.04, 0.9*1).
    assert holm([0.9, 0.01, 0.02]) == pytest.approx([0.9, 0.03, 0.04])


def test_holm_leaves_out_what_was_not_tested():
    corrected = holm([float("nan"), 0.01, 0.02])
    assert np.isnan(corrected[0]) and corrected[1:] == pytest.approx([0.02, 0.02])


# Few examples: statsmodels collects garbage at each call, a quarter of a second.
@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@pytest.mark.long
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p):
    corrected = holm(p)
    assert all(after >= before - 1e-12 for before, after in zip(p, corrected, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= -1e-12).all()


@pytest.mark.parametrize("n", [3, 5, 10])
def test_detectable_difference_is_found_four_times_in_five(n):
    """Simulation as the oracle: a t test on true differences of the stated size."""
    size = minimum_detectable_difference(1.5, n)
    samples = np.random.default_rng(n).normal(size, 1.5, size=(20_000, n))
    found = (scipy.stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    # Standard error of the share: 0.0028; the threshold is five of them.
    assert found == pytest.approx(0.80, abs=0.015)


def test_seeds_needed_is_the_smallest_sufficient_number():
    for sd, difference in [(1.0, 0.5), (1.4, 0.5), (0.1, 1.0), (3.0, 0.7)]:
        n = seeds_needed(sd, difference)
        assert minimum_detectable_difference(sd, n) <= difference
        if n > 2:
            assert minimum_detectable_difference(sd, n - 1) > difference


def test_seeds_needed_refuses_no_difference():
    with pytest.raises(ValueError, match="difference"):
        seeds_needed(1.0, 0.0)


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


def test_rounding_is_no_spread(recwarn):
    """Steps that differ in the last bit only: no test statistic of 1e15, no warning of scipy."""
    a = np.array([50.1, 60.2, 70.3])
    assert np.ptp((a + 0.1) - a) > 0
    assert paired_difference(a + 0.1, a).p == 0.0
    assert paired_difference(a * (1 + 1e-16), a).p == 1.0
    assert not recwarn.list


def test_constant_scores_have_no_rank_correlation():
    assert np.isnan(rank_correlation(np.ones(10), np.arange(10.0)).rho)


def test_noise_floor_recovers_what_was_planted():
    """Policies differ by 2, runs by 1, seeds shift everything by 5: the shift is not noise."""
    rng = np.random.default_rng(2)
    policies, seeds = 400, 5
    table = (
        rng.normal(0, 2, (policies, 1))
        + rng.normal(0, 5, (1, seeds))
        + rng.normal(0, 1, (policies, seeds))
    )
    noise = noise_floor(table)
    # Relative standard errors: 1/sqrt(2*1596) for run_sd, 1/sqrt(2*399) for policy_sd; five each.
    assert noise.run_sd == pytest.approx(1.0, rel=0.09)
    assert noise.policy_sd == pytest.approx(2.0, rel=0.18)
    assert noise.reliability == pytest.approx(4 / (4 + 1 / 5), abs=0.02)


def test_noise_floor_of_pure_noise_claims_no_signal():
    noise = noise_floor(np.random.default_rng(3).normal(size=(400, 5)))
    # Variance of the mean is 0.2 with relative standard error 0.07; five of them.
    assert noise.reliability < 0.35
