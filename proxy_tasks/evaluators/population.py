"""A member of a population: a child trained a few epochs at a time, from whichever weights."""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from policies.augmentations import Augmentation, as_transform
from policies.errors import InputError, check_integer
from policies.schedule import augmentation_for_epoch
from proxy_tasks.data import ProxyTask
from proxy_tasks.learner import Learner
from proxy_tasks.models import own_randomness, threads
from proxy_tasks.training import Trained, seeded_augment

from .base import Continued, check_call
from .children import Children
from .config import EvaluatorConfig
from .evaluation import Evaluation


class Population(Children, Continued):
    """Train a child for `interval` epochs on from where an earlier evaluation left it.

    Population Based Augmentation (arXiv 1905.05393, section 3.2): the learning rate's schedule is
    that of the whole training, `config.epochs` or the preset's; the last evaluation trains what is
    left of it. The artifact holds weights, optimiser and the number of epochs done.
    """

    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask,
        *,
        interval: int = 3,
        recipe: Mapping[str, Any] | None = None,
    ):
        super().__init__(config, task, recipe=recipe)
        check_integer("interval", interval, 1)
        self.interval = interval
        self.epochs = config.epochs or self.preset.epochs

    def go_on(
        self, augmentation: Augmentation, seed: int, part: str, artifact: bytes | None
    ) -> tuple[Evaluation, bytes]:
        check_call(seed, part)
        started = time.perf_counter()
        training = self.scratch_config(self.epochs)
        with threads(self.config.threads):
            learner = self.arena.learner(self.new_child(seed), training)
            done, loss = 0, 0.0
            if artifact is not None:
                done, loss = _restore(learner, artifact)
            first, augmenting = done, 0.0
            for epoch in range(first, min(self.epochs, first + self.interval)):
                # Seeded by the epoch, so that a member goes on as if it had never been left.
                rng = np.random.default_rng([seed, 1, epoch])
                drawn = seeded_augment(as_transform(augmentation), int(rng.integers(2**31)))
                augment = augmentation_for_epoch(drawn, epoch, self.epochs)
                own = int(np.random.SeedSequence([seed, 3, epoch]).generate_state(1)[0])
                with own_randomness(own, self.arena.device):
                    trained = self.arena.train_epoch(learner, augment, training, epoch, rng)
                loss, done = trained.loss, epoch + 1
                augmenting += trained.augment_seconds
            passes = (done - first) * len(self.arena.labels)
            seconds = time.perf_counter() - started
            about = Trained(done - first, passes, loss, augmenting, seconds)
            evaluation = self.result(learner.evaluated, about, part, started, {"epoch": done})
        buffer = io.BytesIO()
        torch.save({"learner": learner.state_dict(), "epoch": done, "loss": loss}, buffer)
        return evaluation, buffer.getvalue()


def _restore(learner: Learner, artifact: bytes) -> tuple[int, float]:
    """Load what a member left; returns its epochs done and its last training loss."""
    try:
        # Nothing in it is executed.
        state = torch.load(io.BytesIO(artifact), weights_only=True)
        learner.load_state_dict(state["learner"])
        return state["epoch"], state["loss"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, KeyError,
            AttributeError, ValueError) as error:  # fmt: skip
        raise InputError(
            "artifact", "must be what a member of this population left", type(error).__name__,
            "start a new run",
        ) from error  # fmt: skip
