"""Evaluators: augmentation -> reward, on one proxy task. All share one small interface.

FromScratch      trains a child from scratch under the policy (AutoAugment). The reference; slow.
WeightSharing    fine-tunes a copy of one shared child for a few epochs: about a tenth of the cost.
DensityMatching  trains nothing per policy: how well does a child that never saw the policy
                 classify *augmented* validation images? Cheap, and biased (see the class).
Repeat           the mean of any evaluator over several seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from policies.errors import InputError, check_choice
from proxy_tasks.data import ProxyTask

from .base import Augmentation, Evaluator, as_transform, check_call
from .config import EvaluatorConfig, check_values
from .evaluation import Evaluation
from .from_scratch import FromScratch
from .planted import PlantedLandscape
from .shared_child import DensityMatching, WeightSharing

__all__ = [
    "KINDS",
    "Augmentation",
    "DensityMatching",
    "Evaluator",
    "FromScratch",
    "PlantedLandscape",
    "Repeat",
    "WeightSharing",
    "as_transform",
    "check_config",
    "make_evaluator",
]


class Repeat(Evaluator):
    """The mean over `repeats` training seeds derived from the seed; cost adds up.

    The standard error is sd/√repeats over the seeds: it contains the scatter of training, which a
    single evaluation cannot know. Diverged repeats count with the reward of guessing.
    """

    def __init__(self, evaluator: Evaluator, repeats: int):
        if repeats < 2:
            raise InputError("repeats", "must be at least 2", repeats, "leave the wrapper out")
        self.evaluator, self.repeats = evaluator, repeats

    def prepare(self, directory: Path) -> None:
        self.evaluator.prepare(directory)

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        check_call(seed, part)
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(self.repeats)]
        results = [self.evaluator.evaluate(augmentation, s, part) for s in seeds]
        rewards = np.array([r.reward for r in results])
        return Evaluation(
            reward=float(rewards.mean()),
            stderr=float(rewards.std(ddof=1)) / math.sqrt(self.repeats),
            metrics={
                name: float(np.mean([r.metrics[name] for r in results]))
                for name in results[0].metrics
            },
            seconds=sum(r.seconds for r in results),
            image_passes=sum(r.image_passes for r in results),
            diverged=any(r.diverged for r in results),
            part=part,
            details={"rewards": rewards.tolist(), "seeds": seeds},
        )


KINDS: dict[str, Callable[..., Evaluator]] = {
    "from-scratch": FromScratch,
    "weight-sharing": WeightSharing,
    "density-matching": DensityMatching,
    "synthetic": PlantedLandscape,
}


def make_evaluator(config: EvaluatorConfig, task: ProxyTask) -> Evaluator:
    """Build the evaluator a config describes. Raises InputError for what it does not know."""
    check_config(config)
    evaluator = KINDS[config.kind](config, task, **config.options)
    return Repeat(evaluator, config.repeats) if config.repeats > 1 else evaluator


def check_config(config: EvaluatorConfig) -> None:
    """InputError for a name or number that no evaluator takes; nothing is built."""
    check_values(config)
    known = _keywords(KINDS[config.kind])
    for name in config.options:
        if name not in known:
            check_choice(f"options of {config.kind}", name, known or ("none",))


def _keywords(make: Callable) -> tuple[str, ...]:
    code = make.__init__.__kwdefaults__ or {}
    return tuple(code)
