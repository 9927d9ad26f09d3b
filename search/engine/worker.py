"""What runs inside a worker: evaluators built once, then one evaluation after the other.

Nothing here knows of Ray. Failures of an evaluator come back as data ("error" and "detail", the
traceback), so that no exception class has to survive the journey to another process.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from policies.errors import InputError
from proxy_tasks.evaluators.base import Continued, Evaluator, Together
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.evaluators.registry import make_evaluator

# Builds an evaluator in the worker; importable there under the same name.
Factory = Callable[[EvaluatorConfig, Any], Evaluator]
# What one evaluation is asked with: augmentation, seed, and what its parent evaluation left.
Asked = tuple[Any, int, bytes | None]


def failure(error: Exception) -> dict[str, Any]:
    """An exception as data: one line, the whole traceback, and whether the user is to blame."""
    line = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    # Of the message alone: what it was about may not survive the journey.
    mistake = InputError(str(error)) if isinstance(error, InputError) else None
    return {"error": line, "detail": traceback.format_exc(), "mistake": mistake}


class Worker:
    """One process of the pool. Every method returns plain data."""

    def __init__(self) -> None:
        self._evaluators: dict[str, Evaluator] = {}
        self._info: dict[str, Any] = {}

    def where(self) -> str:
        """ "host:pid", as soon as there is a place for this worker."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def setup(
        self,
        configs: Mapping[str, EvaluatorConfig],
        task: Any,
        prepared: Mapping[str, bytes],
        threads: int,
        factory: Factory | None,
        together: int,
    ) -> dict[str, Any]:
        """Fix the threads and build every evaluator, with its prepared files where there are any.

        together: how many candidates `evaluate` may be given at once.
        Returns {"worker": "host:pid", "unprepared": names still to be prepared} or a failure.
        """
        try:
            build = factory or make_evaluator
            self._evaluators = {name: build(config, task) for name, config in configs.items()}
            # Not all evaluators need torch; the environment tells those that import it later.
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(threads)
            if together > 1:
                for name, evaluator in self._evaluators.items():
                    _check_together(evaluator, configs[name].kind, together)
            self._info = {"worker": self.where()}
            return self.receive(prepared)
        except Exception as error:
            self._info = failure(error)
            return self._info

    def receive(self, prepared: Mapping[str, bytes]) -> dict[str, Any]:
        """Take over the one-off work of another worker; returns what `setup` returns."""
        if "error" in self._info:
            return self._info
        try:
            for name, content in prepared.items():
                self._evaluators[name].load(content)
        except Exception as error:
            return failure(error)
        todo = [
            name
            for name, evaluator in self._evaluators.items()
            if name not in prepared and evaluator.needs_preparation
        ]
        return {**self._info, "unprepared": todo}

    def prepare(self, names: list[str]) -> dict[str, Any]:
        """Do the one-off work of these evaluators; returns {"prepared": {name: bytes}}."""
        try:
            return {"prepared": {name: self._evaluators[name].prepare() for name in names}}
        except Exception as error:
            return failure(error)

    def evaluate(self, name: str, part: str, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """One evaluation, or several at once: an answer to each that was asked for.

        "started" and "finished" are in seconds of this machine's clock; evaluations at once share
        the time evenly. One that fails lets all fail that were made with it. Only evaluators that
        are `Continued` take an artifact, one at a time, and their answer has an "artifact" too.
        """
        started = time.time()
        try:
            answers = _answers(self._evaluators[name], part, asked)
        except Exception as error:
            answers = [failure(error)] * len(asked)
        share = (time.time() - started) / len(asked)
        return [
            {**answer, "started": started + k * share, "finished": started + (k + 1) * share}
            for k, answer in enumerate(answers)
        ]


def _answers(evaluator: Evaluator, part: str, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    augmentation, seed, artifact = asked[0]
    if isinstance(evaluator, Continued):
        evaluation, left = evaluator.go_on(augmentation, seed, part, artifact)
        return [{"evaluation": _checked(evaluation, part).to_json(), "artifact": left}]
    if len(asked) == 1:
        evaluations = [evaluator.evaluate(augmentation, seed, part)]
    else:
        augmentations, seeds, _ = zip(*asked, strict=True)
        together = cast(Together, evaluator)  # `setup` has seen to it
        evaluations = together.evaluate_together(augmentations, seeds, part)
    return [{"evaluation": _checked(evaluation, part).to_json()} for evaluation in evaluations]


def _check_together(evaluator: Evaluator, kind: str, count: int) -> None:
    if not isinstance(evaluator, Together):
        raise InputError(
            "children_per_gpu", "needs an evaluator that trains children at once: from-scratch or "
            "weight-sharing, without repeats", f"{count} with {kind}", "leave it out",
        )  # fmt: skip
    evaluator.check_together()


def _checked(evaluation: Any, part: str) -> Evaluation:
    """What a user's own evaluator returned, if it is an evaluation on that part."""
    if not isinstance(evaluation, Evaluation):
        raise InputError(
            "evaluator", "must return an Evaluation", evaluation,
            "return proxy_tasks.Evaluation(reward, stderr, metrics, seconds, image_passes, "
            "part=part)",
        )  # fmt: skip
    if evaluation.part != part:
        raise InputError(
            "evaluator", f"must evaluate on the part asked for, {part}", evaluation.part,
            "return an Evaluation with part=part",
        )  # fmt: skip
    if part == "test" and "accuracy" not in evaluation.metrics and not evaluation.diverged:
        raise InputError(
            "evaluator", "must give the metric accuracy on the test part",
            ", ".join(evaluation.metrics) or "no metric", 'return metrics={"accuracy": ...}',
        )  # fmt: skip
    return evaluation
