"""Statistics against independent arithmetic, simulation and properties."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis import tables
from analysis.statistics import (
    MOST_SEEDS,
    arm_difference,
    bootstrap,
    holm,
    holm_levels,
    interquartile_mean,
    mean_interval,
    minimum_detectable_difference,
    noise_floor,
    paired_difference,
    paired_superiority,
    probability_of_improvement,
    seeds_needed,
    verdict,
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
    assert difference.mean == pytest.approx(1.0)
    assert difference.p == pytest.approx(scipy.stats.ttest_1samp([1.0, 1.1, 0.9, 1.0], 0).pvalue)
    assert difference.p < 0.001


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([2.0, 3.0], [1.0, 2.0]),  # what a t test calls p = 0
        ([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([50.1 + 0.1, 60.2 + 0.1, 70.3 + 0.1], [50.1, 60.2, 70.3]),  # but for the last bit
        ([2.0], [1.0]),
    ],
)
def test_differences_that_are_all_the_same_prove_nothing(first, second, recwarn):
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(first[0] - second[0])
    assert np.isnan([found.error, found.p, *found.interval(), found.detectable()]).all()
    assert verdict(found.interval(), 0.5) == "undecided"
    assert not recwarn.list


@given(values, st.integers(0, 1000))
def test_paired_difference_agrees_with_scipy(sample, seed):
    other = np.random.default_rng(seed).normal(size=len(sample))
    found = paired_difference(sample, other)
    test = scipy.stats.ttest_rel(sample, other)
    assert found.mean == pytest.approx(np.mean(sample - other), abs=1e-9)
    assert found.p == pytest.approx(test.pvalue, rel=1e-6)
    assert found.interval(0.9) == pytest.approx(tuple(test.confidence_interval(0.9)), rel=1e-6)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([1.0, 2.0], [1.0])


def by_turns(policies: int, seeds: int) -> np.ndarray:
    return np.arange(seeds) % policies


def significant(first, second, trials, policy_sd, gap=0.0, seed=0):
    """Share of simulated comparisons of arms whose true means differ by `gap` with p < 0.05.

    Policies of an arm of several scatter by `policy_sd` points (an arm of one is what it is),
    children of one policy by 0.9, and a seed shifts both arms by 2.
    """
    rng = np.random.default_rng(seed)
    count, found = len(first), 0
    for _ in range(trials):
        shared = rng.normal(0, 2, count)
        a, b = (
            shared
            + (rng.normal(0, policy_sd, count)[policies] if policies.max() else 0)
            + rng.normal(0, 0.9, count)
            for policies in (first, second)
        )
        found += arm_difference(a + gap, b, first.tolist(), second.tolist()).p < 0.05
    return found / trials


DESIGNS = {
    "3 files, 2 files, 12 seeds": (by_turns(3, 12), by_turns(2, 12)),
    "3 files, 4 files, 12 seeds": (by_turns(3, 12), by_turns(4, 12)),
    "2 files, 5 files, 10 seeds": (by_turns(2, 10), by_turns(5, 10)),
    "3 files, random:K, 12 seeds": (by_turns(3, 12), np.arange(12)),
    "3 files, random:K, 6 seeds": (by_turns(3, 6), np.arange(6)),
    "2 files, 4 files, 8 seeds": (by_turns(2, 8), by_turns(4, 8)),
    "3 files, 3 files, 9 seeds": (by_turns(3, 9), by_turns(3, 9)),
    "1 file, 3 files, 9 seeds": (by_turns(1, 9), by_turns(3, 9)),
    "random:K, random:K, 5 seeds": (np.arange(5), np.arange(5)),
    "1 file, 1 file, 5 seeds": (by_turns(1, 5), by_turns(1, 5)),
}


@pytest.mark.parametrize("policy_sd", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("design", DESIGNS)
def test_equal_methods_are_told_apart_in_at_most_one_of_twenty(design, policy_sd):
    """Whatever the number of policies of each arm and however much these differ."""
    trials = 2000
    # Binomial: five standard deviations above 5 %, so chance fails once in 3 million.
    most = 0.05 + 5 * np.sqrt(0.05 * 0.95 / trials)
    assert significant(*DESIGNS[design], trials, policy_sd) < most


@pytest.mark.parametrize(
    ("design", "gap", "least"),
    [
        # The t test's own power (`seeds_needed`: 80 %), a little less than it could be exactly.
        ("1 file, 1 file, 5 seeds", 0.9 * np.sqrt(2) * 1.6842, 0.77),
        ("3 files, 4 files, 12 seeds", 2.0, 0.6),
        ("3 files, 2 files, 12 seeds", 3.0, 0.5),
    ],
)
def test_methods_that_differ_are_found(design, gap, least):
    assert significant(*DESIGNS[design], 1000, 0.3, gap) > least


def test_one_policy_in_each_arm_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6))
    assert arm_difference(a, b, ["x"] * 6, ["y"] * 6) == paired_difference(a, b)


def test_crossed_arms_by_hand():
    """2 against 3 policies, 6 seeds: the two variances of the means and Welch's freedom."""
    gap = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 2.5])
    found = arm_difference(gap, np.zeros(6), list("ababab"), list("xyzxyz"))
    two = [np.mean(gap[::2]), np.mean(gap[1::2])]
    three = [np.mean(gap[[0, 3]]), np.mean(gap[[1, 4]]), np.mean(gap[[2, 5]])]
    welch = scipy.stats.ttest_ind(two, three, equal_var=False)
    assert found.mean == pytest.approx(gap.mean())
    assert found.error**2 == pytest.approx(np.var(two, ddof=1) / 2 + np.var(three, ddof=1) / 3)
    assert found.freedom == pytest.approx(min(welch.df, 2)) and found.n == 2
    turned = arm_difference(np.zeros(6), gap, list("xyzxyz"), list("ababab"))
    assert (turned.mean, turned.error) == pytest.approx((-found.mean, found.error))
    assert (turned.freedom, turned.n) == (found.freedom, 2)


