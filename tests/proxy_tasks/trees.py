"""Small image trees and tasks made on the spot: no data set is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from proxy_tasks import ImageSet, ProxyTask
from proxy_tasks.manifest import Listing, Manifest, content_id


def write_tree(
    root: Path, parts: dict[str, int], classes: int = 3, side: int = 20, mode: str = "RGB"
) -> Path:
    """`root/<part>/class<k>/<i>.png` of random pixels; every file different."""
    rng = np.random.default_rng(0)
    for part, count in parts.items():
        for label in range(classes):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                shape = (side, side + i % 3) if mode == "L" else (side, side + i % 3, 3)
                pixels = rng.integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def striped_images(count: int, seed: int, side: int = 16) -> ImageSet:
    """Two classes that crops and flips keep: horizontal and vertical stripes, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    wave = 60 * np.sign(np.sin(np.arange(side) * np.pi / 2 + 0.5))
    images = np.where(
        labels[:, None, None] == 0, wave[None, :, None], wave[None, None, :]
    ) + rng.normal(128, 30, (count, side, side))
    images = np.clip(images, 0, 255).astype(np.uint8)[:, None]
    images.flags.writeable = False
    return ImageSet(images, labels.astype(np.int64))


def striped_task(train: int = 96, held: int = 200, test: ImageSet | None = None) -> ProxyTask:
    """A task that a child learns in seconds."""
    parts = {"train": striped_images(train, 1), "validation": striped_images(held, 2)}
    parts["test"] = striped_images(held, 3)
    listings = {
        part: Listing(
            (f"{part}/{i}", int(label), content_id(image.tobytes()))
            for i, (image, label) in enumerate(zip(images.images, images.labels, strict=True))
        )
        for part, images in parts.items()
    }
    names = ("lying", "standing")
    manifest = Manifest("stripes", 0, "made up", (1, 16, 16), True, names, listings)
    if test is not None:
        parts["test"] = test
    return ProxyTask("stripes", **parts, class_names=names, manifest=manifest)
