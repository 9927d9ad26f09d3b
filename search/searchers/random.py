"""Random search: every decision uniform and independent. The yardstick of every other searcher.

With AutoAugment's rules (distinct evaluations, best 5 concatenated) it is a strong baseline, see
arXiv 1902.07638 for the same finding in architecture search.
"""

from __future__ import annotations

from typing import Any

from search.spaces import Space, sample_decisions

from .batches import BatchSearcher, BatchSize, Decisions


class RandomSearcher(BatchSearcher):
    """Draws uniformly and, since it does not learn, never waits.

    Arguments as for `BatchSearcher`, without `lag`.
    """

    def __init__(self, space: Space, seed: int = 0, *, batch_size: BatchSize = 20) -> None:
        super().__init__(space, seed, batch_size=batch_size, lag=None)

    def _draw(self, batch: int) -> tuple[list[Decisions], dict[str, Any]]:
        rng = self._generator(batch)
        sizes = self.space.decisions
        return [sample_decisions(sizes, rng) for _ in range(self.batch_size)], {}
