"""A searcher by batches whose draws come to an end."""

from __future__ import annotations

from search import BatchSearcher, PolicySpace
from search.spaces import sample_decisions
from search.testing import SearcherContract, drive


class TwoBatches(BatchSearcher):
    """One that comes to an end: five candidates, then two."""

    calls: tuple[int, ...] = ()

    def _draw(self, batch):
        self.calls += (batch,)
        rng = self._generator(batch)
        count = {0: 5, 1: 2}.get(batch, 0)
        return [sample_decisions(self.space.decisions, rng) for _ in range(count)], {}


class TestOneThatEnds(SearcherContract):
    count = 7
    lag: int | None = 1

    def make(self, seed):
        return TwoBatches(PolicySpace(), seed, batch_size=5, lag=self.lag)

    def test_it_is_finished_when_all_is_told(self):
        searcher = self.make(0)
        assert len(drive(searcher, 100, window=3)) == 7 and searcher.finished
        assert searcher.ask() is None and searcher.calls == (0, 1, 2), "asked when it had no more"

    def test_while_something_is_in_flight_it_is_not(self):
        searcher, flight = self.make(0), []
        drive(searcher, 6, window=2, flight=flight)
        assert searcher.ask() is None and not searcher.finished
        searcher.tell(flight.pop(), None)
        assert searcher.finished


class TestOneThatEndsWithoutWaiting(TestOneThatEnds):
    lag = None
