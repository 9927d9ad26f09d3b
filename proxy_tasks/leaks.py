"""The same image twice: found by its pixels, and never left in two parts.

Compared is what a child would see, the decoded pixels at the task's resolution, so that a copy
under another name, in another file format without loss, or with other EXIF data is found too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .manifest import REMEMBERED, Duplicates

# What is read last is protected most: an image in two parts stays in the first of these.
PROTECTED = ("test", "validation", "train")


class Item(NamedTuple):
    """An image that was read: its name, the number of its class, `fingerprint` of its pixels,
    `content_id` of its file, and its place among the images of its part."""

    name: str
    label: int
    fingerprint: bytes
    content: str
    place: int


def fingerprint(pixels: np.ndarray) -> bytes:
    """16 bytes that are equal for equal pixels; of uint8 [C, H, W]."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def separate(
    parts: Mapping[str, Sequence[Item]], class_names: Sequence[str]
) -> tuple[dict[str, list[Item]], Duplicates]:
    """Parts that share no image, and what was found on the way.

    An image that is in several parts stays in the most protected one. Copies inside a part stay,
    whatever their labels: they are counted and named.
    """
    first: dict[bytes, tuple[str, Item]] = {}
    kept: dict[str, list[Item]] = {}
    found: dict[str, list[list[str]]] = {"removed": [], "repeated": [], "contradictory": []}
    for part in PROTECTED:
        kept[part] = []
        for item in parts[part]:
            home, twin = first.setdefault(item.fingerprint, (part, item))
            if twin is not item and twin.label != item.label:
                found["contradictory"].append(
                    [item.name, class_names[item.label], twin.name, class_names[twin.label]]
                )
            if home != part:
                found["removed"].append([item.name, part, twin.name, home])
                continue
            if twin is not item:
                found["repeated"].append([item.name, twin.name, part])
            kept[part].append(item)
    counts = {kind: len(rows) for kind, rows in found.items()}
    found["repeated"] = found["repeated"][:REMEMBERED]
    found["contradictory"] = found["contradictory"][:REMEMBERED]
    return {part: kept[part] for part in parts}, Duplicates(**found, counts=counts)


def sentences(duplicates: Duplicates) -> list[str]:
    """What to tell the user, with up to three examples each; nothing where there is nothing."""
    texts = []
    for part in ("validation", "train"):
        rows = [row for row in duplicates.removed if row[1] == part]
        if rows:
            texts.append(
                f"{_images(len(rows))} left out of {part}, being in "
                f"{' or '.join(sorted({row[3] for row in rows}))} too: "
                + _examples([f"{row[0]} (= {row[2]})" for row in rows], len(rows))
            )
    counts = duplicates.counts
    if counts.get("repeated"):
        examples = [f"{name} (= {twin})" for name, twin, _ in duplicates.repeated]
        texts.append(
            f"{_images(counts['repeated'])} in a part more than once: "
            + _examples(examples, counts["repeated"])
        )
    if counts.get("contradictory"):
        examples = [
            f"{name} is {label!r}, {twin} is {other!r}"
            for name, label, twin, other in duplicates.contradictory
        ]
        texts.append(
            f"{_images(counts['contradictory'])} under two labels: "
            + _examples(examples, counts["contradictory"])
        )
    return texts


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count} images are"


def _examples(texts: Sequence[str], count: int) -> str:
    return ", ".join(texts[:3]) + (f" and {count - 3} more" if count > 3 else "")
