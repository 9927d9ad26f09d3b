"""Rewards from logits, and the JSON of an Evaluation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from proxy_tasks.evaluators.evaluation import (
    Evaluation,
    chance,
    fit_temperature,
    log_likelihoods,
    score,
)


def drawn(seed, n=400, k=5, scale=1.0):
    """Logits and labels drawn from their own softmax: perfectly calibrated when scale is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, k))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(k, p=p) for p in chances])
    return logits * scale, labels


class TestScore:
    def test_by_hand(self):
        logits = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
        scores = score(logits, np.array([0, 1]), temperature=1.0)
        assert scores.metrics["accuracy"] == 0.5
        expected = (math.log(0.5) + math.log(0.2)) / 2
        assert scores.metrics["log_likelihood"] == pytest.approx(expected)
        assert scores.metrics["calibrated_log_likelihood"] == pytest.approx(expected)
        spread = abs(math.log(0.5) - math.log(0.2)) / 2
        assert scores.stderrs["log_likelihood"] == pytest.approx(spread / math.sqrt(2))
        assert scores.stderrs["accuracy"] == pytest.approx(0.5 / math.sqrt(2))

    def test_huge_logits_stay_finite(self):
        scores = score(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([1, 0]))
        assert all(math.isfinite(v) for v in scores.metrics.values())

    def test_chance_is_what_uniform_logits_score(self):
        labels = np.arange(40) % 4
        uniform = score(np.zeros((40, 4)), labels).metrics
        for name in ("accuracy", "log_likelihood", "calibrated_log_likelihood"):
            assert chance(4, 40).metrics[name] == pytest.approx(uniform[name])


class TestTemperature:
    @given(seed=st.integers(0, 99), scale=st.sampled_from([0.2, 1.0, 5.0]))
    def test_is_the_optimum_that_a_general_search_finds(self, seed, scale):
        logits, labels = drawn(seed, n=100, scale=scale)
        found = minimize_scalar(
            lambda log_t: -log_likelihoods(logits / math.exp(log_t), labels).mean(),
            bounds=(-4, 4), method="bounded", options={"xatol": 1e-8},
        )  # fmt: skip
        assert math.log(fit_temperature(logits, labels)) == pytest.approx(found.x, abs=1e-4)

    @pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
    def test_recovers_the_scale_of_calibrated_logits(self, scale):
        # Relative standard error of the fit is about 1/sqrt(n) here; 6 of them at n = 3000.
        logits, labels = drawn(1, n=3000, scale=scale)
        assert fit_temperature(logits, labels) == pytest.approx(scale, rel=6 / math.sqrt(3000))

    @given(st.integers(0, 50))
    def test_calibration_never_lowers_the_likelihood(self, seed):
        logits, labels = drawn(seed, n=60, scale=3.0)
        metrics = score(logits, labels).metrics
        assert metrics["calibrated_log_likelihood"] >= metrics["log_likelihood"] - 1e-12

    def test_bounds(self):
        perfect = np.eye(3)[[0, 1, 2]] * 5
        assert fit_temperature(perfect, np.array([0, 1, 2])) == 0.01
        assert fit_temperature(perfect, np.array([1, 2, 0])) == 100.0


class TestJson:
    def test_round_trip_keeps_every_float(self):
        before = Evaluation(
            0.1 + 0.2, 1 / 3, {"accuracy": 0.1 + 0.2, "log_likelihood": -1e-17}, 0.7, 12, True,
            "test", {"rewards": [0.1, 0.3]},
        )  # fmt: skip
        assert Evaluation.from_json(json.loads(json.dumps(before.to_json()))) == before
