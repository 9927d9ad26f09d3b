"""The statistics that every table of the project uses; scipy and statsmodels do the arithmetic.

Accuracies and rewards come in whatever unit the caller uses; the results have the same unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

CONFIDENCE = 0.95
POWER = 0.80


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` runs: `sd` with n-1 degrees of freedom, `low`/`high` by Student's t.

    With one run there is no spread to estimate: `sd`, `low` and `high` are NaN.
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Mean, standard deviation and t interval of `values` (at least one, all finite)."""
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError(f"values: a list of finite numbers is needed, but got {values!r}")
    n, mean = sample.size, float(sample.mean())
    if n == 1:
        return Estimate(mean, float("nan"), 1, float("nan"), float("nan"))
    sd = float(sample.std(ddof=1))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / np.sqrt(n)
    return Estimate(mean, sd, n, mean - half, mean + half)


@dataclass(frozen=True)
class Difference:
    """A paired difference `first - second`: mean, t interval, two-sided p of the paired t test.

    `p` is NaN with fewer than two pairs. Identical pairs have p = 1 (no difference was seen),
    a constant non-zero difference p = 0, the limits of the t test as the spread goes to zero.
    """

    estimate: Estimate
    p: float


def paired_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE
) -> Difference:
    """`first[i] - second[i]`, where i is the same seed in both."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"pairs: as many values in both, but got {a.size} and {b.size}")
    estimate = mean_interval(a - b, confidence)
    if estimate.n < 2:
        return Difference(estimate, float("nan"))
    rounding = 1e-12 * max(np.abs(a).max(), np.abs(b).max())
    if estimate.sd <= rounding:  # constant, as far as the values can tell
        return Difference(estimate, 1.0 if abs(estimate.mean) <= rounding else 0.0)
    return Difference(estimate, float(scipy.stats.ttest_rel(a, b).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of `p_values`; NaN (not testable) stays NaN, uncounted."""
    p = np.asarray(p_values, dtype=float)
    corrected = np.full(p.shape, np.nan)
    testable = np.isfinite(p)
    if testable.any():
        corrected[testable] = multipletests(p[testable], method="holm")[1]
    return corrected.tolist()


def minimum_detectable_difference(
    sd_of_difference: float, n: int, power: float = POWER, alpha: float = 1 - CONFIDENCE
) -> float:
    """The true difference that a paired t test with `n` pairs finds with probability `power`.

    `sd_of_difference` is the standard deviation of one paired difference. NaN when n < 2.
    """
    if n < 2 or not np.isfinite(sd_of_difference):
        return float("nan")
    if sd_of_difference == 0:
        return 0.0
    effect = TTestPower().solve_power(
        nobs=n, power=power, alpha=alpha, alternative="two-sided", effect_size=None
    )
    return float(np.squeeze(effect)) * sd_of_difference


def seeds_needed(
    sd_of_difference: float, difference: float, power: float = POWER, alpha: float = 1 - CONFIDENCE
) -> int:
    """Pairs that a paired t test needs to find a true `difference` with probability `power`."""
    if not difference > 0 or not sd_of_difference >= 0:
        raise ValueError(f"difference > 0 and sd >= 0 needed, got {difference}, {sd_of_difference}")
    # Counting up is exact and cannot miss: the solver for n has no root below two pairs.
    n, step = 2, 1
    while minimum_detectable_difference(sd_of_difference, n + step, power, alpha) > difference:
        n, step = n + step, step * 2
    if minimum_detectable_difference(sd_of_difference, n, power, alpha) <= difference:
        return n
    low, high = n, n + step
    while high - low > 1:
        middle = (low + high) // 2
        enough = minimum_detectable_difference(sd_of_difference, middle, power, alpha) <= difference
        low, high = (low, middle) if enough else (middle, high)
    return high


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho with a percentile bootstrap interval over the `n` policies."""

    rho: float
    low: float
    high: float
    n: int


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rho of each column of `a` with that of `b` ([n, columns]); NaN for a constant."""
    a, b = scipy.stats.rankdata(a, axis=0), scipy.stats.rankdata(b, axis=0)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=0) / norm


def rank_correlation(
    scores: np.ndarray,
    reference: np.ndarray,
    *,
    confidence: float = CONFIDENCE,
    draws: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Mean over evaluation seeds of Spearman's rho between `scores` and `reference`.

    `scores` and `reference` are [policies, seeds]: column s of `reference` is what column s of
    `scores` has to predict (they may differ, where the reference leaves the same seed out).
    Policies are resampled, all seeds of a policy together, because seeds of one policy are not
    independent evidence about other policies. A resample in which either side is constant has no
    rank correlation and is drawn anew.
    """
    scores, reference = np.atleast_2d(scores.T).T, np.atleast_2d(reference.T).T
    if scores.shape != reference.shape or scores.shape[0] < 4:
        raise ValueError(f"two [policies >= 4, seeds] tables, got {scores.shape} {reference.shape}")

    def statistic(rows: np.ndarray) -> float:
        return float(spearman(scores[rows], reference[rows]).mean())

    n = scores.shape[0]
    rho = statistic(np.arange(n))
    if not np.isfinite(rho):
        return Correlation(float("nan"), float("nan"), float("nan"), n)
    rng = np.random.default_rng(seed)
    samples: list[float] = []
    for _ in range(10 * draws):
        value = statistic(rng.integers(n, size=n))
        if np.isfinite(value):
            samples.append(value)
        if len(samples) == draws:
            break
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail]) if samples else (np.nan, np.nan)
    return Correlation(rho, float(low), float(high), n)


@dataclass(frozen=True)
class NoiseFloor:
    """Two-way split of a [policies, seeds] table: what differs between policies, what is noise.

    `run_sd` is the residual standard deviation of one run after policy and seed means,
    `policy_sd` that between true policy means, `reliability` the share of the variance of the
    mean over all seeds that is due to the policies. Its square root bounds the correlation that a
    perfect predictor can reach with that mean.
    """

    run_sd: float
    policy_sd: float
    reliability: float
    seeds: int

    @property
    def ceiling(self) -> float:
        return float(np.sqrt(self.reliability))


def noise_floor(table: np.ndarray) -> NoiseFloor:
    """Variance components of `table` [policies >= 2, seeds >= 2] (two-way, no interaction)."""
    table = np.asarray(table, dtype=float)
    policies, seeds = table.shape
    if policies < 2 or seeds < 2:
        raise ValueError(f"at least 2 policies and 2 seeds are needed, but got {table.shape}")
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    residual = table - rows - columns + table.mean()
    run_variance = float((residual**2).sum() / ((policies - 1) * (seeds - 1)))
    mean_variance = float(rows.var(ddof=1))
    policy_variance = max(0.0, mean_variance - run_variance / seeds)
    reliability = policy_variance / mean_variance if mean_variance > 0 else 0.0
    return NoiseFloor(np.sqrt(run_variance), np.sqrt(policy_variance), reliability, seeds)
