"""`augsearch race`: which searcher finds the better policy, at the same cost, and how surely."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from policies.errors import InputError, as_written
from policies.files import read_json
from proxy_tasks.run_format import PLANTED, RACE_NAME, entrant_names

from . import plots, sections, tables
from .document import Picture, Report, Section, Sentences, Table, Text, section
from .runs import Run
from .statistics import (
    bootstrap,
    holm,
    holm_levels,
    interquartile_mean,
    paired_difference,
    paired_superiority,
    share_interval,
    verdict,
)

MARGIN = 0.1  # percentage points; a tenth of what one child's accuracy scatters by
# How searches end: of a race by evaluations, and of one at equal cost.
BY_EVALUATIONS = (
    "Every searcher has the same number of evaluations and the same final selection, the "
    "sub-policies of its best candidates"
)
AT_EQUAL_COST = (
    "Every search has the same cost, and its final policy is chosen in the same way by new dear "
    "evaluations"
)
METHOD = (
    "; judged is the true worth of that policy, without noise, "
    "of which no searcher was told. Mean of the middle half (interquartile mean) with a percentile "
    "bootstrap over searches, from 8 on; of 8 to 10 it is too narrow, and misses what it is for 6 "
    "to 9 times in 100 instead of 5. Pairs are searches with the same seed: P(A > B) is the "
    "share of seeds in which A is ahead, ties counting half, with Wilson's interval at 95 %; the "
    "mean difference has Student's t interval at the level at which Holm's procedure over all "
    "pairs tests it, so that interval, p and verdict agree. Equal: the interval lies within the "
    "margin."
)


@dataclass(frozen=True)
class Race:
    """What a race says; accuracies in percent, differences in percentage points.

    Attributes:
        table: a row a searcher, the best first: searcher, n (searches), mean, sd, iqm, iqm_low,
            iqm_high (95 %), image_passes and hours of a search (means; hours on one worker),
            duplicates (mean), empty (searches in which nothing trained, left out).
        pairs: a row for every two searchers: first, second, n (seeds), difference (first -
            second), low, high (corrected), p, p_holm, superiority, superiority_low,
            superiority_high, verdict (of the first).
        anytime: searcher, evaluations, iqm, low, high, n.
        margin: what counts as equal.
        seeds: with which any searcher found something.
        common: with which all did. Table and anytime are over these where they are two or more.

    Intervals of fewer than 8 searches are NaN.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    anytime: pd.DataFrame
    seeds: int
    common: int
    margin: float = MARGIN

    @property
    def text(self) -> str:
        """Tables and words for a terminal of 80 columns."""
        return "\n\n".join([tables.plain(_compact(self.table)), tables.wrapped(self.sentences)])

    @property
    def sentences(self) -> list[str]:
        """What the pairs say, in words."""
        said = [
            f"{row.first} against {row.second}: {row.verdict}, {row.difference:+.2f} points "
            f"{tables.interval(row.low, row.high, sign=True)}, ahead in "
            f"{100 * row.superiority:.0f} % of {row.n} seeds "
            f"[{100 * row.superiority_low:.0f}, {100 * row.superiority_high:.0f}]."
            for row in self.pairs.itertuples(index=False)
        ]
        if self.common < 2:
            said.append("Means of different seeds, as fewer than two are common to all searchers.")
        elif self.common < self.seeds:
            said.append(
                f"Table and picture are over the {self.common} of {self.seeds} seeds with which "
                "every searcher found something."
            )
        empty = int(self.table["empty"].sum())
        if empty:
            said.append(f"In {empty} searches nothing trained; their pairs are missing.")
        return said


