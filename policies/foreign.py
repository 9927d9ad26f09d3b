"""Policy tables as other libraries write them, as policies here.

==================  ==============================================================================
source              rows of
==================  ==============================================================================
torchvision         ``(name, probability, magnitude)``, indices 0..9 in the paper convention, as in
                    ``torchvision.transforms.AutoAugment``
timm                ``(name, probability, level)``, levels 0..10, as in timm's ``auto_augment.py``
                    with its default hyper-parameters
fast-autoaugment    ``[name, probability, level]``, levels 0..1, as in the archives of
                    kakaobrain/fast-autoaugment, whose shears, shifts and rotations have level 0.5
                    as their middle
dada                the same, of the genotypes of VDIGPKU/DADA, whose code applies them alike
==================  ==============================================================================

Levels become the index of the same parameter in a convention, by default that of timm, which the
last three share. What has no equal there is refused, or made the nearest one or left out where that
is asked for, and counted.
"""

from __future__ import annotations

import ast
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import InputError, check_choice
from .ops import OPS, Convention, Scale, get_convention
from .policy import Operation, Policy, is_sequence, literal
from .policy_files import PolicyFile
from .transforms import PolicyTransform

_PASSED_ON = ("fill", "self.fill")  # `fill=fill`, as in the code of libraries: says no number


class Imported(NamedTuple):
    """A table that was read.

    Attributes:
        file: the policy, in its convention.
        left_out: how many operations of each name were dropped.
        rounded: how many operations have another parameter than in the table.
        furthest: by how much at most, as a share of the operation's range.
    """

    file: PolicyFile
    left_out: Mapping[str, int]
    rounded: int
    furthest: float


@dataclass(frozen=True)
class _Source:
    """What a library's levels mean.

    Attributes:
        scales: by the library's name of an operation, ours and its scale; None without magnitude.
        top: the level at the far end of the scales.
        mirrored: whether signed scales run from -high to high, with a random sign nevertheless.
    """

    scales: Mapping[str, tuple[str, Scale | None]]
    top: float
    mirrored: bool = False


_PLAIN: dict[str, tuple[str, Scale | None]] = {
    name: (name, None) for name in ("AutoContrast", "Invert", "Equalize")
}
_SHARED: dict[str, tuple[str, Scale | None]] = {
    **_PLAIN,
    **{name: (name, Scale(0, 0.3, "slope", True)) for name in ("ShearX", "ShearY")},
    "Rotate": ("Rotate", Scale(0, 30, "degrees", True)),
    **{
        name: (name, Scale(0.1, 1.9, "factor"))
        for name in ("Contrast", "Color", "Brightness", "Sharpness")
    },
}
_SHIFTS = {"X": Scale(0, 0.45, "of width", True), "Y": Scale(0, 0.45, "of height", True)}
_SOURCES = {
    "timm": _Source(
        {
            **_SHARED,
            **{f"Translate{axis}Rel": (f"Translate{axis}", s) for axis, s in _SHIFTS.items()},
            "Solarize": ("Solarize", Scale(0, 256, "threshold", rounding="truncate")),
            "SolarizeIncreasing": ("Solarize", Scale(256, 0, "threshold", rounding="truncate")),
            "Posterize": ("Posterize", Scale(0, 4, "bits", rounding="truncate")),
            "PosterizeIncreasing": ("Posterize", Scale(4, 0, "bits", rounding="truncate")),
            "PosterizeOriginal": ("Posterize", Scale(4, 8, "bits", rounding="truncate")),
            **{
                f"{name}Increasing": (name, Scale(0, 0.9, "1 + factor", True))
                for name in ("Contrast", "Color", "Brightness", "Sharpness")
            },
        },
        10.0,
    ),
    "fast-autoaugment": _Source(
        {
            **_SHARED,
            **{f"Translate{axis}": (f"Translate{axis}", s) for axis, s in _SHIFTS.items()},
            "Solarize": ("Solarize", Scale(0, 256, "threshold")),
            "Posterize": ("Posterize", Scale(4, 8, "bits", rounding="truncate")),
        },
        1.0,
        mirrored=True,
    ),
}
_SOURCES["dada"] = _SOURCES["fast-autoaugment"]
SOURCES = ("torchvision", *_SOURCES)
"""The libraries whose tables are read."""


def read_table(
    table: str | Sequence,
    source: str,
    *,
    convention: str = "",
    nearest: bool = False,
    drop: bool = False,
) -> Imported:
    """A policy from another library's table.

    Args:
        table: its rows, or text: a literal, or a Python module with one under the name POLICY, as
            ``convert`` writes it, which also names its fill; tables have none, so they are read
            with black, whatever their library fills with. Nothing is executed.
        source: a name in ``SOURCES``.
        convention: of the policy; by default the paper's for torchvision, else timm's.
        nearest: give operations without an equal parameter the nearest one, instead of refusing.
        drop: leave operations out that have no equal here, instead of refusing.

    Raises:
        InputError: naming the first operation that cannot be carried, and for malformed tables.
    """
    check_choice("source", source, SOURCES)
    nothing = [Operation("Identity", 1.0, None)]
    rows = _checked_rows(_rows(table) if isinstance(table, str) else table)
    fill = _fill(table) if isinstance(table, str) else 0
    if source == "torchvision":
        if convention not in ("", "paper"):
            raise InputError("convention", "must be paper for torchvision's tables", convention,
                             "leave it out")  # fmt: skip
        policy = Policy([row or nothing for row in rows])
        return Imported(_file(policy, "paper", fill), MappingProxyType({}), 0, 0.0)
    target = get_convention(convention or "timm")
    left_out: Counter[str] = Counter()
    errors: list[float] = []
    made = []
    for i, row in enumerate(rows):
        kept = []
        for k, given in enumerate(row):
            where = f"policy[{i}][{k}]"
            name, probability, level = _triple(where, given)
            found = _matched(name, level, _SOURCES[source], target)
            if found is None and probability > 0:
                if not drop:
                    raise InputError(
                        where, f"must be an operation that the {target.name} convention has",
                        f"{name} of {source}", "leave it out with drop=True (--drop)",
                    )  # fmt: skip
                left_out[name] += 1
            if found is None:
                continue
            ours, index, error = found
            if error and not nearest:
                raise InputError(
                    where, f"must have an equal magnitude in the {target.name} convention",
                    f"{name} {level}", "take the nearest with nearest=True (--nearest)",
                )  # fmt: skip
            errors += [error] if error else []
            kept.append(Operation(ours, probability, index))
        made.append(kept or nothing)
    file = _file(Policy(made, target.bins), target.name, fill)
    counts = MappingProxyType(dict(left_out))
    return Imported(file, counts, len(errors), max(errors, default=0.0))


