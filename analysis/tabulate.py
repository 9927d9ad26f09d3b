"""`augsearch tabulate`: the table of a run, its noise, and what its cheap fidelities are worth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from policies.files import write_atomically, write_json
from proxy_tasks.tables import (
    COLUMNS,
    METRICS,
    OPTIMISED,
    TESTED,
    Table,
    digest,
    encode_table,
    policy_text,
)

from . import document, sections, tables
from .asked import evaluations
from .document import Report, Section, Sentences, Text, section
from .ranks import rank_correlation
from .runs import Run, augmentation_of, validated
from .statistics import FEWEST, noise_floor

TABLE_NAME, FIGURES_NAME = "table.parquet", "table.json"
# Policies among which figures are told apart; None: all.
AMONG: dict[str, tuple[str, ...] | None] = {
    "all": None,
    "random": ("random-5x2", "random-25"),
    "optimised": (OPTIMISED,),
}
METHOD = (
    "ρ: Spearman's rank correlation over policies of one evaluation with the test accuracy from "
    "scratch, mean over all its seeds; interval: percentile bootstrap over policies. A child's own "
    "seed is left out of what judges it, so from scratch is judged by one child fewer and its ρ is "
    "a little low. Random: the families random-5x2 and random-25; optimised: what searches "
    "exported and proposed late."
)
NOISE = (
    "One run: standard deviation between runs of one policy, after the means of seeds. Between "
    "policies: of true values. Share: of the variance of one run, what is due to the policy. Runs "
    "by weight sharing differ in the policy's draws alone, as they share one child."
)


@dataclass(frozen=True)
class Tabulation:
    """A table and its figures.

    Attributes:
        table: as `proxy_tasks.load_table` reads it.
        noise: one row per fidelity, measure and group of policies, with run_sd, policy_sd, share;
            of policies of which no child diverged.
        correlations: likewise for every validation measure, with rho, low, high, policies.
    """

    table: Table
    noise: pd.DataFrame
    correlations: pd.DataFrame

    @property
    def text(self) -> str:
        """Tables and words for a terminal of 80 columns."""
        shown = [readable_correlations(self)] if len(self.correlations) else []
        return "\n\n".join([*map(tables.plain, shown), tables.wrapped(self.sentences)])

    @property
    def figures(self) -> dict[str, Any]:
        """The figures as JSON data."""
        frame = self.table.frame
        policies = frame.drop_duplicates("policy")
        return {
            "policies": len(policies),
            "families": policies["family"].value_counts(sort=False).to_dict(),
            "sources": policies["source"].value_counts(sort=False).drop("", errors="ignore")
            .to_dict(),
            "evaluations": frame["fidelity"].value_counts(sort=False).to_dict(),
            "diverged": int(frame["diverged"].sum()),
            "core_hours": round(self._core_hours, 3),
            "image_passes": int(frame["image_passes"].sum()),
            "noise": _records(self.noise),
            "correlations": _records(self.correlations),
        }  # fmt: skip

    @property
    def _core_hours(self) -> float:
        frame, about = self.table.frame, self.table.fidelities
        threads = frame["fidelity"].map(lambda name: about[name]["evaluator"]["threads"])
        return float((frame["seconds"] * threads).sum() / 3600)

    @property
    def sentences(self) -> list[str]:
        """What the figures say, in words."""
        figures = self.figures
        optimised = figures["families"].get(OPTIMISED, 0)
        said = [
            f"{figures['policies']} policies, {optimised} of them from searches; "
            f"{sum(figures['evaluations'].values())} evaluations ({figures['diverged']} diverged), "
            f"{figures['core_hours']:.2f} core-hours."
        ]
        for row in self._rows(self.noise, TESTED, "test_accuracy"):
            said.append(
                f"Test accuracy of {row['among']} policies: one run scatters by "
                f"{row['run_sd']:.2f} points (standard deviation), true policies differ by "
                f"{row['policy_sd']:.2f}; {tables.share(row['share'])} of the variance of one run "
                "is due to the policy."
            )
        frame = self.table.frame
        lost = frame[frame["diverged"]].drop_duplicates(["policy", "fidelity"])["fidelity"]
        if len(lost):
            counts = ", ".join(f"{n} of {name}" for name, n in lost.value_counts().items())
            said.append(f"Policies with a diverged child are left out of the noise: {counts}.")
        return said

    @staticmethod
    def _rows(frame: pd.DataFrame, fidelity: str, measure: str) -> list[dict[str, Any]]:
        if frame.empty:
            return []
        found = frame[(frame["fidelity"] == fidelity) & (frame["measure"] == measure)]
        return found.to_dict("records")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON data, with numbers of four digits."""
    return json.loads(frame.round(4).to_json(orient="records"))


