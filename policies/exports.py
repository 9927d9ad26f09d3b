"""Policies as modules for kornia and albumentations: one table of what each operation is there.

Both libraries are given the parameters that augsearch computes, in their own units, and choose by
their own containers: one sub-policy of all, then its operations in order, each by its probability
and with one of its signs. Pixels are as close as the library's own kernels come; ``EXACT`` names
the operations where they are equal, and ``DIFFERENCES`` says how the others differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .errors import InputError
from .ops import Convention, Scale, get_convention
from .policy import Operation
from .policy_files import PolicyFile
from .transforms import RandAugment, TrivialAugmentWide

Rows = Sequence[Sequence[Operation]]
Entry = tuple[str, float, tuple[float, ...]]

EXACT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kornia": ("Invert", "Solarize"),
        "albumentations": (
            "TranslateX", "TranslateY", "Invert", "Solarize", "Posterize", "Brightness",
        ),
    }
)  # fmt: skip
"""By format, the operations whose pixels are augsearch's own."""

_ABOUT_CENTRE = "about the centre of the image, not about its upper left corner"
_ROUNDED = "differ by 1 of 255 at most"
DIFFERENCES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "kornia": {
            "one sub-policy and one sign": "drawn for a whole batch",
            "ShearX, ShearY": _ABOUT_CENTRE,
            "TranslateX, TranslateY": "rounded to whole pixels, not cut off",
            "Rotate": "of two equally near pixels either",
            "Posterize, Equalize": "cut off what an operation before them left between two values",
            "AutoContrast, Contrast, Color, Brightness, Sharpness": _ROUNDED,
        },
        "albumentations": {
            "ShearX, ShearY": _ABOUT_CENTRE,
            "TranslateX, TranslateY": "cut off to whole pixels in the timm convention too",
            "Rotate": "of two equally near pixels either",
            "AutoContrast, Contrast, Color": _ROUNDED,
            "Equalize": "its table of grey values is one bin further",
        },
    }
)
"""By format and operations, what the library does otherwise."""


def differences(form: str) -> str:
    """``DIFFERENCES`` of a format in one line."""
    return "; ".join(f"{names} {what}" for names, what in DIFFERENCES[form].items())


