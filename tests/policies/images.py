"""Images for the tests, [C, H, W] uint8: noise, narrow range, constant, smooth; and photographs."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
from PIL import Image

# 18 is the least width at which the inside of a row, and 64 bytes of a plane, fill vectors.
SIZES = ((1, 1), (1, 7), (9, 18), (28, 28), (32, 32), (33, 47), (224, 224))


@functools.cache
def synthetic(channels: int, height: int, width: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([channels, height, width])
    shape = (channels, height, width)
    noise = rng.integers(0, 256, shape, dtype=np.uint8)
    narrow = rng.integers(100, 131, shape, dtype=np.uint8)
    constant = np.full(shape, rng.integers(0, 256), np.uint8)
    ramp = np.linspace(0, 255, width)[None, None] * np.linspace(0.4, 1, height)[None, :, None]
    smooth = np.clip(ramp * np.linspace(0.6, 1, channels)[:, None, None], 0, 255).astype(np.uint8)
    return noise, narrow, constant, smooth


@functools.cache
def photographs(folder: Path, channels: int, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Two photographs, cropped square and resized."""
    result = []
    for name in sorted(os.listdir(folder / "photos"))[:2]:
        image = Image.open(folder / "photos" / name).convert("RGB" if channels == 3 else "L")
        side = min(image.size)
        pixels = np.asarray(image.crop((0, 0, side, side)).resize((width, height)))
        result.append(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))
    return tuple(np.ascontiguousarray(image) for image in result)
