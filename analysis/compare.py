"""`augsearch compare`: test accuracy per arm, paired differences, what the seeds can resolve."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from policies import PUBLISHED, OwnPipeline, Policy, PolicyTransform
from policies.errors import InputError
from proxy_tasks.evaluators.config import SHARING

from . import plots, sections, tables
from .asked import evaluations
from .document import Block, Picture, Report, Section, Sentences, Table, Text, section
from .runs import Arm, Run, in_children, passes_of_one, validated
from .statistics import (
    ALPHA,
    Difference,
    Estimate,
    arm_difference,
    holm,
    holm_levels,
    mean_interval,
    probability_of_improvement,
    verdict,
)

MARGIN = 0.5  # percentage points: differences below it are called equal where that is shown
FEW = 3  # pairs without the first arm that are told in words too; more only in the table
METHOD = (
    "Differences are paired over seeds: the same seed gives every arm the same initial weights and "
    "batches. An arm of several policies counts each policy once, with the mean over its seeds; an "
    "arm of one policy stands for that policy, not for the way it was found. Intervals of "
    "differences are Student's t, at the level at which Holm's procedure over the arms tests them, "
    "so that interval and p agree (of three intervals one or more may miss in up to 9 %, of ten in "
    "up to 14 %); the arms' own intervals are at 95 %. Equal: the interval lies within the margin. "
    "Ahead: share of all pairs of runs, one of each arm, in which this arm is ahead."
)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison; accuracies and differences in percent and percentage points.

    Attributes:
        table: one row an arm: arm, n, mean, sd, low, high (95 %), difference from the first arm,
            difference_low, difference_high (95 %), freedom, p, p_holm, level (confidence of the
            corrected interval), corrected_low, corrected_high, verdict, ahead (probability of
            improvement), detectable (at 80 % power and the corrected level), validation (mean
            accuracy of the same children on the validation part, to choose by; then compare the
            chosen arm anew with a --seed beyond theirs, as their test accuracy shares their luck),
            failed, diverged, search_evaluations, search_children. The last is the cost of the
            search in children: its image passes over those of a child here. The first arm has no
            difference. `n` counts seeds, or the policies of an arm that has several.
        pairs: first, second, n, difference (second - first), low, high, freedom, p of every two
            arms; neither interval nor p is corrected.
        runs: accuracy by seed, for every arm.
        margin: what counts as equal.
        draw: how the images were drawn, in words.
        judge: the kind of evaluator.
        unknown: children that diverged and have no accuracy.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    runs: dict[str, pd.Series]
    margin: float = MARGIN
    draw: str = "this draw of the data"
    judge: str = "from-scratch"
    unknown: int = 0

    @property
    def text(self) -> str:
        """Table and words for a terminal of 80 columns."""
        return "\n\n".join([tables.plain(compact(self)), tables.wrapped(self.sentences)])

    @property
    def sentences(self) -> list[str]:
        """What the table says, in words."""
        others = self.table.iloc[1:]
        first = self.table["arm"].iloc[0]
        without = self.table.loc[self.table["n"] == 0, "arm"].tolist()
        said = []
        if without:
            said.append(f"Without a result: {', '.join(without)}.")
        if first in without:
            said.append(f"Nothing is compared with {first}, the first arm, before it has some.")
        else:
            said += [self._sentence(first, row) for _, row in others.iterrows() if row["n"]]
        rest = self.pairs[self.pairs["first"] != first] if len(self.pairs) else self.pairs
        if len(rest) <= FEW:
            said += [
                f"{row.second} against {row.first}: {row.difference:+.2f} points "
                f"{tables.interval(row.low, row.high, sign=True)} at 95 %, not corrected."
                for row in rest.itertuples(index=False)
                if np.isfinite(row.low)
            ]
        known = others[others["detectable"].notna()]
        if len(known):
            sizes = ", ".join(
                f"{row.arm} {row.detectable:.1f}" for row in known.itertuples(index=False)
            )
            said.append(
                "True differences that such a comparison finds with 80 % probability, in points: "
                f"{sizes}. Smaller ones can go unseen."
            )
        if len(others) and self.table["n"].iloc[0] == 1:
            said.append("One seed cannot tell a difference from luck; use at least three.")
        diverged = int(self.table["diverged"].sum()) - self.unknown
        if diverged:
            said.append(f"{diverged} children diverged and count with accuracy at chance.")
        if self.unknown:
            said.append(f"{self.unknown} diverged without an accuracy, and count for nothing.")
        failed = int(self.table["failed"].sum())
        if failed:
            said.append(f"{failed} evaluations failed and are missing from their pairs.")
        if len(others):
            said.append(
                "Only the training seed varies, and the policy of arms that have several: all this "
                f"holds on {self.draw}."
            )
        if self.judge in SHARING:
            said.append(
                f"Judged by {self.judge}, not by children trained from scratch: all arms on one "
                "shared child, whose luck no interval holds."
            )
        return said

    def _sentence(self, first: str, row: pd.Series) -> str:
        if not np.isfinite(row["difference"]):
            return f"{row['arm']}: no seed in common with {first}."
        head = f"{row['arm']} against {first}: {row['difference']:+.2f} points"
        if row["pairs"] < 2:
            return head + ", one pair, no interval."
        if not np.isfinite(row["p"]):
            return (
                f"{head} in each of {row['pairs']} pairs: undecided, without a spread to judge by."
            )
        low, high = row["corrected_low"], row["corrected_high"]
        found = "equal within the margin" if row["verdict"] == "equal" else row["verdict"]
        if found in ("better", "worse") and max(abs(low), abs(high)) <= self.margin:
            found += ", by less than the margin"
        margin = f" of {self.margin:g} points" if "margin" in found else ""
        shown = tables.interval(low, high, sign=True)
        return f"{head} {shown}: {found}{margin} (p {tables.p_clause(row['p_holm'])})."


def compare_arms(run: Run, margin: float = MARGIN) -> Comparison:
    """The comparison of the arms of `run`, in the order of the command line.

    Args:
        run: a run folder of `augsearch compare`.
        margin: percentage points within which a difference is called equal.

    Raises:
        InputError: for a run without any result yet, or a margin that is not positive.
    """
    if not margin > 0:
        raise InputError("margin", "must be above 0 percentage points", margin, "use 0.5")
    trials = run.trials[run.trials["part"] == "test"]
    # The first that was asked for, though it may have no result yet, or none at all.
    asked = [arm.name for arm in run.arms[:1]]
    arms = list(dict.fromkeys([*asked, *trials.sort_values(["batch", "slot"])["label"]]))
    accuracy = {arm: _by_seed(trials, arm) for arm in arms}
    if not any(map(len, accuracy.values())):
        raise run.unfinished("at least one tested child")
    costs = {arm.name: arm for arm in run.arms}
    # Written out once: every two arms ask which of their seeds had the same policies.
    policies = trials.pivot(index="seed", columns="label", values="policy").map(repr)
    rows = [_row(trials, arm, arms[0], accuracy, policies, costs.get(arm)) for arm in arms]
    pairs = []
    for first, second in itertools.combinations(arms, 2):
        between = _difference(second, first, accuracy, policies)
        if between is not None:
            low, high = between.interval()
            pairs.append(
                {
                    "first": first,
                    "second": second,
                    "n": between.n,
                    "difference": between.mean,
                    "low": low,
                    "high": high,
                    "freedom": between.freedom,
                    "p": between.p,
                }
            )
    seed = run.option("task", "seed")
    draw = "this draw of the data" + (f" (--task-seed {seed})" if seed is not None else "")
    table = _corrected(pd.DataFrame(rows), margin)
    judge = str(run.option("evaluator", "kind", "from-scratch"))
    unknown = int((trials["diverged"] & trials["accuracy"].isna()).sum())
    return Comparison(table, pd.DataFrame(pairs), accuracy, margin, draw, judge, unknown)


def _by_seed(trials: pd.DataFrame, arm: str) -> pd.Series:
    rows = trials[(trials["label"] == arm) & trials["accuracy"].notna()]
    return (100 * rows.set_index("seed")["accuracy"]).sort_index()


def _difference(
    arm: str, other: str, accuracy: dict[str, pd.Series], policies: pd.DataFrame
) -> Difference | None:
    """`arm` minus `other`, paired; None without a seed in common."""
    pairs = pd.concat({arm: accuracy[arm], other: accuracy[other]}, axis=1, join="inner")
    if not len(pairs):
        return None
    had = policies.loc[pairs.index]
    return arm_difference(pairs[arm], pairs[other], had[arm], had[other])


def _row(
    trials: pd.DataFrame,
    arm: str,
    first: str,
    accuracy: dict[str, pd.Series],
    policies: pd.DataFrame,
    cost: Arm | None,
) -> dict[str, Any]:
    mine, one = trials[trials["label"] == arm], passes_of_one(trials)
    guessed = mine["accuracy"].where(mine["diverged"])  # of children that diverged, as when tested
    estimate = Estimate(np.nan, np.nan, 0, np.nan, np.nan)
    if len(accuracy[arm]):
        by_policy = accuracy[arm].groupby(policies.loc[accuracy[arm].index, arm], sort=False).mean()
        estimate = mean_interval(by_policy if len(by_policy) > 1 else accuracy[arm])
    row = {
        "arm": arm,
        "n": estimate.n,
        "mean": estimate.mean,
        "sd": estimate.sd,
        "low": estimate.low,
        "high": estimate.high,
        "validation": 100 * validated(mine, "accuracy").fillna(guessed).mean(),
        "failed": int((mine["status"] == "failed").sum()),
        "diverged": int(mine["diverged"].sum()),
        "search_evaluations": cost.evaluations if cost else 0.0,
        "search_children": in_children(cost.image_passes, one) if cost else 0.0,
    }
    paired = None if arm == first else _difference(arm, first, accuracy, policies)
    if paired is None:
        return row | {"paired": None, "pairs": 0, "ahead": np.nan}
    ahead = probability_of_improvement(accuracy[arm], accuracy[first])
    return row | {"paired": paired, "pairs": paired.n, "ahead": ahead}


COLUMNS = (
    "difference", "difference_low", "difference_high", "freedom", "p", "p_holm", "level",
    "corrected_low", "corrected_high", "verdict", "detectable",
)  # fmt: skip


def _corrected(table: pd.DataFrame, margin: float) -> pd.DataFrame:
    """With COLUMNS in the place of `paired`, corrected over all differences of several pairs."""
    paired: dict[int, Difference | None] = dict(enumerate(table.pop("paired")))
    family = {place: d for place, d in paired.items() if d is not None and d.n > 1}
    # One without a spread counts among the comparisons that were made, but can show nothing.
    p = [d.p for d in family.values()]
    corrected = dict(zip(family, zip(holm(p), holm_levels(p), strict=True), strict=True))
    rows: list[dict[str, Any]] = []
    for place, d in paired.items():
        if d is None:
            rows.append({"verdict": ""})
            continue
        p_holm, level = corrected.get(place, (np.nan, np.nan))
        within = d.interval(1 - level)
        detectable = d.detectable(alpha=ALPHA / max(1, len(p)))
        values: tuple[Any, ...] = (
            d.mean, *d.interval(), d.freedom, d.p, p_holm, 1 - level, *within,
            verdict(within, margin), detectable,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    columns = pd.DataFrame(rows, table.index, COLUMNS)
    place = list(table).index("validation")
    return pd.concat([table.iloc[:, :place], columns, table.iloc[:, place:]], axis=1)


def readable(comparison: Comparison) -> pd.DataFrame:
    """The table for people: formatted cells, column names with units."""
    table = comparison.table
    first = table["arm"].iloc[0]
    return pd.DataFrame(
        {
            "arm": table["arm"],
            "test accuracy (%)": table["mean"].map(tables.number),
            "sd": table["sd"].map(tables.number),
            "n": table["n"].astype(str),
            "95 % interval": tables.intervals(table["low"], table["high"]),
            f"minus {first}": tables.numbers(table["difference"], sign=True),
            "interval of the difference": tables.intervals(
                table["corrected_low"], table["corrected_high"], sign=True
            ),
            "p (Holm)": table["p_holm"].map(tables.p_value),
            "ahead": table["ahead"].map(tables.share),
            "verdict": table["verdict"],
            "search cost": [
                f"{int(count)} evaluations = {children:.3g} children" if count else "none"
                for count, children in zip(
                    table["search_evaluations"], table["search_children"], strict=True
                )
            ],
        }
    )


def compact(comparison: Comparison) -> pd.DataFrame:
    """The columns of `readable` that a terminal has room for."""
    short = {
        "arm": "arm",
        "test accuracy (%)": "test %",
        "sd": "sd",
        "n": "n",
        f"minus {comparison.table['arm'].iloc[0]}": "minus 1st",
        "interval of the difference": "interval",
        "verdict": "verdict",
    }
    return readable(comparison)[list(short)].rename(columns=short)


def comparison_report(run: Run) -> Report:
    """The report of a comparison, finished or not."""
    return report_on(run, comparison_so_far(run))


def comparison_so_far(run: Run) -> Comparison | None:
    """The comparison of the arms of `run`; None where there is nothing to compare yet."""
    trials = run.trials
    tested = trials["accuracy"].notna() & (trials["part"] == "test")
    return compare_arms(run) if tested.any() else None


def comparison_blocks(comparison: Comparison | None) -> list[Block]:
    """What a comparison says, as a table, a picture and words."""
    if comparison is None:
        return [Text("No child was tested yet.")]
    return [
        Sentences(tuple(comparison.sentences)),
        Table(readable(comparison), METHOD + " pairs.csv has every two arms, not corrected."),
        Picture(
            "compare",
            "arms",
            lambda path: plots.arms(comparison.table, comparison.runs, path, comparison.judge),
        ),
    ]


def report_on(run: Run, comparison: Comparison | None) -> Report:
    """The report of a run of which this is the comparison."""
    state = sections.state(len(run.trials), evaluations(run), "children")
    data = {"compare.csv": comparison.table, "pairs.csv": comparison.pairs} if comparison else {}
    return Report(
        title=f"Comparison on {run.task}",
        run=run,
        name="compare.md",
        sections=(
            section("", Text(state), *comparison_blocks(comparison)),
            _every_two(comparison),
            *sections.closing(run, _policies(run)),
        ),
        data=data,
        text=comparison.text if comparison else "",
    )


def _every_two(comparison: Comparison | None) -> Section:
    """All pairs of arms, where there are more than those with the first."""
    title = "Every two arms"
    if comparison is None or len(comparison.pairs) < len(comparison.table):
        return section(title)
    pairs = comparison.pairs
    shown = pd.DataFrame(
        {
            "arm": pairs["second"],
            "minus": pairs["first"],
            "difference": tables.numbers(pairs["difference"], sign=True),
            "95 % interval": tables.intervals(pairs["low"], pairs["high"], sign=True),
            "p": pairs["p"].map(tables.p_value),
        }
    )
    return section(title, Table(shown, "Neither interval nor p is corrected for their number."))


def _policies(run: Run) -> Section:
    """What the arms are that a name alone does not say: policies from files."""
    blocks: list[Block] = []
    for arm in run.arms:
        for member in () if arm.text in PUBLISHED else arm.members:
            if isinstance(member, Policy | PolicyTransform):
                blocks += [Text(f"{arm.name}:"), *sections.shown(member)]
            elif isinstance(member, OwnPipeline):
                blocks.append(Text(f"{arm.name}: the pipeline {member.path}"))
    return section("Policies of the arms", *blocks, details=True)
