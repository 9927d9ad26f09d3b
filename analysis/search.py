"""The report of `augsearch search`: what was found, how the search went, what it has cost."""

from __future__ import annotations

import pandas as pd

from policies.ops import PAPER_OPS
from policies.policy import Policy
from proxy_tasks.run_format import FINAL

from . import plots, sections, tables
from .asked import evaluations
from .composition import batch_entropies, histogram_overlap, policy_statistics
from .document import Picture, Report, Section, Sentences, Table, Text, section
from .runs import Run, dear, sound
from .spending import choice_section, spending_section, state
from .statistics import mean_interval

TOP = 10
FEW = 5  # evaluations of which a mean is worth stating


def search_report(run: Run) -> Report:
    """The report of a search."""
    own = run.of(dear(run.trials))
    return Report(
        title=f"Search on {run.task}",
        run=run,
        name="report.md",
        sections=(
            section("", Sentences(tuple(_summary(run)))),
            spending_section(run),
            _curves(own),
            choice_section(run),
            policy_section(run, "Final policy"),
            _top(own),
            *sections.closing(run.with_stages(FINAL)),
        ),
    )


def _summary(run: Run) -> list[str]:
    trials, own = run.trials, dear(run.trials)
    duplicates = int((trials["status"] == "duplicate").sum())
    failed = int((trials["status"] == "failed").sum())
    lines = [_state(run)]
    if duplicates:
        lines.append(f"{duplicates} of them are repeats, taken from an earlier result.")
    if failed:
        lines.append(f"{failed} of them failed.")
    trained, diverged = sound(own), int(own["diverged"].sum())
    if diverged:
        lines.append(f"{diverged} children diverged; they rank below all that trained.")
    if len(trained):
        best = trained.loc[trained["reward"].idxmax()]
        lines.append(
            f"Best reward {best['reward']:.4f} (batch {best['batch']}, slot {best['slot']}). It is "
            "the largest of many noisy values and therefore optimistic; `augsearch compare` "
            "measures the policy on the test part."
        )
        tenth = max(FEW, len(trained) // 10)
        if len(trained) >= 2 * tenth:
            first, last = (
                mean_interval(part)
                for part in (trained["reward"].iloc[:tenth], trained["reward"].iloc[-tenth:])
            )
            lines.append(
                f"Mean reward of the first {tenth} evaluations {first.mean:.4f} "
                f"{tables.interval(first.low, first.high, 4)}, of the last {tenth} {last.mean:.4f} "
                f"{tables.interval(last.low, last.high, 4)}."
            )
        if len(trained) > 1 and trained["reward"].nunique() == 1:
            lines.append("All rewards are the same: they say nothing about the policies.")
    if run.chosen is None:
        lines.append("There is no policy.json: it is written when the search is complete.")
    return lines


def _state(run: Run) -> str:
    words = state(run)
    if words is None:
        return sections.state(len(run.trials), evaluations(run))
    if run.chosen is None:
        return f"Unfinished: {words}; `augsearch resume` goes on."
    return f"Complete: {len(run.trials)} evaluations, {words}."


def _curves(run: Run) -> Section:
    entropies = batch_entropies(run.trials, len(run.choices("ops") or PAPER_OPS))
    settled = len(entropies) >= 3
    reward = sections.reward_name(run)
    return section(
        "Reward",
        Picture("reward", "reward", lambda path: plots.reward_curve(run.trials, path, reward)),
        Text(
            "How far the searcher has settled: the entropy of what each batch drew, 1 for uniform "
            "draws."
        )
        if settled
        else None,
        Picture("diversity", "diversity", lambda path: plots.diversity_curve(entropies, path))
        if settled
        else None,
    )


def policy_section(run: Run, title: str) -> Section:
    """The exported policy: its composition, as a list to copy, and what it does to images."""
    if run.chosen is None:
        return section(title)
    shown = sections.shown(run.chosen)
    if not isinstance(run.chosen, Policy):
        return section(title, *shown)
    candidates = [Policy(rows) for rows in run.trials["policy"] if isinstance(rows, tuple)]
    groups = {f"final policy ({len(run.chosen)} sub-policies)": policy_statistics([run.chosen])}
    words = None
    if candidates:
        (final,) = groups.values()
        everyone = policy_statistics(candidates)
        groups[f"all {len(candidates)} candidates"] = everyone
        overlap = histogram_overlap(final.operations, everyone.operations)
        gained = (final.operations - everyone.operations).sort_values()
        words = Text(
            "Shares count how often an operation is applied. The final policy shares "
            f"{100 * overlap:.0f} % of its histogram of operations with all candidates. Most "
            f"gained: {_names(gained.iloc[::-1])}; most lost: {_names(gained)}."
        )
    return section(
        title,
        words,
        Picture(
            "histograms",
            "operations, probabilities and magnitudes",
            lambda path: plots.policy_histograms(groups, path),
        ),
        *shown,
    )


def _names(shares: pd.Series) -> str:
    return ", ".join(f"{name} ({value:+.0%})" for name, value in shares.iloc[:3].items())


def _top(run: Run) -> Section:
    best = sound(run.trials).sort_values("reward", ascending=False, kind="stable").head(TOP)
    if best.empty:
        return section("Best candidates")
    again = _again(run.trials)[best.index]
    table = {
        "batch, slot": [f"{row.batch}, {row.slot}" for row in best.itertuples()],
        "reward": best["reward"].map(lambda value: f"{value:.4f}"),
        "± (standard error)": tables.numbers(best["stderr"], 4),
        # A best candidate was chosen for its luck, too; the same policy's other results were not.
        "other seeds": again,
        "accuracy (%)": (100 * best["accuracy"]).map(tables.number),
        "policy": best["policy"].map(tables.policy),
    }
    if (again == tables.number(float("nan"))).all():
        del table["other seeds"]
    return section(f"Best {len(best)} candidates", Table(pd.DataFrame(table)))


def _again(trials: pd.DataFrame) -> pd.Series:
    """Mean reward of the other evaluations of each row's policy, as written; "diverged" where a
    child did."""
    fresh = sound(trials[trials["status"] == "ok"])
    groups = fresh["reward"].groupby(fresh["policy"].map(repr))
    total, count = groups.transform("sum"), groups.transform("count")
    others = (total - fresh["reward"]) / (count - 1).where(count > 1)
    diverged = trials["diverged"].groupby(trials["policy"].map(repr)).transform("any")
    written = others.reindex(trials.index).map(lambda value: tables.number(value, 4))
    return written.mask(diverged, "diverged")
