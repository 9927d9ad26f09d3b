"""Finished run folders of every kind, which every later version must go on from.

    python -m tests.golden.runs [NAME ...]

writes them anew below tests/golden/runs (`make golden` does). Do so only when a change of the
format is meant: the version in config.json rises with it, and the changelog says so.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from proxy_tasks.trials import read_journal
from search.cli.main import main
from search.engine import cluster
from search.engine.resources import PoolConfig

FOLDER = Path(__file__).parent / "runs"
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
# What a run begins with or keeps while it works; everything else is made of it at the end.
_BEGUN_WITH = {"config.json", "environment.json", "manifest.json", "trials.jsonl", "optuna.db",
               "race.json", "plan.json", "prepared.json"}  # fmt: skip
_BEGUN_WITH_IN = {"prepared", "artifacts"}
# Results whose bytes depend on nothing but the configuration: no seconds, no dates.
_TIMELESS = {
    "policy.txt",
    "schedule.json",
    "compare.csv",
    "pairs.csv",
    "grid.csv",
    "reference.csv",
    "methods.csv",
    "rewarded.csv",
}
PLANTED = "--task synthetic --evaluator synthetic --workers 2 --quiet"
CHILDREN = (
    "--task reduced-fashion --train-images 20 --validation-images 20 --test-images 20 --epochs 2 "
    "--precision float32 --workers 2 --quiet"
)
_LEFT_OUT = (".*.lock", "*.md", "*.png", "*.html", "run.log")
TREE = "images"  # where `tree` draws its images, beside the runs
# Their names begin with their kind. Later ones may use earlier ones.
RUNS = {
    "race": """race --table planted --searcher random evolution --budget 10 --seeds 3
        --workers 1 --quiet""",
    "replicate": f"""replicate {PLANTED} --method random randaugment-grid random:3 none --draws 2
        --budget 24 --seeds 2""",
    "search-ppo": f"""search {PLANTED} --searcher ppo --evaluations 24
        --searcher-options '{{"batch_size": 6}}'""",
    "search-tpe": f"""search {PLANTED} --searcher tpe --evaluations 24
        --searcher-options '{{"batch_size": 6}}'""",
    "search-random": f"search {PLANTED} --searcher random --evaluations 24",
    "search-staged": f"""search {PLANTED} --budget 20 --evaluator-options '{{"passes": 10}}'
        --cheap '{{"kind": "synthetic", "options": {{"cheap_bias": 1.0}}}}'
        --searcher-options '{{"prior": 2.0, "batch_size": 3}}'""",
    "select": "select search-random --rescore 4 --seeds 2 --workers 2 --quiet",
    "randaugment": f"randaugment {PLANTED} --n 1 4 --m 0 10 --seeds 2",
    "compare": f"compare {PLANTED} --policy none imagenet randaugment:3,10 random:3 --seeds 2",
    "fidelity": f"""fidelity {CHILDREN} --policies 8 --seeds 2 --evaluation-seeds 1
        --evaluators '{{"planted": {{"kind": "synthetic"}}}}'""",
    "tabulate": f"tabulate {PLANTED} --policies 12 --policies-from search-random --late 8",
    "rederive": f"""rederive --data {TREE} --evaluator synthetic --preset cpu --evaluations 8
        --train-images 120 --validation-images 120 --seeds 1 --resolution 8 --epochs 1
        --searches 1 --random-searches 0 --grid 0 --other-child none --workers 2 --quiet""",
    "pba": f"""pba --population 4 --interval 1
        {CHILDREN.replace("--test-images 20", "")}""",
}


def is_tested_set() -> bool:
    """Whether those versions are installed whose bytes the recorded runs hold."""
    pinned = re.findall(
        r"^(numpy|scipy|torch)==([\w.]+)", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE
    )
    return all(version(name).split("+")[0] == pin for name, pin in pinned)


def copy(name: str, place: Path) -> Path:
    """A copy of a recorded run."""
    return Path(shutil.copytree(FOLDER / name, place))


def begun_with(path: Path) -> bool:
    """Whether a file of a run is what the run begins with or goes on from."""
    name = path.name
    return (
        name in _BEGUN_WITH
        or path.parent.name in _BEGUN_WITH_IN
        or name.startswith(("searched", "."))
    )


_LONG = re.compile(rb"\d+\.\d{9,}(e-?\d+)?")


def _short(number: re.Match[bytes]) -> bytes:
    return f"{float(number[0]):.12g}".encode()


def _shortened(path: Path) -> bytes:
    content = path.read_bytes()
    return _LONG.sub(_short, content) if path.suffix == ".csv" else content


def results(run: Path) -> dict[str, bytes]:
    """What a run found, by path in its folder: files free of times, and every journal's rewards.

    Of tables of statistics 12 digits: the last ones are the processor's.
    """
    found = {
        str(path.relative_to(run)): _shortened(path)
        for path in run.rglob("*")
        if path.name in _TIMELESS
    }
    for path in run.rglob("trials.jsonl"):
        trials = sorted(read_journal(path), key=lambda trial: trial.key)
        lines = [
            (trial.key, trial.seed, trial.status, trial.evaluation and trial.evaluation.reward)
            for trial in trials
        ]
        found[str(path.relative_to(run))] = repr(lines).encode()
    return found


def tree(folder: Path) -> Path:
    """A tree of 120 classes, as reduced-imagenet wants them, of 8 x 8 pixels."""
    pixels = np.random.default_rng(0).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    for number in range(120):
        for part, count in (("train", 2), ("val", 1)):
            images = folder / part / f"n{number:08}"
            images.mkdir(parents=True)
            for index in range(count):
                shade = np.uint8(number % 40 + index + 20 * (part == "val"))
                pixels[0, 0] = number, index, part == "val"  # no content twice
                Image.fromarray(pixels + shade).save(images / f"{index}.png")
    return folder


def keep_the_last_parent(run: Path) -> None:
    """Delete the artifacts that the last evaluation does not go on from: they are large."""
    for artifacts in run.rglob("artifacts"):
        batch, slot = read_journal(run / "trials.jsonl")[-1].parent
        for path in artifacts.iterdir():
            if path.stem != f"{batch}-{slot}":
                path.unlink()


def write(names: list[str]) -> None:
    """Make the runs in a temporary folder, and put them in the place of the recorded ones."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        here = Path(name)
        tree(here / TREE)
        needed = max(list(RUNS).index(run) for run in names) + 1
        for run, words in list(RUNS.items())[:needed]:
            result = CliRunner().invoke(main, [*shlex.split(words), "--out", run])
            if result.exit_code:
                raise SystemExit(f"{run}: {result.output}") from result.exception
            print(f"golden: {run}", flush=True)
        for run in names:
            shutil.rmtree(FOLDER / run, ignore_errors=True)
            shutil.copytree(here / run, FOLDER / run, ignore=shutil.ignore_patterns(*_LEFT_OUT))
            keep_the_last_parent(FOLDER / run)


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(RUNS)
    unknown = [name for name in wanted if name not in RUNS]
    if unknown:
        raise SystemExit(f"no such runs: {', '.join(unknown)}; there are {', '.join(RUNS)}")
    started = cluster.connect(PoolConfig(workers=2))
    try:
        write(wanted)
    finally:
        if started:
            cluster.disconnect()
