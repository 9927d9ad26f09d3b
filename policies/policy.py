"""What a policy is: data that equals the published tuple list, and its files."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError, check_choice, check_integer
from .files import dump_document, parse_document, read_text, write_atomically
from .ops import OPS, get_convention

FORMAT = "augsearch-policy"
VERSION = 1
MAX_BYTES = 2 * 2**20
MAX_SUBPOLICIES = 2**14
MAX_OPERATIONS = 64
_FIELDS = ("format", "version", "convention", "bins", "policy", "provenance")


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
        return cls(_literal(text), bins)


def _plain(policy: Policy) -> tuple:
    return tuple(tuple(tuple(op) for op in row) for row in policy)


def _subpolicy(i: int, row: object, bins: int) -> tuple[Operation, ...]:
    where = f"policy[{i}]"
    ops = _sequence(where, row, "a sequence of (name, probability, magnitude)", MAX_OPERATIONS)
    return tuple(_operation(f"{where}[{k}]", op, bins) for k, op in enumerate(ops))


def _operation(where: str, op: object, bins: int) -> Operation:
    if not isinstance(op, Sequence) or isinstance(op, str | bytes) or len(op) != 3:
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
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InputError(where, f"must be {what}", value, 'e.g. ((("Rotate", 0.6, 9),),)')
    value = value if isinstance(value, Sequence) else list(value)
    if not 1 <= len(value) <= most:
        raise InputError(where, f"must have 1 to {most} entries", len(value), "add or drop some")
    return value


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


# ---------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class PolicyFile:
    """The content of a policy file: the policy, its magnitude convention, where it comes from."""

    policy: Policy
    convention: str = "paper"
    provenance: dict[str, Any] | None = None


def save_policy(
    path: str | os.PathLike,
    policy: Policy,
    convention: str = "paper",
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write ``policy`` to a file that appears whole or not at all.

    A name ending in ``.json`` gets JSON with convention and provenance (any JSON-able mapping, e.g.
    task, manifest hash, searcher, seed, budget, reward), one in ``.txt`` the tuple list alone, in
    the paper convention. InputError for another ending, or what could not be read back.
    """
    path = Path(path)
    policy = policy if isinstance(policy, Policy) else Policy(policy)
    ending = path.suffix.lower()
    if ending not in (".json", ".txt"):
        raise InputError("path", "must end in .json or .txt", str(path), "choose one of these")
    if ending == ".txt":
        if convention != "paper":
            raise InputError(
                "convention", "must be paper in a tuple list, which cannot name another",
                convention, "save it as .json",
            )  # fmt: skip
        check_bins(policy, convention)
        text = policy.to_text()
    else:
        text = to_json_text(PolicyFile(policy, convention, provenance))
    if len(text.encode()) > MAX_BYTES:
        raise InputError(
            "policy and provenance", f"must fit in a file of {MAX_BYTES} bytes", len(text),
            "leave out some of the provenance",
        )  # fmt: skip
    write_atomically(path, text.encode())


def to_json_text(file: PolicyFile) -> str:
    """The content of a policy file as :func:`save_policy` writes it and load_policy_file reads."""
    check_bins(file.policy, file.convention)
    document = {
        "format": FORMAT, "version": VERSION, "convention": file.convention,
        "bins": file.policy.bins, "policy": file.policy.to_json(),
        "provenance": dict(file.provenance) if file.provenance is not None else None,
    }  # fmt: skip
    return dump_document(document, "policy")


def load_policy(path: str | os.PathLike) -> Policy:
    """The policy in a ``.json`` or text file; InputError if the file is not a policy."""
    return load_policy_file(path).policy


def load_policy_file(path: str | os.PathLike) -> PolicyFile:
    """Read a policy file, JSON (``.json``) or a tuple list (anything else: paper convention).

    Nothing in the file is executed. A file that is missing, too large, of another format or a
    newer version, or has an unknown field raises InputError.
    """
    path = Path(path)
    text = read_text(path, "policy", MAX_BYTES)
    if path.suffix.lower() != ".json":
        return PolicyFile(Policy.from_text(text))
    return _from_json(text, str(path))


def check_bins(policy: Policy, convention: str) -> None:
    """InputError unless ``policy`` has as many magnitude bins as ``convention``."""
    bins = get_convention(convention).bins
    if policy.bins != bins:
        raise InputError(
            "policy.bins", f"must be {bins} for the {convention} convention", policy.bins,
            "build the policy with Policy(rows, bins=...) or choose the other convention",
        )  # fmt: skip


def _literal(text: str) -> object:
    fix = 'write rows like (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),'
    rule = "must be a list of tuples of literals"
    if not isinstance(text, str):
        raise InputError("policy text", rule, text, fix)
    if len(text) > MAX_BYTES:
        raise InputError("policy text", f"must be at most {MAX_BYTES} characters", len(text), fix)
    try:
        value = ast.literal_eval("(\n" + text + "\n)")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise InputError("policy text", rule, text, fix) from None
    return value


def _from_json(text: str, where: str) -> PolicyFile:
    fix = "give a file written by save_policy, or a tuple list with the ending .txt"
    document = parse_document(text, where, FORMAT, VERSION, _FIELDS, fix)
    policy = Policy(document["policy"], document["bins"])
    check_bins(policy, document["convention"])
    return PolicyFile(policy, document["convention"], document["provenance"])
