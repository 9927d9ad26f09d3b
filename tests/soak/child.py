"""`augsearch` in a process of its own, to be killed: python -m tests.soak.child WORDS ...

Every evaluation takes a planted time more, so that there is something to hit, and leaves a mark in
a file when it starts, so that repeated ones can be counted.
"""

from __future__ import annotations

import signal

# A shell ignores SIGINT for what it runs in the background, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from policies.augmentations import encode_augmentation  # noqa: E402
from policies.options import to_json  # noqa: E402
from proxy_tasks.evaluators.base import Continued, Evaluator  # noqa: E402
from proxy_tasks.evaluators.config import EvaluatorConfig  # noqa: E402
from proxy_tasks.evaluators.registry import make_evaluator  # noqa: E402
from search.cli.main import main  # noqa: E402
from search.engine import loop  # noqa: E402

# The file of marks, and the planted time in seconds.
STARTED, SLEEP = "AUGSEARCH_SOAK_STARTED", "AUGSEARCH_SOAK_SLEEP"


class make_telling:  # noqa: N801  (stands in for a function, and carries both to the workers)
    def __init__(self, path: str, sleep: float) -> None:
        self.path, self.sleep = path, sleep

    def __call__(self, config: EvaluatorConfig, task: Any) -> Evaluator:
        evaluator = make_evaluator(config, task)
        name = "go_on" if isinstance(evaluator, Continued) else "evaluate"
        setattr(evaluator, name, self.telling(config, task, getattr(evaluator, name)))
        return evaluator

    def telling(self, config: EvaluatorConfig, task: Any, evaluate: Callable) -> Callable:
        def told(augmentation: Any, seed: int, part: str, *artifact: bytes | None) -> Any:
            what = task.manifest_hash, encode_augmentation(augmentation), seed, part
            asked = [to_json(config), *what]
            inherited = [each for each in artifact if each is not None]
            mark = hashlib.sha256(b"".join((json.dumps(asked).encode(), *inherited))).hexdigest()
            with open(self.path, "a") as stream:
                stream.write(f"{mark}\n")
            time.sleep(self.sleep)
            return evaluate(augmentation, seed, part, *artifact)

        return told


def plant(path: str, sleep: float) -> None:
    """Let the engine's workers build every evaluator so."""
    pool = loop.WorkerPool

    def planted(*arguments: Any, **named: Any) -> Any:
        return pool(*arguments, **{**named, "factory": make_telling(path, sleep)})

    loop.WorkerPool = planted  # type: ignore[assignment,misc]


if __name__ == "__main__":
    plant(os.environ[STARTED], float(os.environ[SLEEP]))
    main()
