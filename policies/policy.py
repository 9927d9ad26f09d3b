"""What a policy is: data that equals the published tuple list."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeGuard

from .errors import InputError, check_choice, check_integer
from .ops import OPS, get_convention

MAX_TEXT_BYTES = 2**21
MAX_SUBPOLICIES = 2**14
MAX_OPERATIONS = 64


class Operation(NamedTuple):
    """One operation of a sub-policy: ``(name, probability, magnitude)``.

    ``probability`` is the chance 0..1 of *applying* it, ``magnitude`` an index 0..bins-1, or None
    for operations that have no magnitude.
    """

    name: str
    probability: float
    magnitude: int | None


class Policy(tuple):
    """A tuple of sub-policies, each a tuple of :class:`Operation`; equals the plain tuple list.

    Args:
        rows: any nested sequence of ``(name, probability, magnitude)``, e.g. a table pasted from
            a paper. A magnitude given to an operation that has none (published tables do that) is
            replaced by None, so that equal behaviour is equal data.
        bins: number of magnitude indices: 10 for the paper, tf and timm conventions, 31 for the
            randaugment and trivialaugment ones.

    Raises:
        InputError: naming the position, the rule, the value and the nearest legal name.
    """

    bins: int

    def __new__(cls, rows: Iterable, bins: int = 10) -> Policy:
        bins = check_integer("bins", bins, 2, 1000)
        rows = _sequence("policy", rows, "a sequence of sub-policies", MAX_SUBPOLICIES)
        self = super().__new__(cls, (_subpolicy(i, row, bins) for i, row in enumerate(rows)))
        self.bins = bins
        return self

    def __getnewargs__(self) -> tuple:
        return tuple(self), self.bins

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Policy) and other.bins != self.bins:
            return False
        return tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def __repr__(self) -> str:
        bins = "" if self.bins == 10 else f", bins={self.bins}"
        return f"Policy({_plain(self)!r}{bins})"

    def to_json(self) -> list[list[list[Any]]]:
        """The rows as lists, ``[[["Rotate", 0.6, 9], ...], ...]``: all of it but ``bins``."""
        return [[list(op) for op in row] for row in self]

    def to_text(self) -> str:
        """The tuple list as in the published tables, one sub-policy a line."""
        lines = []
        for row in self:
            ops = [f'("{op.name}", {op.probability!r}, {op.magnitude!r})' for op in row]
            lines.append("(" + ", ".join(ops) + ("," if len(ops) == 1 else "") + "),\n")
        return "".join(lines)

    @classmethod
    def from_text(cls, text: str, bins: int = 10) -> Policy:
        """Read a tuple list: rows as :meth:`to_text` writes them, or one list or tuple of rows.

        Only literals are read; nothing is executed.
        """
        return cls(literal(text), bins)


def _plain(policy: Policy) -> tuple:
    return tuple(tuple(tuple(op) for op in row) for row in policy)


def _subpolicy(i: int, row: object, bins: int) -> tuple[Operation, ...]:
    where = f"policy[{i}]"
    ops = _sequence(where, row, "a sequence of (name, probability, magnitude)", MAX_OPERATIONS)
    return tuple([_operation(f"{where}[{k}]", op, bins) for k, op in enumerate(ops)])


def _operation(where: str, op: object, bins: int) -> Operation:
    if not is_sequence(op) or len(op) != 3:
        raise InputError(
            where, "must be a triple (name, probability, magnitude)", op,
            'write it like ("Rotate", 0.6, 9)',
        )  # fmt: skip
    name, probability, magnitude = op
    check_choice(f"{where}.name", name, OPS)
    probability = _probability(f"{where}.probability", probability)
    if not OPS[name].has_magnitude:
        if magnitude is not None:
            check_integer(f"{where}.magnitude", magnitude, 0, bins)
        return Operation(name, probability, None)
    if magnitude is None:
        raise InputError(
            f"{where}.magnitude", f"must be an integer in 0..{bins - 1} for {name}", None,
            "give the magnitude index; only operations without magnitude have None",
        )  # fmt: skip
    return Operation(name, probability, check_integer(f"{where}.magnitude", magnitude, 0, bins - 1))


def _sequence(where: str, value: object, what: str, most: int) -> Sequence:
    if not is_sequence(value):
        unordered = isinstance(value, str | bytes | Mapping | Set)
        if unordered or not isinstance(value, Iterable):
            raise InputError(where, f"must be {what}", value, 'e.g. ((("Rotate", 0.6, 9),),)')
        value = list(value)
    if not 1 <= len(value) <= most:
        raise InputError(where, f"must have 1 to {most} entries", len(value), "add or drop some")
    return value


def is_sequence(value: object) -> TypeGuard[Sequence]:
    """Not a text. Tuples and lists first: abstract classes are slow to ask, and searches decode
    many policies."""
    return isinstance(value, (tuple, list)) or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    )


def _probability(where: str, value: object) -> float:
    rule, fix = "must be a number in 0..1", "give the chance of applying the operation, e.g. 0.6"
    if isinstance(value, bool | str | bytes):
        raise InputError(where, rule, value, fix)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise InputError(where, rule, value, fix) from None
    if not (math.isfinite(number) and 0.0 <= number <= 1.0):
        raise InputError(where, rule, value, fix)
    return number + 0.0  # -0.0 becomes 0.0


def check_bins(policy: Policy, convention: str) -> None:
    """InputError unless ``policy`` has as many magnitude bins as ``convention``."""
    bins = get_convention(convention).bins
    if policy.bins != bins:
        raise InputError(
            "policy.bins", f"must be {bins} for the {convention} convention", policy.bins,
            "build the policy with Policy(rows, bins=...) or choose the other convention",
        )  # fmt: skip


def literal(text: str) -> Any:
    """Rows in a text: one literal, or several one after the other; nothing is executed."""
    fix = 'write rows like (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),'
    rule = "must be a list of tuples of literals"
    if not isinstance(text, str):
        raise InputError("policy text", rule, text, fix)
    if len(text) > MAX_TEXT_BYTES:
        raise InputError(
            "policy text", f"must be at most {MAX_TEXT_BYTES} characters", len(text), fix
        )
    try:
        value = ast.literal_eval("(\n" + text + "\n)")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise InputError("policy text", rule, text, fix) from None
    return value
