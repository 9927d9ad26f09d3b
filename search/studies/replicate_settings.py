"""The settings of `augsearch replicate`, apart from what it runs: --help waits for no library."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from policies.errors import InputError, check_choice
from policies.options import Option
from proxy_tasks.run_format import SIZED

from .seeds import MOST_SEEDS
from .settings import (
    ARMS,
    SEARCHERS,
    SpaceSettings,
    check_entries,
    check_options_by_searcher,
    grown_entries,
)

GRID: Final = "randaugment-grid"
# Methods that have something to search on a draw; what else may be named is an arm (`arms.FORMS`).
SEARCHING: Final = (*SEARCHERS, GRID)
MOST_DRAWS: Final = 1000
# Cells of the default grid: fewer children could not look at each of them once.
LEAST_BUDGET: Final = 24


@dataclass(frozen=True)
class ReplicateSettings(SpaceSettings):
    """arms: what the methods without a search mean, filled in before the first evaluation."""

    method: Annotated[
        tuple[str, ...],
        Option(
            f"methods: {', '.join(SEARCHING)}, a searcher of your own as package.module:name (a "
            f"searcher as NAME{SIZED}K: by candidates of K sub-policies, whatever --subpolicies), "
            f"published (the paper's policy for these data), or an arm: {ARMS}",
            unit="METHOD...",
            example="random thompson published none",
        ),
    ] = field(kw_only=True)
    against: Annotated[
        tuple[str, ...],
        Option(
            "methods that every one that searches is compared with; what searches for nothing is "
            "compared only by being named here (or where nothing else could be), since the "
            "number of comparisons is corrected for",
            unit="METHOD...",
            unset="the first",
            example="random",
        ),
    ] = ()
    draws: Annotated[
        int,
        Option("draws of the images on which every method starts anew", unit="N", least=2,
               most=MOST_DRAWS),
    ] = 6  # fmt: skip
    budget: Annotated[
        int,
        Option(
            "children that a method may train on a draw, the final selection included",
            unit="N",
            least=LEAST_BUDGET,
            most=100_000,
        ),
    ] = 120
    seeds: Annotated[
        int,
        Option("children that judge a method's policy, on the draw and as many on another",
               unit="N", least=1, most=MOST_SEEDS),
    ] = 3  # fmt: skip
    margin: Annotated[
        float, Option("differences within it are called equal", unit="POINTS", above=0, most=100)
    ] = 0.5
    seed: Annotated[
        int, Option("first seed of the searches", unit="N", least=0, most=100_000_000)
    ] = 0
    searcher_options: Annotated[
        dict,
        Option(
            f"further arguments by searcher as JSON, or by method where NAME{SIZED}K has others",
            unit="JSON",
            rule='an object of objects, e.g. {"ppo": {"batch_size": 5}}',
        ),
    ] = field(default_factory=dict)
    arms: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        method = tuple(dict.fromkeys(self.method))
        against = tuple(dict.fromkeys(self.against)) or method[:1]
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "against", against)
        object.__setattr__(self, "arms", check_entries("arms", "text", self.arms))
        if len(method) < 2:
            raise InputError(
                "method", "must be at least two", method, "pass for example random thompson"
            )
        for name in against:
            check_choice("against", name, method)
        check_options_by_searcher(self.searcher_options, method)

    def grown_from(self, saved: ReplicateSettings) -> ReplicateSettings:
        """More draws of the same methods; what an arm means must be what it was."""
        kept = grown_entries("method", "text", saved.arms, self.arms)
        return replace(self, arms=kept)
