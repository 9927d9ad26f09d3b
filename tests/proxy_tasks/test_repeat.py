"""Evaluations with several training seeds as one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policies.errors import InputError
from proxy_tasks import Evaluation, EvaluatorConfig, Repeat, make_evaluator
from tests.proxy_tasks.test_evaluators import CONFIGS, POLICY, prepared
from tests.proxy_tasks.trees import striped_task


class TestRepeat:
    def test_a_diverged_child_without_a_reward_leaves_none(self):
        """As an evaluator of a user's own may tell it; what all have is averaged all the same."""

        class Sometimes:
            needs_preparation = False
            told = iter(
                [
                    Evaluation(0.5, None, {"accuracy": 0.5, "loss": 1.0}, 1.0, 10),
                    Evaluation(None, None, {"accuracy": 0.1}, 1.0, 10, diverged=True),
                ]
            )

            def evaluate(self, augmentation, seed, part="validation"):
                return next(self.told)

        found = Repeat(Sometimes(), 2).evaluate(None, 0)
        assert found.diverged and (found.reward, found.stderr) == (None, None)
        assert found.metrics == {"accuracy": pytest.approx(0.3)} and found.image_passes == 20
        assert found.details["rewards"] == [0.5, None]

    def test_is_the_mean_over_different_seeds(self, tmp_path):
        repeat = prepared(CONFIGS["repeat"], tmp_path)
        result = repeat.evaluate(POLICY, 3)
        seeds = result.details["seeds"]
        singles = [repeat.evaluator.evaluate(POLICY, s).reward for s in seeds]
        assert len(set(seeds)) == 2 and result.details["rewards"] == singles
        assert result.reward == pytest.approx(np.mean(singles))
        assert result.stderr == pytest.approx(np.std(singles, ddof=1) / math.sqrt(2))

    def test_neighbouring_seeds_share_no_child(self):
        repeat = make_evaluator(EvaluatorConfig("synthetic", repeats=5), striped_task())
        drawn = [repeat.evaluate(None, seed).details["seeds"] for seed in range(8)]
        assert len({seed for seeds in drawn for seed in seeds}) == 5 * 8

    def test_needs_two(self):
        with pytest.raises(InputError, match="at least 2"):
            Repeat(make_evaluator(CONFIGS["synthetic"], striped_task()), 1)
