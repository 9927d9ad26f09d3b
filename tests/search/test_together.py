"""Several candidates in one call of a worker: who gets how many, and who is to blame."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from policies.errors import InputError
from proxy_tasks.evaluators.base import Together
from proxy_tasks.evaluators.config import EvaluatorConfig
from search import PoolConfig, make_searcher
from search.engine import loop as engine
from search.engine.pool import WorkerPool
from search.engine.worker import Worker
from search.spaces import PolicySpace
from search.trial import Candidate
from tests.search import fakes
from tests.search.running import lines, results, run

BAD = 13  # the seed of a candidate that raises


class Counted(Together):
    """Rewards by seed, and notes how many were evaluated at once."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def check_together(self) -> None:
        pass

    def evaluate(self, augmentation: Any, seed: int, part: str = "validation"):
        return self.evaluate_together([augmentation], [seed], part)[0]

    def evaluate_together(self, augmentations, seeds, part="validation"):
        self.calls.append(list(seeds))
        if BAD in seeds:
            raise RuntimeError(f"planted at seed {BAD}")
        return [fakes.evaluation((seed % 1000) / 1000) for seed in seeds]


def in_process(pool: WorkerPool, evaluator: Any, together: int) -> None:
    """Let the pool's idle workers be real ones that answer at once, in this process."""
    worker = Worker()
    info = worker.setup(
        {"main": EvaluatorConfig(kind="synthetic")}, None, {}, 1, lambda *_: evaluator, together
    )
    if info.get("mistake"):
        raise info["mistake"]

    def evaluate(*arguments):
        ref = object()
        pool._ray.answers[ref] = worker.evaluate(*arguments)
        return ref

    for slot in pool._slots:
        slot.actor = SimpleNamespace(evaluate=SimpleNamespace(remote=evaluate))


def made(together=3, workers=2, **options):
    evaluator = Counted()
    pool = fakes.bare_pool(PoolConfig(workers=workers, children_per_gpu=together, **options))
    in_process(pool, evaluator, together)
    return pool, evaluator


def test_workers_share_what_there_is_evenly():
    pool, evaluator = made(together=3, workers=2)
    assert pool.capacity() == 6
    for seed in range(5):
        pool.submit(fakes.job(seed))
    assert pool.capacity() == 1
    outcomes = pool.wait(0.0)
    assert evaluator.calls == [[0, 1, 2], [3, 4]]
    assert [o.evaluation["reward"] for o in outcomes] == [0, 0.001, 0.002, 0.003, 0.004]
    assert pool.capacity() == 12  # short evaluations: the next may wait in the worker's queue
    spans = [(o.started, o.finished) for o in outcomes[:2]]
    assert spans[0][1] == spans[1][0]  # each its share of the time


def test_more_than_a_worker_takes_at_once_waits():
    pool, evaluator = made(together=3, workers=1)
    for seed in range(7):
        pool.submit(fakes.job(seed))
    done = [o.job.candidate.seed for _ in range(4) for o in pool.wait(0.0)]
    assert evaluator.calls == [[0, 1, 2], [3, 4, 5], [6]] and done == list(range(7))


def test_one_that_fails_does_not_take_the_others_down(caplog):
    pool, evaluator = made(together=4, workers=1)
    for seed in (1, BAD, 2):
        pool.submit(fakes.job(seed))
    outcomes = [o for _ in range(5) for o in pool.wait(0.0)]
    assert evaluator.calls == [[1, BAD, 2], [1], [BAD], [2]]
    assert [(o.kind, o.job.candidate.seed) for o in outcomes] == [
        ("ok", 1), ("error", BAD), ("ok", 2)]  # fmt: skip
    assert all(o.job.attempt == 1 for o in outcomes)
    assert "of 3 evaluations at once: RuntimeError: planted at seed 13" in caplog.text


def test_neither_does_one_that_hangs_or_kills_the_worker():
    for ends in ("_expire", "_crashed"):
        pool, _ = made(together=3, workers=1, time_limit=10.0)
        (slot,) = pool._slots
        jobs = [fakes.job(seed) for seed in range(3)]
        slot.queue.extend(("one call", job) for job in jobs)
        slot.head_since = time.monotonic() - 11
        outcomes: list = []
        if ends == "_expire":
            pool._expire(outcomes)
        else:
            pool._crashed(slot, "gone", outcomes)
        assert outcomes == [] and list(pool._backlog) == jobs
        assert all(job.alone and job.attempt == 1 for job in jobs)


