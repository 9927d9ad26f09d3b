"""The report of `augsearch replicate`: which method finds better policies, over draws."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from policies.errors import as_written
from policies.files import read_json
from proxy_tasks.evaluators.config import REWARDS
from proxy_tasks.run_format import CONFIG_NAME, DRAW, OTHER, OWN, PLAN_NAME, STAND_IN

from . import plots, sections, tables
from .compare import comparison_report
from .document import (
    Block,
    Code,
    Picture,
    Report,
    Section,
    Sentences,
    Table,
    Text,
    section,
    write_data,
)
from .draws import (
    PLACES,
    Draws,
    Replication,
    analyse_replication,
    compare_methods,
    cost_text,
)
from .runs import Run, contents_of, in_children, load_run, passes_of_one

METHOD = (
    "The unit is a method on a draw of the images: each searches anew, at the same cost; searchers "
    "choose their final policy alike, the grid by halving. What decides is accuracy on the draw "
    "that was searched; that on another one is secondary. Methods that search are compared with "
    "each of those in --against, what searches for nothing only by being named there (all with "
    "all of these, where no comparison would be left). A draw counts once, with the mean over its "
    "children. Differences are paired over draws and seeds; their intervals are Student's t, at "
    "the level at which Holm's procedure over all rows of the same images tests them, so that "
    "interval, p and verdict agree (of three intervals one or more may miss in up to 9 %, of ten "
    "in up to 14 %). Ahead: share of draws in which the method is ahead, ties counting half, with "
    "Wilson's 95 % interval. Equal: the interval lies within the margin. Draws are taken from the "
    "same data set and share images: all this holds for data like these."
)
REWARDED = (
    "The measure that rewarded the searches, nats an image, of the test images of their own draws. "
    "It is beside the plan, and corrected over these rows alone. A method that is better here and "
    "not in accuracy found what it was asked for: it is the reward that asks for something else."
)
FOLDERS = (
    "Every draw has a folder, `draw-N`: in `own` and `other` are the comparisons of its policies, "
    "in a folder for each method its search. `augsearch report` makes a report of each."
)


def judged(run: Run) -> dict[str, list[Run]]:
    """The comparisons inside a replication that are finished on both kinds of images, by kind."""
    found: dict[str, list[Run]] = {OWN: [], OTHER: []}
    wanted = len(run.choices("method")) * run.number("settings", "seeds")
    for draw in range(run.number("settings", "draws")):
        folders = [run.directory / f"{DRAW}{draw}" / images for images in PLACES]
        if all((folder / CONFIG_NAME).exists() for folder in folders):
            both = [load_run(folder) for folder in folders]
            if all(len(each.trials) >= wanted > 0 for each in both):
                for images, each in zip(found, both, strict=True):
                    found[images].append(each)
    return found


def _draws(run: Run, judgements: list[Run], measure: str = "accuracy") -> Draws:
    methods = tuple(arm.name for arm in judgements[0].arms)
    seeds = run.number("settings", "seeds")
    values = np.full((len(judgements), seeds, len(methods)), np.nan)
    cost = np.zeros((len(judgements), len(methods)))
    diverged = 0
    for place, each in enumerate(judgements):
        tested = each.trials[each.trials["part"] == "test"]
        wide = tested.pivot(index="batch", columns="label", values=measure)
        values[place] = wide.reindex(range(seeds))[list(methods)].to_numpy(float)
        diverged += int(tested["diverged"].sum())
        child = passes_of_one(tested)
        cost[place] = [in_children(arm.image_passes, child) for arm in each.arms]
    numbers = tuple(int(each.directory.parent.name.removeprefix(DRAW)) for each in judgements)
    if measure == "accuracy":
        values *= 100
    return Draws(methods, numbers, values, diverged, cost.mean(axis=0))


def replication_of(run: Run, judgements: dict[str, list[Run]]) -> Replication | None:
    """What the finished draws say; None where there are none yet."""
    if not judgements[OWN]:
        return None
    margin = float(run.option("settings", "margin", 0.5))
    against = _named(run, run.choices("against"))
    draws = {images: _draws(run, those) for images, those in judgements.items()}
    return analyse_replication(draws, against, margin, {arm.name for arm in run.arms})


def _named(run: Run, texts: Sequence[str]) -> list[str]:
    """What reports call these methods: an arm from a file has a name of its own."""
    names = {arm.text: arm.name for arm in run.arms}
    return [names.get(text, text) for text in texts]


def replication_report(run: Run) -> Report:
    """The report of a replication, finished or not."""
    judgements = judged(run)
    replication = replication_of(run, judgements)
    state = sections.state(len(judgements[OWN]), run.number("settings", "draws"), "draws")
    blocks: list[Block] = [Text(state)]
    if said := [*_stand_ins(run), *_shared(judgements)]:
        blocks.append(Sentences(tuple(said)))
    data: dict[str, pd.DataFrame] = {}
    further: list[Section] = []
    if replication is None:
        blocks.append(Text("No draw is judged yet."))
    else:
        blocks += [
            Sentences(tuple(replication.sentences)),
            Table(_readable(replication), _cost_note(run)),
            Picture("replicate", "differences by draw", lambda path: _picture(replication, path)),
        ]
        rewarded = _rewarded(run, judgements[OWN], replication.pairs)
        further = [
            section("Comparisons", Table(_comparisons(replication.pairs)),
                    Text(f"Margin: {replication.margin:g} points. {METHOD}")),
            *[section("By the reward", Table(_comparisons(rewarded, 3)), Text(REWARDED))]
            * (len(rewarded) > 0),
            section("Draws", *_by_draw(replication), Text(FOLDERS), details=True),
        ]  # fmt: skip
        data = {"methods.csv": replication.table, "pairs.csv": replication.pairs}
        data |= {"rewarded.csv": rewarded} if len(rewarded) else {}
    return Report(
        title=f"Methods replicated on {run.task}",
        run=run,
        name="replicate.md",
        sections=(
            section("", *blocks), *further, sections.warnings_section(run), _plan(run),
            sections.data_section(run), sections.how_section(run),
        ),
        data=data,
        text=replication.text if replication else "",
        further=lambda _: _write_comparisons(judgements),
    )  # fmt: skip


# Parts of the other draws, and what it means that a search has seen their images.
_SEEN = (
    ("test", "test", "accuracy there flatters too. Images in a test folder are never drawn for "
     "anything else."),
    ("train", "training", "children there are partly trained on what policies were found for."),
)  # fmt: skip


def _shared(judgements: dict[str, list[Run]]) -> list[str]:
    """Which images draws have in common, where that bears on what they say."""
    own, other = (list(map(contents_of, judgements[images])) for images in PLACES)
    lines = []
    for part, called, meaning in _SEEN:
        seen = [
            len(away[part] & (home["train"] | home["validation"])) / len(away[part])
            for home, away in zip(own, other, strict=True)
        ]
        if seen and np.mean(seen) > 0:
            lines.append(
                f"{100 * np.mean(seen):.0f} % of the {called} images of the other draws had been "
                f"trained on, or had given rewards, on the draws that were searched: {meaning}"
            )
    same = [
        len(one["test"] & two["test"]) / len(one["test"])
        for one, two in itertools.combinations(own, 2)
    ]
    if same and np.mean(same) > 0:
        lines.append(
            f"Two draws share {100 * np.mean(same):.0f} % of their test images: so far intervals "
            "over draws do not say how other test images would judge."
        )
    return lines


def _stand_ins(run: Run) -> list[str]:
    """Where a method found nothing, and what it counts with there."""
    lines = []
    for path in sorted(run.directory.glob(f"{DRAW}*/*/{STAND_IN}")):
        note, draw = read_json(path), path.parent.parent.name.replace("-", " ")
        with as_written(str(path), "must hold what the run wrote into it"):
            lines.append(
                f"On {draw} {path.parent.name} found nothing, and counts there with "
                f"no augmentation: {note['why']}."
            )
    return lines


def _write_comparisons(judgements: dict[str, list[Run]]) -> None:
    """The tables of every draw, beside its journals."""
    for run in (run for runs in judgements.values() for run in runs):
        write_data(comparison_report(run))


def _plan(run: Run) -> Section:
    path = run.directory / PLAN_NAME
    if not path.exists():
        return section("Plan")
    plans = read_json(path)
    with as_written(str(path), "must hold plans as they were written", "restore it from a copy"):
        first, *_ = plans
        hashes = [f"{plan['settings']['draws']} draws, {plan['sha256']}" for plan in plans]
        primary = first.get("primary")
        decides = (
            f"Primary: accuracy on {PLACES[primary]}; the other kind of draw is secondary."
            if primary
            else "It names neither comparisons nor what decides, as those of earlier versions."
        )
    words = f"Written before the first evaluation, with its SHA-256 hash. {decides}"
    if len(plans) > 1:
        words += (
            " It has grown: whoever looks at results before adding draws finds differences more "
            "often than the p values say."
        )
    return section("Plan", Text(words), Sentences(tuple(hashes)),
                   Code(json.dumps(plans[-1], indent=1), "json"), details=True)  # fmt: skip


def _cost_note(run: Run) -> str:
    return (
        "Means over draws with 95 % intervals. Search cost: image passes of a method on a draw, in "
        "those of a child that is judged (which is tested as well, so it is a little dearer than "
        f"one of the {run.number('settings', 'budget')} that a search may train); what "
        "searches for nothing has none."
    )


def _readable(replication: Replication) -> pd.DataFrame:
    table = replication.table
    return pd.DataFrame(
        {
            "method": table["method"],
            "own draw, test %": table["own_mean"].map(tables.number),
            "95 % interval": tables.intervals(table["own_low"], table["own_high"]),
            "other draw, test %": table["other_mean"].map(tables.number),
            "its 95 % interval": tables.intervals(table["other_low"], table["other_high"]),
            "draws": table["draws"].astype(str),
            "search cost (children)": table["search_children"].map(cost_text),
        }
    )


def _comparisons(pairs: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": pairs["method"],
            "against": pairs["against"],
            "images": pairs["images"],
            "difference": tables.numbers(pairs["difference"], digits, sign=True),
            "interval": tables.intervals(pairs["low"], pairs["high"], digits, sign=True),
            "p (Holm)": pairs["p_holm"].map(tables.p_value),
            "ahead": pairs["ahead"].map(tables.share),
            "draws": pairs["n"].astype(str),
            "verdict": pairs["verdict"],
        }
    )


def _rewarded(run: Run, judgements: list[Run], pairs: pd.DataFrame) -> pd.DataFrame:
    """The `pairs` on own draws by what rewarded the searches; empty where accuracy itself did."""
    reward = run.option("evaluator", "reward")
    if reward not in REWARDS or reward == "accuracy":
        return pairs.iloc[:0]
    draws = _draws(run, judgements, reward)
    own = pairs.loc[pairs["images"] == OWN, ["method", "against"]]
    compared = compare_methods(draws, [*own.itertuples(index=False, name=None)], margin=0.0)
    return compared[compared["n"] > 0].assign(images=OWN)


def _by_draw(replication: Replication) -> list[Block]:
    blocks: list[Block] = []
    for images, those in replication.draws.items():
        frame = pd.DataFrame({method: those.means(method) for method in those.methods})
        shown = frame.map(tables.number)
        shown.insert(0, "draw", [str(number) for number in those.numbers])
        blocks.append(Table(shown, f"Mean test accuracy (%) on {PLACES[images]}."))
    return blocks


def _picture(replication: Replication, path: Path) -> Path:
    """Against the first of the methods that others are compared with."""
    first = replication.pairs["against"].iloc[0]
    panels = {}
    for images, those in replication.draws.items():
        rows = replication.pairs
        rows = rows[(rows["images"] == images) & (rows["against"] == first)]
        table = rows.rename(columns={"method": "arm", "difference": "mean"})
        runs = {
            name: pd.Series(those.differences(name, first), list(those.numbers)).dropna()
            for name in rows["method"]
        }
        panels[f"minus {first}, on {PLACES[images]}"] = table, runs
    return plots.differences(panels, path)
