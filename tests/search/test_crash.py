"""A real search, killed for real: the short form of tests/soak/kill.py, which kills every kind."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import search
from search.cli.main import main
from tests.soak.commands import PLANTED, Command
from tests.soak.kill import Moment, Trial, disturb


@pytest.mark.ray
def test_a_search_that_is_killed_twice_ends_as_the_undisturbed_one(tmp_path, in_process):
    """The first hit is Ray's: it is said, with what to do."""
    command = Command(f"search {PLANTED} --searcher ppo --evaluations 60", ("policy.*",))
    trial = Trial(tmp_path / "trial", command)
    assert disturb(trial, "node", Moment(8000, 0.0), random.Random(0)).endswith("exit 1")
    assert "raylet" in trial.output() and "augsearch resume run" in trial.output()
    disturb(trial, "group", Moment(trial.journal_size() + 4000, 0.0), random.Random(0))
    assert not (trial.out / "policy.txt").exists()
    trial.finish()

    whole = Trial(tmp_path / "undisturbed", command)
    words = [*shlex.split(command.words), "--quiet", "--out", str(whole.out)]
    assert CliRunner().invoke(main, words).exit_code == 0
    undisturbed = whole.ending()
    assert len(undisturbed.trials) == 60
    assert undisturbed.difference(trial.ending()) is None


@pytest.mark.ray
@pytest.mark.parametrize("started_by", ["script elsewhere", "installed command"])
def test_what_lies_in_the_users_folder_does_not_matter(tmp_path, started_by):
    """Ray lets workers look there first; ours, Python's and libraries' modules come before."""
    root = Path(search.__file__).parent.parent
    user, programs = tmp_path / "user", tmp_path / "bin"
    user.mkdir()
    programs.mkdir()
    for name in ("search", "policies", "proxy_tasks", "analysis", "statistics", "numpy"):
        (user / f"{name}.py").write_text(f"raise ImportError('the user has a file {name}.py')")
    program = programs / "augsearch"
    program.write_text("from search.cli.main import main\nmain()\n")
    environment = {**os.environ, "PYTHONPATH": str(root)}
    if started_by == "installed command":
        # As from a wheel: the packages lie among the libraries, no variable names their place.
        program.write_text(f"import sys\nsys.path.append({str(root)!r})\n" + program.read_text())
        del environment["PYTHONPATH"]
    options = "search --task synthetic --evaluator synthetic --evaluations 8 --workers 1 --quiet"
    done = subprocess.run(
        [sys.executable, program, *options.split(), "--out", "run"],
        cwd=user, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (user / "run" / "policy.txt").exists()
