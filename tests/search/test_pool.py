"""The pool with real Ray workers: they fail in every way there is, and nothing is lost."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from policies.errors import InputError
from policies.files import write_json
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.evaluators.registry import Evaluator
from search import Config, FixedSearcher, PoolConfig, fixed_candidates, run_search
from search.engine import cluster
from search.engine import loop as engine
from search.engine.pool import WorkerPool
from search.errors import WorkerError
from search.runs.blobs import read_blob, write_blob
from search.runs.journal import Journal
from search.trial import JOURNAL_NAME, read_journal
from tests.search import fakes


def run(
    directory, factory, *, seeds=range(4), options=None, task=None, threads=1, resume=False, **pool
):
    searcher = FixedSearcher(fixed_candidates({"none": None}, list(seeds)))
    config = EvaluatorConfig(kind="synthetic", options=options or {}, threads=threads)
    result = engine.run(
        searcher,
        {"main": config},
        task,
        directory,
        pool=PoolConfig(**{"workers": 2, **pool}),
        progress=False,
        resume=resume,
        factory=factory,
    )
    with Journal(directory / "trials.jsonl") as journal:
        return result, {trial.seed: trial for trial in journal.trials()}


def test_workers_that_raise_crash_hang_or_talk_nonsense(ray, tmp_path):
    # The crash comes last: what its worker had just finished is lost with it, and made again.
    plan = {0: ["raise"], 1: ["diverge"], 2: ["hang"], 3: ["nan"] * 9, 4: ["raise"] * 9,
            9: ["crash"]}  # fmt: skip
    started = time.monotonic()
    result, records = run(
        tmp_path,
        fakes.make_unreliable,
        seeds=range(10),
        options={"plan": plan, "place": str(tmp_path / "attempts")},
        retries=1,
        time_limit=2.0,
    )
    assert time.monotonic() - started < 1800  # and not the hour that one would have hung
    assert sorted(records) == list(range(10))
    for seed, record in records.items():
        # A crash may hit a worker with two evaluations: then it counts for neither.
        assert seed == 9 or record.attempts == (2 if seed in (0, 2, 3, 4) else 1), record
        assert record.status == ("failed" if seed in (3, 4) else "ok")
        if record.status == "ok":
            assert record.evaluation.reward == seed / 1000
            assert record.evaluation.diverged == (seed == 1)
    assert records[3].error == "evaluation.reward is nan"
    assert records[4].error == "RuntimeError: planted at seed 4"
    assert result.restarts == 2
    assert (result.ok, result.failed) == (8, 2)
    assert result.retried == 3 + records[9].attempts
    log = (tmp_path / "run.log").read_text()
    assert "not done after 2 seconds (time limit)" in log
    assert ("the worker died" in log) == (records[9].attempts == 2)
    assert "in evaluate" in log  # the worker's own traceback


def test_a_broken_evaluator_stops_the_run_at_once_with_its_traceback(ray, tmp_path):
    with pytest.raises(WorkerError, match="RuntimeError: no evaluator today"):
        run(tmp_path, fakes.make_nothing, workers=1)
    assert "in make_nothing" in (tmp_path / "run.log").read_text()


def test_a_mistake_found_by_a_worker_is_a_mistake_of_the_user(ray, tmp_path):
    config = EvaluatorConfig(kind="synthetic", options={"wings": 2})
    searcher = FixedSearcher(fixed_candidates({"none": None}, [1]))
    with pytest.raises(InputError, match="wings"):
        engine.run(searcher, {"main": config}, None, tmp_path, progress=False)


def test_an_evaluator_that_never_works_stops_the_run(ray, tmp_path):
    with pytest.raises(WorkerError, match="no evaluation has succeeded.*ValueError: no image"):
        run(tmp_path, fakes.make_failing, seeds=range(30))


def test_one_off_work_is_done_once_and_shared(ray, tmp_path):
    trained = tmp_path / "trained"
    folder = tmp_path / "run"
    options = {"trained": str(trained)}
    _, records = run(folder, fakes.make_prepared, options=options)
    assert {record.evaluation.reward for record in records.values()} == {0.25}
    assert len({record.worker for record in records.values()}) == 2
    assert trained.read_text() == "trained\n"
    shared = folder / "prepared" / "main.bin"
    assert read_blob(shared) == b"0.25"

    (folder / "trials.jsonl").unlink()  # everything is to be evaluated again, nothing trained
    write_json(folder / "prepared.json", {"main": write_blob(shared, b"0.75")})
    _, records = run(folder, fakes.make_prepared, options=options)
    assert {record.evaluation.reward for record in records.values()} == {0.75}
    assert trained.read_text() == "trained\n"

    damaged = shared.read_bytes().replace(b"0.75", b"0.85")
    shared.write_bytes(damaged)
    (folder / "trials.jsonl").unlink()
    _, records = run(folder, fakes.make_prepared, options=options)
    assert {record.evaluation.reward for record in records.values()} == {0.25}
    assert trained.read_text() == 2 * "trained\n"
    assert "is damaged" in (folder / "run.log").read_text()


class Surroundings(Evaluator):
    """Reports what it finds in the worker instead of evaluating."""

    def __init__(self, config: EvaluatorConfig, task: Any) -> None:
        self.task = task
        self.place = config.options["place"]

    def evaluate(self, augmentation: Any, seed: int, part: str = "validation") -> Evaluation:
        import torch

        fakes.meet(Path(self.place), 2)
        images = self.task["images"]
        private = psutil.Process().memory_full_info().uss
        details = {
            "omp": os.environ["OMP_NUM_THREADS"],
            "torch": torch.get_num_threads(),
            "writeable": images.flags.writeable,
            "owned": images.flags.owndata,
            "sum": int(images[:, ::4096].sum()),
            "private": private,
        }
        return Evaluation(0.5, None, {}, 0.0, 0, details=details)


def make_surroundings(config: EvaluatorConfig, task: Any) -> Evaluator:
    return Surroundings(config, task)


def test_task_arrays_are_shared_and_threads_are_fixed(ray, tmp_path):
    images = np.full((100, 4 * 2**20), 7, np.uint8)  # 400 MB
    _, records = run(
        tmp_path,
        make_surroundings,
        task={"images": images},
        threads=2,
        options={"place": str(tmp_path / "met")},
    )
    for record in records.values():
        found = record.evaluation.details
        assert (found["omp"], found["torch"]) == ("2", 2)
        assert not found["writeable"] and not found["owned"]
        assert found["sum"] == 100 * 1024 * 7
        # torch and the rest need about 300 MB; a copy of the task would show.
        assert found["private"] < 400 * 2**20, found["private"]
    assert len({record.worker for record in records.values()}) == 2


def test_one_two_and_four_workers_give_the_same_policy_and_journal(ray, tmp_path):
    counts = (1, 2, 4)
    for workers in counts:
        config = Config.of(
            "search",
            task="synthetic",
            evaluator="synthetic",
            evaluator_options={"sleep": 0.03},  # else the first worker may do all
            searcher="ppo",
            evaluations=90,
            searcher_options={"batch_size": 10},
            workers=workers,
            cpus=0.5,
        )
        assert run_search(config, tmp_path / str(workers), progress=False).finished == 90
    alone, two, together = (tmp_path / str(workers) for workers in counts)
    assert len({(each / "policy.txt").read_bytes() for each in (alone, two, together)}) == 1
    assert results(alone) == results(two) == results(together)
    assert len({trial.worker for trial in read_journal(together / JOURNAL_NAME)}) > 1


def results(folder):
    """The journal in the order of the searcher, without what tells of times and workers."""
    trials = sorted(read_journal(folder / JOURNAL_NAME), key=lambda trial: trial.key)
    return [
        replace(
            trial, started=0.0, finished=0.0, worker="",
            evaluation=replace(trial.evaluation, seconds=0.0),
        )
        for trial in trials
    ]  # fmt: skip


def test_ray_listens_on_the_loopback_only_and_shows_no_dashboard(ray):
    assert ray.get(ray.remote(fakes.grid).remote(2)) == [(0,), (1,)]
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        (process.name(), connection.laddr.ip)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
    assert 8265 not in [c.laddr.port for p in processes for c in p.net_connections("inet")]


@pytest.mark.ray
def test_starting_ray_leaves_the_environment_alone(monkeypatch):
    """Programs started later must be free to start or join a Ray of another kind."""
    monkeypatch.setenv("RAY_DEDUP_LOGS", "1")
    before = dict(os.environ)
    for loopback in (True, False):
        with cluster._starting(loopback) as ray:
            assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == str(int(not loopback))
            assert os.environ["RAY_DEDUP_LOGS"] == "1"  # the user's
            assert ray._private.ray_constants.ENABLE_RAY_CLUSTER is not loopback
        assert dict(os.environ) == before
        assert ray._private.ray_constants.ENABLE_RAY_CLUSTER is True


def test_what_an_evaluation_leaves_comes_back_and_is_gone_on_from(ray):
    config = {"main": EvaluatorConfig(kind="synthetic")}
    with WorkerPool(PoolConfig(workers=1), config, None, factory=fakes.make_growing) as pool:
        assert pool.prepare(lambda: False) == {}
        left = None
        for seed in range(3):
            pool.submit(replace(fakes.job(seed), artifact=left))
            while not (outcomes := pool.wait(10.0)):
                pass
            assert [outcome.kind for outcome in outcomes] == ["ok"]
            left = outcomes[0].artifact
    assert left == b"start, 0, 1, 2"


def test_gpus_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="gpus: needs a GPU that Ray can see, but got 0.5"):
        cluster._check_gpus(PoolConfig(gpus=0.5), 0.0)
    with pytest.raises(InputError, match="at most the 1 GPUs"):
        cluster._check_gpus(PoolConfig(gpus=0.5, workers=3), 1.0)
    cluster._check_gpus(PoolConfig(gpus=0.5, workers=2), 1.0)
    cluster._check_gpus(PoolConfig(gpus=0.5, workers=3, address="a:1"), 1.0)


def test_a_dead_node_is_told_also_by_a_pool_that_found_ray_running(monkeypatch):
    """As the later pools of a study do: Ray itself would end the process without a word."""
    pool = fakes.bare_pool(PoolConfig(workers=1))
    assert not pool._started_ray
    monkeypatch.setattr(cluster, "ended", lambda: "raylet")
    with pytest.raises(WorkerError, match="raylet, which holds Ray's workers"):
        pool.wait(0.0)


def test_of_two_evaluations_in_a_crash_neither_is_blamed_until_it_was_alone():
    pool = fakes.bare_pool(PoolConfig(workers=1))
    first, second, third = fakes.job(0), fakes.job(1), fakes.job(2)
    pool._backlog.append(third)  # asked for later: it has to wait until those are made again
    pool._slots[0].queue.extend([("ref 1", first), ("ref 2", second)])
    pool._running, pool._refs = 2, dict.fromkeys(("ref 1", "ref 2"), pool._slots[0])
    outcomes: list = []
    pool._crashed(pool._slots[0], "gone", outcomes)
    assert outcomes == [] and list(pool._backlog) == [first, second, third]
    assert pool._running == 0 and pool._refs == {}
    assert first.alone and second.alone and first.attempt == second.attempt == 1

    slot = fakes.idle_slot(pool)
    slot.queue.append(("ref 3", first))
    pool._running = 1
    assert pool._open_slots() == []  # nobody queues behind it
    pool._crashed(slot, "gone", outcomes)
    assert [(o.kind, o.job) for o in outcomes] == [("crash", first)] and pool._running == 0


def test_time_limits_are_per_evaluation_not_per_queue():
    """A waiting evaluation's clock starts when the one before it is done."""
    pool = fakes.bare_pool(PoolConfig(workers=1, time_limit=10.0))
    slot = pool._slots[0]
    slot.queue.extend([("ref 1", fakes.job(0)), ("ref 2", fakes.job(1))])
    slot.head_since = time.monotonic() - 9.0
    outcomes: list = []
    pool._expire(outcomes)
    assert outcomes == []
    slot.head_since = time.monotonic() - 10.1
    pool._expire(outcomes)
    assert [(o.kind, o.job.candidate.seed) for o in outcomes] == [("timeout", 0)]
    assert [job.candidate.seed for job in pool._backlog] == [1]
    assert math.isclose(outcomes[0].finished - outcomes[0].started, 10.1, abs_tol=0.5)


