"""Runs a searcher: asks it, evaluates in parallel, journals, and tells it.

    run(PPOSearcher(PolicySpace(), seed=0), {"main": EvaluatorConfig()}, task, "runs/first",
        evaluations=1000, pool=PoolConfig(workers=4))

The order of things decides what a crash can cost: a result is in the journal, on the disk, before
the searcher is told. So whoever dies, at most the evaluations in flight are made again.
"""

from __future__ import annotations

import math
import re
import signal
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policies import Policy
from policies.errors import InputError, check_integer
from proxy_tasks.evaluators.config import EvaluatorConfig
from search.errors import JournalError, SearchInterrupted, WorkerError, resume_command
from search.runs.again import forget_failed
from search.runs.blobs import Blobs, digest
from search.runs.journal import Journal
from search.searchers.base import Searcher
from search.trial import (
    CHEAP,
    JOURNAL_NAME,
    Candidate,
    Key,
    Trial,
    best_trials,
    usable_reward,
)

from .budget import Budget
from .failures import Failures
from .jobs import Job, Outcome
from .pool import WorkerPool
from .progress import Progress, RunLog
from .records import FIELDS, asked_fields, identity, made_trial
from .resources import PoolConfig
from .signals import Signals
from .worker import Factory

# How long a signal may go unnoticed, in seconds.
HEARTBEAT = 0.5
# Of a failed evaluation's error, so many characters are kept in the journal.
MAX_ERROR = 2000


@dataclass(frozen=True)
class RunResult:
    """How a run stands when it ends well.

    finished: lines of the journal; ok + failed + duplicates. new: of them, made by this call.
    retried: attempts that failed and were made again. restarts: workers replaced.
    best: by the dearest evaluator, highest reward first, up to 5.
    seconds: wall-clock time of this call.
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
    best: tuple[Trial, ...]
    seconds: float
    policy: Policy | None = None


def is_name(text: str) -> bool:
    """Whether an evaluator can be called so: journals and files of weights are named after it."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text) is not None


