"""What evaluators of real children share: the images on a device, a preset, the scoring."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from policies.augmentations import Augmentation, as_transform
from policies.errors import InputError
from policies.imports import import_path
from proxy_tasks.data import ProxyTask
from proxy_tasks.learner import Learner, autocast
from proxy_tasks.mixing import make_loss
from proxy_tasks.models import make_child, own_randomness
from proxy_tasks.presets import OPTIMIZERS, Preset, get_preset
from proxy_tasks.recipe import Recipe
from proxy_tasks.stacked import each, keeps_apart
from proxy_tasks.training import (
    EVALUATED_PASS,
    Arena,
    LearningRate,
    TrainConfig,
    Trained,
    pick_device,
    pick_precision,
    seeded_augment,
)

from .base import Together
from .config import EvaluatorConfig
from .evaluation import OVERFLOW, Evaluation, Scores, chance, judge, score


def _shape(found: object) -> tuple[int, ...] | str:
    """Of a tensor; of anything else the name of its type."""
    return tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__


class Children:
    """Makes, trains and scores the child models of one task.

    model: a child model of the user's own instead of the preset's, as a callable or its import
        path "package.module:name" (`models.make_child`).
    recipe: how it is trained where that differs from the preset, see `proxy_tasks.recipe`.
    """

    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask,
        *,
        model: str | Callable | None = None,
        recipe: Mapping[str, Any] | None = None,
    ):
        self.config, self.task = config, task
        preset: Preset = get_preset(config.preset, task.name)
        self.preset = Recipe.of(recipe or {}, config.kind).applied(preset)
        device = pick_device(config.device)
        precision = pick_precision(config.precision, device)
        if config.kernels == "graphs":
            check_recordable(self.preset, device)
        self.arena = Arena(task.train, device, precision, config.kernels)
        self.arena.keep(task.validation.images)
        if model is not None:
            self.preset = dataclasses.replace(self.preset, model=import_path("model", model))
            self._check_model()
        if recipe:  # a loss or an optimiser that cannot be made is told before anything is trained
            self._check_loss(self.arena.learner(self.new_child(0), self.scratch_config(1)))

    def _check_model(self) -> None:
        """InputError unless the model turns images of the task into logits, training or not."""
        images = self.task.train.images[:2]
        expected = (len(images), self.task.num_classes)
        child = self.new_child(0)
        (batch,) = self.arena.batches(images)
        for training in (True, False):
            try:
                with (
                    own_randomness(0, self.arena.device),
                    autocast(self.arena.device, self.arena.precision),
                    torch.no_grad(),
                ):
                    found: object = child.train(training)(batch)
            except Exception as error:
                raise InputError(
                    "model", f"must take images {list(batch.shape)}",
                    f"{self.preset.model} ({error!r})", "choose another --resolution or model",
                ) from error  # fmt: skip
            if _shape(found) != expected:
                raise InputError(
                    "model",
                    f"must turn {expected[0]} images into logits {list(expected)}",
                    _shape(found),
                    "end it with a layer of num_classes outputs, and let it return these alone",
                )

    def _check_loss(self, learner: Learner) -> None:
        """InputError unless the loss makes a number of logits and labels as a step gives them."""
        (batch,) = self.arena.batches(self.task.train.images[:2])
        labels = torch.tensor(self.task.train.labels[:2], device=self.arena.device).long()
        logits = torch.zeros(2, self.task.num_classes, device=self.arena.device)
        with own_randomness(0, self.arena.device), torch.no_grad():
            targets = learner.mix(batch, labels)[1] if learner.mix else labels
            kind = "shares" if learner.mix else "labels"
            rule = f"must make one number of logits [2, classes] and {kind} {list(targets.shape)}"
            try:
                found: object = learner.loss(logits, targets)
            except Exception as error:
                raise InputError(
                    "loss", rule, f"{self.preset.loss} ({error!r})",
                    "name another loss, or leave mixup and cutmix out, which mix labels",
                ) from error  # fmt: skip
        if _shape(found) != ():
            raise InputError("loss", rule, _shape(found), "let it return the mean over the images")

    def new_child(self, seed: int) -> nn.Module:
        channels = self.task.train.images.shape[1]
        return make_child(
            self.preset.model, channels, self.task.num_classes, seed, self.arena.device
        )

    def scratch_config(self, epochs: int) -> TrainConfig:
        """The preset's training from scratch, over so many epochs."""
        p = self.preset
        schedule = LearningRate(p.schedule, epochs, p.lr, p.final_lr, p.warmup)
        return TrainConfig(p, schedule, self.task.flip, self.task.num_classes)

    def result(
        self, child: nn.Module, trained: Trained, part: str, started: float, details: dict
    ) -> Evaluation:
        """The evaluation of a trained child.

        Whether it diverged is judged on the validation part. With part "test" the validation
        metrics of the same child go into details["validation"].
        """
        details = {
            "epochs": trained.epochs,
            "training_seconds": trained.seconds,
            "augmentation_seconds": trained.augment_seconds,
            **details,
        }
        scores, reason = self.validation_scores(child, trained.loss)
        evaluated = len(self.task.validation) if math.isfinite(trained.loss) else 0
        if part == "test" and not reason:
            details["validation"] = scores.metrics
            test = self.task.test
            logits = self.arena.logits(child, test.images)
            evaluated += len(test)
            if np.isfinite(logits).all():
                scores = score(logits, test.labels, scores.metrics["temperature"])
            else:
                reason = OVERFLOW
        if reason:
            images = self.task.validation if part == "validation" else self.task.test
            scores = chance(self.task.num_classes, len(images))
            details["divergence"] = reason
        return make_evaluation(
            self.config.reward,
            scores,
            started,
            trained.image_passes,
            evaluated,
            part,
            bool(reason),
            details,
        )

    def validation_scores(self, child: nn.Module, loss: float = 0.0) -> tuple[Scores, str]:
        """Scores on the validation part, and why the child counts as diverged ("": it does not).

        loss: mean training loss of the last epoch. The scores of a diverged child mean nothing.
        """
        validation = self.task.validation
        if not math.isfinite(loss):
            return chance(self.task.num_classes, len(validation)), f"the training loss was {loss}"
        logits = self.arena.logits(child, validation.images)
        return judge(logits, validation.images, validation.labels)


