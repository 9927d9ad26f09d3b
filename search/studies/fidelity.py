"""`augsearch fidelity`: cheap scores of many policies beside from-scratch test accuracy.

Every policy is trained from scratch with several seeds and tested (evaluator "from-scratch", part
"test"; the validation metrics of the same children are kept too), and scored on the validation
part by every cheap evaluator with seeds of its own. `analysis.report_of` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from policies import PUBLISHED, Augmentation, RandAugment, TrivialAugmentWide
from policies.errors import InputError, check_choice
from policies.schedule import ScheduleTransform
from proxy_tasks.evaluators.config import STUDIED, EvaluatorConfig, check_beside
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.run_format import FOUND_LABEL, FROM_SCRATCH
from search.engine.loop import RunResult, is_name
from search.trial import CHEAP, Candidate

from .arms import Arm, random_policy, warn_of_files_changed
from .compare import with_arms
from .config import Config
from .fixed import run_fixed
from .seeds import training_seed
from .study import OpenRun

FIRST_FOUND = 1_000_000  # their first slot


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
    found = dict(known)
    for index in range(count - len(known)):
        size = 25 if index % 6 == 5 else 5
        found[f"random {size} #{index}"] = random_policy(size, seed * 100_003 + index)
    return found


def cheap_evaluators(config: Config) -> dict[str, EvaluatorConfig]:
    """Evaluators by the engine's names ("weight-sharing-40-8"); STUDIED when none are chosen.

    Raises InputError for unknown fields.
    """
    known = tuple(field.name for field in fields(EvaluatorConfig))
    chosen = config.settings.evaluators
    child = config.evaluator
    base = EvaluatorConfig(
        preset=child.preset, threads=child.threads, device=child.device,
        precision=child.precision, kernels=child.kernels,
    )  # fmt: skip
    configs = {}
    for name, values in (STUDIED if chosen is None else chosen).items():
        if not isinstance(values, Mapping):
            raise InputError(
                f"evaluators, {name}", "must be an object", values, '{"kind": "weight-sharing"}'
            )
        for field in values:
            check_choice(f"evaluators, {name}", field, known)
        if _engine_name(name) in configs:
            raise InputError(
                f"evaluators, {name}", "must differ from the other names in letters or digits",
                _engine_name(name), "choose another name",
            )  # fmt: skip
        made = configs[_engine_name(name)] = replace(base, **values)
        check_beside(made, base, f"evaluators, {name}")
        check_config(made)
    legal = [is_name(name) and name not in (FROM_SCRATCH, CHEAP) for name in configs]
    if not legal or not all(legal):
        raise InputError(
            "evaluators",
            f"must have names of up to 64 letters (a to z) and digits, other than {FROM_SCRATCH} "
            f"and {CHEAP}",
            list(chosen or ()),
            "choose a name like sharing-80",
        )
    return configs


def _engine_name(name: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in name).split()
    return "-".join(words)


def run_fidelity(config: Config, out: Path | str, **how: Any) -> RunResult:
    """Run the study in the run folder `out`; `analysis.report_of(out)` does the rest.

    Args:
        config: `Config.of("fidelity", policies=29, seeds=4)`; its evaluator is the reference, from
            scratch training. Policies and both numbers of seeds may grow.
        how: `resume`, `retry_failed`, `progress`, as for `run_search`.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
    """
    return run_fixed(
        with_arms(config),
        out,
        fidelity_candidates,
        evaluators=_evaluators,
        **how,
    )


def _evaluators(run: OpenRun) -> dict[str, EvaluatorConfig]:
    warn_of_files_changed(run, [Arm.from_json(arm) for arm in run.config.settings.arms])
    return {FROM_SCRATCH: run.config.evaluator, **cheap_evaluators(run.config)}


def fidelity_candidates(config: Config) -> list[Candidate]:
    """All evaluations: a batch per evaluator and seed, a slot per policy.

    A batch's number depends on the index of its seed and on the evaluator alone, and policies of
    searches have slots of their own, so that more of everything is added without renumbering.
    """
    settings = config.settings
    cheap = cheap_evaluators(config)
    matching = [name for name, each in cheap.items() if each.kind == "density-matching"]
    places = dict(enumerate(study_policies(settings.policies, settings.seed).items()))
    for number, arm in enumerate(map(Arm.from_json, settings.arms)):
        if len(arm.members) != 1 or arm.recipe:
            raise InputError(
                "policy", "must be files of single policies", arm.text, "name a policy.json"
            )
        if matching and isinstance(arm.members[0], ScheduleTransform):
            raise InputError(
                "policy", f"must not be a schedule for {matching[0]}, which trains no child on it",
                arm.text, "leave it out, or choose other --evaluators",
            )  # fmt: skip
        places[FIRST_FOUND + number] = (f"{FOUND_LABEL}{arm.name}", arm.members[0])
    scorers = [*cheap, FROM_SCRATCH]
    return [
        Candidate(
            index * len(scorers) + number,
            slot,
            augmentation,
            training_seed(block, settings.seed, index),
            scorer,
            part,
            label,
        )
        for index in range(max(settings.seeds, settings.evaluation_seeds))
        for number, scorer in enumerate(scorers)
        for block, part, count in [
            ("fidelity", "test", settings.seeds)
            if scorer == FROM_SCRATCH
            else ("fidelity cheap", "validation", settings.evaluation_seeds)
        ]
        if index < count
        for slot, (label, augmentation) in places.items()
    ]
