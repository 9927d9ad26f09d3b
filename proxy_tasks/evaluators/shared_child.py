"""Evaluators that train one shared child beforehand, and weight sharing, the first of them."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import io
import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from policies.augmentations import Augmentation
from policies.errors import InputError, check_integer
from policies.files import write_atomically
from policies.transforms import Transform, UniformAugment
from proxy_tasks.data import ProxyTask
from proxy_tasks.training import LearningRate, seeded_augment, threads

from .base import Evaluator, as_transform, check_call, check_positive
from .children import Children
from .config import EvaluatorConfig
from .evaluation import Evaluation


class SharedChild(Children, Evaluator):
    """One child trained once by `prepare`, kept in the run folder, read by every evaluation."""

    file_stem: str
    shared_epochs: int
    shared_seed: int

    @abc.abstractmethod
    def _shared_augmentation(self) -> Transform | None: ...

    @property
    def file_name(self) -> str:
        """The file in the run folder; the name changes with everything the child depends on."""
        facts = {
            "task": self.task.manifest_hash,
            "preset": dataclasses.asdict(self.preset),
            "epochs": self.shared_epochs,
            "seed": self.shared_seed,
            "augmentation": repr(self._shared_augmentation()),
            "precision": str(self.arena.precision),
            "kernels": self.config.kernels,
            "threads": self.config.threads,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.file_stem}-{digest}.pt"

    def prepare(self, directory: Path) -> None:
        """Load the shared child from `directory`, or train it and put it there.

        Raises:
            InputError: the file is there but cannot be read as weights of this child; or the
                child diverged, so that every evaluation would tell nothing.
        """
        path = Path(directory) / self.file_name
        if path.exists():
            child, loss = _load_weights(path, self.new_child(0)), 0.0
            self._check_shared(child, loss)
        else:
            child, loss = self._train_shared()
            self._check_shared(child, loss)
            _save(child.state_dict(), path)
        self._shared_state = child.state_dict()

    def _train_shared(self) -> tuple[nn.Module, float]:
        """The trained child and its last training loss."""
        with threads(self.config.threads):
            child = self.new_child(self.shared_seed)
            augment = seeded_augment(self._shared_augmentation(), self.shared_seed)
            training = self.scratch_config(self.shared_epochs)
            return child, self.arena.train_child(child, augment, training, self.shared_seed).loss

    def _check_shared(self, child: nn.Module, loss: float) -> None:
        with threads(self.config.threads):
            reason = self.validation_scores(child, loss)[1]
        if reason:
            raise InputError(
                "evaluator",
                "must have a shared child that trains",
                f"one that diverged: {reason}",
                "use another preset or model, more training images, or the evaluator from-scratch",
            )

    _shared_state: dict | None = None

    def _copy_of_shared(self) -> nn.Module:
        if self._shared_state is None:
            raise RuntimeError(f"{type(self).__name__}: call prepare(directory) before evaluate()")
        child = self.new_child(0)
        child.load_state_dict(self._shared_state)
        return child


class WeightSharing(SharedChild):
    """Fine-tune a copy of a shared child under the augmentation (Tian et al. 2020, 2009.14737).

    The shared child is trained `shared_epochs` from scratch under uniformly drawn operations with
    the preset's schedule; each evaluation trains a copy for `finetune_epochs` (or the config's
    `epochs`), cosine from `lr` to `final_lr`, with fresh momentum. `lr` must be high enough for
    the augmentation to matter. The defaults, rewarded by log-likelihood, ranked
    policies well on 1,000 CIFAR-10 and 2,400 ImageNet images, and not at all on 200 Fashion-MNIST
    images (README): measure with `augsearch fidelity` before searching by it. Accuracy after so
    short a training had no signal.

    All evaluations start from the same child and see the images in the same order with the same
    crops (common random numbers); an evaluation's `seed` decides the augmentation's draws alone.
    """

    file_stem = "shared-child"

    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask,
        *,
        shared_epochs: int = 80,
        finetune_epochs: int = 8,
        lr: float = 0.1,
        final_lr: float = 0.0005,
        shared_seed: int = 0,
        model: str | Callable | None = None,
    ):
        super().__init__(config, task, model=model)
        self.shared_epochs = check_integer("shared_epochs", shared_epochs, 1)
        self.shared_seed = check_integer("shared_seed", shared_seed, 0)
        check_positive("lr", lr)
        if final_lr != 0:
            check_positive("final_lr", final_lr)
        epochs = config.epochs or check_integer("finetune_epochs", finetune_epochs, 1)
        self.finetune = dataclasses.replace(
            self.scratch_config(epochs),
            schedule=LearningRate("cosine", epochs, lr, final_lr),
        )

    def _shared_augmentation(self) -> Transform:
        return UniformAugment()

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        check_call(seed, part)
        started = time.perf_counter()
        with threads(self.config.threads):
            child = self._copy_of_shared()
            augment = seeded_augment(as_transform(augmentation), seed)
            # The order and crops are the same for every seed: they would only add noise to what is
            # compared, and the shared child's luck is common to all candidates anyway.
            trained = self.arena.train_child(child, augment, self.finetune, self.shared_seed)
            return self.result(child, trained, part, started, {})


def _save(state: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    torch.save({name: value.cpu() for name, value in state.items()}, stream)
    write_atomically(path, stream.getvalue())


def _load_weights(path: Path, child: nn.Module) -> nn.Module:
    """`child` with the weights: nothing in the file is executed, and they must fit."""
    fix = "delete the file and run again to train a new shared child"
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        child.load_state_dict(state)
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, AttributeError) as error:
        raise InputError(
            "checkpoint",
            "must hold the weights of this task's shared child",
            f"{path.name} ({type(error).__name__})",
            fix,
        ) from error
    return child
