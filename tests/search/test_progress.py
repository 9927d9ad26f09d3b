"""What a running search shows, on a terminal and elsewhere."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import select
import struct
import sys
import termios

import pytest
from tqdm.notebook import tqdm_notebook

from search.engine import progress
from search.engine.progress import Progress, RunLog


def test_elsewhere_a_plain_line_now_and_then(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, logger="search")
    with Progress(total=100, done=20, enabled=True) as shown:
        for done in range(21, 61):  # one every two seconds: 80 s in all
            now[0] += 2.0
            shown.update(done, 1, best=0.5123, failed=1)
    assert sys.stderr.getvalue() == ""
    lines = [record.getMessage() for record in caplog.records]
    # Those made before do not count for the time left: 65 more at 2 s each.
    assert lines == [
        "35 of 100 evaluations, best reward 0.5123, 1 failed, 0:02:10 left",
        "50 of 100 evaluations, best reward 0.5123, 1 failed, 0:01:40 left",
    ]


def test_of_arms_it_tells_how_they_stand(monkeypatch, caplog):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO, logger="search")
    with Progress(None, 0, enabled=True) as shown:
        shown.update(5, 5, best=0.25, failed=0, arms=lambda: "none 0.2 (5/9)")
    assert caplog.records[0].getMessage() == (
        "5 of ? evaluations, none 0.2 (5/9), 0 failed, unknown time left"
    )


@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO])
def test_without_a_log_the_line_is_there_all_the_same(monkeypatch, capsys, level):
    """In a script, or a notebook that cannot draw bars: nobody has set up logging there."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    log = logging.getLogger("search")
    monkeypatch.setattr(log, "propagate", False)  # pytest listens at the root
    log.setLevel(level)
    root = logging.getLogger()
    before = (list(root.handlers), root.level, list(log.handlers), log.level)
    with Progress(None, 0, enabled=True) as shown:
        shown.update(5, 5, best=0.25, failed=0)
    assert capsys.readouterr().err == (
        "5 of ? evaluations, best reward 0.25, 0 failed, unknown time left\n"
    )
    assert before == (list(root.handlers), root.level, list(log.handlers), log.level)


def test_a_log_that_takes_warnings_only_hides_no_progress(monkeypatch, capsys, caplog):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.WARNING, logger="search")
    with Progress(None, 0, enabled=True) as shown:
        shown.update(5, 5, best=0.25, failed=0)
    assert "5 of ? evaluations" in capsys.readouterr().err and not caplog.records


def test_a_notebook_has_tqdms_bar_for_notebooks(monkeypatch):
    """Drawn by the kernel, whose stderr is no terminal."""
    shown = []

    class Drawn(tqdm_notebook):
        def __init__(self, *, total, **about):
            shown.append([total, about["unit"]])
            self.disable = False

        def set_postfix_str(self, text, refresh):
            shown.append((text, refresh))

        def update(self, count):
            shown.append(count)

        def close(self):
            shown.append("closed")

    monkeypatch.setattr(progress, "tqdm", Drawn)
    with Progress(total=10, done=0, enabled=True) as bar:
        bar.update(4, 4, best=0.25, failed=1)
    best = ("best reward 0.25, 1 failed", False)
    assert shown == [[10, "evaluation"], best, 4, "closed"]


