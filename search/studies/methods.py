"""How a method finds a policy on a draw of the task: a run folder of the kind that does so alone.

A method is data, a name and its stage; a new one is one more row. A searcher of a user's own is one
by its import path. What is neither is searched for by nobody, and is an arm of a comparison
(`arms.parse_arm`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from policies.imports import is_import_path, resolve
from policies.ops import PAPER_OPS
from proxy_tasks.run_format import POLICY_NAME, STAGED
from search.searchers.base import Searcher

from .arms import Arm, parse_arm
from .config import Config, cheap_of
from .grid_settings import RandAugmentSettings
from .randaugment import run_randaugment
from .replicate_settings import GRID
from .search import run_search
from .search_settings import SearchSettings
from .seeds import MOST_SEEDS
from .settings import SEARCHERS, SearcherConfig, arguments_of, searcher_of

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
    """The run folder of a method.

    Attributes:
        kind: of the run, and what its folder is called after.
        run: what makes it; it leaves policy.json.
        configure: (the replication on this draw, number of the draw) -> the run's configuration.
    """

    kind: str
    run: Callable[..., Ended]
    configure: Callable[[Config, int], Config]


def _search(method: str, config: Config, draw: int) -> Config:
    """As `augsearch search --searcher NAME --budget ...` does: a share of it chooses the policy."""
    own = config.settings
    name, size = searcher_of(method)
    cheap = {}
    if name == STAGED:
        cheap = cheap_of(config.evaluator.kind, config.evaluator.preset, config.task.name)
    settings = SearchSettings(
        own.subpolicies if size is None else size, own.operations, own.ops, seed=own.seed + draw,
        budget=own.budget, cheap=cheap,
    )  # fmt: skip
    searcher = SearcherConfig(name, arguments_of(method, own.searcher_options))
    return replace(config, kind="search", settings=settings, searcher=searcher)


def _grid(config: Config, draw: int) -> Config:
    settings = RandAugmentSettings(seed=config.settings.seed + draw * MOST_SEEDS, halving=True)
    seeds = config.settings.budget // len(settings.cells)
    return replace(config, kind="randaugment", settings=replace(settings, seeds=seeds))


def _by(method: str) -> Stage:
    return Stage("search", run_search, functools.partial(_search, method))


# Beside the searchers.
METHODS: dict[str, Stage] = {GRID: Stage("randaugment", run_randaugment, _grid)}


def stage_of(text: str) -> Stage | None:
    """How a method searches; None for an arm. Raises InputError for a path that leads nowhere."""
    name, _ = searcher_of(text)
    if name in SEARCHERS:
        return _by(text)
    if text in METHODS or not is_import_path(name) or text.startswith("randaugment:"):
        return METHODS.get(text)
    named: Any = resolve("method", name)
    searches = isinstance(named, type) and issubclass(named, Searcher)
    return _by(text) if searches else None


def arm_of(text: str, task: str, ops: tuple[str, ...] = PAPER_OPS) -> Arm:
    """What a method without a search means; it bears the name that the user gave it.

    ops: that may be searched: random policies are of no others.
    """
    meant = PUBLISHED_FOR.get(task, "imagenet") if text == "published" else ALIASES.get(text, text)
    arm = parse_arm(meant)
    if arm.random:
        arm = replace(arm, ops=ops)
    return arm if meant == text else replace(arm, text=text, name=text)


def found(name: str, folder: Path) -> Arm:
    """The policy in a stage's folder, as the arm of its method."""
    arm: Any = parse_arm(str(folder / POLICY_NAME))
    return replace(arm, text=name, name=name)
