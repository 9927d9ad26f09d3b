"""Augmentations as other libraries write them, pixel for pixel wherever those can follow.

``FORMATS`` says of each what it carries and what it cannot; ``convert`` refuses the rest. All but
text and json are Python modules with ``transform`` in them: copy one beside the training script and
import it. All formats keep probabilities, the order of operations and repeated sub-policies.
Operations that a library lacks are left out only with ``drop=True``, and counted; their sub-policy
stays, if need be empty, so that the chances of the others do not change. ``Identity``, and anything
of probability 0 that a library lacks, is left out without that: nothing changes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from . import exports
from .errors import InputError, check_choice
from .exports import Rows
from .ops import OPS, PAPER_OPS, RANDAUGMENT_OPS, get_convention
from .policy import Operation, Policy
from .policy_files import PolicyFile, to_json_text
from .program import MAX_SIDE
from .transforms import PolicyTransform, RandAugment, TrivialAugmentWide


class Export(NamedTuple):
    """An augmentation in another format.

    Attributes:
        text: content of a file.
        left_out: how many operations of each name were dropped.
    """

    text: str
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Format:
    """One format: how it is written, and what it is.

    Attributes:
        write: the text of a file's augmentation, operations that ``lacks`` names left out.
        ending: of a file's name.
        carries: in words, for readers.
        loses: in words, what it cannot carry or the library does otherwise.
        lacks: operations that it has no word for.
        transforms: kinds of augmentations that it takes beside policies.
        rows: the sub-policies that one of these draws from, where that is how it is written.
    """

    write: Callable[[PolicyFile, Rows], str]
    ending: str
    carries: str
    loses: str
    lacks: frozenset[str] = frozenset()
    transforms: tuple[type, ...] = ()
    rows: Callable[[PolicyFile], Rows] = lambda file: ()


def convert(file: PolicyFile, form: str, *, drop: bool = False) -> Export:
    """An augmentation in one of ``FORMATS``.

    Args:
        file: the augmentation, e.g. from ``load_policy_file``, or ``PolicyFile(IMAGENET)``.
        form: a name in ``FORMATS``.
        drop: leave operations out that the format lacks, instead of refusing.

    Raises:
        InputError: for what the format cannot express, naming it.
    """
    check_choice("format", form, tuple(FORMATS))
    wanted, augmentation = FORMATS[form], file.augmentation
    policy = isinstance(augmentation, Policy | PolicyTransform)
    if not policy and not isinstance(augmentation, wanted.transforms):
        raise InputError(
            "augmentation", f"must be something that {form} can express", augmentation,
            "export json, or train with it here",
        )  # fmt: skip
    rows: list[list[Operation]] = []
    left_out: Counter[str] = Counter()
    for row in file.policy if policy else wanted.rows(file):
        lacking = [op for op in row if op.name in wanted.lacks]
        lost = [op.name for op in lacking if op.name != "Identity" and op.probability > 0]
        if lost and not drop:
            raise InputError(
                "policy", f"must use operations that {form} has", lost[0],
                "leave it out with drop=True (--drop), search without it, or train with "
                "PolicyTransform",
            )  # fmt: skip
        left_out.update(lost)
        rows.append([op for op in row if op not in lacking])
    text = wanted.write(file, rows) + exports.one_line(file, form)
    return Export(text, MappingProxyType(dict(left_out)))


def in_convention(policy: Policy, source: str, target: str) -> Policy:
    """``policy`` of convention ``source`` in convention ``target``: the same parameters, at every
    image size.

    Raises:
        InputError: for the first operation that ``target`` has no equal magnitude for.
    """
    rows = [[_in_convention(op, source, target) for op in row] for row in policy]
    return Policy(rows, get_convention(target).bins)


def _in_convention(op: Operation, source: str, target: str) -> Operation:
    if op.magnitude is None or source == target:
        return op
    found = _equal_magnitude(op.name, op.magnitude, source, target)
    if found is None:
        value = get_convention(source).parameter(op.name, op.magnitude, False, 1000, 1000)
        raise InputError(
            "policy", f"must have an equal in the {target} convention to be written in it",
            f"{op.name} {op.magnitude} of {source} ({value:g})",
            "export json, or train with PolicyTransform",
        )  # fmt: skip
    return op._replace(magnitude=found)


@lru_cache(maxsize=1024)
def _equal_magnitude(name: str, magnitude: int, source: str, target: str) -> int | None:
    """The index of ``target`` with the parameters of ``magnitude`` in ``source``, if there is one.

    Parameters may depend on one side of the image, so squares of every size that kernels take are
    compared: rounding makes shifts equal at one size that differ at another. A sign acts alike at
    all sizes.
    """
    one, other = get_convention(source), get_convention(target)
    scales = (one.scale(name), other.scale(name))
    by_side = any(scale is not None and scale.unit.startswith("of ") for scale in scales)
    cases = [(MAX_SIDE, False), (MAX_SIDE, True)]
    if by_side:
        cases += [(side, False) for side in range(1, MAX_SIDE)]
    for found in range(other.bins):
        if all(
            one.parameter(name, magnitude, negative, side, side)
            == other.parameter(name, found, negative, side, side)
            for side, negative in cases
        ):
            return found
    return None


# ---------------------------------------------------------------------------------- our own


def _text(file: PolicyFile, rows: Rows) -> str:
    augmentation = file.augmentation
    if isinstance(augmentation, PolicyTransform) and augmentation.fill != 0:
        raise InputError(
            "fill", "must be 0 in a tuple list, which cannot name another", augmentation.fill,
            "export json",
        )  # fmt: skip
    return in_convention(file.policy, file.convention, "paper").to_text()


def _json(file: PolicyFile, rows: Rows) -> str:
    return to_json_text(file)


# ---------------------------------------------------------------------------------- torchvision

_TORCHVISION = '''\
"""An augmentation for torchvision, written by augsearch.

