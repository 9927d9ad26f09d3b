"""How to evaluate, as data: what a run saves, checked without torch so that --help stays quick."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from policies.errors import InputError, check_choice, check_integer
from proxy_tasks.presets import get_preset

REWARDS = ("accuracy", "log_likelihood", "calibrated_log_likelihood")
PRECISIONS = ("auto", "float32", "bfloat16")
# The reward that predicts test accuracy best, by kind of evaluator (README, Figures).
BEST_REWARDS = {
    "from-scratch": "calibrated_log_likelihood",
    "weight-sharing": "log_likelihood",
    "density-matching": "log_likelihood",
    "synthetic": "calibrated_log_likelihood",
}


@dataclass(frozen=True)
class EvaluatorConfig:
    """How to evaluate; picklable, saved with a run. `make_evaluator` turns it into an evaluator.

    kind       "from-scratch", "weight-sharing", "density-matching" or "synthetic"
    preset     child model and schedule, see `proxy_tasks.presets`
    reward     one of `REWARDS`
    epochs     instead of the preset's (from-scratch) or of the kind's own option
    threads    CPU threads of one evaluation; part of the result, as it changes rounding
    device     "auto" (CUDA when there is one), "cpu", "cuda", "cuda:1"
    precision  "auto", "float32" or "bfloat16", see `training.pick_precision`
    repeats    mean over this many training seeds (`Repeat`)
    options    keyword arguments of the kind, e.g. {"shared_epochs": 40}
    """

    kind: str = "from-scratch"
    preset: str = "cpu"
    reward: str = "accuracy"
    epochs: int | None = None
    threads: int = 1
    device: str = "auto"
    precision: str = "auto"
    repeats: int = 1
    options: dict = field(default_factory=dict)


def resolve(kind: str | None, reward: str | None, preset: str, task: str) -> tuple[str, str]:
    """(kind, reward) of a search; what is None becomes what suits preset, task and kind best."""
    kind = get_preset(preset, task).evaluator if kind is None else kind
    check_choice("evaluator", kind, tuple(BEST_REWARDS))
    return kind, BEST_REWARDS[kind] if reward is None else reward


def check_values(config: EvaluatorConfig) -> None:
    """InputError for a name or number that no evaluator takes (`options` aside)."""
    check_choice("evaluator", config.kind, tuple(BEST_REWARDS))
    check_choice("reward", config.reward, REWARDS)
    check_choice("precision", config.precision, PRECISIONS)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        raise InputError("device", "must be auto, cpu, cuda or cuda:N", config.device, "use auto")
    for name in ("threads", "repeats"):
        check_integer(name, getattr(config, name), 1)
    if config.epochs is not None:
        check_integer("epochs", config.epochs, 1)
