"""Searchers by name, for configurations and the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from policies.errors import check_choice
from policies.options import Declared, Option, checked_options, keywords_of, options_of
from search.spaces import Space

from .base import Searcher
from .batches import Lag
from .evolution import EvolutionSearcher
from .ppo import PPO_PRESETS, PPOConfig, PPOSearcher
from .random import RandomSearcher
from .thompson import ThompsonSearcher
from .tpe import OptunaSearcher


def make_ppo(
    space: Space,
    seed: int,
    *,
    preset: Annotated[
        Literal["cpu", "paper"], Option("settings that the further options differ from")
    ] = "cpu",
    lag: Lag = 1,
    **changes: Any,
) -> PPOSearcher:
    """A PPOSearcher by a preset and the fields of PPOConfig that differ from it."""
    return PPOSearcher(space, seed, dataclasses.replace(PPO_PRESETS[preset], **changes), lag=lag)


# Called with (space, seed) and options by name.
SEARCHERS: dict[str, Callable[..., Searcher]] = {
    "random": RandomSearcher,
    "ppo": make_ppo,
    "tpe": OptunaSearcher,
    "thompson": ThompsonSearcher,
    "evolution": EvolutionSearcher,
}


def searcher_options(name: str) -> tuple[Declared, ...]:
    """The options of a searcher by name, for checks and the reference table."""
    check_choice("searcher", name, tuple(SEARCHERS))
    further = options_of(PPOConfig) if name == "ppo" else ()
    return (*keywords_of(SEARCHERS[name]), *further)


def make_searcher(
    name: str, space: Space, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Searcher:
    """SEARCHERS[name](space, seed, ...). Raises InputError for unknown names and wrong values."""
    checked = checked_options(options or {}, searcher_options(name), f"the searcher {name}")
    return SEARCHERS[name](space, seed, **checked)
