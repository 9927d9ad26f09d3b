"""Policies as other libraries write them: torchvision's table and timm's op list.

Both are text that Python reads as a literal. What the other library cannot express is refused
rather than changed in silence: Cutout and SamplePairing have no counterpart in either.
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import InputError
from .ops import OPS, Convention, get_convention
from .policy import Policy, PolicyFile

TORCHVISION_OPS = frozenset(OPS) - {"Cutout", "SamplePairing", "Identity"}
TIMM_LEVELS = 10.0  # timm's magnitudes run from 0 to 10 and may be fractions
_ENHANCERS = ("Contrast", "Color", "Brightness", "Sharpness")


def to_torchvision(file: PolicyFile) -> str:
    """The table that `torchvision.transforms.v2.AutoAugment._get_policies` returns.

    torchvision reads magnitudes as the `paper` convention does; others raise InputError.
    """
    if file.convention != "paper":
        raise InputError(
            "convention", "must be paper for torchvision's AutoAugment", file.convention,
            "export another format",
        )  # fmt: skip
    for name in _names(file.policy):
        if name not in TORCHVISION_OPS:
            raise _not_expressible(name, "torchvision")
    rows = "".join(f"    {_row(row)},\n" for row in file.policy)
    return f"[\n{rows}]\n"


def to_timm(file: PolicyFile) -> str:
    """A list for `timm.data.auto_augment`: lists of (timm op, probability, level).

    Each magnitude becomes the timm op and level (0..10, fractions allowed) that has the same
    effect: `AutoAugment([[AugmentOp(*op) for op in sub] for sub in table])`. Exact but for
    rounding to whole pixels (timm shifts by fractions), thresholds of Solarize (within 1) and
    timm's interpolation, bilinear or bicubic.
    """
    convention = get_convention(file.convention)
    rows = []
    for row in file.policy:
        converted = [
            (*_timm(name, magnitude, convention), probability)
            for name, probability, magnitude in row
        ]
        rows.append([(name, probability, level) for name, level, probability in converted])
    return "[\n" + "".join(f"    {row!r},\n" for row in rows) + "]\n"


def _row(row: tuple) -> str:
    return "(" + ", ".join(f'("{n}", {p!r}, {m!r})' for n, p, m in row) + ",)"


def _names(policy: Policy) -> list[str]:
    return [name for row in policy for name, _, _ in row]


def _not_expressible(name: str, library: str) -> InputError:
    return InputError(
        "policy", f"must use operations that {library} has", name,
        "leave its sub-policies out, or train with PolicyTransform",
    )  # fmt: skip


def _timm(name: str, magnitude: int | None, convention: Convention) -> tuple[str, float]:
    """The timm op and level with the effect of `name` at index `magnitude`."""
    if name in ("Cutout", "SamplePairing", "Identity"):
        raise _not_expressible(name, "timm")
    scale = convention.scale(name)
    if scale is None:
        return name, 0.0
    value = scale.low + magnitude / convention.steps * (scale.high - scale.low)
    if scale.unit == "pixels":
        raise InputError(
            "convention", "must measure shifts relative to the image for timm", convention.name,
            "export another format",
        )  # fmt: skip
    if name == "Posterize":
        # Rounded as the convention does; what is left of 8 bits picks timm's op.
        bits = int(convention.parameter(name, magnitude, False, 1, 1))
        op, level = (
            ("PosterizeOriginal", (bits - 4) / 4)
            if bits >= 4
            else ("PosterizeIncreasing", (4 - bits) / 4)
        )
    elif name in _ENHANCERS and scale.unit == "factor":
        op, level = name, (value - 0.1) / 1.8
    else:
        op, level = _LEVELS[name](value)
    level = round(TIMM_LEVELS * level, 9)
    # 150/331 of the side is 0.7 % more than timm's 0.45 at its highest level, less than a pixel.
    if level > TIMM_LEVELS * 1.01:
        raise InputError(
            f"magnitude of {name}", "must lie in timm's range", magnitude,
            "lower it, or train with PolicyTransform",
        )  # fmt: skip
    return op, min(level, TIMM_LEVELS)


_LEVELS: dict[str, Callable[[float], tuple[str, float]]] = {
    "ShearX": lambda slope: ("ShearX", slope / 0.3),
    "ShearY": lambda slope: ("ShearY", slope / 0.3),
    "TranslateX": lambda share: ("TranslateXRel", share / 0.45),
    "TranslateY": lambda share: ("TranslateYRel", share / 0.45),
    "Rotate": lambda degrees: ("Rotate", degrees / 30),
    "Solarize": lambda threshold: ("SolarizeIncreasing", (256 - threshold) / 256),
    **{
        name: lambda distance, name=name: (f"{name}Increasing", distance / 0.9)
        for name in _ENHANCERS
    },
}
