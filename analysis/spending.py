"""How a search has spent its budget: on whom, in evaluations and in children from scratch."""

from __future__ import annotations

import pandas as pd

from policies.errors import as_written
from policies.files import read_json
from proxy_tasks.run_format import BEST, COSTS_NAME, FINAL, RESCORE
from proxy_tasks.trials import CHEAP, MAIN

from . import tables
from .document import Section, Sentences, Table, Text, section
from .runs import Run, chosen_among, shared_seeds
from .statistics import mean_interval

LEFT_OUT = "Left out of the choice, for a child that failed or diverged: "
_WORDS = {
    "prepared": "shared child, once",
    CHEAP: "cheap evaluations",
    MAIN: "evaluations by the search's own evaluator",
    FINAL: "new children for the final policy",
}
NAMES = (
    "best-1 is the best candidate, best-5 the five best joined, also with their magnitudes "
    "refined; one-by-one-N are N sub-policies chosen by a regression, together-N by what is "
    "expected of them as a whole."
)


def spent(run: Run) -> pd.DataFrame | None:
    """Rows by what it was spent on, columns evaluations and children; None without a budget.

    Raises InputError for a costs.json of other content.
    """
    path = run.directory / COSTS_NAME
    if not path.is_file():
        return None
    costs = read_json(path)
    with as_written(str(path), "must hold the costs of a search"):
        child, prepared = int(costs["child"]), int(costs["prepared"])
        prices = {name: int(price) / child for name, price in costs["evaluation"].items()}
        rows = [("prepared", 0, prepared / child)] if prepared else []
    parts = {name: run.trials[run.trials["scorer"] == name] for name in (CHEAP, MAIN)}
    parts[FINAL] = run.stage(FINAL).trials
    for name, trials in parts.items():
        if len(trials):
            rows.append((name, len(trials), len(trials) * prices.get(name, 1.0)))
    return pd.DataFrame(rows, columns=["what", "evaluations", "children"]).set_index("what")


def state(run: Run) -> str | None:
    """How far a search with a budget is, in words; None without one."""
    budget, table = run.number("settings", "budget"), spent(run)
    if not budget:
        return None
    if table is None:
        return f"what is spent of {budget} children is not known without {COSTS_NAME}"
    return f"{table['children'].sum():.1f} of {budget} children are spent"


def spending_section(run: Run) -> Section:
    """What the budget was spent on."""
    table = spent(run)
    if table is None or table.empty:
        return section("Budget")
    total = table["children"].sum()
    shown = pd.DataFrame(
        {
            "spent on": [_WORDS[name] for name in table.index],
            "evaluations": [str(n) if n else "–" for n in table["evaluations"]],
            "cost in children": table["children"].map(lambda value: f"{value:.1f}"),
            "share": (table["children"] / total).map(lambda value: f"{value:.0%}"),
        }
    )
    return section("Budget", Table(shown, "A child from scratch costs 1."))


def choice_section(run: Run) -> Section:
    """The final policies that were made, by the new children that decided between them."""
    title = "How the final policy was chosen"
    final, lost = chosen_among(run.stage(FINAL).trials)
    without = [LEFT_OUT + ", ".join(lost) + "."] if lost else []
    if final.empty:
        return section(title, *map(Text, without))
    final = shared_seeds(final)
    means = final.groupby("label", sort=False)["reward"].agg(["mean", "std", "count"])
    means = means.sort_values("mean", ascending=False, kind="stable")
    lines = ["The first is the best of several: its mean is optimistic too.", NAMES]
    lines += [*without, *luck(run)]
    shown = pd.DataFrame(
        {
            "final policy": list(means.index),
            "mean reward": tables.numbers(means["mean"], 4),
            "sd": tables.numbers(means["std"], 4),
            "children": means["count"].astype(str),
        }
    )
    return section(title, Table(shown), Sentences(tuple(lines)))


def luck(run: Run) -> list[str]:
    """What became of the best candidate's reward on new seeds, in a sentence; [] if not known.

    It is called luck where one child's reward is above the interval of the new ones. A mean over
    seeds that all candidates had may be above it for these seeds' sake.
    """
    best = (run.provenance or {}).get("best_candidate")
    best = best if isinstance(best, dict) else {}
    found, again = best.get("reward"), best.get("measured_again")
    if not isinstance(found, float) or not isinstance(again, float):
        return []
    final, _ = chosen_among(run.stage(FINAL).trials)
    children = final["reward"][final["label"] == BEST]
    known = mean_interval(children) if len(children) else None
    shown = f" {tables.interval(known.low, known.high, 4)}" if known and known.n > 1 else ""
    rescored = len(run.stage(RESCORE).trials) > 0
    when = "when candidates were measured again" if rescored else "when it was found"
    said = f"The best candidate had the reward {found:.4f} {when}, and has {again:.4f}{shown}"
    lost = known is not None and found > known.high and not rescored
    return [f"{said} with new seeds{': what it lost was luck' if lost else ''}."]
