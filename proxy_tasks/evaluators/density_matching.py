"""Density matching: no training for a policy, and a bias that is stated."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch

from policies.augmentations import Augmentation, as_transform
from policies.errors import InputError
from policies.options import Option, checks_options
from policies.policy import Policy
from policies.schedule import ScheduleTransform
from policies.transforms import Transform
from proxy_tasks.data import ProxyTask
from proxy_tasks.models import threads
from proxy_tasks.training import augment_all, seeded_augment

from .base import check_call
from .children import make_evaluation
from .config import EvaluatorConfig
from .evaluation import Evaluation, Scores, log_likelihoods, score
from .shared_child import SharedChild


class DensityMatching(SharedChild):
    """Score augmented validation images with a child that never saw the augmentation.

    Fast AutoAugment (Lim et al. 2019, arXiv 1905.00397), with one child trained on the task's
    train part instead of K folds. `best_of` = 5 is its criterion as it is: the whole policy is
    drawn five times for every validation image, and of the five the least loss counts, and whether
    any was classified rightly (eval_tta in the authors' code); an optimistic reward. The default is
    the mean over augmented copies. BIAS: the criterion asks whether augmented images still look
    like the data to an existing child, not whether training on them helps. It favours mild
    operations, ranks "no augmentation" high, and on 1,000 CIFAR-10 images its rank correlation
    with test accuracy after training was negative. Validation images are augmented here, by
    definition; the test part is never read, and part="test" is refused.

    For a Policy each sub-policy is scored on the same `images_per_subpolicy` validation images
    (details["subpolicies"]: one dict of metrics each) and the metrics are their means. With
    `best_of` all validation images are, by the policy as a whole.
    """

    @checks_options
    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask,
        *,
        shared_epochs: Annotated[int | None, Option("of the child", least=1)] = None,
        images_per_subpolicy: Annotated[int, Option("of the validation part", least=1)] = 500,
        shared_seed: Annotated[int, Option("of the child", least=0)] = 0,
        best_of: Annotated[
            int,
            Option("versions of each image, of which the best counts; 1: all count alike", least=1,
                   most=1000),
        ] = 1,
        model: str | Callable | None = None,
        recipe: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        super().__init__(config, task, model=model, recipe=recipe)
        self.best_of = best_of
        self.shared_epochs = shared_epochs or config.epochs or self.preset.epochs
        self.shared_seed = shared_seed
        self.images_per_subpolicy = images_per_subpolicy

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
        subpolicies = (
            [Policy([row], bins=augmentation.bins) for row in augmentation]
            if isinstance(augmentation, Policy) and self.best_of == 1
            else []
        )
        parts: Sequence[Policy | Transform | None] = subpolicies or [augmentation] * self.best_of
        count = min(self.images_per_subpolicy, len(whole)) if subpolicies else len(whole)
        chosen = np.sort(rng.permutation(len(whole))[:count])
        images, labels = torch.from_numpy(whole.images[chosen]), whole.labels[chosen]
        with threads(self.config.threads):
            child = self._copy_of_shared()
            logits = []
            for number, one in enumerate(parts):
                stream = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
                augment = seeded_augment(as_transform(one), stream)
                augmented = images if augment is None else augment_all(images, augment)
                logits.append(self.arena.logits(child, augmented.numpy()))
        if self.best_of > 1:
            everything, each = _best(np.stack(logits), labels), []
        else:
            everything = _mean(np.stack(logits), labels)
            each = [score(part_logits, labels).metrics for part_logits in logits]
        details = {"subpolicies": each} if subpolicies else {}
        return make_evaluation(
            self.config.reward, everything, started, 0, count * len(parts), part, False, details
        )


def _mean(logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores of logits [versions, N, K], of all alike; errors over the N images, which differ."""
    versions = len(logits)
    found = score(np.concatenate(logits), np.tile(labels, versions))
    told = {
        "accuracy": (logits.argmax(axis=2) == labels).astype(float),
        "log_likelihood": np.stack([log_likelihoods(each, labels) for each in logits]),
        "calibrated_log_likelihood": np.stack(
            [log_likelihoods(each / found.metrics["temperature"], labels) for each in logits]
        ),
    }
    root = math.sqrt(len(labels))
    errors = {name: float(each.mean(axis=0).std()) / root for name, each in told.items()}
    return Scores(found.metrics, errors)


def _best(logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores of logits [versions, N, K]: of each image the least loss, and any right answer."""
    told = np.stack([log_likelihoods(version, labels) for version in logits])
    scores = score(logits[told.argmax(axis=0), np.arange(len(labels))], labels)
    accuracy = float((logits.argmax(axis=2) == labels).any(axis=0).mean())
    error = math.sqrt(accuracy * (1 - accuracy) / len(labels))
    return Scores({**scores.metrics, "accuracy": accuracy}, {**scores.stderrs, "accuracy": error})
