"""What an augmentation does to images: rows of draws, each with the operations that it applied."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from policies import OPS, Policy, PolicyTransform, ScheduleTransform, Transform, get_convention
from policies.augmentations import Augmentation, as_transform

SIDE = 96  # pixels: larger images are scaled down; a browser enlarges smaller ones
ROWS = 30  # sub-policies that are shown
LINES = 2  # rows of draws of a transform that has no sub-policies

# How a kernel's parameter is written, by the unit that the operation's magnitude has.
_UNITS = {
    "slope": "{:+.2f}",
    "of width": "{:+.0f} px",
    "of height": "{:+.0f} px",
    "of shorter side": "{:.0f} px",
    "degrees": "{:+.1f}°",
    "threshold": "from {:.0f}",
    "bits": "{:.0f} bits",
    "1 + factor": "× {:.2f}",
    "weight": "× {:.2f}",
}


@dataclass(frozen=True)
class Step:
    """An operation that an image met: its name, its value in its unit ("" without a magnitude),
    and whether it was applied."""

    name: str
    value: str
    applied: bool


@dataclass(frozen=True)
class Cell:
    """One picture (base64 of a PNG) and what was done to it."""

    png: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Row:
    """A title and pictures."""

    title: str
    cells: tuple[Cell, ...]


def originals(images: np.ndarray) -> Row:
    """The untouched images, uint8 [N, C, H, W]."""
    return Row("original", tuple(Cell(png(image), ()) for image in images))


def rows(augmentation: Augmentation, images: np.ndarray, seed: int = 0) -> tuple[list[Row], str]:
    """One row a sub-policy, or rows of draws of a transform; and a remark, or "".

    Args:
        augmentation: what is drawn from; a schedule's last policy.
        images: uint8 [N, C, H, W], C = 1 or 3; every one draws for itself.
        seed: of the draws.
    """
    if augmentation is None:
        return [], "No augmentation."
    remark = ""
    if isinstance(augmentation, ScheduleTransform):
        remark = "The schedule's last policy. "
        augmentation = augmentation.schedule[-1][1]
    transform = as_transform(augmentation)
    if not isinstance(transform, PolicyTransform):
        return [_drawn(transform, "", images, seed + line) for line in range(LINES)], remark
    policy, convention = transform.policy, transform.convention
    if len(policy) > ROWS:
        remark += f"The first {ROWS} of {len(policy)} sub-policies."
    found = []
    for index, sub in enumerate(policy[:ROWS]):
        one = PolicyTransform(Policy([sub], bins=policy.bins), convention, transform.fill)
        title = " → ".join(
            _titled(name, probability, magnitude, convention, images.shape[2:])
            for name, probability, magnitude in sub
        )
        names = [name for name, _, _ in sub]
        found.append(_drawn(one, f"{index + 1}. {title}", images, seed + index, names))
    return found, remark.strip()


def _titled(
    name: str, probability: float, magnitude: int | None, convention: str, size: tuple[int, ...]
) -> str:
    """An operation as a policy has it, its magnitude in its unit too."""
    text = f"{name}, probability {probability:g}"
    if magnitude is None:
        return text
    scale = get_convention(convention)
    plus, minus = (
        written(name, scale.parameter(name, magnitude, sign, *size)) for sign in (False, True)
    )
    both = f"±{plus[1:]}" if plus[1:] == minus[1:] else f"{plus} or {minus}"
    return f"{text}, magnitude {magnitude} ({plus if plus == minus else both})"


def _drawn(
    transform: Transform, title: str, images: np.ndarray, seed: int, names: list[str] | None = None
) -> Row:
    """One draw per image. `names`: the operations of the only sub-policy, to say what was not."""
    seeded = transform.with_generator(torch.Generator().manual_seed(seed))
    pictures, drawn = seeded.explained(images)
    cells = []
    for picture, operations in zip(pictures, drawn, strict=True):
        steps = tuple(
            Step(expected or name, written(name, value), not expected or name == expected)
            for (name, value), expected in zip(
                operations, names or [""] * len(operations), strict=False
            )
            if expected or name != "Identity"
        )
        cells.append(Cell(png(picture), steps or (Step("unchanged", "", True),)))
    return Row(title, tuple(cells))


def written(name: str, value: float) -> str:
    """A kernel's parameter with its unit; "" for an operation without a magnitude."""
    scale = OPS[name].scale
    if scale is None:
        return ""
    # A number and its unit stay on one line.
    text = _UNITS[scale.unit].format(value + 0.0)  # without the sign of -0.0
    return text.replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def png(image: np.ndarray) -> str:
    """Base64 of a PNG of uint8 [C, H, W], C = 1 or 3, at most SIDE pixels high and wide."""
    array = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    picture = Image.fromarray(array)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
