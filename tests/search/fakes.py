"""Stand-ins that make the engine's logic testable in milliseconds, without Ray."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from proxy_tasks.evaluators.base import Continued
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.evaluators.registry import Evaluator
from search import PolicySpace, RandomSearcher
from search.engine.jobs import Job, Outcome, Slot
from search.engine.pool import WorkerPool
from search.engine.resources import PoolConfig
from search.engine.worker import Worker
from search.searchers.batches import BatchSearcher
from search.trial import Candidate, Trial
from tests.search.unreliable import Unreliable

SYNTHETIC = dict.fromkeys(("main", "other"), EvaluatorConfig(kind="synthetic"))


def trial(batch: int, slot: int, **changes: Any) -> Trial:
    """A trial as the engine makes them, with planted numbers."""
    made = Trial(
        batch,
        slot,
        label="",
        scorer="main",
        part="validation",
        seed=7,
        augmentation=[[["Rotate", 0.5, 3]]],
        status="ok",
        attempts=1,
        evaluation=evaluation(0.5),
        error=None,
        duplicate_of=None,
        started=1.0,
        finished=2.0,
        worker="host:1",
    )
    return replace(made, **changes)


def line(batch: int, slot: int, **changes: Any) -> dict[str, Any]:
    """A journal line; `changes` may make it an invalid one."""
    return {**trial(batch, slot).to_json(), **changes}


def evaluation(reward: float) -> Evaluation:
    return Evaluation(reward, 0.01, {"accuracy": reward}, 0.1, 10)


def reward_of(job: Job) -> float:
    """A reward that follows from the candidate alone, as an evaluator's does."""
    rng = random.Random(repr((job.candidate.augmentation, job.candidate.seed)))
    return rng.random()


class FakePool:
    """Evaluates in the test's process, and hands results back in an order of its own.

    order: seed of that order. answer(job) -> Outcome or None for an ordinary result.
    killed_after: raise Killed when so many results have been handed back.
    """

    def __init__(
        self,
        order: int = 0,
        answer: Callable[[Job], Outcome | None] = lambda job: None,
        killed_after: int | None = None,
    ) -> None:
        self._order = random.Random(order)
        self._answer = answer
        self._killed_after = killed_after
        self.submitted: list[Job] = []
        self.restarts = 0

    def __call__(self, config: PoolConfig, *_: Any, **__: Any) -> FakePool:
        """Stands in for the class: the engine constructs its pool through this."""
        self._room = config.workers
        self._jobs: list[Job] = []
        return self

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prepare(self, stopped: Callable[[], bool]) -> dict:
        return {}

    def capacity(self) -> int:
        return self._room - len(self._jobs)

    def submit(self, job: Job) -> None:
        self.submitted.append(job)
        self._jobs.append(job)

    def wait(self, timeout: float) -> list[Outcome]:
        taken = self._order.randint(1, max(1, len(self._jobs)))
        self._order.shuffle(self._jobs)
        done, self._jobs = self._jobs[:taken], self._jobs[taken:]
        if self._killed_after is not None:
            self._killed_after -= len(done)
            if self._killed_after < 0:
                raise Killed
        return [self._answer(job) or good(job) for job in done]


class InProcessPool(FakePool):
    """Evaluates as a worker does, in the test's process: all of a run but Ray."""

    def __call__(self, config: PoolConfig, *what: Any, **how: Any) -> InProcessPool:
        self._worker, self._answer = Worker(), self._evaluate
        self._ready = self._worker.setup(
            *what, how["prepared"], how["threads"], how["factory"], config.children_per_gpu
        )
        assert "error" not in self._ready, self._ready["detail"]
        super().__call__(config)
        return self

    def prepare(self, stopped: Callable[[], bool]) -> dict:
        answer = self._worker.prepare(self._ready["unprepared"])
        assert "error" not in answer, answer["detail"]
        return answer["prepared"]

    def _evaluate(self, job: Job) -> Outcome:
        candidate = job.candidate
        asked = candidate.augmentation, candidate.seed, job.artifact
        (answer,) = self._worker.evaluate(candidate.scorer, candidate.part, [asked])
        return Outcome.of(job, answer, self._worker.where())


class Killed(BaseException):
    """Stands for the end of the process; nobody catches it."""


def good(job: Job) -> Outcome:
    return Outcome(job, "ok", evaluation(reward_of(job)).to_json(), None, "", 1.0, 2.0, "host:1")


def bad(job: Job, kind: str = "error", error: str = "ValueError: no") -> Outcome:
    return Outcome(job, kind, None, error, "Traceback: all of it", 1.0, 2.0, "host:1")


def random_searcher(seed: int = 0, **options: Any) -> RandomSearcher:
    return RandomSearcher(PolicySpace(), seed, **{"batch_size": 6, **options})


