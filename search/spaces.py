"""Search spaces: what a candidate may be, and its numbering as a tuple of decisions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from policies import OPS, Policy, RandAugment
from policies.errors import InputError
from policies.ops import PAPER_OPS

Decisions = tuple[int, ...]


class Space(Protocol):
    """What a searcher needs to know of a space.

    decisions: number of choices of each decision, in order.
    size: number of decision tuples (Python int; may exceed 64 bits).
    """

    @property
    def decisions(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    def encode(self, augmentation: Any) -> Decisions: ...
    def decode(self, decisions: Sequence[int]) -> Any: ...
    def contains(self, augmentation: Any) -> bool: ...
    def sample(self, rng: np.random.Generator) -> Any: ...


def sample_decisions(sizes: Sequence[int], rng: np.random.Generator) -> Decisions:
    """One uniform draw: each decision independently and uniformly over its choices."""
    return tuple(rng.integers(0, sizes).tolist())


def check_decisions(decisions: Sequence[int], sizes: Sequence[int]) -> None:
    """Raise InputError unless there is one decision per size, each 0 <= decision < size."""
    if len(decisions) != len(sizes):
        raise InputError(
            "decisions",
            f"must have {len(sizes)} entries",
            len(decisions),
            "pass one index per decision",
        )
    for position, (decision, size) in enumerate(zip(decisions, sizes, strict=True)):
        if not 0 <= decision < size:
            raise InputError(
                f"decisions[{position}]",
                f"must be 0 to {size - 1}",
                decision,
                "see the space's `decisions` for the number of choices",
            )


@dataclass(frozen=True)
class PolicySpace:
    """AutoAugment's policies (arXiv 1805.09501, section 3): S sub-policies of O operations each.

    Every operation is three decisions, in this order: which operation (index into `ops`), its
    probability (index i means i / (probability_bins - 1), both ends included), its magnitude
    (0 .. bins - 1). A policy is the decisions of its operations one after the other: 30 for 5 x 2.

    An operation without magnitude still has the decision, which then changes nothing: `decode`
    gives magnitude None and `encode` gives 0, so `decode(encode(policy)) == policy`, but
    `encode(decode(decisions))` is the normalised form of `decisions`.
    """

    num_subpolicies: int = 5
    num_operations: int = 2
    ops: tuple[str, ...] = PAPER_OPS
    bins: int = 10
    probability_bins: int = 11

    def __post_init__(self) -> None:
        for name, least in (
            ("num_subpolicies", 1),
            ("num_operations", 1),
            ("bins", 2),
            ("probability_bins", 2),
        ):
            if getattr(self, name) < least:
                raise InputError(
                    name, f"must be at least {least}", getattr(self, name), "pass a larger number"
                )
        object.__setattr__(self, "ops", tuple(self.ops))
        if not self.ops:
            raise InputError("ops", "must name at least one operation", (), "pass PAPER_OPS")
        for name in self.ops:
            if name not in OPS:
                raise InputError("ops", "must name known operations", name, f"choose of {[*OPS]}")
        if len(set(self.ops)) != len(self.ops):
            raise InputError("ops", "must not repeat an operation", self.ops, "drop the repeats")

    @cached_property
    def decisions(self) -> tuple[int, ...]:
        per_operation = (len(self.ops), self.probability_bins, self.bins)
        return per_operation * (self.num_subpolicies * self.num_operations)

    @cached_property
    def size(self) -> int:
        """Number of decision tuples, (16 * 11 * 10) ** 10 for the paper's space."""
        return math.prod(self.decisions)

    @cached_property
    def _op_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.ops)}

    def encode(self, policy: Policy) -> Decisions:
        """Decisions of a policy of this space; raises InputError for any other."""
        if not self.contains(policy):
            raise InputError(
                "policy",
                f"must have {self.num_subpolicies} sub-policies of {self.num_operations} "
                f"operations, probabilities in steps of 1/{self.probability_bins - 1} and "
                f"magnitudes 0..{self.bins - 1}",
                policy,
                "check it with PolicySpace.contains",
            )
        return tuple(itertools.chain.from_iterable(map(self.encode_row, policy)))

    def encode_row(self, row: Sequence[tuple]) -> list[int]:
        """Decisions of one sub-policy of any length, 3 an operation; InputError for others' ops."""
        decisions: list[int] = []
        for name, probability, magnitude in row:
            if name not in self._op_index:
                raise InputError(
                    "policy", "must have operations of the space only", name, f"use {self.ops}"
                )
            decisions += (
                self._op_index[name],
                round(probability * (self.probability_bins - 1)),
                0 if magnitude is None else int(magnitude),
            )
        return decisions

    def decode(self, decisions: Sequence[int]) -> Policy:
        """The policy of a decision tuple; inverse of `encode`."""
        check_decisions(decisions, self.decisions)
        steps = self.probability_bins - 1
        operations = [
            (
                self.ops[decisions[i]],
                decisions[i + 1] / steps,
                int(decisions[i + 2]) if OPS[self.ops[decisions[i]]].has_magnitude else None,
            )
            for i in range(0, len(decisions), 3)
        ]
        width = self.num_operations
        return Policy(
            [operations[i : i + width] for i in range(0, len(operations), width)], bins=self.bins
        )

    def contains(self, policy: Any) -> bool:
        """Whether `policy` is one of this space's policies, on the probability grid exactly."""
        return (
            isinstance(policy, Policy)
            and policy.bins == self.bins
            and len(policy) == self.num_subpolicies
            and all(
                len(subpolicy) == self.num_operations
                and all(self._contains_operation(*operation) for operation in subpolicy)
                for subpolicy in policy
            )
        )

    def _contains_operation(self, name: str, probability: float, magnitude: int | None) -> bool:
        steps = self.probability_bins - 1
        if name not in self._op_index or probability != round(probability * steps) / steps:
            return False
        if not OPS[name].has_magnitude:
            return magnitude is None
        return magnitude is not None and 0 <= magnitude < self.bins

    def sample(self, rng: np.random.Generator) -> Policy:
        """A policy whose decisions are independent and uniform."""
        return self.decode(sample_decisions(self.decisions, rng))


