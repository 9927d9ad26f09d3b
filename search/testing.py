"""What every searcher promises, as tests for the authors of searchers (needs pytest).

    from search.testing import SearcherContract

    class TestMine(SearcherContract):
        def make(self, seed):
            return MySearcher(PolicySpace(), seed)

pytest then runs the contract's tests on `MySearcher`. With
`pytest.register_assert_rewrite("search.testing")` in conftest.py it also explains what failed.
Whether it finds better policies than those that ship is told in seconds by a race:

    laps = race({"mine": lambda seed: MySearcher(PolicySpace(), seed)}, against=["random"])
    assert ahead(laps, "mine", "random") < 0.01
"""

from __future__ import annotations

import abc
import importlib.util
import inspect
import json
import math
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from proxy_tasks.evaluators.evaluation import Evaluation
from search.searchers.base import Searcher
from search.studies.race import race
from search.trial import Candidate

__all__ = [
    "SearcherContract", "ahead", "check_fresh_process", "drive", "evaluation", "mixed", "race",
    "reward_of", "stream",
]  # fmt: skip

Judge = Callable[[Candidate], Evaluation | None]


def evaluation(reward: float | None) -> Evaluation:
    """An evaluation with this reward."""
    return Evaluation(reward, 0.01, {}, 1.0, 100)


def reward_of(candidate: Candidate) -> float:
    """A fixed pseudo-random reward in 0..1 of augmentation and seed."""
    text = f"{candidate.augmentation!r} {candidate.seed}"
    return zlib.crc32(text.encode()) % 1000 / 1000


def mixed(candidate: Candidate) -> Evaluation | None:
    """Of every 8 evaluations about one fails and one has a reward that is no number."""
    kind = zlib.crc32(repr(candidate.key).encode()) % 8
    if kind == 0:
        return None
    return evaluation(math.nan if kind == 1 else reward_of(candidate))


def drive(
    searcher: Searcher,
    count: int,
    *,
    order: int = 0,
    window: int = 1,
    judge: Judge = mixed,
    flight: list[Candidate] | None = None,
) -> dict[tuple[int, int], Candidate]:
    """Play the engine until `count` candidates are told, or the searcher is finished.

    Args:
        order: seed of the order in which results come in.
        window: candidates in flight at the same time, as with so many workers.
        judge: the result of a candidate; None for a failed evaluation.
        flight: candidates asked before; those left in flight at the end are added to it.

    Returns:
        The candidates told, by key.
    """
    rng = np.random.default_rng(order)
    flight = [] if flight is None else flight
    told: dict[tuple[int, int], Candidate] = {}
    while len(told) < count:
        while len(flight) < window:
            candidate = searcher.ask()
            if candidate is None:
                break
            flight.append(candidate)
        if searcher.finished:  # asked once more, since that may be how it finds out
            break
        assert flight, "the searcher waits although nothing is in flight"
        candidate = flight.pop(int(rng.integers(len(flight))))
        searcher.tell(candidate, judge(candidate))
        told[candidate.key] = candidate
    return told


def stream(searcher: Searcher, count: int, **options: Any) -> list[str]:
    """The first `count` candidates in order of their keys, as text."""
    # Told out of order, more have to be told until the first ones are all in.
    told = drive(searcher, 2 * count, **options)
    return [repr(told[key]) for key in sorted(told)][:count]


def ahead(laps: pd.DataFrame, first: str, second: str) -> float:
    """p of the one-sided paired t test that `first` is not ahead of `second` in the end.

    laps: of `race`. Seeds in which either found nothing are left out. NaN, which is below no level,
    for fewer than two seeds or differences that are all the same: nothing is shown by these.
    """
    last = laps[laps["evaluations"] == laps["evaluations"].max()]
    finals = last.pivot(index="seed", columns="searcher", values="value")[[first, second]].dropna()
    values = finals.to_numpy(float)
    gap = values[:, 0] - values[:, 1]
    if len(gap) < 2 or np.ptp(gap) <= 4e-12 * np.abs(values).max():
        return float("nan")
    return float(scipy.stats.ttest_1samp(gap, 0, alternative="greater").pvalue)