def analyse_race(laps: pd.DataFrame, margin: float = MARGIN) -> Race:
    """Compare the searches of a race.

    Args:
        laps: one row per searcher, seed and checkpoint: searcher, seed, evaluations, value (true
            worth 0..1, or missing), image_passes, seconds, duplicates (of the whole search).
        margin: percentage points within which searchers count as equal.

    Raises:
        InputError: for fewer than two searches of a searcher in which something trained.
    """
    laps = laps.assign(value=100 * laps["value"].astype(float))
    last = laps[laps["evaluations"] == laps["evaluations"].max()]
    finals = _by_searcher(last)
    counted = finals.notna().sum()
    if len(counted) == 0 or counted.min() < 2:
        raise InputError(
            "race", "must have at least two searches of each searcher that found something",
            counted.to_dict(), "finish the race, or add seeds",
        )  # fmt: skip
    common = _common(finals)
    order = common.mean().sort_values(ascending=False, kind="stable").index
    table = pd.DataFrame([_row(name, common[name], last) for name in order])
    pairs = _pairs(finals[order], margin)
    shared = laps[laps["seed"].isin(common.index)]
    anytime = pd.DataFrame(
        [
            {"searcher": name, "evaluations": evaluations, "iqm": found.value, "low": found.low,
             "high": found.high, "n": found.n}
            for evaluations, group in shared.groupby("evaluations")
            for name, values in _common(_by_searcher(group)).items()
            if values.notna().any()
            for found in [bootstrap(interquartile_mean, values.dropna().to_numpy())]
        ]
    )  # fmt: skip
    anytime = anytime.sort_values(["searcher", "evaluations"], ignore_index=True)
    seeds = len(finals.dropna(how="all"))
    return Race(table, pairs, anytime, seeds, len(finals.dropna()), margin)


def _by_searcher(laps: pd.DataFrame) -> pd.DataFrame:
    return laps.pivot(index="seed", columns="searcher", values="value")


def _common(values: pd.DataFrame) -> pd.DataFrame:
    """The seeds that all searchers have, where these are two or more; else as they are."""
    whole = values.dropna()
    return whole if len(whole) >= 2 else values


def _row(name: str, values: pd.Series, last: pd.DataFrame) -> dict[str, Any]:
    own = last[last["searcher"] == name]
    found = bootstrap(interquartile_mean, values.dropna().to_numpy())
    return {
        "searcher": name,
        "n": found.n,
        "mean": values.mean(),
        "sd": values.std(),
        "iqm": found.value,
        "iqm_low": found.low,
        "iqm_high": found.high,
        "image_passes": own["image_passes"].mean(),
        "hours": own["seconds"].mean() / 3600,
        "duplicates": own["duplicates"].mean(),
        "empty": int(own["value"].isna().sum()),
    }


