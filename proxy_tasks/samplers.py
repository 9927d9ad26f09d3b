"""The order of an epoch's images, divided among processes.

Repeated augmentation puts several differently augmented copies of an image into one batch: Hoffer
et al. (arXiv:1901.09335) and Berman et al. (arXiv:1902.05509). An epoch has as many samples as
without repeats, hence fewer different images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from policies.errors import InputError, check_integer

from .batches import Jitter, draw_jitter


def repeated_order(
    count: int, repeats: int, batches: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """int64 [sum(batches)]: the images of an epoch, batch after batch.

    ceil(sum(batches) / repeats) of the images 0..count-1, drawn without replacement, follow each
    other with `repeats` copies each, cut to the total; then each batch is shuffled on its own,
    since mixing pairs neighbours. batches: the size of each, at most `count` in all.
    """
    total = sum(batches)
    different = rng.permutation(count)[: math.ceil(total / repeats)]
    order = np.repeat(different, repeats)[:total]
    if repeats > 1:
        for end, size in zip(np.cumsum(batches), batches, strict=True):
            rng.shuffle(order[end - size : end])
    return order


class EpochPlan(NamedTuple):
    """What one process trains on in an epoch.

    order: int64 [n], the image of each of its samples, batch after batch. jitter: their crops and
    flips. batches: a slice of the samples each. shares: by batch, how much of the mean over the
    whole batch the mean over this process's samples is, times the number of processes.
    """

    order: np.ndarray
    jitter: Jitter
    batches: list[slice]
    shares: list[float]


def batches_of(count: int, batch_size: int) -> int:
    """Batches of an epoch, none of a single image unless that is asked for."""
    most = count if batch_size == 1 else max(1, count // 2)
    return min(math.ceil(count / batch_size), most)


def plan_epoch(
    count: int,
    batch_size: int,
    copies: int,
    pad: int,
    flip: bool,
    rng: np.random.Generator,
    rank: int = 0,
    world_size: int = 1,
) -> EpochPlan:
    """Order, crops and flips of an epoch of `count` images.

    Everything is drawn for the whole, so that any number of processes with equal generators train
    on the same batches; they take turns in each. Batches are as equal as possible: a last batch of
    one image would upset batch norm (of an odd number in pairs one has three).
    """
    sizes = [len(part) for part in np.array_split(np.arange(count), batches_of(count, batch_size))]
    if min(sizes) < world_size:
        raise InputError(
            "batch_size", f"must leave an image for each of the {world_size} processes in every "
            f"batch of {count} images", batch_size, "use larger batches or fewer processes",
        )  # fmt: skip
    order = repeated_order(count, copies, sizes, rng)
    jitter = draw_jitter(count, pad, flip, rng)
    ends = np.cumsum(sizes)
    own = [np.arange(e - s + rank, e, world_size) for s, e in zip(sizes, ends, strict=True)]
    lengths = [len(part) for part in own]
    mine = np.concatenate(own)
    return EpochPlan(
        order[mine],
        Jitter(*(draws[mine] for draws in jitter)),
        [slice(int(e) - n, int(e)) for n, e in zip(lengths, np.cumsum(lengths), strict=True)],
        [n * world_size / size for n, size in zip(lengths, sizes, strict=True)],
    )


class RepeatedAugmentationSampler(Sampler[int]):
    """For a DataLoader: every image of an epoch comes `repeats` times in the same global batch.

    In each epoch, size // repeats of the images are drawn (rounded up). The processes of a
    distributed training take turns in the one global order, so that a global batch of `batch_size`
    samples is spread over them; each gets size // world_size samples.

    Example:
        >>> sampler = RepeatedAugmentationSampler(len(dataset), batch_size=64 * world_size,
        ...                                       rank=rank, world_size=world_size)
        >>> loader = DataLoader(dataset, batch_size=64, sampler=sampler)
        >>> for epoch in range(epochs):
        ...     sampler.set_epoch(epoch)

    Args:
        size: images of the data set.
        repeats: copies of an image in a batch, each augmented for itself by the data set.
        batch_size: samples of a batch over all processes. Copies at a batch's edge go on in the
            next one, unless it is a multiple of `repeats`.
        rank: this process, 0..world_size-1.
        world_size: processes.
        seed: equal in all processes.

    Raises:
        InputError: a number out of its range.
    """

    def __init__(
        self,
        size: int,
        repeats: int = 3,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        self.size, self.repeats = (
            check_integer("size", size, 1),
            check_integer("repeats", repeats, 1),
        )
        self.world_size = check_integer("world_size", world_size, 1, size)
        self.rank = check_integer("rank", rank, 0, world_size - 1)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        if batch_size % world_size:
            raise InputError(
                "batch_size", f"must be a multiple of the {world_size} processes", batch_size,
                "give the batch size over all processes",
            )  # fmt: skip
        self.seed = check_integer("seed", seed, 0)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Call it before each epoch, in every process: the order depends on seed and epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.world_size

    def __iter__(self) -> Iterator[int]:
        total = len(self) * self.world_size
        whole, rest = divmod(total, self.batch_size)
        batches = [self.batch_size] * whole + ([rest] if rest else [])
        rng = np.random.default_rng([self.seed, self.epoch])
        order = repeated_order(self.size, self.repeats, batches, rng)
        return iter(order[self.rank :: self.world_size].tolist())
