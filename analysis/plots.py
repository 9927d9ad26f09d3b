"""Pictures as PNG or SVG files (no display needed).

Every function takes data and a path, writes the file and returns the path.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from . import tables
from .composition import PolicyStatistics
from .drawing import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    GRID,
    LIGHT,
    ORANGE,
    PALETTE,
    blank,
    broad,
    canvas,
    legend,
    literal,
    plain,
    save,
    told,
)


def reward_curve(trials: pd.DataFrame, path: str | Path, reward: str = "reward") -> Path:
    """Every reward in the order of the search, the mean of each batch, the best so far."""
    data = trials[trials["reward"].notna()].sort_values(["batch", "slot"])
    trained = data["reward"].mask(data["diverged"].astype(bool))
    position = np.arange(1, len(data) + 1)
    figure, axis = canvas(8, 4)
    points = axis.scatter(
        position, data["reward"], s=14, color=GREY, alpha=0.6, label="one evaluation"
    )
    points.set_urls(
        told(
            f"batch {row.batch}, slot {row.slot}: {row.reward:.4f}"
            + (f"; {tables.policy(row.policy)}" if isinstance(row.policy, tuple) else "")
            for row in data.itertuples()
        )
    )
    if data["batch"].nunique() > 1:
        batches = pd.DataFrame(
            {"x": position, "y": trained.to_numpy(), "batch": data["batch"].to_numpy()}
        ).groupby("batch")
        means = batches.mean()
        axis.plot(means["x"], means["y"], color=BLUE, linewidth=2, label="mean of a batch")
    if len(data):
        axis.plot(
            position,
            trained.cummax().ffill(),
            "--",
            color=ORANGE,
            drawstyle="steps-post",
            linewidth=1.5,
            label="best so far (the largest of noisy values: optimistic)",
        )
        legend(figure)
        # A diverged child would squeeze everything else into one line.
        low, high = np.quantile(data["reward"], [0.01, 1.0])
        margin = 0.08 * (high - low) or 0.01
        axis.set_ylim(low - margin, high + margin)
    axis.set(xlabel="evaluation", ylabel=reward, title="Reward during the search")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return save(figure, path)


def diversity_curve(entropies: pd.DataFrame, path: str | Path) -> Path:
    """Entropy of what each batch drew, as a share of the largest possible (`batch_entropies`)."""
    figure, axis = canvas(8, 3.2)
    looks = ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^:"))
    for (name, values), (colour, look) in zip(entropies.items(), looks, strict=True):
        axis.plot(entropies.index, values, look, color=colour, markersize=4, label=name)
    axis.set_ylim(0, 1.02)
    axis.set(xlabel="batch", ylabel="entropy / maximum", title="Diversity of the candidates drawn")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure)
    return save(figure, path)


def policy_histograms(
    groups: Mapping[str, PolicyStatistics], path: str | Path, bins: int = 10
) -> Path:
    """Operations, probabilities and magnitudes of up to three groups of policies, side by side.

    `groups` maps a legend entry to the statistics of its policies; each histogram shows shares of
    one group, so groups of very different size can be compared.
    """
    looks = ((BLUE, ""), (GREY, "////"), (ORANGE, "....."))[: len(groups)]
    figure, (top, left, right) = _figure_rows()
    slant = 35 if broad() else 70
    names = list(next(iter(groups.values())).operations.index)
    width = 0.8 / len(groups)
    for number, ((label, group), (colour, hatch)) in enumerate(
        zip(groups.items(), looks, strict=True)
    ):
        shift = (number - (len(groups) - 1) / 2) * width
        for axis, shares in (
            (top, group.operations),
            (left, group.probabilities),
            (right, group.magnitudes),
        ):
            bars = axis.bar(
                np.arange(len(shares)) + shift,
                shares.to_numpy(),
                width,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=label,
            )
            texts = (f"{name}: {share:.1%}, {label}" for name, share in shares.items())
            for bar, url in zip(bars, told(texts), strict=True):
                bar.set_url(url)
    top.set_xticks(range(len(names)), names, rotation=slant, ha="right")
    top.margins(x=0.01)
    left.set_xticks(range(11), [f"{value / 10:g}" for value in range(11)])
    every = max(1, bins // 10)
    right.set_xticks(range(0, bins, every))
    top.set(ylabel="share", title="Operations")
    left.set(ylabel="share", title="Probabilities", xlabel="probability")
    right.set(title="Magnitudes (operations that have one)", xlabel="magnitude")
    legend(figure, dict(zip(groups, top.containers, strict=True)))
    return save(figure, path)


def _figure_rows() -> tuple[Figure, list[Axes]]:
    """A broad one above two, or three that stand above one another."""
    figure = blank(10, 7 if broad() else 9)
    grid = figure.add_gridspec(2, 2) if broad() else figure.add_gridspec(3, 1)
    places = (grid[0, :], grid[1, 0], grid[1, 1]) if broad() else (grid[0], grid[1], grid[2])
    axes = [figure.add_subplot(place) for place in places]
    plain(axes)
    return figure, axes


def arms(
    table: pd.DataFrame,
    runs: Mapping[str, pd.Series],
    path: str | Path,
    judge: str = "from-scratch",
) -> Path:
    """Test accuracy (%) of each arm: every run as a dot, the mean with its interval.

    `table` has the columns arm, mean, low, high, best arm last or first as given; `runs` maps an
    arm to its runs, by seed. `judge`: the evaluator.
    """
    figure, axis = canvas(8, 1.3 + 0.42 * len(table))
    _forest(axis, table, runs, "seed")
    axis.axvline(table["mean"].iloc[0], color=ORANGE, linewidth=1, linestyle="--", zorder=1)
    axis.set(
        xlabel="test accuracy (%): runs, mean, 95 % interval; dashed: mean of the first arm",
        title="Children trained from scratch under each arm"
        if judge == "from-scratch"
        else f"Evaluations of each arm by {judge}",
    )
    return save(figure, path)


def differences(
    panels: Mapping[str, tuple[pd.DataFrame, Mapping[str, pd.Series]]], path: str | Path
) -> Path:
    """Differences in points: every draw as a dot, the mean with its interval, a panel a title.

    Each panel is a table with the columns arm, mean, low, high, and the differences of an arm by
    draw.
    """
    rows = max(len(table) for table, _ in panels.values())
    figure, axes = canvas(8, len(panels) * (1.0 + 0.42 * rows), nrows=len(panels), sharex=True)
    for axis, (title, (table, runs)) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        _forest(axis, table, runs, "draw", "points", sign=True)
        axis.axvline(0, color=ORANGE, linewidth=1, linestyle="--", zorder=1)
        axis.set_title(title)
    axis.set_xlabel("difference in test accuracy (points): draws, mean, corrected interval")
    return save(figure, path)


def _forest(
    axis: Axes,
    table: pd.DataFrame,
    runs: Mapping[str, pd.Series],
    unit: str,
    measure: str = "%",
    *,
    sign: bool = False,
) -> None:
    """A row an arm, the first at the top: what it had with each unit, its mean and interval."""

    def shown(value: float) -> str:
        return f"{tables.number(value, sign=sign)} {measure}"

    axis.grid(axis="x", color=GRID, linewidth=0.8)
    axis.grid(visible=False, axis="y")
    rows = np.arange(len(table))[::-1]
    for row, (_, arm) in zip(rows, table.iterrows(), strict=True):
        own = runs[arm["arm"]].astype(float)
        values = own.to_numpy()
        points = axis.scatter(
            values, np.full(values.size, row - 0.22), s=18, color=GREY, alpha=0.7, zorder=2
        )
        points.set_urls(
            told(f"{arm['arm']}, {unit} {index}: {shown(value)}" for index, value in own.items())
        )
        if np.isfinite(arm["low"]):
            axis.plot([arm["low"], arm["high"]], [row, row], color=BLUE, linewidth=2.2, zorder=3)
        mean = axis.scatter([arm["mean"]], [row], s=50, marker="D", color=BLUE, zorder=4)
        interval = tables.interval(arm["low"], arm["high"], sign=sign)
        mean.set_urls(told([f"{arm['arm']}: mean {shown(arm['mean'])} {interval}"]))
    room = 44 if broad() else 18  # a long name would leave no room for the chart
    axis.set_yticks(rows, [literal(tables.shortened(name, room)) for name in table["arm"]])
    axis.set_ylim(-0.6, len(table) - 0.4)


def schedule_map(applied: pd.DataFrame, path: str | Path) -> Path:
    """Operations by epochs, shaded by how often each is applied to an image."""
    figure, axis = canvas(8, 0.9 + 0.24 * len(applied))
    axis.grid(visible=False)
    most = max(0.01, float(applied.to_numpy().max()))
    image = axis.imshow(applied.to_numpy(), cmap="Greys", aspect="auto", vmin=0, vmax=most)
    axis.set_yticks(range(len(applied)), applied.index)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch", title="Operations applied to an image")
    figure.colorbar(image, ax=axis, label="times per image")
    return save(figure, path)


def population(trials: pd.DataFrame, path: str | Path, reward: str) -> Path:
    """The reward of every member (slot) after every generation (batch); the best one stands out."""
    trained = trials[~trials["diverged"]]
    table = trained.pivot(index="batch", columns="slot", values="reward")
    figure, axis = canvas(8, 4)
    axis.plot(table.index, table.to_numpy(), "-", color=GREY, linewidth=1, alpha=0.7)
    points = axis.scatter(trained["batch"], trained["reward"], s=14, color=GREY, zorder=3)
    points.set_urls(
        told(
            f"generation {row.batch}, child {row.slot}: {row.reward:.4f}"
            for row in trained.itertuples()
        )
    )
    if len(table):
        axis.plot(table.index, table.max(axis=1), "--", color=ORANGE, linewidth=2, label="best")
        legend(figure)
    axis.set(xlabel="generation", ylabel=reward, title="The population's rewards")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return save(figure, path)


def training_curve(epochs: pd.DataFrame, path: str | Path) -> Path:
    """Loss, validation accuracy (%) and learning rate by epoch; the best accuracy stands out."""
    figure, axes = canvas(8, 6, nrows=3, sharex=True, height_ratios=(2, 2, 1))
    marker = "o" if len(epochs) < 20 else ""
    columns = (
        (epochs["loss"], "training loss", BLUE),
        (100 * epochs["accuracy"], "validation\naccuracy (%)", GREEN),
        (epochs["lr"], "learning rate", GREY),
    )
    for axis, (values, label, colour) in zip(axes, columns, strict=True):
        axis.plot(epochs["epoch"], values, color=colour, linewidth=2, marker=marker, markersize=4)
        axis.set_ylabel(label)
    sound = epochs[epochs["divergence"] == ""]
    if len(sound):
        merit = ["accuracy", "log_likelihood"]  # as training chooses it
        best = sound.sort_values(merit, ascending=False, kind="stable").iloc[0]
        axes[1].plot(best["epoch"], 100 * best["accuracy"], "o", color=ORANGE, markersize=8)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return save(figure, path)


def heat_map(grid: pd.DataFrame, path: str | Path, unit: str, best: tuple[int, int]) -> Path:
    """The N x M grid: `grid` has columns n, m, mean, half_width (NaN with one seed)."""
    table = grid.pivot(index="n", columns="m", values="mean")
    widths = grid.pivot(index="n", columns="m", values="half_width")
    figure, axis = canvas(1.8 + 0.95 * table.shape[1], 1.6 + 0.75 * table.shape[0])
    figure.set_figwidth(1.8 + 0.95 * table.shape[1])  # on a telephone too: cells hold numbers
    axis.grid(visible=False)
    image = axis.imshow(table.to_numpy(), cmap="viridis", aspect="auto")
    low, high = image.get_clim()
    for row, n in enumerate(table.index):
        for column, m in enumerate(table.columns):
            value, width = table.iat[row, column], widths.iat[row, column]
            if not np.isfinite(value):
                continue
            digits = 1 if "%" in unit else 3
            text = f"{value:.{digits}f}"
            if np.isfinite(width):
                text += f"\n±{width:.{digits}f}"
            light = high > low and (value - low) / (high - low) > 0.6
            axis.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9,
                color=DARK if light else LIGHT,
                fontweight="bold" if (n, m) == best else "normal",
            )
    row, column = list(table.index).index(best[0]), list(table.columns).index(best[1])
    axis.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=3)
    )
    axis.set_xticks(range(table.shape[1]), table.columns)
    axis.set_yticks(range(table.shape[0]), table.index)
    axis.set(xlabel="M (magnitude, 0 to 30)", ylabel="N (operations)", title="RandAugment grid")
    figure.colorbar(image, ax=axis, label=unit)
    return save(figure, path)


def fidelity_cost(table: pd.DataFrame, path: str | Path) -> Path:
    """Fidelity against cost: columns evaluator, reward, cost, rho, low, high."""
    figure, axis = canvas(9, 5)
    markers = {"accuracy": "o", "log_likelihood": "s", "calibrated_log_likelihood": "^"}
    evaluators = list(dict.fromkeys(table["evaluator"]))
    costs = table.loc[table["cost"] > 0, "cost"]
    least, most = (costs.min(), costs.max()) if len(costs) else (1.0, 1.0)
    spread = max(1.02, most / least) ** 0.015
    for index, evaluator in enumerate(evaluators):
        rows = table[table["evaluator"] == evaluator]
        colour, letter = PALETTE[index % len(PALETTE)], chr(ord("a") + index % 26)
        for offset, (_, row) in enumerate(rows.iterrows()):
            # Rewards of one evaluator cost the same; a small shift keeps their bars apart.
            place = row["cost"] or least / 2  # a log scale has no zero
            cost = place * spread ** (offset - (len(rows) - 1) / 2)
            axis.plot([cost] * 2, [row["low"], row["high"]], color=colour, linewidth=1.4)
            point = axis.scatter(
                [cost], [row["rho"]], s=64, marker=markers[row["reward"]], color=colour,
                edgecolors="white", zorder=3,
            )  # fmt: skip
            point.set_urls(
                told(
                    [
                        f"{evaluator}, {row['reward'].replace('_', ' ')}: ρ {row['rho']:.2f} "
                        f"{tables.interval(row['low'], row['high'])}, cost {row['cost']:.3g}"
                    ]
                )
            )
        # Colours alone do not tell evaluators apart.
        free = ", which costs nothing" if rows["cost"].iloc[0] == 0 else ""
        top = (rows["cost"].iloc[0] or least / 2, rows["high"].max())
        axis.annotate(letter, top, (0, 4), textcoords="offset points", ha="center", fontsize=9)
        axis.plot([], [], "-", color=colour, label=literal(f"{letter}: {evaluator}{free}"),
                  linewidth=3)  # fmt: skip
    for reward, marker in markers.items():
        axis.plot([], [], marker, color=GREY, linestyle="none", label=reward.replace("_", " "))
    axis.set_xscale("log")
    if table["rho"].isna().all():  # nothing is drawn that would give the axis its ends
        axis.set_xlim(least / 2, most * 2)
    axis.axhline(0, color="#b0b0b0", linewidth=0.8)
    axis.set(
        xlabel="images passed by an evaluation / by a child from scratch (log scale)",
        ylabel="Spearman's ρ with test accuracy of other seeds",
        title="Does the cheap score rank policies as full training does?",
    )
    legend(figure)
    return save(figure, path)


def anytime(table: pd.DataFrame, path: str | Path) -> Path:
    """What each searcher has found by so many evaluations: columns searcher, evaluations, iqm, low,
    high (percent)."""
    figure, axis = canvas(8, 4.5)
    ends = table[table["evaluations"] == table["evaluations"].max()]
    names = ends.sort_values("iqm", ascending=False)["searcher"]
    styles = zip(itertools.cycle(PALETTE), itertools.cycle("os^vDPX"))
    for name, (colour, marker) in zip(names, styles, strict=False):
        rows = table[table["searcher"] == name]
        x = rows["evaluations"]
        axis.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)
        axis.plot(x, rows["iqm"], color=colour, linewidth=2)
        points = axis.scatter(x, rows["iqm"], s=22, color=colour, marker=marker, zorder=3,
                              label=literal(name))  # fmt: skip
        points.set_urls(
            told(
                f"{row.searcher}, {row.evaluations} evaluations: {row.iqm:.2f} "
                f"{tables.interval(row.low, row.high)}"
                for row in rows.itertuples()
            )
        )
    axis.set(
        xlabel="evaluations",
        ylabel="test accuracy (%)",
        title="True worth of the policy found: mean of the middle half, 95 % interval",
    )
    axis.legend(frameon=False, fontsize=9)
    return save(figure, path)
