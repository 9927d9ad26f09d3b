"""What every searcher promises. Subscribe by subclassing `SearcherContract` as `Test...`.

    class TestRandom(SearcherContract):
        source = "RandomSearcher(PolicySpace(), seed)"

`source` is an expression in `seed` with the names of the packages `search` and `policies`, so that
the same searcher can be built in a fresh process.
"""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def saved_and_loaded(state: dict) -> dict:
    """The way of a checkpoint: only data survives."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def assert_equal_data(one: Any, other: Any) -> None:
    """Equality of nested data with tensors in it, to the last bit (and NaN equals NaN)."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal_data(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal_data(a, b)
    else:
        assert repr(one) == repr(other)


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

    # The same property is run for every searcher, which hypothesis takes for a mistake.
    @settings(max_examples=4, suppress_health_check=[HealthCheck.differing_executors])
    @given(data=st.data())
    def test_state_goes_on_exactly(self, data):
        self.check_state(
            cut=data.draw(st.integers(0, self.count), "cut"),
            window=data.draw(st.integers(1, 30), "window"),
            order=data.draw(st.integers(0, 10), "order"),
        )

    def check_state(self, cut: int, window: int, order: int) -> None:
        searcher = self.make()
        flight: list[Candidate] = []
        drive(searcher, cut, window=window, order=order, flight=flight)
        state = saved_and_loaded(searcher.state_dict())
        resumed = self.make()
        resumed.load_state_dict(state)
        # What was asked and not told is asked again first, in order.
        again = [resumed.ask() for _ in flight]
        assert again == sorted(flight, key=lambda candidate: candidate.key)
        assert resumed.best(10) == searcher.best(10)
        assert resumed.finished == searcher.finished
        rest = {
            "count": self.count + 2 * window,
            "window": window,
            "order": order + 1,
        }
        straight = drive(searcher, flight=flight, **rest)
        told = drive(resumed, flight=again[::-1], **rest)
        common = straight.keys() & told.keys()
        assert len(common) >= min(self.count // 2, len(straight))
        assert all(straight[key] == told[key] for key in common)

    def test_state_is_a_snapshot(self):
        searcher = self.make()
        flight: list[Candidate] = []
        # Long enough for updates before and after.
        drive(searcher, self.count * 2 // 3, window=3, flight=flight)
        state = searcher.state_dict()
        before = saved_and_loaded(state)
        drive(searcher, self.count, window=3, flight=flight)
        assert_equal_data(state, before)

    def test_state_of_other_arguments_is_refused(self):
        if self.seeded:
            with pytest.raises(ValueError, match="searcher state"):
                self.make(6).load_state_dict(self.make(5).state_dict())

    def test_telling_what_is_not_open_is_refused(self):
        searcher = self.make()
        candidate = searcher.ask()
        stranger = Candidate(10**6, 0, candidate.augmentation, 0)
        with pytest.raises(ValueError, match="not open"):
            searcher.tell(stranger, evaluation(0.5))
        searcher.tell(candidate, evaluation(0.5))
        with pytest.raises(ValueError, match="told before"):
            searcher.tell(candidate, evaluation(0.6))
        assert [told.reward for _, told in searcher.best(5)] == [0.5]

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
        usable = judge(Candidate(0, 1, None, 0))
        if usable is None or usable.reward is None or math.isnan(usable.reward):
            assert searcher.best(5) == []

    def test_constant_reward_is_reproducible(self):
        def constant(candidate):
            return evaluation(0.25)

        one = stream(self.make(), self.count, judge=constant)
        assert one == stream(self.make(), self.count, judge=constant, window=7, order=3)

    def test_best_is_ordered_and_ties_go_to_the_earlier(self):
        def coarse(candidate):
            return evaluation(round(reward_of(candidate), 1))

        for order in range(3):
            searcher = self.make()
            # Everything told, so that the order of telling is all that differs.
            flight: list[Candidate] = []
            told = drive(searcher, self.count, window=9, order=order, judge=coarse, flight=flight)
            first = {key: c for key, c in told.items()}
            for candidate in flight:
                searcher.tell(candidate, coarse(candidate))
                first[candidate.key] = candidate
            expected: dict = {}
            for candidate in sorted(first.values(), key=lambda c: (-coarse(c).reward, c.key)):
                expected.setdefault(repr(candidate.augmentation), candidate)
            assert [c for c, _ in searcher.best(7)] == list(expected.values())[:7]
            assert [e.reward for _, e in searcher.best(7)] == [
                coarse(c).reward for c in list(expected.values())[:7]
            ]


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
