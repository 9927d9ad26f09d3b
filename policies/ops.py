"""The operations, declared once, and the magnitude conventions, as data.

An operation turns a magnitude *index* (what a policy stores) into one *parameter* (what a kernel
takes). How is a :class:`Scale`: the two ends of a range, their unit, whether a random sign is
drawn, and how the way between the ends is rounded. ``OPS`` holds the scales of the AutoAugment
paper (Cubuk et al., arXiv:1805.09501, appendix) as torchvision reads them;
``CONVENTIONS`` holds what other implementations do with the same index. No range is written
anywhere else.

Parameters, whatever the convention:

=============  ==============================================================================
operation      parameter
=============  ==============================================================================
ShearX, Y      source column (row) offset per row (column): Pillow's affine coefficient
TranslateX, Y  pixels, positive moves the content right (down)
Rotate         degrees, counter-clockwise
Solarize       threshold: values below it are kept, the others inverted
Posterize      number of high bits kept, 1..8
Contrast,
Color,
Brightness,
Sharpness      factor: 1 is the unchanged image, 0 the degenerate one (Pillow's ImageEnhance)
Cutout         side of the square in pixels
SamplePairing  weight of the partner image, 0..1
=============  ==============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from .errors import check_choice


@dataclass(frozen=True)
class Scale:
    """How a magnitude index becomes a kernel parameter.

    ``low`` belongs to index 0, ``high`` to the far end (inclusive); a descending pair means
    "stronger downwards". Units: ``"slope"``, ``"pixels"``, ``"of width"``, ``"of height"``,
    ``"of shorter side"``, ``"degrees"``, ``"threshold"``, ``"bits"``, ``"factor"``,
    ``"1 + factor"`` (distance of the factor from 1) and ``"weight"``.
    ``rounding`` acts on the distance from ``low``: ``"none"``, ``"truncate"`` or ``"nearest"``
    (halves to even).
    """

    low: float
    high: float
    unit: str
    signed: bool = False
    rounding: str = "none"

    def ends(self, height: int, width: int) -> tuple[float, float]:
        """The range in the kernel's unit for an image of ``height`` x ``width`` pixels."""
        side = {"of width": width, "of height": height, "of shorter side": min(height, width)}
        factor = side.get(self.unit, 1)
        return self.low * factor, self.high * factor


@dataclass(frozen=True)
class Op:
    """One operation: its name in policies, its kernel, its paper scale and where that is from.

    ``kernel`` is one of ``program.KERNELS``; several operations may share one. ``scale`` is None
    for operations without a magnitude. ``severity`` says in words which way the operation grows
    stronger with the index.
    """

    name: str
    kernel: str
    scale: Scale | None
    severity: str
    source: str

    @property
    def has_magnitude(self) -> bool:
        return self.scale is not None

    @property
    def moves(self) -> bool:
        """Whether it moves pixels, so that masks, boxes and key points would have to move too."""
        return self.kernel == "affine"


_TABLE = "AutoAugment, arXiv:1805.09501, appendix"
_TORCHVISION = _TABLE + "; direction as in torchvision.transforms.AutoAugment"
_MIRRORED = (
    _TABLE + " gives factors 0.1..1.9; mirrored around 1 (index 0: no change) as in torchvision"
)
_SLOPE = Scale(0.0, 0.3, "slope", signed=True)
_SHIFT = 150 / 331  # the paper's 150 pixels on its 331-pixel images
_ENHANCE = Scale(0.0, 0.9, "1 + factor", signed=True)
_UP, _DOWN, _FIXED = "grows with the index", "grows as the value falls", "has no magnitude"

_DECLARED = (
    Op("ShearX", "affine", _SLOPE, _UP, _TABLE),
    Op("ShearY", "affine", _SLOPE, _UP, _TABLE),
    Op("TranslateX", "affine", Scale(0, _SHIFT, "of width", True, "truncate"), _UP, _TABLE),
    Op("TranslateY", "affine", Scale(0, _SHIFT, "of height", True, "truncate"), _UP, _TABLE),
    Op("Rotate", "affine", Scale(0.0, 30.0, "degrees", signed=True), _UP, _TABLE),
    Op("AutoContrast", "autocontrast", None, _FIXED, _TABLE),
    Op("Invert", "invert", None, _FIXED, _TABLE),
    Op("Equalize", "equalize", None, _FIXED, _TABLE),
    Op("Solarize", "solarize", Scale(255.0, 0.0, "threshold"), _DOWN, _TORCHVISION),
    Op("Posterize", "posterize", Scale(8, 4, "bits", rounding="nearest"), _DOWN, _TORCHVISION),
    Op("Contrast", "contrast", _ENHANCE, _UP, _MIRRORED),
    Op("Color", "color", _ENHANCE, _UP, _MIRRORED),
    Op("Brightness", "brightness", _ENHANCE, _UP, _MIRRORED),
    Op("Sharpness", "sharpness", _ENHANCE, _UP, _MIRRORED),
    Op("Cutout", "cutout", Scale(0, 60 / 331, "of shorter side", rounding="truncate"), _UP, _TABLE),
    Op("SamplePairing", "pairing", Scale(0.0, 0.4, "weight"), _UP, _TABLE),
    Op("Identity", "identity", None, _FIXED, "RandAugment, arXiv:1909.13719"),
)

OPS: Mapping[str, Op] = MappingProxyType({op.name: op for op in _DECLARED})
"""Every operation by name: the paper's 16 in the paper's order, then Identity."""

PAPER_OPS: tuple[str, ...] = tuple(OPS)[:16]
"""Names of the 16 operations of the AutoAugment search space, in the paper's order."""

RANDAUGMENT_OPS: tuple[str, ...] = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
"""The 14 operations of RandAugment and TrivialAugment (torchvision's order)."""