_KORNIA = '''\
"""An augmentation for kornia, written by augsearch.

`transform` takes float images in 0..1, [C, H, W] or [N, C, H, W]. kornia draws the sub-policy and
the signs once a call, for the whole batch: call it image by image where each is to have its own.
"""

import kornia.augmentation as K
from kornia import enhance


class Enhance(K.IntensityAugmentationBase2D):
    """A function of kornia, of an image and a factor; K.RandomBrightness and others add instead."""

    def __init__(self, function, factor, p):
        super().__init__(p=p)
        self.function, self.factor = function, factor

    def apply_transform(self, input, params, flags, transform=None):
        return self.function(input, self.factor)


NEAREST = {{"resample": "nearest", "padding_mode": "zeros"}}
# Operation -> what it is at a value: degrees, shares of a side, thresholds in 0..1, bits, factors.
OPERATIONS = {{
    "ShearX": lambda v, p: K.RandomShear((v, v, 0.0, 0.0), p=p, **NEAREST),
    "ShearY": lambda v, p: K.RandomShear((0.0, 0.0, v, v), p=p, **NEAREST),
    "TranslateX": lambda v, p: K.RandomTranslate((v, v), None, p=p, **NEAREST),
    "TranslateY": lambda v, p: K.RandomTranslate(None, (v, v), p=p, **NEAREST),
    "Rotate": lambda v, p: K.RandomRotation((v, v), p=p, resample="nearest"),
    "Solarize": lambda v, p: K.RandomSolarize((v, v), (0.0, 0.0), p=p),
    "Posterize": lambda v, p: K.RandomPosterize((v, v), p=p),
    "Contrast": lambda v, p: Enhance(enhance.adjust_contrast_with_mean_subtraction, v, p),
    "Color": lambda v, p: Enhance(enhance.adjust_saturation_with_gray_subtraction, v, p),
    "Brightness": lambda v, p: Enhance(enhance.adjust_contrast, v, p),  # kornia's word for it
    "Sharpness": lambda v, p: Enhance(enhance.sharpness, v, p),
    "AutoContrast": lambda p: K.RandomAutoContrast(p=p),
    "Invert": lambda p: K.RandomInvert(p=p),
    "Equalize": lambda p: K.RandomEqualize(p=p),
}}


def one_of(*choices):
    return K.ImageSequential(*choices, random_apply=1)


def operation(name, p, values):
    make = OPERATIONS[name]
    return one_of(*[make(v, p) for v in values]) if values else make(p)


# The sub-policies: (operation, probability, its value, or its two with either sign).
POLICY = [
{table}]

SUBPOLICIES = [K.ImageSequential(*[operation(*op) for op in row]) for row in POLICY]
# Draws of a sub-policy, one after the other.
transform = K.ImageSequential(*[one_of(*SUBPOLICIES) for _ in range({draws})])
'''
_ALBUMENTATIONS = '''\
"""An augmentation for albumentations, written by augsearch.

`transform(image=image)["image"]` takes uint8 arrays [H, W, 3] or [H, W, 1].
"""

import albumentations as A
import cv2

AFFINE = {{
    "interpolation": cv2.INTER_NEAREST,
    "border_mode": cv2.BORDER_CONSTANT,
    "fill": {fill!r},
    "p": 1.0,
}}
UNCHANGED = {{"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}}


def jitter(name, factor):
    return A.ColorJitter(**{{**UNCHANGED, name: (factor, factor)}}, p=1.0)


# Operation -> what it is at a value: degrees, shares of a side, thresholds in 0..1, bits, factors.
OPERATIONS = {{
    "ShearX": lambda v: A.Affine(shear={{"x": (v, v), "y": (0.0, 0.0)}}, **AFFINE),
    "ShearY": lambda v: A.Affine(shear={{"x": (0.0, 0.0), "y": (v, v)}}, **AFFINE),
    "TranslateX": lambda v: A.Affine(translate_percent={{"x": (v, v), "y": (0.0, 0.0)}}, **AFFINE),
    "TranslateY": lambda v: A.Affine(translate_percent={{"x": (0.0, 0.0), "y": (v, v)}}, **AFFINE),
    "TranslateXPixels": lambda v: A.Affine(translate_px={{"x": (v, v), "y": (0, 0)}}, **AFFINE),
    "TranslateYPixels": lambda v: A.Affine(translate_px={{"x": (0, 0), "y": (v, v)}}, **AFFINE),
    "Rotate": lambda v: A.Affine(rotate=(v, v), **AFFINE),
    "Solarize": lambda v: A.Solarize(threshold_range=(v, v), p=1.0),
    "Posterize": lambda v: A.Posterize(num_bits=(v, v), p=1.0),
    "Contrast": lambda v: jitter("contrast", v),
    "Color": lambda v: jitter("saturation", v),
    "Brightness": lambda v: jitter("brightness", v),
    "AutoContrast": lambda: A.AutoContrast(method="pil", p=1.0),
    "Invert": lambda: A.InvertImg(p=1.0),
    "Equalize": lambda: A.Equalize(mode="pil", p=1.0),
}}


def operation(name, p, values):
    make = OPERATIONS[name]
    return A.OneOf([make(v) for v in values] if values else [make()], p=p)


# The sub-policies: (operation, probability, its value, or its two with either sign).
POLICY = [
{table}]

SUBPOLICIES = [A.Sequential([operation(*op) for op in row], p=1.0) for row in POLICY]
# Draws of a sub-policy, one after the other.
transform = A.Compose([A.RandomOrder(SUBPOLICIES, n={draws}, replace=True)])
'''


def kornia(file: PolicyFile, rows: Rows) -> str:
    """A module for kornia. Raises InputError for a fill or a magnitude that it cannot express."""
    if getattr(file.augmentation, "fill", 0) not in (0, (0, 0, 0)):
        raise InputError(
            "fill", "must be 0 for kornia, whose shifts and rotations fill with black",
            file.augmentation, "export albumentations, timm, torchvision or json",
        )  # fmt: skip
    return _KORNIA.format(table=_table(file, rows, "kornia"), draws=_draws(file))


