"""The statistics that every table of the project uses; scipy does the arithmetic.

Accuracies and rewards come in whatever unit the caller uses; the results have the same unit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats
from scipy.stats import norm

Values = Sequence[float] | np.ndarray
ALPHA = 0.05
CONFIDENCE = 1 - ALPHA
POWER = 0.80
FEWEST = 8  # units; of fewer, no correlation, share of variance or bootstrap says anything
ROUNDING = 4e-12  # of the numbers that a difference is of; a smaller one is none
RESAMPLES = 2000  # of a bootstrap
MOST_SEEDS = 10**6  # `seeds_needed` counts no further


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` runs: `sd` with n-1 degrees of freedom, `low`/`high` by Student's t.

    With one run there is no spread to estimate: `sd`, `low` and `high` are NaN. Runs that are all
    the same have no interval either (see `Difference`).
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float


def mean_interval(values: Values) -> Estimate:
    """Mean, standard deviation and t interval of `values` (at least one, all finite)."""
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError(f"values: a list of finite numbers is needed, but got {values!r}")
    n, mean = sample.size, float(sample.mean())
    sd = float(sample.std(ddof=1)) if n > 1 else float("nan")
    low, high = mean_difference(sample, np.abs(sample).max()).interval()
    return Estimate(mean, sd, n, low, high)


@dataclass(frozen=True)
class Difference:
    """A mean paired difference `first - second` and how well it is known.

    Attributes:
        mean: of the paired differences.
        error: standard error of the mean; NaN where there is no spread to judge by: fewer than two
            units, or differences that are all the same. Accuracies are counts of images, so two
            seeds often differ by exactly as much: that is no evidence of a spread of nothing.
        freedom: degrees of freedom of `error`.
        n: units, i.e. what counts once: seeds, or the policies of the arm that has fewer.
    """

    mean: float
    error: float
    freedom: float
    n: int

    @property
    def p(self) -> float:
        """Two-sided p of Student's t test that the true difference is 0; NaN without `error`."""
        return float(2 * scipy.stats.t.sf(abs(self.mean) / self.error, self.freedom))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Lower and upper end of the t interval; NaN without `error`."""
        half = float(scipy.stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.mean - half, self.mean + half

    def detectable(self, alpha: float = ALPHA) -> float:
        """The true difference that this test, repeated at level `alpha`, finds with POWER."""
        if not np.isfinite(self.error):
            return float("nan")
        return _noncentrality(self.freedom, alpha) * self.error


def paired_difference(first: Values, second: Values) -> Difference:
    """The mean of `first[i] - second[i]`, where i is the same seed in both: a paired t test."""
    return mean_difference(*_gaps(first, second))


def unpaired_difference(first: Values, second: Values) -> Difference:
    """The difference of the means of two samples: Welch's t test, with the freedom of `_welch`."""
    samples = [np.asarray(values, dtype=float) for values in (first, second)]
    scale = max(np.abs(each).max() for each in samples)
    return _welch(float(samples[0].mean() - samples[1].mean()), samples, scale)


def _welch(mean: float, samples: Sequence[np.ndarray], scale: float) -> Difference:
    """A difference whose variance is the sum of those of the means of the samples.

    Degrees of freedom are Welch's and Satterthwaite's, at most the size of the smaller sample: with
    more the test is wrong in up to 10 % of 2 against 5 where the two scatter most.
    """
    fewest = min(each.size for each in samples)
    if fewest < 2 or all(_same(each, scale) for each in samples):
        return Difference(mean, float("nan"), fewest - 1, fewest)
    variances = np.array([_error(each) ** 2 for each in samples])
    own = variances**2 / [each.size - 1 for each in samples]
    freedom = min(float(variances.sum() ** 2 / own.sum()), fewest)
    return Difference(mean, float(np.sqrt(variances.sum())), freedom, fewest)


