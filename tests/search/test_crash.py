"""A real search, killed for real: the short form of tests/soak/kill.py."""

from __future__ import annotations

import random

import pytest

from tests.soak.kill import Moment, Trial, disturb, soak


@pytest.mark.ray
def test_a_killed_search_ends_as_the_undisturbed_one(tmp_path):
    report = soak(2, tmp_path, evaluations=60, sleep=0.03, seed=5, victims=("group", "worker"))
    assert len(report) == 2


@pytest.mark.ray
def test_the_death_of_ray_is_said_with_what_to_do(tmp_path):
    trial = Trial(tmp_path / "trial", evaluations=1000, sleep=0.05)
    happened = disturb(trial, "node", Moment(8000, 0.0), random.Random(0))
    assert happened.endswith("exit 1")
    assert "raylet" in trial.output() and f"augsearch resume {trial.out}" in trial.output()


@pytest.mark.slow
@pytest.mark.ray
def test_thirty_kills(tmp_path):
    assert len(soak(30, tmp_path, evaluations=150, sleep=0.04, seed=0)) == 30
