"""Training one child model, and its logits on held-out images. One code path for CPU and CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
import torch
from torch import Tensor, nn

from policies.errors import InputError
from policies.schedule import ScheduleTransform, augmentation_for_epoch
from policies.transforms import Transform

from .batches import Jitter, no_jitter, normalisation, prepare_batch
from .data import ImageSet
from .fused import fused
from .learner import Learner, autocast
from .models import own_randomness
from .presets import Preset
from .samplers import plan_epoch

# A whole epoch is augmented in one call (fewer, longer calls), unless it is larger than this.
AUGMENT_BYTES = 64 * 2**20
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class LearningRate:
    """Learning rate over training: `epochs`, `peak`, and where the rate ends (`final`).

    Over the first `warmup` share of the steps it rises linearly from 0 to `peak`. Then, over the
    rest: kinds "cosine" and "one-cycle" (a cosine with a long warm-up) fall to `final` along half
    a cosine; kind "step" is divided by 10 after 1/2 and again after 3/4.
    """

    kind: str
    epochs: int
    peak: float
    final: float = 0.0
    warmup: float = 0.0

    def rate(self, progress: float) -> float:
        """The rate when `progress` (0 <= progress < 1) of the steps is done."""
        if progress < self.warmup:
            return self.peak * (progress + 1e-3) / (self.warmup + 1e-3)
        progress = (progress - self.warmup) / (1 - self.warmup)
        if self.kind == "step":
            return self.peak * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
        return self.final + (self.peak - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class TrainConfig:
    """What `train_child` needs beside the child and the images.

    recipe: a preset, of which `model`, `epochs` and the learning rate are not read. schedule: the
    learning rate, and the epochs with it. flip: whether images are mirrored at random. classes:
    how many there are.
    """

    recipe: Preset
    schedule: LearningRate
    flip: bool
    classes: int


class Epoch(NamedTuple):
    """Mean training loss of an epoch (nats an image), and the seconds spent on augmentation."""

    loss: float
    augment_seconds: float


@dataclass(frozen=True)
class Trained:
    """How a training went. It stops after the first epoch whose mean `loss` is NaN or infinite;
    else `loss` is that of the last epoch."""

    epochs: int
    image_passes: int
    loss: float
    augment_seconds: float
    seconds: float


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads inside torch: the number changes floating-point sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc to keep freed activations instead of returning them to the kernel.

    Each step frees and asks for the same tens of megabytes; page faults cost a fifth of a
    training step otherwise. Other C libraries are left alone.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt"):
            m_trim_threshold, m_mmap_threshold = -1, -3
            libc.mallopt(m_mmap_threshold, 2**30)
            libc.mallopt(m_trim_threshold, 2**31 - 1)


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA when there is one, else the CPU. InputError if there is no such device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(
            "device",
            f"must be cpu or one of this machine's {count} CUDA devices",
            name,
            "use auto",
        )
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The type convolutions compute in: `auto`, `float32`, `bfloat16` or
    `float16`.

    `auto` is bfloat16 where the hardware multiplies it faster (CUDA from Ampere on, CPUs with
    AVX512-BF16 or AMX: a step takes about 0.7 of the time) and float32 elsewhere. Weights,
    batch-norm statistics and losses are float32 always. On a cluster of unlike machines name one.
    """
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        name = "bfloat16" if fast else "float32"
    return getattr(torch, name)


