"""Samples and transforms for the tests of how transforms are used."""

from __future__ import annotations

import collections

import numpy as np
import torch
from PIL import Image

from policies import (
    PolicyTransform,
)
from tests.policies.images import synthetic

COLOURS = [[("Invert", 1.0, None), ("Brightness", 0.5, 9)]]
MOVES = [[("Rotate", 1.0, 9), ("Invert", 0.5, None)]]
Pair = collections.namedtuple("Pair", "image label")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(rows=MOVES, seed: int = 0) -> PolicyTransform:
    return PolicyTransform(rows, generator=seeded(seed))


def tensor(n: int | None = None) -> torch.Tensor:
    picture = torch.from_numpy(synthetic(3, 20, 26)[0].copy())
    return picture if n is None else torch.stack([picture] * n)


def pil() -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(tensor().permute(1, 2, 0).numpy()))


def same(a, b) -> bool:
    if isinstance(a, Image.Image):
        return np.array_equal(np.asarray(a), np.asarray(b))
    return type(a) is type(b) and bool((torch.as_tensor(a) == torch.as_tensor(b)).all())
