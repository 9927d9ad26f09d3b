"""`augsearch watch`: a run in the terminal, while it goes on."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from . import tables
from .progress import OPEN_ENDED, Progress, Stage, follow
from .runs import sound
from .statistics import mean_interval

STAGES = 6  # of a study of many runs, the latest
ROWS = 12  # of groups, or of the latest results
BARS = "▁▂▃▄▅▆▇█"
NUMBER = len("-0.1234")  # what columns of numbers leave room for
WIDTH = 60  # bars of the curve


def watch(directory: str | Path, once: bool = False, console: Console | None = None) -> None:
    """Show a run, until it is complete or the user interrupts.

    Args:
        directory: a run folder. It is only read, nothing is locked.
        once: show it once; so does an output that is no terminal.
        console: where; default: standard output.

    Raises:
        InputError: for a folder that is no run, or no longer is.
    """
    console = console or Console(highlight=False)
    looks = follow(directory)
    if once or not console.is_terminal:
        console.print(view(next(looks), time.time()))
        return
    with (
        suppress(KeyboardInterrupt),  # this is how a watcher leaves
        Live(console=console, auto_refresh=False) as live,
    ):
        for now in looks:
            live.update(view(now, time.time()), refresh=True)


def view(now: Progress, clock: float) -> RenderableType:
    """A run as rich shows it. clock: seconds since 1970."""
    run = now.run
    state = ": complete" if now.complete else ": unfinished"
    if run.kind in OPEN_ENDED:
        state = ""
    head = Text(f"{run.kind} on {_plain(run.task)}{state}", style="bold")
    parts: list[RenderableType] = [head, Text(_plain(run.directory), style="dim")]
    if now.epochs:
        parts.append(_bar(*now.epochs, "epochs"))
    elif not now.stages:
        kept = run.kind not in OPEN_ENDED
        words = "Nothing is evaluated yet." if kept else "No journal here: see the report."
        parts.append(Text(words))
    if len(now.stages) > STAGES:
        parts.append(Text(f"{len(now.stages) - STAGES} earlier stages, then:"))
    for stage in now.stages[-STAGES:]:
        parts += [Text(), *_stage(stage, clock, now.complete)]
    return Group(*parts)


def _stage(stage: Stage, clock: float, complete: bool) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if stage.name:
        parts.append(Text(_plain(stage.name), style="bold"))
    parts.append(_bar(stage.done, stage.asked, "evaluations"))
    if not stage.done:
        return parts
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, value in _facts(stage, clock, complete):
        facts.add_row(name, value)
    parts.append(facts)
    table = _groups(stage) if (stage.trials["label"] != "").any() else _latest(stage)
    return [*parts, table]


def _bar(done: int, asked: int, what: str) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    words = f"{done:,} of {asked:,} {what}" if asked else f"{done:,} {what}"
    if asked:
        row.add_row(ProgressBar(asked, min(done, asked), width=30), words)
    else:
        row.add_row(words)
    return row


def _facts(stage: Stage, clock: float, complete: bool) -> list[tuple[str, str]]:
    trials, trained = stage.trials, stage.sound
    facts = []
    if len(trained) and not stage.tested:
        best = trained.loc[trained["reward"].idxmax()]
        error = f" ± {best['stderr']:.4f}" if best["stderr"] == best["stderr"] else ""
        where = f"batch {best['batch']}, slot {best['slot']}; the largest of {len(trained)}"
        facts.append(("maximised", stage.reward))
        facts.append(("best so far", f"{best['reward']:.4f}{error} ({where})"))
        latest = mean_interval(trained["reward"].tail(20))
        if latest.n > 1:
            facts.append((f"mean of the last {latest.n}", f"{latest.mean:.4f}, sd {latest.sd:.4f}"))
            facts.append(("in order", curve(trained["reward"])))
    lost = [f"{stage.failed} failed"] * bool(stage.failed)
    lost += [f"{stage.diverged} diverged"] * bool(stage.diverged)
    if lost:
        facts.append(("lost", ", ".join(lost)))
    cost = f"{tables.duration(trials['seconds'].sum())} in evaluations"
    if stage.budget:
        facts.append(("budget", stage.budget))
    facts.append(("cost", f"{cost}, {trials['image_passes'].sum():,.0f} image passes"))
    if not complete:
        age = max(0.0, clock - trials["finished"].max())
        facts.append(("last result", f"{tables.duration(age)} ago"))
        if stage.seconds_left > 0:
            facts.append(("left", f"about {tables.duration(stage.seconds_left)}"))
    return facts


def curve(rewards: pd.Series) -> str:
    """Rewards as bars, each the mean of as many that follow one another; lowest to highest."""
    values = rewards.to_numpy(float)
    count = min(WIDTH, len(values))
    means = [values[i * len(values) // count : (i + 1) * len(values) // count].mean()
             for i in range(count)]  # fmt: skip
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def _groups(stage: Stage) -> Table:
    """Arms, cells or policies as they fill in; the best first where the best is what is sought."""
    column = "accuracy" if stage.tested else "reward"
    what = "mean test accuracy" if (stage.trials["part"] == "test").all() else "mean accuracy"
    table = _table("", "evaluations", what if stage.tested else "mean", "sd", "failed")
    rows = []
    by = stage.trials.groupby("label")["scorer"].nunique()
    for (scorer, label), group in stage.trials.groupby(["scorer", "label"], sort=False):
        label = f"{label}, {scorer}" if by[label] > 1 else label
        # As reports have it: on the test part diverged children count, else they rank last.
        values = group[column].dropna() if stage.tested else sound(group)[column]
        lost = bool(group["diverged"].any()) or values.empty
        failed = int((group["status"] == "failed").sum())
        rows.append((label, len(group), values.mean(), values.std(), failed, lost))
    if not stage.tested:
        rows.sort(key=lambda row: (row[5], -row[1] + row[4], -row[2]))
    for label, count, mean, sd, failed, _ in rows[:ROWS]:
        numbers = tables.number(mean, 4), tables.number(sd, 4)
        table.add_row(Text(_plain(label)), str(count), *numbers, str(failed or ""))
    if len(rows) > ROWS:
        table.caption = f"{len(rows) - ROWS} more"
    return table


def _latest(stage: Stage) -> Table:
    several = stage.trials["scorer"].nunique() > 1
    table = _table("batch, slot", "reward", "seconds", *["by"] * several, "")
    for row in stage.trials.sort_values("finished", kind="stable").tail(ROWS // 2).itertuples():
        said = {"failed": str(row.error).strip().split("\n")[-1], "duplicate": "a repeat"}
        words = said.get(row.status, "diverged" if row.diverged else tables.policy(row.policy))
        numbers = tables.number(row.reward, 4), tables.number(row.seconds, 1)
        by = [Text(_plain(row.scorer))] * several
        table.add_row(f"{row.batch}, {row.slot}", *numbers, *by, Text(_plain(words)))
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", caption_justify="left")
    for place, head in enumerate(heads):
        right = 0 < place and head != ""
        # What has no head is text, and is cut where the terminal ends.
        least = max(len(head), NUMBER if right else 0) if head else None
        table.add_column(head, justify="right" if right else "left", no_wrap=True, min_width=least)
    return table


def _plain(text: object) -> str:
    """Without what a terminal would obey: names and errors come from anywhere."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
