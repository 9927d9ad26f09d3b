"""What goes wrong with evaluations: said once, counted, and the moment when it is enough."""

from __future__ import annotations

import re
from collections import defaultdict

from proxy_tasks.trials import Key
from search.errors import WorkerError

from .jobs import Outcome
from .progress import RunLog
from .resources import PoolConfig

# A run stops when so many candidates one after the other fail for good.
MAX_IN_A_ROW = 10


class Failures:
    """Of one call of the engine. Raises WorkerError when there is no use in going on."""

    def __init__(self, log: RunLog, config: PoolConfig) -> None:
        self._log = log
        self._attempts = config.retries + 1
        # As often as one evaluation is attempted, and once on every worker.
        self._enough = max(2, self._attempts, config.workers)
        self._works = False
        self._in_a_row = 0
        self._first: tuple[str, str] | None = None
        self._seen: dict[str, list[Key]] = defaultdict(list)  # of which candidates, by error

    def succeeded(self) -> None:
        self._works = True
        self._in_a_row = 0
        self._first = None

    def attempt_failed(self, outcome: Outcome, error: str) -> None:
        """Log it: in full in the file, on the terminal once for each kind of error.

        A mistake of the user is raised as it is. An error that nothing but ever happens, to one
        candidate as to another, ends the run; a crash or a time limit may be another evaluation's
        or another program's fault.
        """
        if outcome.mistake is not None:
            self._log.note(error, outcome.detail)
            raise outcome.mistake
        kind = re.sub(r"\d+", "#", error)  # the same whatever the seed or the place
        seen = self._seen[kind]
        seen.append(outcome.job.candidate.key)
        tell = self._log.failure if len(seen) == 1 else self._log.note
        batch, slot = outcome.job.candidate.key
        tell(
            f"batch {batch}, slot {slot}, attempt {outcome.job.attempt} of {self._attempts} on "
            f"{outcome.worker}: {error}",
            outcome.detail,
        )
        self._first = self._first or (error, outcome.detail)
        hopeless = outcome.kind in ("ok", "error") and not self._works
        if hopeless and len(seen) >= self._enough and len({*seen}) > 1:
            raise WorkerError(
                f"no evaluation has succeeded, and {len(seen)} attempts ended with: {error}",
                outcome.detail,
            )

    def candidate_failed(self) -> None:
        """A candidate failed for good."""
        self._in_a_row += 1

    def check(self) -> None:
        """Raises WorkerError after too many candidates in a row."""
        if self._first is not None and self._in_a_row >= MAX_IN_A_ROW:
            error, detail = self._first
            raise WorkerError(
                f"{self._in_a_row} candidates in a row failed; the first with: {error}", detail
            )

    def summarise(self) -> None:
        """Say how often what was said once has happened."""
        for kind, seen in self._seen.items():
            if len(seen) > 1:
                self._log.failure(f"{len(seen)} attempts ended with: {kind}")