class SearcherContract(abc.ABC):
    """Tests of a searcher; subclass it as `Test...` and say how the searcher is made.

    Attributes:
        count: candidates of the short runs; choose several batches, and no more than it asks for.
        seeded: whether the seed changes what is asked.
    """

    count = 60
    seeded = True

    @abc.abstractmethod
    def make(self, seed: int) -> Searcher:
        """A new searcher; the same for the same seed, in any process."""

    def space_contains(self, searcher: Any, candidate: Candidate) -> bool:
        """Whether the searcher may ask for it; replace it where there is no `searcher.space`."""
        return searcher.space.contains(candidate.augmentation)

    def test_candidates_are_well_formed(self) -> None:
        searcher = self.make(5)
        told = drive(searcher, self.count, window=3)
        for candidate in told.values():
            assert self.space_contains(searcher, candidate)
            for number in (candidate.batch, candidate.slot, candidate.seed):
                assert type(number) is int
            assert 0 <= candidate.seed < 2**32
            for row in candidate.augmentation if isinstance(candidate.augmentation, tuple) else ():
                for name, probability, magnitude in row:
                    assert type(name) is str
                    assert type(probability) is float
                    assert type(magnitude) in (int, type(None))
        json.dumps([list(map(str, key)) for key in told])
        keys = list(told)
        assert len(set(keys)) == len(keys)

    def test_same_seed_same_candidates(self) -> None:
        assert stream(self.make(5), self.count) == stream(self.make(5), self.count)

    def test_seed_matters(self) -> None:
        if self.seeded:
            assert stream(self.make(5), self.count) != stream(self.make(6), self.count)

    @pytest.mark.parametrize(("window", "order"), [(2, 1), (7, 2), (64, 4)])
    def test_arrival_order_and_workers_do_not_matter(self, window: int, order: int) -> None:
        told = drive(self.make(5), self.count, window=1)
        other = drive(self.make(5), self.count, window=window, order=order)
        common = told.keys() & other.keys()
        assert len(common) >= self.count // 2
        assert all(told[key] == other[key] for key in common)

    def test_telling_what_is_not_open_is_refused(self) -> None:
        searcher = self.make(5)
        candidate = searcher.ask()
        assert candidate is not None, "a new searcher has nothing to ask"
        stranger = Candidate(10**6, 0, candidate.augmentation, 0)
        with pytest.raises(ValueError, match="not open"):
            searcher.tell(stranger, evaluation(0.5))
        searcher.tell(candidate, evaluation(0.5))
        with pytest.raises(ValueError, match="told before"):
            searcher.tell(candidate, evaluation(0.6))

    @pytest.mark.parametrize("judge", [
        lambda candidate: evaluation(0.25),
        lambda candidate: None,
        lambda candidate: evaluation(math.nan),
        lambda candidate: evaluation(None),
        lambda candidate: evaluation(1e12 * candidate.slot),
    ], ids=["constant", "failed", "nan", "none", "huge"])  # fmt: skip
    def test_any_reward_is_survived(self, judge: Judge) -> None:
        searcher = self.make(5)
        told = drive(searcher, self.count, window=5, judge=judge)
        assert all(self.space_contains(searcher, candidate) for candidate in told.values())

    def test_constant_reward_is_reproducible(self) -> None:
        def constant(candidate: Candidate) -> Evaluation:
            return evaluation(0.25)

        one = stream(self.make(5), self.count, judge=constant)
        assert one == stream(self.make(5), self.count, judge=constant, window=7, order=3)


def check_fresh_process(contracts: Sequence[type[SearcherContract]]) -> None:
    """The same candidates in another process, with other hash seeds: no set or dict order leaks."""
    classes = [[inspect.getfile(contract), contract.__qualname__] for contract in contracts]
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(classes)],
        env={**os.environ, "PYTHONHASHSEED": "random", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    for contract, candidates in zip(contracts, there, strict=True):
        assert candidates == _first_half(contract), contract.__qualname__


def _first_half(contract: type[SearcherContract]) -> list[str]:
    made = contract()
    return stream(made.make(5), made.count // 2, window=4, order=1)


def _streams(classes: list[tuple[str, str]]) -> list[list[str]]:
    """The candidates of contracts named by file and class."""
    modules = {}
    for number, file in enumerate(dict.fromkeys(file for file, _ in classes)):
        spec = importlib.util.spec_from_file_location(f"contracts_{number}", file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} is no Python file")
        modules[file] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[file])
    return [_first_half(getattr(modules[file], name)) for file, name in classes]


if __name__ == "__main__":
    print(json.dumps(_streams(json.loads(sys.argv[1]))))
