"""Regularised evolution: the youngest survive, not the best (Real et al. 2019, arXiv 1802.01548).

A population of the latest results; again and again the best of a random few of them is copied with
one decision changed, and the copy takes the place of the oldest. What got a lucky reward dies like
everything else, so good rewards have to be earned again. Mutations are the paper's, carried over
from cells to policies: of one operation the kind, the probability or the magnitude changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from policies.errors import InputError
from policies.options import Option, checks_options
from search.spaces import Space, sample_decisions

from .batches import BatchSearcher, BatchSize, Decisions, Lag

# Mutations tried until one changes the candidate: the magnitude of Invert says nothing.
TRIES = 20


class EvolutionSearcher(BatchSearcher):
    """Mutates the best of a random few of the latest results.

    The paper evaluates one candidate after the other on many workers; here a whole batch is drawn
    from one population, so that the result does not depend on the workers.

    Args:
        population: latest results that may have offspring; the first so many are uniform.
        tournament: results of which the best one is mutated; at most `population`.
        batch_size, lag: as for `BatchSearcher`.
    """

    @checks_options
    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        batch_size: BatchSize = 5,
        lag: Lag = 1,
        population: Annotated[
            int, Option("latest results that may have offspring", least=2, most=100_000)
        ] = 20,
        tournament: Annotated[
            int, Option("results of which the best one is mutated", least=1, most=100_000)
        ] = 5,
    ) -> None:
        super().__init__(space, seed, batch_size=batch_size, lag=lag)
        if tournament > population:
            raise InputError(
                "tournament", f"must be at most the population, {population}", tournament,
                f"pass at most {population}, or a larger population",
            )  # fmt: skip
        self._startup = population
        self._tournament = tournament
        self._population: deque[tuple[float, Decisions]] = deque(maxlen=population)

    def _draw(self, batch: int) -> tuple[list[Decisions], dict[str, Any]]:
        rng = self._generator(batch)
        # A batch that begins in the first population belongs to it; so does all while every
        # evaluation fails.
        first = batch * self.batch_size < self._startup or not self._population
        sizes = self.space.decisions
        return [
            sample_decisions(sizes, rng) if first else self._mutated(self._parent(rng), rng)
            for _ in range(self.batch_size)
        ], {}

    def _parent(self, rng: np.random.Generator) -> Decisions:
        size = min(self._tournament, len(self._population))
        # Without replacement; algorithm 1 of the paper draws with it.
        drawn = rng.choice(len(self._population), size, replace=False).tolist()
        return self._population[max(drawn, key=lambda i: self._population[i][0])][1]

    def _mutated(self, parent: Decisions, rng: np.random.Generator) -> Decisions:
        """`parent` with another value of one decision, such that the augmentation changes."""
        sizes = self.space.decisions
        free = [place for place, size in enumerate(sizes) if size > 1]
        before, child = self.space.decode(parent), parent
        for _ in range(TRIES if free else 0):
            place = free[int(rng.integers(len(free)))]
            value = (parent[place] + 1 + int(rng.integers(sizes[place] - 1))) % sizes[place]
            child = (*parent[:place], value, *parent[place + 1 :])
            if self.space.decode(child) != before:
                break
        return child

    def _update(
        self,
        batch: int,
        decisions: Sequence[Decisions],
        rewards: Sequence[float | None],
        notes: dict[str, Any],
    ) -> None:
        for row, reward in zip(decisions, rewards, strict=True):
            if reward is not None:
                self._population.append((reward, row))
