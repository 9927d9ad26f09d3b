"""Training one child model, and its logits on held-out images. One code path for CPU and CUDA."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from policies.errors import InputError
from policies.schedule import ScheduleTransform, augmentation_for_epoch
from policies.together import join, transform_copies
from policies.transforms import SampleAware, Transform

from .batches import no_jitter, normalisation, prepare_batch, upload
from .data import ImageSet
from .fused import fused
from .graphs import Replayed, record_cuda
from .learner import Learner, autocast
from .models import own_randomness
from .presets import Preset
from .samplers import EpochPlan, plan_epoch
from .stacked import side_by_side, stack, unstack

# A whole epoch is augmented in one call (fewer, longer calls), unless it is larger than this.
AUGMENT_BYTES = 64 * 2**20
EVALUATION_BATCH = 256
EVALUATED_PASS = 1 / 3  # cost of a forward pass, in forward-and-backward passes

Augment = Callable[[Tensor], Tensor]


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
            # glibc before 2.35 takes no more than 32 MiB, and without it maps all above 128 KiB.
            libc.mallopt(m_mmap_threshold, 2**30) or libc.mallopt(m_mmap_threshold, 2**25)
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
    return getattr(torch, name)


class Arena:
    """The images of one task on one device, ready for training and evaluation.

    `augment(images uint8 [N, C, H, W]) -> same` is applied before crop and flip (the order of the
    paper's own code; torchvision's recipe applies it after).

    kernels: how it is trained: "plain", the network's own layers; "fused", where there are such
    (`fused.py`); "graphs", recorded steps on a GPU (`graphs.py`).
    """

    def __init__(
        self,
        train: ImageSet,
        device: torch.device,
        precision: torch.dtype,
        kernels: str = "plain",
    ):
        keep_freed_memory()
        if device.type == "cuda":
            # An algorithm that is chosen by its time would differ between processes, and results.
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.kernels, self.record = kernels, record_cuda
        self.device, self.precision = device, precision
        self.images = _tensor(train.images).to(device)
        self.labels = train.labels
        self.table = torch.from_numpy(normalisation(train.images)).to(device)
        self._kept: dict[int, tuple[np.ndarray, Tensor]] = {}

    def keep(self, images: np.ndarray) -> None:
        """Have held-out images, which are evaluated again and again, stay on a GPU."""
        if self.device.type == "cuda":
            self._kept[id(images)] = images, _tensor(images).to(self.device)

    def batches(self, images: np.ndarray | Tensor) -> Iterator[Tensor]:
        """Normalised batches of held-out uint8 images, in order."""
        kept = self._kept.get(id(images))
        for start in range(0, len(images), EVALUATION_BATCH):
            here = slice(start, start + EVALUATION_BATCH)
            part = _tensor(images[here]).to(self.device) if kept is None else kept[1][here]
            count = len(part)
            draws = upload([np.arange(count), *no_jitter(count, 0)], self.device)
            yield prepare_batch(part, draws, 0, self.table)

    @torch.inference_mode()
    def logits(self, child: nn.Module, images: np.ndarray | Tensor) -> np.ndarray:
        """float64 [N, classes] of uint8 images [N, C, H, W]; the child is left in eval mode."""
        child.eval()
        with autocast(self.device, self.precision):
            parts = [child(batch).float() for batch in self.batches(images)]
        return torch.cat(parts).cpu().double().numpy()

    def told(
        self, augments: Sequence[Transform | None], children: Sequence[nn.Module]
    ) -> list[Transform | None]:
        """The augmentations, of which those that follow the sample know what is easy to whom."""
        return [
            augment.aware_of(self.ease(child)) if isinstance(augment, SampleAware) else augment
            for augment, child in zip(augments, children, strict=True)
        ]

    def ease(self, child: nn.Module) -> np.ndarray:
        """float64 [N] in [0, 1): of how many images, as a share, the child's loss is larger.

        The images as they are; equal losses in the order of the images.
        """
        logits = torch.from_numpy(self.logits(child, self.images))
        losses = nn.functional.cross_entropy(
            logits, torch.from_numpy(np.array(self.labels)), reduction="none"
        )
        ease = np.empty(len(losses))
        ease[np.argsort(-losses.numpy(), kind="stable")] = np.arange(len(losses)) / len(losses)
        return ease

    def learner(self, child: nn.Module, config: TrainConfig, children: int = 1) -> Learner:
        """The child with its optimiser and whatever else the recipe asks for; or a stack of so
        many `children`."""
        alone = self.kernels == "fused" and children == 1
        return Learner(
            child, config.recipe, config.classes, self.device, self.precision,
            fused(child, self.precision) if alone else None, children, self.kernels == "graphs",
        )  # fmt: skip

    def train_epoch(
        self,
        learner: Learner,
        augment: Augment | None,
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
        (loss,), seconds = self.train_epochs(
            learner, [augment], config, epoch, [rng], rank, world_size
        )
        return Epoch(loss, seconds)

    def train_epochs(
        self,
        learner: Learner,
        augments: Sequence[Augment | None],
        config: TrainConfig,
        epoch: int,
        rngs: Sequence[np.random.Generator],
        rank: int = 0,
        world_size: int = 1,
    ) -> tuple[list[float], float]:
        """As `train_epoch`, of each child of a stack; returns their losses, and the seconds."""
        clock, count, recipe = time.perf_counter(), len(augments), config.recipe
        plans = [
            plan_epoch(
                len(self.labels), recipe.batch_size, recipe.copies, recipe.pad, config.flip, rng,
                rank, world_size,
            )
            for rng in rngs
        ]  # fmt: skip
        plan = plans[0]  # whose batches are those of all
        if recipe.copies == world_size == 1:
            pixels = self._augmented(augments)
            starts = [k * len(self.images) for k in range(count)]
            places = [each.order + start for each, start in zip(plans, starts, strict=True)]
        else:
            pixels, places = self._augmented_samples(augments, plans)
        # Of each child's samples: the place among the pixels of all, crop, flip and label.
        rows = [
            (place, *each.jitter, self.labels[each.order])
            for place, each in zip(places, plans, strict=True)
        ]
        draws = upload([np.stack(row, -1) for row in zip(*rows, strict=True)], self.device)
        done = epoch * len(plan.batches)
        steps = config.schedule.epochs * len(plan.batches)
        augmenting = time.perf_counter() - clock
        total = torch.zeros(() if count == 1 else count, device=self.device)
        learner.network.train()

        def prepared(images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
            flat = draws.flatten(1)
            batch = prepare_batch(images, flat[:4], recipe.pad, self.table)
            return side_by_side(batch, count), flat[4] if count == 1 else draws[4]

        if self.kernels == "graphs" and learner.replayed is None:
            # Weakly: else learner and graphs, and their memory, would wait for the collector.
            own = weakref.proxy(learner)
            learner.replayed = Replayed(
                lambda images, draws: own.step(*prepared(images, draws), rate=None), self.record
            )
        for part, share in zip(plan.batches, plan.shares, strict=True):
            rate = config.schedule.rate(done / steps)
            if learner.replayed is not None:
                learner.set_rate(rate)
                total += learner.replayed(pixels, draws[:, part])
            else:
                clock = time.perf_counter()
                batch, labels = prepared(pixels, draws[:, part])
                augmenting += time.perf_counter() - clock
                total += learner.step(batch, labels, rate, share)
            done += 1
        losses = [loss / len(plan.batches) for loss in total.reshape(-1).tolist()]
        return losses, augmenting

    def _augmented(self, augments: Sequence[Augment | None]) -> Tensor:
        """The images under each augmentation, one after the other: uint8 [K * M, C, H, W]."""
        whole = len(self.images) * self.images[0].numel() <= AUGMENT_BYTES
        if len(augments) > 1 and self.device.type != "cpu" and whole and join(augments):
            return transform_copies(cast(Sequence[Transform | None], augments), self.images)
        parts = [
            self.images if augment is None else augment_all(self.images, augment)
            for augment in augments
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _augmented_samples(
        self, augments: Sequence[Augment | None], plans: Sequence[EpochPlan]
    ) -> tuple[Tensor, list[np.ndarray]]:
        """The samples of each plan under its augmentation, and their places among all of them."""
        parts, places, start = [], [], 0
        for augment, plan in zip(augments, plans, strict=True):
            if augment is None:
                part, place = self.images, plan.order
            else:
                if isinstance(augment, SampleAware):
                    augment = augment.of(plan.order)
                samples = self.images[upload([plan.order], self.device)[0]]
                part, place = augment_all(samples, augment), np.arange(len(plan.order))
            parts.append(part)
            places.append(place + start)
            start += len(part)
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), places

    def train_child(
        self,
        child: nn.Module,
        augment: Transform | ScheduleTransform | None,
        config: TrainConfig,
        seed: int,
    ) -> Trained:
        """Train `child` in place. The order of images and their crops depend on `seed` alone, so
        two augmentations under one seed see common random numbers."""
        return self.train_children([child], [augment], config, [seed])[0]

    def train_children(
        self,
        children: Sequence[nn.Module],
        augments: Sequence[Transform | ScheduleTransform | None],
        config: TrainConfig,
        seeds: Sequence[int],
    ) -> list[Trained]:
        """As `train_child` for each of them, at once: to within rounding the same.

        The seconds of each are its share. One that diverges does not touch the others. Raises
        ValueError for children that cannot be stacked.
        """
        started, count = time.perf_counter(), len(children)
        rngs = [np.random.default_rng([seed, 1]) for seed in seeds]
        learner = self.learner(stack(children), config, count)
        epochs, augmenting = config.schedule.epochs, 0.0
        losses, ended = [0.0] * count, [0] * count
        # What children at once train by draws nothing from torch's generator: see `Children`.
        with own_randomness(seeds[0], self.device):
            for epoch in range(epochs):
                now = [augmentation_for_epoch(augment, epoch, epochs) for augment in augments]
                if epoch and follows(augments):
                    if count > 1:
                        unstack(learner.network, children)
                    now = self.told(now, children)
                found, seconds = self.train_epochs(learner, now, config, epoch, rngs)
                augmenting += seconds
                for k, loss in enumerate(found):
                    if math.isfinite(losses[k]):  # alone it would have stopped
                        losses[k], ended[k] = loss, epoch + 1
                if not any(map(math.isfinite, losses)):
                    break
        if learner.evaluated is not children[0]:
            unstack(learner.evaluated, children)
        share = (time.perf_counter() - started) / count
        made = []
        for done, loss, augment in zip(ended, losses, augments, strict=True):
            passes = trained_passes(done, len(self.labels), augment)
            made.append(Trained(done, passes, loss, augmenting / count, share))
        return made


def follows(augments: Sequence[object]) -> bool:
    """Whether one of them asks before every epoch but the first what is easy to its child."""
    return any(isinstance(augment, SampleAware) for augment in augments)


def trained_passes(epochs: int, images: int, augment: object) -> int:
    """Image passes of so many epochs, and of what was looked at to tell what is easy."""
    looked_at = max(0, epochs - 1) * follows([augment])
    return round((epochs + looked_at * EVALUATED_PASS) * images)


def augment_all(images: Tensor, augment: Callable[[Tensor], Tensor]) -> Tensor:
    """Augment uint8 [N, C, H, W] in as few calls as AUGMENT_BYTES allows."""
    chunk = max(1, AUGMENT_BYTES // images[0].numel())
    if len(images) <= chunk:
        return augment(images)
    augmented = torch.empty_like(images)  # not the parts and all of them: twice the memory
    for place, part in zip(augmented.split(chunk), images.split(chunk), strict=True):
        place.copy_(augment(part))
    return augmented


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


def _tensor(array: np.ndarray | Tensor) -> Tensor:
    if isinstance(array, Tensor):
        return array
    # A copy: the task's arrays are read-only and shared between processes.
    return torch.from_numpy(np.array(array))