def test_the_clock_of_a_waiting_evaluation_starts_with_it():
    pool = fakes.bare_pool(PoolConfig(workers=1, time_limit=10.0))
    slot = pool._slots[0]
    slot.queue.extend([("ref 1", fakes.job(0)), ("ref 2", fakes.job(1))])
    pool._refs = {"ref 1": slot, "ref 2": slot}
    pool._running = 2
    slot.head_since = time.monotonic() - 9.5
    pool._ray.answers["ref 1"] = [{"evaluation": {}, "started": 0.0, "finished": 9.5}]
    waited, wait = [], pool._ray.wait
    pool._ray.wait = lambda refs, num_returns=1, timeout=0.0: waited.append(timeout) or wait(refs)
    [outcome] = pool.wait(5.0)
    assert outcome.kind == "ok" and waited[0] <= 0.5  # no longer than is left of the limit
    assert time.monotonic() - slot.head_since < 5
    slot.head_since -= 9.0  # nine seconds later
    assert pool.wait(0.0) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_that_die_while_starting_are_given_up(workers):
    """Each death is followed by a new worker, but not for ever."""
    pool = fakes.bare_pool(PoolConfig(workers=workers))
    spawned = []

    def spawn():
        ref = f"ready {len(spawned)}"
        spawned.append(ref)
        slot = fakes.idle_slot(pool)
        slot.ready = ref
        pool._refs[ref] = slot
        pool._ray.answers[ref] = fakes.RayError("out of memory")

    pool._slots.clear()
    pool._spawn = spawn
    for _ in range(workers):
        spawn()
    with pytest.raises(WorkerError, match="workers die while starting: out of memory"):
        for _ in range(1000):
            pool.wait(0.0)
    assert len(spawned) <= 5 * workers + 1


