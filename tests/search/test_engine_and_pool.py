"""The engine and the pool's configuration: what is told, by whom, and what a machine gives."""

from __future__ import annotations

import os
import signal

import pytest

from search import Config
from search.engine.resources import PoolConfig
from search.errors import SearchInterrupted, WorkerError
from tests.search.fakes import FakePool, random_searcher
from tests.search.running import run


def test_a_scheduler_that_ends_ray_too_has_ended_the_job(patch, tmp_path):
    """Its SIGTERM is the reason, not the node that it took along."""

    class Ended(FakePool):
        def wait(self, timeout):
            if len(self.submitted) > 20:
                os.kill(os.getpid(), signal.SIGTERM)
                raise WorkerError("raylet, which holds Ray's workers, has ended")
            return super().wait(timeout)

    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SearchInterrupted, match="augsearch resume") as caught:
            run(patch, tmp_path, random_searcher(), Ended())
        assert caught.value.exit_code == 143
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_as_many_workers_as_a_scheduler_gives_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    assert PoolConfig().workers == 3


def test_what_the_pool_warns_of_is_in_the_log_of_the_run(patch, tmp_path):
    class Warning(FakePool):
        def __call__(self, *arguments, warn, **options):
            warn("a worker died while starting: out of memory")
            return super().__call__(*arguments, **options)

    run(patch, tmp_path, random_searcher(), Warning())
    assert "ERROR a worker died while starting" in (tmp_path / "run.log").read_text()


def test_an_address_can_be_taken_back():
    assert PoolConfig(address="local").address is None
    assert Config.of("search", address="host:1").changed(address="local").pool.address is None