UNIFORMAUGMENT_OPS: tuple[str, ...] = PAPER_OPS[:15]
"""The 15 operations of UniformAugment (arXiv:2003.14348): the paper's without SamplePairing."""


@dataclass(frozen=True)
class Convention:
    """What a magnitude index means.

    ``bins`` indices are legal (0..bins-1) and index i stands i/``steps`` of the way along the
    scale. ``single`` conventions compute that in float32, as ``torch.linspace`` does: torchvision's
    values then come out to the last bit, which matters for Solarize (index 3 is a threshold of
    exactly 170). ``overrides`` replaces the paper's scale of some operations.
    """

    name: str
    bins: int
    steps: int
    single: bool
    source: str
    overrides: Mapping[str, Scale] = field(default_factory=dict)

    def scale(self, name: str) -> Scale | None:
        """The scale of operation ``name``, or None if it has no magnitude."""
        return self.overrides.get(name, OPS[name].scale)

    def signed(self, name: str) -> bool:
        """Whether a random sign is drawn for operation ``name``."""
        scale = self.scale(name)
        return scale is not None and scale.signed

    def parameter(
        self, name: str, index: int | None, negative: bool, height: int, width: int
    ) -> float:
        """The kernel parameter of ``name`` at magnitude ``index`` on a height x width image.

        ``negative`` is the drawn sign; it is ignored where the convention draws none. Operations
        without a magnitude return 0.0.
        """
        scale = self.scale(name)
        if scale is None or index is None:
            return 0.0
        low, high = scale.ends(height, width)
        if self.single:
            value = _linspace(low, high, self.bins)[index]
            distance = value - low
        else:
            distance = index * (high - low) / self.steps
            value = low + distance
        return _finish(scale, low, value, distance, negative)

    def share(self, name: str, index: int | None) -> float | None:
        """The share of the side by which ``name`` shifts, before any rounding to whole pixels.

        None for operations that shift nothing, or by pixels.
        """
        scale = self.scale(name)
        if scale is None or index is None or scale.unit not in ("of width", "of height"):
            return None
        return index / self.steps * scale.high

    def parameter_at(
        self, name: str, fraction: float, negative: bool, height: int, width: int
    ) -> float:
        """As :meth:`parameter`, for a point 0..1 of the way along the scale (UniformAugment)."""
        scale = self.scale(name)
        if scale is None:
            return 0.0
        low, high = scale.ends(height, width)
        distance = fraction * (high - low)
        return _finish(scale, low, low + distance, distance, negative)


def _finish(scale: Scale, low: float, value: float, distance: float, negative: bool) -> float:
    if scale.rounding == "truncate":
        value = low + math.trunc(distance)
    elif scale.rounding == "nearest":
        value = low + round(distance)
    if scale.signed and negative:
        value = -value
    return 1.0 + value if scale.unit == "1 + factor" else value


@lru_cache(maxsize=4096)
def _linspace(low: float, high: float, bins: int) -> tuple[float, ...]:
    import torch  # the command line reads OPS, and does not wait for torch

    # Not torch's defaults: a program may have set others, and they would change the magnitudes.
    return tuple(torch.linspace(low, high, bins, dtype=torch.float32, device="cpu").tolist())


def _both(scale: Scale, *names: str) -> dict[str, Scale]:
    return {name: scale for name in names}


_FACTOR = _both(Scale(0.1, 1.9, "factor"), "Contrast", "Color", "Brightness", "Sharpness")
_TF = {
    **_FACTOR,
    **_both(Scale(0, 10, "pixels", True, "truncate"), "TranslateX", "TranslateY"),
    "Rotate": Scale(0, 30, "degrees", True, "truncate"),
    "Solarize": Scale(256, 0, "threshold", rounding="truncate"),
    "Posterize": Scale(4, 0, "bits", rounding="truncate"),
    "Cutout": Scale(0, 20, "pixels", rounding="truncate"),
}
_TIMM = {
    **_FACTOR,
    "TranslateX": Scale(0, 0.45, "of width", True),
    "TranslateY": Scale(0, 0.45, "of height", True),
    "Solarize": Scale(0, 256, "threshold", rounding="truncate"),
    "Posterize": Scale(4, 8, "bits", rounding="truncate"),
}
_TRIVIAL = {
    **_both(Scale(0.0, 0.99, "slope", True), "ShearX", "ShearY"),
    **_both(Scale(0, 32, "pixels", True, "truncate"), "TranslateX", "TranslateY"),
    "Rotate": Scale(0.0, 135.0, "degrees", True),
    "Posterize": Scale(8, 2, "bits", rounding="nearest"),
    **_both(Scale(0.0, 0.99, "1 + factor", True), "Contrast", "Color", "Brightness", "Sharpness"),
}

CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        c.name: c
        for c in (
            Convention("paper", 10, 9, True, "torchvision.transforms.AutoAugment"),
            Convention(
                "tf", 10, 10, False,
                "tensorflow/models research/autoaugment/augmentation_transforms.py", _TF,
            ),
            Convention("timm", 10, 10, False, "timm auto_augment.py, policy 'original'", _TIMM),
            Convention("randaugment", 31, 30, True, "torchvision.transforms.RandAugment"),
            Convention(
                "trivialaugment", 31, 30, True, "torchvision.transforms.TrivialAugmentWide",
                _TRIVIAL,
            ),
        )
    }
)  # fmt: skip
"""Magnitude conventions by name; ``paper`` is the default everywhere."""


def get_convention(name: str) -> Convention:
    """The convention called ``name``; InputError if there is none."""
    check_choice("convention", name, CONVENTIONS)
    return CONVENTIONS[name]
