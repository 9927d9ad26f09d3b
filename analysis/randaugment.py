"""`augsearch randaugment`: the N x M grid as a table, a heat map and a recommendation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from scipy.stats import norm

from policies import RandAugment
from policies.errors import InputError
from proxy_tasks.run_format import AGAIN
from proxy_tasks.trials import rank_by_mean

from . import plots, sections, tables
from .asked import evaluations
from .document import Block, Gallery, Picture, Report, Sentences, Table, Text, section
from .runs import Run
from .statistics import (
    ALPHA,
    CONFIDENCE,
    MOST_SEEDS,
    ROUNDING,
    Difference,
    noise_floor,
    paired_difference,
    seeds_needed,
)

MOST_N = 16  # operations that RandAugment takes


@dataclass(frozen=True)
class Again:
    """The best cell's lead over the middle one, `cell`: while it was chosen, and on new seeds.

    Differences are within seeds, since a seed shifts all cells alike. now: None where a child of
    either diverged on the new seeds.
    """

    cell: tuple[int, int]
    chosen: float
    now: Difference | None

    def sentence(self, unit: str) -> str:
        """What became of the lead, in words; unit: of differences."""
        led = f"It led the middle cell, {self.cell}, by {self.chosen:+.3g} {unit} while chosen"
        if self.now is None:
            return f"{led}. On new seeds a child of one of the two diverged, so no lead is left."
        low, high = self.now.interval()
        shown = f" {tables.interval(low, high, digits=3, sign=True)}" if self.now.n > 1 else ""
        said = (
            f"{led}, and by {self.now.mean:+.3g}{shown} on {self.now.n} new "
            f"{'seed' if self.now.n == 1 else 'seeds'}, which had no part in the choice"
        )
        if not self.now.mean < self.chosen:
            return f"{said}."
        known = high < self.chosen
        return f"{said}: " + (
            "what is lost was luck." if known else "whether what is lost was luck cannot be told."
        )


@dataclass(frozen=True)
class Grid:
    """`table`: n, m, mean, half_width (95 %), count, p_worse, one row per cell, best mean first;
    cells with a diverged child are not in it, but listed in `diverged`.

    Intervals and tests use one noise estimate pooled over all cells (residual of cell and seed
    means), because two or three seeds say little about the noise of a single cell. `p_worse` is
    Tukey's p that the cell differs from the best one, corrected for having picked the best among
    all pairs; NaN without at least two seeds in common.
    """

    table: pd.DataFrame
    run_sd: float
    seeds: int
    unit: str  # of the means
    diverged: tuple[tuple[int, int], ...] = ()
    halved: bool = False
    again: Again | None = None

    @property
    def lead_unit(self) -> str:
        """The unit of differences between means."""
        return "points" if "%" in self.unit else "nats"

    @property
    def best(self) -> tuple[int, int]:
        return int(self.table["n"].iloc[0]), int(self.table["m"].iloc[0])

    def neighbours(self) -> pd.DataFrame:
        """The rows next to the best cell in the grid (one step in N, in M, or in both)."""
        tried = [*zip(self.table["n"], self.table["m"], strict=True), *self.diverged]
        ns, ms = (sorted({*each}) for each in zip(*tried, strict=True))
        n, m = ns.index(self.best[0]), ms.index(self.best[1])
        near = [
            abs(ns.index(row.n) - n) <= 1 and abs(ms.index(row.m) - m) <= 1
            for row in self.table.itertuples()
        ]
        return self.table[near].iloc[1:]

    @property
    def text(self) -> str:
        """What the grid says, for a terminal of 80 columns."""
        return tables.wrapped(self.sentences)

    @property
    def inflation(self) -> float:
        """By how much the best mean would stand above all others by luck alone, were all equal.

        The expected largest of as many normal means as there are cells; NaN with one seed.
        """
        count = len(self.table)
        nodes, weights = np.polynomial.hermite_e.hermegauss(64)
        largest = float(weights @ (nodes * count * norm.cdf(nodes) ** (count - 1)))
        return largest / float(np.sqrt(2 * np.pi)) * self.run_sd / float(np.sqrt(self.seeds))

    def edges(self) -> list[str]:
        """The sides on which the best cell lies at the end of what was tried and more is legal."""
        said = []
        lost = list(zip(*self.diverged, strict=True)) or [(), ()]
        for name, value, more, least, most in (
            ("N", self.best[0], lost[0], 1, MOST_N),
            ("M", self.best[1], lost[1], 0, 30),
        ):
            values = {*self.table[name.lower()], *more}
            if value == max(values) and value < most:
                said.append(f"the largest {name} tried")
            elif value == min(values) and value > least:
                said.append(f"the smallest {name} tried")
        return said

    @property
    def sentences(self) -> list[str]:
        """What to use and how sure that is, in words."""
        n, m = self.best
        said = [
            f"Best cell: N = {n}, M = {m}. M is torchvision's, 0 to 30: 9 is 30 % of the range; "
            "the 9 of timm and of the TPU code is 90 % of it, about 27 here."
        ]
        edges = self.edges()
        if edges:
            said.append(
                f"It is {' and '.join(edges)}: the optimum may lie beyond; extend the grid there."
            )
        if self.diverged:
            cells = ", ".join(map(str, self.diverged))
            said.append(f"Children of {cells} diverged: these cells are left out.")
        if self.again is not None:
            said.append(self.again.sentence(self.lead_unit))
        if self.halved:
            last = self.table[self.table["count"] == self.table["count"].max()]
            said.append(
                f"Successive halving: {len(last)} of {len(self.table)} cells had all "
                f"{int(last['count'].iloc[0])} seeds; the others were left behind on fewer, and "
                "their means are not compared with the best."
            )
            return said
        if not np.isfinite(self.run_sd):
            whole = int((self.table["count"] == self.seeds).sum())
            why = "Seeds that scatter alike in all cells"
            if self.seeds < 2 or whole < 2:
                why = (
                    "One seed per cell" if self.seeds < 2 else "Fewer than two cells with all seeds"
                )
            said.append(f"{why}: no two cells can be told apart; use more --seeds.")
            return said
        said += self._neighbourhood()
        if len(self.table) > 1:
            first, second = self.table["mean"].iloc[:2]
            if first - second > ROUNDING * abs(first):
                needed = seeds_needed(np.sqrt(2) * self.run_sd, first - second)
                said.append(
                    f"Its lead of {first - second:.2g} {self.lead_unit} over the second cell, if "
                    f"it is real, takes {tables.about(needed, MOST_SEEDS)} seeds to show (paired t "
                    "test, 80 % power)."
                )
            if self.again is None:
                said.append(
                    f"The winner of {len(self.table)} cells is partly the luckiest: were all "
                    f"equal, the best mean would stand {self.inflation:.2g} {self.lead_unit} above "
                    "the truth. `augsearch resume` with --again 3 measures it anew."
                )
        return said

    def _neighbourhood(self) -> list[str]:
        alike = self.table.iloc[1:][self.table["p_worse"].iloc[1:] >= ALPHA]
        near = self.neighbours()
        near_alike = near[near["p_worse"] >= ALPHA]
        said = []
        if len(near_alike):
            names = ", ".join(f"({row.n}, {row.m})" for row in near_alike.itertuples())
            said.append(
                f"Not distinguishable from its neighbours {names} with {self.seeds} seeds: "
                "any of them is as good a choice on this evidence."
            )
        elif len(near):
            said.append("Distinguishable from every neighbouring cell.")
        if len(self.table) > 1:
            said.append(
                f"{len(alike)} of the other {len(self.table) - 1} cells cannot be told from the "
                "best."
                if len(alike)
                else "Every other cell can be told from the best."
            )
        return said


def analyse_grid(run: Run) -> Grid:
    """The grid of a run folder of `augsearch randaugment`; rows are labelled "N=1 M=5".

    Raises InputError without a cell whose children all trained.
    """
    rows, diverged = _trained(run)
    if rows.empty and diverged:
        raise InputError(
            "run", "must have a cell whose children all trained", f"{len(diverged)} with a "
            "diverged child", "lower the learning rate, or check the images",
        )  # fmt: skip
    if rows.empty:
        raise run.unfinished("at least one cell")
    wide = rows.pivot(index=["n", "m"], columns="seed", values="reward")
    reward = run.option("evaluator", "reward", "accuracy")
    percent = reward == "accuracy"
    wide = wide * (100 if percent else 1)
    table = pd.DataFrame({"mean": wide.mean(axis=1), "count": wide.count(axis=1)}).reset_index()
    told = {(int(n), int(m)): row.dropna().tolist() for (n, m), row in wide.iterrows()}
    n, m = rank_by_mean(told)[0]
    won = (table["n"] == n) & (table["m"] == m)
    complete = wide.dropna(axis=0)
    cells_known, seeds = complete.shape
    halved = run.option("settings", "halving") is True
    run_sd, half, p_worse = np.nan, np.nan, np.full(len(table), np.nan)
    floor = noise_floor(complete.to_numpy()) if cells_known >= 2 and seeds >= 2 else None
    # Seeds that shift all cells alike, but for rounding, leave no scatter to judge by.
    if floor and not floor.flat:
        run_sd = floor.run_sd
        quantile = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, floor.freedom)
        half = quantile * run_sd / np.sqrt(table["count"])
        # Over the seeds that a cell has in common with the best: `run_sd` is without the seeds' own
        # effect. Without any, nothing tells it from the best.
        best = wide.loc[(n, m)]
        common = (wide.notna() & best.notna()).sum(axis=1).to_numpy()
        gaps = (best - wide).mean(axis=1).fillna(0.0).to_numpy()
        p_worse = floor.tukey_p(gaps, common, len(table))
        if halved:  # those that went no further had other seeds
            count = table["count"].to_numpy()
            p_worse = np.where(count == count[won.to_numpy()], p_worse, np.nan)
    table = table.assign(half_width=half, p_worse=p_worse)
    # The winner first, then by seeds and mean; ties go to the gentler cell.
    table = table.assign(after=~won, few=-table["count"]).sort_values(
        ["after", "few", "mean", "n", "m"], ascending=[True, True, False, True, True],
        ignore_index=True,
    )  # fmt: skip
    table = table.drop(columns=["after", "few"])
    unit = "validation accuracy (%)" if percent else f"validation {reward.replace('_', ' ')} (nats)"
    again = _again(run, wide, (n, m), 100 if percent else 1)
    return Grid(table, float(run_sd), seeds, unit, diverged, halved, again)


def _again(run: Run, wide: pd.DataFrame, best: tuple[int, int], scale: int) -> Again | None:
    """What the stage with new seeds says; None where it has not both cells, or of another winner.

    wide: rewards of the grid, a row a cell, a column a seed.
    """
    rows, diverged = _trained(run.stage(AGAIN))
    new = scale * rows.pivot(index=["n", "m"], columns="seed", values="reward")
    known = [*diverged, *new.index]
    others = [cell for cell in known if cell != best]
    if best not in known or not others or others[0] not in wide.index:
        return None
    n, m = others[0]
    cell = (int(n), int(m))
    lead = (wide.loc[best] - wide.loc[others[0]]).dropna()
    if lead.empty:
        return None
    if diverged:
        return Again(cell, float(lead.mean()), None)
    gap = (new.loc[best] - new.loc[others[0]]).dropna()
    if gap.empty:
        return None
    return Again(cell, float(lead.mean()), paired_difference(gap, np.zeros(len(gap))))


def _trained(run: Run) -> tuple[pd.DataFrame, tuple[tuple[int, int], ...]]:
    """Results with their n and m, and the cells left out for a child that diverged.

    It ranks below every child that trained, whatever its reward.
    """
    rows = run.evaluated
    cells = rows["label"].str.extract(r"^N=(\d+) M=(\d+)$")
    if cells.isna().to_numpy().any():
        raise InputError(
            str(run.directory), "must have cells of a grid in its journal",
            rows["label"][cells[0].isna()].iloc[0], "restore it from a copy",
        )  # fmt: skip
    cells = cells.astype(int)
    rows = rows.assign(n=cells[0], m=cells[1])
    lost = rows.groupby(["n", "m"])["diverged"].transform("any").astype(bool)
    diverged = sorted(set(zip(rows["n"][lost], rows["m"][lost], strict=True)))
    return rows[~lost], tuple((int(n), int(m)) for n, m in diverged)


def grid_report(run: Run) -> Report:
    """The report of a grid, finished or not."""
    rows, diverged = _trained(run)
    grid = None if rows.empty else analyse_grid(run)
    why = "A child diverged in every cell so far." if diverged else "No cell was evaluated yet."
    done = len(run.trials)
    # How many a grid needs that is halved, is known when it has chosen.
    asked = evaluations(run) or done * (run.chosen is not None)
    judge = f"Cells are judged by {run.option('evaluator', 'kind', 'from-scratch')}."
    state = Text(f"{sections.state(done, asked)} {judge}")
    found = section("", state, *_blocks(grid)) if grid else section("", state, Text(why))
    chosen = section("The best cell on images", Gallery(RandAugment(*grid.best))) if grid else None
    return Report(
        title=f"RandAugment grid on {run.task}",
        run=run,
        name="grid.md",
        sections=(
            found,
            *([chosen] if chosen else []),
            *sections.closing(run.with_stages(AGAIN)),
        ),
        data={"grid.csv": grid.table} if grid else {},
        text=grid.text if grid else "",
    )


def _blocks(grid: Grid) -> list[Block]:
    digits = 2 if grid.lead_unit == "points" else 4
    shown = pd.DataFrame(
        {
            "N": grid.table["n"].astype(str),
            "M": grid.table["m"].astype(str),
            grid.unit: tables.numbers(grid.table["mean"], digits),
            "± (95 %)": tables.numbers(grid.table["half_width"], digits),
            "seeds": grid.table["count"].astype(str),
            "p against the best (Tukey)": grid.table["p_worse"].map(tables.p_value),
        }
    )
    note = (
        "The intervals use one noise estimate pooled over the cells (standard deviation of one "
        f"run: {tables.number(grid.run_sd, digits)}). They are for comparing cells: what a seed "
        "shifts in all of them alike is left out."
    )
    return [
        Sentences(tuple(grid.sentences)),
        Picture(
            "grid", "grid", lambda path: plots.heat_map(grid.table, path, grid.unit, grid.best)
        ),
        Table(shown, note),
    ]
