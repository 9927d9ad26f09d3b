"""The settings of a search, of the selection of its final policy, and of what it would cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from policies.errors import InputError
from policies.options import Option

from .settings import Prices, Settings, SpaceSettings, seed_option

BUDGET = 120  # of a search, in children
RESERVE = 0.2  # share of it that chooses the final policy


@dataclass(frozen=True)
class _Counted(SpaceSettings):
    """Either `evaluations` or `budget` counts; with neither the budget does."""

    evaluations: Annotated[
        int | None,
        Option(
            "candidate policies to evaluate, whatever they cost; the best are joined",
            unit="N",
            unset="none, the budget counts",
            least=1,
            example=200,
        ),
    ] = None
    budget: Annotated[
        int | None,
        Option(
            "cost of the whole search, the choice of its final policy included, in children: 1 is "
            "what a child from scratch costs",
            unit="CHILDREN",
            unset=f"{BUDGET}, unless evaluations are given",
            least=1,
            example=BUDGET,
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluations is None and self.budget is None:
            object.__setattr__(self, "budget", BUDGET)
        if None not in (self.evaluations, self.budget):
            raise InputError(
                "budget", "must not be given with evaluations", self.budget,
                "pass one of them: evaluations count alike, a budget counts what they cost",
            )  # fmt: skip


@dataclass(frozen=True)
class SearchSettings(_Counted):
    seed: Annotated[int, seed_option("seed of the search")] = 0
    top: Annotated[
        int,
        Option(
            "best candidates whose sub-policies form the exported policy, where no new children "
            "choose it",
            unit="N",
            least=1,
        ),
    ] = 5
    reserve: Annotated[
        float,
        Option(
            "share of the budget that chooses the final policy, by two new children or more; "
            "with fewer the best candidates are joined",
            unit="SHARE",
            least=0,
            below=1,
        ),
    ] = RESERVE
    cheap: Annotated[
        dict,
        Option(
            "evaluator of a staged search's cheap evaluations, as an object with the fields of "
            "EvaluatorConfig; {}: none",
            unit="JSON",
            unset="as measured for the task: weight-sharing, and none where no shared child ranks "
            "policies",
        ),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluations is not None and self.top > self.evaluations:
            raise InputError(
                "top", f"must be at most the {self.evaluations} evaluations", self.top,
                f"pass at most {self.evaluations}, or evaluate more candidates",
            )  # fmt: skip
        self.check_size(self.top)


@dataclass(frozen=True)
class EstimateSettings(Prices, _Counted):
    """Of a search that is not begun."""


@dataclass(frozen=True)
class SelectSettings(Settings):
    run: Annotated[str, Option("folder of the search", unit="RUN", shell=False)]
    rescore: Annotated[
        int,
        Option(
            "candidates to evaluate again: the best, and as many of the rest; 0: none",
            unit="N",
            least=0,
        ),
    ] = 60
    rescore_seeds: Annotated[
        int, Option("new seeds of each of them", unit="N", least=1, most=10_000)
    ] = 1
    seeds: Annotated[
        int,
        Option("seeds by which the final policies are told apart", unit="N", least=1, most=10_000),
    ] = 5
    ops: Annotated[
        tuple[str, ...],
        Option("operations that the final policy may use; others are dropped and counted",
               unit="NAME...", unset="those of the search", example="Rotate Color"),
    ] = ()  # fmt: skip
    without: Annotated[
        tuple[str, ...],
        Option("operations that it may not use, e.g. Cutout SamplePairing", unit="NAME...",
               unset="none", example="Cutout"),
    ] = ()  # fmt: skip
