"""Ask and tell: what a searcher promises to the engine.

    searcher = PPOSearcher(PolicySpace(), seed=0)
    while not done:
        candidate = searcher.ask()          # None: results of earlier candidates are needed first
        searcher.tell(candidate, evaluation)  # in any order; None when the evaluation failed

A searcher is deterministic whatever the number of workers and whatever order results come back
in. `BatchSearcher` gets there by *bounded staleness*: candidates are drawn in batches of a fixed
size, and batch b is drawn with exactly the updates of the batches up to b - 1 - lag, in order and
never a later one, even when later ones are already complete. With lag 1 batch b can be evaluated
while the last evaluations of batch b - 1 still run, so no worker waits at a batch boundary as
long as the workers are no more than a batch.
"""

from __future__ import annotations

import abc
import bisect
import enum
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from policies import Policy
from policies.errors import InputError
from proxy_tasks.evaluators.evaluation import Evaluation

if TYPE_CHECKING:
    from policies.transforms import Transform
    from search.spaces import Space

Key = tuple[int, int]
Decisions = tuple[int, ...]

# Named random streams: each purpose draws from its own, so that adding one never shifts another.
STREAM_EVALUATION = 0
STREAM_DRAW = 1
STREAM_INITIALISE = 2
STREAM_IMAGINE = 3

EVALUATION_SEEDS = ("per-slot", "common")


@dataclass(frozen=True)
class Candidate:
    """One evaluation to be made.

    batch, slot: its place in the search; `key` is unique within a run.
    augmentation: a Policy, a Transform, or None for no augmentation.
    seed: evaluation seed, 0 <= seed < 2**32, given to `Evaluator.evaluate`.
    evaluator: name of the evaluator that shall do it (engine's `evaluator_configs`).
    part: "validation" in a search; "test" only in a comparison.
    label: free text for reports, for example the name of an arm.
    """

    batch: int
    slot: int
    augmentation: Policy | Transform | None
    seed: int
    evaluator: str = "main"
    part: str = "validation"
    label: str = ""

    @property
    def key(self) -> Key:
        return (self.batch, self.slot)


def derive_seed(seed: int, stream: int, *place: int) -> int:
    """An independent 32-bit seed for a place in a run, the same in every process.

    seed: the run's seed, >= 0. stream: one of the STREAM_ constants. place: e.g. batch and slot.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, *place))
    return int(sequence.generate_state(1, np.uint32)[0])


def usable_reward(evaluation: Evaluation | None) -> float | None:
    """The reward, or None for a failed evaluation or a reward that is not a finite number."""
    if evaluation is None or evaluation.reward is None or not math.isfinite(evaluation.reward):
        return None
    return float(evaluation.reward)


class Searcher(abc.ABC):
    """Proposes candidates and learns from their evaluations.

    Nothing a searcher does depends on the clock, on the process, or on the order in which results
    of the same batch are told.
    """

    @abc.abstractmethod
    def ask(self) -> Candidate | None:
        """The next candidate; None while results are awaited, or for ever once `finished`."""

    @abc.abstractmethod
    def tell(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        """Hand back the result of an asked candidate; None when it failed after all retries.

        Raises ValueError for a candidate that was never asked or was told before.
        """

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """True once nothing is left to ask and every asked candidate was told.

        Always False for searchers that can go on for ever; their budget is the engine's.
        """

    @abc.abstractmethod
    def best(self, k: int = 1) -> list[tuple[Candidate, Evaluation]]:
        """Up to k evaluated candidates with distinct augmentations, highest reward first.

        Equal rewards: the earlier (batch, slot) first. An augmentation evaluated several times
        counts with its highest reward (choose with `selection.rescore` when that flatters it).
        """

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: only dicts, lists, str, int, float, None, tensors,
        so that `torch.load(..., weights_only=True)` reads it."""

    @abc.abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, taken from a searcher built with the same arguments.

        Candidates that were asked but not told are asked again first, in order of (batch, slot).
        Raises InputError when the state belongs to other arguments.
        """


class Leaderboard:
    """The best `keep` results with distinct augmentations, whatever order they are added in.

    Bounded, so that a search of any length needs the same memory.
    """

    def __init__(self, keep: int = 256) -> None:
        self.keep = keep
        self._rows: list[tuple[tuple[float, Key], Candidate, Evaluation]] = []
        self._by_augmentation: dict[Any, tuple[float, Key]] = {}

    @staticmethod
    def _identity(candidate: Candidate) -> Any:
        augmentation = candidate.augmentation
        return augmentation if isinstance(augmentation, Policy) else repr(augmentation)

    def add(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Add a result with a usable reward; others are ignored."""
        reward = usable_reward(evaluation)
        if reward is None:
            return
        rank = (-reward, candidate.key)
        if len(self._rows) == self.keep and rank >= self._rows[-1][0]:
            return
        identity = self._identity(candidate)
        previous = self._by_augmentation.get(identity)
        if previous is not None:
            if previous <= rank:
                return
            del self._rows[self._find(previous)]
        self._by_augmentation[identity] = rank
        bisect.insort(self._rows, (rank, candidate, evaluation), key=lambda row: row[0])
        if len(self._rows) > self.keep:
            _, dropped, _ = self._rows.pop()
            del self._by_augmentation[self._identity(dropped)]

    def _find(self, rank: tuple[float, Key]) -> int:
        return bisect.bisect_left(self._rows, rank, key=lambda row: row[0])

    def best(self, k: int) -> list[tuple[Candidate, Evaluation]]:
        if not 1 <= k <= self.keep:
            raise InputError(
                "k",
                f"a searcher remembers its best {self.keep} candidates",
                k,
                f"ask for 1 to {self.keep}, or read the journal",
            )
        return [(candidate, evaluation) for _, candidate, evaluation in self._rows[:k]]


