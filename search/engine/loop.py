"""Runs a searcher: asks it, evaluates in parallel, journals, and tells it.

    run(PPOSearcher(PolicySpace(), seed=0), {"main": EvaluatorConfig()}, task, "runs/first",
        evaluations=1000, pool=PoolConfig(workers=4))

The order of things decides what a crash can cost: a result is in the journal, on the disk, before
the searcher is told. So whoever dies, at most the evaluations in flight are made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policies import Policy
from policies.augmentations import encode_augmentation
from policies.errors import InputError
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.evaluation import Evaluation
from search.engine import checkpoint, prepared
from search.errors import JournalError, SearchInterrupted, WorkerError
from search.runs.journal import JOURNAL_NAME, Journal, Key, Record, record_key
from search.searchers.base import Candidate, Searcher

from .pool import Job, Outcome, PoolConfig, WorkerPool
from .progress import Progress, RunLog
from .worker import Factory

# How long a signal may go unnoticed, in seconds.
HEARTBEAT = 0.5


@dataclass(frozen=True)
class RunResult:
    """How a run stands when it ends well.

    finished: lines of the journal; ok + failed + duplicates. new: of them, made by this call.
    retried: attempts that failed and were made again. restarts: workers replaced.
    best: highest reward first, up to 5. seconds: wall-clock time of this call.
    policy: the exported policy (`run_search` only).
    """

    directory: Path
    finished: int
    ok: int
    failed: int
    duplicates: int
    new: int
    retried: int
    restarts: int
    best: tuple[tuple[Candidate, Evaluation], ...]
    seconds: float
    policy: Policy | None = None


def identity(evaluator: str, part: str, seed: int, policy: Any) -> bytes:
    """Equal for evaluations that would give the same result; `policy` as in the journal."""
    text = json.dumps([evaluator, part, seed, policy])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def run(
    searcher: Searcher,
    evaluator_configs: Mapping[str, EvaluatorConfig],
    task: Any,
    directory: Path | str,
    *,
    evaluations: int | None = None,
    pool: PoolConfig | None = None,
    progress: bool = True,
    resume: bool = False,
    factory: Factory | None = None,
) -> RunResult:
    """Run `searcher` until it is finished, or `evaluations` candidates are.

    searcher: new, as built for the start of the run, also when resuming.
    evaluator_configs: by the names that candidates ask for; the same `threads` in all.
    task: a ProxyTask; sent to each node once.
    directory: holds the journal; created if missing.
    resume: go on from the journal in `directory`. Without it a journal there is refused.
    factory: builds evaluators in the workers instead of `make_evaluator`.

    Raises InputError (a user's mistake), SearchInterrupted (SIGINT, SIGTERM), JournalError (disk
    full) or WorkerError (nothing can be evaluated); the journal is intact after each.
    """
    if evaluations is not None and (type(evaluations) is not int or evaluations < 1):
        raise InputError(
            "evaluations", "must be a whole number, at least 1", evaluations, "pass for example 100"
        )
    threads = {config.threads for config in evaluator_configs.values()}
    if len(threads) != 1:
        raise InputError(
            "evaluator_configs",
            "must all have the same number of threads",
            sorted(threads),
            "evaluate with differing threads in separate runs",
        )
    for name in evaluator_configs:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise InputError(
                "evaluator_configs",
                "names must be letters, digits, '-', '_' or '.'",
                name,
                "choose a name like 'main'",
            )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    log = RunLog(directory)
    with Journal(directory / JOURNAL_NAME, note=log.warning) as journal:
        if len(journal) and not resume:
            raise InputError(
                str(directory),
                "must not hold a run already",
                f"{len(journal)} evaluations",
                "choose another folder, or resume the run",
            )
        search = _Search(searcher, journal, log, evaluations, pool or PoolConfig(), progress)
        return search.run(evaluator_configs, task, threads.pop(), factory)


class _Signals:
    """Turns the first SIGINT or SIGTERM into a flag; a second one acts as ever.

    Only the main thread can do that; elsewhere it does nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        self.install()
        return self

    def install(self) -> None:
        """Take the signals over; again after Ray has started, which takes SIGTERM for itself."""
        if self.number is None and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup or a shell wants it
                    previous = signal.signal(number, self._note)
                    self._previous.setdefault(number, previous)

    def _note(self, number: int, frame: Any) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def __exit__(self, *_: object) -> None:
        self._restore()


