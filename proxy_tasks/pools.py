"""What a task draws from, and what users are told about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.errors import InputError

from .sources import Source, printable

# What folders and arrays of a part are called, upper and lower case alike.
ALIASES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Pools:
    """What a task draws from.

    source: what kind of place the images come from
    sources: of train, and of each part that has images of its own; others are held out of train
    notes: sentences about what was found, for the user
    """

    source: str
    class_names: tuple[str, ...]
    sources: Mapping[str, Source]
    notes: tuple[str, ...] = ()


def held_out(sources: dict[str, Source], names: Mapping[str, str]) -> list[str]:
    """The one held-out source, whatever it is called (`names`), becomes the test part.

    As with ImageNet's val/: what final comparisons read must be what others compare on, and a
    search has enough images to cut its validation part from. Returns what to say about it.
    """
    if "validation" not in sources or "test" in sources:
        return []
    sources["test"] = sources.pop("validation")
    return [
        f"{names['validation']} is the only part that is held out, and so the test part, which "
        "searches never read; the validation part is cut from train"
    ]


def make_pools(
    kind: str,
    names: Sequence[str],
    sources: Mapping[str, Source],
    notes: Sequence[str],
) -> Pools:
    """Raises InputError for fewer than two classes."""
    shown = tuple(printable(name) for name in names)
    if len(shown) < 2:
        raise InputError("data", "train/ must hold at least 2 classes", shown[0], "add a class")
    for part, source in sources.items():
        if not len(source.labels):
            raise InputError(
                "data", f"the {part} part must hold images of the classes of train",
                "; ".join(notes[:5]) or "none",
                "call its classes as those of train, or take it out",
            )  # fmt: skip
    return Pools(kind, shown, sources, tuple(notes))
