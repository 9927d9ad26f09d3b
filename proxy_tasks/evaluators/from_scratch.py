"""Training from scratch: the reference evaluator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from policies.augmentations import Augmentation
from proxy_tasks.data import ProxyTask
from proxy_tasks.training import seeded_augment, threads

from .base import Evaluator, as_transform, check_call
from .children import Children
from .config import EvaluatorConfig
from .evaluation import Evaluation


class FromScratch(Children, Evaluator):
    """Train a child from scratch under the augmentation, as AutoAugment does (arXiv 1805.09501)."""

    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask,
        *,
        model: str | Callable | None = None,
        recipe: Mapping[str, Any] | None = None,
    ):
        super().__init__(config, task, model=model, recipe=recipe)
        self.epochs = config.epochs or self.preset.epochs

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        return self.train(augmentation, seed, part)[1]

    def train(
        self, augmentation: Augmentation, seed: int, part: str = "test"
    ) -> tuple[nn.Module, Evaluation]:
        """As `evaluate`, and the trained child with it."""
        check_call(seed, part)
        started = time.perf_counter()
        with threads(self.config.threads):
            child = self.new_child(seed)
            augment = seeded_augment(as_transform(augmentation), seed)
            trained = self.arena.train_child(child, augment, self.scratch_config(self.epochs), seed)
            return child, self.result(child, trained, part, started, {})