def mean_difference(units: np.ndarray, scale: float) -> Difference:
    """The mean of what counts once each, by Student's t. scale: of the numbers they came from."""
    error = _error(units) if units.size > 1 and not _same(units, scale) else float("nan")
    return Difference(float(units.mean()), error, units.size - 1, units.size)


def _same(values: np.ndarray, scale: float) -> bool:
    """Whether they are all the same but for rounding."""
    return bool(np.ptp(values) <= ROUNDING * scale)


def arm_difference(
    first: Values,
    second: Values,
    first_policies: Sequence[Hashable],
    second_policies: Sequence[Hashable],
) -> Difference:
    """`first[i] - second[i]` of arms that may stand for several policies each.

    An arm of several policies stands for the way they were made, and another set of policies would
    differ. So what counts once is a policy, whatever the number of seeds it was trained with:

    - One policy in each arm: the paired t test over seeds.
    - Every policy of one arm meets one policy of the other only (one policy against several, as
      many against as many by turns, a few against a new one for every seed): the paired t test
      over the coarser arm's policies, with the mean over the seeds of each.
    - Crossed (3 against 2): the difference is that of the arms' means over their policies, however
      many seeds each had; the variance is the sum of those of the means per policy of either arm,
      which counts the training noise twice and so errs on the safe side. Degrees of freedom are
      Welch's and Satterthwaite's, at most the number of policies of the smaller arm: with more the
      test is wrong in up to 10 % of 2 against 5 where the two scatter most.

    Args:
        first: value of the first arm with seed i.
        second: value of the second arm with seed i.
        first_policies: which policy the first arm had with seed i.
        second_policies: which policy the second arm had with seed i.
    """
    gap, scale = _gaps(first, second)
    labels = [np.array(_codes(policies)) for policies in (first_policies, second_policies)]
    several = [codes for codes in labels if codes.max() > 0]
    if not several:
        return mean_difference(gap, scale)
    several.sort(key=lambda codes: codes.max())
    means = [_by_policy(gap, codes) for codes in several]
    met = len(set(zip(*several, strict=True)))
    if met == means[-1].size:
        return mean_difference(means[0], scale)
    centre = float(_by_policy(first, labels[0]).mean() - _by_policy(second, labels[1]).mean())
    return _welch(centre, means, scale)


def _by_policy(values: Values, codes: np.ndarray) -> np.ndarray:
    """The mean of each policy over its seeds."""
    return np.bincount(codes, values) / np.bincount(codes)


def _codes(labels: Sequence[Hashable]) -> list[int]:
    """Equal labels as equal numbers (policies have no order to sort by)."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]


def _gaps(first: Values, second: Values) -> tuple[np.ndarray, float]:
    """The paired differences, and how large the numbers are."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"pairs: as many values in both, but got {a.size} and {b.size}")
    gap = a - b
    if not np.isfinite(gap).all():
        raise ValueError("pairs: finite numbers are needed")
    return gap, max(np.abs(a).max(), np.abs(b).max())


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(values.size))


def probability_of_improvement(first: Values, second: Values) -> float:
    """Probability that a run of `first` is above a run of `second`, ties counting half.

    Over all pairs of runs, as in rliable (arXiv 2108.13264): Mann and Whitney's U / (n m).
    """
    statistic = scipy.stats.mannwhitneyu(first, second, method="asymptotic").statistic
    return float(statistic) / (len(first) * len(second))