def test_nobody_needs_a_stderr(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(logging.getLogger("search"), "propagate", False)
    for stream in (None, Full()):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(None, 0, enabled=True) as shown:
            for done in range(9):
                shown.update(done, 1, best=0.25, failed=0)


def test_a_log_line_stands_above_the_bar(monkeypatch):
    """Not in the middle of it, and the root logger stays as it is."""
    from search.cli.main import _Stderr

    terminal = Full()
    terminal.left, written, handlers = 10**6, [], list(logging.getLogger().handlers)
    monkeypatch.setattr(terminal, "write", lambda text: written.append(text) or len(text))
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(total=10, done=0, enabled=True):
        assert logging.getLogger().handlers == handlers
        written.clear()
        _Stderr().handle(logging.LogRecord("search", logging.INFO, "", 0, "a line", (), None))
    text = "".join(each if isinstance(each, str) else each.decode() for each in written)
    assert text.index("\r") < text.index("a line\n") < text.rindex("0/10")


def test_on_a_terminal_a_bar(monkeypatch):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with Progress(total=10, done=0, enabled=True) as shown:
            shown.update(10, 10, best=0.25, failed=3)
        terminal.flush()
        text = ""
        # The kernel hands a terminal's output on in pieces; the bar's last state comes last.
        while "3 failed" not in text and select.select([leader], [], [], 10)[0]:
            text += os.read(leader, 100_000).decode()
    os.close(leader)
    assert "10/10" in text and "best reward 0.25, 3 failed" in text


@pytest.mark.parametrize("total", [None, 10])
def test_quiet_is_quiet(monkeypatch, caplog, total):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, logger="search")
    with Progress(total, 0, enabled=False) as shown:
        shown.update(5, 5, best=None, failed=0)
    assert sys.stderr.getvalue() == "" and not caplog.records


def test_an_unknown_total_shows_no_time_left(monkeypatch, caplog):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, logger="search")
    with Progress(None, 0, enabled=True) as shown:
        shown.update(5, 5, best=None, failed=0)
    assert caplog.records[0].getMessage() == (
        "5 of ? evaluations, best reward -, 0 failed, unknown time left"
    )


def test_a_failure_is_a_line_and_its_detail_is_in_the_file(tmp_path, caplog):
    RunLog(tmp_path).failure("it failed", detail="Traceback:\n  line 1")
    assert [r.getMessage() for r in caplog.records] == [
        f"it failed; traceback in {tmp_path / 'run.log'}"
    ]
    assert (
        (tmp_path / "run.log")
        .read_text()
        .endswith("ERROR it failed\n    Traceback:\n      line 1\n")
    )


def test_a_log_that_cannot_be_written_is_said_once(tmp_path, caplog):
    log = RunLog(tmp_path / "missing")
    log.warning("one")
    log.warning("two")
    complaints = [r for r in caplog.records if "cannot write" in r.getMessage()]
    assert len(complaints) == 1


def test_a_log_is_written_to_ordinary_files_only(tmp_path, caplog):
    os.mkfifo(tmp_path / "run.log")
    log = RunLog(tmp_path)
    log.warning("one")  # would wait for a reader for ever
    log.note("two")
    assert len([r for r in caplog.records if "cannot write" in r.getMessage()]) == 1
    (tmp_path / "run.log").unlink()
    RunLog(tmp_path).note("name \udce9 that is no text")
    assert "that is no text" in (tmp_path / "run.log").read_text()


class Full(io.StringIO):
    """A terminal that takes no more after a while."""

    left = 3

    def isatty(self):
        return True

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return len(text)

    def flush(self):
        self.write("")


@pytest.mark.parametrize("left", [0, 3])
def test_a_terminal_that_takes_no_more_ends_the_bar_and_nothing_else(monkeypatch, left):
    terminal = Full()
    terminal.left = left
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(total=10, done=0, enabled=True) as shown:
        for done in range(1, 11):
            if shown._bar is not None:
                shown._bar.mininterval = 0
            shown.update(done, 1, best=0.25, failed=0)
    assert terminal.left < 0


def test_the_log_of_the_command_line_outlives_its_terminal(monkeypatch):
    from search.cli.main import _Stderr

    terminal = Full()
    terminal.left = 0
    monkeypatch.setattr(sys, "stderr", terminal)
    record = logging.LogRecord("search", logging.INFO, "", 0, "one line", (), None)
    for _ in range(3):
        _Stderr().handle(record)
    assert terminal.left < 0
    sys.stderr.close()
