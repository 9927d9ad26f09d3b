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
