"""`augsearch fidelity`: does a cheap score rank policies as training from scratch does?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from proxy_tasks.evaluators.config import REWARDS
from proxy_tasks.run_format import FOUND_LABEL, FROM_SCRATCH, RANDOM_LABEL

from . import plots, sections, tables
from .document import Block, Picture, Report, Section, Sentences, Table, Text, section
from .ranks import rank_ceiling, rank_correlation, spearman
from .runs import Run, computed, in_children, passes_of_one, validated
from .statistics import FEWEST, MOST_SEEDS, NoiseFloor, noise_floor, seeds_needed

TOP = 5  # candidates that an evaluation likes best
METHOD = (
    "ρ: Spearman's rank correlation over policies with from-scratch test accuracy averaged over "
    "other seeds; interval: percentile bootstrap over policies. A child's own seed is left out of "
    "what judges it, so from scratch is judged by one child fewer and its ρ is a little low."
)
DIFFERENCE = 0.5  # percentage points, the gap for which the seeds needed are reported


@dataclass(frozen=True)
class Fidelity:
    """`table`: one row per evaluator and reward with

    seconds, image_passes (means per evaluation), cost (share of a from-scratch child's passes),
    agreement (mean rank correlation between two evaluation seeds; NaN with one),
    rho, low, high (one evaluation; mean over seeds, bootstrap over policies),
    rho_mean (mean of all evaluation seeds), seeds, policies.

    `regions`: the same evaluators and rewards where it matters (see `_regions`).

    `reference`: [policies, seeds] from-scratch test accuracy in percent. `noise`: of those of its
    policies of which no child diverged; None where they are fewer than 8. `diverged`: the others.
    `few`: evaluators with too few policies to be in the table. `lost`: policies that lack a child.
    """

    table: pd.DataFrame
    reference: pd.DataFrame
    noise: NoiseFloor | None
    regions: pd.DataFrame
    diverged: int = 0
    few: tuple[str, ...] = ()
    lost: int = 0

    @property
    def text(self) -> str:
        """Table and words for a terminal of 80 columns."""
        return "\n\n".join([tables.plain(compact(self)), tables.wrapped(self.sentences)])

    @property
    def sentences(self) -> list[str]:
        """What the table says, in words."""
        policies, seeds = self.reference.shape
        best = self.reference.mean(axis=1)
        said = [
            f"{policies} policies, {seeds} from-scratch children each. Mean test "
            f"accuracy from {best.min():.1f} % ({best.idxmin()}) to {best.max():.1f} % "
            f"({best.idxmax()})."
        ]
        ceiling = rank_ceiling(self.reference.to_numpy())
        said.append(
            f"A perfect predictor would correlate with the mean of {seeds} seeds at about "
            f"{tables.number(ceiling)}."
            if ceiling > 0
            else f"Two seeds do not rank these policies alike, so the mean of {seeds} says nothing "
            "of how well evaluators rank them: take more --seeds, or policies that differ more."
        )
        if self.noise is not None:
            sd = self.noise.run_sd
            needed = tables.about(seeds_needed(np.sqrt(2) * sd, DIFFERENCE), MOST_SEEDS)
            said += [
                f"Noise floor: one run scatters by {sd:.2f} points (standard deviation), "
                + (
                    f"true policies differ by {self.noise.policy_sd:.2f}."
                    if self.noise.policy_sd > 0
                    else "in which any differences between these policies are lost."
                ),
                f"To tell two policies {DIFFERENCE} points apart takes {needed} seeds each (paired "
                "t test, 80 % power).",
            ]
        if self.diverged:
            said.append(
                f"{self.diverged} policies with a diverged child are left out of the noise."
            )
        if self.lost:
            said.append(f"{self.lost} policies that lack a child are left out.")
        if self.few:
            said.append(
                f"Without as many as {FEWEST} policies that have all evaluations, and so not in "
                f"the table: {', '.join(self.few)}."
            )
        return said


def analyse_fidelity(run: Run) -> Fidelity:
    """The fidelity table of a run folder of `augsearch fidelity`.

    A score with seed s is compared with the test accuracy averaged over all reference seeds except
    s, so that no child predicts itself. Policies for which any evaluation failed are left out of
    the evaluator concerned.
    """
    trials = run.trials
    children = _children(run)
    reference = _reference(run)
    if not _enough(reference):
        raise run.unfinished(f"at least {FEWEST} policies with all their children")
    rows, regions = [], []
    for evaluator in dict.fromkeys(trials["scorer"]):
        mine = trials[trials["scorer"] == evaluator]
        for reward in REWARDS:
            scores = _wide(mine, _validation(mine, reward)).dropna()
            scores = scores[scores.index.isin(reference.index)]
            if len(scores) < FEWEST:
                continue
            rows.append(
                {
                    "evaluator": evaluator,
                    "reward": reward,
                    "seconds": computed(mine)["seconds"].mean(),
                    "image_passes": passes_of_one(mine),
                    "cost": in_children(passes_of_one(mine), passes_of_one(children)),
                    **_correlations(scores, reference.loc[scores.index]),
                }
            )
            regions.append(
                {"evaluator": evaluator, "reward": reward, **_regions(scores, reference)}
            )
    sound = reference[~reference.index.isin(children["label"][children["diverged"]])]
    noise = noise_floor(sound.to_numpy()) if len(sound) >= FEWEST else None
    diverged = len(reference) - len(sound)
    known = {row["evaluator"] for row in rows}
    few = tuple(each for each in dict.fromkeys(trials["scorer"]) if each not in known)
    lost = children["label"].nunique() - len(reference)
    return Fidelity(
        pd.DataFrame(rows), reference, noise, pd.DataFrame(regions), diverged, few, lost
    )


def _regions(scores: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    """How a score ranks random candidates among themselves, and policies of searches.

    random, random_low, random_high: rank correlation of one evaluation among random candidates
    alone; found, found_low, found_high: among policies that searches found. top: mean test
    accuracy in percent, of children with other seeds, of the 5 random candidates that an
    evaluation likes best; any: of 5 random candidates, whichever. NaN where there are too few.
    """
    found: dict[str, Any] = {}
    for name, prefix in (("random", RANDOM_LABEL), ("found", FOUND_LABEL)):
        some = scores[scores.index.str.startswith(prefix)]
        rho = _correlations(some, reference.loc[some.index]) if len(some) >= FEWEST else {}
        for column, of in (("", "rho"), ("_low", "low"), ("_high", "high")):
            found[f"{name}{column}"] = rho.get(of, np.nan)
    some = scores[scores.index.str.startswith(RANDOM_LABEL)]
    found["top"] = found["any"] = np.nan
    if len(some) >= 2 * TOP:
        others = reference.loc[some.index]
        means = [others.drop(columns=seed, errors="ignore").mean(axis=1) for seed in some.columns]
        found["top"] = float(
            np.mean(
                [
                    mean[some[seed].nlargest(TOP).index].mean()
                    for seed, mean in zip(some.columns, means, strict=True)
                ]
            )
        )
        found["any"] = float(np.mean([mean.mean() for mean in means]))
    return found


def _children(run: Run) -> pd.DataFrame:
    return run.trials[(run.trials["scorer"] == FROM_SCRATCH) & (run.trials["part"] == "test")]


def _reference(run: Run) -> pd.DataFrame:
    """[policies, seeds] test accuracy in percent, of the policies that have all their children."""
    children = _children(run)
    return 100 * _wide(children, children["accuracy"]).dropna()


def _enough(reference: pd.DataFrame) -> bool:
    return reference.shape[0] >= FEWEST and reference.shape[1] >= 2


def _validation(trials: pd.DataFrame, reward: str) -> pd.Series:
    """The score on validation images: of a tested child from its details, else the metric itself.

    A diverged child ranks below every child that trained, whatever its metrics are.
    """
    scores = validated(trials, reward).fillna(trials[reward])
    return scores.mask(trials["diverged"], -np.inf)


def _wide(trials: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    return trials.assign(value=values).pivot(index="label", columns="seed", values="value")


def _correlations(scores: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    others = np.column_stack(
        [reference.drop(columns=seed, errors="ignore").mean(axis=1) for seed in scores.columns]
    )
    single = rank_correlation(scores.to_numpy(), others)
    # The mean over all evaluation seeds has seen every seed it shares with the reference, so the
    # reference for it is what no evaluation used, or (from scratch itself) does not exist.
    unseen = reference.drop(columns=scores.columns, errors="ignore")
    averaged = (
        float(spearman(scores.mean(axis=1).to_numpy(), unseen.mean(axis=1).to_numpy()))
        if unseen.shape[1] and scores.shape[1] > 1
        else np.nan
    )
    table = scores.to_numpy()
    pairs = [
        float(spearman(table[:, a], table[:, b])) for a, b in combinations(range(table.shape[1]), 2)
    ]
    return {
        "agreement": float(np.mean(pairs)) if pairs else np.nan,
        "rho": single.rho,
        "low": single.low,
        "high": single.high,
        "rho_mean": averaged,
        "seeds": scores.shape[1],
        "policies": single.n,
    }


def readable(fidelity: Fidelity) -> pd.DataFrame:
    """The table for people, cheapest evaluator first."""
    table = fidelity.table.sort_values(["cost", "evaluator"], kind="stable")
    return pd.DataFrame(
        {
            "evaluator": table["evaluator"],
            "reward": table["reward"].str.replace("_", " "),
            "seconds": table["seconds"].map(tables.number),
            "cost in children": table["cost"].map(tables.part),
            "ρ of one evaluation": table["rho"].map(tables.number),
            "95 % interval": tables.intervals(table["low"], table["high"]),
            "ρ of the mean": [
                f"{tables.number(rho)} ({seeds} seeds)" if np.isfinite(rho) else "–"
                for rho, seeds in zip(table["rho_mean"], table["seeds"], strict=True)
            ],
            "agreement of two seeds": table["agreement"].map(tables.number),
        }
    )


def compact(fidelity: Fidelity) -> pd.DataFrame:
    """The columns of `readable` that a terminal has room for."""
    table = fidelity.table.sort_values(["cost", "evaluator"], kind="stable")
    return pd.DataFrame(
        {
            "evaluator": table["evaluator"],
            "reward": table["reward"].map(tables.measure),
            "cost": table["cost"].map(tables.part),
            "ρ": table["rho"].map(tables.number),
            "95 % interval": tables.intervals(table["low"], table["high"]),
            "ρ of mean": table["rho_mean"].map(tables.number),
        }
    )


def fidelity_report(run: Run) -> Report:
    """The report of a fidelity study, finished or not."""
    fidelity = analyse_fidelity(run) if _enough(_reference(run)) else None
    policies, seeds = run.number("settings", "policies"), run.number("settings", "seeds")
    policies += len(run.choices("policy"))
    children = int((run.trials["scorer"] == FROM_SCRATCH).sum())
    state = Text(sections.state(children, policies * seeds, "children from scratch"))
    if fidelity is None:
        counts = run.evaluated.groupby("scorer").size()
        known = ", ".join(f"{count} by {scorer}" for scorer, count in counts.items()) or "none"
        found = [section("", state, Text(f"Too few for a correlation. Evaluations: {known}."))]
    else:
        found = [section("", state, *_blocks(fidelity)), _where(fidelity), _ranking(fidelity)]
    return Report(
        title=f"Fidelity on {run.task}",
        run=run,
        name="fidelity.md",
        sections=(
            *found,
            *sections.closing(run),
        ),
        data={
            "fidelity.csv": fidelity.table,
            "reference.csv": fidelity.reference,
            "regions.csv": fidelity.regions,
        }
        if fidelity
        else {},
        text=fidelity.text if fidelity else "",
    )


def _blocks(fidelity: Fidelity) -> list[Block]:
    return [
        Sentences(tuple(fidelity.sentences)),
        Picture(
            "fidelity",
            "fidelity against cost",
            lambda path: plots.fidelity_cost(fidelity.table, path),
        ),
        Table(readable(fidelity), METHOD),
    ]


def _where(fidelity: Fidelity) -> Section:
    """Ranking among random candidates alone, and where searches end."""
    title, regions = "Where it matters", fidelity.regions
    if regions.empty or regions[["random", "found", "top"]].isna().all(axis=None):
        return section(title)
    words = (
        "The table above also holds policies that differ a lot (none, published ones), which "
        "flatters. Here: one evaluation among random candidates of 5 sub-policies alone, among "
        "policies that searches found (--policy), and the mean test accuracy of the 5 random "
        "candidates that an evaluation likes best beside that of any 5."
    )
    table = pd.DataFrame(
        {
            "evaluator": regions["evaluator"],
            "reward": regions["reward"].str.replace("_", " "),
            "ρ, random": regions["random"].map(tables.number),
            "95 %": tables.intervals(regions["random_low"], regions["random_high"]),
            "ρ, found": regions["found"].map(tables.number),
            "95 % ": tables.intervals(regions["found_low"], regions["found_high"]),
            "best 5 (%)": regions["top"].map(tables.number),
            "any 5 (%)": regions["any"].map(tables.number),
        }
    )
    return section(title, Text(words), Table(table))


def _ranking(fidelity: Fidelity) -> Section:
    means = fidelity.reference.mean(axis=1).sort_values(ascending=False)
    ranking = pd.DataFrame({"policy": means.index, "test accuracy (%)": means.map(tables.number)})
    return section("From-scratch test accuracy", Table(ranking))