def test_the_freedom_of_crossed_arms_is_welchs_where_the_coarser_scatters_most():
    gap = np.array([0.0, 10.3, 0.2, 10.1, 0.1, 10.0])
    found = arm_difference(gap, np.zeros(6), list("ababab"), list("xyzxyz"))
    two = [np.mean(gap[::2]), np.mean(gap[1::2])]
    three = [np.mean(gap[[0, 3]]), np.mean(gap[[1, 4]]), np.mean(gap[[2, 5]])]
    freedom = scipy.stats.ttest_ind(two, three, equal_var=False).df
    assert found.freedom == pytest.approx(freedom) and freedom < 1.01


def test_a_new_policy_for_every_seed_is_judged_by_the_policies_of_the_other_arm():
    gap = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 2.5])
    means = [gap[:2].mean(), gap[2:4].mean(), gap[4:].mean()]
    found = arm_difference(gap, np.zeros(6), list("aabbcc"), range(6))
    assert found == paired_difference(means, np.zeros(3))
    turned = arm_difference(gap, np.zeros(6), range(6), list("aabbcc"))
    assert turned == found


def test_equal_differences_of_several_policies_count_policies():
    found = arm_difference(np.full(6, 2.0), np.zeros(6), list("ababab"), list("xxxxxx"))
    assert (found.mean, found.freedom, found.n) == (2, 1, 2) and np.isnan(found.error)


def test_probability_of_improvement_counts_all_pairs():
    a, b = [1.0, 2.0, 3.0], [2.0, 0.0]
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert probability_of_improvement(a, b) == pytest.approx(np.mean(pairs))
    assert probability_of_improvement(b, a) == pytest.approx(1 - np.mean(pairs))


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((0.1, 2.0), "better"),
        ((-2.0, -0.1), "worse"),
        ((-0.4, 0.5), "equal"),
        ((0.1, 0.3), "better"),
        ((-0.4, 0.6), "undecided"),
        ((0.0, 3.0), "undecided"),
        ((float("nan"), float("nan")), "undecided"),
    ],
)
def test_verdict(interval, word):
    assert verdict(interval, 0.5) == word


@given(st.lists(st.one_of(st.floats(1e-9, 1), st.just(float("nan"))), min_size=1, max_size=6))
def test_an_interval_at_holms_level_says_what_holms_p_says(p):
    """Level and corrected p reject the same hypotheses, so intervals and p of a table agree."""
    levels = holm_levels(p)
    corrected = holm(np.nan_to_num(p, nan=1.0))
    for raw, level, after in zip(p, levels, corrected, strict=True):
        assert 0 < level <= 0.05
        if abs(after - 0.05) > 1e-9:  # equality is a matter of rounding
            assert (raw < level) == (after < 0.05)


def test_holms_levels_by_hand():
    assert holm_levels([0.9, 0.001, 0.02]) == pytest.approx([0.05, 0.05 / 3, 0.025])
    assert holm_levels([0.04, 0.001, 0.03]) == pytest.approx([0.025, 0.05 / 3, 0.025])
    assert holm_levels([0.025, 0.04]) == pytest.approx([0.025, 0.025])  # p = level: not rejected


def test_holm_by_hand():
    # Sorted: 0.01*3, max(0.03, 0.02*2), max(0.04, 0.9*1).
    assert holm([0.9, 0.01, 0.02]) == pytest.approx([0.9, 0.03, 0.04])
    assert holm([0.7, 0.6]) == [1, 1]


def test_a_tie_is_half_ahead():
    assert paired_superiority(np.array([[1.0, 0.0, -2.0, 0.0], [1, 1, 1, -1]])).tolist() == [
        0.5, 0.75,
    ]  # fmt: skip


def test_holm_counts_what_could_not_be_tested():
    corrected = holm([float("nan"), 0.01, 0.02])
    assert np.isnan(corrected[0]) and corrected[1:] == pytest.approx([0.03, 0.04])


