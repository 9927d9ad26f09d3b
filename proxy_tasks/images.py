"""One image file, read and decoded by the rules of `policies.images`; regular files only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.files import read_file
from policies.images import Unreadable, decode, one_at_a_time

from .manifest import content_id

EXTENSIONS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
MAX_BYTES = 2**28
LARGE_BYTES = 2**24  # larger files are read one at a time, so that threads do not add up


@dataclass(frozen=True)
class Decoded:
    """One image read: pixels uint8 [H, W, 3] or [H, W] and its content id, or why it failed."""

    pixels: np.ndarray | None
    content: str
    error: str = ""

    @property
    def coloured(self) -> bool:
        return self.pixels is not None and self.pixels.ndim == 3


def read_square(path: Path, resolution: int) -> Decoded:
    """The image in a file, as a centre square of `resolution` pixels; never raises."""
    data = b""
    try:
        data = read_bytes(path)
        return Decoded(np.asarray(decode(data, resolution)), content_id(data))
    except Unreadable as error:
        return Decoded(None, content_id(data), str(error))


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most `MAX_BYTES`. Raises Unreadable.

    Anything else is not even opened: a pipe would wait for ever, a device never ends.
    """
    try:
        with one_at_a_time(os.stat(path).st_size > LARGE_BYTES):
            return read_file(path, MAX_BYTES)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
