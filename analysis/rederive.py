"""`augsearch rederive`: the policy found beside the published ImageNet policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis import compare as comparison
from analysis import plots, tables
from policies import IMAGENET, Policy

from .composition import PolicyStatistics, histogram_overlap, policy_statistics
from .runs import load_run
from .search import write_report

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
    """Write `directory`/rederive.md and rederive.png from the runs in search/ and compare/."""
    directory = Path(directory)
    run = load_run(directory / "search")
    write_report(run.directory)
    found = run.policy
    if found is None:
        raise run.unfinished("a finished search")
    ours, theirs = policy_statistics([found]), policy_statistics([IMAGENET])
    plots.policy_histograms(
        {"found": ours, "published ImageNet policy": theirs}, directory / "rederive.png"
    )
    parts = ["# The ImageNet policy, searched anew", _overlap(found, ours, theirs)]
    parts.append("![operations, probabilities and magnitudes](rederive.png)")
    parts.append(tables.markdown(_operations(ours, theirs)))
    compared = directory / "compare"
    if compared.is_dir():
        result = comparison.compare_arms(load_run(compared))
        parts += [
            "## Children trained from scratch",
            tables.markdown(comparison.readable(result)),
            "\n".join(f"- {sentence}" for sentence in result.sentences),
        ]
    parts.append(f"The search: [report](search/report.md), {len(run.trials)} evaluations.")
    return tables.write_text(directory / "rederive.md", "\n\n".join(parts))


def _overlap(found: Policy, ours: PolicyStatistics, theirs: PolicyStatistics) -> str:
    overlap = histogram_overlap(ours.operations, theirs.operations)
    low, high = chance_overlap(len(found))
    verdict = "more than" if overlap > high else "less than" if overlap < low else "as much as"
    return (
        f"The two policies share {100 * overlap:.0f} % of their histogram of operations; random "
        f"policies of {len(found)} sub-policies share {100 * low:.0f} to {100 * high:.0f} % with "
        f"the published one (95 % of them). So they agree {verdict} chance would."
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
