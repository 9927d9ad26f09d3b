"""Ray clusters: joining one, losing a node of it, and addresses where there is none."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

from policies.errors import InputError
from search import PoolConfig, run_search
from search.engine import cluster
from search.engine import loop as engine
from search.errors import WorkerError
from tests.search.fakes import FakePool
from tests.search.losing_a_node import EVALUATIONS, configuration


@pytest.mark.ray
def test_a_lost_node_changes_nothing(tmp_path, monkeypatch):
    out = tmp_path / "lossy"
    done = subprocess.run(
        [sys.executable, "-m", "tests.search.losing_a_node", str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["finished"] == EVALUATIONS and report["failed"] == 0
    assert 1 <= report["lost_at"][0] < EVALUATIONS
    assert report["restarts"] >= 1 and len(report["workers"]) >= 2

    whole = tmp_path / "whole"
    run_search(configuration(workers=1), whole, progress=False)
    assert (out / "policy.txt").read_bytes() == (whole / "policy.txt").read_bytes()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "a:b", ":1", "127.0.0.1:99999"],
)
def test_an_address_without_a_cluster_is_named(address):
    with pytest.raises(InputError, match="must be that of a running Ray cluster") as caught:
        cluster.connect(PoolConfig(address=address))
    assert repr(address) in str(caught.value)


def test_a_bad_address_is_found_before_anything_is_written(tmp_path, monkeypatch):
    def refuse(config):
        raise InputError("address", "must be that of a running Ray cluster", "a:1", "leave it out")

    monkeypatch.setattr(cluster, "connect", refuse)
    with pytest.raises(InputError, match="address"):
        run_search(configuration(address="a:1"), tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(engine, "WorkerPool", FakePool())
    resumed = run_search(configuration(), tmp_path / "run", resume=True, progress=False)
    assert resumed.finished == EVALUATIONS


class BusyRay:
    """Ray on a machine too busy to start it in time, for the first `refusals` attempts."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.calls = refusals, []

    def init(self, **options):
        self.calls.append(("init", options["num_cpus"]))
        if len([name for name, _ in self.calls if name == "init"]) <= self.refusals:
            raise Exception("The current node timed out during startup.\nmore")

    def shutdown(self):
        self.calls.append(("shutdown", None))


def test_a_slow_start_of_ray_is_tried_again():
    ray = BusyRay(refusals=2)
    cluster._start_local(ray, num_cpus=2)
    start, stop = ("init", 2), ("shutdown", None)
    assert ray.calls == [start, stop, start, stop, start]


def test_ray_is_asked_to_be_quiet(monkeypatch):
    """Neither its banner, nor what its workers print, nor a dashboard."""
    asked = {}
    ray = SimpleNamespace(init=lambda **options: asked.update(options), cluster_resources=dict)
    monkeypatch.setattr(cluster, "_starting", lambda loopback: contextlib.nullcontext(ray))
    monkeypatch.setattr(cluster, "_silence_driver", lambda: None)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert cluster.connect(PoolConfig(workers=1))
    assert asked["logging_level"] == logging.ERROR and asked["log_to_driver"] is False
    assert asked["include_dashboard"] is False


def test_a_ray_that_never_starts_is_one_clear_error():
    ray = BusyRay(refusals=99)
    with pytest.raises(WorkerError, match=r"\(3 attempts\): .*timed out during startup\.$"):
        cluster._start_local(ray, num_cpus=2)
    assert len(ray.calls) == 6
