"""The settings of `augsearch randaugment`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from policies.errors import InputError
from policies.options import Option

from .settings import Settings, seed_option

# Of the command; a run folder that does not name it was begun before there was such an option.
AGAIN = 3


@dataclass(frozen=True)
class RandAugmentSettings(Settings):
    n: Annotated[
        tuple[int, ...], Option("values of N (operations)", unit="N...", least=1, most=16)
    ] = (1, 2, 3)
    m: Annotated[
        tuple[int, ...],
        Option(
            "values of M (magnitudes, 0 to 30 as torchvision has them: 9 is 30 % of the range; "
            "the 9 of timm and of the TPU code is 90 %, about 27 here)",
            unit="M...",
            least=0,
            most=30,
        ),
    ] = (0, 4, 8, 12, 16, 20, 24, 28)
    seeds: Annotated[
        int, Option("training seeds of every cell", unit="N", least=1, most=10_000)
    ] = 2
    seed: Annotated[int, seed_option("the first of them")] = 0
    halving: Annotated[
        bool,
        Option(
            "spend the same evaluations on ever fewer cells: after each round the better half goes "
            "on to more seeds. Such a grid cannot grow"
        ),
    ] = False
    again: Annotated[
        int,
        Option(
            "new seeds with which the best cell and the middle one are evaluated again: how much "
            "of the lead was luck; 0: none",
            unit="N",
            least=0,
            most=10_000,
        ),
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n", "m"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(N, M) of every cell."""
        return [(n, m) for n in self.n for m in self.m]

    def grown_from(self, saved: RandAugmentSettings) -> RandAugmentSettings:
        """A grid that was halved went on from its results, which other cells would change."""
        if self.halving and (self.cells, self.seeds) != (saved.cells, saved.seeds):
            raise InputError(
                "halving", "must be off for a grid that grows", "more cells or seeds",
                "start a new run in another folder",
            )  # fmt: skip
        return self
