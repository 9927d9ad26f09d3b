"""Evaluators of real children: what they share, and training from scratch."""

from __future__ import annotations

import time

import numpy as np
from torch import nn

from proxy_tasks.data import ProxyTask
from proxy_tasks.models import make_child
from proxy_tasks.presets import Preset, get_preset
from proxy_tasks.training import (
    Arena,
    LearningRate,
    TrainConfig,
    Trained,
    pick_device,
    pick_precision,
    seeded_augment,
    threads,
)

from .base import Augmentation, Evaluator, as_transform, check_call
from .config import EvaluatorConfig
from .evaluation import Evaluation, Scores, chance, score

EVALUATED_PASS = 1 / 3  # cost of a forward pass, in forward-and-backward passes


class ChildEvaluator(Evaluator):
    """What evaluators of real children share: the images on a device, a preset, the scoring."""

    def __init__(self, config: EvaluatorConfig, task: ProxyTask):
        self.config, self.task = config, task
        self.preset: Preset = get_preset(config.preset, task.name)
        device = pick_device(config.device)
        self.arena = Arena(task.train, device, pick_precision(config.precision, device))

    def _new_child(self, seed: int) -> nn.Module:
        channels = self.task.train.images.shape[1]
        return make_child(
            self.preset.model, channels, self.task.num_classes, seed, self.arena.device
        )

    def _scratch_config(self, epochs: int) -> TrainConfig:
        p = self.preset
        schedule = LearningRate(p.schedule, epochs, p.lr, warmup=p.warmup)
        return TrainConfig(
            schedule, p.batch_size, p.weight_decay, p.momentum, p.pad, self.task.flip
        )

    def _result(
        self, child: nn.Module, trained: Trained, part: str, started: float, details: dict
    ) -> Evaluation:
        details = {
            "epochs": trained.epochs,
            "training_seconds": trained.seconds,
            "augmentation_seconds": trained.augment_seconds,
            **details,
        }
        scores, evaluated, diverged = self._score(child, part, trained.diverged, details)
        return make_evaluation(
            self.config.reward,
            scores,
            started,
            trained.image_passes,
            evaluated,
            part,
            diverged,
            details,
        )

    def _score(
        self, child: nn.Module, part: str, diverged: bool, details: dict
    ) -> tuple[Scores, int, bool]:
        """(scores, images evaluated, diverged): logits that overflow are divergence too.

        With part "test" the same child's validation metrics go into details["validation"].
        """
        images = self.task.validation if part == "validation" else self.task.test
        if diverged:
            return chance(self.task.num_classes, len(images)), 0, True
        temperature, evaluated = None, len(images)
        logits = self.arena.logits(child, images.images)
        finite = np.isfinite(logits).all()
        if part == "test" and finite:
            validation = self.task.validation
            held = self.arena.logits(child, validation.images)
            finite = np.isfinite(held).all()
            evaluated += len(validation)
            if finite:
                details["validation"] = score(held, validation.labels).metrics
                temperature = details["validation"]["temperature"]
        if not finite:
            return chance(self.task.num_classes, len(images)), evaluated, True
        return score(logits, images.labels, temperature), evaluated, False


class FromScratch(ChildEvaluator):
    """Train a child from scratch under the augmentation, as AutoAugment does (arXiv 1805.09501)."""

    def __init__(self, config: EvaluatorConfig, task: ProxyTask):
        super().__init__(config, task)
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
            child = self._new_child(seed)
            augment = seeded_augment(as_transform(augmentation), seed)
            trained = self.arena.train_child(
                child, augment, self._scratch_config(self.epochs), seed
            )
            return child, self._result(child, trained, part, started, {})


def make_evaluation(
    reward: str,
    scores: Scores,
    started: float,
    trained: int,
    evaluated: int,
    part: str,
    diverged: bool,
    details: dict,
) -> Evaluation:
    return Evaluation(
        reward=scores.metrics[reward],
        stderr=scores.stderrs[reward],
        metrics=scores.metrics,
        seconds=time.perf_counter() - started,
        image_passes=trained + round(evaluated * EVALUATED_PASS),
        diverged=diverged,
        part=part,
        details={"stderrs": scores.stderrs, **details},
    )
