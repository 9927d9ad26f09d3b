"""A table in which everything is known: the planted landscape, measured as tabulate measures."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from policies import OPS, PAPER_OPS, Policy, RandAugment
from proxy_tasks import EvaluatorConfig, PlantedLandscape
from proxy_tasks.tables import COLUMNS, Table, policy_text
from search import PolicySpace, make_searcher
from search.studies.selection import concatenate_best
from search.testing import drive

NOISE = 0.006  # sd of one evaluation's accuracy
SEEDS = 2
# Fidelity -> (share of the differences that it sees, seconds, image passes).
FIDELITIES = {"scratch": (1.0, 10.0, 1000), "sharing-80": (0.8, 1.0, 100)}


@functools.cache
def landscape(seed: int = 0) -> PlantedLandscape:
    return PlantedLandscape(EvaluatorConfig(kind="synthetic"), landscape=seed)


@functools.cache
def planted_table(random: int = 300, late: int = 20) -> Table:
    """`random` random policies, all single operations, RandAugment's grid, and where searches end.

    late: policies of each of 4 searches. Two seeds of each policy at each fidelity.
    """
    rng = np.random.default_rng(0)
    policies = [("none", "", None)]
    policies += [("random-5x2", "", PolicySpace().sample(rng)) for _ in range(2 * random // 3)]
    policies += [("random-25", "", PolicySpace(25).sample(rng)) for _ in range(random // 3)]
    policies += [
        ("single", "", Policy([[(name, 1.0, m)]]))
        for name in PAPER_OPS
        for m in (range(10) if OPS[name].has_magnitude else (None,))
    ]
    policies += [("randaugment", "", RandAugment(n, m)) for n in (1, 2) for m in range(0, 31, 6)]
    for searcher in ("ppo", "thompson") if late else ():
        for seed in (101, 102):
            found = _ends(searcher, seed, late)
            policies += [("optimised", f"{searcher}, sharing-80", policy) for policy in found]
    rows = []
    for fidelity, (share, seconds, passes) in FIDELITIES.items():
        for text, (family, source, policy) in {policy_text(p[2]): p for p in policies}.items():
            value = landscape().value(policy)
            for seed in range(SEEDS):
                low, high = rng.normal(0, NOISE, 2)
                seen = float(np.clip(0.55 + share * (value - 0.55) + low, 0.1, 1))
                test = float(np.clip(value + high, 0.1, 1)) if fidelity == "scratch" else np.nan
                likelihoods = (2 * np.log(seen), np.log(seen))
                rows.append((text, family, source, fidelity, seed, seen, *likelihoods, test,
                             seconds, passes, False))  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    about = {name: {"seeds": SEEDS} for name in FIDELITIES}
    return Table(frame, {"name": "synthetic"}, "0" * 64, about, {"numpy": np.__version__})


def _ends(searcher: str, seed: int, count: int) -> list[Policy]:
    """Late candidates of a search, and what it would export in the course of it."""
    told = []

    def judge(candidate):
        evaluation = landscape().evaluate(candidate.augmentation, candidate.seed)
        told.append((candidate.augmentation, evaluation.reward))
        return evaluation

    drive(make_searcher(searcher, PolicySpace(), seed), 200, judge=judge)
    exports = [concatenate_best(told[:number]) for number in range(40, 201, 20)]
    return [*exports, *(policy for policy, _ in told[-count:])][-count - 4 :]
