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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.errors import InputError
from policies.schedule import ScheduleTransform, augmentation_for_epoch
from policies.transforms import Transform

from .batches import draw_jitter, no_jitter, normalisation, prepare_batch
from .data import ImageSet
from .models import own_randomness

# A whole epoch is augmented in one call (fewer, longer calls), unless it is larger than this.
AUGMENT_BYTES = 64 * 2**20
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class LearningRate:
    """Learning rate over training: `epochs`, `peak`, and where the rate ends (`final`).

    kind "cosine": from `peak` to `final`. kind "one-cycle": linear from 0 to `peak` over the first
    `warmup` share of the steps, then cosine to `final`.
    """

    kind: str
    epochs: int
    peak: float
    final: float = 0.0
    warmup: float = 0.0

    def rate(self, progress: float) -> float:
        """The rate when `progress` (0 <= progress < 1) of the steps is done."""
        if self.kind == "one-cycle":
            if progress < self.warmup:
                return self.peak * (progress + 1e-3) / (self.warmup + 1e-3)
            progress = (progress - self.warmup) / (1 - self.warmup)
        return self.final + (self.peak - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class TrainConfig:
    """What `train_child` needs beside the child and the images."""

    schedule: LearningRate
    batch_size: int
    weight_decay: float
    momentum: float
    pad: int
    flip: bool


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
    """The type convolutions compute in: `auto`, `float32` or `bfloat16`.

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
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


class Arena:
    """The images of one task on one device, ready for training and evaluation.

    `augment(images uint8 [N, C, H, W]) -> same` is applied before crop and flip (the order of the
    paper's own code; torchvision's recipe applies it after).
    """

    def __init__(self, train: ImageSet, device: torch.device, precision: torch.dtype):
        keep_freed_memory()
        self.device, self.precision = device, precision
        self.images = _tensor(train.images).to(device)
        self.labels = torch.from_numpy(train.labels.copy()).to(device)
        self.table = torch.from_numpy(normalisation(train.images)).to(device)

    def autocast(self) -> torch.autocast:
        on = self.precision is not torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=on)

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
        with self.autocast():
            parts = [child(batch).float().cpu() for batch in self.batches(images)]
        return torch.cat(parts).double().numpy()

    def optimizer(self, child: nn.Module, config: TrainConfig) -> torch.optim.SGD:
        """SGD with Nesterov momentum; `train_epoch` sets the rate before every step."""
        return torch.optim.SGD(
            child.parameters(),
            lr=0.0,
            momentum=config.momentum,
            nesterov=True,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def train_epoch(
        self,
        child: nn.Module,
        optimizer: torch.optim.SGD,
        augment: Callable[[Tensor], Tensor] | None,
        config: TrainConfig,
        epoch: int,
        rng: np.random.Generator,
    ) -> Epoch:
        """Every image once, in an order and with crops drawn from `rng`.

        `epoch` (0..epochs-1) is the place in the learning rate's schedule.
        """
        count = len(self.labels)
        # Batches as equal as possible: a last batch of one image would upset batch norm.
        parts = np.array_split(np.arange(count), math.ceil(count / config.batch_size))
        done, steps = epoch * len(parts), config.schedule.epochs * len(parts)
        child.train()
        clock = time.perf_counter()
        images = self.images if augment is None else augment_all(self.images, augment)
        order = rng.permutation(count)
        labels = self.labels[torch.from_numpy(order).to(self.device)]
        jitter = draw_jitter(count, config.pad, config.flip, rng)
        augmenting = time.perf_counter() - clock
        total = torch.zeros((), device=self.device)
        for part in parts:
            clock = time.perf_counter()
            rows = slice(int(part[0]), int(part[-1]) + 1)
            draws = type(jitter)(*(values[rows] for values in jitter))
            batch = prepare_batch(images, order[rows], draws, config.pad, self.table)
            augmenting += time.perf_counter() - clock
            optimizer.param_groups[0]["lr"] = config.schedule.rate(done / steps)
            with self.autocast():
                loss = F.cross_entropy(child(batch), labels[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
            done += 1
        return Epoch(total.item() / len(parts), augmenting)

    def train_child(
        self,
        child: nn.Module,
        augment: Callable[[Tensor], Tensor] | ScheduleTransform | None,
        config: TrainConfig,
        seed: int,
    ) -> Trained:
        """Train `child` in place. The order of images and their crops depend on `seed` alone, so
        two augmentations under one seed see common random numbers."""
        started = time.perf_counter()
        rng = np.random.default_rng([seed, 1])
        optimizer = self.optimizer(child, config)
        epochs, done, augmenting, loss = config.schedule.epochs, 0, 0.0, 0.0
        with own_randomness(seed, self.device):
            while done < epochs and math.isfinite(loss):
                now = augmentation_for_epoch(augment, done, epochs)
                loss, seconds = self.train_epoch(child, optimizer, now, config, done, rng)
                augmenting += seconds
                done += 1
        seconds = time.perf_counter() - started
        return Trained(done, done * len(self.labels), loss, augmenting, seconds)


def augment_all(images: Tensor, augment: Callable[[Tensor], Tensor]) -> Tensor:
    """Augment uint8 [N, C, H, W] in as few calls as AUGMENT_BYTES allows."""
    chunk = max(1, AUGMENT_BYTES // images[0].numel())
    if len(images) <= chunk:
        return augment(images)
    return torch.cat([augment(part) for part in images.split(chunk)])


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
