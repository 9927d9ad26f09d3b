"""A searcher of your own in a search: a hill climber, on rewards that are planted.

python examples/own_searcher.py --evaluations 400 --out runs/climber
"""

from __future__ import annotations

import argparse
from typing import Annotated, Any

from policies.options import Option
from search import BatchSearcher, Config, PolicySpace, run_search
from search.spaces import sample_decisions
from search.testing import SearcherContract


class HillClimber(BatchSearcher):
    """Draws candidates that differ from the best so far in a few decisions."""

    def __init__(
        self,
        space: PolicySpace,
        seed: int = 0,
        *,
        batch_size: Annotated[int, Option("candidates per step", least=1)] = 10,
        changes: Annotated[int, Option("decisions drawn anew in each candidate", least=1)] = 3,
    ) -> None:
        super().__init__(space, seed, batch_size=batch_size, lag=1)
        self.changes, self.best, self.reward = changes, None, float("-inf")

    def _draw(self, batch: int) -> tuple[list[tuple[int, ...]], dict[str, Any]]:
        rng, sizes = self._generator(batch), self.space.decisions
        drawn = [list(sample_decisions(sizes, rng)) for _ in range(self.batch_size)]
        for new in drawn if self.best else ():
            for place in rng.permutation(len(sizes))[self.changes :]:
                new[place] = self.best[place]
        return [tuple(new) for new in drawn], {}

    def _update(self, batch, decisions, rewards, notes) -> None:
        for candidate, reward in zip(decisions, rewards, strict=True):
            if reward is not None and reward > self.reward:  # None: the evaluation failed
                self.best, self.reward = candidate, reward


class TestHillClimber(SearcherContract):  # `pytest examples/own_searcher.py` runs the contract
    def make(self, seed: int) -> HillClimber:
        return HillClimber(PolicySpace(), seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--out", default="runs/climber")
    given = parser.parse_args()
    config = Config.of("search", task="synthetic", evaluator="synthetic", searcher=HillClimber,
                       searcher_options={"changes": 2}, evaluations=given.evaluations)  # fmt: skip
    result = run_search(config, given.out)
    print(f"best of {result.finished}: {result.best[0].reward:.3f} under", result.policy[0])
