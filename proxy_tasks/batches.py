"""Random crop, horizontal flip and normalisation in one pass over a uint8 batch.

The CPU path is a numba kernel (one thread, no GIL) that writes float32 in channels-last memory;
the torch path does the same arithmetic wherever the images live.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from policies.compiled import compiled

PIECE = 256  # images that are counted at once


class Jitter(NamedTuple):
    """Per-image draws, int64 [N]: crop offsets 0..2·pad inclusive, and flip 0 or 1."""

    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray


def draw_jitter(count: int, pad: int, flip: bool, rng: np.random.Generator) -> Jitter:
    """Uniform crop offsets, and a fair coin for the flip (all 0 without `flip`)."""
    top, left = rng.integers(0, 2 * pad + 1, (2, count))
    mirrored = rng.integers(0, 2, count)
    return Jitter(top, left, mirrored if flip else np.zeros(count, np.int64))


def no_jitter(count: int, pad: int) -> Jitter:
    centre = np.full(count, pad, np.int64)
    return Jitter(centre, centre, np.zeros(count, np.int64))


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 [N, C, H, W], in 0..255.

    A channel without variation has the standard deviation 1, so that it is only centred.
    """
    values = np.arange(256)
    means, deviations = [], []
    # In pieces: numpy counts 8 bytes for each that it looks at.
    pieces = [images[first : first + PIECE] for first in range(0, len(images), PIECE)]
    for channel in range(images.shape[1]):
        counted = (np.bincount(each[:, channel].ravel(), minlength=256) for each in pieces)
        counts = sum(counted, np.zeros(256, np.int64))
        mean = counts @ values / counts.sum()
        deviation = np.sqrt(counts @ (values - mean) ** 2 / counts.sum())
        means.append(float(mean))
        deviations.append(float(deviation) or 1.0)
    return means, deviations


def normalisation(images: np.ndarray) -> np.ndarray:
    """float32 [C, 256]: the normalised value of each byte, by channel (mean and sd of `images`)."""
    values = np.arange(256)
    channels = zip(*channel_statistics(images), strict=True)
    return np.array([(values - mean) / sd for mean, sd in channels], np.float32)


def upload(rows: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """int64 [len(rows), ...] on the device, in one copy that a GPU's host does not wait for."""
    together = torch.from_numpy(np.stack(rows))
    if device.type == "cuda":
        return together.pin_memory().to(device, non_blocking=True)
    return together


def prepare_batch(images: Tensor, draws: Tensor, pad: int, table: Tensor) -> Tensor:
    """float32 [N, C, H, W] in channels-last memory, of images uint8 [M, C, H, W].

    draws: int64 [4, N] where the images are: which image, and the fields of its `Jitter`. Each
    image is padded with `pad` zero (black) pixels on each side, cropped back to its size at top
    and left, mirrored, and looked up in `table` (see `normalisation`).
    """
    if images.device.type == "cpu":
        _, c, h, w = images.shape
        out = np.empty((draws.shape[1], h, w, c), np.float32)
        _prepare(images.numpy(), *draws.numpy(), pad, table.numpy(), out)
        return torch.from_numpy(out).permute(0, 3, 1, 2)
    return prepare_batch_torch(images, draws, pad, table)


def prepare_batch_torch(images: Tensor, draws: Tensor, pad: int, table: Tensor) -> Tensor:
    """`prepare_batch` with torch operations, on any device."""
    device = images.device
    c, h, w = images.shape[1:]
    image = draws[0]
    top, left, flip = draws[1:, :, None]
    columns = torch.arange(w, device=device)
    columns = torch.where(flip == 1, w - 1 - columns, columns) + left
    rows = torch.arange(h, device=device) + top
    channel = torch.arange(c, device=device)[:, None, None]
    padded = torch.nn.functional.pad(images[image], (pad, pad, pad, pad))
    pixels = padded[
        torch.arange(len(image), device=device)[:, None, None, None], channel,
        rows[:, None, :, None], columns[:, None, None, :],
    ]  # fmt: skip
    return table[channel, pixels.long()].contiguous(memory_format=torch.channels_last)


@compiled()
def _prepare(images, order, top, left, flip, pad, table, out):  # type: ignore[no-untyped-def]
    _, channels, height, width = images.shape
    for i in range(len(order)):
        image = images[order[i]]
        # Pixel x of a row comes from column first + step * x.
        step = -1 if flip[i] else 1
        first = left[i] - pad + (width - 1 if flip[i] else 0)
        for y in range(height):
            row = y + top[i] - pad
            target = out[i, y]
            for c in range(channels):
                lookup = table[c]
                black = lookup[0]
                if row < 0 or row >= height:
                    for x in range(width):
                        target[x, c] = black
                    continue
                source = image[c, row]
                for x in range(width):
                    column = first + step * x
                    target[x, c] = lookup[source[column]] if 0 <= column < width else black
