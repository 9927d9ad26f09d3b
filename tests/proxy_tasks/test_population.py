"""What members of a population draw; that they go on where they were left is in test_pba.py."""

from __future__ import annotations

from proxy_tasks import EvaluatorConfig, make_evaluator
from proxy_tasks.evaluators import population
from proxy_tasks.models import own_randomness
from tests.proxy_tasks.trees import striped_task


def test_members_of_consecutive_seeds_share_no_randomness(monkeypatch):
    """What a mixing recipe or dropout draws, in any two epochs."""
    seeds = []

    def recorded(seed, device):
        seeds.append(seed)
        return own_randomness(seed, device)

    monkeypatch.setattr(population, "own_randomness", recorded)
    evaluator = make_evaluator(EvaluatorConfig("population", epochs=3), striped_task())
    for seed in (1, 2, 3):
        evaluator.go_on(None, seed, "validation", None)
    assert len(seeds) == 9 == len(set(seeds))