# From journal to table -------------------------------------------------------------------------


def table_of(run: Run) -> Table:
    """The table of a run of `augsearch tabulate`, finished or not; failed evaluations are left out.

    Raises InputError for a run in which nothing is finished, or that was tampered with.
    """
    done = run.evaluated[(run.evaluated["status"] == "ok") & run.evaluated["accuracy"].notna()]
    if done.empty or run.manifest is None:
        raise run.unfinished("at least one result")
    texts = {each: policy_text(augmentation_of(each)) for each in done["policy"].unique()}
    label = done["label"].str.partition(": ")
    tested = done["part"] == "test"
    frame = pd.DataFrame(
        {
            "policy": [texts[each] for each in done["policy"]],
            "family": label[0],
            "source": label[2],
            "fidelity": done["scorer"],
            "seed": done["seed"],
            # Of a diverged child too: what guessing gives is the same on all images.
            **{name: validated(done, name).fillna(done[name]) for name in METRICS},
            "test_accuracy": done["accuracy"].where(tested),
            "seconds": done["seconds"],
            "image_passes": done["image_passes"].astype("int64"),
            "diverged": done["diverged"],
        },
        columns=list(COLUMNS),
    ).reset_index(drop=True)
    task = {name: value for name, value in run.config["task"].items() if name != "data"}
    parts = {part: len(rows) for part, rows in run.manifest.parts.items()}
    return Table(
        frame,
        {**task, "images": parts},
        run.manifest.hash,
        _fidelities(run),
        {"python": run.environment.get("python", ""), **run.environment.get("packages", {})},
    )


def _fidelities(run: Run) -> dict[str, Any]:
    child = run.config["evaluator"]
    return {
        name: {
            "seeds": about["seeds"],
            "part": about["part"],
            "evaluator": {
                **child, **{part: about[part] for part in ("kind", "epochs", "options")},
            },
        }
        for name, about in run.option("settings", "fidelities", {}).items()
    }  # fmt: skip


# Figures ---------------------------------------------------------------------------------------


def analyse_tabulation(table: Table) -> Tabulation:
    """Noise and rank correlations of a table; groups of few policies are left out."""
    noise, correlations = [], []
    for among, chosen in AMONG.items():
        frame = table.frame if chosen is None else _of(table.frame, chosen)
        sound, ranked = _sound(frame), _diverged_last(frame)
        tested = _wide(frame, TESTED, "test_accuracy")
        for fidelity in table.fidelities:
            for measure in (*METRICS, *(["test_accuracy"] if fidelity == TESTED else [])):
                row = {"fidelity": fidelity, "measure": measure, "among": among}
                values = _wide(sound, fidelity, measure)
                if values.shape[0] >= FEWEST and values.shape[1] > 1:
                    noise.append({**row, **_noise(values, measure)})
                if measure != "test_accuracy":
                    scores = _wide(ranked, fidelity, measure)
                    found = _correlation(scores, tested, own=fidelity == TESTED)
                    correlations += [{**row, **found}] if found else []
    return Tabulation(table, pd.DataFrame(noise), pd.DataFrame(correlations))


def _of(frame: pd.DataFrame, families: tuple[str, ...]) -> pd.DataFrame:
    return frame[frame["family"].isin(families)]


def _wide(frame: pd.DataFrame, fidelity: str, measure: str) -> pd.DataFrame:
    """[policies, seeds], of the policies that have all seeds."""
    rows = frame[frame["fidelity"] == fidelity]
    return rows.pivot(index="policy", columns="seed", values=measure).dropna()