@dataclass(frozen=True)
class Interval:
    """A statistic of `n` units with the ends of its percentile bootstrap interval.

    `low` and `high` are NaN for fewer than FEWEST units, whose resamples scatter too little, and
    where all resamples give the same.
    """

    value: float
    low: float
    high: float
    n: int


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half of `values` [..., n] along the last axis (arXiv 2108.13264)."""
    return scipy.stats.trim_mean(values, 0.25, axis=-1)


def paired_superiority(differences: np.ndarray) -> np.ndarray:
    """P(A > B): share of the `differences` A - B [..., n] above 0, those of 0 counting half."""
    return ((differences > 0) + 0.5 * (differences == 0)).mean(axis=-1)


def share_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share of `n` independent units, ties counting half.

    Unlike a bootstrap's it has a width where all units agree: six of six is [0.61, 1].
    """
    z = float(norm.ppf(1 - ALPHA / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], values: Values) -> Interval:
    """`statistic` of `values` [n], with its interval over resamples of the n units.

    statistic: reduces the last axis, [..., n] -> [...].
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"values: a list of finite numbers is needed, but got {values!r}")
    rng = np.random.default_rng(0)
    drawn = statistic(sample[rng.integers(sample.size, size=(RESAMPLES, sample.size))])
    low, high = ends(drawn, ALPHA / 2) if sample.size >= FEWEST else (np.nan, np.nan)
    return Interval(float(statistic(sample)), low, high, sample.size)


def ends(samples: np.ndarray, tail: float) -> tuple[float, float]:
    """Both quantiles; NaN where they are the same."""
    low, high = np.quantile(samples, [tail, 1 - tail]).tolist()
    return (low, high) if low < high else (np.nan, np.nan)


def holm(p_values: Values) -> list[float]:
    """Holm's step-down correction of `p_values`.

    NaN (not testable) stays NaN, and counts as a comparison that was made, as in `holm_levels`.
    """
    p = np.asarray(p_values, dtype=float)
    corrected = np.full(p.shape, np.nan)
    # The smallest of m counts m times, the next m - 1 times; none is less than one before it.
    places = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]  # NaN is sorted last
    steps = p[places] * (p.size - np.arange(len(places)))
    corrected[places] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()


def holm_levels(p_values: Values) -> list[float]:
    """The level at which Holm's procedure tests each of `p_values`: p < level where it rejects.

    A 1 - level interval therefore excludes 0 exactly where Holm's p is below ALPHA: both of one
    sentence say the same. The smallest of m is tested at ALPHA / m, the next at ALPHA / (m - 1) and
    so on up to the first that is not rejected, whose level the rest have too. NaN counts as 1.
    """
    p = np.nan_to_num(np.asarray(p_values, dtype=float), nan=1.0)
    levels = np.empty(p.shape)
    level, stopped = ALPHA, False
    for rank, place in enumerate(np.argsort(p, kind="stable")):
        level = level if stopped else ALPHA / (p.size - rank)
        stopped = stopped or p[place] >= level
        levels[place] = level
    return levels.tolist()


def verdict(interval: tuple[float, float], margin: float) -> str:
    """What an interval of a difference says: better, worse, equal or undecided.

    Equal: within `margin` on both sides, by two one-sided tests read off the interval (each at half
    of the interval's level). A difference that is clear but smaller than the margin is still better
    or worse.
    """
    low, high = interval
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "equal" if -margin <= low and high <= margin else "undecided"


def minimum_detectable_difference(sd_of_difference: float, n: int, alpha: float = ALPHA) -> float:
    """The true difference that a paired t test with `n` pairs finds with probability POWER.

    `sd_of_difference` is the standard deviation of one paired difference. NaN when n < 2.
    """
    if n < 2 or not np.isfinite(sd_of_difference):
        return float("nan")
    return _noncentrality(n - 1, alpha) * sd_of_difference / float(np.sqrt(n))


@functools.lru_cache(maxsize=1024)
def _noncentrality(freedom: float, alpha: float) -> float:
    """True difference in standard errors at which a two-sided t test has POWER.

    The power given the error as estimated is normal; it is averaged over the chi distribution of
    that by Gauss and Legendre. (scipy's noncentral t is NaN far out, and the usual solvers
    stop at an effect of 10: for two seeds and three comparisons it is wrong by a factor of 3.)
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    spread = np.sqrt(scipy.stats.chi2.ppf((nodes + 1) / 2, freedom) / freedom)
    critical = float(scipy.stats.t.ppf(1 - alpha / 2, freedom))

    def excess(shift: float) -> float:
        found = norm.sf(critical * spread - shift) + norm.cdf(-critical * spread - shift)
        return float(weights @ found) / 2 - POWER

    # At the upper end the power is above P(spread < 10): all but 1.
    return float(scipy.optimize.brentq(excess, 0.0, 10 * critical + 10, xtol=1e-9))


def seeds_needed(sd_of_difference: float, difference: float, alpha: float = ALPHA) -> int:
    """Pairs that a paired t test needs to find a true `difference` with probability POWER.

    Counts up to MOST_SEEDS, which so means that many or more.
    """
    if not difference > 0 or not sd_of_difference >= 0:
        raise ValueError(f"difference > 0 and sd >= 0 needed, got {difference}, {sd_of_difference}")
    # Counting up is exact and cannot miss: the solver for n has no root below two pairs.
    n, step = 2, 1
    while minimum_detectable_difference(sd_of_difference, n + step, alpha) > difference:
        n, step = n + step, step * 2
        if n + step >= MOST_SEEDS:
            return MOST_SEEDS
    if minimum_detectable_difference(sd_of_difference, n, alpha) <= difference:
        return n
    low, high = n, n + step
    while high - low > 1:
        middle = (low + high) // 2
        enough = minimum_detectable_difference(sd_of_difference, middle, alpha) <= difference
        low, high = (low, middle) if enough else (middle, high)
    return high


@dataclass(frozen=True)
class NoiseFloor:
    """Two-way split of a [policies, seeds] table: what differs between policies, what is noise.

    `run_sd` is the residual standard deviation of one run after policy and seed means,
    `policy_sd` that between true policy means, `reliability` the share of the variance of the
    mean over all seeds that is due to the policies, `freedom` the degrees of freedom of `run_sd`.
    `flat`: runs do not scatter but for rounding, so that there is nothing to judge by.
    """

    run_sd: float
    policy_sd: float
    reliability: float
    seeds: int
    freedom: int
    flat: bool

    def tukey_p(self, gaps: np.ndarray, seeds: np.ndarray, cells: int) -> np.ndarray:
        """Tukey's p of `gaps` between two of `cells` means, each over so many `seeds`."""
        ranges = gaps * np.sqrt(seeds) / self.run_sd
        return scipy.stats.studentized_range.sf(ranges, cells, self.freedom)

    def tukey_half_width(self, cells: int) -> float:
        """Half of Tukey's interval of the difference of two of so many means over the seeds.

        All of them hold at once, so also those against the best, whichever that is.
        """
        q = scipy.stats.studentized_range.ppf(CONFIDENCE, cells, self.freedom)
        return float(q * self.run_sd / np.sqrt(self.seeds))


def noise_floor(table: np.ndarray) -> NoiseFloor:
    """Variance components of `table` [policies >= 2, seeds >= 2] (two-way, no interaction)."""
    table = np.asarray(table, dtype=float)
    policies, seeds = table.shape
    if policies < 2 or seeds < 2:
        raise ValueError(f"at least 2 policies and 2 seeds are needed, but got {table.shape}")
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    residual = table - rows - columns + table.mean()
    freedom = (policies - 1) * (seeds - 1)
    run_variance = float((residual**2).sum() / freedom)
    mean_variance = float(rows.var(ddof=1))
    policy_variance = max(0.0, mean_variance - run_variance / seeds)
    reliability = policy_variance / mean_variance if mean_variance > 0 else 0.0
    run_sd = float(np.sqrt(run_variance))
    flat = run_sd <= ROUNDING * float(np.abs(table).max())
    policy_sd = float(np.sqrt(policy_variance))
    return NoiseFloor(run_sd, policy_sd, reliability, seeds, freedom, flat)