class Arena:
    """The images of one task on one device, ready for training and evaluation.

    `augment(images uint8 [N, C, H, W]) -> same` is applied before crop and flip (the order of the
    paper's own code; torchvision's recipe applies it after).

    kernels: "plain", the network's own layers; or "fused", where there are such (`fused.py`), to
    train it.
    """

    def __init__(
        self,
        train: ImageSet,
        device: torch.device,
        precision: torch.dtype,
        kernels: str = "plain",
    ):
        keep_freed_memory()
        self.kernels = kernels
        self.device, self.precision = device, precision
        self.images = _tensor(train.images).to(device)
        self.labels = torch.from_numpy(train.labels.copy()).to(device)
        self.table = torch.from_numpy(normalisation(train.images)).to(device)

    def batches(self, images: np.ndarray) -> Iterator[Tensor]:
        """Normalised batches of held-out uint8 images, in order."""
        for start in range(0, len(images), EVALUATION_BATCH):
            part = _tensor(images[start : start + EVALUATION_BATCH]).to(self.device)
            count = len(part)
            yield prepare_batch(part, np.arange(count), no_jitter(count, 0), 0, self.table)

    @torch.inference_mode()
    def logits(self, child: nn.Module, images: np.ndarray) -> np.ndarray:
        """float64 [N, classes] of uint8 images [N, C, H, W]; the child is left in eval mode."""
        child.eval()
        with autocast(self.device, self.precision):
            parts = [child(batch).float().cpu() for batch in self.batches(images)]
        return torch.cat(parts).double().numpy()

    def learner(self, child: nn.Module, config: TrainConfig) -> Learner:
        """The child with its optimiser and whatever else the recipe asks for."""
        forward = fused(child, self.precision) if self.kernels == "fused" else None
        return Learner(child, config.recipe, config.classes, self.device, self.precision, forward)

    def train_epoch(
        self,
        learner: Learner,
        augment: Callable[[Tensor], Tensor] | None,
        config: TrainConfig,
        epoch: int,
        rng: np.random.Generator,
        rank: int = 0,
        world_size: int = 1,
    ) -> Epoch:
        """As many samples as there are images, in an order and with crops drawn from `rng`.

        `epoch` (0..epochs-1) is the place in the learning rate's schedule. Processes that train
        together give their rank and number, and have equal generators.
        """
        recipe, clock = config.recipe, time.perf_counter()
        plan = plan_epoch(
            len(self.labels), recipe.batch_size, recipe.copies, recipe.pad, config.flip, rng, rank,
            world_size,
        )  # fmt: skip
        done = epoch * len(plan.batches)
        steps = config.schedule.epochs * len(plan.batches)
        samples = torch.from_numpy(plan.order).to(self.device)
        images, places = self.images, plan.order
        if augment is not None and recipe.copies == world_size == 1:
            images = augment_all(images, augment)
        elif augment is not None:
            images, places = augment_all(images[samples], augment), np.arange(len(places))
        labels = self.labels[samples]
        augmenting = time.perf_counter() - clock
        total = torch.zeros((), device=self.device)
        learner.network.train()
        for rows, share in zip(plan.batches, plan.shares, strict=True):
            clock = time.perf_counter()
            draws = Jitter(*(values[rows] for values in plan.jitter))
            batch = prepare_batch(images, places[rows], draws, recipe.pad, self.table)
            augmenting += time.perf_counter() - clock
            total += learner.step(batch, labels[rows], config.schedule.rate(done / steps), share)
            done += 1
        return Epoch(total.item() / len(plan.batches), augmenting)

    def train_child(
        self,
        child: nn.Module,
        augment: Transform | ScheduleTransform | None,
        config: TrainConfig,
        seed: int,
    ) -> Trained:
        """Train `child` in place. The order of images and their crops depend on `seed` alone, so
        two augmentations under one seed see common random numbers."""
        started = time.perf_counter()
        rng = np.random.default_rng([seed, 1])
        learner = self.learner(child, config)
        epochs, done, augmenting, loss = config.schedule.epochs, 0, 0.0, 0.0
        with own_randomness(seed, self.device):
            while done < epochs and math.isfinite(loss):
                now = augmentation_for_epoch(augment, done, epochs)
                loss, seconds = self.train_epoch(learner, now, config, done, rng)
                augmenting += seconds
                done += 1
        if learner.average is not None:
            child.load_state_dict(learner.evaluated.state_dict())
        seconds = time.perf_counter() - started
        return Trained(done, done * len(self.labels), loss, augmenting, seconds)


def augment_all(images: Tensor, augment: Callable[[Tensor], Tensor]) -> Tensor:
    """Augment uint8 [N, C, H, W] in as few calls as AUGMENT_BYTES allows."""
    chunk = max(1, AUGMENT_BYTES // images[0].numel())
    if len(images) <= chunk:
        return augment(images)
    return torch.cat([augment(part) for part in images.split(chunk)])


@overload
def seeded_augment(augmentation: Transform | None, seed: int) -> Transform | None: ...


@overload
def seeded_augment(
    augmentation: Transform | ScheduleTransform | None, seed: int
) -> Transform | ScheduleTransform | None: ...


def seeded_augment(
    augmentation: Transform | ScheduleTransform | None, seed: int
) -> Transform | ScheduleTransform | None:
    """A copy of the transform that draws from its own generator."""
    if augmentation is None:
        return None
    return augmentation.with_generator(torch.Generator().manual_seed(seed))


def _tensor(array: np.ndarray) -> Tensor:
    # A copy: the task's arrays are read-only and shared between processes.
    return torch.from_numpy(np.array(array))