class _Search:
    def __init__(
        self,
        searcher: Searcher,
        journal: Journal,
        log: RunLog,
        limit: int | None,
        config: PoolConfig,
        progress: bool,
    ) -> None:
        self.searcher = searcher
        self.journal = journal
        self.log = log
        self.limit = limit
        self.config = config
        self.show = progress
        self.directory = journal.path.parent
        self.counts: Counter[str] = Counter()
        self.asked = 0
        self.told = 0
        self.new = 0
        self.retried = 0
        self.batch = 0
        self.best: float | None = None
        self.in_flight = 0
        self.failures_in_a_row = 0
        self.first_error: tuple[str, str] | None = None
        self.retries: deque[Job] = deque()
        # The earliest key of every evaluation asked for; candidates waiting for an original.
        self.originals: dict[bytes, Key] = {}
        self.waiting: dict[Key, list[Candidate]] = {}

    # The loop --------------------------------------------------------------------------------

    def run(
        self,
        configs: Mapping[str, EvaluatorConfig],
        task: Any,
        threads: int,
        factory: Factory | None,
    ) -> RunResult:
        started = time.monotonic()
        restarts = 0
        self._recall()
        self.checkpointer = checkpoint.Checkpointer(
            self.directory / checkpoint.CHECKPOINT_NAME, self.searcher, self.journal, self.told
        )
        with _Signals() as self.signals:
            # What the journal holds is replayed before any worker is started: a finished run
            # needs none.
            first = self._next_job()
            if first is not None:
                self.retries.append(first)
                try:
                    restarts = self._evaluate(configs, task, threads, factory)
                except SystemExit:  # how Ray, while it starts, answers to SIGTERM
                    self.signals.number = signal.SIGTERM
            if self.signals.number is not None:
                self._save_checkpoint()
                raise SearchInterrupted(self.signals.number, self.directory, len(self.journal))
        self._save_checkpoint()
        return RunResult(
            self.directory,
            len(self.journal),
            self.counts["ok"],
            self.counts["failed"],
            self.counts["duplicate"],
            self.new,
            self.retried,
            restarts,
            tuple(self.searcher.best(5)),
            time.monotonic() - started,
        )

    def _evaluate(
        self,
        configs: Mapping[str, EvaluatorConfig],
        task: Any,
        threads: int,
        factory: Factory | None,
    ) -> int:
        """Evaluate until nothing is left to do or a signal came; returns the workers replaced."""
        folder = self.directory / prepared.FOLDER
        with WorkerPool(
            self.config,
            configs,
            task,
            threads=threads,
            factory=factory,
            prepared=prepared.load(folder, configs),
        ) as pool:
            self.signals.install()
            prepared.save(folder, pool.prepare(lambda: self.signals.number is not None))
            self._loop(pool)
            return pool.restarts

    def _loop(self, pool: WorkerPool) -> None:
        with Progress(self.limit, self.told, self.show) as progress:
            while self.signals.number is None:
                while pool.capacity() > 0 and self.signals.number is None:
                    job = self.retries.popleft() if self.retries else self._next_job()
                    if job is None:
                        break
                    pool.submit(job)
                    self.in_flight += 1
                if not self.in_flight and not self.retries and pool.capacity() > 0:
                    break
                before = self.told
                self._receive(pool.wait(HEARTBEAT))
                self._tick()
                progress.update(self.told, self.told - before, self.best, self.counts["failed"])
            else:
                # What has already arrived need not be made again.
                self._receive(pool.wait(0))

    def _tick(self) -> None:
        try:
            self.checkpointer.tick(self.batch)
        except OSError as error:
            self.log.warning(f"cannot write {self.checkpointer.path}: {error.strerror}")

    def _save_checkpoint(self) -> None:
        try:
            self.checkpointer.save(self.batch)
        except OSError as error:
            self.log.warning(f"cannot write {self.checkpointer.path}: {error.strerror}")

    # Resuming --------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Read the journal, and load the checkpoint if there is a usable one."""
        if not len(self.journal):
            return
        for record in self.journal.records():
            self._count(record)
            if record["status"] != "duplicate":
                key = record_key(record)
                mark = identity(*(record[f] for f in ("evaluator", "part", "seed", "policy")))
                self.originals[mark] = min(key, self.originals.get(mark, key))
        path = self.directory / checkpoint.CHECKPOINT_NAME
        fresh = self.searcher.state_dict()
        try:
            self.told = self.asked = checkpoint.load(path, self.searcher, self.journal)
        except checkpoint.UnusableCheckpoint as reason:
            self.searcher.load_state_dict(fresh)
            self.log.warning(
                f"{path} is not used ({reason}); all {len(self.journal)} lines of the journal are "
                "replayed instead"
            )
        else:
            self.log.info(f"resuming after {len(self.journal)} evaluations")

    def _replay(self, candidate: Candidate) -> None:
        record = self.journal.get(candidate.key)
        expected = {
            "evaluator": candidate.evaluator,
            "part": candidate.part,
            "seed": candidate.seed,
            "policy": encode_augmentation(candidate.augmentation),
        }
        for name, value in expected.items():
            if record[name] != value:
                raise JournalError(
                    f"{self.journal.path}: batch {candidate.batch}, slot {candidate.slot} was "
                    f"evaluated with {name} {record[name]!r:.100}, but this search asks for "
                    f"{value!r:.100}; it was made by another configuration or version"
                )
        self._tell(candidate, record)

    # Asking ----------------------------------------------------------------------------------

    def _next_job(self) -> Job | None:
        """The next evaluation to be made; replays and duplicates are settled on the way."""
        while (self.limit is None or self.asked < self.limit) and self.signals.number is None:
            candidate = self.searcher.ask()
            if candidate is None:
                self._check_progress_is_possible()
                return None
            self.asked += 1
            if candidate.key in self.journal:
                self._replay(candidate)
                continue
            mark = identity(
                candidate.evaluator,
                candidate.part,
                candidate.seed,
                encode_augmentation(candidate.augmentation),
            )
            original = self.originals.setdefault(mark, candidate.key)
            if original >= candidate.key:
                self.originals[mark] = candidate.key
                return Job(candidate)
            if original in self.journal:
                self._keep([(candidate, self._duplicate(candidate, self.journal.get(original)))])
            else:
                self.waiting.setdefault(original, []).append(candidate)
        return None

    def _check_progress_is_possible(self) -> None:
        if not (self.searcher.finished or self.in_flight or self.retries or self.waiting):
            raise RuntimeError(
                f"{type(self.searcher).__name__} waits for results, but all it asked for are told"
            )

    # Receiving -------------------------------------------------------------------------------

    def _receive(self, outcomes: list[Outcome]) -> None:
        finished: list[tuple[Candidate, Record]] = []
        for outcome in outcomes:
            self.in_flight -= 1
            record = self._settle(outcome)
            if record is None:
                continue
            candidate = outcome.job.candidate
            finished.append((candidate, record))
            finished.extend(
                (twin, self._duplicate(twin, record))
                for twin in self.waiting.pop(candidate.key, ())
            )
        if finished:
            self._keep(finished)
        if self.failures_in_a_row >= self.config.max_consecutive_failures:
            error, detail = self.first_error
            self.log.warning(f"the first failure was: {error}", detail)
            raise WorkerError(
                f"{self.failures_in_a_row} candidates in a row failed; the first with: {error} "
                f"(traceback in {self.log.path}). Once that is mended, run the same command with "
                "--resume"
            )

    def _settle(self, outcome: Outcome) -> Record | None:
        """The journal line of an attempt, or None when it is made again."""
        job, candidate = outcome.job, outcome.job.candidate
        error, evaluation = outcome.error, outcome.evaluation
        if evaluation is not None:
            error = _not_finite(evaluation)
        if error is None:
            self.failures_in_a_row = 0
            self.first_error = None
            return self._record(candidate, outcome, "ok", evaluation=evaluation)
        attempts = self.config.retries + 1
        self.log.warning(
            f"batch {candidate.batch}, slot {candidate.slot}, attempt {job.attempt} of {attempts} "
            f"on {outcome.worker}: {error}",
            outcome.detail,
        )
        self.first_error = self.first_error or (error, outcome.detail)
        if job.attempt < attempts:
            self.retried += 1
            self.retries.append(replace(job, attempt=job.attempt + 1))
            return None
        self.failures_in_a_row += 1
        return self._record(candidate, outcome, "failed", error=error)

    def _record(self, candidate: Candidate, outcome: Outcome, status: str, **more: Any) -> Record:
        return {
            **_place(candidate),
            "status": status,
            "attempts": outcome.job.attempt,
            "evaluation": None,
            "error": None,
            "duplicate_of": None,
            "started": round(outcome.started, 3),
            "finished": round(outcome.finished, 3),
            "worker": outcome.worker,
            **more,
        }

    def _duplicate(self, candidate: Candidate, original: Record) -> Record:
        return {
            **_place(candidate),
            "status": "duplicate",
            "attempts": 0,
            "evaluation": original["evaluation"],
            "error": original["error"],
            "duplicate_of": list(record_key(original)),
            "started": original["started"],
            "finished": original["finished"],
            "worker": None,
        }

    def _keep(self, finished: list[tuple[Candidate, Record]]) -> None:
        """Journal first, then tell."""
        self.journal.append(*(record for _, record in finished))
        for candidate, record in finished:
            self._count(record)
            self._tell(candidate, record)
        self.new += len(finished)

    def _tell(self, candidate: Candidate, record: Record) -> None:
        data = record["evaluation"]
        try:
            evaluation = None if data is None else Evaluation.from_json(data)
        except TypeError as error:
            raise JournalError(
                f"{self.journal.path}: the result of batch {candidate.batch}, slot "
                f"{candidate.slot} is of another version ({error})"
            ) from error
        self.searcher.tell(candidate, evaluation)
        self.told += 1
        self.batch = max(self.batch, candidate.batch)

    def _count(self, record: Record) -> None:
        self.counts[record["status"]] += 1
        evaluation = record["evaluation"]
        reward = None if evaluation is None else evaluation.get("reward")
        if reward is not None and (self.best is None or reward > self.best):
            self.best = reward


def _place(candidate: Candidate) -> Record:
    return {
        "batch": candidate.batch,
        "slot": candidate.slot,
        "label": candidate.label,
        "evaluator": candidate.evaluator,
        "part": candidate.part,
        "seed": candidate.seed,
        "policy": encode_augmentation(candidate.augmentation),
    }


def _not_finite(value: Any, where: str = "evaluation") -> str | None:
    """Names the first number that is not finite (or a missing reward); None when all are."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}"
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for name, item in items:
        found = _not_finite(item, f"{where}.{name}")
        if found:
            return found
    return None
