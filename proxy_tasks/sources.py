"""Where images come from: a folder tree or arrays. Both list labels first and read pixels later.

Everything is in a fixed order (sorted names, or the data set's own order), never in the order of
the file system.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from policies.errors import InputError

from .manifest import content_id

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Decoded:
    """One image read: pixels uint8 [H, W, 3] or [H, W], its content id, or why it failed."""

    pixels: np.ndarray | None
    content: str
    grey: bool = False
    error: str = ""


def fit(image: Image.Image, resolution: int) -> Image.Image:
    """Shorter side to `resolution` pixels (bilinear, antialiased), then the centre square."""
    width, height = image.size
    if (width, height) != (resolution, resolution):
        scale = resolution / min(width, height)
        size = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - resolution) // 2, (size[1] - resolution) // 2
        image = image.crop((left, top, left + resolution, top + resolution))
    return image


@dataclass(frozen=True)
class FolderSource:
    """Images of `root/<part>/<class>/**`, in sorted order. `files` are POSIX paths below `root`."""

    root: Path
    files: tuple[str, ...]
    labels: np.ndarray

    def read(self, index: int, resolution: int) -> Decoded:
        data = b""
        try:
            data = (self.root / self.files[index]).read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                # JPEG only: decode at a reduced DCT scale, still at least twice the wanted size.
                image.draft("RGB", (2 * resolution, 2 * resolution))
                grey = image.mode in ("L", "1", "LA")
                if image.mode[0] in "IF":
                    return Decoded(None, content_id(data), error=f"{image.mode}: not 8 bits")
                square = fit(image.convert("L" if grey else "RGB"), resolution)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return Decoded(None, content_id(data), error=str(error) or type(error).__name__)
        return Decoded(np.asarray(square), content_id(data), grey)

    def name(self, index: int) -> str:
        return self.files[index]


@dataclass(frozen=True)
class ArraySource:
    """uint8 images [N, H, W] or [N, H, W, 3] of an official data set; names are `part/number`."""

    part: str
    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray | None = None

    def read(self, index: int, resolution: int) -> Decoded:
        pixels = np.ascontiguousarray(self.images[index])
        square = pixels
        if pixels.shape[:2] != (resolution, resolution):
            square = np.asarray(fit(Image.fromarray(pixels), resolution))
        return Decoded(square, content_id(pixels.tobytes()), grey=pixels.ndim == 2)

    def name(self, index: int) -> str:
        return f"{self.part}/{index if self.numbers is None else self.numbers[index]}"


Source = FolderSource | ArraySource


def list_folder(root: Path, part: str, class_names: Sequence[str] | None = None) -> tuple:
    """(class names, FolderSource) of `root/part`; with `class_names`, only and all of these."""
    folder = root / part
    found = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    if not found:
        raise InputError(
            "data",
            f"{part}/ must hold one folder per class",
            str(folder),
            f"sort the images into {part}/<class>/",
        )
    names = tuple(found if class_names is None else class_names)
    files, labels = [], []
    for label, name in enumerate(names):
        if name not in found:
            raise InputError(
                "data",
                f"{part}/ must hold every class of train/",
                f"no folder {part}/{name}",
                f"add {part}/{name}/ or take the class out of train/",
            )
        images = list_images(folder / name, f"{part}/{name}")
        files += images
        labels += [label] * len(images)
    if not files:
        raise InputError(
            "data",
            f"{part}/<class>/ must hold images ({' '.join(EXTENSIONS)})",
            f"none below {folder}",
            "check that the path is the top of the tree",
        )
    return names, FolderSource(root, tuple(files), np.array(labels, np.int64))


def list_images(folder: Path, prefix: str) -> list[str]:
    """Sorted image files below `folder`, as POSIX paths starting with `prefix`."""
    found = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        below = Path(where).relative_to(folder).as_posix()
        base = prefix if below == "." else f"{prefix}/{below}"
        found += [f"{base}/{n}" for n in names if n.lower().endswith(EXTENSIONS) and n[0] != "."]
    return sorted(found)


def read_all(source: Source, indices: np.ndarray, resolution: int, what: str) -> list[Decoded]:
    """Decode the chosen images in order, files with a thread pool (Pillow releases the GIL)."""
    bar = tqdm(
        desc=f"reading {what}", total=len(indices), unit="image", leave=False,
        disable=not sys.stderr.isatty(),
    )  # fmt: skip

    def read(index: int) -> Decoded:
        bar.update()
        return source.read(int(index), resolution)

    if isinstance(source, ArraySource):
        decoded = [read(index) for index in indices]
    else:
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            decoded = list(pool.map(read, indices))
    bar.close()
    return decoded
