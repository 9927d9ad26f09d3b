"""`augsearch fidelity`: cheap scores of many policies beside from-scratch test accuracy.

Every policy is trained from scratch with several seeds and tested (evaluator "from-scratch", part
"test"; the validation metrics of the same children are kept too), and scored on the validation
part by every cheap evaluator with seeds of its own. `analysis.write_fidelity` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from policies import PUBLISHED, RandAugment, TrivialAugmentWide
from policies.augmentations import encode_augmentation
from policies.errors import InputError
from proxy_tasks import Augmentation, EvaluatorConfig
from proxy_tasks.evaluators.base import check_choice
from search.engine.loop import RunResult
from search.engine.pool import PoolConfig
from search.searchers.fixed import FixedSearcher
from search.trial import Candidate

from .arms import random_policy
from .study import StudyConfig, TaskConfig, run_study

FROM_SCRATCH = "from-scratch"
FEWEST = 8  # policies below which no rank correlation is worth reporting
# First seed of the cheap evaluators: far from the children's, so that no draw is shared.
CHEAP_SEED = 1_000_000

CHEAP: dict[str, dict[str, Any]] = {
    "weight-sharing 80+8": {"kind": "weight-sharing"},
    "weight-sharing 40+8": {"kind": "weight-sharing", "options": {"shared_epochs": 40}},
    "weight-sharing 20+20": {
        "kind": "weight-sharing",
        "options": {"shared_epochs": 20, "finetune_epochs": 20},
    },
    "from scratch, 20 epochs": {"kind": "from-scratch", "epochs": 20},
    "density matching": {"kind": "density-matching"},
}


def study_policies(count: int, seed: int) -> dict[str, Augmentation]:
    """`count` augmentations by name: the known ones, and random policies for the rest.

    none, three published, RandAugment(2, 9) and TrivialAugment; of the random ones every sixth
    has 25 sub-policies and the others 5, the size of a candidate.
    """
    known: dict[str, Augmentation] = {
        "none": None,
        **PUBLISHED,
        "randaugment:2,9": RandAugment(2, 9),
        "trivialaugment": TrivialAugmentWide(),
    }
    if count < FEWEST:
        raise InputError("policies", f"must be at least {FEWEST}", count, "use 24 or more")
    found = dict(known)
    for index in range(count - len(known)):
        size = 25 if index % 6 == 5 else 5
        found[f"random {size} #{index}"] = random_policy(size, seed * 100_003 + index)
    return found


def cheap_evaluators(
    chosen: Mapping[str, Any] | None, preset: str, threads: int, device: str
) -> dict[str, EvaluatorConfig]:
    """Evaluators by the engine's names ("weight-sharing-40-8"); CHEAP when none are chosen.

    chosen: name -> fields of EvaluatorConfig. Raises InputError for unknown fields.
    """
    known = [field.name for field in fields(EvaluatorConfig)]
    configs = {}
    for name, values in (CHEAP if chosen is None else chosen).items():
        if not isinstance(values, Mapping):
            raise InputError(
                f"evaluators, {name}", "must be an object", values, '{"kind": "weight-sharing"}'
            )
        for field in values:
            check_choice(f"evaluators, {name}", field, tuple(known))
        base = EvaluatorConfig(preset=preset, threads=threads, device=device)
        configs[_engine_name(name)] = replace(base, **values)
    if FROM_SCRATCH in configs:
        raise InputError(
            "evaluators", "must not use the reference's name", FROM_SCRATCH, "choose another"
        )
    return configs


def _engine_name(name: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in name).split()
    return "-".join(words)


def run_fidelity(
    out: str,
    *,
    task: TaskConfig,
    policies: int = 29,
    seeds: int = 4,
    evaluation_seeds: int = 2,
    seed: int = 0,
    evaluators: Mapping[str, Any] | None = None,
    reference: EvaluatorConfig | None = None,
    threads: int = 1,
    epochs: int | None = None,
    device: str = "auto",
    pool: PoolConfig | None = None,
    resume: bool = False,
    progress: bool = True,
) -> RunResult:
    """Run (or resume) the study in the folder `out`.

    seeds: from-scratch children per policy, at least 2. evaluation_seeds: cheap evaluations per
    policy and evaluator. epochs: of the reference children, the preset's by default.
    reference: instead of from-scratch training by the preset (tests use a synthetic one).
    Raises InputError before anything is written for a user's mistake.
    """
    for name, value, least in (
        ("seeds", seeds, 2),
        ("evaluation_seeds", evaluation_seeds, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(name, f"must be at least {least}", value, f"use {max(least, 2)}")
    augmentations = study_policies(policies, seed)
    cheap = cheap_evaluators(evaluators, task.preset, threads, device)
    reference = reference or EvaluatorConfig(
        preset=task.preset, epochs=epochs, threads=threads, device=device
    )
    configs = {FROM_SCRATCH: reference, **cheap}
    drawn = task.build()
    study = StudyConfig(
        "fidelity",
        out,
        task,
        configs,
        [{"name": n, "policy": encode_augmentation(a)} for n, a in augmentations.items()],
        {"seeds": seeds, "evaluation_seeds": evaluation_seeds, "seed": seed},
        pool or PoolConfig(),
    )
    candidates = study_candidates(
        augmentations,
        range(seed, seed + seeds),
        {name: range(CHEAP_SEED + seed, CHEAP_SEED + seed + evaluation_seeds) for name in cheap},
    )
    return run_study(
        study, lambda _: FixedSearcher(candidates), drawn, resume=resume, progress=progress
    )


def study_candidates(
    augmentations: Mapping[str, Augmentation],
    reference_seeds: Sequence[int],
    cheap_seeds: Mapping[str, Sequence[int]],
) -> list[Candidate]:
    """All evaluations: one batch per evaluator and seed, cheap ones first, a slot per policy."""
    rounds = [(name, s, "validation") for name, seeds in cheap_seeds.items() for s in seeds]
    rounds += [(FROM_SCRATCH, s, "test") for s in reference_seeds]
    return [
        Candidate(batch, slot, augmentation, seed, name, part, label)
        for batch, (name, seed, part) in enumerate(rounds)
        for slot, (label, augmentation) in enumerate(augmentations.items())
    ]
