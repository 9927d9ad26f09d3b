"""The tasks by name: where each finds its images, and how many of them it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from policies.errors import InputError

from .datasets import open_made
from .layouts import SUMMARY, classes_below, open_any, pool, subfolders
from .names import PARTS
from .pools import Pools, make_pools
from .sources import ArraySource

CUT = 0.2  # share of each class of train that a part cut from it takes, where it has so many


@dataclass(frozen=True)
class TaskSpec:
    """A task by name: how its pools are opened and how much of them it takes.

    `open` takes the path that a user gave (any, where the task `needs_data` of none) and the seed.

    `counts` are the default images of train, validation and test; None means all there are. Where
    `wishes` has a number, the default count is only wished for: it shrinks to that share of each
    class when held out of train/, to all there is in a folder of its own, and that of train to what
    the others leave.
    """

    summary: str
    open: Callable[[Path, int], Pools]
    counts: tuple[int | None, int | None, int | None]
    resolution: int
    flip: bool = True
    needs_data: bool = True
    takes_file: bool = False
    wishes: tuple[float | None, ...] = (None, None, None)


def _open_imagenet(classes: int, root: Path, seed: int) -> Pools:
    """Classes drawn from the tree; the official validation images are the test part."""
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise InputError(
                "data",
                "must be the top of an ImageNet tree with train/<wnid>/ and val/<wnid>/",
                f"{root} without {part}/",
                "give the folder that holds train/ and val/",
            )
    found = subfolders(root / "train")
    if len(found) < classes:
        raise InputError(
            "data",
            f"reduced-imagenet needs {classes} classes in train/",
            len(found),
            "use the task 'folder' for a tree with fewer classes",
        )
    drawn = np.random.default_rng([seed, classes]).permutation(len(found))[:classes]
    names = [found[i] for i in sorted(drawn)]
    parts = {part: classes_below(root, part, names) for part in ("train", "val")}
    sources = {"train": pool(root, parts["train"], names), "test": pool(root, parts["val"], names)}
    return make_pools("ImageNet tree", names, sources, [])


def _torchvision_or_folder(
    arrays: Callable[[Path], tuple[ArraySource, ArraySource, tuple[str, ...]]], title: str
) -> Callable[[Path, int], Pools]:
    def open_pools(root: Path, seed: int) -> Pools:
        if (root / "train").is_dir():
            return open_any(root, seed)
        try:
            train, test, names = arrays(root)
        except RuntimeError as error:
            raise InputError(
                "data",
                f"must be a torchvision root holding {title}, or a folder with train/",
                str(root),
                f"nothing is downloaded here: fetch it with torchvision ({title})",
            ) from error
        return Pools(f"torchvision {title}", names, {"train": train, "test": test})

    return open_pools


def _cifar10(root: Path) -> tuple[ArraySource, ArraySource, tuple[str, ...]]:
    from torchvision.datasets import CIFAR10

    parts = [CIFAR10(str(root), train=train, download=False) for train in (True, False)]
    train, test = (
        ArraySource(name, part.data, np.array(part.targets, np.int64))
        for name, part in zip(("train", "test"), parts, strict=True)
    )
    return train, test, tuple(parts[0].classes)


def _svhn(root: Path) -> tuple[ArraySource, ArraySource, tuple[str, ...]]:
    from torchvision.datasets import SVHN

    parts = [SVHN(str(root), split=split, download=False) for split in ("train", "test")]
    train, test = (
        ArraySource(name, part.data.transpose(0, 2, 3, 1), part.labels.astype(np.int64))
        for name, part in zip(("train", "test"), parts, strict=True)
    )
    return train, test, tuple("0123456789")


FASHION_CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def _open_fashion(root: Path, seed: int) -> Pools:
    return Pools("embedded Fashion-MNIST", FASHION_CLASSES, _fashion())


@functools.cache
def _fashion() -> dict[str, ArraySource]:
    """Unpacked once a process, 5 MB."""
    file = Path(__file__).parent / "embedded" / "reduced-fashion.npz"
    with np.load(file, allow_pickle=False) as arrays:
        return {
            part: ArraySource(
                "t10k" if part == "test" else "train",
                arrays[f"{part}_images"],
                arrays[f"{part}_labels"].astype(np.int64),
                arrays[f"{part}_numbers"],
            )
            for part in PARTS
        }


def _open_synthetic(root: Path, seed: int) -> Pools:
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 8), np.uint8)
    sources = {p: ArraySource(p, images[i], np.arange(6) % 2) for i, p in enumerate(PARTS)}
    return Pools("noise", ("even", "odd"), sources)


TASKS: dict[str, TaskSpec] = {
    "synthetic": TaskSpec(
        "nothing: its images are noise, its reward is planted (proxy_tasks.evaluators.planted)",
        _open_synthetic,
        (None, None, None),
        8,
        needs_data=False,
    ),
    "reduced-fashion": TaskSpec(
        "nothing: it is embedded", _open_fashion, (None, None, None), 28, needs_data=False
    ),
    "reduced-cifar10": TaskSpec(
        "a torchvision root with CIFAR-10, or a folder train/<class>/ test/<class>/",
        _torchvision_or_folder(_cifar10, "CIFAR10"),
        (4000, 5000, 10000),
        32,
        wishes=(None, None, 0.2),
    ),
    "reduced-svhn": TaskSpec(
        "a torchvision root with SVHN, or a folder train/<class>/ test/<class>/",
        _torchvision_or_folder(_svhn, "SVHN"),
        (1000, 5000, 10000),
        32,
        flip=False,
        wishes=(None, None, 0.2),
    ),
    "reduced-imagenet": TaskSpec(
        "the top of an ImageNet tree: train/<wnid>/ val/<wnid>/",
        functools.partial(_open_imagenet, 120),
        (6000, 6000, None),
        32,
    ),
    "folder": TaskSpec(
        SUMMARY,
        open_any,
        (4000, 5000, 10000),
        32,
        wishes=(1.0, CUT, CUT),
        takes_file=True,
    ),
}

# A user's own data sets, sized as `folder` is.
OWN = replace(TASKS["folder"], summary="what its callable makes of it", needs_data=False)


def own_task(named: str, data: str | Path | None) -> TaskSpec:
    """The task of data sets that a user's callable makes.

    named: its import path, see `datasets.open_made`; it gets `data`, if given.
    """
    place = None if data is None else str(data)
    return replace(OWN, open=lambda root, seed: open_made(named, place))
