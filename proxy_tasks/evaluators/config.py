"""How to evaluate, as data: what a run saves, checked without torch so that --help stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from policies.errors import InputError, check_choice
from policies.imports import import_path, is_import_path
from policies.options import Configuration, Option
from proxy_tasks.presets import get_preset

REWARDS = ("accuracy", "log_likelihood", "calibrated_log_likelihood")
MEMBERS = "population"  # evaluator of the members of a population, which go on from each other
# The reward that predicts test accuracy best, by kind of evaluator (docs/results.md).
BEST_REWARDS = {
    "from-scratch": "calibrated_log_likelihood",
    "weight-sharing": "log_likelihood",
    "density-matching": "log_likelihood",
    "table": "log_likelihood",  # of its cheap fidelities
    "synthetic": "calibrated_log_likelihood",
    MEMBERS: "accuracy",  # as in Population Based Augmentation (arXiv 1905.05393)
}
ALONE = tuple(kind for kind in BEST_REWARDS if kind != MEMBERS)
# Which evaluator suits a task, in words (`resolve`).
SUITS = (
    "as measured for the task: from-scratch for reduced-fashion and the preset paper, else "
    "weight-sharing"
)
# Evaluators whose rewards break where a search ends, since all candidates share one child.
SHARING = ("weight-sharing", "density-matching")
# Evaluators of children, and their options that say what children are made of.
TRAINED = ("from-scratch", *SHARING)
OF_CHILDREN = ("model", "recipe")


@dataclass(frozen=True)
class EvaluatorConfig(Configuration):
    """How to evaluate; picklable, saved with a run. `make_evaluator` turns it into an evaluator.

    kind: a name, or an evaluator of a user's own: its import path or the callable itself, which
    becomes one; see `make_evaluator`. threads: part of the result, as it changes rounding. repeats:
    see `Repeat`. options: keyword arguments of the kind. Raises InputError for a value that no
    evaluator takes.
    """

    kind: Annotated[
        str,
        Option(
            f"how a policy is evaluated: {', '.join(ALONE)} (synthetic: planted "
            "rewards, for trials; table: as measured by others), or package.module:name, an "
            "evaluator of your own",
            name="evaluator",
            unit="NAME",
            unset=SUITS,
        ),
    ] = "from-scratch"
    preset: Annotated[Literal["cpu", "paper"], Option("child model and schedule", unit="NAME")] = (
        "cpu"
    )
    reward: Annotated[
        Literal["accuracy", "log_likelihood", "calibrated_log_likelihood"],
        Option(
            "what is maximised on validation images",
            unit="NAME",
            unset="as measured for the evaluator: log_likelihood for weight-sharing, "
            "calibrated_log_likelihood from scratch",
        ),
    ] = "accuracy"
    epochs: Annotated[
        int | None,
        Option("training epochs of an evaluation", unit="N", unset="the preset's", least=1,
               example=40),
    ] = None  # fmt: skip
    threads: Annotated[
        int, Option("CPU threads of one evaluation; part of the result", unit="N", least=1)
    ] = 1
    device: Annotated[
        str,
        Option(
            "where children are trained: auto (CUDA when there is one), cpu, cuda or cuda:N",
            unit="NAME",
            pattern=r"auto|cpu|cuda(:\d{1,3})?",
            rule="auto, cpu, cuda or cuda:N",
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], Option("numbers that children compute in",
                                                       unit="NAME")
    ] = "auto"  # fmt: skip
    kernels: Annotated[
        Literal["plain", "fused", "graphs"],
        Option(
            "how children are trained: by torch's layers; on a CPU the preset cpu's by fused ones "
            "(faster, the same to within rounding); on a GPU by steps recorded as CUDA graphs",
            unit="NAME",
        ),
    ] = "plain"
    repeats: Annotated[
        int, Option("training seeds averaged in one evaluation", unit="N", least=1)
    ] = 1
    options: Annotated[
        dict,
        Option(
            "further arguments of the evaluator as JSON, e.g. '{\"finetune_epochs\": 8}'",
            name="evaluator_options",
            unit="JSON",
            rule='an object, e.g. {"finetune_epochs": 8}',
        ),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if callable(self.kind):
            object.__setattr__(self, "kind", import_path("evaluator", self.kind))
        super().__post_init__()
        check_kind(self.kind)


def check_kind(kind: str) -> None:
    """InputError for what neither is an evaluator's name nor looks like an import path."""
    if not is_import_path(kind):
        check_choice("evaluator", kind, (*BEST_REWARDS, "package.module:name"))


def resolve(kind: str | None, reward: str | None, preset: str, task: str) -> tuple[str, str]:
    """(kind, reward) of a search; what is None becomes what suits preset, task and kind best."""
    kind = get_preset(preset, task).evaluator if kind is None else kind
    check_kind(kind)
    if reward is None:  # an evaluator of a user's own need not know of likelihoods
        reward = BEST_REWARDS.get(kind, "accuracy")
    return kind, reward


def companion(
    config: EvaluatorConfig, values: Mapping[str, Any], where: str = "evaluator"
) -> EvaluatorConfig:
    """Another evaluator of the same children, on the same device.

    values: fields that differ from the defaults, `kind` among them; without `reward` the one that
    suits the kind, which must be one that ships. Raises InputError that names `where`.
    """
    if not isinstance(values, Mapping):
        raise InputError(where, "must be an object", values, '{"kind": "weight-sharing"}')
    for name in values:
        check_choice(where, name, tuple(each.name for each in fields(EvaluatorConfig)))
    kind = values.get("kind", EvaluatorConfig.kind)
    check_choice(where, kind, ALONE)
    own = {name: getattr(config, name) for name in _SHARED}
    suits: Any = BEST_REWARDS[kind]
    made = EvaluatorConfig(**{**own, "reward": suits, **values})
    check_beside(made, config, where)
    children = {name: config.options[name] for name in OF_CHILDREN if name in config.options}
    if made.kind in TRAINED:
        made = replace(made, options={**children, **made.options})
    return made


def check_beside(made: EvaluatorConfig, config: EvaluatorConfig, where: str) -> None:
    """InputError for what one run cannot evaluate by beside `config`."""
    if made.kind == MEMBERS:
        check_choice(where, made.kind, ALONE)
    if made.threads != config.threads:
        raise InputError(
            f"{where}, threads", f"must be the {config.threads} of all evaluations of the run",
            made.threads, "leave it out, and pass --threads",
        )  # fmt: skip


_SHARED = ("preset", "threads", "device", "precision", "kernels")
# What a study of fidelity looks at unless others are named: fields that differ from the defaults.
STUDIED: dict[str, dict[str, Any]] = {
    "weight-sharing 80+8": {"kind": "weight-sharing"},
    "weight-sharing 40+8": {"kind": "weight-sharing", "options": {"shared_epochs": 40}},
    "weight-sharing 20+20": {
        "kind": "weight-sharing",
        "options": {"shared_epochs": 20, "finetune_epochs": 20},
    },
    "from scratch, 20 epochs": {"kind": "from-scratch", "epochs": 20},
    "density matching": {"kind": "density-matching"},
}
