"""Evaluators that train one shared child beforehand: weight sharing and density matching."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import io
import json
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from policies.errors import InputError, check_integer
from policies.files import write_atomically
from policies.policy import Policy
from policies.schedule import ScheduleTransform
from policies.transforms import Transform, UniformAugment
from proxy_tasks.data import ProxyTask
from proxy_tasks.training import LearningRate, augment_all, seeded_augment, threads

from .base import Augmentation, as_transform, check_call, check_positive
from .config import EvaluatorConfig
from .evaluation import Evaluation, score
from .from_scratch import ChildEvaluator, make_evaluation


class SharedChild(ChildEvaluator):
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
            "threads": self.config.threads,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.file_stem}-{digest}.pt"

    def prepare(self, directory: Path) -> None:
        """Load the shared child from `directory`, or train it and put it there.

        Raises InputError when the file is there but cannot be read as weights of this child.
        """
        path = Path(directory) / self.file_name
        if not path.exists():
            with threads(self.config.threads):
                child = self._new_child(self.shared_seed)
                augment = seeded_augment(self._shared_augmentation(), self.shared_seed)
                self.arena.train_child(
                    child, augment, self._scratch_config(self.shared_epochs), self.shared_seed
                )
            _save(child.state_dict(), path)
        self._shared_state = _load_weights(path, self._new_child(0))

    _shared_state: dict | None = None

    def _copy_of_shared(self) -> nn.Module:
        if self._shared_state is None:
            raise RuntimeError(f"{type(self).__name__}: call prepare(directory) before evaluate()")
        child = self._new_child(0)
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
    `ema` averages the fine-tuned weights (decay per step; None: no).

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
        ema: float | None = None,
        shared_seed: int = 0,
    ):
        super().__init__(config, task)
        self.shared_epochs = check_integer("shared_epochs", shared_epochs, 1)
        self.shared_seed = check_integer("shared_seed", shared_seed, 0)
        check_positive("lr", lr)
        if final_lr != 0:
            check_positive("final_lr", final_lr)
        if ema is not None and not 0 < ema < 1:
            raise InputError("ema", "must lie between 0 and 1, exclusive", ema, "e.g. 0.95")
        epochs = config.epochs or check_integer("finetune_epochs", finetune_epochs, 1)
        self.finetune = dataclasses.replace(
            self._scratch_config(epochs),
            schedule=LearningRate("cosine", epochs, lr, final_lr),
            ema=ema,
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
            return self._result(child, trained, part, started, {})


class DensityMatching(SharedChild):
    """Score augmented validation images with a child that never saw the augmentation.

    Fast AutoAugment (Lim et al. 2019, arXiv 1905.00397), with one child trained on the task's
    train part instead of K folds, and the mean over augmented copies instead of the best of five
    (which is an optimistic reward). BIAS: the criterion asks whether augmented images still look
    like the data to an existing child, not whether training on them helps. It favours mild
    operations, ranks "no augmentation" high, and on 1,000 CIFAR-10 images its rank correlation
    with test accuracy after training was negative. Validation images are augmented here, by
    definition; the test part is never read, and part="test" is refused.

    For a Policy each sub-policy is scored on the same `images_per_subpolicy` validation images
    (details["subpolicies"]: one dict of metrics each) and the metrics are their means.
    """

    file_stem = "density-child"

    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask,
        *,
        shared_epochs: int | None = None,
        images_per_subpolicy: int = 500,
        shared_seed: int = 0,
    ):
        super().__init__(config, task)
        if shared_epochs is not None:
            check_integer("shared_epochs", shared_epochs, 1)
        self.shared_epochs = shared_epochs or config.epochs or self.preset.epochs
        self.shared_seed = check_integer("shared_seed", shared_seed, 0)
        self.images_per_subpolicy = check_integer("images_per_subpolicy", images_per_subpolicy, 1)

    def _shared_augmentation(self) -> None:
        return None

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        check_call(seed, part)
        if part == "test":
            raise InputError(
                "part",
                "must be validation for density matching, which trains no child",
                part,
                "compare policies on the test part with from-scratch",
            )
        if isinstance(augmentation, ScheduleTransform):
            raise InputError(
                "augmentation",
                "must not be a schedule for density matching, which has no epochs",
                augmentation,
                "evaluate schedules with from-scratch or weight-sharing",
            )
        started = time.perf_counter()
        whole = self.task.validation
        rng = np.random.default_rng([seed, 2])
        if isinstance(augmentation, Policy):
            count = min(self.images_per_subpolicy, len(whole))
            rows = [Policy([row], bins=augmentation.bins) for row in augmentation]
        else:
            count, rows = len(whole), [augmentation]
        chosen = np.sort(rng.permutation(len(whole))[:count])
        images, labels = torch.from_numpy(whole.images[chosen]), whole.labels[chosen]
        with threads(self.config.threads):
            child = self._copy_of_shared()
            logits = []
            for number, row in enumerate(rows):
                stream = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
                augment = seeded_augment(as_transform(row), stream)
                augmented = images if augment is None else augment_all(images, augment)
                logits.append(self.arena.logits(child, augmented.numpy()))
        everything = score(np.concatenate(logits), np.tile(labels, len(rows)))
        each = [score(part_logits, labels).metrics for part_logits in logits]
        details = {"subpolicies": each} if isinstance(augmentation, Policy) else {}
        return make_evaluation(
            self.config.reward, everything, started, 0, count * len(rows), part, False, details
        )


def _save(state: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    torch.save({name: value.cpu() for name, value in state.items()}, stream)
    write_atomically(path, stream.getvalue())


def _load_weights(path: Path, child: nn.Module) -> dict:
    """Weights-only (nothing in the file is executed), and they must fit the child."""
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
    return child.state_dict()
