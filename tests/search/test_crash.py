"""A real search, killed for real: the short form of tests/soak/kill.py."""

from __future__ import annotations

import pytest

from tests.soak.kill import soak


@pytest.mark.ray
def test_a_killed_search_ends_as_the_undisturbed_one(tmp_path):
    report = soak(2, tmp_path, evaluations=60, sleep=0.03, seed=5, victims=("group", "worker"))
    assert len(report) == 2


@pytest.mark.slow
@pytest.mark.ray
def test_thirty_kills(tmp_path):
    assert len(soak(30, tmp_path, evaluations=150, sleep=0.04, seed=0)) == 30
