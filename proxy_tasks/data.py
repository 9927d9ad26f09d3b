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

from .manifest import make_manifest, manifest_hash
from .sources import Source, read_all
from .tasks import PARTS, TASKS, Pools, TaskSpec

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
) -> ProxyTask:
    """Draw a proxy task.

    `data` is the top of an ImageNet tree, a torchvision root, or any folder
    `train/<class>/… [val|test]/<class>/…` (see `TASKS` for what each name accepts; reduced-fashion
    needs none). `*_images` are totals over all classes, spread evenly; `resolution` is the side of
    the images in pixels, 8..1024; `flip` overrides whether children train with horizontal flips.
    The same arguments and files give the same manifest, whatever the file system's order.

    Raises InputError for an unknown name, a path or class that does not hold what is asked for,
    a part of which no image can be read, and more than 1 % of unreadable images (up to that they
    are skipped and listed in the manifest).
    """
    check_choice("task", name, TASKS)
    seed = check_integer("seed", seed, 0)
    spec = TASKS[name]
    side = spec.resolution if resolution is None else resolution
    if not isinstance(side, int) or not 8 <= side <= 1024:
        raise InputError("resolution", "must be 8..1024 pixels", side, "32 suits the cpu preset")
    asked = (train_images, validation_images, test_images)
    for part, count in zip(PARTS, asked, strict=True):
        if count is not None:
            check_integer(f"{part}_images", count, 1)
    root = _check_root(name, spec, data)
    pools = spec.open(root, seed)
    chosen = _draw(spec, pools, asked, seed)
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
    spec: TaskSpec, pools: Pools, asked: tuple[int | None, ...], seed: int
) -> dict[str, tuple[Source, np.ndarray]]:
    """Which images each part takes, as (source, sorted indices); parts never overlap."""
    classes = len(pools.class_names)
    order = {id(s): _shuffled(s.labels, classes, seed) for s in pools[2:] if s is not None}
    used = {key: np.zeros(classes, np.int64) for key in order}
    chosen = {}
    # Held-out parts are taken first, so that "all there are" never eats them.
    wants = {part: _wanted(spec, pools, part, asked, order, seed) for part in PARTS}
    for part in ("validation", "test", "train"):
        source = getattr(pools, part) or pools.train
        per_class, start = order[id(source)], used[id(source)]
        counts = wants[part]
        if counts is None:
            counts = np.array([len(rows) for rows in per_class]) - start
        for label, rows in enumerate(per_class):
            left = len(rows) - start[label]
            if counts[label] > left or counts[label] < 1:
                _too_few(pools, part, label, int(counts[label]), left, asked)
        indices = [r[s : s + c] for r, s, c in zip(per_class, start, counts, strict=True)]
        start += counts
        chosen[part] = (source, np.sort(np.concatenate(indices)))
    return {part: chosen[part] for part in PARTS}


def _shuffled(labels: np.ndarray, classes: int, seed: int) -> list[np.ndarray]:
    """For each class, its indices in seeded random order."""
    return [
        np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        for label in range(classes)
    ]


def _wanted(
    spec: TaskSpec,
    pools: Pools,
    part: str,
    asked: tuple[int | None, ...],
    order: dict[int, list[np.ndarray]],
    seed: int,
) -> np.ndarray | None:
    """Images of each class that a part takes, int64 [classes]; None for all that are left."""
    position, classes = PARTS.index(part), len(pools.class_names)
    total = asked[position] if asked[position] is not None else spec.counts[position]
    if total is None:
        return None
    if asked[position] is not None and total < classes:
        raise InputError(
            f"{part}_images",
            f"must be at least the number of classes ({classes})",
            total,
            f"use at least {classes}",
        )
    counts = np.full(classes, total // classes, np.int64)
    # An uneven total: the classes that get one image more are drawn too.
    extra = np.random.default_rng([seed, classes, position]).permutation(classes)
    counts[extra[: total % classes]] += 1
    if asked[position] is None and spec.shares[position] is not None:
        own = getattr(pools, part)
        available = np.array([len(rows) for rows in order[id(own or pools.train)]])
        share = 1.0 if own is not None and part != "train" else spec.shares[position]
        counts = np.minimum(counts, np.maximum(1, (share * available).astype(np.int64)))
    return counts


def _too_few(pools: Pools, part: str, label: int, wanted: int, left: int, asked: tuple) -> None:
    where = part if getattr(pools, part) is not None else "train"
    others = "" if where == part == "test" else " after the other parts took theirs"
    most = max(left, 0) * len(pools.class_names)
    fix = f"use at most --{part}-images {most}" if most else "add images or use fewer for the rest"
    raise InputError(
        f"{part}_images",
        f"needs {max(wanted, 1)} images of class {pools.class_names[label]!r}",
        f"{left}{others}",
        fix,
    )


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
