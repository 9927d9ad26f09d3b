"""Proxy tasks: small, seeded, disjoint draws from a data set, decoded once into uint8 arrays.

    task = get_task("folder", "~/photos", train_images=1000, seed=0)

Every draw is stratified (the same number of each class) and listed in the task's manifest.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from policies.errors import InputError, check_choice, check_integer

from .draw import ORDER, Request, class_counts, shuffled
from .manifest import make_manifest, manifest_hash
from .names import PARTS, SHARES
from .sources import Source, read_all
from .tasks import TASKS, Pools, TaskSpec

MAX_UNREADABLE = 0.01  # share of the drawn images that may be unreadable


class UnreadableImages(UserWarning):
    """Some drawn images could not be read and were left out."""


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels: uint8 [N, C, H, W] (C = 1 or 3) and int64 [N]. Never written to."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ProxyTask:
    """A reduced data set in memory.

    `train` trains child models, `validation` gives the reward of a search, `test` is read by final
    comparisons only. `flip` says whether a mirrored image keeps its class (not so for digits).
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    manifest: dict = field(repr=False)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def flip(self) -> bool:
        return self.manifest["flip"]

    @cached_property
    def manifest_hash(self) -> str:
        """sha256 of the manifest, 64 hex digits (show the first 16)."""
        return manifest_hash(self.manifest)


def get_task(
    name: str,
    data: str | Path | None = None,
    *,
    seed: int = 0,
    train_images: int | None = None,
    validation_images: int | None = None,
    test_images: int | None = None,
    resolution: int | None = None,
    flip: bool | None = None,
    shares: str = "equal",
) -> ProxyTask:
    """Draw a proxy task. The same arguments and files give the same manifest.

    Args:
        name: a key of `TASKS`.
        data: the top of an ImageNet tree, a torchvision root, or any folder
            `train/<class>/… [val|test]/<class>/…` (see `TASKS` for what each name accepts;
            reduced-fashion needs none).
        seed: of the draw.
        train_images, validation_images, test_images: totals over all classes; None for the
            task's own numbers.
        resolution: side of the images in pixels, 8..1024.
        flip: whether children train with horizontal flips; None for what suits the task.
        shares: how a total is spread over the classes: "equal", "proportional" or "capped"
            (`names.SHARES`).

    Raises:
        InputError: an unknown name; a path or class that does not hold what is asked for; a part
            of which no image can be read; more than 1 % of unreadable images (up to that they are
            skipped and listed in the manifest).
    """
    check_choice("task", name, TASKS)
    seed = check_integer("seed", seed, 0)
    spec = TASKS[name]
    side = spec.resolution if resolution is None else resolution
    if not isinstance(side, int) or not 8 <= side <= 1024:
        raise InputError("resolution", "must be 8..1024 pixels", side, "32 suits the cpu preset")
    check_choice("shares", shares, tuple(SHARES))
    asked = dict(zip(PARTS, (train_images, validation_images, test_images), strict=True))
    for part, count in asked.items():
        if count is not None:
            check_integer(f"{part}_images", count, 1)
    root = _check_root(name, spec, data)
    pools = spec.open(root, seed)
    chosen = _draw(spec, pools, asked, shares, seed)
    flip = spec.flip if flip is None else flip
    return _read(name, pools, chosen, side, seed, flip)


def _check_root(name: str, spec: TaskSpec, data: str | Path | None) -> Path | None:
    if not spec.needs_data:
        if data is not None:
            raise InputError("data", f"is not used by {name}", str(data), "leave it out")
        return None
    if data is None:
        raise InputError("data", f"is needed by {name}", None, f"give {spec.summary}")
    root = Path(data).expanduser()
    if not root.is_dir():
        raise InputError("data", "must be an existing folder", str(data), f"give {spec.summary}")
    return root


# --- drawing -------------------------------------------------------------------------------------


def _draw(
    spec: TaskSpec, pools: Pools, asked: dict[str, int | None], shares: str, seed: int
) -> dict[str, tuple[Source, np.ndarray]]:
    """Which images each part takes, as (source, sorted indices); parts never overlap."""
    classes = len(pools.class_names)
    sources = {part: getattr(pools, part) for part in PARTS}
    request = Request(
        pools.class_names,
        {p: None if s is None else np.bincount(s.labels, minlength=classes)
         for p, s in sources.items()},
        asked,
        dict(zip(PARTS, spec.counts, strict=True)),
        dict(zip(PARTS, spec.wishes, strict=True)),
        shares,
        seed,
    )  # fmt: skip
    counts = class_counts(request)
    queues = {p: shuffled(s.labels, classes, seed) for p, s in sources.items() if s is not None}
    chosen = {}
    for part in ORDER:
        queue = queues[request.pool(part)]
        taken = [rows[:count] for rows, count in zip(queue, counts[part], strict=True)]
        queue[:] = [rows[count:] for rows, count in zip(queue, counts[part], strict=True)]
        chosen[part] = (sources[request.pool(part)], np.sort(np.concatenate(taken)))
    return {part: chosen[part] for part in PARTS}


# --- reading -------------------------------------------------------------------------------------


def _read(name: str, pools: Pools, chosen: dict, side: int, seed: int, flip: bool) -> ProxyTask:
    sets, rows, skipped, reasons = {}, {}, [], []
    decoded = {
        part: read_all(source, indices, side, part) for part, (source, indices) in chosen.items()
    }
    everything = [d for part in decoded.values() for d in part if d.pixels is not None]
    channels = 1 if everything and all(d.grey for d in everything) else 3
    for part, (source, indices) in chosen.items():
        pixels, labels, listed = [], [], []
        for index, image in zip(indices, decoded[part], strict=True):
            if image.pixels is None:
                skipped.append(source.name(index))
                reasons.append(image.error)
                continue
            pixels.append(_channels_first(image.pixels, channels))
            labels.append(source.labels[index])
            listed.append([source.name(index), int(source.labels[index]), image.content])
        rows[part] = listed
        if pixels:
            sets[part] = ImageSet(np.stack(pixels), np.array(labels, np.int64))
            sets[part].images.flags.writeable = sets[part].labels.flags.writeable = False
    _check_skipped(skipped, reasons, sum(len(part) for part in decoded.values()))
    for part in PARTS:
        if part not in sets:
            raise InputError(
                "data",
                f"the {part} part must hold images that can be read",
                skipped,
                f"restore them or draw more (--{part}-images)",
            )
    shape = (channels, side, side)
    manifest = make_manifest(
        name, seed, pools.source, shape, flip, pools.class_names, rows, skipped
    )
    return ProxyTask(name, *(sets[p] for p in PARTS), pools.class_names, manifest)


def _channels_first(pixels: np.ndarray, channels: int) -> np.ndarray:
    if pixels.ndim == 2:
        return np.broadcast_to(pixels, (channels, *pixels.shape))
    return pixels.transpose(2, 0, 1)


def _check_skipped(skipped: list[str], reasons: list[str], total: int) -> None:
    if not skipped:
        return
    named = ", ".join(f"{n} ({r})" for n, r in list(zip(skipped, reasons, strict=True))[:3])
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    if len(skipped) > MAX_UNREADABLE * total:
        raise InputError(
            "data",
            f"at most {MAX_UNREADABLE:.0%} of the drawn images may be unreadable",
            f"{len(skipped)} of {total}",
            f"restore or remove {named}{more}",
        )
    warnings.warn(
        f"skipped {len(skipped)} of {total} images that cannot be read: {named}{more}",
        UnreadableImages,
        stacklevel=4,
    )