class LearningSearcher(BatchSearcher):
    """Draws from a generator that every update stirs: any change in what is told, or in the order
    of updates, changes all later candidates."""

    def __init__(self, seed: int = 0, **options: Any) -> None:
        super().__init__(PolicySpace(), seed, **{"batch_size": 5, **options})
        self._stir = 0.0

    def _draw(self, batch: int) -> tuple[list, dict]:
        rng = random.Random(f"{self.seed} {batch} {self._stir!r}")
        sizes = self.space.decisions
        return [tuple(rng.randrange(n) for n in sizes) for _ in range(self.batch_size)], {}

    def _update(self, batch: int, decisions: Any, rewards: Any, notes: Any) -> None:
        for slot, reward in enumerate(rewards):
            self._stir = 0.9 * self._stir + (slot + 1) * (-1.0 if reward is None else reward)


class TwinSearcher(BatchSearcher):
    """Every policy appears twice in a batch and once more in the next, all with one seed."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(PolicySpace(), seed, batch_size=4, lag=None)

    def _evaluation_seed(self, batch: int, slot: int) -> int:
        return 1

    def _draw(self, batch: int) -> tuple[list, dict]:
        sizes = self.space.decisions
        rng, previous = random.Random(f"{batch}"), random.Random(f"{batch - 1}")
        new, old = (tuple(r.randrange(n) for n in sizes) for r in (rng, previous))
        return [new, old, new, old], {}


class ManyFailures(Evaluator):
    """Always raises."""

    def evaluate(self, augmentation: Any, seed: int, part: str = "validation") -> Evaluation:
        raise ValueError(f"no image at seed {seed}")


class BySeed(Evaluator):
    """Rewards by seed."""

    def evaluate(self, augmentation: Any, seed: int, part: str = "validation") -> Evaluation:
        return evaluation((seed % 1000) / 1000)


class Prepared(Evaluator):
    """Needs shared work, and rewards by its result."""

    reward: float | None = None

    def __init__(self, config: EvaluatorConfig, task: Any) -> None:
        self.trained = Path(config.options["trained"])

    @property
    def needs_preparation(self) -> bool:
        return self.reward is None

    def prepare(self) -> bytes:
        with open(self.trained, "a") as stream:
            stream.write("trained\n")
        self.load(b"0.25")
        return b"0.25"

    def load(self, prepared: bytes) -> None:
        self.reward = float(prepared)

    def evaluate(self, augmentation: Any, seed: int, part: str = "validation") -> Evaluation:
        meet(self.trained.parent / "met", 2)
        return evaluation(self.reward)


class Growing(Continued):
    """Leaves what it went on from, and its own seed."""

    def go_on(
        self, augmentation: Any, seed: int, part: str, artifact: bytes | None
    ) -> tuple[Evaluation, bytes]:
        return evaluation(0.5), (artifact or b"start") + b", %d" % seed


def meet(place: Path, people: int, patience: float = 60.0) -> None:
    """Wait until so many processes are here, so that each has something to do."""
    with open(place, "a") as stream:
        stream.write(f"{os.getpid()}\n")
    end = time.monotonic() + patience
    while len(set(place.read_text().split())) < people and time.monotonic() < end:
        time.sleep(0.05)


def make_unreliable(config: EvaluatorConfig, task: Any) -> Evaluator:
    return Unreliable(BySeed(), config.options["plan"], config.options["place"])


def make_prepared(config: EvaluatorConfig, task: Any) -> Evaluator:
    return Prepared(config, task)


def make_growing(config: EvaluatorConfig, task: Any) -> Evaluator:
    return Growing()


def make_failing(config: EvaluatorConfig, task: Any) -> Evaluator:
    return ManyFailures()


def make_nothing(config: EvaluatorConfig, task: Any) -> Evaluator:
    raise RuntimeError("no evaluator today")


def grid(*sides: int) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, sides)))


def job(seed: int) -> Job:
    return Job(Candidate(0, seed, None, seed))


class RayError(Exception):
    """Stands for what Ray raises when a worker has died."""


class FakeRay:
    """Stands for the ray module: `answers` holds what is done, by reference."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self) -> None:
        self.answers: dict[Any, Any] = {}

    def kill(self, actor: Any, no_restart: bool) -> None:
        pass

    def wait(self, refs: list, num_returns: int = 1, timeout: float = 0.0) -> tuple[list, list]:
        return [r for r in refs if r in self.answers], [r for r in refs if r not in self.answers]

    def get(self, ref: Any) -> Any:
        answer = self.answers[ref]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 0.5}


def bare_pool(config: PoolConfig) -> WorkerPool:
    """A pool with idle workers that exist only in the driver's books."""
    pool = WorkerPool(config, {}, None)
    pool._ray = FakeRay()
    pool._spawn = lambda: None
    for _ in range(config.workers):
        idle_slot(pool)
    return pool


def idle_slot(pool: WorkerPool) -> Slot:
    slot = Slot("actor", None, 0.0, "host:1")
    pool._slots.append(slot)
    return slot
