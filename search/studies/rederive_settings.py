"""The settings of `augsearch rederive`, and what its presets say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from policies.errors import InputError, check_choice
from policies.options import Option

from .grid_settings import RandAugmentSettings
from .settings import SpaceSettings, seed_option

NO_CHILD: Final = "none"
CELLS: Final = len(RandAugmentSettings().cells)
OF_PRESET = "as the preset has it"

# Options of a re-derivation that a preset decides, beside the child; those given win.
# "paper": 15,000 children by the paper's controller. "cpu": the same controller in a staged search.
REDERIVE_PRESETS: dict[str, Mapping[str, Any]] = {
    "paper": {"evaluations": 15_000, "grid": 120, "searches": 1, "random_searches": 0},
    "cpu": {
        "budget": 240,
        "reward": None,  # what suits the evaluator
        "kernels": "fused",
        "train_images": 1200,
        "grid": 240,
        "searches": 3,
        "random_searches": 2,
    },
}

# Of options that stand elsewhere too, in words.
REDERIVE_TOLD = {
    "reward": f"{OF_PRESET}: accuracy of paper, calibrated_log_likelihood of cpu",
    "kernels": f"{OF_PRESET}: plain of paper, fused of cpu",
    "train_images": f"{OF_PRESET}: 6000 of paper, 1200 of cpu",
}


@dataclass(frozen=True)
class RederiveSettings(SpaceSettings):
    """Defaults are those of runs that were begun before there was such an option."""

    evaluations: Annotated[
        int | None,
        Option(
            "candidate policies of each search, whatever they cost; the best 5 are joined",
            unit="N",
            unset="15000 with the preset paper, else the budget counts",
            least=1,
            example=15_000,
        ),
    ] = None
    budget: Annotated[
        int | None,
        Option(
            "cost of each search, the choice of its final policy included, in children; the "
            "controller is then a part of a staged search",
            unit="CHILDREN",
            unset="240 with the preset cpu, unless evaluations are given",
            least=1,
            example=240,
        ),
    ] = None
    seed: Annotated[
        int, seed_option("seed of the first search; every further one has the next")
    ] = 0
    searches: Annotated[
        int,
        Option("independent searches by the controller", unit="N", least=1, most=100,
               unset=f"{OF_PRESET}: 1 of paper, 3 of cpu"),
    ] = 1  # fmt: skip
    random_searches: Annotated[
        int,
        Option("random searches of the same cost beside them", unit="N", least=0, most=100,
               unset=f"{OF_PRESET}: 0 of paper, 2 of cpu"),
    ] = 0  # fmt: skip
    grid: Annotated[
        int,
        Option(
            f"children of a halved RandAugment grid, whose best cell is compared too; {CELLS} at "
            "least, 0: none",
            unit="CHILDREN",
            least=0,
            unset=f"{OF_PRESET}: 120 of paper, 240 of cpu",
        ),
    ] = 0
    other_child: Annotated[
        str,
        Option(
            "model of a comparison with another child, on other images: as the evaluator's option "
            f"model takes it; {NO_CHILD} leaves it out",
            unit="MODEL",
        ),
    ] = NO_CHILD
    seeds: Annotated[
        int,
        Option("training seeds of a comparison; 0 leaves all out", unit="N", least=0, most=10_000),
    ] = 5

    def __post_init__(self) -> None:
        from policies.ops import PAPER_OPS

        super().__post_init__()
        for name in self.ops:  # agreement with the paper's policy is counted over these
            check_choice("ops", name, PAPER_OPS)
        if (self.evaluations is None) == (self.budget is None):
            raise InputError(
                "budget", "must be given, or evaluations, and not both", self.budget,
                "pass one of them: evaluations count alike, a budget counts what they cost",
            )  # fmt: skip
        if 0 < self.grid < CELLS:
            raise InputError(
                "grid", f"must be 0 or at least {CELLS}, a child for each cell", self.grid,
                f"pass {CELLS} or more, or 0",
            )  # fmt: skip
