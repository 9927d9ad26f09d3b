"""Evaluations per core-minute of each evaluator, beside the pipeline of today, in one run.

    python -m tests.benchmarks.evaluators [--data FOLDER] [--rounds 3] [--epochs 2]

"today" trains the same child on the same images the usual way: a DataLoader in the process, with
torchvision's PIL transforms (AutoAugment, crop, flip, ToTensor, Normalize), float32. All arms run
in turn, one thread, for a few epochs each; the cost of an evaluation is extrapolated from the
median epoch to the preset's epochs (said in the output). Time is CPU time of the process: core-
minutes, whatever else the machine does. Without --data the embedded reduced-fashion is used.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tabulate import tabulate
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from policies import CIFAR10, Policy, PolicyTransform
from proxy_tasks import EvaluatorConfig, ProxyTask, get_preset, get_task, make_evaluator
from proxy_tasks.evaluators.from_scratch import FromScratch
from proxy_tasks.models import make_child
from tests.benchmarks.machine import keep

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Arm:
    """`run(epochs)` trains (or evaluates) once; an evaluation is `epochs` of them and `fixed`."""

    name: str
    run: Callable[[int], None]
    epochs: int
    extrapolated: bool


class PilImages(Dataset):
    """What a user has today: PIL images and a list of transforms."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable):
        rows = images.transpose(0, 2, 3, 1)
        self.images = [transforms.functional.to_pil_image(row) for row in rows]
        self.labels, self.transform = labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def today(task: ProxyTask, epochs: int) -> None:
    """Child training as tutorials write it, and accuracy on the validation images."""
    preset = get_preset("cpu", task.name)
    channels, side = task.train.images.shape[1], task.train.images.shape[2]
    scaled = task.train.images / 255.0
    normalise = [
        transforms.ToTensor(),
        transforms.Normalize(scaled.mean((0, 2, 3)).tolist(), scaled.std((0, 2, 3)).tolist()),
    ]
    augment = [
        transforms.RandomCrop(side, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),
    ]
    train = PilImages(task.train.images, task.train.labels, transforms.Compose(augment + normalise))
    held = PilImages(task.validation.images, task.validation.labels, transforms.Compose(normalise))
    child = make_child(preset.model, channels, task.num_classes, 0, CPU)
    child = child.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(
        child.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    child.train()
    for _ in range(epochs):
        for images, labels in DataLoader(train, preset.batch_size, shuffle=True):
            loss = nn.functional.cross_entropy(child(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    child.eval()
    with torch.no_grad():
        for images, labels in DataLoader(held, 256):
            (child(images).argmax(1) == labels).sum().item()


def cpu_seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def arms(task: ProxyTask) -> list[Arm]:
    preset = get_preset("cpu", task.name)

    def evaluator(kind: str, epochs: int | None = None, **options):
        made = make_evaluator(EvaluatorConfig(kind, epochs=epochs, options=options), task)
        if made.needs_preparation:
            made.prepare()
        return made

    sharing = evaluator("weight-sharing")
    density = evaluator("density-matching", shared_epochs=1)
    scratch = {}

    def from_scratch(epochs: int) -> None:
        made = scratch.setdefault(epochs, evaluator("from-scratch", epochs))
        made.evaluate(CIFAR10, 0)

    return [
        Arm("today: DataLoader, PIL", lambda epochs: today(task, epochs), preset.epochs, True),
        Arm("from-scratch", from_scratch, preset.epochs, True),
        Arm("weight-sharing", lambda _: sharing.evaluate(CIFAR10, 0), 1, False),
        Arm("density-matching", lambda _: density.evaluate(CIFAR10, 0), 1, False),
    ]


def measure(arm: Arm, epochs: int) -> float:
    """CPU seconds of one evaluation; training cost is the slope between 1 and 1 + epochs."""
    if not arm.extrapolated:
        return cpu_seconds(lambda: arm.run(1))
    short = cpu_seconds(lambda: arm.run(1))
    long = cpu_seconds(lambda: arm.run(1 + epochs))
    epoch = (long - short) / epochs
    return short + epoch * (arm.epochs - 1)


def convolution_share(task: ProxyTask) -> float:
    """Share of a training step's CPU time inside convolutions, forward and backward."""
    evaluator = make_evaluator(EvaluatorConfig(epochs=1), task)
    evaluator.evaluate(CIFAR10, 0)
    assert isinstance(evaluator, FromScratch)
    child = evaluator.new_child(0)
    config = evaluator.scratch_config(2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        evaluator.arena.train_child(child, None, config, 0)
    events = profile.key_averages()
    total = sum(e.self_cpu_time_total for e in events)
    names = ("convolution", "conv2d")
    return sum(e.self_cpu_time_total for e in events if any(n in e.key for n in names)) / total


class Timed(PolicyTransform):
    """A policy transform that notes its CPU time; its copies note it in the same list."""

    def __init__(self, policy: Policy):
        super().__init__(policy)
        self.seconds: list[float] = []

    def __call__(self, images):
        started = time.process_time()
        result = super().__call__(images)
        self.seconds.append(time.process_time() - started)
        return result


def augmentation_shares(task: ProxyTask, epochs: int) -> tuple[float, float]:
    """Shares of training: the policy alone (CPU time); crop, flip and normalisation, from a run
    without a policy (wall-clock time)."""
    evaluator = make_evaluator(EvaluatorConfig(epochs=epochs), task)
    assert isinstance(evaluator, FromScratch)
    child, config = evaluator.new_child(0), evaluator.scratch_config(epochs)
    transform = Timed(CIFAR10)
    total = cpu_seconds(lambda: evaluator.arena.train_child(child, transform, config, 0))
    plain = evaluator.arena.train_child(child, None, config, 0)
    return sum(transform.seconds) / total, plain.augment_seconds / plain.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder train/<class>/ test/<class>/ (1,000 images used)")
    parser.add_argument("--rounds", type=int, default=3, help="times every arm is measured")
    parser.add_argument("--epochs", type=int, default=2, help="epochs timed before extrapolating")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts = {"train_images": 1000, "validation_images": 1000, "test_images": 1000}
    name = "folder" if arguments.data else "reduced-fashion"
    task = get_task(name, arguments.data, **counts)
    tried = arms(task)
    for arm in tried:  # compile kernels, fill caches
        arm.run(1)
    seconds: dict[str, list[float]] = {arm.name: [] for arm in tried}
    for _ in range(arguments.rounds):
        for arm in tried:
            seconds[arm.name].append(measure(arm, arguments.epochs))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    baseline = next(iter(median.values()))
    rows = [
        {
            "evaluator": arm.name,
            "core seconds": median[arm.name],
            "evaluations per core-minute": 60 / median[arm.name],
            "× today": baseline / median[arm.name],
            "extrapolated": "yes" if arm.extrapolated else "no",
        }
        for arm in tried
    ]
    size = task.train.images.shape
    print(f"{name}: {size[0]} training images {size[1:]}, 1,000 validation images, 1 thread")
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    print(f"{dataclasses.asdict(get_preset('cpu', task.name))}")
    convolution = convolution_share(task)
    print(f"a training step: {convolution:.0%} convolution")
    policy, other = augmentation_shares(task, 20)
    print(f"shares of training: policy {policy:.1%}; crop, flip and normalisation {other:.1%}")
    shares = {"convolution": convolution, "policy": policy, "crop, flip, normalise": other}
    keep("evaluators", {"task": name, "core seconds": seconds, "shares": shares}, 0)


if __name__ == "__main__":
    main()
