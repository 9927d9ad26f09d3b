"""Every searcher keeps the contract; what BatchSearcher and FixedSearcher promise beyond it."""

from __future__ import annotations

import pytest

from policies import IMAGENET, Policy, RandAugment, TrivialAugmentWide
from policies.errors import InputError
from proxy_tasks import Evaluation
from search import (
    SEARCHERS,
    BatchSearcher,
    Candidate,
    FixedSearcher,
    GridSearcher,
    PolicySpace,
    RandAugmentSpace,
    RandomSearcher,
    fixed_candidates,
    make_searcher,
)
from search.searcher import Leaderboard, derive_seed
from tests.contracts.searcher import SearcherContract, drive, evaluation


class TestRandom(SearcherContract):
    source = "RandomSearcher(PolicySpace(), seed, batch_size=7)"


class TestRandomGrid(SearcherContract):
    source = "RandomSearcher(RandAugmentSpace(), seed)"


class TestPaperPPO(SearcherContract):
    source = "PPOSearcher(PolicySpace(), seed, PPOConfig(batch_size=8))"
    count = 40


class TestPPOWithoutLag(SearcherContract):
    source = "PPOSearcher(PolicySpace(3, 1), seed, PPOConfig(batch_size=6, hidden=16), lag=0)"
    count = 40


class TestFastPPO(SearcherContract):
    source = (
        "PPOSearcher(PolicySpace(), seed, replace(PPO_PRESETS['cpu'], batch_size=9), lag=2, "
        "evaluation_seeds='common')"
    )
    count = 45


class TestPPOOnGrid(SearcherContract):
    source = "PPOSearcher(RandAugmentSpace(), seed, PPOConfig(batch_size=5, hidden=8))"
    count = 30


class TestTPE(SearcherContract):
    source = "OptunaSearcher(PolicySpace(), seed, startup=10, batch_size=5, history=20)"
    count = 40


class TestUnivariateTPE(SearcherContract):
    source = "OptunaSearcher(RandAugmentSpace(), seed, startup=10, batch_size=5, multivariate=False)"
    count = 30


class TestFixed(SearcherContract):
    source = (
        "FixedSearcher(fixed_candidates({'a': RandAugment(1, 3), 'b': RandAugment(2, 9), "
        "'none': None, 'p': IMAGENET}, range(9)))"
    )
    count = 36
    seeded = False

    def space_contains(self, searcher, candidate):
        return candidate in searcher.candidates
