"""What a search will cost: measured here, multiplied out, compared with the paper."""

from __future__ import annotations

import math
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from policies.errors import InputError
from search import Config
from search.engine import loop as engine
from search.errors import SearchInterrupted, WorkerError
from search.studies.estimate import PAPER_BUDGETS, Estimate, run_estimate
from tests.search.fakes import FakePool, bad, good


@pytest.fixture
def config():
    return Config.of(
        "estimate", task="synthetic", evaluator="synthetic", evaluations=200, workers=8
    )


def test_arithmetic():
    found = Estimate((20.0, 40.0), 2, evaluations=1200, workers=4, cores=2.0, price=0.05)
    assert found.seconds_per_evaluation == 30.0
    assert found.hours() == 1200 * 30 / 4 / 3600 == 2.5
    assert found.core_hours() == 2.5 * 4 * 2
    assert found.hours(15_000) == 31.25
    text = "\n".join(found.lines())
    assert "30 s per evaluation here (2 measured, 20 to 40 s, 2 side by side)" in text
    assert "this search (1200 evaluations, 4 workers): 2.5 h, 20 core-hours for 1.00" in text
    # 5,000 GPU-hours over 15,000 evaluations are 1,200 s; here 30 s on 2 cores are 60 core-s.
    assert "CIFAR-10: 5,000 GPU-hours, 1,200 GPU-seconds per evaluation, 20 times" in text


def test_without_a_price_no_money():
    found = Estimate((1.0,), 1, 10, 1, 1.0)
    assert " for " not in "\n".join(found.lines())


def test_gpus_are_paid_for_too(monkeypatch, config):
    found = Estimate((36.0,), 1, 100, 4, 1.0, gpus=0.5, price=0.1, gpu_price=2.0)
    assert found.lines()[1].endswith(
        "4 workers): 0.25 h, 1 core-hours for 0.10, 0.5 GPU-hours for 1.00"
    )
    monkeypatch.setattr(engine, "WorkerPool", FakePool())
    priced = run_estimate(config.changed(gpus=1, gpu_price=2.0, workers=2))
    assert priced.gpu_hours() == pytest.approx(2 * priced.hours())
    with pytest.raises(InputError, match="gpu_price: must be for workers that have GPUs"):
        run_estimate(config.changed(gpu_price=2.0))


def test_the_papers_budgets():
    assert [(b.data, b.gpu_hours) for b in PAPER_BUDGETS] == [
        ("ImageNet", 15_000),
        ("CIFAR-10", 5_000),
        ("SVHN", 1_000),
    ]
    assert [b.gpu_seconds_per_evaluation for b in PAPER_BUDGETS] == [3600, 1200, 240]


def test_each_workers_first_evaluation_is_not_counted(monkeypatch, config, tmp_path):
    """It pays for compilation: 9 s here, against 2 s afterwards."""
    seen: dict[int, int] = {}

    def answer(job):
        worker = job.candidate.slot % 2
        seen[worker] = seen.get(worker, 0) + 1
        seconds = 9.0 if seen[worker] == 1 else 2.0
        start = 100.0 * seen[worker]
        return replace(good(job), started=start, finished=start + seconds, worker=f"w{worker}")

    monkeypatch.setattr(engine, "WorkerPool", FakePool(0, answer))
    monkeypatch.setattr("search.studies.estimate.cores", lambda: 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = run_estimate(config.changed(samples=3))
    assert found.seconds == (2.0,) * 6
    assert (found.measured_workers, found.workers, found.evaluations) == (2, 8, 200)
    assert math.isclose(found.hours(), 200 * 2 / 8 / 3600)
    assert list(Path(tmp_path).iterdir()) == []  # neither a run folder nor anything else


def test_of_children_trained_at_once_the_first_ones_are_not_counted(monkeypatch, config):
    def answer(job):
        slot = job.candidate.slot
        start = 100.0 * slot
        return replace(
            good(job), started=start, finished=start + (9.0 if slot < 4 else 2.0), worker="w"
        )

    monkeypatch.setattr(engine, "WorkerPool", FakePool(0, answer))
    found = run_estimate(config.changed(samples=2, workers=1, children_per_gpu=4))
    assert found.seconds == (2.0,) * 8


def test_a_budget_is_priced_in_children(monkeypatch, config):
    asked = []

    class Asked(FakePool):
        def __call__(self, pool, evaluators, *_, **__):
            asked.append(evaluators["main"])
            return super().__call__(pool)

    monkeypatch.setattr(engine, "WorkerPool", Asked())
    options = {"task": "reduced-fashion", "evaluator": "weight-sharing", "train_images": 20,
               "validation_images": 20, "workers": 2}  # fmt: skip
    found = run_estimate(Config.of("estimate", budget=30, **options))
    assert found.evaluations == 30 and "this search (30 children, 2 workers)" in found.lines()[1]
    assert asked[0].kind == "from-scratch"
    assert run_estimate(Config.of("estimate", **options)).evaluations == 120
    assert asked[1].kind == "from-scratch"
    priced = run_estimate(Config.of("estimate", evaluations=200, **options))
    assert priced.unit == "evaluations" and asked[2].kind == "weight-sharing"
    with pytest.raises(InputError, match="budget: must not be given with evaluations"):
        Config.of("estimate", evaluations=200, budget=30, **options)


def test_threads_count_as_cores(monkeypatch, config):
    monkeypatch.setattr(engine, "WorkerPool", FakePool())
    assert run_estimate(config.changed(threads=4)).cores == 4.0


@pytest.mark.parametrize("options", [{"price": -1.0}, {"price": math.nan}, {"samples": 0}])
def test_bad_input(config, options):
    with pytest.raises(InputError):
        config.changed(**options)


def test_what_failed_can_be_looked_up(monkeypatch, config, tmp_path):
    """The file that the error names is there, and no advice to resume what cannot be resumed."""
    monkeypatch.setattr(engine, "WorkerPool", FakePool(0, bad))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WorkerError, match="ValueError: no") as caught:
        run_estimate(config)
    (folder,) = tmp_path.iterdir()
    assert f"tracebacks in {folder / 'run.log'}" in str(caught.value)
    assert "Traceback: all of it" in (folder / "run.log").read_text()
    assert "resume" not in str(caught.value)


def test_some_evaluations_failed(monkeypatch, config, tmp_path):
    """A price is never made of the others alone."""

    def answer(job):
        return bad(job) if job.candidate.slot == 1 else None

    monkeypatch.setattr(engine, "WorkerPool", FakePool(0, answer))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WorkerError, match="ValueError: no"):
        run_estimate(config)


def test_an_interrupted_estimate_leaves_nothing(monkeypatch, config, tmp_path):
    class Signalling(FakePool):
        def wait(self, timeout):
            if timeout > 0:  # once, before what has arrived is collected
                os.kill(os.getpid(), signal.SIGTERM)
            return super().wait(timeout)

    monkeypatch.setattr(engine, "WorkerPool", Signalling())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SearchInterrupted, match="none of them kept") as caught:
            run_estimate(config)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert caught.value.exit_code == 143 and list(tmp_path.iterdir()) == []
