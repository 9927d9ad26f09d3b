"""Methods compared over draws of the images: nested data, of which a draw counts once.

Children of one draw share its images, its searches and their policies, so a draw gives every pair
of methods one number, the mean difference over its seeds. With the same seeds in every draw that is
what a mixed model with draws, methods within draws and children would test, without its assumptions
about which variances are equal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from proxy_tasks.run_format import OTHER, OWN, pairs_of

from . import tables
from .statistics import (
    ALPHA,
    MOST_SEEDS,
    ROUNDING,
    Difference,
    holm,
    holm_levels,
    mean_difference,
    mean_interval,
    paired_superiority,
    seeds_needed,
    share_interval,
    verdict,
)

PLACES = {OWN: "its own draw", OTHER: "a draw that nobody searched"}


@dataclass(frozen=True)
class Draws:
    """What children of one kind of draw reach on test images; nobody else's results count.

    Attributes:
        methods: names, in the order of the command line.
        numbers: of the draws, ascending.
        tested: accuracies in %, or another measure, float [draws, seeds, methods]; NaN for a child
            that failed. A diverged one is at chance.
        diverged: children.
        cost: of a method's search in children, mean over draws; [methods].
    """

    methods: tuple[str, ...]
    numbers: tuple[int, ...]
    tested: np.ndarray
    diverged: int
    cost: np.ndarray

    def means(self, method: str) -> np.ndarray:
        """Mean in each draw, [draws]; NaN where all children failed."""
        return _mean(self.tested[:, :, self.methods.index(method)])

    def differences(self, method: str, other: str) -> np.ndarray:
        """Mean of `method` minus `other` over the seeds that both have, [draws]; 0 where it is but
        rounding."""
        means = _mean(self.gaps(method, other))
        return np.where(np.abs(means) <= ROUNDING * self.scale, 0.0, means)

    def gaps(self, method: str, other: str) -> np.ndarray:
        """`method` minus `other` of every child, [draws, seeds]; NaN where either failed."""
        place, against = self.methods.index(method), self.methods.index(other)
        return self.tested[:, :, place] - self.tested[:, :, against]

    @property
    def scale(self) -> float:
        """How large the numbers are that differences are of."""
        return float(np.nanmax(np.abs(self.tested), initial=0.0))


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over the seeds [draws, seeds] that are there; NaN without any."""
    count = np.isfinite(values).sum(axis=1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)


def compare_methods(draws: Draws, pairs: Sequence[tuple[str, str]], margin: float) -> pd.DataFrame:
    """The comparisons `pairs` on one kind of draw, corrected for their number.

    With a margin of 0 nothing is equal.

    Returns:
        A row a pair: method, against, n (draws), difference (points), low, high (at `level`),
        level, p, p_holm, verdict, ahead, ahead_low, ahead_high, detectable (true difference found
        with 80 % power at the corrected level), draws_needed (to find one of `margin`),
        child_share (of the variance of a draw's difference, what is noise of its children).
    """
    units = [draws.differences(*pair) for pair in pairs]
    units = [unit[np.isfinite(unit)] for unit in units]
    tests = [_test(unit, draws.scale) for unit in units]
    p = [test.p for test in tests]
    alpha = ALPHA / max(1, len(p))
    rows = []
    for (method, other), unit, test, p_holm, level in zip(
        pairs, units, tests, holm(p), holm_levels(p), strict=True
    ):
        low, high = test.interval(1 - level)
        ahead = float(paired_superiority(unit)) if unit.size else np.nan
        lowest, highest = share_interval(ahead, unit.size) if unit.size else (np.nan, np.nan)
        sd = float(unit.std(ddof=1)) if np.isfinite(test.error) else np.nan
        rows.append(
            {
                "method": method,
                "against": other,
                "n": unit.size,
                "difference": test.mean,
                "low": low,
                "high": high,
                "level": 1 - level,
                "p": test.p,
                "p_holm": p_holm,
                "verdict": verdict((low, high), margin),
                "ahead": ahead,
                "ahead_low": lowest,
                "ahead_high": highest,
                "detectable": test.detectable(alpha=alpha),
                "draws_needed": seeds_needed(sd, margin, alpha=alpha) if margin and sd >= 0 else 0,
                "child_share": _child_share(draws, method, other),
            }
        )
    return pd.DataFrame(rows)


def _test(unit: np.ndarray, scale: float) -> Difference:
    if not unit.size:
        return Difference(np.nan, np.nan, np.nan, 0)
    return mean_difference(unit, scale)


def _child_share(draws: Draws, method: str, other: str) -> float:
    """Share of the variance of a draw's difference that is due to its children; NaN if unknown."""
    gap = draws.gaps(method, other)
    gap = gap[np.isfinite(gap).all(axis=1)]
    if min(gap.shape) < 2:
        return float("nan")
    between = gap.mean(axis=1).var(ddof=1)
    within = gap.var(axis=1, ddof=1).mean() / gap.shape[1]
    return float(min(1.0, within / between)) if between > 0 else float("nan")