def test_values_that_are_all_the_same_have_no_interval():
    """Accuracies are counts: two equal ones are no evidence of a spread of nothing."""
    same = mean_interval([57.0, 57.0])
    assert (same.mean, same.sd, same.n) == (57, 0, 2)
    assert np.isnan([same.low, same.high]).all()


def test_a_crossed_difference_is_that_of_the_means_of_policies():
    """However many seeds a policy had: x four times, y once; and p, q by turns."""
    first, second = ["x", "x", "x", "x", "y"], ["p", "q", "p", "q", "p"]
    found = arm_difference([1.0, 2.0, 1.0, 2.0, 6.0], [0.0, 1.0, 0.0, 1.0, 3.0], first, second)
    assert found.mean == pytest.approx((1.5 + 6) / 2 - (1 + 1) / 2)


def test_policies_whose_means_are_all_the_same_tell_nothing():
    """Two against three by turns: seeds scatter, policies do not."""
    gap = [1.0, 1.0, 0.0, -1.0, -1.0, 0.0]
    two, three = [s % 2 for s in range(6)], [s % 3 for s in range(6)]
    found = arm_difference(gap, [0.0] * 6, two, three)
    assert np.isnan(found.error) and np.isnan(found.p) and found.mean == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
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


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 30])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3, 0.05 / 6])
def test_detectable_difference_agrees_with_an_integral(freedom, alpha):
    """Also far out, where scipy's noncentral t gives up (two seeds, corrected)."""
    shift = minimum_detectable_difference(1.0, freedom + 1, alpha=alpha) * np.sqrt(freedom + 1)
    critical = scipy.stats.t.ppf(1 - alpha / 2, freedom)

    def density(spread):
        found = scipy.stats.norm.sf(critical * spread - shift)
        found += scipy.stats.norm.cdf(-critical * spread - shift)
        root = np.sqrt(freedom)
        return scipy.stats.chi.pdf(spread * root, freedom) * root * found

    power, _ = scipy.integrate.quad(density, 0, 20, limit=500, points=[0.01, 0.1, 1.0, 3.0])
    assert power == pytest.approx(0.8, abs=1e-4)


def test_seeds_needed_is_the_smallest_sufficient_number():
    for sd, difference in [(1.0, 0.5), (1.4, 0.5), (0.1, 1.0), (3.0, 0.7)]:
        n = seeds_needed(sd, difference)
        assert minimum_detectable_difference(sd, n) <= difference
        if n > 2:
            assert minimum_detectable_difference(sd, n - 1) > difference


def test_seeds_needed_are_not_counted_for_ever():
    """A difference of rounding size asks for more than any number."""
    assert seeds_needed(1.0, 1e-14) == seeds_needed(1.0, 1e-3) == MOST_SEEDS
    assert seeds_needed(1.0, 0.01) < MOST_SEEDS
    assert tables.about(2, MOST_SEEDS) == "about 2"
    assert tables.about(MOST_SEEDS, MOST_SEEDS) == "more than 1,000,000"


def test_seeds_needed_refuses_no_difference():
    with pytest.raises(ValueError, match="difference"):
        seeds_needed(1.0, 0.0)


def test_few_units_have_no_bootstrap_interval():
    few, enough, same = (
        bootstrap(interquartile_mean, units)
        for units in (np.arange(7.0), np.arange(8.0), np.ones(9))
    )
    assert enough.low < 3.5 < enough.high
    assert np.isnan([few.low, few.high, same.low, same.high]).all() and few.value == 3


@pytest.mark.long
def test_tukeys_intervals_hold_against_whichever_is_best():
    """Six equal means of three seeds, which shift all alike: the best is better in one of 20."""
    rng, wrong, trials = np.random.default_rng(7), 0, 2000
    floor = noise_floor(rng.normal(size=(6, 3)))
    width = floor.tukey_half_width(6) / floor.run_sd
    for _ in range(trials):
        table = rng.normal(size=(6, 3)) + rng.normal(0, 5, 3)
        wrong += np.ptp(table.mean(axis=1)) > width * noise_floor(table).run_sd
    # Five standard deviations of a binomial share of 5 %.
    assert wrong / trials == pytest.approx(0.05, abs=5 * np.sqrt(0.05 * 0.95 / trials))
    assert floor.tukey_p(floor.tukey_half_width(6), 3, 6) == pytest.approx(0.05)


def test_noise_floor_by_hand():
    noise = noise_floor(np.array([[0.0, 1.0], [2.0, 5.0]]))  # residuals of a half each
    assert (noise.run_sd, noise.policy_sd) == pytest.approx((1, 2))
    assert (noise.reliability, noise.freedom) == (pytest.approx(8 / 9), 1)


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


def test_runs_that_scatter_by_rounding_alone_are_flat():
    table = np.array([[0.1], [0.2], [0.7]]) + np.array([[0.1, 0.3, 0.03, 0.07]])
    assert noise_floor(table).flat
    table[0, 0] += 1e-6
    assert not noise_floor(table).flat