@dataclass(frozen=True)
class RandAugmentSpace:
    """RandAugment's grid (arXiv 1909.13719): N operations per image x magnitude M of 0..30.

    ns, ms: the values of the grid, ascending. A candidate is `policies.RandAugment(n, m)`.
    """

    ns: tuple[int, ...] = (1, 2, 3)
    ms: tuple[int, ...] = (0, 5, 10, 15, 20, 25, 30)

    def __post_init__(self) -> None:
        for name, least, most in (("ns", 0, 16), ("ms", 0, 30)):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            whole = all(isinstance(v, int) and least <= v <= most for v in values)
            if not values or not whole:
                raise InputError(
                    name,
                    f"must be whole numbers of {least} to {most}, at least one",
                    values,
                    "pass for example 1 2 3" if name == "ns" else "pass for example 5 10 15",
                )
            if sorted(set(values)) != list(values):
                raise InputError(
                    name, "must be ascending without repeats", values, "sort it and drop repeats"
                )

    @property
    def decisions(self) -> tuple[int, ...]:
        return (len(self.ns), len(self.ms))

    @property
    def size(self) -> int:
        return math.prod(self.decisions)

    def encode(self, augmentation: RandAugment) -> Decisions:
        if not self.contains(augmentation):
            raise InputError(
                "augmentation",
                f"must be a RandAugment of {self}",
                augmentation,
                "check it with RandAugmentSpace.contains",
            )
        return (self.ns.index(augmentation.n), self.ms.index(augmentation.m))

    def decode(self, decisions: Sequence[int]) -> RandAugment:
        check_decisions(decisions, self.decisions)
        return RandAugment(n=self.ns[decisions[0]], m=self.ms[decisions[1]])

    def contains(self, augmentation: Any) -> bool:
        return (
            isinstance(augmentation, RandAugment)
            and augmentation.n in self.ns
            and augmentation.m in self.ms
        )

    def sample(self, rng: np.random.Generator) -> RandAugment:
        return self.decode(sample_decisions(self.decisions, rng))
