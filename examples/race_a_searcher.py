"""A searcher of your own, raced against those that ship: seconds instead of days.

python examples/race_a_searcher.py --seeds 30
"""

import argparse

from analysis import analyse_race
from search import BatchSearcher, PolicySpace
from search.spaces import sample_decisions
from search.testing import race


class Halves(BatchSearcher):
    """Crosses the best so far with random ones: every decision is that of either."""

    best: tuple = (float("-inf"), ())

    def _draw(self, batch):
        rng, sizes = self._generator(batch), self.space.decisions
        fresh = [sample_decisions(sizes, rng) for _ in range(self.batch_size)]
        parents = [self.best[1] or row for row in fresh]
        return [self._cross(*pair, rng) for pair in zip(fresh, parents, strict=True)], {}

    def _cross(self, one, other, rng):
        return tuple(pair[rng.integers(2)] for pair in zip(one, other, strict=True))

    def _update(self, batch, decisions, rewards, notes):
        told = [(r, row) for r, row in zip(rewards, decisions, strict=True) if r is not None]
        self.best = max([self.best, *told])


arguments = argparse.ArgumentParser()
arguments.add_argument("--table", default="planted", help="planted, a packaged table or a file")
arguments.add_argument("--seeds", type=int, default=30)
given = arguments.parse_args()
mine = {"halves": lambda seed: Halves(PolicySpace(), seed)}
laps = race(mine, given.table, against=["random", "thompson"], seeds=given.seeds)
print(analyse_race(laps).text)
