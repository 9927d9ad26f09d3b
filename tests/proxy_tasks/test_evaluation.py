"""Rewards from logits, and the JSON of an Evaluation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import softmax

from proxy_tasks.evaluators import evaluation
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


def by_brentq(logits, labels):
    """The temperature by a method that needs no derivative: the oracle of `fit_temperature`."""

    def slope(log_inverse):
        means = (softmax(logits * math.exp(log_inverse), axis=1) * logits).sum(1)
        return (logits[np.arange(len(labels)), labels] - means).mean()

    low, high = math.log(0.01), math.log(100.0)
    if slope(low) <= 0:
        return 100.0
    if slope(high) >= 0:
        return 0.01
    return math.exp(-brentq(slope, low, high, xtol=1e-13))


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

    @given(
        seed=st.integers(0, 999), n=st.integers(1, 60), k=st.integers(2, 7),
        log_scale=st.floats(-6, 6), tail=st.integers(1, 5),
    )  # fmt: skip
    def test_is_the_root_that_brentq_finds(self, seed, n, k, log_scale, tail):
        # A normal number to the power of 5 has tails that softmax saturates on: the slope is all
        # but 0 over most of the bracket, and Newton's steps leave it.
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(n, k)) ** tail * math.exp(log_scale)
        labels = np.where(rng.random(n) < 0.7, logits.argmax(1), rng.integers(0, k, n))
        expected, found = by_brentq(logits, labels), fit_temperature(logits, labels)
        best, reached = (log_likelihoods(logits / t, labels).mean() for t in (expected, found))
        assert reached >= best - 1e-12 * abs(best)
        # Where the slope is rounding alone, one temperature is as good as another.
        flat = log_likelihoods(logits / (expected * 1.1), labels).mean() == pytest.approx(best)
        assert flat or math.log(found) == pytest.approx(math.log(expected), abs=1e-5)

    @pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 10.0])
    def test_few_passes_whatever_the_scale(self, scale, monkeypatch):
        # Every pass reads all logits: 50,000 images of 1,000 classes are 400 MB.
        logits, labels = drawn(5, n=2000, k=40, scale=scale)
        passes, moments = [], evaluation._moments
        monkeypatch.setattr(
            evaluation, "_moments", lambda *given: passes.append(1) or moments(*given)
        )
        found = fit_temperature(logits, labels)
        assert len(passes) <= 12
        assert found == pytest.approx(by_brentq(logits, labels), rel=1e-9)

    def test_equal_logits_leave_the_likelihood_at_chance(self):
        # Every temperature is as good as another; the answer must still be one of the allowed.
        logits, labels = np.zeros((4, 3)), np.array([0, 1, 2, 0])
        assert 0.01 <= fit_temperature(logits, labels) <= 100.0

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
