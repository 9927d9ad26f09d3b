"""How a method finds a policy on a draw of the task: run folders, each from the one before.

A method is data, a name and its stages; a new one is one more row. What is not in the table is
searched for by nobody, and is an arm of a comparison (`arms.parse_arm`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from proxy_tasks.run_format import POLICY_NAME

from .arms import Arm, parse_arm
from .config import STAGED, Config, cheap_of
from .grid_settings import RandAugmentSettings
from .randaugment import run_randaugment
from .replication import GRID, MOST_SEEDS
from .search import run_search
from .search_settings import SearchSettings
from .select import run_select
from .settings import SEARCHERS, SearcherConfig

# Policies that papers published, by what they were searched on; of other images ImageNet's.
PUBLISHED_FOR = {"reduced-cifar10": "cifar10", "reduced-svhn": "svhn"}
# Other names of arms.
ALIASES = {"uniformaugment": "uniform"}


class Ended(Protocol):
    """How a stage went, as far as it decides whether the run is complete."""

    @property
    def finished(self) -> int: ...

    @property
    def failed(self) -> int: ...


@dataclass(frozen=True)
class Stage:
    """One run folder of a method.

    Attributes:
        kind: of the run, and what its folder is called after.
        run: what makes it; it leaves policy.json.
        configure: (the replication on this draw, number of the draw, folder of the stage before,
            None for the first) -> the run's configuration.
    """

    kind: str
    run: Callable[..., Ended]
    configure: Callable[[Config, int, Path | None], Config]


def _search(name: str, config: Config, draw: int, before: Path | None) -> Config:
    own = config.settings
    options = own.searcher_options.get(name, {})
    settings = SearchSettings(
        own.subpolicies, own.operations, own.ops, (), own.searched, own.seed + draw
    )
    cheap = cheap_of(config.evaluator.kind, config.evaluator.preset, config.task.name)
    if name == STAGED and cheap:
        settings = replace(
            settings, evaluations=None, budget=own.searched, reserve=0.0, cheap=cheap
        )
    return replace(config, kind="search", settings=settings, searcher=SearcherConfig(name, options))


def _select(config: Config, draw: int, before: Path | None) -> Config:
    own = config.settings
    # The search's policies are not evaluated again one by one: the finalists are, by a share of the
    # budget that is the same for every searcher.
    made = Config.of("select", run=str(before), rescore=0, seeds=own.final_seeds)
    return replace(made, evaluator=config.evaluator, pool=config.pool)


def _grid(config: Config, draw: int, before: Path | None) -> Config:
    settings = RandAugmentSettings(seed=config.settings.seed + draw * MOST_SEEDS, halving=True)
    seeds = config.settings.budget // len(settings.cells)
    return replace(config, kind="randaugment", settings=replace(settings, seeds=seeds))


METHODS: dict[str, tuple[Stage, ...]] = {
    **{
        name: (
            Stage("search", run_search, functools.partial(_search, name)),
            Stage("select", run_select, _select),
        )
        for name in SEARCHERS
    },
    GRID: (Stage("randaugment", run_randaugment, _grid),),
}


def arm_of(text: str, task: str) -> Arm:
    """What a method without a search means; it bears the name that the user gave it."""
    meant = PUBLISHED_FOR.get(task, "imagenet") if text == "published" else ALIASES.get(text, text)
    arm = parse_arm(meant)
    return arm if meant == text else replace(arm, text=text, name=text)


def found(name: str, folder: Path) -> Arm:
    """The policy in a stage's folder, as the arm of its method."""
    arm: Any = parse_arm(str(folder / POLICY_NAME))
    return replace(arm, text=name, name=name)
