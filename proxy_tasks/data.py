"""Proxy tasks: small, seeded, disjoint draws from a data set, decoded once into uint8 arrays.

    task = get_task("folder", "~/photos", train_images=1000, seed=0)

Every draw is stratified (the same number of each class) and listed in the task's manifest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from policies.errors import InputError, check_choice, check_integer
from policies.images import free_memory
from policies.imports import import_path, is_import_path

from .datasets import Dataset, dataset_pools
from .draw import ORDER, Request, class_counts, shuffled
from .images import Decoded
from .leaks import Item, fingerprint, sentences, separate
from .manifest import Duplicates, Listing, Manifest
from .names import PARTS, SHARES
from .pools import Pools
from .sources import Source, read_all
from .tasks import OWN, TASKS, TaskSpec, own_task

P = ParamSpec("P")
R = TypeVar("R")
MAX_UNREADABLE = 0.01  # share of the drawn images that may be unreadable


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels: uint8 [N, C, H, W] (C = 1 or 3) and int64 [N]. Never written to."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images {'x'.join(map(str, self.images.shape[1:]))})"


@dataclass(frozen=True, eq=False)
class ProxyTask:
    """A reduced data set in memory.

    `train` trains child models, `validation` gives the reward of a search, `test` is read by final
    comparisons only; no two of them hold the same image. `notes` are sentences about what was
    found in the data and what was left out, for whoever starts a run to print.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    manifest: Manifest
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = " + ".join(str(len(rows)) for rows in self.manifest.parts.values())
        shape = "x".join(map(str, self.manifest.shape))
        return (
            f"ProxyTask({self.name}: {counts} images {shape} of {self.num_classes} classes, "
            f"manifest {self.manifest_hash[:16]})"
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def flip(self) -> bool:
        """Whether a mirrored image keeps its class (not so for digits)."""
        return self.manifest.flip

    @property
    def manifest_hash(self) -> str:
        """Names the images of all parts: 64 hex digits (show the first 16)."""
        return self.manifest.hash


def from_datasets(
    train: Dataset,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    train_images: int | None = None,
    validation_images: int | None = None,
    test_images: int | None = None,
    resolution: int | None = None,
    flip: bool | None = None,
    shares: str = "equal",
) -> ProxyTask:
    """Draw a proxy task from map-style torch Datasets of (image, label).

    Args:
        train, validation, test: without any random transform; images are PIL, uint8, or floats in
            0..1, of any size, grey or RGB (`datasets.as_image`). A part that is None is cut from
            train.
        class_names: default: `train.classes`, else the labels.
        seed and further: as for `get_task`. By default at most 4,000, 5,000 and 10,000 images; a
            part that is cut from train gets a fifth of it, and train the rest.

    Raises:
        InputError: what `get_task` raises; items that are no pairs of an image and a whole number;
            images that differ when they are read twice.
    """
    sizes = (train_images, validation_images, test_images)
    return _task(
        "datasets", OWN,
        lambda: dataset_pools(train, validation, test, class_names),
        seed, sizes, resolution, flip, shares,
    )  # fmt: skip


class _WithDatasets(Generic[P, R]):
    """A function with `from_datasets` beside it."""

    from_datasets = staticmethod(from_datasets)

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)


@_WithDatasets
def get_task(
    name: str | Callable[..., Any],
    data: str | Path | None = None,
    *,
    seed: int = 0,
    train_images: int | None = None,
    validation_images: int | None = None,
    test_images: int | None = None,
    resolution: int | None = None,
    flip: bool | None = None,
    shares: str = "equal",
    whole: bool = False,
) -> ProxyTask:
    """Draw a proxy task. The same arguments and files give the same manifest.

    Args:
        name: a key of `TASKS`; or a callable that makes torch Datasets of your own, or its import
            path "package.module:name" (`datasets.open_made`). `get_task.from_datasets` takes such
            Datasets themselves.
        data: the top of an ImageNet tree, a torchvision root, any folder of classes, or an .npz
            file (see `TASKS` for what each name accepts, `layouts` for folders and files;
            reduced-fashion needs none).
        seed: of the draw.
        train_images, validation_images, test_images: totals over all classes; None for the
            task's own numbers.
        resolution: side of the images in pixels, 8..1024.
        flip: whether children train with horizontal flips; None for what suits the task.
        shares: how a total is spread over the classes: "equal", "proportional" or "capped"
            (`names.SHARES`).
        whole: take all of train that the other parts leave, unless `train_images` says how many.

    Raises:
        InputError: an unknown name; a path or class that does not hold what is asked for; a part
            of which no image can be read, or is its own; more than 1 % of unreadable images.

    Up to 1 % of unreadable images are skipped; an image that is in several parts stays in the most
    protected one (test, validation, train). Both are listed in the manifest and told in `notes`.
    """
    task = import_path("task", name)
    if is_import_path(task):
        spec, root = own_task(task, data), Path()
    else:
        check_choice("task", task, (*TASKS, "package.module:name"))
        spec = TASKS[task]
        root = _check_root(task, spec, data)
    if whole:
        spec = replace(spec, counts=(None, *spec.counts[1:]))
    sizes = (train_images, validation_images, test_images)
    return _task(task, spec, lambda: spec.open(root, seed), seed, sizes, resolution, flip, shares)


