"""Example images for pictures: of a folder, or of the embedded data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from policies.errors import InputError
from proxy_tasks import get_task
from proxy_tasks.sources import fit, list_images

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
    names = list_images(root, ".")
    if len(names) < count:
        raise InputError(
            "images",
            f"must hold at least {count} images",
            f"{len(names)} in {folder}",
            "use a smaller --count or another folder",
        )
    chosen = sorted(rng.permutation(len(names))[:count])
    pictures = [_read(root / names[index]) for index in chosen]
    side = min(SIDE, *(min(picture.size) for picture in pictures))
    mode = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    arrays = [np.asarray(fit(picture.convert(mode), side)) for picture in pictures]
    stacked = np.stack(arrays)
    return stacked[:, None] if mode == "L" else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            "images", "must be readable images", f"{path} ({error})", "restore or remove it"
        ) from error
