"""The report of `augsearch select`: which final policy was chosen, and what its rivals got."""

from __future__ import annotations

import numpy as np
import pandas as pd

from policies.files import read_json
from proxy_tasks.run_format import FINAL, RESCORE, SEARCHED_CONFIG, SEARCHED_JOURNAL
from proxy_tasks.trials import read_journal

from . import sections, tables
from .document import Report, Section, Sentences, Table, Text, section
from .runs import Run, chosen_among, sound, trials_table
from .search import policy_section
from .spending import LEFT_OUT, luck
from .statistics import holm_levels, mean_interval, paired_difference

METHOD = (
    "Mean over the seeds, which every proposal had alike. Differences from the chosen one are "
    "paired; their intervals are corrected over the proposals (Holm). The chosen one is the best "
    "of several: its mean is optimistic, a difference from it too. Only the training seed varies: "
    "on this draw of the data."
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
    wide = done.pivot(index="seed", columns="label", values="reward")
    wide = wide[list(dict.fromkeys(done["label"]))]  # ties go to the first, as in the choice
    order = wide.mean().sort_values(ascending=False, kind="stable").index
    best = order[0]
    gaps = {}
    for name in order[1:]:
        both = wide[[name, best]].dropna()
        gaps[name] = paired_difference(both[name], both[best]) if len(both) else None
    p = [float(np.nan_to_num(gap.p if gap else np.nan, nan=1.0)) for gap in gaps.values()]
    rows = []
    for name in order:
        own = mean_interval(wide[name].dropna())
        rows.append(
            {
                "proposal": name,
                "mean": tables.number(own.mean, 4),
                "95 % interval": tables.interval(own.low, own.high, 4),
                "seeds": str(own.n),
                f"minus {best}": "–",
                "interval": "–",
            }
        )
    for row, gap, level in zip(rows[1:], gaps.values(), holm_levels(p), strict=True):
        if gap is not None:
            row[f"minus {best}"] = tables.number(gap.mean, 4, sign=True)
            row["interval"] = tables.interval(*gap.interval(1 - level), 4, sign=True)
    return section(title, Table(pd.DataFrame(rows), METHOD), without)


def _rescored(run: Run, rescored: Run) -> Section:
    """What the best candidates got in the search, and with new seeds."""
    title = "Candidates measured again"
    again = sound(rescored.trials)
    journal = run.directory / SEARCHED_JOURNAL
    if again.empty or not journal.exists():
        return section(title)
    searched = sound(trials_table(read_journal(journal)))
    first = searched["reward"].groupby(searched["policy"].map(repr)).max()
    fresh = again.assign(key=again["policy"].map(repr)).groupby(["label", "key"], sort=False)
    table = fresh["reward"].agg(["mean", "count"]).reset_index()
    table["search"] = table["key"].map(first)
    table = table[table["search"].notna()].sort_values("search", ascending=False, kind="stable")
    if table.empty:
        return section(title)
    lines = []
    if _same_scorer(run):
        half = table.head(max(1, len(table) // 2))
        lines.append(
            f"The best {len(half)} of the search had a mean reward of {half['search'].mean():.4f}; "
            f"measured again it is {half['mean'].mean():.4f}. The difference is what their luck "
            "had added."
        )
    else:
        lines.append("Another evaluator or reward than the search's: the two have other scales.")
    shown = pd.DataFrame(
        {
            "candidate": table["label"],
            "in the search": tables.numbers(table["search"], 4),
            "measured again": tables.numbers(table["mean"], 4),
            "seeds": table["count"].astype(str),
        }
    )
    return section(title, Sentences(tuple(lines)), Table(shown))


def _same_scorer(run: Run) -> bool:
    """Whether candidates are measured again as the search measured them."""
    path = run.directory / SEARCHED_CONFIG
    searched = read_json(path).get("evaluator") if path.exists() else None
    return searched == run.config.get("evaluator")
