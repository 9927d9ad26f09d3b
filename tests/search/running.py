"""Short ways to run the engine and run_search without Ray."""

from __future__ import annotations

from dataclasses import replace as changed_by

from search import PoolConfig
from search.engine import loop as engine
from search.runs.journal import Journal
from search.studies import study
from tests.search.fakes import (
    SYNTHETIC,
    FakePool,
)

# Fields of a line that may differ between two runs of one configuration.
TIMES = ("started", "finished", "worker", "attempts")


def run(monkeypatch, directory, searcher, pool=None, *, evaluations=40, workers=3, **options):
    monkeypatch.setattr(engine, "WorkerPool", pool or FakePool())
    config = PoolConfig(workers=workers, **options.pop("config", {}))
    return engine.run(
        searcher,
        SYNTHETIC,
        None,
        directory,
        evaluations=evaluations,
        pool=config,
        progress=False,
        **options,
    )


def lines(directory):
    """The journal without times, by key."""
    with Journal(directory / "trials.jsonl") as journal:
        return {
            trial.key: {k: v for k, v in trial.to_json().items() if k not in TIMES}
            for trial in journal.trials()
        }


def results(run):
    """The best of a run without times."""
    return [(trial.key, trial.augmentation, trial.evaluation.reward) for trial in run.best]


def settled(config):
    return changed_by(config, evaluator=study.settled(config.evaluator, config.pool))


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
