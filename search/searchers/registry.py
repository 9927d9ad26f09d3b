"""Searchers by name, for configurations and the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from policies.errors import InputError
from search.spaces import Space

from .base import Searcher
from .ppo import PPO_PRESETS, PPOConfig, PPOSearcher
from .random import RandomSearcher
from .tpe import OptunaSearcher


def make_random(space: Space, seed: int, options: Mapping[str, Any]) -> RandomSearcher:
    """Options: batch_size."""
    _check("random", options, ("batch_size",))
    return RandomSearcher(space, seed, **options)


def make_ppo(space: Space, seed: int, options: Mapping[str, Any]) -> PPOSearcher:
    """Options: preset ("cpu" or "paper"; default cpu), fields of PPOConfig, lag."""
    fields = tuple(field.name for field in dataclasses.fields(PPOConfig))
    _check("ppo", options, ("lag", "preset", *fields))
    preset = options.get("preset", "cpu")
    if preset not in PPO_PRESETS:
        raise InputError(
            "searcher option preset",
            f"must be one of {', '.join(PPO_PRESETS)}",
            preset,
            "choose one of these",
        )
    changes = {name: options[name] for name in fields if name in options}
    config = dataclasses.replace(PPO_PRESETS[preset], **changes)
    rest = {name: options[name] for name in ("lag",) if name in options}
    return PPOSearcher(space, seed, config, **rest)


def make_tpe(space: Space, seed: int, options: Mapping[str, Any]) -> OptunaSearcher:
    """Options: batch_size, startup, multivariate, history, lag."""
    _check("tpe", options, ("lag", "batch_size", "startup", "multivariate", "history"))
    return OptunaSearcher(space, seed, **options)


def _check(searcher: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise InputError(
                f"searcher option {name}",
                f"is not an option of {searcher}",
                options[name],
                f"choose of {', '.join(known)}",
            )


SEARCHERS: dict[str, Callable[[Space, int, Mapping[str, Any]], Searcher]] = {
    "random": make_random,
    "ppo": make_ppo,
    "tpe": make_tpe,
}


def make_searcher(
    name: str, space: Space, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Searcher:
    """SEARCHERS[name](space, seed, options). Raises InputError for an unknown name."""
    if name not in SEARCHERS:
        raise InputError(
            "searcher", f"must be one of {', '.join(SEARCHERS)}", name, "choose one of these"
        )
    return SEARCHERS[name](space, seed, options or {})