def _sound(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the policies of which a child diverged, at the fidelity where it did."""
    return frame[~frame.groupby(["policy", "fidelity"])["diverged"].transform("any")]


def _diverged_last(frame: pd.DataFrame) -> pd.DataFrame:
    """A diverged child is below every child that trained, whatever guessing would give it."""
    values = frame[list(METRICS)].mask(frame["diverged"], -np.inf)
    return frame.assign(**{name: values[name] for name in METRICS})


def _noise(values: pd.DataFrame, measure: str) -> dict[str, Any]:
    scale = 100 if "accuracy" in measure else 1  # percentage points, or nats
    floor = noise_floor(scale * values.to_numpy())
    total = floor.run_sd**2 + floor.policy_sd**2
    return {
        "policies": len(values),
        "run_sd": float(floor.run_sd),
        "policy_sd": float(floor.policy_sd),
        "share": float(floor.policy_sd**2 / total) if total else np.nan,
    }


def _correlation(scores: pd.DataFrame, tested: pd.DataFrame, own: bool) -> dict[str, Any] | None:
    """own: the scores are of the tested children themselves: none may predict its own test."""
    common = scores.index.intersection(tested.index)
    scores, tested = scores.loc[common], tested.loc[common]
    if len(common) < FEWEST or (own and tested.shape[1] < 2):
        return None
    others = [tested.drop(columns=seed) if own else tested for seed in scores]
    reference = np.column_stack([each.mean(axis=1) for each in others])
    found = rank_correlation(scores.to_numpy(), reference)
    return {"policies": found.n, "rho": found.rho, "low": found.low, "high": found.high}


# Report ----------------------------------------------------------------------------------------


def readable_correlations(found: Tabulation) -> pd.DataFrame:
    """The correlations for people: a column for each group of policies."""
    frame = found.correlations
    costs = found.table.frame.groupby("fidelity")["image_passes"].mean()
    rows = []
    for (fidelity, measure), group in frame.groupby(["fidelity", "measure"], sort=False):
        among = group.set_index("among")
        rows.append(
            {
                "fidelity": fidelity,
                "measure": tables.measure(measure),
                "cost": tables.part(costs[fidelity] / costs[TESTED]),
                **{
                    name: f"{tables.number(among['rho'].get(name))} "
                    + tables.interval(among["low"].get(name), among["high"].get(name))
                    for name in AMONG
                    if name in set(frame["among"])
                },
            }
        )
    return pd.DataFrame(rows)


def readable_noise(found: Tabulation) -> pd.DataFrame:
    """The noise for people."""
    frame = found.noise
    return pd.DataFrame(
        {
            "fidelity": frame["fidelity"],
            "measure": frame["measure"].str.replace("_", " "),
            "among": frame["among"],
            "policies": frame["policies"],
            "one run": tables.numbers(frame["run_sd"], 3),
            "between policies": tables.numbers(frame["policy_sd"], 3),
            "share": frame["share"].map(tables.share),
        }
    )


def _write_table(found: Tabulation, directory: Path) -> None:
    content = encode_table(found.table)
    write_atomically(directory / TABLE_NAME, content)
    figures = {"sha256": digest(content), "bytes": len(content), **found.figures}
    write_json(directory / FIGURES_NAME, {**found.table.about(), **figures})


def tabulation_report(run: Run) -> Report:
    """The report of a table, finished or not."""
    found = analyse_tabulation(table_of(run)) if len(run.evaluated) else None
    state = Text(sections.state(len(run.trials), evaluations(run)))
    nothing = Text("Nothing is measured yet.")
    return Report(
        title=f"A table of policies on {run.task}",
        run=run,
        name="tabulate.md",
        sections=(
            section("", state, Sentences(tuple(found.sentences)) if found else nothing),
            *(_sections(found) if found else ()),
            *sections.closing(run),
        ),
        data={"correlations.csv": found.correlations, "noise.csv": found.noise} if found else {},
        text=found.text if found else "",
        further=partial(_write_table, found) if found else None,
    )


def _sections(found: Tabulation) -> list[Section]:
    families = found.table.frame.drop_duplicates("policy").value_counts(
        ["family", "source"], sort=False
    )
    made = [section("Policies", document.Table(families.reset_index(name="policies")))]
    if len(found.correlations):
        shown = document.Table(readable_correlations(found), METHOD)
        made.append(section("What cheap fidelities predict", shown))
    if len(found.noise):
        made.append(section("Noise", document.Table(readable_noise(found), NOISE)))
    return made
