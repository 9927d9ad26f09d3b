"""Searches in the test's own process."""

from __future__ import annotations

import pytest

from search import Config, run_search, run_train
from search.engine import loop as engine
from tests.golden.runs import tree
from tests.search import trainings
from tests.search.commands import SEARCH, invoke
from tests.search.fakes import FakePool


@pytest.fixture
def config():
    return Config.of(
        "search",
        task="synthetic",
        evaluator="synthetic",
        searcher="random",
        searcher_options={"batch_size": 6},
        evaluations=20,
        precision="float32",
        workers=3,
    )


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Runs in this process, on a pool that answers at once."""

    def start(config, pool=None, out=None, **options):
        monkeypatch.setattr(engine, "WorkerPool", pool or FakePool())
        return run_search(config, out or tmp_path / "run", progress=False, **options)

    return start


@pytest.fixture
def patch():
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """(folder, evaluation) of a finished training; copy it before changing anything in it."""
    out = tmp_path_factory.mktemp("train") / "run"
    return out, run_train(trainings.config(), out, progress=False)


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """Where every place is: beside the images and an earlier search."""
    folder = tmp_path_factory.mktemp("ground")
    tree(folder / "images")
    invoke(SEARCH, folder / "before")
    return folder


@pytest.fixture
def place(ground, tmp_path):
    """place(name): a folder of this test."""
    return lambda name: ground / f"{tmp_path.name}-{name}"