def run(
    searcher: Searcher,
    evaluator_configs: Mapping[str, EvaluatorConfig],
    task: Any,
    directory: Path | str,
    *,
    evaluations: int | None = None,
    budget: Budget | None = None,
    pool: PoolConfig | None = None,
    progress: bool = True,
    resume: bool = False,
    retry_failed: bool = False,
    factory: Factory | None = None,
) -> RunResult:
    """Run `searcher` until it is finished, or `evaluations` candidates are, or `budget` is spent.

    searcher: new, as built for the start of the run, also when resuming.
    evaluator_configs: by the names that candidates ask for; the same `threads` in all.
    task: a ProxyTask; sent to each node once.
    evaluations, budget: at most one of them.
    directory: holds the journal; created if missing.
    resume: go on from the journal in `directory`. Without it a journal there is refused.
    retry_failed: make evaluations again that failed, and with a searcher that learns all those
        that may have depended on them: they leave the journal first.
    factory: builds evaluators in the workers instead of `make_evaluator`.

    Raises InputError (a user's mistake), SearchInterrupted (SIGINT, SIGTERM), JournalError (disk
    full) or WorkerError (nothing can be evaluated); the journal is intact after each.
    """
    if evaluations is not None:
        check_integer("evaluations", evaluations, 1)
    threads = {config.threads for config in evaluator_configs.values()}
    if len(threads) != 1:
        raise InputError(
            "evaluator_configs",
            "must all have the same number of threads",
            sorted(threads),
            "evaluate with differing threads in separate runs",
        )
    for name in evaluator_configs:
        if not is_name(name):
            raise InputError(
                "evaluator_configs",
                "names must be up to 64 letters, digits, '-', '_' or '.'",
                name,
                "choose a name like 'main'",
            )
    pool = pool or PoolConfig()
    most = searcher.most_open
    if most is not None and pool.children_per_gpu > most:
        raise InputError(
            "children_per_gpu",
            f"must be at most the {most} candidates that the searcher asks for before it is told",
            pool.children_per_gpu,
            "pass less, or larger batches: --searcher-options '{\"batch_size\": N}'",
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
        if retry_failed:
            count = forget_failed(journal, searcher.lag, Blobs(directory, log.warning))
            log.info(f"{count} evaluations are made again: those that failed, and what followed")
        limit = Budget(evaluations) if budget is None else budget
        search = _Search(searcher, journal, log, limit, pool, progress)
        return search.run(evaluator_configs, task, threads.pop(), factory)


class _Search:
    def __init__(
        self,
        searcher: Searcher,
        journal: Journal,
        log: RunLog,
        budget: Budget,
        config: PoolConfig,
        progress: bool,
    ) -> None:
        self.searcher = searcher
        self.journal = journal
        self.log = log
        self.budget = budget
        self.scorers: tuple[str, ...] = ()
        self.asked = self.told = budget.spent
        self.config = config
        self.show = progress
        self.directory = journal.path.parent
        self.blobs = Blobs(self.directory, log.warning)
        self.counts: Counter[str] = Counter()
        self.first_failed = math.inf  # batch
        self.new = 0
        self.retried = 0
        self.best: float | None = None
        self.in_flight = 0
        self.spent_up = False
        self.failures = Failures(log, config)
        self.retries: deque[Job] = deque()
        # The key of every evaluation that was asked for first; candidates waiting for an original.
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
        self.scorers = tuple(configs)
        self._recall()
        with Signals() as self.signals:
            # What the journal holds is replayed before any worker is started: a finished run
            # needs none.
            first = self._next_job()
            if first is not None:
                self.retries.append(first)
                try:
                    restarts = self._evaluate(configs, task, threads, factory)
                except SystemExit:  # how Ray, while it starts, answers to SIGTERM
                    self.signals.number = signal.SIGTERM
                except WorkerError as error:
                    # A scheduler that ends the job may have told Ray's processes too.
                    if self.signals.number is None:
                        raise self._stopped(error) from error
                finally:
                    self.failures.summarise()
            if self.signals.number is not None:
                raise SearchInterrupted(self.signals.number, self.directory, len(self.journal))
        self.journal.check()
        judged = (trial for trial in self.journal.trials() if trial.scorer != CHEAP)
        return RunResult(
            self.directory,
            len(self.journal),
            self.counts["ok"],
            self.counts["failed"],
            self.counts["duplicate"],
            self.new,
            self.retried,
            restarts,
            tuple(best_trials(judged, 5)),
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
        with WorkerPool(
            self.config,
            configs,
            task,
            threads=threads,
            factory=factory,
            prepared=self.blobs.prepared(configs),
            warn=self.log.failure,
        ) as pool:
            self.signals.install()
            for name, content in pool.prepare(lambda: self.signals.number is not None).items():
                self.blobs.keep_prepared(name, content)
            self._loop(pool)
            return pool.restarts

    def _loop(self, pool: WorkerPool) -> None:
        shown = self.budget.shown
        with Progress(
            shown(self.budget.limit), shown(self.told), self.show, *self.budget.words
        ) as progress:
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
                done, new = shown(self.told), (self.told - before) / self.budget.unit
                progress.update(done, new, self.best, self.counts["failed"], self.searcher.arms)
            else:
                # What has already arrived need not be made again.
                self._receive(pool.wait(0))

    # Resuming --------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Count what the journal holds, and know what was evaluated; `_replay` tells it."""
        if not len(self.journal):
            return
        for trial in self.journal.trials():
            self._count(trial)
            if trial.status != "duplicate":
                mark = identity({name: getattr(trial, name) for name in FIELDS})
                self.originals[mark] = min(trial.key, self.originals.get(mark, trial.key))
        if self.counts["ok"]:
            self.failures.succeeded()
        self.log.info(f"resuming after {len(self.journal)} evaluations")

    def _replay(self, candidate: Candidate) -> None:
        trial = self.journal.get(candidate.key)
        asked = asked_fields(candidate)
        for name, value in asked.items():
            if getattr(trial, name) != value:
                raise JournalError(
                    f"{self.journal.path}: batch {candidate.batch}, slot {candidate.slot} was "
                    f"evaluated with {name} {getattr(trial, name)!r:.100}, but this search asks "
                    f"for {value!r:.100}; another configuration or version made it: go on by that"
                )
        self._tell(candidate, trial)

    # Asking ----------------------------------------------------------------------------------

    def _next_job(self) -> Job | None:
        """The next evaluation to be made; replays and duplicates are settled on the way."""
        while not self.spent_up and self.signals.number is None:
            candidate = self.searcher.ask()
            if candidate is None:
                self._check_progress_is_possible()
                return None
            if candidate.scorer not in self.scorers:
                raise InputError(
                    "searcher", f"must ask evaluators of the run, {', '.join(self.scorers)}",
                    candidate.scorer, 'say what "cheap" is with --cheap, or ask for "main"',
                )  # fmt: skip
            price = self.budget.price(candidate.scorer)
            # What does not fit ends the search, though something cheaper might: a larger budget
            # then goes on from here.
            self.spent_up = not self.budget.allows(self.asked + price)
            if self.spent_up:
                return None
            self.asked += price
            if candidate.key in self.journal:
                self._replay(candidate)
                continue
            asked = asked_fields(candidate)
            mark = identity(asked)
            original = self.originals.setdefault(mark, candidate.key)
            if original == candidate.key:
                return Job(candidate, artifact=self._inheritance(candidate))
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

    def _inheritance(self, candidate: Candidate) -> bytes | None:
        """What the candidate's parent left; what nothing can go on from any more is deleted.

        Failed evaluations may be made again later: what they and their followers go on from stays.
        """
        if candidate.parent is None:
            return None
        needed, may_continue = self.first_failed - 1, self.searcher.may_continue
        self.blobs.forget_artifacts(lambda key: key[0] < needed and not may_continue(key))
        return self.blobs.artifact(candidate.parent, self.journal.get(candidate.parent).artifact)

    # Receiving -------------------------------------------------------------------------------

    def _receive(self, outcomes: list[Outcome]) -> None:
        finished: list[tuple[Candidate, Trial]] = []
        try:
            for outcome in outcomes:
                self.in_flight -= 1
                trial = self._settle(outcome)
                if trial is None:
                    continue
                candidate = outcome.job.candidate
                twins = self.waiting.pop(candidate.key, ())
                finished.append((candidate, trial))
                finished.extend((twin, self._duplicate(twin, trial)) for twin in twins)
        finally:  # what came with a failure that ends the run is kept too
            if finished:
                self._keep(finished)
        self.failures.check()

    def _settle(self, outcome: Outcome) -> Trial | None:
        """The trial that an attempt makes, or None when it is made again."""
        job, candidate = outcome.job, outcome.job.candidate
        error = outcome.error
        if error is None:
            try:
                trial = made_trial(
                    candidate, outcome, evaluation=outcome.evaluation,
                    artifact=None if outcome.artifact is None else digest(outcome.artifact),
                )  # fmt: skip
                # As it will be read back: what is told now is what a replay tells.
                trial = Trial.from_line(trial.to_line())
            except (TypeError, ValueError) as unusable:
                error = str(unusable)
            else:
                self.failures.succeeded()
                if outcome.artifact is not None:  # on the disk before the trial that names it
                    self.blobs.keep_artifact(candidate.key, outcome.artifact)
                return trial
        self.failures.attempt_failed(outcome, error)
        if job.attempt <= self.config.retries:
            self.retried += 1
            self.retries.append(replace(job, attempt=job.attempt + 1))
            return None
        self.failures.candidate_failed()
        return made_trial(candidate, outcome, status="failed", error=error[:MAX_ERROR])

    def _stopped(self, error: WorkerError) -> WorkerError:
        """The error with what to do about it; its traceback goes into the log."""
        self.log.note(str(error), error.detail)
        where = f" (traceback in {self.log.path})" if error.detail else ""
        options = ["--retry-failed"] if self.counts["failed"] else []
        command = resume_command(self.directory, *options)
        return WorkerError(f"{error}{where}. Once that is mended, go on with: {command}")

    def _duplicate(self, candidate: Candidate, original: Trial) -> Trial:
        return replace(
            original,
            **asked_fields(candidate),
            batch=candidate.batch,
            slot=candidate.slot,
            label=candidate.label,
            status="duplicate",
            attempts=0,
            duplicate_of=original.key,
            worker=None,
        )

    def _keep(self, finished: list[tuple[Candidate, Trial]]) -> None:
        """Journal first, then tell."""
        self.journal.append(*(trial for _, trial in finished))
        for candidate, trial in finished:
            self._count(trial)
            self._tell(candidate, trial)
        self.new += len(finished)

    def _tell(self, candidate: Candidate, trial: Trial) -> None:
        self.searcher.tell(candidate, trial.evaluation)
        self.told += self.budget.price(candidate.scorer)

    def _count(self, trial: Trial) -> None:
        self.counts[trial.status] += 1
        if trial.error is not None:
            self.first_failed = min(self.first_failed, trial.batch)
        reward = usable_reward(trial.evaluation)
        if reward is None or trial.scorer == CHEAP:
            return
        if self.best is None or reward > self.best:
            self.best = reward