def _pairs(finals: pd.DataFrame, margin: float) -> pd.DataFrame:
    rows, differences = [], []
    for first, second in itertools.combinations(finals.columns, 2):
        both = finals[[first, second]].dropna()
        if len(both) < 2:
            continue
        difference = paired_difference(both[first].to_numpy(), both[second].to_numpy())
        ahead = float(paired_superiority((both[first] - both[second]).to_numpy()))
        low, high = share_interval(ahead, len(both))
        differences.append(difference)
        rows.append(
            {"first": first, "second": second, "n": difference.n, "difference": difference.mean,
             "p": difference.p, "superiority": ahead, "superiority_low": low,
             "superiority_high": high}
        )  # fmt: skip
    p = [difference.p for difference in differences]
    for row, corrected, level, difference in zip(
        rows, holm(p), holm_levels(p), differences, strict=True
    ):
        low, high = difference.interval(1 - level)
        row |= {"p_holm": corrected, "low": low, "high": high,
                "verdict": verdict((low, high), margin)}  # fmt: skip
    columns = ["first", "second", "n", "difference", "low", "high", "p", "p_holm", "superiority",
               "superiority_low", "superiority_high", "verdict"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


# The run folder --------------------------------------------------------------------------------


def race_report(run: Run) -> Report:
    """The report of a race, finished or not."""
    laps = _laps(run)
    known = _comparable(laps)
    race = analyse_race(known) if len(known) else None
    fidelity, dear = (run.option("settings", name) for name in ("fidelity", "dear"))
    names = [entrant_names(each, str(fidelity), dear) for each in run.choices("searcher")]
    wanted = run.number("settings", "seeds") * sum(map(len, names))
    done = len(laps[["searcher", "seed"]].drop_duplicates())
    course = run.option("settings", "table", "a table")
    lines = [f"Unfinished: {done} of {wanted} searches."] if done < wanted else []
    raced = [] if race is None else list(race.table["searcher"])
    missing = [name for name in dict.fromkeys(laps["searcher"]) if name not in raced]
    if missing:
        lines.append(f"Left out, as fewer than two searches found something: {', '.join(missing)}.")
    state = Sentences(tuple(lines)) if lines else None
    data: dict[str, pd.DataFrame] = {}
    if race is None:
        none = "Unfinished: no search is done yet." if not done else "There is nothing to compare."
        parts = [section("", None if not done else state, Text(none))]
    else:
        parts = _parts(race, state, run)
        data = {"race.csv": race.table, "pairs.csv": race.pairs, "anytime.csv": race.anytime}
    return Report(
        title=f"Searchers raced on {course}",
        run=run,
        name="race.md",
        sections=(*parts, sections.how_section(run)),
        data=data,
        text=race.text if race else "",
    )


def _comparable(laps: pd.DataFrame) -> pd.DataFrame:
    """The laps of searchers of which at least two searches found something."""
    last = laps[laps["evaluations"] == laps["evaluations"].max()]
    found = last.groupby("searcher")["value"].count()
    return laps[laps["searcher"].isin(found.index[found >= 2])]


def _asked(run: Run, budget: int) -> str:
    cheap, dear = (run.option("settings", name, "") for name in ("fidelity", "dear"))
    if dear:
        return (
            f"A search costs {budget} evaluations of {dear}, the final choice by a fifth of them "
            f"included; those told {cheap} have as many more as it costs less"
        )
    return f"{budget} evaluations a search, rewards {sections.reward_name(run)} of {cheap}"


def _parts(race: Race, state: Sentences | None, run: Run) -> list[Section]:
    budget = run.number("settings", "budget")
    ending = AT_EQUAL_COST if run.option("settings", "dear") else BY_EVALUATIONS
    told = Text(
        f"{_asked(run, budget)}; "
        f"{race.table['image_passes'].mean():,.0f} image passes a search. {_truth(run)}"
    )
    pairs = pd.DataFrame(
        {
            "first": race.pairs["first"],
            "second": race.pairs["second"],
            "difference": tables.numbers(race.pairs["difference"], sign=True),
            "interval": tables.intervals(race.pairs["low"], race.pairs["high"], sign=True),
            "p (Holm)": [f"{p:.2g}" if np.isfinite(p) else "–" for p in race.pairs["p_holm"]],
            "P(first > second)": race.pairs["superiority"].map(tables.number),
            "95 %": tables.intervals(race.pairs["superiority_low"], race.pairs["superiority_high"]),
            "verdict": race.pairs["verdict"],
        }
    )
    picture = Picture(
        "race", "True worth of the policy found, by evaluations",
        lambda path: plots.anytime(race.anytime, path),
    )  # fmt: skip
    return [
        section("", state, Sentences(tuple(race.sentences)), Table(_compact(race.table)), told,
                picture),
        section("Pairs", Table(pairs), Text(f"Margin: {race.margin} points. {ending}{METHOD}")),
    ]  # fmt: skip


def _truth(run: Run) -> str:
    if run.option("settings", "table") == PLANTED:
        return "Every seed has a planted landscape of its own, whose values are known."
    policies = read_json(run.directory / RACE_NAME).get("policies", 0)
    return (
        f"The table has {policies} policies. Searchers are told what a surrogate says that knows "
        "one half of them, and true worth is what another one, of the other half, expects of a "
        "child from scratch: so that nobody is rewarded twice for an error of the same. Both know "
        "how often and how strongly operations are applied, not how they go together. Intervals "
        "are over searches: another table would move all of them."
    )


def _laps(run: Run) -> pd.DataFrame:
    """race.json as the table that `analyse_race` takes."""
    path = run.directory / RACE_NAME
    columns = ["searcher", "seed", "evaluations", "value", "image_passes", "seconds", "duplicates"]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    raced = read_json(path)
    with as_written(str(path), "must hold the laps of a race", "restore it from a copy"):
        rows = [
            {**{name: lap[name] for name in columns if name not in ("evaluations", "value")},
             "evaluations": evaluations, "value": value}
            for lap in raced["laps"]
            for evaluations, value in zip(lap["evaluations"], lap["values"], strict=True)
        ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _compact(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "searcher": table["searcher"],
            "searches": table["n"].astype(str),
            "middle half (%)": table["iqm"].map(tables.number),
            "95 %": tables.intervals(table["iqm_low"], table["iqm_high"]),
            "mean (%)": table["mean"].map(tables.number),
            "sd": table["sd"].map(tables.number),
            "repeats": [f"{value:.1f}" for value in table["duplicates"]],
        }
    )
