"""An evaluator that misbehaves as planned, around any other: a test of whoever has to bear it."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy_tasks.evaluators.base import Evaluator
from proxy_tasks.evaluators.evaluation import Evaluation

ACTIONS = ("ok", "raise", "crash", "hang", "nan", "diverge")


class Unreliable(Evaluator):
    """Does at each attempt of an evaluation what the plan says, then what `evaluator` does.

    Args:
        evaluator: what is done when nothing goes wrong.
        plan: by evaluation seed, the ACTIONS of its attempts in turn; afterwards all is well.
        place: folder in which attempts are counted, so that a crash does not forget them.
    """

    def __init__(
        self, evaluator: Evaluator, plan: Mapping[int, Sequence[str]], place: Path
    ) -> None:
        self.evaluator, self.plan, self.place = evaluator, plan, Path(place)
        self.place.mkdir(parents=True, exist_ok=True)

    def attempt(self, seed: int) -> int:
        """How often this evaluation was begun before."""
        with open(self.place / str(seed), "ab") as stream:
            before = stream.tell()
            stream.write(b".")
        return before

    def evaluate(self, augmentation: Any, seed: int, part: str = "validation") -> Evaluation:
        actions, attempt = self.plan.get(seed, ()), self.attempt(seed)
        action = actions[attempt] if attempt < len(actions) else "ok"
        if action == "raise":
            raise RuntimeError(f"planted at seed {seed}")
        if action == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "hang":
            time.sleep(3600)
        evaluation = self.evaluator.evaluate(augmentation, seed, part)
        if action == "nan":
            return dataclasses.replace(evaluation, reward=float("nan"))
        return dataclasses.replace(evaluation, diverged=action == "diverge")
