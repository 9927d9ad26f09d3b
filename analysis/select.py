"""The report of `augsearch select`: which final policy was chosen, and what its rivals got."""

from __future__ import annotations

import numpy as np
import pandas as pd

from policies.errors import as_written
from policies.files import read_json
from proxy_tasks.run_format import FINAL, RESCORE, SEARCHED_CONFIG, SEARCHED_JOURNAL
from proxy_tasks.trials import read_journal, to_compare

from . import sections, tables
from .document import Report, Section, Table, Text, section
from .runs import Run, chosen_among, shared_seeds, sound, trials_table
from .search import policy_section
from .spending import LEFT_OUT, luck
from .statistics import mean_interval, noise_floor

METHOD = (
    "Mean over the seeds that all proposals have. Differences from the best one are within seeds; "
    "their intervals are Tukey's, with one noise estimate pooled over the proposals: they hold for "
    "all pairs at once, so for the best too, whichever that is. Its mean is optimistic all the "
    "same. Only the training seed varies: on this draw of the data."
)


def select_report(run: Run) -> Report:
    """The report of a selection, finished or not."""
    final, rescored = run.stage(FINAL), run.stage(RESCORE)
    if run.chosen is not None:
        about = run.provenance or {}
        state = Text(" ".join([f"Complete. Chosen: {about.get('selection')}.", *luck(run)]))
    else:
        state = Text("Unfinished: no policy is chosen yet; the same command with --resume goes on.")
    return Report(
        title=f"Final policy of {run.option('settings', 'run')} on {run.task}",
        run=run,
        name="select.md",
        sections=(
            section("", state),
            _proposals(run, final),
            _rescored(run, rescored),
            policy_section(run, "The chosen policy"),
            *sections.closing(run.with_stages(RESCORE, FINAL)),
        ),
    )


def _proposals(run: Run, final: Run) -> Section:
    """Every proposal with its mean, and the difference from the best."""
    title = f"Proposals, by {sections.reward_name(run)} on the validation part"
    done, lost = chosen_among(final.trials)
    without = Text(LEFT_OUT + ", ".join(lost) + ".") if lost else None
    if done.empty:
        return section(title, without or Text("None was evaluated yet."))
    wide = shared_seeds(done).pivot(index="seed", columns="label", values="reward")
    wide = wide[list(dict.fromkeys(done["label"]))]  # ties go to the first, as in the choice
    order = wide.mean().map(to_compare).sort_values(ascending=False, kind="stable").index
    best, half = order[0], _half_width(wide)
    rows = []
    for name in order:
        own = mean_interval(wide[name].dropna())
        gap = np.nan if name == best else float((wide[name] - wide[best]).mean())
        rows.append(
            {
                "proposal": name,
                "mean": tables.number(own.mean, 4),
                "95 % interval": tables.interval(own.low, own.high, 4),
                "seeds": str(own.n),
                f"minus {best}": tables.number(gap, 4, sign=True),
                "interval": tables.interval(gap - half, gap + half, 4, sign=True),
            }
        )
    return section(title, Table(pd.DataFrame(rows), METHOD), without)


def _half_width(wide: pd.DataFrame) -> float:
    """Of Tukey's intervals of the differences; NaN where there is no scatter to judge by."""
    if min(wide.shape) < 2 or wide.isna().any(axis=None):
        return float("nan")
    floor = noise_floor(wide.to_numpy().T)
    return float("nan") if floor.flat else floor.tukey_half_width(wide.shape[1])


def _rescored(run: Run, rescored: Run) -> Section:
    """What the best candidates got in the search, and with new seeds."""
    title = "Candidates measured again"
    again, lost = chosen_among(rescored.trials)
    again = shared_seeds(again)
    without = Text(LEFT_OUT + ", ".join(lost) + ".") if lost else None
    journal = run.directory / SEARCHED_JOURNAL
    if again.empty or not journal.exists():
        return section(title, without)
    searched = sound(trials_table(read_journal(journal)))
    first = searched["reward"].groupby(searched["policy"].map(repr)).max()
    fresh = again.assign(key=again["policy"].map(repr)).groupby(["label", "key"], sort=False)
    table = fresh["reward"].agg(["mean", "count"]).reset_index()
    table["search"] = table["key"].map(first)
    table = table[table["search"].notna()].sort_values("search", ascending=False, kind="stable")
    if table.empty:
        return section(title, without)
    if _same_scorer(run):
        line = _lost(table, again)
    else:
        line = "Another evaluator or reward than the search's: the two have other scales."
    shown = pd.DataFrame(
        {
            "candidate": table["label"],
            "in the search": tables.numbers(table["search"], 4),
            "measured again": tables.numbers(table["mean"], 4),
            "seeds": table["count"].astype(str),
        }
    )
    return section(title, Text(line), Table(shown), without)


def _lost(table: pd.DataFrame, again: pd.DataFrame) -> str:
    """What the best of the search lost on new seeds, beside what the other candidates lost.

    It is luck where the interval over the new seeds says so; these shift all candidates alike.
    """
    best, others = table["label"].iloc[0], table["label"].iloc[1:]
    searched = table.set_index("label")["search"]
    new = again.pivot(index="seed", columns="label", values="reward")[table["label"]]
    lost = (searched - new).dropna()
    known = new[best].mean()
    said = f"The best had {searched[best]:.4f} in the search and {known:.4f} measured again."
    if others.empty or lost.empty:
        return said
    more = mean_interval(lost[best] - lost[others].mean(axis=1))
    shown = f" {tables.interval(more.low, more.high, 4, sign=True)}" if more.n > 1 else ""
    return (
        f"{said} It lost {more.mean:+.4f}{shown} more than the {len(others)} others on average, "
        f"whom the new seeds shift alike{': that was luck' if more.low > 0 else ''}."
    )


def _same_scorer(run: Run) -> bool:
    """Whether candidates are measured again as the search measured them."""
    path = run.directory / SEARCHED_CONFIG
    with as_written(str(path), "must hold the configuration of a search", "restore it from a copy"):
        searched = read_json(path).get("evaluator") if path.exists() else None
    return searched == run.config.get("evaluator")
