"""The commands of every kind in the test's own process: planted rewards, no Ray.

Each is started in a folder (the fixture `place` names some) beside `images` and `before/run`, an
earlier search; its run's folder is `run` in it.
"""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from click.testing import CliRunner

from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.planted import PlantedLandscape
from search.cli.main import main
from search.engine import loop
from search.engine.jobs import Outcome
from search.trial import JOURNAL_NAME
from tests.search.fakes import FakePool
from tests.search.running import lines

PLANTED = "--task synthetic --evaluator synthetic --workers 3 --retries 0 --quiet"
CHILDREN = "--task reduced-fashion --train-images 20 --validation-images 20 --epochs 1 --quiet"
SEARCH = f"search {PLANTED} --searcher random --evaluations 30"
SELECT = "select ../before/run --rescore 6 --rescore-seeds 2 --workers 3 --retries 0 --quiet"
REDERIVE = f"""rederive --data ../images --preset cpu --train-images 120 --validation-images 120
    --resolution 8 --searches 1 --random-searches 0 --grid 0 --other-child none
    {PLANTED.replace("--task synthetic", "")}"""
FIDELITY = f"""fidelity {CHILDREN} --test-images 20 --workers 3
    --evaluators '{{"planted": {{"kind": "synthetic"}}}}'"""
landscape = PlantedLandscape(EvaluatorConfig(kind="synthetic"))


def answer(job):
    """A planted reward; in the time that it says it took."""
    asked = job.candidate
    evaluation = landscape.evaluate(asked.augmentation, asked.seed, asked.part)
    return Outcome(
        job, "ok", replace(evaluation, seconds=1.0).to_json(), None, "", 1.0, 2.0, "host:1"
    )


def invoke(words, place, pool=None, code=0):
    """Run a command in the folder `place`; its run's folder is place/run. Returns what it says."""
    place.mkdir(exist_ok=True)
    begins = not words.startswith("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(loop, "WorkerPool", pool or FakePool(answer=answer))
        result = CliRunner().invoke(main, shlex.split(words) + ["--out", "run"] * begins)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def ending(out, results):
    """What every journal below says, and the content of the results."""
    journals = {path.relative_to(out): lines(path.parent) for path in out.rglob(JOURNAL_NAME)}
    files = {path.relative_to(out): path.read_bytes() for g in results for path in out.glob(g)}
    assert journals and all(any(out.glob(pattern)) for pattern in results)
    return journals, files
