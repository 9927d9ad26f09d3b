"""Searchers, spaces, the engine that runs them, and one function for each kind of run.

    from search import Config, run_search

    result = run_search(Config.of("search", evaluations=200), "runs/first")

Names are imported when they are first used: the command line lives in this package, and its
--help must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.loop import RunResult
    from .engine.resources import PoolConfig
    from .errors import JournalError, NothingFound, SearchError, SearchInterrupted, WorkerError
    from .searchers.base import Searcher
    from .searchers.batches import BatchSearcher
    from .searchers.evolution import EvolutionSearcher
    from .searchers.fixed import FixedSearcher, fixed_candidates
    from .searchers.population import PopulationSearcher
    from .searchers.ppo import PPO_PRESETS, PPOConfig, PPOSearcher
    from .searchers.random import RandomSearcher
    from .searchers.ray_tune import TuneSearcher
    from .searchers.registry import SEARCHERS, make_searcher
    from .searchers.staged import StagedSearcher
    from .searchers.thompson import ThompsonSearcher
    from .searchers.tpe import OptunaSearcher
    from .spaces import PolicySpace, RandAugmentSpace
    from .studies.compare import run_compare
    from .studies.config import Config
    from .studies.estimate import run_estimate
    from .studies.fidelity import run_fidelity
    from .studies.pba import run_pba
    from .studies.race import run_race
    from .studies.randaugment import run_randaugment
    from .studies.rederive import run_rederive
    from .studies.replicate import run_replicate
    from .studies.search import run_search
    from .studies.select import run_select
    from .studies.settings import SearcherConfig, TaskConfig
    from .studies.tabulate import run_tabulate
    from .studies.train import run_train
    from .trial import Candidate, Trial, best_trials, read_journal

_NAMES = {
    "engine.loop": ("RunResult",),
    "engine.resources": ("PoolConfig",),
    "errors": ("JournalError", "NothingFound", "SearchError", "SearchInterrupted", "WorkerError"),
    "searchers.base": ("Searcher",),
    "searchers.batches": ("BatchSearcher",),
    "searchers.evolution": ("EvolutionSearcher",),
    "searchers.fixed": ("FixedSearcher", "fixed_candidates"),
    "searchers.population": ("PopulationSearcher",),
    "searchers.ppo": ("PPO_PRESETS", "PPOConfig", "PPOSearcher"),
    "searchers.random": ("RandomSearcher",),
    "searchers.ray_tune": ("TuneSearcher",),
    "searchers.registry": ("SEARCHERS", "make_searcher"),
    "searchers.staged": ("StagedSearcher",),
    "searchers.thompson": ("ThompsonSearcher",),
    "searchers.tpe": ("OptunaSearcher",),
    "spaces": ("PolicySpace", "RandAugmentSpace"),
    "studies.compare": ("run_compare",),
    "studies.config": ("Config",),
    "studies.estimate": ("run_estimate",),
    "studies.fidelity": ("run_fidelity",),
    "studies.pba": ("run_pba",),
    "studies.race": ("run_race",),
    "studies.randaugment": ("run_randaugment",),
    "studies.rederive": ("run_rederive",),
    "studies.replicate": ("run_replicate",),
    "studies.search": ("run_search",),
    "studies.select": ("run_select",),
    "studies.settings": ("SearcherConfig", "TaskConfig"),
    "studies.tabulate": ("run_tabulate",),
    "studies.train": ("run_train",),
    "trial": ("Candidate", "Trial", "best_trials", "read_journal"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "PPO_PRESETS",
    "SEARCHERS",
    "BatchSearcher",
    "Candidate",
    "Config",
    "EvolutionSearcher",
    "FixedSearcher",
    "JournalError",
    "NothingFound",
    "OptunaSearcher",
    "PPOConfig",
    "PPOSearcher",
    "PolicySpace",
    "PoolConfig",
    "PopulationSearcher",
    "RandAugmentSpace",
    "RandomSearcher",
    "RunResult",
    "SearchError",
    "SearchInterrupted",
    "Searcher",
    "SearcherConfig",
    "StagedSearcher",
    "TaskConfig",
    "ThompsonSearcher",
    "Trial",
    "TuneSearcher",
    "WorkerError",
    "best_trials",
    "fixed_candidates",
    "make_searcher",
    "read_journal",
    "run_compare",
    "run_estimate",
    "run_fidelity",
    "run_pba",
    "run_race",
    "run_randaugment",
    "run_rederive",
    "run_replicate",
    "run_search",
    "run_select",
    "run_tabulate",
    "run_train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    return getattr(importlib.import_module(f"search.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
