"""How good is the policy each searcher ends with, at equal evaluations? On planted landscapes.

    python -m tests.benchmarks.controller [--seeds 10] [--evaluations 500]

Landscapes (`PlantedLandscape`) have the signal and noise of the real proxy:
policies of 5 uniform sub-policies scatter by 1.5 points, one evaluation by 0.8. All values are true
ones, without noise, in points above the mean uniform policy. Columns: the policy of 5 with the
highest (noisy) reward; the paper's export (the best 5 concatenated); sub-policies chosen one by
one, 25 and 10 of them; the mean candidate of the last fifth of the search; and the searcher's own
CPU time per evaluation. Differences to random search are paired by seed, with Student's 95 %
intervals.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats
from tabulate import tabulate

from policies import Policy
from proxy_tasks import EvaluatorConfig
from proxy_tasks.evaluators.planted import PlantedLandscape
from search import PolicySpace, Searcher, make_searcher
from search.studies.selection import concatenate_best, fit_model, one_by_one
from tests.benchmarks.machine import keep

SPACE = PolicySpace()
SEARCHERS: dict[str, tuple[str, dict]] = {
    "random": ("random", {}),
    "tpe": ("tpe", {}),
    "ppo paper": ("ppo", {"preset": "paper"}),
    # What the preset "cpu" adds, one after the other.
    "+ rate, entropy, unit advantages": ("ppo", {
        "batch_size": 20, "subpolicies": "joint", "credit": "policy", "imagined": 0,
    }),
    "+ sub-policies independent": ("ppo", {"batch_size": 20, "credit": "policy", "imagined": 0}),
    "+ credit by sub-policy": ("ppo", {"batch_size": 20, "imagined": 0}),
    "+ imagined": ("ppo", {"batch_size": 20}),
    "ppo cpu (+ growing batches)": ("ppo", {}),
}  # fmt: skip


def landscape_of(seed: int) -> PlantedLandscape:
    return PlantedLandscape(EvaluatorConfig(kind="synthetic"), landscape=seed)


def search(make: Callable[[int], Searcher], seed: int, evaluations: int) -> dict[str, float]:
    landscape = landscape_of(seed)
    searcher = make(seed)
    evaluated, true, own = [], [], 0.0
    for _ in range(evaluations):
        started = time.process_time()
        candidate = searcher.ask()
        own += time.process_time() - started
        evaluation = landscape.evaluate(candidate.augmentation, candidate.seed)
        started = time.process_time()
        searcher.tell(candidate, evaluation)
        own += time.process_time() - started
        evaluated.append((candidate.augmentation, evaluation.reward))
        true.append(landscape.value(candidate.augmentation))

    def points(value: float) -> float:
        return 100 * (value - landscape.truth.base)

    model = fit_model(evaluated, SPACE)
    chosen = one_by_one(evaluated, model, 25, 0, SPACE.ops, seed=0)
    return {
        "best of 5": points(landscape.value(concatenate_best(evaluated, 1))),
        "best 5 joined": points(landscape.value(concatenate_best(evaluated))),
        "25 one by one": points(landscape.value(Policy(chosen))),
        "10 one by one": points(landscape.value(Policy(chosen[:10]))),
        "last fifth": points(float(np.mean(true[-evaluations // 5 :]))),
        "own ms": 1000 * own / evaluations,
    }


def run(seeds: int, evaluations: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(means, paired differences to random search as text), one row per searcher."""
    results: dict[str, pd.DataFrame] = {}
    for label, (name, options) in SEARCHERS.items():
        rows = [
            search(lambda s, n=name, o=options: make_searcher(n, SPACE, s, o), seed, evaluations)
            for seed in range(seeds)
        ]
        results[label] = pd.DataFrame(rows)
        print(f"{label}: done", flush=True)
    means = pd.DataFrame({label: frame.mean() for label, frame in results.items()}).T
    random = results.pop("random")
    differences = {}
    for label, frame in results.items():
        gain = (frame - random).drop(columns="own ms")
        half = stats.t.ppf(0.975, seeds - 1) * gain.std(ddof=1) / seeds**0.5
        differences[label] = {
            column: f"{gain[column].mean():+.2f} ± {half[column]:.2f}" for column in gain
        }
    return means, pd.DataFrame(differences).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=500)
    arguments = parser.parse_args()
    means, differences = run(arguments.seeds, arguments.evaluations)
    best = [landscape_of(seed) for seed in range(arguments.seeds)]
    optimum = np.mean([100 * (one.value(one.optimum) - one.truth.base) for one in best])
    print(
        f"\nTrue points above the mean uniform policy, {arguments.evaluations} evaluations, mean "
        f"of {arguments.seeds} seeds (the best possible policy of 5: {optimum:.2f})"
    )
    print(tabulate(means, headers="keys", floatfmt=".2f"))
    print("\nDifference to random search, 95 % interval")
    print(tabulate(differences, headers="keys"))
    kept = {"points": means.to_dict("index"), "over random": differences.to_dict("index")}
    keep("controller", kept, list(range(arguments.seeds)))


if __name__ == "__main__":
    main()
