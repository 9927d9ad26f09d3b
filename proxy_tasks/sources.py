"""Where images come from: files below a folder, or arrays. Labels are listed first, pixels later.

Everything is in a fixed order (sorted names, or the data set's own order), never in the order of
the file system.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from policies.errors import InputError
from policies.images import fit

from .images import EXTENSIONS, Decoded, read_square
from .manifest import content_id


class Source(Protocol):
    """Images with labels int64 [N]; `name` is what manifests and errors call an image."""

    @property
    def labels(self) -> np.ndarray: ...

    def read(self, index: int, resolution: int) -> Decoded: ...

    def name(self, index: int) -> str: ...


@dataclass(frozen=True)
class FolderSource:
    """Images in files. `files` are POSIX paths below `root`, as the file system has them."""

    root: Path
    files: tuple[str, ...]
    labels: np.ndarray

    def read(self, index: int, resolution: int) -> Decoded:
        return read_square(self.root / self.files[index], resolution)

    def name(self, index: int) -> str:
        return printable(self.files[index])


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
        return Decoded(square, content_id(pixels.tobytes()))

    def name(self, index: int) -> str:
        return f"{self.part}/{index if self.numbers is None else self.numbers[index]}"


def printable(name: str) -> str:
    r"""A file name as text that every encoding has, and that maps back.

    A byte that is not UTF-8 (a name in latin-1, say) becomes `\xe9`, as does a line break; in such
    a name a backslash is doubled. All other names stay as they are.
    """
    strange = {c for c in name if not c.isprintable() and (c < " " or "\ud800" <= c <= "\udfff")}
    if not strange:
        return name.replace("\\", "\\\\") if "\\x" in name else name
    escapes = {c: f"\\x{ord(c) & 0xFF:02x}" for c in strange}
    return "".join(escapes.get(c, "\\\\" if c == "\\" else c) for c in name)


# --- listing -------------------------------------------------------------------------------------


@dataclass
class Found:
    """Image files as POSIX paths, sorted, and what was left out: kind -> how many."""

    files: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def list_images(folder: Path, prefix: str) -> Found:
    """Image files below `folder`, as POSIX paths that start with `prefix`; each real file once.

    Links are followed, but what has been listed under its own name, or through another link, is
    not listed again: loops end, and no image is there twice. Hidden files and folders are skipped.
    Raises InputError for a folder that cannot be read.
    """
    with _bar("listing", prefix or os.fspath(folder), None, "file") as bar:
        found = _listed(folder, prefix, bar)
    found.files.sort()
    return found


def _listed(folder: Path, prefix: str, bar: tqdm) -> Found:
    """`list_images`, in no order."""
    found = Found()
    seen: set[tuple[int, int]] = set()  # folders and files, by device and inode
    folders: list[tuple[str, str]] = [(os.fspath(folder), prefix)]
    links: list[tuple[str, str]] = []
    while folders or links:
        if not folders:
            # All that is real comes first: it keeps its own name, whatever links to it.
            links.sort(key=lambda link: link[1])
            folders = [f for path, name in links for f in _follow(path, name, seen, found)][::-1]
            links = []
            continue
        path, base = folders.pop()
        try:
            identity = _identity(path)
            if identity in seen:
                found.ignored["repeated links"] += 1
                continue
            seen.add(identity)
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = f"{base}/{entry.name}"
                    if entry.is_symlink():
                        links.append((entry.path, name))
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, name))
                    else:
                        seen.add((identity[0], entry.inode()))
                        _take(name, entry.is_file(follow_symlinks=False), found)
        except OSError as error:
            raise InputError(
                "data", "must be folders that can be read", f"{printable(path)} ({error.strerror})",
                "check their permissions",
            ) from None  # fmt: skip
        bar.update(len(found.files) - bar.n)
    return found


def _follow(
    path: str, name: str, seen: set[tuple[int, int]], found: Found
) -> Iterator[tuple[str, str]]:
    """Lists the file that a link points to, or gives the folder."""
    try:
        target = os.stat(path)
    except OSError:
        _take(name, True, found)  # a broken link: unreadable, and named as such
        return
    if stat.S_ISDIR(target.st_mode):
        yield path, name
    elif (target.st_dev, target.st_ino) in seen:
        found.ignored["repeated links"] += 1
    else:
        seen.add((target.st_dev, target.st_ino))
        _take(name, stat.S_ISREG(target.st_mode), found)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _take(name: str, regular: bool, found: Found) -> None:
    ending = os.path.splitext(name)[1].lower()
    if ending not in EXTENSIONS:
        found.ignored[ending or "files without an ending"] += 1
    elif not regular:
        found.ignored["pipes, sockets or devices"] += 1
    else:
        found.files.append(name)


def ignored_text(ignored: Counter[str]) -> str:
    """ "12 .gif, 3 .txt and 7 others", in the order of their number."""
    most = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))[:4]
    others = sum(ignored.values()) - sum(count for _, count in most)
    listed = ", ".join(f"{count} {printable(kind)}" for kind, count in most)
    return listed + (f" and {others} others" if others else "")


# --- reading -------------------------------------------------------------------------------------


def _bar(doing: str, what: str, total: int | None, unit: str) -> tqdm:
    """A bar in terminals, for what takes a second or more."""
    return tqdm(
        desc=f"{doing} {printable(what)}", total=total, unit=f" {unit}", leave=False, delay=1,
        disable=sys.stderr is None or not sys.stderr.isatty(),
    )  # fmt: skip


def read_all(source: Source, indices: np.ndarray, resolution: int, what: str) -> list[Decoded]:
    """Decode the chosen images in order, files with a thread pool (Pillow releases the GIL)."""
    bar = _bar("reading", what, len(indices), "image")

    def read(index: int) -> Decoded:
        bar.update()
        return source.read(int(index), resolution)

    if isinstance(source, FolderSource):
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            decoded = list(pool.map(read, indices))
    else:
        decoded = [read(index) for index in indices]
    bar.close()
    return decoded


def known_labels(names: Iterable[str], class_names: tuple[str, ...]) -> list[int]:
    """The number of each name among the classes, -1 for what is none of them."""
    numbers = {name: number for number, name in enumerate(class_names)}
    return [numbers.get(name, -1) for name in names]
