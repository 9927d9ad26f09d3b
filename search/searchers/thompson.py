"""Thompson sampling on the additive model: candidates are the best under one draw of what is known.

Thompson 1933; Russo et al., A Tutorial on Thompson Sampling (arXiv 1707.02038). The model
(`additive.AdditiveModel`) takes a policy for the mean of its sub-policies and a sub-policy for the
sum of its operations. Each candidate draws weights from their posterior and takes the best
sub-policies of a random pool under them. Why not the best there are: they differ in next to
nothing, and the best candidates of a search are joined in the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from policies.options import Option, checks_options
from search.spaces import Space, sample_decisions

from .additive import AdditiveModel, CorrectedModel, Ridge, add_told
from .batches import BatchSearcher, BatchSize, Decisions, Lag


class ThompsonSearcher(BatchSearcher):
    """Draws a set of weights for every candidate, from what was told so far.

    Args:
        space: a `PolicySpace`; the model has no other features.
        startup: uniform candidates before the model is asked.
        pool: uniform sub-policies that a candidate is chosen from; the larger, the more alike are
            the candidates of a search.
        ridge: variance of one evaluation's noise over prior variance of a weight.
        batch_size, lag: as for `BatchSearcher`.

    Attributes:
        model: what the weights are drawn from; a staged search puts its own here.
    """

    @checks_options
    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        batch_size: BatchSize = 5,
        lag: Lag = 1,
        startup: Annotated[
            int, Option("uniform candidates before the model is asked", least=1, most=10_000)
        ] = 10,
        ridge: Ridge = 0.1,
        pool: Annotated[
            int,
            Option("uniform sub-policies that a candidate is chosen from", least=1, most=1_000_000),
        ] = 2000,
    ) -> None:
        super().__init__(space, seed, batch_size=batch_size, lag=lag)
        self.model: AdditiveModel | CorrectedModel = AdditiveModel(space, ridge)
        self._startup = startup
        self._pool = max(pool, self.model.space.num_subpolicies)

    def _draw(self, batch: int) -> tuple[list[Decisions], dict[str, Any]]:
        rng = self._generator(batch)
        # Two rewards are the least that tell candidates apart.
        if batch * self.batch_size < self._startup or self.model.count < 2:
            sizes = self.space.decisions
            return [sample_decisions(sizes, rng) for _ in range(self.batch_size)], {}
        self.model.fit()
        return [self._candidate(rng) for _ in range(self.batch_size)], {}

    def _candidate(self, rng: np.random.Generator) -> Decisions:
        """The best of a pool of sub-policies under one draw of the weights.

        Every combination of operations is taken once, while the pool has others: what the model
        likes is alike, and a policy of alike sub-policies trains worse than its parts.
        """
        space = self.model.space
        width = 3 * space.num_operations
        rows = rng.integers(0, space.decisions[:width], (self._pool, width))
        weights = self.model.sample(rng)
        order = np.argsort(-(self.model.features(rows) @ weights), kind="stable").tolist()
        first: dict[tuple[int, ...], int] = {}
        for place in order:
            first.setdefault(tuple(sorted(rows[place, ::3].tolist())), place)
            if len(first) == space.num_subpolicies:
                break
        chosen = [*first.values()]
        rest = (place for place in order if place not in chosen)
        chosen += [*itertools.islice(rest, space.num_subpolicies - len(chosen))]
        return tuple(rows[chosen].ravel().tolist())

    def _update(
        self,
        batch: int,
        decisions: Sequence[Decisions],
        rewards: Sequence[float | None],
        notes: dict[str, Any],
    ) -> None:
        add_told(self.model, decisions, rewards)

    def practise(self, batch: int) -> None:
        """What `PPOSearcher` does with a model; draws from a posterior need none."""
