"""The interface of evaluators."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING

from policies.errors import check_choice, check_integer

from .evaluation import PARTS, Evaluation

if TYPE_CHECKING:  # an evaluator that trains nothing does not wait for torch
    from policies.augmentations import Augmentation


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

    @property
    def needs_preparation(self) -> bool:
        """Whether one-off work (`prepare`, or `load` of what another process prepared) is due."""
        return False

    def prepare(self) -> bytes:
        """Do the one-off work, and return what others `load` instead of doing it again."""
        raise TypeError(f"{type(self).__name__} has nothing to prepare")

    def load(self, prepared: bytes) -> None:
        """Take over what an evaluator of the same configuration and task prepared.

        Raises InputError when it is not that.
        """
        raise TypeError(f"{type(self).__name__} has nothing to prepare")


class Continued(Evaluator):
    """An evaluator that goes on from what an earlier evaluation left, e.g. its weights."""

    @abc.abstractmethod
    def go_on(
        self, augmentation: Augmentation, seed: int, part: str, artifact: bytes | None
    ) -> tuple[Evaluation, bytes]:
        """As `evaluate`, from `artifact` on, or from the beginning (None).

        Returns the evaluation and the artifact of its end. Raises InputError for an artifact that
        is not of this evaluator.
        """

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        return self.go_on(augmentation, seed, part, None)[0]


class Together(Evaluator):
    """An evaluator that can train the children of several candidates at once on one device."""

    @abc.abstractmethod
    def check_together(self) -> None:
        """InputError unless `evaluate_together` is of use here, and equals `evaluate`."""

    @abc.abstractmethod
    def evaluate_together(
        self, augmentations: Sequence[Augmentation], seeds: Sequence[int], part: str = "validation"
    ) -> list[Evaluation]:
        """As `evaluate` for each of them, to within rounding; `seconds` are each one's share."""


def check_call(seed: int, part: str) -> None:
    check_choice("part", part, PARTS)
    check_integer("seed", seed, 0)


def check_calls(seeds: Sequence[int], part: str) -> None:
    for seed in seeds:
        check_call(seed, part)
