"""Counts over policies: which operations, probabilities and magnitudes they use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from policies import OPS, Policy
from policies.ops import PAPER_OPS


@dataclass(frozen=True)
class PolicyStatistics:
    """Shares (each sums to 1, or is 0 throughout) over the operations of a group of policies.

    Attributes:
        operations: by name, in the order of the operation table.
        probabilities: of 0 .. 10 tenths, counting what is written.
        magnitudes: of 0 .. bins-1, over the operations that have a magnitude.
        count: number of operations written.
    """

    operations: pd.Series
    probabilities: pd.Series
    magnitudes: pd.Series
    count: int


def policy_statistics(
    policies: Iterable[Policy], bins: int = 10, *, applied: bool = True
) -> PolicyStatistics:
    """Count the operations of `policies`, all of which index `bins` magnitudes.

    Args:
        policies: each has the same weight.
        bins: magnitudes there are.
        applied: operations and magnitudes count as often as they are applied to an image: an
            operation that is written with probability 0 is not used. False counts what is written.
    """
    rows = [
        (*operation, 1 / len(policy)) for policy in policies for sub in policy for operation in sub
    ]
    names = [name for name, _, _, _ in rows]
    weights = [(probability if applied else 1.0) * weight for _, probability, _, weight in rows]
    table = pd.DataFrame(
        {
            "name": pd.Series(names, dtype=object),
            "tenths": pd.Series([round(10 * p) for _, p, _, _ in rows], dtype=int),
            "magnitude": pd.Series([m for _, _, m, _ in rows], dtype=object),
            "weight": pd.Series(weights, dtype=float),
            "share": pd.Series([share for _, _, _, share in rows], dtype=float),
        }
    )
    used = [name for name in OPS if name != "Identity" or name in names]
    return PolicyStatistics(
        _shares(table.groupby("name")["weight"].sum(), used),
        _shares(table.groupby("tenths")["share"].sum(), range(11)),
        _shares(table.groupby("magnitude")["weight"].sum(), range(bins)),
        len(rows),
    )


def _shares(totals: pd.Series, index: Iterable) -> pd.Series:
    counts = totals.reindex(list(index), fill_value=0.0)
    total = counts.sum()
    return counts / total if total > 0 else counts


def batch_entropies(trials: pd.DataFrame, operations: int = len(PAPER_OPS)) -> pd.DataFrame:
    """How concentrated a searcher's draws have become: one row per batch of a journal's policies.

    Columns operation, probability, magnitude: entropy of the shares within the batch, divided by
    that of a uniform distribution over all choices (`operations` there are; NaN for one). A uniform
    searcher stays just below 1 (small samples look less uniform than they are); a controller that
    has settled comes down.
    """
    rows = {}
    for batch, group in trials.groupby("batch"):
        policies = [Policy(policy) for policy in group["policy"] if isinstance(policy, tuple)]
        if policies:
            found = policy_statistics(policies, applied=False)
            shares = (found.operations, found.probabilities, found.magnitudes)
            choices = (operations, *map(len, shares[1:]))
            rows[batch] = [
                scipy.stats.entropy(s) / np.log(count) if s.sum() and count > 1 else np.nan
                for s, count in zip(shares, choices, strict=True)
            ]
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["operation", "probability", "magnitude"]
    )


def histogram_overlap(first: pd.Series, second: pd.Series) -> float:
    """Shared area of two histograms of shares: 1 when they are equal, 0 when nothing is common."""
    both = pd.concat([first, second], axis=1).fillna(0.0).to_numpy()
    return float(np.minimum(both[:, 0], both[:, 1]).sum())
