"""What every searcher promises. Subscribe by subclassing `SearcherContract` as `Test...`.

    class TestRandom(SearcherContract):
        source = "RandomSearcher(PolicySpace(), seed)"

`source` is an expression in `seed` with the names of the packages `search` and `policies`, so that
the same searcher can be built in a fresh process.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

import policies
import search
from proxy_tasks import Evaluation
from search import Candidate, Searcher


def evaluation(reward: float | None) -> Evaluation:
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
    judge: Callable[[Candidate], Evaluation | None] = mixed,
    flight: list[Candidate] | None = None,
) -> dict[tuple[int, int], Candidate]:
    """Play the engine with `window` workers until `count` candidates are told, or it is finished.

    order: seed of the order in which results come in. flight: candidates asked before; those left
    in flight at the end are added to it. Returns the candidates told, by key.
    """
    rng = np.random.default_rng(order)
    flight = [] if flight is None else flight
    told: dict[tuple[int, int], Candidate] = {}
    while len(told) < count and not searcher.finished:
        while len(flight) < window:
            candidate = searcher.ask()
            if candidate is None:
                break
            flight.append(candidate)
        assert flight, "the searcher waits although nothing is in flight"
        candidate = flight.pop(int(rng.integers(len(flight))))
        searcher.tell(candidate, judge(candidate))
        told[candidate.key] = candidate
    return told


def stream(searcher: Searcher, count: int, **options) -> list[str]:
    """The first `count` candidates in order of their keys, as text."""
    # Told out of order, more have to be told until the first ones are all in.
    told = drive(searcher, 2 * count, **options)
    return [repr(told[key]) for key in sorted(told)][:count]


def build(source: str, seed: int) -> Searcher:
    packages = (policies, search)
    names = {name: getattr(package, name) for package in packages for name in package.__all__}
    names |= {"replace": replace, "mkdtemp": tempfile.mkdtemp, "seed": seed}
    return eval(source, names)


class SearcherContract:
    source: str
    # Candidates of the short runs below; several batches.
    count = 60
    # Whether the seed changes what is asked.
    seeded = True

    def make(self, seed: int = 5) -> Searcher:
        return build(self.source, seed)

    def space_contains(self, searcher: Searcher, candidate: Candidate) -> bool:
        return searcher.space.contains(candidate.augmentation)

    def test_candidates_are_well_formed(self):
        searcher = self.make()
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

    def test_same_seed_same_candidates(self):
        assert stream(self.make(), self.count) == stream(self.make(), self.count)

    def test_seed_matters(self):
        if self.seeded:
            assert stream(self.make(5), self.count) != stream(self.make(6), self.count)

    @pytest.mark.parametrize(("window", "order"), [(2, 1), (7, 2), (64, 4)])
    def test_arrival_order_and_workers_do_not_matter(self, window, order):
        told = drive(self.make(), self.count, window=1)
        other = drive(self.make(), self.count, window=window, order=order)
        common = told.keys() & other.keys()
        assert len(common) >= self.count // 2
        assert all(told[key] == other[key] for key in common)

    def test_telling_what_is_not_open_is_refused(self):
        searcher = self.make()
        candidate = searcher.ask()
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
    def test_any_reward_is_survived(self, judge):
        searcher = self.make()
        told = drive(searcher, self.count, window=5, judge=judge)
        assert all(self.space_contains(searcher, candidate) for candidate in told.values())

    def test_constant_reward_is_reproducible(self):
        def constant(candidate):
            return evaluation(0.25)

        one = stream(self.make(), self.count, judge=constant)
        assert one == stream(self.make(), self.count, judge=constant, window=7, order=3)


PROCESS = """
import json, sys
from tests.contracts.searcher import build, stream
sources = json.loads(sys.argv[1])
streams = [stream(build(source, 5), count, window=4, order=1) for source, count in sources]
print(json.dumps(streams))
"""


def check_fresh_process(contracts: Sequence[type[SearcherContract]]) -> None:
    """The same candidates in another process, with other hash seeds: no set or dict order leaks."""
    sources = [[contract.source, contract.count // 2] for contract in contracts]
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, json.dumps(sources)],
        env={**os.environ, "PYTHONHASHSEED": "random", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    for (source, count), candidates in zip(sources, there, strict=True):
        assert candidates == stream(build(source, 5), count, window=4, order=1), source