def test_a_worker_that_starts_after_all_makes_up_for_those_that_died():
    pool = fakes.bare_pool(PoolConfig(workers=1))
    (slot,) = pool._slots
    pool._setup_crashes, slot.ready, pool._refs = 3, "setup", {"setup": slot}
    pool._ray.answers["setup"] = {"worker": "host:9", "unprepared": []}
    assert pool.wait(0.0) == []
    assert (pool._setup_crashes, slot.ready, slot.worker) == (0, None, "host:9")


def test_what_is_awaited_is_said_again_and_again(monkeypatch, caplog):
    clock = [1000.0]
    monkeypatch.setattr("search.engine.pool.time.monotonic", lambda: clock[0])
    pool = fakes.bare_pool(PoolConfig(workers=3))
    ready, homeless, building = pool._slots
    homeless.ready, homeless.placed = "setup 1", "place 1"
    building.ready, building.placed = "setup 2", "place 2"
    for slot in pool._slots:
        slot.spawned = clock[0]
    pool._refs = {"setup 1": homeless, "setup 2": building}
    pool._ray.answers["place 2"] = "host:2"
    said = []
    for _ in range(130):
        clock[0] += 1.0
        pool.wait(0.0)
        said += [record.getMessage() for record in caplog.records]
        caplog.clear()
    assert said == [
        "1 of 3 workers have had no room for up to 60 s: each asks for 1 CPU and 0 GPU, and Ray "
        "has left: {'CPU': 0.5}",
        "1 of 3 workers have been building the evaluation for up to 60 s",
        "1 of 3 workers have had no room for up to 120 s: each asks for 1 CPU and 0 GPU, and Ray "
        "has left: {'CPU': 0.5}",
        "1 of 3 workers have been building the evaluation for up to 120 s",
    ]


def test_so_is_the_one_off_work_that_all_share(monkeypatch, caplog):
    """It has no limit, since nobody knows how long it may take, but it is named."""
    clock = [1000.0]
    pool = fakes.bare_pool(PoolConfig(workers=2))
    slot = pool._slots[0]
    slot.actor = SimpleNamespace(prepare=SimpleNamespace(remote=lambda names: f"prepare {names}"))
    slot.unprepared = ("main",)

    def wait(refs, num_returns=1, timeout=0.0):
        clock[0] += 1.0
        if clock[0] > 1130.0:
            pool._ray.answers["prepare ['main']"] = {"prepared": {}}
        return [r for r in refs if r in pool._ray.answers], []

    pool._slots[1:] = []
    monkeypatch.setattr("search.engine.pool.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(pool._ray, "wait", wait)
    monkeypatch.setattr(pool._ray, "put", lambda value: "ref", raising=False)
    assert pool.prepare(lambda: False) == {}
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"worker host:1 has been at the one-off work that all share for {seconds} s"
        for seconds in (60, 120)
    ]
