"""The settings of `augsearch race`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from policies.errors import InputError, check_choice
from policies.imports import is_import_path
from policies.options import Option
from proxy_tasks.run_format import SIZED

from .settings import (
    SEARCHERS,
    SpaceSettings,
    check_options_by_searcher,
    searcher_of,
    seed_option,
)


@dataclass(frozen=True)
class RaceSettings(SpaceSettings):
    table: Annotated[
        str,
        Option(
            "name of a packaged table, a .parquet file of augsearch tabulate, or planted (another "
            "landscape of known values for every seed)",
            unit="NAME|FILE",
            example="planted",
        ),
    ] = field(kw_only=True)
    fidelity: Annotated[
        str, Option("the table's evaluations that searchers are told", unit="NAME")
    ] = "sharing-80"
    dear: Annotated[
        str | None,
        Option(
            "fidelity of a race at equal cost: the budget counts its evaluations, the final choice "
            "included; every searcher races told `fidelity` alone and told this one alone, the "
            "staged one told both (on planted landscapes the former is biased and costs a tenth)",
            unit="NAME",
            unset="none: a race by evaluations",
            example="scratch",
        ),
    ] = None
    searcher: Annotated[
        tuple[str, ...],
        Option(
            f"searchers to race, the first is the one to beat: {', '.join(SEARCHERS)}; as "
            f"NAME{SIZED}K by candidates of K sub-policies, whatever --subpolicies",
            unit="NAME...",
            example=f"random ppo thompson{SIZED}25",
        ),
    ] = SEARCHERS[1:]
    budget: Annotated[
        int, Option("evaluations of each search", unit="N", least=10, most=100_000)
    ] = 120
    seeds: Annotated[int, Option("searches of each searcher", unit="N", least=2, most=10_000)] = 100
    seed: Annotated[int, seed_option("the first of their seeds")] = 0
    top: Annotated[
        int,
        Option("best candidates whose sub-policies form the final policy", unit="N", least=1),
    ] = 5
    searcher_options: Annotated[
        dict,
        Option(
            f"further arguments by searcher as JSON, or by entrant where NAME{SIZED}K has others",
            unit="JSON",
            rule='an object of objects, e.g. {"ppo": {"batch_size": 10}}',
        ),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "searcher", tuple(dict.fromkeys(self.searcher)))
        for name, _ in (searcher_of(name, "searcher") for name in self.searcher):
            if is_import_path(name):
                raise InputError(
                    "searcher", "must be one that ships", name,
                    "race your own in Python, by search.testing.race (docs/your-searcher.md)",
                )  # fmt: skip
            check_choice("searcher", name, SEARCHERS)
        check_options_by_searcher(self.searcher_options, self.searcher)
        for name in self.searcher:
            self.space_of(name).check_size(self.top)

    def space_of(self, name: str) -> SpaceSettings:
        """What the searcher `name` draws its candidates from."""
        size = searcher_of(name)[1]
        return self if size is None else SpaceSettings(size, self.operations, self.ops)
