"""`augsearch compare`: children trained from scratch under each arm, with the same seeds.

Seed s gives every arm the same initial weights and the same order of images, so differences are
taken within seeds. The accuracy is that on the test part, which no search has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.errors import InputError
from proxy_tasks import EvaluatorConfig
from search.engine.loop import RunResult
from search.engine.pool import PoolConfig
from search.searchers.fixed import FixedSearcher
from search.trial import Candidate

from .arms import parse_arms
from .study import StudyConfig, TaskConfig, run_study


def run_compare(
    policies: Sequence[str],
    out: str,
    *,
    task: TaskConfig,
    seeds: int = 5,
    seed: int = 0,
    evaluator: EvaluatorConfig | None = None,
    pool: PoolConfig | None = None,
    resume: bool = False,
    progress: bool = True,
) -> RunResult:
    """Train `seeds` children (seeds seed, seed + 1, ...) under each arm of `policies`.

    policies: see `arms.FORMS`; the first is the one the others are compared with.
    evaluator: from-scratch training with the task's preset by default.
    Writes the run folder `out`; `analysis.write_comparison(out)` makes the tables.
    Raises InputError before anything is written for a user's mistake.
    """
    if seeds < 1:
        raise InputError("seeds", "must be at least 1", seeds, "use 5, and at least 3")
    if seed < 0:
        raise InputError("seed", "must be at least 0", seed, "use 0")
    numbers = range(seed, seed + seeds)
    arms = parse_arms(policies, numbers)
    config = StudyConfig(
        "compare",
        out,
        task,
        {"main": evaluator or EvaluatorConfig(preset=task.preset)},
        [arm.to_json() for arm in arms],
        {"seeds": seeds, "seed": seed},
        pool or PoolConfig(),
    )
    candidates = [
        Candidate(batch, slot, arm.augmentations[batch], number, part="test", label=arm.name)
        for batch, number in enumerate(numbers)
        for slot, arm in enumerate(arms)
    ]
    return run_study(
        config, lambda _: FixedSearcher(candidates), task.build(), resume=resume, progress=progress
    )
