"""Searchers that learn from whole batches, in order: deterministic with any number of workers.

`BatchSearcher` gets there by *bounded staleness*: candidates are drawn in batches, and batch b is
drawn with exactly the updates of the batches up to b - 1 - lag, in order and never a later one,
even when later ones are already complete. With lag 1 batch b can be evaluated while the last
evaluations of batch b - 1 still run, so no worker waits at a batch boundary as long as the workers
are no more than a batch.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from policies.errors import check_integer
from policies.options import Option
from proxy_tasks.evaluators.evaluation import Evaluation
from search.spaces import Decisions, Space
from search.trial import MAIN, Candidate, usable_reward

from .base import STREAM_DRAW, STREAM_EVALUATION, QueueSearcher, derive_seed

# Options that searchers share.
BatchSize = Annotated[int, Option("candidates per batch and per update", least=1, most=10_000)]
Lag = Annotated[int, Option("completed but unused batches allowed", least=0, most=1000)]


@dataclass
class _OpenBatch:
    """A batch that was drawn and not yet learned from. told: by slot, None for a failure."""

    decisions: list[Decisions]
    notes: dict[str, Any]
    told: dict[int, Evaluation | None] = field(default_factory=dict)


class BatchSearcher(QueueSearcher):
    """Draws candidates in batches and learns from whole batches, in order.

    A subclass writes `_draw` and, when it learns, `_update`. Memory is that of the open batches,
    however long the search is.

    Args:
        space: gives meaning to decisions (`spaces.PolicySpace` or `spaces.RandAugmentSpace`).
        seed: >= 0; with the other arguments it determines everything.
        batch_size: candidates per batch and per update, >= 1; of the smallest batches where a
            subclass draws larger ones.
        lag: >= 0 completed-but-unused batches allowed (module docstring); None for a searcher that
            does not learn: it never waits.
    """

    def __init__(
        self, space: Space, seed: int = 0, *, batch_size: int = 20, lag: int | None = 1
    ) -> None:
        super().__init__()
        self.space = space
        self.seed = check_integer("seed", seed, 0)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self.lag = lag if lag is None else check_integer("lag", lag, 0)
        self._next_batch = 0
        self._applied = 0
        self._over = False
        self._batches: dict[int, _OpenBatch] = {}
        # Lowest and highest reward of the trained children so far, by scorer.
        self._ranges: dict[str, tuple[float, float]] = {}

    # What a subclass writes ------------------------------------------------------------------

    @abc.abstractmethod
    def _draw(self, batch: int) -> tuple[list[Decisions], dict[str, Any]]:
        """Decisions (Python ints) of each candidate of a batch, and notes for `_update`.

        Called for batch 0, 1, 2, ... once each. Random numbers come from generators seeded by
        (seed, batch). No decisions: there are no more, and it is not called again.
        """

    def _scorer(self, batch: int) -> str:
        """Which of the run's evaluators judges a batch; asked after it was drawn."""
        return MAIN

    def _update(  # noqa: B027  (a searcher need not learn)
        self,
        batch: int,
        decisions: Sequence[Decisions],
        rewards: Sequence[float | None],
        notes: dict[str, Any],
    ) -> None:
        """Learn from a complete batch; reward None marks a failed evaluation.

        A diverged child has a reward here below those of all that trained so far.
        """

    # The contract ----------------------------------------------------------------------------

    def _learn(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        self._batches[candidate.batch].told[candidate.slot] = evaluation

    @property
    def finished(self) -> bool:
        """Where `_draw` has no more, once all is told."""
        return self._over and not self._open

    @property
    def most_open(self) -> int | None:
        return None if self.lag is None else (self.lag + 1) * self.batch_size

    # Batches ---------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Apply the updates that the next batch calls for and draw it, if they are in."""
        if self._over:
            return
        batch = self._next_batch
        needed = batch if self.lag is None else max(0, batch - self.lag)
        while self._applied < needed:
            opened = self._batches[self._applied]
            if len(opened.told) < len(opened.decisions):
                if self.lag is None:
                    break
                return
            told = [opened.told[slot] for slot in range(len(opened.told))]
            rewards = self._rewards(told, self._scorer(self._applied))
            self._update(self._applied, opened.decisions, rewards, opened.notes)
            del self._batches[self._applied]
            self._applied += 1
        decisions, notes = self._draw(batch)
        if not decisions:
            self._over = True
            return
        self._next_batch = batch + 1
        scorer = self._scorer(batch)
        self._batches[batch] = _OpenBatch(decisions, notes)
        self._queue.extend(
            Candidate(
                batch, slot, self.space.decode(row), self._evaluation_seed(batch, slot), scorer
            )
            for slot, row in enumerate(decisions)
        )

    def _rewards(self, told: Sequence[Evaluation | None], scorer: str) -> list[float | None]:
        """Rewards of a batch by slot.

        A failure says nothing about the candidate: None. That a child diverged does: left out, a
        searcher would go on proposing such candidates, and the reward that stands for guessing may
        be better than that of children that trained. So it counts as worse than the worst of all
        that trained up to this batch, by a quarter of their range: far enough to be clear, near
        enough not to drown the differences between the others in a mean or a regression. Until a
        child has trained there is nothing to compare with: None. Rewards of different scorers are
        never compared.
        """
        rewards = [usable_reward(evaluation) for evaluation in told]
        trained = [reward for reward in rewards if reward is not None]
        known = (*self._ranges.get(scorer, ()), *trained)
        if known:
            lowest, highest = self._ranges[scorer] = min(known), max(known)
            below = lowest - max((highest - lowest) / 4, 1e-3 * abs(lowest), 1e-9)
            for slot, evaluation in enumerate(told):
                if evaluation is not None and evaluation.diverged:
                    rewards[slot] = below
        return rewards

    def _evaluation_seed(self, batch: int, slot: int) -> int:
        return derive_seed(self.seed, STREAM_EVALUATION, batch, slot)

    def _generator(self, batch: int) -> np.random.Generator:
        """The random numbers of one batch's draw."""
        return np.random.default_rng(derive_seed(self.seed, STREAM_DRAW, batch))
