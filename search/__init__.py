"""Searchers, spaces and the engine that runs them."""

from __future__ import annotations

from .fixed import FixedSearcher, fixed_candidates
from .ppo import PPO_PRESETS, PPOConfig, PPOSearcher
from .random_search import RandomSearcher
from .registry import SEARCHERS, make_searcher
from .searcher import BatchSearcher, Candidate, Searcher
from .spaces import PolicySpace, RandAugmentSpace

__all__ = [
    "PPO_PRESETS",
    "SEARCHERS",
    "BatchSearcher",
    "Candidate",
    "FixedSearcher",
    "PPOConfig",
    "PPOSearcher",
    "PolicySpace",
    "RandAugmentSpace",
    "RandomSearcher",
    "Searcher",
    "fixed_candidates",
    "make_searcher",
]
