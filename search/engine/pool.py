"""A pool of long-lived Ray actors that loses no evaluation, whatever happens to a worker.

Plain actors and ray.wait: at 15,000 short evaluations two to three times as fast as Ray Tune, and
no worker is given up at a batch boundary.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import search
from proxy_tasks.evaluators.config import EvaluatorConfig
from search.engine import cluster, remote
from search.errors import WorkerError

from .jobs import Job, Outcome, Slot
from .resources import PoolConfig
from .worker import Factory

log = logging.getLogger("search")

# A second evaluation waits in the worker's own queue when evaluations are shorter than this, in
# seconds: the round trip through the driver then no longer leaves the worker idle.
SHORT = 1.0
# Say what is awaited whenever it takes this many seconds: a place in the cluster, the set-up of
# workers, one-off work. None of it has a limit, since nobody knows how long it may take.
PATIENCE = 60.0


def folders() -> tuple[str, list[str]]:
    """Where our packages are, and the user's folders, that Ray would have workers search first."""
    theirs = [os.path.abspath(os.curdir)]
    # The script of a notebook is its kernel, which lies where everything is that is installed.
    if hasattr(sys.modules["__main__"], "__file__"):
        theirs.append(os.path.dirname(os.path.realpath(sys.argv[0])))
    return str(Path(search.__file__).parent.parent), theirs


