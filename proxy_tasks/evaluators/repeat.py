"""The mean of any evaluator over several seeds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from policies.errors import InputError

from .base import Evaluator, check_call
from .evaluation import Evaluation

if TYPE_CHECKING:
    from policies.augmentations import Augmentation


class Repeat(Evaluator):
    """The mean over `repeats` training seeds derived from the seed; cost adds up.

    The standard error is sd/√repeats over the seeds: it contains the scatter of training, which a
    single evaluation cannot know. Where one of them diverged, the evaluation counts as diverged.
    """

    def __init__(self, evaluator: Evaluator, repeats: int):
        if repeats < 2:
            raise InputError("repeats", "must be at least 2", repeats, "leave the wrapper out")
        self.evaluator, self.repeats = evaluator, repeats

    @property
    def needs_preparation(self) -> bool:
        return self.evaluator.needs_preparation

    def prepare(self) -> bytes:
        return self.evaluator.prepare()

    def load(self, prepared: bytes) -> None:
        self.evaluator.load(prepared)

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        check_call(seed, part)
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(self.repeats)]
        results = [self.evaluator.evaluate(augmentation, s, part) for s in seeds]
        rewards = [r.reward for r in results]
        known = [reward for reward in rewards if reward is not None]
        whole = len(known) == self.repeats  # a diverged child may have no reward
        return Evaluation(
            reward=float(np.mean(known)) if whole else None,
            stderr=float(np.std(known, ddof=1)) / math.sqrt(self.repeats) if whole else None,
            metrics={
                name: float(np.mean([r.metrics[name] for r in results]))
                for name in results[0].metrics
                if all(name in r.metrics for r in results)
            },
            seconds=sum(r.seconds for r in results),
            image_passes=sum(r.image_passes for r in results),
            diverged=any(r.diverged for r in results),
            part=part,
            details={"rewards": rewards, "seeds": seeds},
        )