def _task(
    name: str,
    spec: TaskSpec,
    pools: Callable[[], Pools],
    seed: int,
    sizes: tuple[int | None, ...],
    resolution: int | None,
    flip: bool | None,
    shares: str,
) -> ProxyTask:
    """A draw from the pools, which are opened once all else is right."""
    seed = check_integer("seed", seed, 0)
    side = spec.resolution if resolution is None else resolution
    side = check_integer("resolution", side, 8, 1024)
    check_choice("shares", shares, tuple(SHARES))
    if not isinstance(flip, bool | None):
        raise InputError("flip", "must be True, False or None", flip, "None suits the task")
    asked = dict(zip(PARTS, sizes, strict=True))
    for part, count in asked.items():
        if count is not None:
            check_integer(f"{part}_images", count, 1)
    opened = pools()
    chosen = _draw(spec, opened, asked, shares, seed)
    _check_memory(sum(len(indices) for _, indices in chosen.values()), side)
    return _read(name, opened, chosen, side, seed, spec.flip if flip is None else flip)


def _check_memory(images: int, side: int) -> None:
    """InputError, before hours of decoding, for images that memory cannot hold, twice meanwhile."""
    needed = 2 * images * 3 * side**2
    there = free_memory()
    if needed > there:
        raise InputError(
            "train_images", f"must leave the images room in memory, {there / 2**30:.0f} GB free",
            f"{images} images of {side} x {side} pixels, {needed / 2**30:.0f} GB in reading them",
            "draw fewer, or of a lower resolution",
        )  # fmt: skip


def _check_root(name: str, spec: TaskSpec, data: str | Path | None) -> Path:
    if not spec.needs_data:
        if data is not None:
            raise InputError("data", f"is not used by {name}", str(data), "leave it out")
        return Path()
    if data is None:
        raise InputError("data", f"is needed by {name}", None, f"give {spec.summary}")
    root = Path(data).expanduser()
    if not (root.is_dir() or (spec.takes_file and root.suffix == ".npz" and root.is_file())):
        what = "folder or an .npz file" if spec.takes_file else "folder"
        raise InputError("data", f"must be an existing {what}", str(data), f"give {spec.summary}")
    return root


# Images that a part takes: where from, and which (sorted).
Chosen = tuple[Source, np.ndarray]


# --- drawing -------------------------------------------------------------------------------------


def _draw(
    spec: TaskSpec, pools: Pools, asked: dict[str, int | None], shares: str, seed: int
) -> dict[str, Chosen]:
    """Which images each part takes; parts never overlap."""
    classes = len(pools.class_names)
    sources = pools.sources
    request = Request(
        pools.class_names,
        {p: np.bincount(s.labels, minlength=classes) for p, s in sources.items()},
        asked,
        dict(zip(PARTS, spec.counts, strict=True)),
        dict(zip(PARTS, spec.wishes, strict=True)),
        shares,
        seed,
    )  # fmt: skip
    counts = class_counts(request)
    queues = {p: shuffled(s.labels, classes, seed) for p, s in sources.items()}
    chosen = {}
    for part in ORDER:
        queue = queues[request.pool(part)]
        taken = [rows[:count] for rows, count in zip(queue, counts[part], strict=True)]
        queue[:] = [rows[count:] for rows, count in zip(queue, counts[part], strict=True)]
        chosen[part] = (sources[request.pool(part)], np.sort(np.concatenate(taken)))
    return {part: chosen[part] for part in PARTS}


