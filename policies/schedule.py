"""A policy that changes during training, as Population Based Augmentation (1905.05393) finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import torch

from .errors import InputError, check_integer
from .generators import state_of, travelling
from .policy import Policy, check_bins
from .transforms import PolicyTransform, Transform

MAX_RANGES = 10_000


class Schedule(tuple):
    """A tuple of (first epoch, Policy): which policy from which epoch on, in the paper convention.

    Args:
        rows: pairs of a first epoch and a Policy (or the nested rows of one); the first epoch of
            the first pair is 0, and they ascend. At most 10,000 pairs.
        epochs: length of the training it was found for; more than the last first epoch.

    Trainings of another length stretch it in proportion, see `policy_at`.

    Raises:
        InputError: for a wrong pair, epoch or policy, or one that is not of 10 magnitude bins.
    """

    epochs: int

    def __new__(cls, rows: Iterable, epochs: int) -> Schedule:
        ranges: list[tuple[int, Policy]] = []
        for position, pair in enumerate(rows):
            if position >= MAX_RANGES:
                raise InputError(
                    "schedule", f"must have at most {MAX_RANGES} ranges", "more", "merge some"
                )
            try:
                first, policy = pair
            except (TypeError, ValueError):
                raise InputError(
                    f"schedule[{position}]", "must be a pair (first epoch, policy)", pair,
                    "write it like (0, policy)",
                ) from None  # fmt: skip
            least = ranges[-1][0] + 1 if ranges else 0
            if type(first) is not int or first < least or (not ranges and first != 0):
                raise InputError(
                    f"schedule[{position}]", "first epochs must start at 0 and ascend", first,
                    "sort the ranges",
                )  # fmt: skip
            policy = policy if isinstance(policy, Policy) else Policy(policy)
            check_bins(policy, "paper")
            ranges.append((first, policy))
        if not ranges:
            raise InputError("schedule", "must have at least one range", 0, "add (0, policy)")
        epochs = check_integer("schedule.epochs", epochs, ranges[-1][0] + 1)
        self = super().__new__(cls, ranges)
        self.epochs = epochs
        return self

    def __getnewargs__(self) -> tuple:
        return tuple(self), self.epochs

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Schedule)
            and self.epochs == other.epochs
            and tuple.__eq__(self, other)
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((tuple(self), self.epochs))

    def __repr__(self) -> str:
        return f"Schedule(<policies from epochs {self._firsts()}>, epochs={self.epochs})"

    def _firsts(self) -> str:
        firsts = [str(first) for first, _ in self]
        return ", ".join(firsts if len(firsts) <= 8 else [*firsts[:4], "...", firsts[-1]])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data: ``{"epochs": 40, "ranges": [{"first_epoch": 0, "policy": rows}]}``."""
        ranges = [{"first_epoch": first, "policy": policy.to_json()} for first, policy in self]
        return {"epochs": self.epochs, "ranges": ranges}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schedule:
        """What :meth:`to_json` gave, other fields aside; InputError for anything else."""
        ranges = data.get("ranges")
        if not isinstance(ranges, list) or not all(
            isinstance(entry, dict) and entry.keys() == {"first_epoch", "policy"}
            for entry in ranges
        ):
            raise InputError(
                "ranges", "must list objects of first_epoch and policy", ranges,
                'write it like [{"first_epoch": 0, "policy": [[["Rotate", 0.6, 9]]]}]',
            )  # fmt: skip
        rows = [(entry["first_epoch"], entry["policy"]) for entry in ranges]
        epochs: Any = data.get("epochs")
        return cls(rows, epochs)

    def policy_at(self, epoch: int, total_epochs: int | None = None) -> Policy:
        """The policy of `epoch` (0 .. total_epochs - 1) of a training of `total_epochs` (default:
        the schedule's own)."""
        total = self.epochs if total_epochs is None else total_epochs
        if not 0 <= epoch < total:
            raise InputError("epoch", f"must be 0 to {total - 1}", epoch, "count from 0")
        own = epoch * self.epochs // total
        return next(policy for first, policy in reversed(self) if first <= own)


@dataclass(frozen=True, eq=False)
class ScheduleTransform:
    """The transform of a schedule; `at_epoch` gives that of an epoch, drawing on one generator.

    for epoch in range(epochs):
        augment = transform.at_epoch(epoch, epochs)
    """

    schedule: Schedule
    generator: torch.Generator | None = None

    def with_generator(self, generator: torch.Generator | None) -> Self:
        return replace(self, generator=generator)

    def __copy__(self) -> Self:
        return self.with_generator(self.generator)

    def __call__(self, *images: Any) -> NoReturn:
        raise InputError(
            "augmentation", "must be the transform of an epoch to be called", self,
            "call transform.at_epoch(epoch, epochs), made anew in each epoch",
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "generator": travelling(self.generator)}

    def __eq__(self, other: object) -> bool:
        """Of the same schedule, and about to draw the same."""
        return (
            isinstance(other, ScheduleTransform)
            and self.schedule == other.schedule
            and state_of(self.generator) == state_of(other.generator)
        )

    def __hash__(self) -> int:
        return hash(self.schedule)

    def at_epoch(self, epoch: int, total_epochs: int | None = None) -> PolicyTransform:
        policy = self.schedule.policy_at(epoch, total_epochs)
        return PolicyTransform(policy, generator=self.generator)

    def __repr__(self) -> str:
        return f"ScheduleTransform({self.schedule!r})"


def augmentation_for_epoch(
    augmentation: Transform | ScheduleTransform | None, epoch: int, total_epochs: int
) -> Transform | None:
    """What to augment with in `epoch` (from 0): the transform itself unless it is a schedule's."""
    if isinstance(augmentation, ScheduleTransform):
        return augmentation.at_epoch(epoch, total_epochs)
    return augmentation
