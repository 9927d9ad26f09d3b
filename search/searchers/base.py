"""Ask and tell: what a searcher promises to the engine.

    searcher = PPOSearcher(PolicySpace(), seed=0)
    while not done:
        candidate = searcher.ask()            # None: results of earlier candidates are needed first
        searcher.tell(candidate, evaluation)  # in any order; None when the evaluation failed

A searcher is deterministic whatever the number of workers and whatever order results come back
in. So it has no state to be saved: a run goes on by telling a new searcher what the journal holds.
What was best is asked of the journal too (`best_trials`).
"""

from __future__ import annotations

import abc
from collections import deque

import numpy as np

from proxy_tasks.evaluators.evaluation import Evaluation
from search.trial import Candidate, Key

# Named random streams: each purpose draws from its own, so that adding one never shifts another.
STREAM_EVALUATION = 0
STREAM_DRAW = 1
STREAM_INITIALISE = 2
STREAM_IMAGINE = 3


def derive_seed(seed: int, stream: int, *place: int) -> int:
    """An independent 32-bit seed for a place in a run, the same in every process.

    Args:
        seed: the run's seed, >= 0.
        stream: one of the STREAM_ constants.
        place: e.g. batch and slot, each >= 0.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, *place))
    return int(sequence.generate_state(1, np.uint32)[0])


class Searcher(abc.ABC):
    """Proposes candidates and learns from their evaluations.

    Nothing a searcher does depends on the clock, on the process, or on the order in which results
    of the same batch are told.

    Attributes:
        lag: candidates of batch b depend on results of the batches up to b - 1 - lag, and on no
            later ones; None: on no results at all. What a run has to forget when evaluations are
            made again follows from it.
        opening: cost of the cheap evaluations that come before the first dear one, in dear ones.
    """

    lag: int | None = 0
    opening: float = 0.0

    @abc.abstractmethod
    def ask(self) -> Candidate | None:
        """The next candidate; None while results are awaited, or for ever once `finished`."""

    def arms(self) -> str:
        """How the arms stand that are compared, in a few words; empty where a best is searched."""
        return ""

    @abc.abstractmethod
    def tell(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        """Hand back the result of an asked candidate; None when it failed after all retries.

        A diverged evaluation (`Evaluation.diverged`) ranks below all told before that are not,
        whatever its reward.

        Raises ValueError for a candidate that was never asked or was told before.
        """

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """True once nothing is left to ask and every asked candidate was told.

        Always False for searchers that can go on for ever; their budget is the engine's.
        """

    @property
    def most_open(self) -> int | None:
        """The fewest open candidates at which it may wait to be told of one; None: never."""
        return None

    def may_continue(self, key: Key) -> bool:
        """Whether a later candidate may have the evaluation `key` as its parent: its artifact is
        kept so long."""
        return False


class QueueSearcher(Searcher):
    """Candidates from a queue, which a subclass fills in `_fill`; each is told once (`_learn`)."""

    def __init__(self) -> None:
        self._queue: deque[Candidate] = deque()
        self._open: set[Key] = set()  # asked, and not told

    def _fill(self) -> None:  # noqa: B027  (all may be there from the start)
        """Queue what comes next, if that is known yet; called when the queue is empty."""

    @abc.abstractmethod
    def _learn(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        """What `tell` was told, once for each candidate."""

    def ask(self) -> Candidate | None:
        if not self._queue:
            self._fill()
        if not self._queue:
            return None
        candidate = self._queue.popleft()
        self._open.add(candidate.key)
        return candidate

    def tell(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        if candidate.key not in self._open:
            raise ValueError(f"candidate {candidate.key} is not open: never asked, or told before")
        self._open.remove(candidate.key)
        self._learn(candidate, evaluation)