def test_only_what_asks_for_the_same_is_evaluated_together():
    pool, evaluator = made(together=4, workers=1)
    for seed in range(4):
        job = fakes.job(seed)
        part = "test" if seed == 2 else "validation"
        job.candidate = SimpleNamespace(
            scorer="main", part=part, seed=seed, augmentation=None, key=(0, seed)
        )
        pool.submit(job)
    for _ in range(4):
        pool.wait(0.0)
    assert evaluator.calls == [[0, 1], [2], [3]]


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        ({}, {}, 2),
        ({"alone": True}, {}, 1),
        ({}, {"alone": True}, 1),
        ({}, {"candidate": Candidate(0, 1, None, 1, scorer="cheap")}, 1),
        ({}, {"candidate": Candidate(0, 1, None, 1, part="test")}, 1),
    ],
)
def test_what_is_to_be_alone_or_is_another_kind_is_taken_by_itself(first, second, count):
    pool = fakes.bare_pool(PoolConfig(workers=1, children_per_gpu=4))
    for seed, changes in enumerate((first, second)):
        pool.submit(replace(fakes.job(seed), **changes))
    assert len(pool._take(4)) == count and len(pool._backlog) == 2 - count


def test_the_worker_with_the_least_to_do_is_next_and_what_is_alone_needs_an_idle_one():
    pool, _ = made(together=1, workers=2)
    pool._mean_seconds = 0.1  # so short that one may wait behind another
    busy, idle = pool._slots
    busy.queue.append(("one call", fakes.job(0)))
    for seed in (1, 2):
        pool.submit(fakes.job(seed))
        pool._dispatch()
    assert (len(busy.queue), len(idle.queue)) == (2, 1)
    assert busy.head_since == 0 < idle.head_since  # the clock is that of the first
    pool.submit(replace(fakes.job(3), alone=True))
    pool._dispatch()
    assert len(pool._backlog) == 1
    idle.ready = "setup"  # whoever is not ready is given nothing
    assert pool._open_slots() == [busy]


def test_how_long_evaluations_take_is_that_of_all_made_at_once():
    pool, _ = made(together=2, workers=1)
    (slot,) = pool._slots
    for ref, seconds in (("one", 1.0), ("other", 5.0)):
        slot.queue.extend((ref, fakes.job(seed)) for seed in range(2))
        pool._refs[ref] = slot
        pool._ray.answers[ref] = [
            {"evaluation": {}, "started": k * seconds, "finished": (k + 1) * seconds}
            for k in range(2)
        ]
        assert len(pool.wait(0.0)) == 2
        assert pool._depth == 1  # too long to wait in a worker's queue
    assert pool._mean_seconds == pytest.approx(0.9 * 2 + 0.1 * 10)


def test_a_mistake_of_the_user_is_not_tried_again_one_by_one():
    pool, _ = made(together=2, workers=1)
    (slot,) = pool._slots
    slot.queue.extend(("one call", fakes.job(seed)) for seed in range(2))
    pool._refs["one call"] = slot
    mistake = InputError("a", "b", "c", "d")
    failed = {"error": "a", "detail": "", "mistake": mistake, "started": 0.0, "finished": 1.0}
    pool._ray.answers["one call"] = [failed, failed]
    assert [o.mistake for o in pool.wait(0.0)] == [mistake, mistake]


@pytest.mark.parametrize("together", [1, 4])
def test_the_journal_does_not_depend_on_how_many_are_evaluated_at_once(
    patch, tmp_path, together, monkeypatch
):
    calls = []

    def pool_of(config, *_, **__):
        pool, evaluator = made(config.children_per_gpu, config.workers)
        pool.__class__ = type("Pool", (WorkerPool,), {
            "__enter__": lambda self: self, "__exit__": lambda self, *_: None,
            "prepare": lambda self, stopped: {}})  # fmt: skip
        calls.append(evaluator.calls)
        return pool

    searcher = fakes.LearningSearcher()
    first = run(patch, tmp_path / "one", searcher, pool_of, workers=2, evaluations=23)
    more = run(
        patch, tmp_path / "more", fakes.LearningSearcher(), pool_of, workers=2, evaluations=23,
        config={"children_per_gpu": together},
    )  # fmt: skip
    assert lines(tmp_path / "one") == lines(tmp_path / "more")
    assert results(first) == results(more)
    assert max(map(len, calls[1])) == (1 if together == 1 else 4)


def test_wrong_use_is_named(tmp_path):
    with pytest.raises(InputError, match="children_per_gpu: needs an evaluator that trains child"):
        in_process(fakes.bare_pool(PoolConfig(workers=1)), fakes.BySeed(), 2)
    with pytest.raises(InputError, match="children_per_gpu"):
        PoolConfig(children_per_gpu=0)
    ppo = make_searcher("ppo", PolicySpace())
    assert ppo.most_open == 10
    assert make_searcher("random", PolicySpace()).most_open is None
    with pytest.raises(InputError, match="must be at most the 10 candidates"):
        engine.run(ppo, fakes.SYNTHETIC, None, tmp_path / "run", evaluations=5,
                   pool=PoolConfig(children_per_gpu=11))  # fmt: skip
    assert not (tmp_path / "run").exists()
