"""Evaluators that train one shared child beforehand, and weight sharing, the first of them."""

from __future__ import annotations

import abc
import dataclasses
import io
import json
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import nn

from policies.augmentations import Augmentation
from policies.errors import InputError
from policies.files import digest
from policies.options import Option, checks_options
from policies.transforms import Transform, UniformAugment
from proxy_tasks.data import ProxyTask
from proxy_tasks.models import threads
from proxy_tasks.presets import get_preset
from proxy_tasks.training import LearningRate, seeded_augment

from .base import Evaluator, check_calls
from .children import Children, ChildrenTogether
from .config import EvaluatorConfig
from .evaluation import Evaluation


class SharedChild(Children, Evaluator):
    """One child trained once by `prepare`, of which every evaluation takes a copy."""

    shared_epochs: int
    shared_seed: int

    @abc.abstractmethod
    def _shared_augmentation(self) -> Transform | None: ...

    def _facts(self) -> str:
        """A digest of everything that the shared child depends on."""
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
        return digest(json.dumps(facts, sort_keys=True).encode())

    @property
    def needs_preparation(self) -> bool:
        return self._shared_state is None

    def prepare(self) -> bytes:
        """Train the shared child, keep it, and return it.

        Raises InputError when it diverged, so that every evaluation would tell nothing.
        """
        child, loss = self._train_shared()
        self._take(child, loss)
        state = {name: value.cpu() for name, value in child.state_dict().items()}
        stream = io.BytesIO()
        torch.save({"facts": self._facts(), "state": state}, stream)
        return stream.getvalue()

    def load(self, prepared: bytes) -> None:
        """Take over a shared child; nothing in the bytes is executed.

        Raises InputError when they are not the weights of this very shared child.
        """
        child = self.new_child(0)
        try:
            saved = torch.load(io.BytesIO(prepared), weights_only=True, map_location="cpu")
            reason = "" if saved["facts"] == self._facts() else "of other settings"
            if not reason:
                child.load_state_dict(saved["state"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, KeyError,
                AttributeError) as error:  # fmt: skip
            reason = type(error).__name__
        if reason:
            raise InputError(
                "prepared", "must be the weights of this task's shared child", reason,
                "delete the folder prepared/ of the run to train a new shared child",
            )  # fmt: skip
        self._take(child, 0.0)

    def _train_shared(self) -> tuple[nn.Module, float]:
        """The trained child and its last training loss."""
        with threads(self.config.threads):
            child = self.new_child(self.shared_seed)
            augment = seeded_augment(self._shared_augmentation(), self.shared_seed)
            training = self.scratch_config(self.shared_epochs)
            return child, self.arena.train_child(child, augment, training, self.shared_seed).loss

    def _take(self, child: nn.Module, loss: float) -> None:
        with threads(self.config.threads):
            reason = self.validation_scores(child, loss)[1]
        if reason:
            raise InputError(
                "evaluator",
                "must have a shared child that trains",
                f"one that diverged: {reason}",
                "use another preset or model, more training images, or the evaluator from-scratch",
            )
        self._shared_state = child.state_dict()

    _shared_state: dict | None = None

    def _copy_of_shared(self) -> nn.Module:
        if self._shared_state is None:
            raise RuntimeError(f"{type(self).__name__}: call prepare() or load() before evaluate()")
        child = self.new_child(0)
        child.load_state_dict(self._shared_state)
        return child


class WeightSharing(SharedChild, ChildrenTogether):
    """Fine-tune a copy of a shared child under the augmentation (Tian et al. 2020, 2009.14737).

    The shared child is trained `shared_epochs` from scratch under uniformly drawn operations with
    the preset's schedule; each evaluation trains a copy for `finetune_epochs` (or the config's
    `epochs`), cosine from `lr` to `final_lr`, with fresh momentum. `lr` must be high enough for
    the augmentation to matter. The defaults, rewarded by log-likelihood, ranked
    policies well on 1,000 CIFAR-10 and 2,400 ImageNet images, and not at all on 200 Fashion-MNIST
    images (docs/results.md): measure with `augsearch fidelity` before searching by it. Accuracy
    after so short a training had no signal.

    All evaluations start from the same child and see the images in the same order with the same
    crops (common random numbers); an evaluation's `seed` decides the augmentation's draws alone.
    """

    @checks_options
    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask,
        *,
        shared_epochs: Annotated[int, Option("of the shared child", least=1)] = 80,
        finetune_epochs: Annotated[int, Option("of its copies", least=1)] = 8,
        lr: Annotated[
            float | None,
            Option(
                "learning rate of the copies, at first",
                unset="0.1, by a recipe's lr as many times that as it is the preset's",
                above=0,
            ),
        ] = None,  # fmt: skip
        final_lr: Annotated[
            float | None, Option("and at the end", unset="0.0005, or as many times", least=0)
        ] = None,
        shared_seed: Annotated[int, Option("of the shared child", least=0)] = 0,
        model: str | Callable | None = None,
        recipe: Mapping[str, Any] | None = None,
    ):
        super().__init__(config, task, model=model, recipe=recipe)
        self.shared_epochs, self.shared_seed = shared_epochs, shared_seed
        epochs = config.epochs or finetune_epochs
        scale = self.preset.lr / get_preset(config.preset, task.name).lr  # of another optimiser
        schedule = LearningRate(
            "cosine",
            epochs,
            0.1 * scale if lr is None else lr,
            0.0005 * scale if final_lr is None else final_lr,
        )
        self.finetune = dataclasses.replace(self.scratch_config(epochs), schedule=schedule)

    def _shared_augmentation(self) -> Transform:
        return UniformAugment()

    def evaluate_together(
        self, augmentations: Sequence[Augmentation], seeds: Sequence[int], part: str = "validation"
    ) -> list[Evaluation]:
        started = time.perf_counter()
        check_calls(seeds, part)
        with threads(self.config.threads):
            children = [self._copy_of_shared() for _ in seeds]
            # The order and crops are the same for every seed: they would only add noise to what is
            # compared, and the shared child's luck is common to all candidates anyway.
            orders = [self.shared_seed] * len(seeds)
            return self.trained(
                children, augmentations, seeds, part, self.finetune, orders, started
            )
