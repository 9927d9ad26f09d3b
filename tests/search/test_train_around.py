"""What surrounds a training: signals, TensorBoard, several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tensorboardX import record_writer

from proxy_tasks.learner import Learner
from search import run_train
from search.cli.main import main
from search.studies import train as study
from tests.events import scalars
from tests.search.trainings import Killed, arguments, config, kill, rows, weights


@pytest.fixture
def heard():
    """SIGINT as in a terminal; a job in a shell's background begins with it ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_epochs_checkpoint(undisturbed, tmp_path, monkeypatch, number):
    out = tmp_path / "run"
    steps = iter(range(100))
    real = Learner.step

    def interrupted(self, *args):
        if next(steps) == 4:  # within the second epoch
            os.kill(os.getpid(), number)
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", interrupted)
        said = CliRunner().invoke(main, ["train", *arguments(), "--out", str(out)])
    assert said.exit_code == 128 + number
    assert f"after 2 epochs; all that finished is kept in {out}" in said.output
    assert f"augsearch resume {out}" in said.output
    assert len(rows(out)) == 2
    assert CliRunner().invoke(main, ["resume", str(out), "--quiet"]).exit_code == 0
    assert weights(out) == weights(undisturbed[0])


def test_tensorboard_shows_the_rows_of_the_checkpoint(undisturbed, tmp_path, monkeypatch):
    told: list[tuple] = []

    class Board:
        def __init__(self, folder):
            told.clear()
            Path(folder).mkdir(exist_ok=True)
            assert not any(Path(folder).iterdir())
            (Path(folder) / "events.out.tfevents.1").touch()

        def add(self, name, value, step):
            told.append((name, step, value))

        def flush(self):
            pass

        close = flush

    monkeypatch.setattr(study, "EventFile", Board)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill(patch, study, "write_blob", 3, True)  # the third epoch is kept, but not told
        with pytest.raises(Killed):
            run_train(config(tensorboard=True), out, progress=False)
    assert {step for _, step, _ in told} == {1, 2}
    run_train(config(tensorboard=True), out, resume=True, progress=False)
    assert told == [
        (name, row["epoch"], row[name])
        for row in rows(undisturbed[0])
        for name in ("lr", "loss", "accuracy", "log_likelihood")
    ]


def test_a_training_goes_on_without_events_where_they_cannot_be_written(
    undisturbed, tmp_path, monkeypatch, caplog
):
    """/dev/full takes what is written, and says that the disk is full when it is flushed."""
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "wb"))
    run_train(config(tensorboard=True), tmp_path / "run", progress=False)
    assert caplog.text.count("No space left on device") == 1
    assert "the training goes on without events" in caplog.text
    assert weights(tmp_path / "run") == weights(undisturbed[0])


def test_and_where_old_ones_cannot_be_removed(undisturbed, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "tensorboard"
    folder.mkdir()
    (folder / "events.out.tfevents.1").touch()

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with study._events(tmp_path, True, rows(undisturbed[0])) as tell:
        tell(rows(undisturbed[0])[0])
    assert caplog.text.count("the training goes on without events") == 1
    assert len(list(folder.iterdir())) == 1


def test_tensorboard_reads_what_is_written(tmp_path):
    out = tmp_path / "run"
    run_train(config(tensorboard=True), out, progress=False)
    events = scalars(out / "tensorboard")
    assert [step for step, _ in events["accuracy"]] == [1, 2, 3, 4]
    assert np.allclose([value for _, value in events["loss"]], [row["loss"] for row in rows(out)])


@pytest.mark.long
def test_two_processes_train_one_network_and_go_on(tmp_path):
    """With gloo, as torchrun starts them; the folder is written by the first alone."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               "-m", "search.cli.main"]  # fmt: skip

    def started(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=240)

    given = arguments(model="convnet", epochs=20)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = started("train", *given, "--out", str(whole))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    with subprocess.Popen(
        [*command, "train", *given, "--out", str(parts)], stderr=subprocess.PIPE, text=True
    ) as stopped:
        while not (parts / study.EPOCHS_NAME).exists() and stopped.poll() is None:
            time.sleep(0.01)
        stopped.terminate()
        said = stopped.communicate(timeout=100)[1]
    assert f"augsearch resume {parts}" in said, said
    assert 1 <= len(rows(parts)) < 20
    alone = CliRunner().invoke(main, ["resume", str(parts)])
    assert alone.exit_code == 2 and "processes: must be as many" in alone.output
    rest = started("resume", str(parts))
    assert rest.returncode == 0, rest.stderr
    assert weights(parts) == weights(whole)
