"""Rank correlations between policies' scores, and what the noise of these leaves of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.stats

from .statistics import ALPHA, RESAMPLES, ends


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho with a percentile bootstrap interval over the `n` policies.

    Where all resamples give the same, that is no interval: `low` and `high` are NaN.
    """

    rho: float
    low: float
    high: float
    n: int


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rho of each column of `a` with that of `b`; NaN for a constant.

    [n] -> a number, [..., n, columns] -> [..., columns].
    """
    axis = 0 if a.ndim == 1 else -2
    a, b = scipy.stats.rankdata(a, axis=axis), scipy.stats.rankdata(b, axis=axis)
    a, b = a - a.mean(axis=axis, keepdims=True), b - b.mean(axis=axis, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=axis) / norm


def rank_correlation(
    scores: np.ndarray,
    reference: np.ndarray,
    *,
    draws: int = RESAMPLES,
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

    def statistic(rows: np.ndarray) -> np.ndarray:
        return spearman(scores[rows], reference[rows]).mean(axis=-1)

    n = scores.shape[0]
    rho = float(statistic(np.arange(n)))
    if not np.isfinite(rho):
        return Correlation(float("nan"), float("nan"), float("nan"), n)
    rng = np.random.default_rng(0)
    samples = np.empty(0)
    at_once = max(1, min(draws, 1_000_000 // scores.size))  # 8 MB an array
    for _ in range(-(-10 * draws // at_once)):
        values = statistic(rng.integers(n, size=(at_once, n)))
        samples = np.append(samples, values[np.isfinite(values)])[:draws]
        if len(samples) == draws:
            break
    low, high = ends(samples, ALPHA / 2) if len(samples) else (np.nan, np.nan)
    return Correlation(rho, low, high, n)


def rank_ceiling(table: np.ndarray) -> float:
    """What Spearman's rho of a perfect predictor with the mean over the seeds is about.

    The mean rho between two seeds of `table` [policies, seeds >= 2], from it by Spearman and
    Brown's formula that of the mean over all seeds, and its square root. NaN for a constant seed.
    """
    table = np.asarray(table, dtype=float)
    seeds = table.shape[1]
    pairs = np.array(list(itertools.combinations(range(seeds), 2)))
    rho = float(spearman(table[:, pairs[:, 0]], table[:, pairs[:, 1]]).mean())
    rho = min(1.0, max(0.0, rho)) if np.isfinite(rho) else float("nan")
    return float(np.sqrt(seeds * rho / (1 + (seeds - 1) * rho)))
