"""Evaluators as users write them: named by import path in test_own_evaluator.py."""

from __future__ import annotations

import os
from typing import Annotated

from policies import Policy
from policies.options import Option
from proxy_tasks import Evaluation, Evaluator


class Counting(Evaluator):
    """The more often an operation is used, the better."""

    def __init__(
        self, config, task, *, operation: Annotated[str, Option("operation to count")] = "Rotate"
    ):
        self.config, self.task, self.operation = config, task, operation

    def evaluate(self, augmentation, seed, part="validation"):
        rows = augmentation if isinstance(augmentation, Policy) else ()
        ops = [op.name for row in rows for op in row]
        share = ops.count(self.operation) / max(1, len(ops))
        metrics = {self.config.reward: share}
        return Evaluation(share, 0.0, metrics, 0.1, 1, part=part, details={"process": os.getpid()})


def function(config, task, *, operation="Invert"):
    return Counting(config, task, operation=operation)


def returns_another(config, task):
    return len


class Careless(Counting):
    def evaluate(self, augmentation, seed, part="validation"):
        return 0.5


class AlwaysValidation(Counting):
    def evaluate(self, augmentation, seed, part="validation"):
        return Evaluation(0.5, None, {"accuracy": 0.5}, 0.1, 1)


class WithoutAccuracy(Counting):
    def evaluate(self, augmentation, seed, part="validation"):
        return Evaluation(0.5, None, {}, 0.1, 1, part=part)


class Diverging(Counting):
    def evaluate(self, augmentation, seed, part="validation"):
        return Evaluation(None, None, {}, 0.1, 1, part=part, diverged=True)


class Unfinished(Evaluator):
    def __init__(self, config, task):
        pass


def three(config, task, seed):
    return Counting(config, task)


class NoArguments(Counting):
    def __init__(self):
        pass


class Foreign:
    def __init__(self, config, task):
        pass
