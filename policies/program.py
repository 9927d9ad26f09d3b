"""What a batch is to undergo: drawn operations as plain arrays, read by both sets of kernels.

A :class:`Table` holds each operation a transform can draw, already turned into numbers for one
image size; a :class:`Program` says which entries each image of a batch passes through. No random
number is drawn here or in a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .ops import OPS

# What a kernel has to know of an image before it can say what becomes of a value: nothing, the
# histogram of the channel, the mean grey; or it changes pixels by more than their value. The
# compiled kernels compare codes, which follow this order.
BY_VALUE = ("invert", "solarize", "posterize", "brightness")
BY_HISTOGRAM = ("autocontrast", "equalize")
BY_GREY = ("contrast",)
BY_PIXELS = ("color", "sharpness", "affine", "cutout", "pairing")
KERNELS = ("identity", *BY_VALUE, *BY_HISTOGRAM, *BY_GREY, *BY_PIXELS)
"""Every kernel: what ``Op.kernel`` names, and both sets of kernels implement."""
CODE = {name: code for code, name in enumerate(KERNELS)}
MAX_SIDE = 16384  # Pillow leaves 16.16 fixed-point arithmetic beyond about this size
_ONE = 1 << 16


@dataclass(frozen=True)
class Table:
    """Operations ready for the kernels.

    ``codes`` int64 [E], ``values`` float64 [E] (threshold, bits, factor, side or weight),
    ``matrices`` int64 [E, 6]: 16.16 fixed point; output pixel (x, y) comes from column
    (m0 x + m1 y + m2) >> 16 and row (m3 x + m4 y + m5) >> 16; ``operations``: the E (name,
    parameter) that they stand for.
    """

    codes: np.ndarray
    values: np.ndarray
    matrices: np.ndarray
    operations: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Program:
    """``steps`` int64 [N, K]: entries of ``table``, applied in order; ``extra`` int64 [N, K, 2]:
    the centre (row, column) for Cutout, (partner, 0) for SamplePairing; ``fill`` uint8 [C]."""

    table: Table
    steps: np.ndarray
    extra: np.ndarray
    fill: np.ndarray

    @classmethod
    def nothing(cls, images: int, channels: int) -> Program:
        """Leaves so many images as they are."""
        none = Table(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 6), np.int64), ())
        steps, extra = np.zeros((images, 0), np.int64), np.zeros((images, 0, 2), np.int64)
        return cls(none, steps, extra, np.zeros(channels, np.uint8))

    def part(self, start: int, stop: int) -> Program:
        """What images start..stop-1 undergo, where no image is blended with another."""
        return Program(self.table, self.steps[start:stop], self.extra[start:stop], self.fill)

    @property
    def pairs(self) -> bool:
        """Whether some image is blended with another of the batch."""
        return bool((self.table.codes[self.steps] == CODE["pairing"]).any())


def build_table(operations: Iterable[tuple[str, float]], height: int, width: int) -> Table:
    """The table of (operation's name, kernel's parameter) for images of height x width."""
    if max(height, width) > MAX_SIDE:
        raise InputError(
            "image", f"must be at most {MAX_SIDE} pixels high and wide", (height, width),
            "resize it first",
        )  # fmt: skip
    known: dict[tuple[str, float], tuple] = {}  # a policy repeats the same few operations
    rows = []
    operations = tuple(operations)
    for key in operations:
        if key not in known:
            known[key] = _entry(*key, height, width)
        rows.append(known[key])
    return Table(
        np.array([code for code, _, _ in rows], np.int64),
        np.array([value for _, value, _ in rows], np.float64),
        np.array([matrix for _, _, matrix in rows], np.int64).reshape(-1, 6),
        operations,
    )


_NONE = (_ONE, 0, 0, 0, _ONE, 0)


def _entry(name: str, value: float, height: int, width: int) -> tuple[int, float, tuple]:
    kernel, matrix = OPS[name].kernel, _NONE
    if kernel == "affine":
        matrix = _MATRICES[name](value, height, width)
        kernel = "identity" if matrix == _NONE else "affine"
    return CODE[kernel], float(value), matrix


def _fixed(v: float) -> int:
    return math.floor(v * 65536.0 + 0.5)


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> tuple:
    """Pillow's 16.16 coefficients, sampling at pixel centres (libImaging/Geometry.c)."""
    return (
        _fixed(a), _fixed(b), _fixed(c + a * 0.5 + b * 0.5),
        _fixed(d), _fixed(e), _fixed(f + d * 0.5 + e * 0.5),
    )  # fmt: skip


def _translate(columns: float, rows: float) -> tuple:
    # Pillow walks this case in double precision from shift + 0.5 in steps of 1: a whole-pixel
    # shift of floor(shift + 0.5).
    return (
        _ONE, 0, math.floor(columns + 0.5) * _ONE, 0, _ONE, math.floor(rows + 0.5) * _ONE,
    )  # fmt: skip


def _rotate(angle: float, height: int, width: int) -> tuple:
    """PIL.Image.rotate: transposes for right angles, else a matrix rounded to 15 decimals."""
    angle %= 360.0
    if angle == 0:
        return _NONE
    if angle == 180:
        return (-_ONE, 0, (width - 1) * _ONE, 0, -_ONE, (height - 1) * _ONE)
    if angle == 90 and height == width:
        return (0, -_ONE, (width - 1) * _ONE, _ONE, 0, 0)
    if angle == 270 and height == width:
        return (0, _ONE, 0, -_ONE, 0, (height - 1) * _ONE)
    radians = -math.radians(angle)
    a, b = round(math.cos(radians), 15), round(math.sin(radians), 15)
    d, e = round(-math.sin(radians), 15), round(math.cos(radians), 15)
    cx, cy = width / 2, height / 2
    return _affine(a, b, a * -cx + b * -cy + 0.0 + cx, d, e, d * -cx + e * -cy + 0.0 + cy)


_MATRICES: Mapping[str, Callable[[float, int, int], tuple]] = {
    "ShearX": lambda m, h, w: _affine(1, m, 0, 0, 1, 0) if m else _NONE,
    "ShearY": lambda m, h, w: _affine(1, 0, 0, m, 1, 0) if m else _NONE,
    "TranslateX": lambda p, h, w: _translate(-p, 0),
    "TranslateY": lambda p, h, w: _translate(0, -p),
    "Rotate": _rotate,
}
