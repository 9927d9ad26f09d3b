"""The manifest: exactly which images a proxy task consists of, and the hash that names it.

A manifest holds no absolute path and no time, so the same draw from a copy of the same files has
the same hash on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

FORMAT = "augsearch-manifest"
VERSION = 1


def content_id(data: bytes) -> str:
    """First 16 hex digits of the sha256 of an image's bytes (file content or raw pixels)."""
    return hashlib.sha256(data).hexdigest()[:16]


def manifest_hash(manifest: dict) -> str:
    """sha256 (64 hex digits) of the canonical JSON of a manifest: sorted keys, no blanks, UTF-8."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def make_manifest(
    task: str,
    seed: int,
    source: str,
    shape: tuple[int, int, int],
    flip: bool,
    class_names: Sequence[str],
    parts: dict[str, list[list]],
    skipped: list[str],
) -> dict:
    """Assemble a manifest.

    `parts` maps train | validation | test to rows `[file, label, content id]`; `source` says what
    kind of place they come from ("folder", "torchvision CIFAR10", ...); `shape` is (C, H, W);
    `skipped` names images that could not be read.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": task,
        "seed": seed,
        "source": source,
        "shape": list(shape),
        "flip": flip,
        "class_names": list(class_names),
        "counts": {part: len(rows) for part, rows in parts.items()},
        "parts": parts,
        "skipped": skipped,
    }