class WorkerPool:
    """Use as a context manager: entering starts Ray and the workers, leaving ends them.

    configs: evaluators by name. task: given to every worker, sent once per node (numpy arrays are
    shared between its workers, read-only). threads: of one evaluation. prepared: results of one-off
    work done before (`prepare`). warn: is told in a line what the run survives.
    """

    def __init__(
        self,
        config: PoolConfig,
        configs: Mapping[str, EvaluatorConfig],
        task: Any,
        *,
        threads: int = 1,
        prepared: Mapping[str, bytes] | None = None,
        factory: Factory | None = None,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        self.config = config
        self.restarts = 0
        self._warn = warn
        self._configs = dict(configs)
        self._task = task
        self._threads = threads
        self._prepared = dict(prepared or {})
        self._factory = factory
        self._slots: list[Slot] = []
        self._refs: dict[Any, Slot] = {}
        self._backlog: deque[Job] = deque()
        self._running = 0
        self._setup_crashes = 0
        self._mean_seconds: float | None = None
        self._started_ray = False
        self._noticed = time.monotonic()

    # Life ------------------------------------------------------------------------------------

    def __enter__(self) -> WorkerPool:
        self._started_ray = cluster.connect(self.config)
        import ray

        self._ray = ray
        try:
            self._task_ref = ray.put(self._task)
            self._prepared_ref = ray.put(self._prepared)
            self._task = None
            ray.cloudpickle.register_pickle_by_value(remote)
            self._actor_class = ray.remote(remote.WorkerActor).options(
                num_cpus=self.config.cpus,
                num_gpus=self.config.gpus,
                max_restarts=0,
            )
            for _ in range(self.config.workers):
                self._spawn()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for slot in self._slots:
            self._ray.kill(slot.actor, no_restart=True)
        self._slots.clear()
        self._refs.clear()
        if self._started_ray:
            cluster.disconnect()

    def _spawn(self) -> None:
        names = ("OMP", "MKL", "OPENBLAS", "NUMBA")
        threads = {f"{name}_NUM_THREADS": str(self._threads) for name in names}
        actor: Any = self._actor_class.remote(threads, *folders())  # its methods are made by Ray
        placed = actor.where.remote()
        ready = actor.setup.remote(
            self._configs, self._task_ref, self._prepared_ref, self._threads, self._factory,
            self.config.children_per_gpu,
        )  # fmt: skip
        slot = Slot(actor, ready, time.monotonic(), placed=placed)
        self._slots.append(slot)
        self._refs[ready] = slot

    def _replace(self, slot: Slot) -> None:
        """End a worker and start another; its waiting evaluations go back to the front."""
        self._ray.kill(slot.actor, no_restart=True)
        self._slots.remove(slot)
        self._refs = {ref: other for ref, other in self._refs.items() if other is not slot}
        self._running -= len(slot.queue)
        self._backlog.extendleft(job for _, job in reversed(slot.queue))
        slot.queue.clear()
        self.restarts += 1
        self._spawn()

    # One-off work ----------------------------------------------------------------------------

    def prepare(self, stopped: Callable[[], bool]) -> dict[str, bytes]:
        """Have one worker do the one-off work of all evaluators and hand it to the others.

        Returns the results by evaluator name: empty when there was nothing to do or `stopped()`.
        Raises WorkerError when it fails after all retries.
        """
        answer: dict[str, Any] = {}
        for attempt in range(1, self.config.retries + 2):
            while not stopped() and all(slot.ready is not None for slot in self._slots):
                self.wait(0.5)
            if stopped():
                return {}
            chosen = next(slot for slot in self._slots if slot.ready is None)
            if not chosen.unprepared:
                return {}
            given = self._prepare_on(chosen, stopped)
            if given is None:
                return {}
            answer = given
            if "prepared" in answer:
                self._share(answer["prepared"], chosen)
                return answer["prepared"]
            if answer.get("mistake") is not None:
                raise answer["mistake"]
            self._warn(
                f"preparing the evaluation, attempt {attempt} of {self.config.retries + 1}: "
                f"{answer['error']}"
            )
        raise WorkerError(f"the evaluation cannot be prepared: {answer['error']}", answer["detail"])

    def _prepare_on(self, slot: Slot, stopped: Callable[[], bool]) -> dict[str, Any] | None:
        ref = slot.actor.prepare.remote(list(slot.unprepared))
        started = self._noticed = time.monotonic()
        while not stopped():
            self._check_ray()
            now = time.monotonic()
            if now - self._noticed >= PATIENCE:
                self._noticed = now
                self._warn(
                    f"worker {slot.worker} has been at the one-off work that all share for "
                    f"{int(now - started)} s"
                )
            ready, _ = self._ray.wait([ref], timeout=0.5)
            if ready:
                try:
                    return self._ray.get(ref)
                except self._ray.exceptions.RayError as error:
                    self._replace(slot)
                    return {"error": "the worker died", "detail": str(error)}
        return None

    def _share(self, prepared: dict[str, bytes], source: Slot) -> None:
        self._prepared.update(prepared)
        self._prepared_ref = self._ray.put(self._prepared)
        source.unprepared = ()
        for slot in self._slots:
            if slot is not source:
                self._refs.pop(slot.ready, None)
                slot.ready = slot.actor.receive.remote(self._prepared_ref)
                self._refs[slot.ready] = slot

    # Evaluations -----------------------------------------------------------------------------

    @property
    def _depth(self) -> int:
        return 2 if self._mean_seconds is not None and self._mean_seconds < SHORT else 1

    def capacity(self) -> int:
        """How many more evaluations the workers can take now."""
        ready = sum(slot.ready is None for slot in self._slots)
        room = ready * self._depth * self.config.children_per_gpu
        return max(0, room - self._running - len(self._backlog))

    def submit(self, job: Job) -> None:
        """It starts with the next `wait`, so that workers can be given several at once."""
        self._backlog.append(job)

    def _dispatch(self) -> None:
        while self._backlog:
            room = 1 if self._backlog[0].alone else self._depth
            slots = [slot for slot in self._open_slots() if slot.calls < room]
            if not slots:
                return
            slot = min(slots, key=lambda s: s.calls)
            jobs = self._take(math.ceil(len(self._backlog) / len(slots)))
            asked = [(j.candidate.augmentation, j.candidate.seed, j.artifact) for j in jobs]
            first = jobs[0].candidate
            ref = slot.actor.evaluate.remote(first.scorer, first.part, asked)
            if not slot.queue:
                slot.head_since = time.monotonic()
            slot.queue.extend((ref, job) for job in jobs)
            self._refs[ref] = slot
            self._running += len(jobs)

    def _take(self, share: int) -> list[Job]:
        """The next evaluation, and of those behind it what can be made at the same time."""
        taken = [self._backlog.popleft()]
        first = taken[0]
        most = 1 if first.alone else min(share, self.config.children_per_gpu)
        while self._backlog and len(taken) < most:
            other, wanted = self._backlog[0].candidate, first.candidate
            if self._backlog[0].alone or (other.scorer, other.part) != (wanted.scorer, wanted.part):
                break
            taken.append(self._backlog.popleft())
        return taken

    def _open_slots(self) -> list[Slot]:
        return [
            slot
            for slot in self._slots
            if slot.ready is None and not (slot.queue and slot.queue[0][1].alone)
        ]

    def wait(self, timeout: float) -> list[Outcome]:
        """What ended, as soon as something did; empty after `timeout` seconds."""
        self._check_ray()
        self._dispatch()
        now = time.monotonic()
        limit = self.config.time_limit
        if limit is not None:
            ends = [slot.head_since + limit - now for slot in self._slots if slot.queue]
            timeout = max(0.0, min([timeout, *ends]))
        refs = list(self._refs)
        if not refs:
            time.sleep(timeout)
            return []
        done, _ = self._ray.wait(refs, num_returns=1, timeout=timeout)
        if done and len(refs) > 1:
            done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        outcomes: list[Outcome] = []
        arrived = set(done)
        for slot in {id(self._refs[ref]): self._refs[ref] for ref in done}.values():
            if slot.ready is not None and slot.ready in arrived:
                self._set_up(slot)
            else:
                self._collect(slot, arrived, outcomes)
        self._expire(outcomes)
        self._say_what_is_awaited()
        return outcomes

    def _check_ray(self) -> None:
        """Ray itself would end this process without a word, seconds after its node has died."""
        if (gone := cluster.ended()) is not None:
            raise WorkerError(
                f"{gone}, which holds Ray's workers on this machine, has ended unexpectedly (out "
                "of memory, or killed)"
            )

    def _set_up(self, slot: Slot) -> None:
        try:
            answer = self._ray.get(self._forget(slot.ready))
        except self._ray.exceptions.RayError as error:
            self._setup_crashes += 1
            self._warn(f"a worker died while starting: {cluster.first_line(error)}")
            if self._setup_crashes > 3 * self.config.workers:
                raise WorkerError(
                    f"workers die while starting: {cluster.first_line(error)}", str(error)
                ) from error
            self._replace(slot)
            return
        if "error" in answer:
            if answer["mistake"] is not None:
                raise answer["mistake"]
            raise WorkerError(
                f"a worker cannot build the evaluation: {answer['error']}", answer["detail"]
            )
        self._setup_crashes = 0
        slot.ready = None
        slot.worker = answer["worker"]
        slot.unprepared = tuple(answer["unprepared"])

    def _forget(self, ref: Any) -> Any:
        del self._refs[ref]
        return ref

    def _collect(self, slot: Slot, done: set, outcomes: list[Outcome]) -> None:
        """Results of one worker, in the order it made them."""
        while slot.queue and slot.queue[0][0] in done:
            ref = slot.queue[0][0]
            try:
                answers = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                self._crashed(slot, f"{type(error).__name__}: {error}", outcomes)
                return
            jobs = [slot.queue.popleft()[1] for _ in answers]
            self._running -= len(jobs)
            self._forget(ref)
            slot.head_since = time.monotonic()
            self._observe(answers[-1]["finished"] - answers[0]["started"])
            failed = next((answer for answer in answers if "error" in answer), None)
            if len(jobs) > 1 and failed is not None and failed["mistake"] is None:
                self._make_alone(jobs, f"of {len(jobs)} evaluations at once: {failed['error']}")
                self._backlog.extendleft(reversed(jobs))
                continue
            outcomes.extend(
                Outcome.of(job, answer, slot.worker)
                for job, answer in zip(jobs, answers, strict=True)
            )

    def _crashed(self, slot: Slot, detail: str, outcomes: list[Outcome]) -> None:
        """A worker died. Of two evaluations it had, either may be to blame, as the answer to the
        first may have died with it: both are made again, each alone, so that it will be clear."""
        if len(slot.queue) == 1:
            outcomes.append(self._lost(slot, "crash", "the worker died", detail))
            return
        self._make_alone([job for _, job in slot.queue], f"worker {slot.worker} died")
        self._replace(slot)

    def _make_alone(self, jobs: list[Job], what: str) -> None:
        """It is not clear which of them is to blame."""
        self._warn(f"{what}; its evaluations are made again, one at a time")
        for job in jobs:
            job.alone = True

    def _lost(self, slot: Slot, kind: str, error: str, detail: str) -> Outcome:
        """Give up a worker; its first job is to blame, the others are untouched."""
        _, job = slot.queue.popleft()
        self._running -= 1
        now = time.time()
        started = now - (time.monotonic() - slot.head_since)
        self._replace(slot)
        return Outcome(job, kind, None, error, detail, started, now, slot.worker)

    def _observe(self, seconds: float) -> None:
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else 0.9 * mean + 0.1 * seconds

    def _expire(self, outcomes: list[Outcome]) -> None:
        limit = self.config.time_limit
        now = time.monotonic()
        for slot in list(self._slots):
            if limit is None or not slot.queue or now - slot.head_since < limit:
                continue
            said = f"not done after {limit:g} seconds (time limit)"
            together = [job for ref, job in slot.queue if ref == slot.queue[0][0]]
            if len(together) > 1:
                self._make_alone(together, f"of {len(together)} evaluations at once: {said}")
                self._replace(slot)
            else:
                detail = f"worker {slot.worker} was killed"
                outcomes.append(self._lost(slot, "timeout", said, detail))

    def _say_what_is_awaited(self) -> None:
        waiting = [slot for slot in self._slots if slot.ready is not None]
        now = time.monotonic()
        since = min((slot.spawned for slot in waiting), default=now)
        if now - max(since, self._noticed) < PATIENCE:
            return
        self._noticed = now
        placed, homeless = self._ray.wait(
            [slot.placed for slot in waiting], num_returns=len(waiting), timeout=0
        )
        if homeless:
            self._warn(
                f"{len(homeless)} of {len(self._slots)} workers have had no room for up to "
                f"{int(now - since)} s: each asks for {self.config.cpus:g} CPU and "
                f"{self.config.gpus:g} GPU, and Ray has left: {self._ray.available_resources()}"
            )
        if placed:
            self._warn(
                f"{len(placed)} of {len(self._slots)} workers have been building the evaluation "
                f"for up to {int(now - since)} s"
            )
