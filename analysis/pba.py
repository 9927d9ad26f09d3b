"""The report of `augsearch pba`: the schedule, what it applies when, and its last policy."""

from __future__ import annotations

import pandas as pd

from policies import OPS, Schedule, load_policy_file, load_schedule
from proxy_tasks.run_format import SCHEDULE_NAME

from . import plots, sections, tables
from .document import Gallery, Picture, Report, Section, Sentences, Table, Text, section
from .runs import Run


def pba_report(run: Run) -> Report:
    """The report of a population, finished or not."""
    path = run.directory / SCHEDULE_NAME
    if not path.exists():
        found = [section("", Text("Unfinished: there is no schedule yet. --resume goes on."))]
    else:
        provenance = load_policy_file(path).provenance or {}
        found = _found(run, load_schedule(path), provenance)
    return Report(
        title=f"Population based augmentation on {run.task}",
        run=run,
        name="pba.md",
        sections=(
            *found,
            *sections.closing(run),
        ),
    )


def _found(run: Run, schedule: Schedule, provenance: dict) -> list[Section]:
    applied = usage(schedule)
    reward = provenance.get("reward")
    lines = [
        f"{len(schedule)} {'policy' if len(schedule) == 1 else 'policies'} over {schedule.epochs} "
        "epochs, by the best of "
        f"{run.number('settings', 'population')} children: the history of the one with the highest "
        "last reward, which is therefore optimistic.",
    ]
    if isinstance(reward, int | float):
        lines.append(f"Its {sections.reward_name(run)} on the validation part: {reward:.4f}.")
    if not applied.to_numpy().any():
        lines.append("Every probability is 0: the schedule augments nothing.")
    rows = pd.DataFrame(
        {
            "from epoch": [str(first) for first, _ in schedule],
            "operations applied to an image": [
                tables.number(applied[first].sum()) for first, _ in schedule
            ],
            "most applied": [_most(applied[first]) for first, _ in schedule],
        }
    )
    last = schedule[-1]
    found = [
        section(
            "",
            Sentences(tuple(lines)),
            Picture(
                "schedule",
                "operations applied to an image in every epoch",
                lambda path: plots.schedule_map(applied, path),
            ),
            Table(rows),
        )
    ]
    if len(run.evaluated):
        found.append(
            section(
                "The population",
                Picture(
                    "population",
                    "reward of every child after every generation",
                    lambda path: plots.population(run.evaluated, path, sections.reward_name(run)),
                ),
            )
        )
    found += [
        section("The last policy on images", Text(f"From epoch {last[0]} on."), Gallery(last[1])),
    ]
    return found


def usage(schedule: Schedule) -> pd.DataFrame:
    """How often an operation is applied to an image: [operations, epochs]."""
    columns = {}
    for epoch in range(schedule.epochs):
        policy = schedule.policy_at(epoch)
        counts = dict.fromkeys(OPS, 0.0)
        for sub in policy:
            for name, probability, _ in sub:
                counts[name] += probability / len(policy)
        columns[epoch] = counts
    table = pd.DataFrame(columns)
    return table[(table.index != "Identity") | (table > 0).any(axis=1)]


def _most(applied: pd.Series) -> str:
    top = applied[applied > 0].sort_values(ascending=False, kind="stable").head(3)
    return ", ".join(f"{name} {value:.2f}" for name, value in top.items()) or "nothing"
