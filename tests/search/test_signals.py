"""A signal is answered at once, whatever is under way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from search.cli.main import main
from search.engine.signals import Signals
from search.errors import SearchInterrupted, whole_run

STARTING = """\
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
from search.engine.signals import Signals
with Signals() as signals:
    print("ready", flush=True)
    time.sleep(30)          # as when Ray starts: nothing looks at the flag
print(signals.number)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_said_at_once_and_a_second_one_ends_it(number):
    process = subprocess.Popen(
        [sys.executable, "-c", STARTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        sent = time.monotonic()
        process.send_signal(number)
        assert process.stderr.readline() == b"\n"
        assert process.stderr.readline().decode().startswith(f"{number.name}: ending")
        assert time.monotonic() - sent < 5
        process.send_signal(number)
        assert process.wait(timeout=20) != 0
        assert time.monotonic() - sent < 20


@pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
@pytest.mark.parametrize("words", ["search --out new", "report run", "doctor --task folder"])
def test_one_before_or_outside_of_a_run_is_130_in_one_line(monkeypatch, tmp_path, words, error):
    """While the images are drawn, or where there is nothing to resume; not click's "Aborted!"."""

    def interrupted(*_, **__):
        raise error

    command = words.split()[0]
    monkeypatch.setattr(main.commands[command], "callback", interrupted)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, words.split())
    assert (done.exit_code, done.stderr.strip()) == (130, "Error: stopped by SIGINT")
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_is_gone_does_not_matter(monkeypatch):
    def gone(handle, data):
        raise OSError(5, "Input/output error")

    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        monkeypatch.setattr(os, "write", gone)
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.number == signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_of_a_stage_it_says_which_and_names_the_whole_run(tmp_path):
    """ "After 0 evaluations" of a final choice reads as if a whole search was lost."""
    (tmp_path / "config.json").write_text(json.dumps({"kind": "search"}))
    whole, stage = (str(SearchInterrupted(15, tmp_path / name, 7)) for name in ("", "final"))
    assert f"after 7 evaluations; all that finished is kept in {tmp_path}; go on" in whole
    assert "after 7 evaluations of its stage final; all that finished is kept in" in stage
    assert whole.endswith(f"augsearch resume {tmp_path}") and stage.endswith(f"resume {tmp_path}")
    assert "7 evaluations, none of them kept" in str(SearchInterrupted(2, None, 7))


def test_a_run_in_the_folder_of_another_is_no_stage_of_it(tmp_path):
    for kind, stages in (
        ("rederive", ("search", "random-2", "randaugment", "compare-other")),
        ("replicate", ("draw-3/own", "draw-12/ppo@25")),
    ):
        whole = tmp_path / kind
        for name, what in (("", kind), ("selected", "select"), *((s, "search") for s in stages)):
            (whole / name).mkdir(parents=True, exist_ok=True)
            (whole / name / "config.json").write_text(json.dumps({"kind": what}))
        assert whole_run(whole / "selected") == whole / "selected"
        assert all(whole_run(whole / stage) == whole for stage in stages)
