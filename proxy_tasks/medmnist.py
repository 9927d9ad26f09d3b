"""An .npz file as MedMNIST has it: arrays train_images, train_labels, val_*, test_*.

Images are uint8 [N, H, W] or [N, H, W, 3], labels whole numbers [N] or [N, 1].
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from policies.errors import InputError
from policies.images import free_memory

from .pools import ALIASES, Pools, held_out, make_pools
from .sources import ArraySource, Source

# By what zipfile and numpy raise of damaged, encrypted and strangely compressed files.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError,
               zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # fmt: skip


def open_arrays(path: Path) -> Pools:
    """The pools of an .npz file; what it has no arrays for is cut from train.

    Raises InputError for a file of another form, and for one that would not fit into memory.
    """
    fix = "write train_images, train_labels, and optionally val_* and test_*, with numpy.savez"
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
        _check_memory(path, size)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(
            "data", "must be a folder or an .npz file of arrays", f"{path} ({error})", fix
        ) from None
    found: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}
    for part, names in ALIASES.items():
        for name in names:
            if f"{name}_images" in arrays:
                found[part] = (name, *_checked(arrays, name, path, fix))
    if "train" not in found:
        raise InputError(
            "data", "an .npz file must hold train_images and train_labels", sorted(arrays), fix
        )
    numbers = np.unique(found["train"][2])
    notes: list[str] = []
    sources: dict[str, Source] = {}
    for part, (name, images, labels) in found.items():
        known = np.isin(labels, numbers)
        for label, count in zip(*np.unique(labels[~known], return_counts=True), strict=True):
            notes.append(f"{name}: {count} images of class {label} are left out: train has none")
        places = None if known.all() else np.flatnonzero(known)
        if places is not None:
            images, labels = images[places], labels[places]
        sources[part] = ArraySource(name, images, np.searchsorted(numbers, labels), places)
    notes += held_out(sources, {part: name for part, (name, *_) in found.items()})
    used = {f"{name}_{what}" for name, *_ in found.values() for what in ("images", "labels")}
    if set(arrays) - used:
        notes.append(f"not used: {', '.join(sorted(set(arrays) - used))}")
    return make_pools("npz", [str(n) for n in numbers], sources, notes)


def _check_memory(path: Path, size: int) -> None:
    if size > free_memory() // 2:
        raise InputError(
            "data", "an .npz file must fit into half of the free memory",
            f"{path} of {size / 2**30:.1f} GiB unpacked", "save the images in a folder",
        )  # fmt: skip


def _checked(
    arrays: Mapping[str, np.ndarray], name: str, path: Path, fix: str
) -> tuple[np.ndarray, np.ndarray]:
    """Images as uint8 [N, H, W] or [N, H, W, 3], labels as int64 [N]."""
    images, labels = arrays[f"{name}_images"], arrays.get(f"{name}_labels")
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise InputError(
            "data", f"{name}_images must be uint8 [N, H, W] or [N, H, W, 3]",
            f"{images.dtype} {list(images.shape)}", fix,
        )  # fmt: skip
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels is None or labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        got = "none" if labels is None else f"{labels.dtype} {list(labels.shape)}"
        advice = fix
        if labels is not None and labels.ndim > 1:
            advice = "one label an image: tasks with several labels an image are not supported"
        elif labels is not None and labels.dtype.kind not in "iu":
            advice = "number the classes: numpy.unique(labels, return_inverse=True)[1]"
        raise InputError(
            "data", f"{name}_labels must be integers [{len(images)}] or [{len(images)}, 1]", got,
            advice,
        )  # fmt: skip
    if 0 in images.shape:
        raise InputError("data", f"{name}_images must hold images", list(images.shape), fix)
    return images, labels.astype(np.int64)
