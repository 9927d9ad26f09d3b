"""Training from scratch: the reference evaluator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policies.augmentations import Augmentation
from proxy_tasks.data import ProxyTask
from proxy_tasks.models import threads

from .base import check_calls
from .children import ChildrenTogether
from .config import EvaluatorConfig
from .evaluation import Evaluation


class FromScratch(ChildrenTogether):
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

    def evaluate_together(
        self, augmentations: Sequence[Augmentation], seeds: Sequence[int], part: str = "validation"
    ) -> list[Evaluation]:
        started = time.perf_counter()
        check_calls(seeds, part)
        with threads(self.config.threads):
            children = [self.new_child(seed) for seed in seeds]
            return self.trained(
                children, augmentations, seeds, part, self.scratch_config(self.epochs), seeds,
                started,
            )  # fmt: skip
