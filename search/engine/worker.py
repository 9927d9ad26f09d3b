"""What runs inside a worker: evaluators built once, then one evaluation after the other.

Nothing here knows of Ray. Failures of an evaluator come back as data ("error" and "detail", the
traceback), so that no exception class has to survive the journey to another process.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from policies.errors import InputError
from proxy_tasks.evaluators.base import Continued, Evaluator
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.evaluators.registry import make_evaluator

# Builds an evaluator in the worker; importable there under the same name.
Factory = Callable[[EvaluatorConfig, Any], Evaluator]


def failure(error: Exception) -> dict[str, Any]:
    """An exception as data: one line, the whole traceback, and whether the user is to blame."""
    line = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    mistake = error if isinstance(error, InputError) else None
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
    ) -> dict[str, Any]:
        """Fix the threads and build every evaluator, with its prepared files where there are any.

        Returns {"worker": "host:pid", "unprepared": names still to be prepared} or a failure.
        """
        try:
            import torch

            torch.set_num_threads(threads)
            build = factory or make_evaluator
            self._evaluators = {name: build(config, task) for name, config in configs.items()}
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

    def evaluate(
        self, name: str, augmentation: Any, seed: int, part: str, artifact: bytes | None
    ) -> dict[str, Any]:
        """One evaluation; "started" and "finished" are in seconds of this machine's clock.

        artifact: what the parent evaluation left; only evaluators that are `Continued` have one,
        and their answer has an "artifact" too.
        """
        started = time.time()
        try:
            evaluator = self._evaluators[name]
            if isinstance(evaluator, Continued):
                evaluation, left = evaluator.go_on(augmentation, seed, part, artifact)
                outcome = {"evaluation": _checked(evaluation).to_json(), "artifact": left}
            else:
                evaluation = evaluator.evaluate(augmentation, seed, part)
                outcome = {"evaluation": _checked(evaluation).to_json()}
        except Exception as error:
            outcome = failure(error)
        return {**outcome, "started": started, "finished": time.time()}


def _checked(evaluation: Any) -> Evaluation:
    """What a user's own evaluator returned, if it is an evaluation."""
    if not isinstance(evaluation, Evaluation):
        raise InputError(
            "evaluator", "must return an Evaluation", evaluation,
            "return proxy_tasks.Evaluation(reward, stderr, metrics, seconds, image_passes)",
        )  # fmt: skip
    return evaluation
