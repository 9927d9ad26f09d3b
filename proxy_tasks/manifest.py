"""The manifest: exactly which images a proxy task consists of, and the hash that names it.

A manifest holds no absolute path and no time, so the same draw from a copy of the same files has
the same hash on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from policies.errors import InputError
from policies.files import parse_json, read_text, write_atomically

from .names import PARTS

FORMAT = "augsearch-manifest"
VERSION = 2
# Of files, for reading and writing alike: ten times the manifest of all of ImageNet.
MAX_BYTES = 2**30
# Examples of each kind of duplicate that are kept; all are counted.
REMEMBERED = 1000
_ID = 16  # hex digits

Row = tuple[str, int, str]


def content_id(data: bytes) -> str:
    """First 16 hex digits of the sha256 of an image's bytes (file content or raw pixels)."""
    return hashlib.sha256(data).hexdigest()[:_ID]


class Listing:
    """The images of one part: file, label, content id. Three columns, small for millions."""

    def __init__(self, rows: Iterable[Row]):
        files, labels, contents = [], [], []
        for file, label, content in rows:
            if "\n" in file or len(content) != _ID:
                raise ValueError(f"not a row of a manifest: {file!r}, {content!r}")
            files.append(file)
            labels.append(label)
            contents.append(content)
        self._files, self._contents = "\n".join(files), "".join(contents)
        self.labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Row]:
        return zip(self.files, self.labels.tolist(), self.contents, strict=True)

    @property
    def files(self) -> list[str]:
        return self._files.split("\n") if len(self) else []

    @property
    def contents(self) -> list[str]:
        return [self._contents[i : i + _ID] for i in range(0, len(self._contents), _ID)]

    def __repr__(self) -> str:
        return f"Listing({len(self)} images)"


@dataclass(frozen=True)
class Duplicates:
    """Images with the same pixels, as the task sees them.

    removed: [file, part, twin, part of the twin], of images that a more protected part holds too
    repeated: [file, twin, part], of images that are in a part twice, and stay
    contradictory: [file, its class, twin, its class], same pixels under two labels

    `counts` says how many there are of each; beyond `REMEMBERED` only `removed` names all.
    """

    removed: list[list[str]] = field(default_factory=list)
    repeated: list[list[str]] = field(default_factory=list)
    contradictory: list[list[str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What a task consists of.

    source: what kind of place the images come from ("folder", "torchvision CIFAR10", ...)
    shape: (C, H, W) of every image
    skipped: names of images that could not be read
    """

    task: str
    seed: int
    source: str
    shape: tuple[int, int, int]
    flip: bool
    class_names: tuple[str, ...]
    parts: dict[str, Listing]
    skipped: tuple[str, ...] = ()
    duplicates: Duplicates = field(default_factory=Duplicates)

    @cached_property
    def hash(self) -> str:
        """sha256 (64 hex digits) of what was drawn, whatever the form of the file.

        That is the canonical JSON (sorted keys, no blanks, UTF-8) of version 1 of the file, in
        which every image was a row.
        """
        head = {
            "format": FORMAT, "version": 1, "task": self.task, "seed": self.seed,
            "source": self.source, "shape": self.shape, "flip": self.flip,
            "class_names": self.class_names, "skipped": self.skipped,
            "counts": {part: len(rows) for part, rows in self.parts.items()},
            "parts": None,
        }  # fmt: skip
        total = hashlib.sha256()
        before, after = _canonical(head).split('"parts":null')
        total.update((before + '"parts":{').encode())
        for number, part in enumerate(sorted(self.parts)):
            # All rows at once: a call for each would take ten times as long.
            total.update(f'{"," if number else ""}"{part}":'.encode())
            total.update(_canonical(list(self.parts[part])).encode())
        total.update(("}" + after).encode())
        return total.hexdigest()

    def dumps(self) -> str:
        """JSON with one image a line, to be read, searched and compared with line tools."""
        head = {
            "format": FORMAT, "version": VERSION, "hash": self.hash, "task": self.task,
            "seed": self.seed, "source": self.source, "shape": self.shape, "flip": self.flip,
            "class_names": self.class_names, "skipped": self.skipped,
            "duplicates": asdict(self.duplicates),
            "counts": {part: len(rows) for part, rows in self.parts.items()},
        }  # fmt: skip
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        parts = []
        for part, rows in self.parts.items():
            body = ",\n    ".join(
                f'[{json.dumps(file)}, {label}, "{content}"]' for file, label, content in rows
            )
            parts.append(f'  "{part}": [\n    {body}\n  ]')
        return "{\n" + ",\n".join(lines + parts) + "\n}\n"

    def encode(self) -> bytes:
        """What `read` reads. Raises InputError when that would be too large to be read again."""
        data = self.dumps().encode()
        if len(data) > MAX_BYTES:
            raise InputError(
                "train_images", f"must give a manifest of at most {MAX_BYTES} bytes", len(data),
                "draw fewer images",
            )  # fmt: skip
        return data

    def write(self, path: Path) -> None:
        """Write `path`, whole or not at all. Raises as `encode` does."""
        write_atomically(path, self.encode())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what `write` wrote. Raises InputError for anything else, or another version."""
        fix = "restore it from a copy"
        text = read_text(path, "manifest", MAX_BYTES)
        try:
            data = parse_json(text)
        except ValueError as error:
            raise InputError(str(path), "must be valid JSON", str(error), fix) from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(str(path), "must be the manifest of a task", type(data).__name__, fix)
        if data.get("version") != VERSION:
            raise InputError(
                str(path), f"must be of version {VERSION}", data.get("version"),
                "use the version of augsearch that wrote it",
            )  # fmt: skip
        try:
            found = cls(
                data["task"], data["seed"], data["source"], tuple(data["shape"]), data["flip"],
                tuple(data["class_names"]), {part: Listing(data[part]) for part in PARTS},
                tuple(data["skipped"]), Duplicates(**data["duplicates"]),
            )  # fmt: skip
            intact = found.hash == data["hash"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                str(path), "must have the fields of a manifest", f"{error!r}", fix
            ) from None
        if not intact:
            raise InputError(str(path), "must be as it was written", "another hash", fix)
        return found


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
