"""Staged search: many cheap evaluations as a prior, then children from scratch that correct it.

A cheap evaluator ranks the policies of random search well and those where a search ends not at
all: whoever optimises it finds its bias. So most of the budget goes to the evaluator that holds
(scorer "main"); the cheap one (scorer "cheap") judges uniform candidates alone, whose rewards
start the additive model that the dear rewards then correct (`additive.CorrectedModel`). Candidates
for the dear evaluator are uniform at first, since rewards of candidates that the cheap model likes
do not tell how the two kinds are scaled; later they are proposed by Thompson sampling on the model,
or by the PPO controller, which practises on it and is rewarded by the dear evaluator.

Multi-fidelity search in this form, a prior from the cheap source and a model of its bias, is that
of Kennedy and O'Hagan 2000 (autoregressive models of computer codes).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from policies.options import Option, checks_options
from search.spaces import Space, sample_decisions
from search.trial import CHEAP, MAIN

from .additive import CorrectedModel, Ridge, add_told
from .batches import BatchSearcher, BatchSize, Decisions, Lag
from .ppo import PPO_PRESETS, PPOSearcher
from .thompson import ThompsonSearcher

CHEAP_BATCHES = 4  # cheap candidates of a batch, for each dear one


class StagedSearcher(BatchSearcher):
    """Spends its first evaluations, and later a share of all cost, on the cheap evaluator.

    Which batch is judged by whom depends on the batches before it and on no budget: a search may
    be extended, and goes on as if it had been asked for more from the start.

    Args:
        space: a `PolicySpace`; the model has no other features.
        cheap_cost: of a cheap evaluation, in dear ones (a search fills it in); 0: there is no cheap
            evaluator, and all candidates are dear.
        prior: cost of the first, cheap, batches. share: of the cost so far that is kept cheap.
        startup: dear candidates that are uniform.
        proposer: who proposes later ones to the dear evaluator.
        ridge: variance of one evaluation's noise over prior variance of a weight.
        batch_size: dear candidates per batch. lag: as for `BatchSearcher`.
    """

    @checks_options
    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        cheap_cost: Annotated[
            float, Option("cost of a cheap evaluation in dear ones; 0: there are none", least=0)
        ] = 0.0,
        prior: Annotated[
            float, Option("cost of the cheap evaluations to begin with, in dear ones", above=0)
        ] = 10.0,
        share: Annotated[
            float, Option("share of the cost so far that goes to the cheap one", least=0, below=1)
        ] = 0.25,
        startup: Annotated[
            int, Option("uniform dear candidates to begin with", least=0, most=10_000)
        ] = 10,
        proposer: Annotated[
            Literal["thompson", "ppo"], Option("who proposes candidates to the dear evaluator")
        ] = "thompson",
        batch_size: BatchSize = 5,
        lag: Lag = 1,
        ridge: Ridge = 0.1,
    ) -> None:
        super().__init__(space, seed, batch_size=batch_size, lag=lag)
        self._model = CorrectedModel(space, ridge)
        self._proposer: ThompsonSearcher | PPOSearcher
        if proposer == "thompson":
            # How many are uniform is decided here, not by its own startup.
            self._proposer = ThompsonSearcher(space, seed, batch_size=batch_size, startup=1)
        else:
            config = dataclasses.replace(PPO_PRESETS["cpu"], batch_size=batch_size)
            self._proposer = PPOSearcher(space, seed, config)
        self._proposer.model = self._model
        self._cheap_cost, self._prior, self._share = cheap_cost, prior, share
        self._startup = startup
        cheap = CHEAP_BATCHES * batch_size * cheap_cost  # of a batch
        self.opening = math.ceil(prior / cheap - 1e-9) * cheap if cheap else 0.0
        self._scorers: list[str] = []
        self._spent = {MAIN: 0.0, CHEAP: 0.0}

    @property
    def most_open(self) -> int | None:
        most = super().most_open
        return most if most is None or not self._cheap_cost else CHEAP_BATCHES * most

    def _scorer(self, batch: int) -> str:
        return self._scorers[batch]

    def _cheap_is_due(self) -> bool:
        wanted = max(self._prior, self._share * sum(self._spent.values()))
        # The small term keeps the rounding of sums from deciding.
        return self._cheap_cost > 0 and self._spent[CHEAP] < wanted - 1e-9

    def _draw(self, batch: int) -> tuple[list[Decisions], dict[str, Any]]:
        cheap = self._cheap_is_due()
        scorer = CHEAP if cheap else MAIN
        count = CHEAP_BATCHES * self.batch_size if cheap else self.batch_size
        uniform = cheap or self._spent[MAIN] < self._startup
        self._scorers.append(scorer)
        self._spent[scorer] += count * self._cheap_cost if cheap else count
        if not uniform:
            return self._proposer._draw(batch)
        rng, sizes = self._generator(batch), self.space.decisions
        return [sample_decisions(sizes, rng) for _ in range(count)], {"uniform": True}

    def _update(
        self,
        batch: int,
        decisions: Sequence[Decisions],
        rewards: Sequence[float | None],
        notes: dict[str, Any],
    ) -> None:
        if "uniform" not in notes:
            self._proposer._update(batch, decisions, rewards, notes)
        elif any(reward is not None for reward in rewards):
            cheap = self._scorer(batch) == CHEAP
            add_told(self._model.cheap if cheap else self._model, decisions, rewards)
            self._model.fit()
            self._proposer.practise(batch)