`transform` takes what the transforms of torchvision.transforms.v2 take. On PIL images its pixels
are those of augsearch's own transform; on tensors torchvision rounds some operations differently.
"""

import torch
from torchvision.transforms import InterpolationMode, v2

{table}
class Searched(v2.{base}):
    # v2 computes the thresholds as 255 * linspace(1, 0), a hair above those of linspace(255, 0)
    # where these are whole numbers. Here they lie in the middle between two pixel values.
    _AUGMENTATION_SPACE = {{
        **v2.{base}._AUGMENTATION_SPACE,
        "Solarize": (
            lambda bins, height, width: (torch.linspace(255, 0, bins).ceil() - 0.5) / 255,
            False,
        ),
    }}
{method}

transform = Searched({arguments}interpolation=InterpolationMode.NEAREST, fill={fill!r})
'''
_GET_POLICIES = """
    def _get_policies(self, policy):
        return POLICY

    def extra_repr(self):
        return f"{len(POLICY)} sub-policies, fill={self.fill}"
"""


def _torchvision(file: PolicyFile, rows: Rows) -> str:
    augmentation = file.augmentation
    fill = getattr(augmentation, "fill", 0)
    if isinstance(augmentation, RandAugment):
        arguments = f"num_ops={augmentation.n}, magnitude={augmentation.m}, "
        return _TORCHVISION.format(
            table="", base="RandAugment", method="", arguments=arguments, fill=fill
        )
    if isinstance(augmentation, TrivialAugmentWide):
        return _TORCHVISION.format(
            table="", base="TrivialAugmentWide", method="", arguments="", fill=fill
        )
    paper = [[_in_convention(op, file.convention, "paper") for op in row] for row in rows]
    table = "".join(f"    {_tuples(row)},\n" for row in paper)
    return _TORCHVISION.format(
        table=f"POLICY = [\n{table}]\n\n", base="AutoAugment", method=_GET_POLICIES, arguments="",
        fill=fill,
    )  # fmt: skip


def _tuples(row: Sequence[Operation]) -> str:
    ops = [f'("{op.name}", {op.probability!r}, {op.magnitude!r})' for op in row]
    return "(" + ", ".join(ops) + ("," if len(ops) == 1 else "") + ")"


# ---------------------------------------------------------------------------------- timm

# Of timm's hyper-parameters these are fixed: how far levels may go (its own end is 10), and what
# level 10 of the two kinds of shifts stands for (a share of the side, pixels).
_MOST, _SHARE, _PIXELS = 100, 0.45, 100
# What its levels 0 and 10 stand for, by the unit of our scale.
_TIMM_RANGES = {
    "pixels": (0, _PIXELS),
    "slope": (0, 0.3),
    "degrees": (0, 30),
    "factor": (0.1, 1.9),
}
_TIMM = '''\
"""An augmentation for timm, written by augsearch.

