"""The report of `augsearch rederive`: the policy found beside the published ImageNet policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from policies import IMAGENET, PUBLISHED, Policy
from proxy_tasks.run_format import CONFIG_NAME

from . import plots, sections, tables
from .compare import comparison_blocks, comparison_so_far, report_on
from .composition import PolicyStatistics, histogram_overlap, policy_statistics
from .document import Part, Picture, Report, Section, Table, Text, section, write
from .runs import Run, load_run
from .search import policy_section, search_report

DRAWS = 2000


def chance_overlap(subpolicies: int, operations: int = 2, seed: int = 0) -> tuple[float, float]:
    """95 % range of the overlap with the published policy that a random policy has.

    Such a policy has `subpolicies` x `operations` of the paper's 16 operations, each with one of
    the 11 probabilities: what "no agreement" looks like.
    """
    published = policy_statistics([IMAGENET]).operations.to_numpy()
    rng = np.random.default_rng(seed)
    count = subpolicies * operations
    names = rng.integers(len(published), size=(DRAWS, count))
    weights = rng.integers(11, size=(DRAWS, count)) / 10
    used = np.zeros((DRAWS, len(published)))
    np.add.at(used, (np.arange(DRAWS)[:, None], names), weights)
    # A policy that applies nothing at all has no histogram, and shares nothing.
    shares = used / np.maximum(used.sum(axis=1, keepdims=True), 1e-9)
    low, high = np.quantile(np.minimum(shares, published).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def write_rederivation(directory: str | Path) -> Path:
    """Write the reports of the runs in search/ and compare/, and rederive.md that joins them."""
    return write(rederivation_report(load_run(directory)))


def rederivation_report(run: Run) -> Report:
    """The report of a re-derivation, finished or not."""
    stages = {stage.kind: stage for stage in _stages(run)}
    search, compared = stages.get("search"), stages.get("compare")
    evaluations = run.number("settings", "evaluations")
    done = len(search.trials) if search else 0
    parts = [section("", Text(sections.state(done, evaluations, "evaluations of the search")))]
    if search and search.policy:
        parts += [_agreement(search.policy), policy_section(search, "The policy found")]
    else:
        parts.append(section("", Text("The search has not exported a policy yet.")))
    if compared:
        parts.append(_children(compared))
    if search:
        parts += [
            section("The search", Text(f"{done} evaluations."), Part(search_report(search))),
            sections.cost_section(search),
        ]
    parts += [sections.data_section(run), sections.how_section(run)]
    return Report(
        title="The ImageNet policy, searched anew",
        run=run,
        name="rederive.md",
        sections=tuple(parts),
    )


def _children(compared: Run) -> Section:
    comparison = comparison_so_far(compared)
    return section(
        "Children trained from scratch",
        Text(comparison.between("imagenet", comparison.table["arm"].iloc[-1]))
        if comparison
        else None,
        *comparison_blocks(comparison),
        Part(report_on(compared, comparison)),
    )


def _stages(run: Run) -> list[Run]:
    """The runs in this folder that were begun."""
    folders = [run.directory / name for name in ("search", "compare")]
    return [load_run(folder) for folder in folders if (folder / CONFIG_NAME).exists()]


def _agreement(found: Policy) -> Section:
    ours, theirs = policy_statistics([found]), policy_statistics([IMAGENET])
    return section(
        "Agreement with the published policy",
        Text(_overlap(found, ours, theirs)),
        Picture(
            "rederive",
            "operations, probabilities and magnitudes",
            lambda path: plots.policy_histograms(
                {"found": ours, "published ImageNet policy": theirs}, path
            ),
        ),
        Table(_operations(ours, theirs), "Shares count how often an operation is applied."),
    )


def _overlap(found: Policy, ours: PolicyStatistics, theirs: PolicyStatistics) -> str:
    overlap = histogram_overlap(ours.operations, theirs.operations)
    low, high = chance_overlap(len(found), max(map(len, found)))
    verdict = "more than" if overlap > high else "less than" if overlap < low else "as much as"
    others = ", ".join(
        f"that for {name.upper()} {100 * histogram_overlap(shares, theirs.operations):.0f} %"
        for name, policy in PUBLISHED.items()
        if policy != IMAGENET
        for shares in [policy_statistics([policy]).operations]
    )
    return (
        f"The policy found and the published one share {100 * overlap:.0f} % of their histogram of "
        f"applied operations. Random policies of {len(found)} sub-policies share "
        f"{100 * low:.0f} to {100 * high:.0f} % with the published one (95 % of them); of the "
        f"other published policies {others}. So the two agree {verdict} chance would. One search: "
        "another would find another policy."
    )


def _operations(ours: PolicyStatistics, theirs: PolicyStatistics) -> pd.DataFrame:
    order = theirs.operations.sort_values(ascending=False, kind="stable").index
    return pd.DataFrame(
        {
            "operation": list(order),
            "found (%)": [tables.number(100 * ours.operations[name], 0) for name in order],
            "published (%)": [tables.number(100 * theirs.operations[name], 0) for name in order],
        }
    )
