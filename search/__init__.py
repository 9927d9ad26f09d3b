"""Searchers, spaces and the engine that runs them.

Names are imported when they are first used: the command line lives in this package, and its
--help must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "engine.loop": ("RunResult",),
    "errors": ("JournalError", "SearchError", "SearchInterrupted", "WorkerError"),
    "searchers.fixed": ("FixedSearcher", "fixed_candidates"),
    "searchers.grid": ("GridSearcher",),
    "searchers.tpe": ("OptunaSearcher",),
    "engine.pool": ("PoolConfig",),
    "searchers.ppo": ("PPO_PRESETS", "PPOConfig", "PPOSearcher"),
    "searchers.random": ("RandomSearcher",),
    "searchers.registry": ("SEARCHERS", "make_searcher"),
    "studies.search": ("RunConfig", "run_search"),
    "searchers.base": ("Searcher",),
    "searchers.batches": ("BatchSearcher",),
    "spaces": ("PolicySpace", "RandAugmentSpace"),
    "trial": ("Candidate", "Trial", "best_trials", "read_journal"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    return getattr(importlib.import_module(f"search.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
