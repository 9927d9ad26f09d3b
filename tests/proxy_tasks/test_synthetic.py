"""The planted landscape: its optimum is one, its noise and its mishaps are as asked for."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import kstest

from policies import Operation, Policy, RandAugment
from proxy_tasks import EvaluatorConfig, get_task, make_evaluator
from proxy_tasks.evaluators.planted import (
    BINS,
    OPERATIONS,
    PROBABILITIES,
    Landscape,
    _uniform_rows,
)


def planted(**options):
    config = EvaluatorConfig("synthetic", options=options)
    return make_evaluator(config, get_task("synthetic"))


def neighbours(policy, rng, count):
    """Policies that differ from `policy` in one operation."""
    from policies import OPS

    for _ in range(count):
        rows = [list(row) for row in policy]
        name = OPERATIONS[rng.integers(len(OPERATIONS))]
        magnitude = int(rng.integers(BINS)) if OPS[name].has_magnitude else None
        probability = PROBABILITIES[rng.integers(11)]
        rows[rng.integers(5)][rng.integers(2)] = Operation(name, probability, magnitude)
        yield Policy(rows)


@pytest.mark.parametrize("landscape", range(4))
class TestOptimum:
    def test_no_uniform_policy_is_better(self, landscape):
        evaluator, rng = planted(landscape=landscape), np.random.default_rng(1)
        best = evaluator.value(evaluator.optimum)
        assert all(evaluator.value(Policy(_uniform_rows(rng))) < best for _ in range(2000))

    def test_no_neighbour_is_better(self, landscape):
        evaluator, rng = planted(landscape=landscape), np.random.default_rng(2)
        best = evaluator.value(evaluator.optimum)
        values = [evaluator.value(p) for p in neighbours(evaluator.optimum, rng, 3000)]
        assert max(values) <= best + 1e-12

    def test_there_is_something_to_find(self, landscape):
        evaluator = planted(landscape=landscape)
        assert evaluator.value(evaluator.optimum) > Landscape.base + 0.02


class TestStructure:
    def test_policies_scatter_as_asked(self):
        evaluator, rng = planted(policy_sd=0.015), np.random.default_rng(3)
        values = [evaluator.value(Policy(_uniform_rows(rng))) for _ in range(1000)]
        # Squashing bends the scale by up to a tenth; sampling adds 1/sqrt(2000) = 2 %.
        assert np.std(values) == pytest.approx(0.015, rel=0.2)

    def test_repeating_a_subpolicy_costs(self):
        """The best sub-policy alone is worse than with others that are hardly worse."""
        evaluator = planted()
        best = evaluator.optimum
        rows = sorted(best, key=evaluator.truth.subpolicy_value)
        assert evaluator.value(Policy([rows[-1]] * 5)) < evaluator.value(best)

    def test_what_does_nothing_is_worth_nothing(self):
        landscape = planted().truth
        row = Policy([[("Rotate", 0.7, 4), ("Color", 0.3, 8)]])[0]
        idle = Policy([[("Identity", 1.0, None), *row]])[0]
        assert landscape.subpolicy_value(idle) == landscape.subpolicy_value(row) != 0

    def test_order_of_operations_and_subpolicies_is_free(self):
        evaluator, policy = planted(), Policy(_uniform_rows(np.random.default_rng(4)))
        turned = Policy([row[::-1] for row in policy[::-1]])
        assert evaluator.value(turned) == pytest.approx(evaluator.value(policy))

    def test_randaugment_has_a_best_cell(self):
        evaluator = planted()
        cells = {(n, m): evaluator.value(RandAugment(n, m)) for n in (1, 2, 3) for m in (4, 12, 20)}
        assert max(cells, key=cells.get) == (2, 12)

    @pytest.mark.parametrize("times", [2, 5, 24])
    def test_a_policy_and_its_double_are_worth_the_same(self, times):
        evaluator, rng = planted(), np.random.default_rng(7)
        repeats = Policy([[("Rotate", 0.5, 3), ("Color", 0.5, 3)]] * 3 + _uniform_rows(rng)[:2])
        for policy in (Policy(_uniform_rows(rng)), repeats):
            many = Policy([*policy] * times)
            assert evaluator.value(many) == pytest.approx(evaluator.value(policy), abs=1e-12)


class TestNoise:
    def test_is_normal_around_the_value(self):
        evaluator, policy = planted(noise=0.008), Policy(_uniform_rows(np.random.default_rng(5)))
        rewards = np.array([evaluator.evaluate(policy, s).reward for s in range(500)])
        z = (rewards - evaluator.value(policy)) / 0.008
        assert kstest(z, "norm").pvalue > 0.01

    def test_a_seed_shifts_all_policies_alike_or_each_on_its_own(self):
        policies = [Policy(_uniform_rows(np.random.default_rng(n))) for n in range(60)]

        def noise(evaluator):
            return [evaluator.evaluate(p, 3).reward - evaluator.value(p) for p in policies]

        assert np.ptp(noise(planted(noise=0.008))) < 1e-12
        own = np.array(noise(planted(noise=0.008, own_noise=True)))
        assert kstest(own / 0.008, "norm").pvalue > 0.01
        assert own.tolist() == noise(planted(noise=0.008, own_noise=True))

    def test_no_noise(self):
        evaluator = planted(noise=0.0)
        assert evaluator.evaluate(None, 3).reward == evaluator.value(None)

    def test_test_part_has_no_bias(self):
        evaluator, policy = planted(noise=0.0, cheap_bias=1.0), planted().optimum
        assert evaluator.evaluate(policy, 0, "test").reward == evaluator.value(policy)
        assert evaluator.evaluate(policy, 0).reward != evaluator.value(policy)


def test_it_takes_the_time_it_is_told_to():
    started = time.perf_counter()
    planted(sleep=0.1).evaluate(None, 0)
    assert time.perf_counter() - started >= 0.1
