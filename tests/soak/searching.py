"""A search in a process of its own, to be killed: python -m tests.soak.searching --out DIR ...

Evaluations are synthetic and sleep; every one that starts leaves its seed in a file, so that
repeated ones can be counted.
"""

from __future__ import annotations

import signal

# A shell ignores SIGINT for what it runs in the background, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

import argparse  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

from proxy_tasks.evaluators.config import EvaluatorConfig  # noqa: E402
from proxy_tasks.evaluators.evaluation import Evaluation  # noqa: E402
from proxy_tasks.evaluators.registry import Evaluator, make_evaluator  # noqa: E402
from search import Config, SearchError, run_search  # noqa: E402

STARTED = "AUGSEARCH_SOAK_STARTED"


class Telling(Evaluator):
    """Another evaluator, with a note of every start."""

    def __init__(self, evaluator: Evaluator, path: str) -> None:
        self.evaluator, self.path = evaluator, path

    def evaluate(self, augmentation: Any, seed: int, part: str = "validation") -> Evaluation:
        with open(self.path, "a") as stream:
            stream.write(f"{seed} {os.getpid()}\n")
        return self.evaluator.evaluate(augmentation, seed, part)


class make_telling:  # noqa: N801  (stands in for a function, and carries the path to the workers)
    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, config: EvaluatorConfig, task: Any) -> Evaluator:
        return Telling(make_evaluator(config, task), self.path)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--started", required=True)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--sleep", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--searcher", default="ppo")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    config = Config.of(
        "search",
        task="synthetic",
        evaluator="synthetic",
        evaluator_options={"sleep": options.sleep},
        searcher=options.searcher,
        evaluations=options.evaluations,
        workers=options.workers,
        retries=5,
    )
    telling = make_telling(options.started)
    try:
        run_search(config, options.out, resume=options.resume, factory=telling)
    except SearchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