def _file(policy: Policy, convention: str, fill: int | tuple[int, ...]) -> PolicyFile:
    plain = convention == "paper" and fill == 0
    return PolicyFile(policy if plain else PolicyTransform(policy, convention, fill))


def _matched(
    name: str, level: float, source: _Source, target: Convention
) -> tuple[str, int | None, float] | None:
    """(operation, index, distance as a share of the range) in ``target``; None: no such one."""
    if name not in source.scales:
        return None
    ours, scale = source.scales[name]
    wanted = target.scale(ours)
    if scale is None or wanted is None:
        return ours, None, 0.0
    if scale.unit != wanted.unit:  # a sign is drawn in all conventions with a unit, or in none
        return None
    fraction = level / source.top
    if source.mirrored and scale.signed:
        fraction = abs(2 * fraction - 1)
    value = _effect(scale, scale.low + _rounded(scale, fraction * (scale.high - scale.low)))
    extent = abs(wanted.high - wanted.low)
    distances = [abs(_effect(wanted, _value(target, ours, i)) - value) / extent
                 for i in range(target.bins)]  # fmt: skip
    best = min(range(target.bins), key=distances.__getitem__)
    return ours, best, distances[best] if distances[best] > 1e-6 else 0.0


def _value(convention: Convention, name: str, index: int) -> float:
    """The parameter; of shifts the share of the side, before any rounding to pixels."""
    if (share := convention.share(name, index)) is not None:
        return share
    scale = convention.scale(name)
    value = convention.parameter(name, index, False, 1, 1)
    return value - 1 if scale is not None and scale.unit == "1 + factor" else value


def _effect(scale: Scale, value: float) -> float:
    """Thresholds between the same two grey values do the same."""
    return float(math.ceil(value)) if scale.unit == "threshold" else value


def _rounded(scale: Scale, distance: float) -> float:
    return math.trunc(distance) if scale.rounding == "truncate" else distance


def _triple(where: str, given: Any) -> tuple[str, float, float]:
    """(name, probability, level); the probability is checked by Policy."""
    if not is_sequence(given) or len(given) != 3 or not isinstance(given[0], str):
        raise InputError(where, "must be a triple (name, probability, level)", given,
                         'e.g. ("Rotate", 0.6, 9)')  # fmt: skip
    name, probability, level = given
    for what, number in (("probability", probability), ("level", 0 if level is None else level)):
        real = isinstance(number, int | float) and not isinstance(number, bool)
        if not real or not abs(number) <= sys.float_info.max:
            raise InputError(f"{where}.{what}", "must be a number", number, "mend the table")
    if level is None and name in OPS and OPS[name].has_magnitude:
        raise InputError(f"{where}.level", f"must be given for {name}", None, "mend the table")
    return name, probability, 0.0 if level is None else float(level)


def _fill(text: str) -> int | tuple[int, ...]:
    """What a module of ``convert`` for torchvision or timm fills with; 0 where none says.

    As the argument ``fill`` of torchvision's class, or as "img_mean" among timm's parameters.
    """
    try:
        nodes = [*ast.walk(ast.parse(text))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0  # a table that is no module
    said = [node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "fill"
            and ast.unparse(node.value) not in _PASSED_ON]  # fmt: skip
    for node in nodes:
        if isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            said += [node.values[keys.index("img_mean")]] if "img_mean" in keys else []
    try:
        fill = ast.literal_eval(said[0]) if said else 0
    except (ValueError, TypeError):
        raise InputError(
            "fill", "must be written out", ast.unparse(said[0]), "put the numbers in its place"
        ) from None
    if isinstance(fill, tuple | list) and len(fill) == 3 and [*fill] == [fill[0]] * 3:
        return fill[0]
    return 0 if fill is None else fill  # as torchvision reads it


def _checked_rows(table: Any) -> list[Sequence]:
    rows = [*table] if is_sequence(table) else [table]
    for i, row in enumerate(rows):
        if not is_sequence(row):
            raise InputError(f"policy[{i}]", "must be a list of triples", row, "mend the table")
    return rows


def _rows(text: str) -> Any:
    """The rows that a text is, or those that a Python module calls POLICY."""
    if not re.search(r"^POLICY = ", text, re.MULTILINE):
        return literal(text)
    try:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "POLICY":
                return ast.literal_eval(node.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            "table", "must be a list of rows, or a module with such a list as POLICY", str(error),
            "paste the library's list into a file of its own",
        ) from None  # fmt: skip
    return literal(text)
