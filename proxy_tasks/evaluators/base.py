"""The interface of evaluators, and the configuration they are made from."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, field
from pathlib import Path

from policies.errors import InputError, check_choice, check_integer
from policies.policy import Policy
from policies.schedule import ScheduleTransform
from policies.transforms import PolicyTransform, Transform

from .evaluation import PARTS, Evaluation

Augmentation = Policy | Transform | ScheduleTransform | None


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


class Evaluator(abc.ABC):
    """Turns an augmentation into a reward on one task.

    `evaluate` with the same arguments gives the same floats in any process on the same kind of
    machine, and touches no global random state. (On CUDA, as far as cuDNN is deterministic.)
    """

    @abc.abstractmethod
    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        """Evaluate a Policy (paper convention), a Transform, a schedule's transform, or None (crop
        and flip only).

        `seed` (>= 0) decides the child's weights, the order of images, crops and the policy's
        draws. `part` "validation" never reads a test image. With "test" the reward comes from the
        test images, while the temperature of the calibrated log-likelihood is fitted on the
        validation images.
        """

    def prepare(self, directory: Path) -> None:
        """Do, or load, one-off work kept in `directory` (a run folder). Idempotent, atomic."""
        return None


def as_transform(augmentation: Augmentation) -> Transform | ScheduleTransform | None:
    """A Policy as its transform (paper convention); anything else as it is."""
    return PolicyTransform(augmentation) if isinstance(augmentation, Policy) else augmentation


def check_call(seed: int, part: str) -> None:
    check_choice("part", part, PARTS)
    check_integer("seed", seed, 0)


def check_positive(argument: str, value: float) -> None:
    """InputError unless `value` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(argument, "must be a number above 0", value, "raise it")