# --- reading -------------------------------------------------------------------------------------


def _read(
    name: str, pools: Pools, chosen: Mapping[str, Chosen], side: int, seed: int, flip: bool
) -> ProxyTask:
    decoded = {part: read_all(*chosen[part], side, part) for part in PARTS}
    skipped = [
        (chosen[part][0].name(index), image.error)
        for part in PARTS
        for index, image in zip(chosen[part][1], decoded[part], strict=True)
        if image.pixels is None
    ]
    notes = [*pools.notes, *_skipped_note(skipped, sum(map(len, decoded.values())))]
    coloured = any(image.coloured for images in decoded.values() for image in images)
    channels = 3 if coloured else 1
    items, pixels = {}, {}
    for part in PARTS:
        pixels[part], items[part] = _read_part(*chosen[part], decoded.pop(part), channels, side)
    kept, duplicates = separate(items, pools.class_names)
    notes += sentences(duplicates)
    _check_left(kept, duplicates, pools.class_names, [name for name, _ in skipped])
    sets = {part: _image_set(pixels[part], kept[part]) for part in PARTS}
    manifest = Manifest(
        name, seed, pools.source, (channels, side, side), flip, pools.class_names,
        {part: Listing((i.name, i.label, i.content) for i in kept[part]) for part in PARTS},
        tuple(name for name, _ in skipped), duplicates,
    )  # fmt: skip
    return ProxyTask(name, **sets, class_names=pools.class_names, manifest=manifest,
                     notes=tuple(notes))  # fmt: skip


def _read_part(
    source: Source, indices: np.ndarray, decoded: list[Decoded], channels: int, side: int
) -> tuple[np.ndarray, list[Item]]:
    """The images that could be read, uint8 [N, C, H, W], and what is known of each."""
    images = np.empty((len(decoded), channels, side, side), np.uint8)
    items: list[Item] = []
    for index, image in zip(indices, decoded, strict=True):
        if image.pixels is not None:
            place = len(items)
            # [H, W] becomes one channel, or three that are equal.
            grey = image.pixels.ndim == 2
            images[place] = image.pixels if grey else image.pixels.transpose(2, 0, 1)
            items.append(
                Item(source.name(index), int(source.labels[index]), fingerprint(images[place]),
                     image.content, place)
            )  # fmt: skip
    return images, items


def _image_set(images: np.ndarray, items: list[Item]) -> ImageSet:
    if len(items) < len(images):
        images = images[[item.place for item in items]]
    labels = np.array([item.label for item in items], np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return ImageSet(images, labels)


def _check_left(
    kept: dict[str, list[Item]],
    duplicates: Duplicates,
    class_names: tuple[str, ...],
    skipped: list[str],
) -> None:
    """InputError for a part without images, and for a class that train lost to other parts."""
    for part in PARTS:
        present = {row.label for row in kept[part]}
        missing = [name for label, name in enumerate(class_names) if label not in present]
        if not missing or (part != "train" and present):
            continue
        copies = [row for row in duplicates.removed if row[1] == part]
        if copies:
            raise InputError(
                "data",
                f"{part} must hold images of class {missing[0]!r} that no other part holds",
                f"only copies, such as {copies[0][0]} of {copies[0][2]}",
                "take the copies out of the other parts, or add images",
            )
        raise InputError(
            "data",
            f"the {part} part must hold images that can be read",
            skipped,
            f"restore them or draw more (--{part}-images)",
        )


def _skipped_note(skipped: list[tuple[str, str]], total: int) -> list[str]:
    """What to say of images that cannot be read; InputError when they are too many."""
    if not skipped:
        return []
    named = ", ".join(f"{name} ({reason})" for name, reason in skipped[:3])
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    if len(skipped) > MAX_UNREADABLE * total:
        raise InputError(
            "data",
            f"at most {MAX_UNREADABLE:.0%} of the drawn images may be unreadable",
            f"{len(skipped)} of {total}",
            f"restore, convert or remove {named}{more}",
        )
    return [f"skipped {len(skipped)} of {total} images that cannot be read: {named}{more}"]
