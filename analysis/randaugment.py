"""`augsearch randaugment`: the N x M grid as a table, a heat map and a recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats

from analysis import plots, tables

from .runs import Run, load_run
from .statistics import CONFIDENCE, noise_floor, seeds_needed


@dataclass(frozen=True)
class Grid:
    """`table`: n, m, mean, half_width (95 %), count, p_worse, one row per cell, best mean first.

    Intervals and tests use one noise estimate pooled over all cells (residual of cell and seed
    means), because two or three seeds say little about the noise of a single cell. `p_worse` is
    Tukey's p that the cell differs from the best one, corrected for having picked the best among
    all pairs; NaN without at least two seeds in common.
    """

    table: pd.DataFrame
    run_sd: float
    seeds: int
    unit: str

    @property
    def best(self) -> tuple[int, int]:
        return int(self.table["n"].iloc[0]), int(self.table["m"].iloc[0])

    def neighbours(self) -> pd.DataFrame:
        """The rows next to the best cell in the grid (one step in N, in M, or in both)."""
        ns, ms = sorted(self.table["n"].unique()), sorted(self.table["m"].unique())
        n, m = ns.index(self.best[0]), ms.index(self.best[1])
        near = [
            abs(ns.index(row.n) - n) <= 1 and abs(ms.index(row.m) - m) <= 1
            for row in self.table.itertuples()
        ]
        return self.table[near].iloc[1:]

    def recommendation(self) -> list[str]:
        """What to use and how sure that is, in words."""
        n, m = self.best
        said = [f"Best cell: N = {n}, M = {m}."]
        if not np.isfinite(self.run_sd):
            said.append("One seed per cell: no two cells can be told apart; use --seeds 2 or more.")
            return said
        alike = self.table.iloc[1:][self.table["p_worse"].iloc[1:] >= 1 - CONFIDENCE]
        near = self.neighbours()
        near_alike = near[near["p_worse"] >= 1 - CONFIDENCE]
        if len(near_alike):
            names = ", ".join(f"({row.n}, {row.m})" for row in near_alike.itertuples())
            said.append(
                f"Not distinguishable from its neighbours {names} with {self.seeds} seeds: "
                "any of them is as good a choice on this evidence."
            )
        elif len(near):
            said.append("Distinguishable from every neighbouring cell.")
        said.append(
            f"{len(alike)} of the other {len(self.table) - 1} cells cannot be told from the best."
            if len(alike)
            else "Every other cell can be told from the best."
        )
        if len(self.table) > 1:
            gap = float(self.table["mean"].iloc[0] - self.table["mean"].iloc[1])
            if gap > 0:
                needed = seeds_needed(np.sqrt(2) * self.run_sd, gap)
                said.append(
                    f"To confirm its lead of {gap:.2g} over the second cell, about {needed} seeds "
                    "would be needed (paired t test, 80 % power)."
                )
        return said


def analyse_grid(run: Run) -> Grid:
    """The grid of a run folder of `augsearch randaugment`; rows are labelled "N=1 M=5"."""
    rows = run.evaluated
    if rows.empty:
        raise run.unfinished("at least one cell")
    cells = rows["label"].str.extract(r"^N=(\d+) M=(\d+)$").astype(int)
    rows = rows.assign(n=cells[0], m=cells[1])
    wide = rows.pivot(index=["n", "m"], columns="seed", values="reward")
    reward = run.option("evaluator", "reward", "accuracy")
    percent = reward == "accuracy"
    wide = wide * (100 if percent else 1)
    table = pd.DataFrame({"mean": wide.mean(axis=1), "count": wide.count(axis=1)}).reset_index()
    complete = wide.dropna(axis=0)
    cells_known, seeds = complete.shape
    run_sd, half, p_worse = np.nan, np.nan, np.full(len(table), np.nan)
    if cells_known >= 2 and seeds >= 2:
        run_sd = noise_floor(complete.to_numpy()).run_sd
        freedom = (cells_known - 1) * (seeds - 1)
        half = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * run_sd / np.sqrt(table["count"])
        # Cells with fewer results get the wider error of their own count (Tukey and Kramer).
        best = table.loc[table["mean"].idxmax()]
        error = run_sd * np.sqrt((1 / table["count"] + 1 / best["count"]) / 2)
        ranges = (
            (best["mean"] - table["mean"]) / error
            if run_sd > 0
            else pd.Series(np.where(table["mean"] < best["mean"], np.inf, 0.0))
        )
        p_worse = scipy.stats.studentized_range.sf(ranges, cells_known, freedom)
    table = table.assign(half_width=half, p_worse=p_worse)
    # Ties go to the gentler cell: fewer operations, then smaller magnitude.
    table = table.sort_values(["mean", "n", "m"], ascending=[False, True, True], ignore_index=True)
    unit = "validation accuracy (%)" if percent else f"validation {reward.replace('_', ' ')} (nats)"
    return Grid(table, float(run_sd), seeds, unit)


def write_grid(directory: str | Path) -> Grid:
    """Write grid.csv, grid.md and grid.png into the run folder of a grid search."""
    run = load_run(directory)
    grid = analyse_grid(run)
    grid.table.to_csv(run.directory / "grid.csv", index=False)
    plots.heat_map(grid.table, run.directory / "grid.png", grid.unit, grid.best)
    digits = 2 if "%" in grid.unit else 4
    shown = pd.DataFrame(
        {
            "N": grid.table["n"].astype(str),
            "M": grid.table["m"].astype(str),
            grid.unit: grid.table["mean"].map(lambda value: tables.number(value, digits)),
            "± (95 %)": grid.table["half_width"].map(lambda value: tables.number(value, digits)),
            "seeds": grid.table["count"].astype(str),
            "p against the best (Tukey)": grid.table["p_worse"].map(tables.p_value),
        }
    )
    text = "\n\n".join(
        [
            "# RandAugment grid",
            "\n".join(f"- {sentence}" for sentence in grid.recommendation()),
            "![grid](grid.png)",
            tables.markdown(shown),
            "The intervals use one noise estimate pooled over the cells "
            f"(standard deviation of one run: {tables.number(grid.run_sd, digits)}).",
        ]
    )
    tables.write_text(run.directory / "grid.md", text)
    return grid
