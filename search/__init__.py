"""Searchers, spaces and the engine that runs them.

Names are imported when they are first used: the command line lives in this package, and its
--help must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "engine": ("RunResult",),
    "errors": ("JournalError", "SearchError", "SearchInterrupted", "WorkerError"),
    "fixed": ("FixedSearcher", "fixed_candidates"),
    "optuna_grid": ("GridSearcher",),
    "optuna_search": ("OptunaSearcher",),
    "pool": ("PoolConfig",),
    "ppo": ("PPO_PRESETS", "PPOConfig", "PPOSearcher"),
    "random_search": ("RandomSearcher",),
    "registry": ("SEARCHERS", "make_searcher"),
    "run": ("RunConfig", "run_search"),
    "searcher": ("BatchSearcher", "Candidate", "Searcher"),
    "spaces": ("PolicySpace", "RandAugmentSpace"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    return getattr(importlib.import_module(f"search.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
