"""What a run may spend, when evaluations cost differently much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import overload


@dataclass(frozen=True)
class Budget:
    """A limit on what evaluations cost together. Integers, so that no rounding decides.

    limit: None for none. prices: of one evaluation, by scorer; empty: each costs 1. spent:
    beforehand. unit: what is counted as one when it is shown; 1: the number of evaluations is.
    """

    limit: int | None
    prices: Mapping[str, int] = field(default_factory=dict)
    spent: int = 0
    unit: int = 1

    def price(self, scorer: str) -> int:
        """Of one evaluation. Raises KeyError for a scorer that has none."""
        return self.prices[scorer] if self.prices else 1

    def allows(self, cost: int) -> bool:
        """Whether evaluations of this cost are within the limit."""
        return self.limit is None or cost <= self.limit

    @overload
    def shown(self, cost: int) -> float: ...
    @overload
    def shown(self, cost: None) -> None: ...
    def shown(self, cost: int | None) -> float | None:
        """A cost as users read it: evaluations, or children with one decimal."""
        return cost if cost is None or self.unit == 1 else round(cost / self.unit, 1)

    @property
    def words(self) -> tuple[str, str]:
        """What is counted, one and many."""
        return ("evaluation", "evaluations") if self.unit == 1 else ("child", "children")