`transform` takes PIL images{mode}. Its pixels are those of augsearch's own transform, apart from
shifts by a share of the image: timm rounds these to whole pixels, augsearch cuts the fraction off.
Fill and interpolation are part of it: timm's defaults are grey, and bilinear or bicubic by chance.
"""

from PIL import Image
from timm.data.auto_augment import AugmentOp, {kind}

HPARAMS = {{
    "img_mean": {fill!r},
    "interpolation": Image.Resampling.NEAREST,
    "magnitude_max": {most},
    "translate_pct": {share},
    "translate_const": {pixels},
}}

{table}
'''


def _timm(file: PolicyFile, rows: Rows) -> str:
    augmentation = file.augmentation
    if isinstance(augmentation, RandAugment):
        ops = [Operation(name, 1.0, augmentation.m if OPS[name].has_magnitude else None)
               for name in RANDAUGMENT_OPS]  # fmt: skip
        table = (
            "OPERATIONS = [\n"
            + "".join(f"    {_timm_op(op, 'randaugment')!r},\n" for op in ops)
            + "]\n\ntransform = RandAugment(\n"
            "    [AugmentOp(*operation, hparams=HPARAMS) for operation in OPERATIONS],\n"
            f"    num_layers={augmentation.n},\n)"
        )
        kind = "RandAugment"
    else:
        table = (
            "POLICY = [\n"
            + "".join(f"    {[_timm_op(op, file.convention) for op in row]!r},\n" for row in rows)
            + "]\n\ntransform = AutoAugment(\n"
            "    [[AugmentOp(*op, hparams=HPARAMS) for op in row] for row in POLICY]\n)"
        )
        kind = "AutoAugment"
    fill = getattr(augmentation, "fill", 0)
    grey = not isinstance(fill, int) and len(fill) == 1
    if fill and isinstance(fill, int):
        fill = (fill,) * 3  # Pillow takes a single number of an RGB image for a packed colour
    return _TIMM.format(
        kind=kind, fill=fill, most=_MOST, share=_SHARE, pixels=_PIXELS, table=table,
        mode=" of mode L" if grey else " of mode RGB" if fill else " of mode RGB or L",
    )  # fmt: skip


def _timm_op(op: Operation, convention: str) -> tuple[str, float, float]:
    """(timm's operation, probability, level) with the effect of ``op``."""
    name, probability, magnitude = op
    if name == "Identity":
        return "Invert", 0.0, 0.0
    meaning = get_convention(convention)
    scale = meaning.scale(name)
    if scale is None or magnitude is None:
        return name, probability, 0.0
    value = meaning.parameter(name, magnitude, False, 1, 1)
    if (share := meaning.share(name, magnitude)) is not None:
        return f"{name}Rel", probability, share / _SHARE * 10
    if scale.unit == "1 + factor":
        if value - 1 > 0.9:
            raise InputError(
                f"magnitude of {name}", "must lie in timm's range, factors of 0.1 to 1.9",
                magnitude, "lower it, or train with PolicyTransform",
            )  # fmt: skip
        return f"{name}Increasing", probability, (value - 1) / 0.9 * 10
    if scale.unit in _TIMM_RANGES:
        low, high = _TIMM_RANGES[scale.unit]
        return name, probability, (value - low) / (high - low) * 10
    # timm cuts levels down to whole thresholds and bits: aim between two of them.
    if name == "Solarize":
        inverted = 256 - math.ceil(value)  # a threshold keeps the whole numbers below it
        return "SolarizeIncreasing", probability, min(inverted + 0.5, 256) * 10 / 256
    bits = int(value)
    if bits >= 4:
        return "PosterizeOriginal", probability, min(bits - 4 + 0.5, 4) * 10 / 4
    return "PosterizeIncreasing", probability, (4 - bits + 0.5) * 10 / 4


# A further operation too, until an export writes it.
_OTHERS_LACK = frozenset(OPS) - frozenset(PAPER_OPS) | {"Cutout", "SamplePairing"}
_GRIDS = (RandAugment, TrivialAugmentWide)
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "text": Format(
            _text, ".txt",
            "policies in the paper convention; others where every parameter has an equal in it",
            "fill, provenance, transforms",
        ),
        "json": Format(
            _json, ".json", "everything, with its provenance", "nothing", transforms=(object,)
        ),
        "torchvision": Format(
            _torchvision, ".py",
            "as text, with fill; RandAugment, TrivialAugment; the same pixels on PIL images",
            "Cutout, SamplePairing; UniformAugment, schedules; its tensors are rounded differently",
            _OTHERS_LACK, _GRIDS,
        ),
        "timm": Format(
            _timm, ".py",
            "policies in every convention, fill; RandAugment; the same pixels, but for shifts",
            "Cutout, SamplePairing; TrivialAugment, UniformAugment, schedules; enhancers beyond "
            "0.1 to 1.9; shifts by a share of the image end up to one pixel further",
            _OTHERS_LACK, (RandAugment,),
        ),
        "kornia": Format(
            exports.kornia, ".py",
            "policies in every convention, RandAugment; the same pixels of "
            + ", ".join(exports.EXACT["kornia"]),
            "fill, Cutout, SamplePairing; shifts in pixels; TrivialAugment, UniformAugment, "
            "schedules; " + exports.differences("kornia"),
            _OTHERS_LACK, (RandAugment,), exports.as_rows,
        ),
        "albumentations": Format(
            exports.albumentations, ".py",
            "policies in every convention, fill, RandAugment, TrivialAugment; the same pixels of "
            + ", ".join(exports.EXACT["albumentations"]),
            "Sharpness, Cutout, SamplePairing; UniformAugment, schedules; "
            + exports.differences("albumentations"),
            _OTHERS_LACK | {"Sharpness"}, _GRIDS, exports.as_rows,
        ),
    }
)  # fmt: skip
"""The formats by name."""
