"""The interface of evaluators."""

from __future__ import annotations

import abc
import math
from pathlib import Path

from policies.augmentations import Augmentation
from policies.errors import InputError, check_choice, check_integer
from policies.policy import Policy
from policies.schedule import ScheduleTransform
from policies.transforms import PolicyTransform, Transform

from .evaluation import PARTS, Evaluation


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