def check_recordable(preset: Preset, device: torch.device) -> None:
    """InputError for steps that cannot be recorded as CUDA graphs."""
    if device.type != "cuda":
        raise InputError(
            "kernels", "may be graphs on a GPU only", str(device), "use plain, or fused on a CPU"
        )
    if preset.optimizer not in OPTIMIZERS:
        raise InputError(
            "kernels", f"may be graphs with the optimisers {' and '.join(OPTIMIZERS)} only",
            preset.optimizer, "use plain",
        )  # fmt: skip
    for what in ("mixup", "cutmix", "erase", "ema"):  # they draw on the host, or wait for the GPU
        if getattr(preset, what):
            raise InputError(
                "kernels", f"may be graphs for a recipe without {what} only",
                getattr(preset, what), "use plain",
            )  # fmt: skip


class ChildrenTogether(Children, Together):
    """Children whose evaluations each train one, alone or several at once."""

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        return self.evaluate_together([augmentation], [seed], part)[0]

    def trained(
        self,
        children: Sequence[nn.Module],
        augmentations: Sequence[Augmentation],
        seeds: Sequence[int],
        part: str,
        config: TrainConfig,
        orders: Sequence[int],
        started: float,
    ) -> list[Evaluation]:
        """Train them at once and evaluate each. orders: seeds of the order of the images."""
        augments = [
            seeded_augment(as_transform(augmentation), seed)
            for augmentation, seed in zip(augmentations, seeds, strict=True)
        ]
        try:
            trained = self.arena.train_children(children, augments, config, orders)
        except torch.OutOfMemoryError as error:
            if len(children) == 1:
                raise InputError(
                    "device", "must have the memory that one child needs", str(error),
                    "use smaller batches, images or a smaller model, or give fewer workers a GPU",
                ) from error  # fmt: skip
            raise InputError(
                "children_per_gpu", "must be no more than fit the GPU's memory", len(children),
                f"pass less, or use smaller batches ({error})",
            ) from error  # fmt: skip
        share = (time.perf_counter() - started) / len(children)
        return [
            self.result(child, how, part, time.perf_counter() - share, {})
            for child, how in zip(children, trained, strict=True)
        ]

    def check_together(self) -> None:
        preset, name = self.preset, "children_per_gpu"
        for what in ("mixup", "cutmix", "erase"):
            if getattr(preset, what):
                raise InputError(
                    name, f"needs a recipe without {what}", getattr(preset, what), "leave it out"
                )
        if preset.optimizer not in OPTIMIZERS:
            raise InputError(
                name, "needs an optimiser that treats every weight by itself", preset.optimizer,
                f"use {' or '.join(OPTIMIZERS)}, or leave it out",
            )  # fmt: skip
        (batch,) = self.arena.batches(self.task.train.images[:8])
        if reason := keeps_apart([self.new_child(0), self.new_child(1)], batch):
            raise InputError(
                name, "needs a model of convolutions, batch norm and linear layers, which can "
                "stand side by side", f"{preset.model} ({reason})", "leave it out",
            )  # fmt: skip
        logits = torch.zeros(8, 2, self.task.num_classes, device=self.arena.device)
        labels = torch.zeros(8, 2, dtype=torch.int64, device=self.arena.device)
        try:
            loss = make_loss(preset.loss, preset.smoothing, preset.threshold, logits.device)
            each(loss)(logits, labels)
        except RuntimeError as error:
            raise InputError(
                name, "needs a loss that torch.vmap takes", f"{preset.loss} ({error})",
                "leave it out",
            ) from error  # fmt: skip
        if self.arena.device.type == "cpu":
            raise InputError(
                name, "needs a GPU: on a CPU children at once are no faster", self.config.device,
                "use --workers, or --device cuda where there is one",
            )  # fmt: skip


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