@dataclass(frozen=True)
class Replication:
    """The result of a replication; accuracies in percent, differences in percentage points.

    Attributes:
        table: a row a method: method, draws, own_mean, own_low, own_high, own_sd, other_mean, ...
            (over means of draws, 95 %, Student's t), search_children (cost of its search).
        pairs: the rows of `compare_methods` for both kinds of draws, with the column `images`
            ("own", "other").
        draws: by kind.
        margin: what counts as equal.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    draws: dict[str, Draws]
    margin: float

    @property
    def text(self) -> str:
        """Tables and words for a terminal of 80 columns."""
        shown = pd.DataFrame(
            {
                "method": self.table["method"],
                "own %": self.table["own_mean"].map(tables.number),
                "95 %": tables.intervals(self.table["own_low"], self.table["own_high"]),
                "other %": self.table["other_mean"].map(tables.number),
                "cost": self.table["search_children"].map(cost_text),
            }
        )
        return "\n\n".join([tables.plain(shown), tables.wrapped(self.sentences)])

    @property
    def sentences(self) -> list[str]:
        """What the comparisons say, in words."""
        both = self.pairs.groupby(["method", "against"], sort=False)
        said = [self._sentence(names, rows) for names, rows in both]
        own = self.pairs[(self.pairs["images"] == OWN) & self.pairs["detectable"].notna()]
        if len(own):
            count = len(self.pairs) // len(self.draws)
            needed = tables.about(int(own["draws_needed"].median()), MOST_SEEDS)
            best, worst = (own.loc[own["detectable"].agg(how)] for how in ("idxmin", "idxmax"))
            said.append(
                f"What {int(own['n'].min())} draws can resolve: true differences of "
                f"{best['detectable']:.1f} ({best['method']}) to {worst['detectable']:.1f} points "
                f"({worst['method']}) are found with 80 % probability, after the correction for "
                f"{count} comparison{'s' * (count > 1)}. For one of {self.margin:g} "
                f"points {needed} draws would be needed (median)."
            )
            share = own["child_share"].median()
            if np.isfinite(share):
                said.append(
                    f"About {100 * share:.0f} % of the variance of a draw's difference is noise of "
                    "its children, which more --seeds would reduce; the rest lies between draws "
                    "and searches, which only more --draws can."
                )
        diverged = sum(draws.diverged for draws in self.draws.values())
        failed = sum(int(np.isnan(draws.tested).sum()) for draws in self.draws.values())
        said += [f"{diverged} children diverged and count with accuracy at chance."] * bool(
            diverged
        )
        said += [f"{failed} children failed and are missing from their pairs."] * bool(failed)
        return said

    def _sentence(self, names: Any, rows: pd.DataFrame) -> str:
        found = "; ".join(self._clause(row) for row in rows.itertuples(index=False))
        return f"{names[0]} against {names[1]}: {found}."

    def _clause(self, row: Any) -> str:
        where = f"on {PLACES[row.images]} "
        if not np.isfinite(row.p):
            return f"{where}undecided, {row.n} draws give no spread to judge by"
        equal = f" within {self.margin:g} points" if row.verdict == "equal" else ""
        return (
            f"{where}{row.verdict}{equal}, {row.difference:+.2f} points "
            f"{tables.interval(row.low, row.high, sign=True)} "
            f"(p {tables.p_clause(row.p_holm)}), ahead in "
            f"{100 * row.ahead:.0f} % of {row.n} draws "
            f"[{100 * row.ahead_low:.0f}, {100 * row.ahead_high:.0f}]"
        )


def cost_text(children: float) -> str:
    """What a search has cost, in children."""
    return f"{children:.4g}" if children else "none"


def analyse_replication(
    draws: dict[str, Draws],
    against: Sequence[str],
    margin: float,
    arms: Collection[str] = (),
) -> Replication:
    """Compare methods on both kinds of draws.

    Args:
        draws: "own" and "other".
        against: methods that others are compared with.
        margin: percentage points within which methods count as equal.
        arms: methods that search for nothing; which pairs are compared: `run_format.pairs_of`.
    """
    methods = next(iter(draws.values())).methods
    rows = []
    for method in methods:
        row: dict[str, Any] = {
            "method": method, "draws": int(np.isfinite(draws[OWN].means(method)).sum())
        }  # fmt: skip
        for images, those in draws.items():
            means = those.means(method)
            means = means[np.isfinite(means)]
            found = mean_interval(means) if means.size else None
            for name in ("mean", "low", "high", "sd"):
                row[f"{images}_{name}"] = getattr(found, name, np.nan)
        row["search_children"] = float(draws[OWN].cost[methods.index(method)])
        rows.append(row)
    pairs = pairs_of(methods, against, arms)
    compared = [
        compare_methods(those, pairs, margin).assign(images=images)
        for images, those in draws.items()
    ]
    return Replication(pd.DataFrame(rows), pd.concat(compared, ignore_index=True), draws, margin)