class _Slot(enum.Enum):
    """What a slot of an open batch holds until it is told; None would mean "failed". An Enum stays
    itself when a searcher is pickled or copied, as Ray Tune does."""

    PENDING = 0


_PENDING = _Slot.PENDING


@dataclass
class _OpenBatch:
    decisions: list[Decisions]
    notes: dict[str, Any]
    candidates: list[Candidate]
    results: list[Any] = field(default_factory=list)
    missing: int = 0

    def __post_init__(self) -> None:
        if not self.results:
            self.results = [_PENDING] * len(self.candidates)
        self.missing = sum(result is _PENDING for result in self.results)


class BatchSearcher(Searcher):
    """Draws candidates in fixed batches and learns from whole batches, in order.

    space: gives meaning to decisions (`spaces.PolicySpace` or `spaces.RandAugmentSpace`).
    seed: >= 0; with the other arguments it determines everything.
    batch_size: candidates per batch and per update.
    lag: >= 0 completed-but-unused batches allowed (module docstring); None for a searcher that
        does not learn: it never waits.
    evaluation_seeds: "per-slot" derives each evaluation's seed from (seed, batch, slot);
        "common" gives all the same one (common random numbers: differences between candidates are
        then less noisy, but the search fits that one draw).
    evaluator: name handed on in every candidate.

    A subclass writes `_draw` and, when it learns, `_update`, `_state` and `_load`. Memory is that
    of the open batches and of the best 256 results, however long the search is.
    """

    name: str = ""

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        batch_size: int = 20,
        lag: int | None = 1,
        evaluation_seeds: str = "per-slot",
        evaluator: str = "main",
    ) -> None:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError("seed", "must be an integer >= 0", seed, "pass for example 0")
        if batch_size < 1:
            raise InputError("batch_size", "must be at least 1", batch_size, "pass for example 20")
        if lag is not None and lag < 0:
            raise InputError("lag", "must be at least 0", lag, "pass 1, or 0 for no staleness")
        if evaluation_seeds not in EVALUATION_SEEDS:
            raise InputError(
                "evaluation_seeds",
                f"must be one of {', '.join(EVALUATION_SEEDS)}",
                evaluation_seeds,
                'pass "per-slot"',
            )
        self.space = space
        self.seed = seed
        self.batch_size = batch_size
        self.lag = lag
        self.evaluation_seeds = evaluation_seeds
        self.evaluator = evaluator
        self._next_batch = 0
        self._applied = 0
        self._open: dict[int, _OpenBatch] = {}
        self._queue: deque[Candidate] = deque()
        self._leaders = Leaderboard()

    # What a subclass writes ------------------------------------------------------------------

    @abc.abstractmethod
    def _draw(self, batch: int) -> tuple[list[Decisions], dict[str, Any]]:
        """Decisions (Python ints) of each candidate of a batch, and notes for `_update`.

        Called for batch 0, 1, 2, ... once each. Random numbers come from generators seeded by
        (seed, batch), so that nothing but learned state has to be saved. Notes may hold what
        `state_dict` may hold. Fewer than batch_size decisions: the last batch; none: no more.
        """

    def _update(  # noqa: B027  (a searcher need not learn)
        self,
        batch: int,
        decisions: Sequence[Decisions],
        rewards: Sequence[float | None],
        notes: dict[str, Any],
    ) -> None:
        """Learn from a complete batch; reward None marks a failed evaluation."""

    def _state(self) -> dict[str, Any]:
        """Learned state, as primitives and tensors."""
        return {}

    def _load(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore what `_state` returned."""

    def _configuration(self) -> dict[str, Any]:
        """What a state must agree with to be loaded here; primitives."""
        return {
            "searcher": self.name,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "lag": self.lag,
            "evaluation_seeds": self.evaluation_seeds,
            "evaluator": self.evaluator,
            "space": repr(self.space),
        }

    # The contract ----------------------------------------------------------------------------

    def ask(self) -> Candidate | None:
        if not self._queue and not self._open_next_batch():
            return None
        return self._queue.popleft()

    def tell(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        opened = self._open.get(candidate.batch)
        if opened is None or not 0 <= candidate.slot < len(opened.candidates):
            raise ValueError(f"candidate {candidate.key} is not open: never asked, or told before")
        if opened.results[candidate.slot] is not _PENDING:
            raise ValueError(f"candidate {candidate.key} was told before")
        opened.results[candidate.slot] = evaluation
        opened.missing -= 1
        if evaluation is not None:
            self._leaders.add(opened.candidates[candidate.slot], evaluation)

    @property
    def finished(self) -> bool:
        return False

    def best(self, k: int = 1) -> list[tuple[Candidate, Evaluation]]:
        return self._leaders.best(k)

    # Batches ---------------------------------------------------------------------------------

    def _open_next_batch(self) -> bool:
        """Apply the updates that the next batch calls for and draw it; False if they are not in."""
        batch = self._next_batch
        needed = batch if self.lag is None else max(0, batch - self.lag)
        while self._applied < needed:
            opened = self._open.get(self._applied)
            if opened is None or opened.missing:
                if self.lag is None:
                    break
                return False
            rewards = [usable_reward(result) for result in opened.results]
            self._update(self._applied, opened.decisions, rewards, opened.notes)
            del self._open[self._applied]
            self._applied += 1
        decisions, notes = self._draw(batch)
        if not decisions:
            return False
        self._next_batch = batch + 1
        opened = _OpenBatch(decisions, notes, self._candidates(batch, decisions))
        self._open[batch] = opened
        self._queue.extend(opened.candidates)
        return True

    def _candidates(self, batch: int, decisions: Iterable[Decisions]) -> list[Candidate]:
        return [
            Candidate(
                batch,
                slot,
                self.space.decode(row),
                self._evaluation_seed(batch, slot),
                self.evaluator,
            )
            for slot, row in enumerate(decisions)
        ]

    def _evaluation_seed(self, batch: int, slot: int) -> int:
        if self.evaluation_seeds == "common":
            return derive_seed(self.seed, STREAM_EVALUATION)
        return derive_seed(self.seed, STREAM_EVALUATION, batch, slot)

    def _generator(self, batch: int) -> np.random.Generator:
        """The random numbers of one batch's draw."""
        return np.random.default_rng(derive_seed(self.seed, STREAM_DRAW, batch))

    # State -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "configuration": self._configuration(),
            "next_batch": self._next_batch,
            "applied": self._applied,
            "open": [
                {
                    "batch": batch,
                    "decisions": [list(row) for row in opened.decisions],
                    "notes": opened.notes,
                    "results": [result_to_state(result) for result in opened.results],
                }
                for batch, opened in sorted(self._open.items())
            ],
            "leaders": [
                [
                    *candidate.key,
                    list(self.space.encode(candidate.augmentation)),
                    evaluation.to_json(),
                ]
                for candidate, evaluation in self._leaders.best(self._leaders.keep)
            ],
            "learned": self._state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_configuration(state, self._configuration())
        self._next_batch = state["next_batch"]
        self._applied = state["applied"]
        self._open = {}
        self._queue = deque()
        for saved in state["open"]:
            batch = saved["batch"]
            decisions = [tuple(row) for row in saved["decisions"]]
            opened = _OpenBatch(
                decisions,
                saved["notes"],
                self._candidates(batch, decisions),
                [result_from_state(result) for result in saved["results"]],
            )
            self._open[batch] = opened
            self._queue.extend(
                candidate
                for candidate, result in zip(opened.candidates, opened.results, strict=True)
                if result is _PENDING
            )
        self._leaders = Leaderboard()
        for batch, slot, row, evaluation in state["leaders"]:
            candidate = Candidate(
                batch,
                slot,
                self.space.decode(tuple(row)),
                self._evaluation_seed(batch, slot),
                self.evaluator,
            )
            self._leaders.add(candidate, Evaluation.from_json(evaluation))
        self._load(state["learned"])


def check_configuration(state: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse a state saved by a searcher with other arguments, naming the first that differs."""
    found = state["configuration"]
    for key in sorted({*found, *expected}):
        if found.get(key) != expected.get(key):
            raise InputError(
                f"searcher state ({key})",
                f"this searcher has {expected.get(key)!r}",
                found.get(key),
                "build the searcher with the arguments of the saved one",
            )


def result_to_state(result: Any) -> dict[str, Any]:
    """A slot's result (pending, failed or an Evaluation) as primitives."""
    if result is _PENDING:
        return {"status": "pending"}
    if result is None:
        return {"status": "failed"}
    return {"status": "ok", "evaluation": result.to_json()}


def result_from_state(saved: dict[str, Any]) -> Any:
    """Inverse of `result_to_state`."""
    if saved["status"] == "pending":
        return _PENDING
    return None if saved["status"] == "failed" else Evaluation.from_json(saved["evaluation"])
