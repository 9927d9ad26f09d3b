"""The scripts in examples/ are short, and do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from policies import SVHN, save_policy

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
