"""Draws docs/operations/*.png: every operation at every magnitude of the paper's convention.

    python docs/pictures.py

Above an embedded Fashion-MNIST image, below a colour chart; the first column is untouched, then
magnitudes 0 to 9 with the positive sign. The operations themselves draw; a test compares.
"""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from policies import OPS, Policy, PolicyTransform, get_convention
from proxy_tasks import get_task

FOLDER = Path(__file__).parent / "operations"
SIDE, GAP, BINS = 56, 4, 10
EXAMPLE, PARTNER = 11, 3  # of the embedded training images
COPIES = 64  # draws, of which one is shown


def chart() -> np.ndarray:
    """Hues by rows of falling brightness, greys, and corners that tell what was moved.

    uint8 [3, 56, 56]."""
    cell = SIDE // 8
    image = np.zeros((8, 8, 3))
    for row in range(5):
        image[row] = [colorsys.hsv_to_rgb(n / 8, 1 - row % 2 / 2, 1 - row / 6) for n in range(8)]
    image[5:7] = np.linspace(0, 1, 16).reshape(2, 8, 1)
    image[7, ::2] = 1
    image[0, 0], image[0, 7] = 1, 0
    image = 0.1 + 0.8 * image  # neither black nor white: what AutoContrast does is seen
    big = np.kron((255 * image).round(), np.ones((cell, cell, 1)))
    return np.ascontiguousarray(big.astype(np.uint8).transpose(2, 0, 1))


def changed(name: str, index: int | None, image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """An image under an operation alone, with the positive sign; `other`: for SamplePairing."""
    wanted = get_convention("paper").parameter(name, index, False, *image.shape[1:])
    transform = PolicyTransform(
        Policy([[(name, 1.0, index)]]), generator=torch.Generator().manual_seed(0)
    )
    batch = np.stack([image, other] * COPIES)
    pictures, drawn = transform.explained(batch)
    places = [n for n in range(0, len(batch), 2) if not drawn[n] or drawn[n][0][1] == wanted]
    # Of all draws the one that shows most: a square inside the image, a partner that is another.
    place = max(places, key=lambda n: int((pictures[n] != image).sum()))
    return np.asarray(pictures[place])


def strip(name: str) -> np.ndarray:
    """uint8 [height, width, 3]: two rows of the untouched image and what becomes of it."""
    task = get_task("reduced-fashion")
    fashion = [task.train.images[n] for n in (EXAMPLE, PARTNER)]
    charts = [chart(), chart()[:, ::-1, ::-1].copy()]
    rows = []
    for image, other in (fashion, charts):
        indices = range(BINS) if OPS[name].has_magnitude else [None]
        cells = [image, *(changed(name, index, image, other) for index in indices)]
        rows.append([_square(cell) for cell in cells])
    blank = np.full((2 * SIDE + GAP, len(rows[0]) * (SIDE + GAP) - GAP, 3), 255, np.uint8)
    for top, row in enumerate(rows):
        for left, cell in enumerate(row):
            y, x = top * (SIDE + GAP), left * (SIDE + GAP)
            blank[y : y + SIDE, x : x + SIDE] = cell
    return blank


def _square(image: np.ndarray) -> np.ndarray:
    """[C, H, W] as [SIDE, SIDE, 3], pixels repeated."""
    times = SIDE // image.shape[1]
    colours = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    return colours.repeat(times, 0).repeat(times, 1)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for operation in OPS:
        Image.fromarray(strip(operation)).save(FOLDER / f"{operation}.png", optimize=True)
        print(FOLDER / f"{operation}.png")
