"""Searchers by name, for configurations and the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from policies.errors import InputError, check_choice
from policies.imports import check_call, is_import_path, resolve
from policies.options import Declared, Option, checked_options, keywords_of, options_of
from proxy_tasks.run_format import CHEAP_COST
from search.spaces import Space

from .base import Searcher
from .batches import Lag
from .evolution import EvolutionSearcher
from .ppo import PPO_PRESETS, PPOConfig, PPOSearcher
from .random import RandomSearcher
from .staged import StagedSearcher
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
    "staged": StagedSearcher,
    "random": RandomSearcher,
    "ppo": make_ppo,
    "tpe": OptunaSearcher,
    "thompson": ThompsonSearcher,
    "evolution": EvolutionSearcher,
}


def _maker(name: str) -> Callable[..., Searcher]:
    if is_import_path(name):
        return resolve("searcher", name)
    check_choice("searcher", name, (*SEARCHERS, "package.module:name"))
    return SEARCHERS[name]


def searcher_options(name: str) -> tuple[Declared, ...]:
    """The options of a searcher by name, for checks and the reference table: its keyword-only
    arguments, also of a user's own class or function."""
    further = options_of(PPOConfig) if name == "ppo" else ()
    return (*keywords_of(_maker(name)), *further)


def has_cheap_cost(name: str) -> bool:
    """Whether a searcher asks two evaluators, and is told what the cheap one costs."""
    return any(declared.name == CHEAP_COST for declared in searcher_options(name))


def make_searcher(
    name: str, space: Space, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Searcher:
    """A new searcher.

    Args:
        name: a key of SEARCHERS, or "package.module:name", a class or a function of a user's own
            that is called as `SEARCHERS[name](space, seed, **options)` is.

    Raises:
        InputError: for unknown names and wrong values, and for what is no Searcher.
    """
    checked = checked_options(options or {}, searcher_options(name), f"the searcher {name}")
    make = _maker(name)
    check_call(
        "searcher", name, make, space, seed, **checked,
        rule="must take the space and the seed, then options by name",
        fix="e.g. def __init__(self, space, seed, *, alpha=1)",
    )  # fmt: skip
    made = make(space, seed, **checked)
    if not isinstance(made, Searcher):
        raise InputError(
            "searcher", "must make a search.Searcher", f"{name}, a {type(made).__name__}",
            "derive it from search.Searcher; search.testing has the contract",
        )  # fmt: skip
    return made
