"""A run as events for TensorBoard, read back from the files."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from tensorboardX import record_writer

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


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "wb"))
    command = ["watch", str(FOLDER / "search-staged"), "--tensorboard", str(tmp_path), "--once"]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 2 and "No space left on device" in said.output
    assert len(said.output.strip().splitlines()) == 1


@pytest.mark.parametrize("place", ["", "search-staged", "search-staged/search-staged/below"])
def test_events_are_not_written_into_a_run_nor_around_one(tmp_path, place):
    """Into the folder around the run, the run itself, and one that holds it further down."""
    run = tmp_path / "search-staged"
    if place.endswith("below"):
        run, place = tmp_path / place / "search-staged", ""
    shutil.copytree(FOLDER / "search-staged", run)
    (run / "tensorboard").mkdir()
    own = run / "tensorboard/events.out.tfevents.1"
    own.touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="tensorboard: must not be the run's folder"):
        board.watch_events(run, tmp_path / place, once=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_events_of_another_run_of_that_name_stay(tmp_path):
    for place in "ab":
        shutil.copytree(FOLDER / "search-staged", tmp_path / place / "run")
    board.watch_events(tmp_path / "a/run", tmp_path / "board", once=True)
    events = scalars(tmp_path / "board/run")
    with pytest.raises(InputError, match="must not have the events of another run"):
        board.watch_events(tmp_path / "b/run", tmp_path / "board", once=True)
    assert scalars(tmp_path / "board/run") == events
    (tmp_path / "board/run/of-run.txt").unlink()
    with pytest.raises(InputError, match="of an unknown one"):
        board.watch_events(tmp_path / "a/run", tmp_path / "board", once=True)
