"""The scripts in examples/ are short, and do what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from policies import CIFAR10, SVHN, Policy, load_policy, save_policy
from proxy_tasks import get_task
from proxy_tasks.trials import read_journal

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(name: str, *arguments: str, cwd: Path) -> str:
    """What an example prints, from another folder than the repository's."""
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_say_how_to_be_run(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert f"python examples/{path.name}" in text


def test_every_example_is_run():
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES if f'run("{path.name}"' not in tests] == []


@pytest.mark.long
def test_race_a_searcher(tmp_path):
    said = run("race_a_searcher.py", "--seeds", "5", cwd=tmp_path)
    assert re.search(r"^halves +5 ", said, re.MULTILINE) and "thompson against" in said


@pytest.mark.long
def test_train_with_policy(tmp_path):
    save_policy(tmp_path / "mine.json", SVHN, "timm")
    arguments = ["--policy", "mine.json", "--epochs", "6"]
    said = run("train_with_policy.py", *arguments, cwd=tmp_path)
    # Guessing gives 0.1; six epochs of a thousand images give far more.
    assert float(re.fullmatch(r"test accuracy under mine.json: (.*)\n", said)[1]) > 0.4
    assert run("train_with_policy.py", *arguments, cwd=tmp_path) == said


@pytest.mark.long
def test_a_folder_of_images_and_a_network_for_it(tmp_path):
    run("images_as_folder.py", "images", "--images", "300", cwd=tmp_path)
    task = get_task("folder", tmp_path / "images")
    assert len(task.train) > 100 and len(task.class_names) == 10
    save_policy(tmp_path / "mine.json", CIFAR10)
    arguments = ["images", "mine.json", "--epochs", "2", "--side", "28"]
    said = run("train_on_folder.py", *arguments, cwd=tmp_path)
    # Guessing gives 0.1.
    assert float(re.search(r"test accuracy: (.*)", said)[1]) > 0.2


@pytest.mark.long
def test_cutmix_loop(tmp_path):
    said = run("cutmix_loop.py", "--epochs", "6", cwd=tmp_path)
    assert float(re.fullmatch(r"test accuracy with .* CutMix: (.*)\n", said)[1]) > 0.4


@pytest.mark.long
def test_batch_on_device(tmp_path):
    said = run("batch_on_device.py", "--device", "cpu", "--epochs", "6", cwd=tmp_path)
    assert float(re.fullmatch(r"test accuracy on cpu: (.*)\n", said)[1]) > 0.4


@pytest.mark.long
def test_own_searcher(tmp_path):
    """The run names the searcher by the script's file, so another process can go on with it."""
    said = run("own_searcher.py", "--evaluations", "30", "--out", "climber", cwd=tmp_path)
    assert said.startswith("best of 30: ")
    config = json.loads((tmp_path / "climber" / "config.json").read_text())
    assert config["searcher"] == {"name": "own_searcher:HillClimber", "options": {"changes": 2}}
    trials = read_journal(tmp_path / "climber" / "trials.jsonl")
    first, later = ([t for t in trials if t.batch == batch] for batch in (0, 2))
    best = max(first, key=lambda trial: (trial.reward, -trial.slot)).augmentation
    for trial in later:  # batch 2 is the first that has learned, with lag 1
        pairs = zip(flat(best), flat(trial.augmentation), strict=True)
        assert sum(one != other for one, other in pairs) <= 2


def flat(policy: list) -> list:
    """The operations of all sub-policies: two decisions change at most two of them."""
    return [operation for row in policy for operation in row]


@pytest.mark.long
def test_own_model_and_loss(tmp_path):
    arguments = "--evaluations 5 --epochs 1 --train-images 30 --out own".split()
    said = run("own_model_and_loss.py", *arguments, cwd=tmp_path)
    assert Policy.from_text(said) == load_policy(tmp_path / "own" / "policy.json")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    assert config["task"]["name"] == "own_model_and_loss:data_sets"
    options = config["evaluator"]["options"]
    assert options["model"] == "own_model_and_loss:network"
    assert options["recipe"]["loss"] == "own_model_and_loss:loss"
    manifest = json.loads((tmp_path / "own" / "manifest.json").read_text())
    assert manifest["counts"]["train"] == 30 and manifest["source"] == "torch Datasets"