def albumentations(file: PolicyFile, rows: Rows) -> str:
    """A module for albumentations. Raises InputError for a magnitude that it cannot express."""
    fill = getattr(file.augmentation, "fill", 0)
    table = _table(file, rows, "albumentations")
    return _ALBUMENTATIONS.format(table=table, draws=_draws(file), fill=fill)


def as_rows(file: PolicyFile) -> Rows:
    """The sub-policies that RandAugment draws ``n`` times from, or TrivialAugment once."""
    if isinstance(file.augmentation, RandAugment):
        return RandAugment(1, file.augmentation.m).as_policy()
    return TrivialAugmentWide().as_policy()


def one_line(file: PolicyFile, form: str) -> str:
    """A comment with the library's own RandAugment, where it has one, for a RandAugment's file."""
    if not isinstance(file.augmentation, RandAugment):
        return ""
    n, m, fill = file.augmentation.n, file.augmentation.m, file.augmentation.fill
    colour = (fill,) * 3 if isinstance(fill, int) else fill
    lines = {
        "torchvision": f"v2.RandAugment(num_ops={n}, magnitude={m}, fill={fill!r})",
        "timm": f'rand_augment_transform("rand-m{round(m / 3)}-n{n}-p1.0-inc1", '
        f'{{"img_mean": {colour}}})',
        "kornia": f"kornia.augmentation.auto.RandAugment(n={n}, m={m})",
    }
    if form not in lines or (form == "kornia" and not (1 <= m <= 29 and 1 <= n <= 15)):
        return ""
    return f"# In one line, with the library's own operations and ranges:\n# {lines[form]}\n"


def _draws(file: PolicyFile) -> int:
    return file.augmentation.n if isinstance(file.augmentation, RandAugment) else 1


def _table(file: PolicyFile, rows: Rows, form: str) -> str:
    if isinstance(file.augmentation, RandAugment | TrivialAugmentWide):
        convention = get_convention(file.augmentation.convention)
    else:
        convention = get_convention(file.convention)
    return "".join(f"    {[_entry(op, convention, form) for op in row]!r},\n" for row in rows)


def _entry(op: Operation, convention: Convention, form: str) -> Entry:
    """The operation with its value in the libraries' unit, or two where a sign is drawn."""
    name, probability, magnitude = op
    scale = convention.scale(name)
    if magnitude is None or scale is None:
        return name, probability, ()
    if scale.unit == "pixels":
        if form == "kornia":
            raise _beyond(op, form, "a share of the side: it has no shifts in pixels")
        name += "Pixels"
    signs = (False, True) if scale.signed else (False,)
    values = [_value(op, convention, scale, negative, form) for negative in signs]
    return name, probability, tuple(dict.fromkeys(values))


def _value(op: Operation, convention: Convention, scale: Scale, negative: bool, form: str) -> float:
    name, _, magnitude = op
    value = convention.parameter(name, magnitude, negative, 1, 1)
    share = convention.share(name, magnitude)
    if share is not None:
        # Never a last bit below a whole number of pixels, where a library cuts fractions off.
        share *= 1 + 1e-12
        return -share if negative else share
    if scale.unit == "slope":
        return math.degrees(math.atan(value))
    if scale.unit in ("bits", "pixels"):
        return int(value)
    if scale.unit == "threshold":
        if value > 255:
            raise _beyond(op, form, "a threshold of at most 255")
        # In the middle between the brightest that is kept and the darkest that is inverted.
        return max(math.ceil(value) - 0.5, 0.0) / 255
    return value


def _beyond(op: Operation, form: str, rule: str) -> InputError:
    return InputError(
        f"magnitude of {op.name}", f"must be for {form} {rule}", op.magnitude,
        "change it, export json, or train with PolicyTransform",
    )  # fmt: skip
