"""Searchers, spaces and the engine that runs them."""

from __future__ import annotations

from .fixed import FixedSearcher, fixed_candidates
from .random_search import RandomSearcher
from .searcher import BatchSearcher, Candidate, Searcher
from .spaces import PolicySpace, RandAugmentSpace

__all__ = [
    "BatchSearcher",
    "Candidate",
    "FixedSearcher",
    "PolicySpace",
    "RandAugmentSpace",
    "RandomSearcher",
    "Searcher",
    "fixed_candidates",
]
