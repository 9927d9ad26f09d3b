"""`augsearch compare`: test accuracy per arm, paired differences, what the seeds can resolve."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import plots, tables

from .runs import Run, load_run
from .statistics import (
    Difference,
    holm,
    mean_interval,
    minimum_detectable_difference,
    paired_difference,
)

SIGNIFICANT = 0.05
METHOD = (
    "Differences are paired over seeds: the same seed gives every arm the same initial weights and "
    "batches. An arm of several policies counts each policy once, with the mean over its seeds. "
    "Intervals: Student's t, 95 %. p: paired t test, corrected by Holm over the arms."
)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison; accuracies and differences in percent and percentage points.

    `table`: arm, n, mean, sd, low, high (95 %), difference, difference_low, difference_high,
    p, p_holm, detectable (at 80 % power), failed, diverged, search_evaluations, search_children.
    The last is the cost of the search in children: its image passes over those of a child here.
    The first arm has no difference. `n` counts seeds, or the policies of an arm that has several.
    `pairs`: first, second, n, difference (second - first), low, high, p of every two arms; p is
    not corrected. `runs`: arm -> accuracy by seed.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    runs: dict[str, pd.Series]

    @property
    def sentences(self) -> list[str]:
        """What the table says, in words."""
        first = self.table.iloc[0]
        said = [_sentence(first["arm"], row) for _, row in self.table.iloc[1:].iterrows()]
        detectable = self.table["detectable"].iloc[1:].max()
        if detectable > 0:
            said.append(
                f"With {int(first['n'])} seeds this comparison finds a true difference of "
                f"{detectable:.1f} points with 80 % probability; smaller ones can go unseen."
            )
        elif len(self.table) > 1 and first["n"] == 1:
            said.append("One seed cannot tell a difference from luck; use at least three.")
        diverged = int(self.table["diverged"].sum())
        if diverged:
            said.append(f"{diverged} children diverged and count with accuracy at chance.")
        failed = int(self.table["failed"].sum())
        if failed:
            said.append(f"{failed} evaluations failed and are missing from their pairs.")
        return said


def _sentence(first: str, row: pd.Series) -> str:
    arm, difference = row["arm"], row["difference"]
    if not np.isfinite(difference):
        return f"{arm}: no seed in common with {first}."
    head = f"{arm} against {first}: {difference:+.2f} points"
    if not np.isfinite(row["p_holm"]):
        return head + ", one pair, no interval."
    head += f" {tables.interval(row['difference_low'], row['difference_high'], sign=True)}"
    if row["p_holm"] < SIGNIFICANT:
        word = "better" if difference > 0 else "worse"
        return f"{head}: {word} (p {_p(row['p_holm'])}, corrected for several comparisons)."
    return f"{head}: not distinguishable (p {_p(row['p_holm'])})."


def _p(p: float) -> str:
    return tables.p_value(p) if p < 0.001 else f"= {tables.p_value(p)}"


def compare_arms(run: Run) -> Comparison:
    """The comparison of the arms of `run`, in the order of the command line.

    Raises InputError for a run without any result yet.
    """
    trials = run.trials[run.trials["part"] == "test"]
    arms = list(dict.fromkeys(trials.sort_values(["batch", "slot"])["label"]))
    accuracy = {arm: _by_seed(trials, arm) for arm in arms}
    arms = [arm for arm in arms if len(accuracy[arm])]
    if not arms:
        raise run.unfinished("at least one tested child")
    costs = {arm["name"]: arm.get("search", {}) for arm in run.option("settings", "arms", [])}
    # Written out once: every two arms ask which of their seeds had the same policies.
    policies = trials.pivot(index="seed", columns="label", values="policy").map(repr)
    rows = [_row(trials, arm, arms[0], accuracy, policies, costs.get(arm, {})) for arm in arms]
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    pairs = []
    for first, second in itertools.combinations(arms, 2):
        between = _difference(second, first, accuracy, policies)
        if between is not None:
            estimate = between.estimate
            pairs.append(
                {
                    "first": first,
                    "second": second,
                    "n": estimate.n,
                    "difference": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "p": between.p,
                }
            )
    return Comparison(table, pd.DataFrame(pairs), accuracy)


def _by_seed(trials: pd.DataFrame, arm: str) -> pd.Series:
    rows = trials[(trials["label"] == arm) & trials["accuracy"].notna()]
    return (100 * rows.set_index("seed")["accuracy"]).sort_index()


def _units(table: pd.DataFrame, policies: pd.DataFrame) -> pd.DataFrame:
    """What counts once: a row of `table` [seeds, arms], or where an arm has a few policies, the
    mean over the seeds that had the same ones, since these do not tell two policies apart."""
    keys = policies.loc[table.index, list(table)].agg(" ".join, axis=1)
    return table.groupby(keys, sort=False).mean() if keys.nunique() > 1 else table


def _difference(
    arm: str, other: str, accuracy: dict[str, pd.Series], policies: pd.DataFrame
) -> Difference | None:
    """`arm` minus `other`, paired; None without a seed in common."""
    pairs = pd.concat({arm: accuracy[arm], other: accuracy[other]}, axis=1, join="inner")
    if not len(pairs):
        return None
    return paired_difference(*_units(pairs, policies).to_numpy().T)


def _row(
    trials: pd.DataFrame, arm: str, first: str, accuracy: dict, policies: pd.DataFrame, search: dict
) -> dict:
    estimate = mean_interval(_units(accuracy[arm].to_frame(arm), policies)[arm])
    mine = trials[trials["label"] == arm]
    row = {
        "arm": arm,
        "n": estimate.n,
        "mean": estimate.mean,
        "sd": estimate.sd,
        "low": estimate.low,
        "high": estimate.high,
        "difference": np.nan,
        "difference_low": np.nan,
        "difference_high": np.nan,
        "p": np.nan,
        "detectable": np.nan,
        "failed": int(mine["reward"].isna().sum()),
        "diverged": int(mine["diverged"].sum()),
        "search_evaluations": search.get("evaluations", 0),
        "search_children": search.get("image_passes", 0) / trials["image_passes"].mean(),
    }
    paired = None if arm == first else _difference(arm, first, accuracy, policies)
    if paired is not None:
        row |= {
            "difference": paired.estimate.mean,
            "difference_low": paired.estimate.low,
            "difference_high": paired.estimate.high,
            "p": paired.p,
            "detectable": minimum_detectable_difference(paired.estimate.sd, paired.estimate.n),
        }
    return row


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
            "95 % interval": [
                tables.interval(low, high)
                for low, high in zip(table["low"], table["high"], strict=True)
            ],
            f"minus {first}": [tables.number(value, sign=True) for value in table["difference"]],
            "95 % interval of the difference": [
                tables.interval(low, high, sign=True)
                for low, high in zip(table["difference_low"], table["difference_high"], strict=True)
            ],
            "p (Holm)": table["p_holm"].map(tables.p_value),
            "search cost": [
                f"{int(count)} evaluations = {children:.3g} children" if count else "none"
                for count, children in zip(
                    table["search_evaluations"], table["search_children"], strict=True
                )
            ],
        }
    )


def write_comparison(directory: str | Path) -> Comparison:
    """Write compare.csv, pairs.csv, compare.md and compare.png into the comparison's folder."""
    run = load_run(directory)
    comparison = compare_arms(run)
    comparison.table.to_csv(run.directory / "compare.csv", index=False)
    comparison.pairs.to_csv(run.directory / "pairs.csv", index=False)
    plots.arms(comparison.table, comparison.runs, run.directory / "compare.png")
    text = "\n\n".join(
        [
            f"# Comparison on {run.manifest.get('task', run.option('task', 'name', 'the task'))}",
            tables.markdown(readable(comparison)),
            "\n".join(f"- {sentence}" for sentence in comparison.sentences),
            METHOD + " pairs.csv has every two arms.",
            "![arms](compare.png)",
        ]
    )
    tables.write_text(run.directory / "compare.md", text)
    return comparison
