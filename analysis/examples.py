"""Example images for pictures: of a folder, or of the embedded data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from policies.errors import InputError
from proxy_tasks import get_task
from proxy_tasks.images import Unreadable, decode, read_bytes
from proxy_tasks.sources import list_images

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
