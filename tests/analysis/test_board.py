"""A run as events for TensorBoard, read back from the files."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from analysis import board
from policies import InputError
from search.cli.main import main
from tests.analysis.journals import journal_line
from tests.analysis.test_watch import SEARCH, append
from tests.events import scalars
from tests.golden.runs import FOLDER


def test_a_search_while_it_goes_on(write_run, tmp_path, monkeypatch):
    """What ended first is step 1, whatever its place; a diverged child is never the best."""
    lines = [journal_line(0, 0, 0.5, finished=120.0), journal_line(0, 1, 0.4)]
    worse = journal_line(1, 0, 0.9)
    worse["evaluation"]["diverged"] = True
    directory = write_run(lines, SEARCH)
    looks = []

    def later(seconds: float) -> None:
        looks.append(seconds)
        append(directory, worse, *(journal_line(1, slot, 0.6) for slot in range(1, 4)))

    monkeypatch.setattr("analysis.progress.time.sleep", later)
    found = board.watch_events(directory, tmp_path / "board")
    assert found == tmp_path / "board" / "run" and len(looks) == 1  # until all 6 are there
    events = scalars(found)
    rewards = [0.4, 0.5, 0.9, 0.6, 0.6, 0.6]
    assert events["reward"] == [(n + 1, pytest.approx(r)) for n, r in enumerate(rewards)]
    best = [pytest.approx(value) for value in (0.4, 0.5, 0.6, 0.6, 0.6)]
    assert [value for _, value in events["best_reward_so_far"]] == best
    assert events["image_passes"][0] == (1, 1000) and len(events["log_likelihood"]) == 6


def test_arms_count_their_own_seeds(write_run, tmp_path):
    lines = [
        journal_line(batch, slot, 0.5 + batch / 4, label=label, part="test")
        for batch in range(2)
        for slot, label in enumerate(("none", "mine"))
    ]
    settings = {"policy": ["none", "mine"], "seeds": 2}
    directory = write_run(lines, {"kind": "compare", "settings": settings})
    events = scalars(board.watch_events(directory, tmp_path / "board"))
    assert events["test_accuracy/mine"] == [(1, 0.5), (2, 0.75)] == events["test_accuracy/none"]


def test_a_training_has_its_epochs(write_run, tmp_path):
    row = {"epoch": 1, "lr": 0.5, "loss": None, "accuracy": 0.25, "log_likelihood": -1.5}
    directory = write_run([], {"kind": "train", "evaluator": {"epochs": 1}})
    (directory / "epochs.jsonl").write_text(json.dumps({**row, "divergence": ""}) + "\n")
    events = scalars(board.watch_events(directory, tmp_path / "board"))
    assert events == {"lr": [(1, 0.5)], "accuracy": [(1, 0.25)], "log_likelihood": [(1, -1.5)]}


def test_stages_have_folders_and_old_events_go(tmp_path):
    command = ["watch", str(FOLDER / "search-staged"), "--tensorboard", str(tmp_path), "--once"]
    for _ in range(2):
        said = CliRunner().invoke(main, command)
        assert said.exit_code == 0 and said.output.strip() == str(tmp_path / "search-staged")
    events = scalars(tmp_path / "search-staged")
    assert len(events["reward"]) == 12 and len(events["reward/cheap"]) == 40
    assert any("reward" in tag for tag in scalars(tmp_path / "search-staged" / "final"))


def test_a_run_that_is_none_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(InputError, match="must be a run folder"):
        board.watch_events(tmp_path / "nothing", tmp_path / "board")
    assert not (tmp_path / "board").exists()
