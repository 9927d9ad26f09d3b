"""What every test shares: where real photographs are, what starts Ray, hypothesis' settings."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from search.engine import cluster, loop
from search.engine.resources import PoolConfig
from search.runs.environment import differences
from tests.search.fakes import InProcessPool

# The contract of searchers is a test that ships with the package.
pytest.register_assert_rewrite("search.testing")

# Other processes of the machine must not decide a test: no deadline per example.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def _fsync(handle: int) -> None:
    os.fstat(handle)  # a closed one is an error as ever


# Disks are not waited for. The tests of power cuts play the disk (tests/search/power.py).
os.fsync = _fsync


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """The command line sets up the log of its process, here that of all tests."""
    log = logging.getLogger("search")

    def reset() -> None:
        if log.handlers or log.level:  # setting a level takes a walk through all logs
            log.handlers = []
            log.setLevel(logging.NOTSET)
        log.propagate = True

    reset()  # fixtures of a wider scope may have run a command before
    yield
    reset()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real photographs (cifar-10/, imagenet-64/, photos/), or a skip without one."""
    folder = os.environ.get("AUGSEARCH_TEST_DATA")
    if not folder:
        pytest.skip("AUGSEARCH_TEST_DATA names no folder of photographs")
    return Path(folder)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """A finished search of 30 synthetic evaluations; copy it before changing anything in it."""
    from click.testing import CliRunner

    from search.cli.main import main

    out = tmp_path_factory.mktemp("small") / "search"
    arguments = "search --searcher random --evaluations 30 --workers 1 --evaluator synthetic"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "WorkerPool", InProcessPool())
        result = CliRunner().invoke(main, [*arguments.split(), "--quiet", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def in_process(monkeypatch) -> None:
    """Runs evaluate as ever, but in the test's process: Ray starts for few tests only."""
    monkeypatch.setattr(loop, "WorkerPool", InProcessPool())


@pytest.fixture
def any_versions(monkeypatch) -> None:
    """Recorded runs go on as if they had been begun with the versions that are installed."""
    monkeypatch.setattr(
        "search.studies.study.differences", lambda then, now: differences(then, then)
    )


@pytest.fixture(scope="session")
def ray():
    """One Ray for all tests that can share it, started as the engine starts it."""
    assert cluster.connect(PoolConfig(workers=4))
    import ray

    yield ray
    cluster.disconnect()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process of the tests runs all that start Ray, by this fixture or as they are marked.

    Two Rays at once would only wait for each other. The other tests of a file stay together, since
    they share what its fixtures made; but each long one goes where there is time. (Groups of few
    tests are begun last: small ones keep all processes busy to the end.)
    """
    for item in items:
        if "ray" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
        group = item.nodeid.split("::")[0]
        if item.get_closest_marker("long") is not None:
            group = item.nodeid
        if item.get_closest_marker("ray") is not None:
            group = "ray"
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish() -> None:
    """What was imported stays: collecting garbage need not look through it again and again."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What is printed may hold paths that are not UTF-8, which no report can carry as they are."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


_starting = cluster._starting
_starts_ray = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of any scope: what they start counts for this test."""
    global _starts_ray
    _starts_ray = item.get_closest_marker("ray") is not None


def starting(loopback: bool) -> AbstractContextManager:
    """What starts Ray without the marker fails, or `make quick` would become slow unseen."""
    if not _starts_ray:
        pytest.fail("this test starts Ray: mark it with pytest.mark.ray", pytrace=False)
    return _starting(loopback)


cluster._starting = starting
