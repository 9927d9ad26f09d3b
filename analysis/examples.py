"""Example images for pictures: of a run's task, of a folder, or of the embedded data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from policies.errors import InputError
from policies.images import Unreadable, decode
from proxy_tasks import get_task
from proxy_tasks.images import read_bytes
from proxy_tasks.manifest import Manifest
from proxy_tasks.sources import list_images
from proxy_tasks.tasks import TASKS

from .runs import Run

SIDE = 224  # larger images are scaled down to this: the sheet's thumbnails are smaller still


def example_images(folder: str | None, count: int, seed: int = 0) -> np.ndarray:
    """`count` images as uint8 [count, C, S, S], S the smaller of 224 and the smallest side found.

    folder: searched with its sub-folders; None takes embedded Fashion-MNIST images. Grey images
    become RGB when there are coloured ones among them. Raises InputError when there are too few
    images or one cannot be read.
    """
    if count < 1:
        raise InputError("count", "must be at least 1", count, "use 8")
    rng = np.random.default_rng(seed)
    if folder is None:
        images = get_task("reduced-fashion").train.images
        if count > len(images):
            raise InputError("count", f"must be at most {len(images)}", count, "use 8")
        return images[np.sort(rng.permutation(len(images))[:count])]
    root = Path(folder)
    if not root.is_dir():
        raise InputError("images", "must be an existing folder", folder, "check the path")
    names = list_images(root, ".").files
    if len(names) < count:
        raise InputError(
            "images",
            f"must hold at least {count} images",
            f"{len(names)} in {folder}",
            "use a smaller --count or another folder",
        )
    paths = [root / names[index] for index in sorted(rng.permutation(len(names))[:count])]
    side = min(SIDE, *(min(_read(path).size) for path in paths))
    pictures = [_read(path, side) for path in paths]
    mode = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    stacked = np.stack([np.asarray(picture.convert(mode)) for picture in pictures])
    return stacked[:, None] if mode == "L" else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))


def _read(path: Path, side: int | None = None) -> Image.Image:
    """One image upright, whole or as its centre square of `side` pixels."""
    try:
        return decode(read_bytes(path), side)
    except Unreadable as error:
        raise InputError(
            "images", "must be readable images", f"{path} ({error})", "restore or remove it"
        ) from error


def task_images(run: Run, count: int) -> tuple[np.ndarray, str]:
    """Up to `count` training images of the run's task as children see them, and where from.

    Returns uint8 [N, C, H, W] and a sentence. Where the task's images are noise, are not here or
    are no longer those of the manifest, the embedded ones stand in, and the sentence says so.
    """
    manifest = run.manifest
    why = "The images of the task had not been drawn yet"
    if manifest is not None and manifest.task == "synthetic":
        why = "The task's own images are noise"
    elif manifest is not None:
        try:
            images = _drawn(manifest, run.option("task", "data"), count)
            return images, f"On training images of the task ({manifest.source})."
        except (InputError, OSError) as error:
            why = f"The images of the task cannot be read here ({error})"
    return example_images(None, count), f"{why}; these are embedded Fashion-MNIST images."


def _drawn(manifest: Manifest, data: str | None, count: int) -> np.ndarray:
    """Images of the train part, of as many classes as there are; checked by their content."""
    spec = TASKS.get(manifest.task)
    if spec is None:
        raise InputError("task", "must be one that ships", manifest.task, "draw it yourself")
    root = Path(data).expanduser() if data else Path()
    if spec.needs_data and not (data and root.exists()):
        raise InputError("data", "must exist", data, "mount it")
    source = spec.open(root, manifest.seed).sources["train"]
    places = {source.name(index): index for index in range(len(source.labels))}
    rows = list(manifest.parts["train"])
    channels, side, _ = manifest.shape
    images = []
    for place in _spread([label for _, label, _ in rows], count):
        name, _, content = rows[place]
        found = source.read(places[name], side) if name in places else None
        if found is None or found.pixels is None or found.content != content:
            raise InputError("data", "must hold the images of the manifest", name, "restore it")
        pixels = found.pixels if found.pixels.ndim == 3 else found.pixels[:, :, None]
        images.append(np.broadcast_to(pixels, (side, side, channels)).transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(images))


def _spread(labels: Sequence[int], count: int) -> list[int]:
    """Places of up to `count` entries, of as many labels as there are, spread evenly over them."""
    by_label: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        by_label.setdefault(label, []).append(place)
    classes = [by_label[label] for label in sorted(by_label)]
    step = max(1.0, len(classes) / count)
    chosen = [classes[int(number * step)] for number in range(min(count, len(classes)))]
    deepest = max(map(len, chosen), default=0)
    places = [each[turn] for turn in range(deepest) for each in chosen if turn < len(each)]
    return places[:count]
