"""The journal: what is appended is there, what a crash leaves is repaired, the rest is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import InputError
from proxy_tasks.trials import MAX_LINE_BYTES, read_journal
from search.errors import JournalError
from search.runs.journal import Journal
from tests.search.fakes import evaluation, line, trial


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials.jsonl"


def written(path, *trials):
    with Journal(path) as journal:
        journal.append(*trials)
    return path.read_bytes()


def test_round_trip_in_order_of_arrival(path):
    trials = [
        trial(1, 0),
        trial(0, 3, status="failed", evaluation=None, error="no"),
        trial(2, 1, status="duplicate", duplicate_of=(1, 0), attempts=0),
    ]
    with Journal(path) as journal:
        journal.append(trials[0])
        journal.append(*trials[1:])
    with Journal(path) as journal:
        assert list(journal.trials()) == trials == read_journal(path)
        assert len(journal) == 3
        assert journal.get((0, 3)) == trials[1]
        assert (1, 0) in journal and (1, 1) not in journal


@given(reward=st.floats(allow_nan=False, allow_infinity=False), text=st.text(max_size=50))
def test_floats_and_text_survive_exactly(tmp_path_factory, reward, text):
    made = trial(0, 0, label=text, evaluation=evaluation(reward))
    path = tmp_path_factory.mktemp("j") / "trials.jsonl"
    written(path, made)
    with Journal(path) as journal:
        assert journal.get((0, 0)) == made


def test_every_cut_of_the_last_line_is_repaired_and_noted(path):
    whole = written(path, trial(0, 0), trial(0, 1))
    keep = whole.index(b"\n") + 1
    for cut in range(keep + 1, len(whole)):
        path.write_bytes(whole[:cut])
        notes = []
        with Journal(path, note=notes.append) as journal:
            assert len(journal) == 1
            journal.append(trial(0, 2))
        assert len(notes) == 1 and "line 2" in notes[0]
        assert path.read_bytes().startswith(whole[:keep])
        with Journal(path, note=pytest.fail) as journal:
            assert [t.slot for t in journal.trials()] == [0, 2]


def test_a_cut_between_lines_needs_no_repair(path):
    whole = written(path, trial(0, 0), trial(0, 1))
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    with Journal(path, note=pytest.fail) as journal:
        assert len(journal) == 1


GOOD = json.dumps(line(0, 1)).encode()
CORRUPT = {
    "no json": b"{batch: 1}",
    "empty line": b"",
    "repeated key": json.dumps(line(0, 0)).encode(),
    "flipped byte": GOOD[:10] + b"\xff" + GOOD[11:],
    "zeros": bytes(100),
    "pickle": pickle.dumps(line(0, 1)).replace(b"\n", b" "),
    "deep": b"[" * 100_000,
    "endless": b"x" * (MAX_LINE_BYTES + 1),
}


@pytest.mark.parametrize("content", CORRUPT.values(), ids=CORRUPT.keys())
def test_a_corrupted_middle_line_is_named_and_nothing_changed(path, content):
    good = json.dumps(line(0, 0)).encode()
    after = json.dumps(line(0, 2)).encode()
    raw = b"\n".join([good, content, after, b""])
    path.write_bytes(raw)
    with pytest.raises(InputError, match="line 2"):
        Journal(path)
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    "refused",
    [
        trial(0, 0),
        trial(5, 5),
        trial(0, 1, seed="x"),
        trial(0, 1, label="x" * MAX_LINE_BYTES),
        trial(0, 1, started=float("nan")),
    ],
    ids=["repeated", "twice at once", "wrong type", "too long", "not finite"],
)
def test_refused_trials_leave_no_trace(path, refused):
    with Journal(path) as journal:
        journal.append(trial(0, 0))
        before = path.read_bytes()
        with pytest.raises(ValueError):
            journal.append(trial(5, 5), refused)
        assert path.read_bytes() == before
        assert len(journal) == 1
        journal.append(trial(5, 5))


def test_one_writer_at_a_time(path):
    with Journal(path):
        with pytest.raises(InputError, match="in use by another search"):
            Journal(path)
    Journal(path).close()


@pytest.mark.long
def test_the_lock_ends_with_the_process(path):
    code = f"""
        import os, signal
        from search.runs.journal import Journal
        journal = Journal({str(path)!r})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=os.getcwd(), check=False)
    Journal(path).close()


def test_unwritable_path(tmp_path):
    with pytest.raises(InputError, match="readable and writable"):
        Journal(tmp_path / "missing" / "trials.jsonl")


def test_only_an_ordinary_file_is_opened(path):
    os.mkfifo(path)
    with pytest.raises(InputError, match="not an ordinary file"):
        Journal(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="not an ordinary file"):
        Journal(path)


def test_a_new_journal_survives_a_power_cut(path, monkeypatch):
    """Its folder is synced too: a file that no folder lists is lost."""
    synced = []
    monkeypatch.setattr("search.runs.journal.fsync_directory", synced.append)
    Journal(path).close()
    assert synced == [path.parent]
    Journal(path).close()
    assert synced == [path.parent]


# Somebody else's hands -----------------------------------------------------------------------


SPOILT = {
    "removed": lambda path: path.unlink(),
    "replaced": lambda path: (path.with_name("copy").write_bytes(path.read_bytes()),
                              path.with_name("copy").replace(path)),
    "emptied": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 5),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_a_journal_that_somebody_else_changed_is_not_written(path, spoil):
    with Journal(path) as journal:
        journal.append(trial(0, 0))
        spoil(path)
        after = path.read_bytes() if path.exists() else None
        with pytest.raises(JournalError, match="was (removed|changed).*while this run"):
            journal.append(trial(0, 1))
        assert (path.read_bytes() if path.exists() else None) == after


# Leaving lines out ---------------------------------------------------------------------------


def test_lines_can_be_left_out(path):
    with Journal(path) as journal:
        journal.append(*(trial(0, slot) for slot in range(5)))
        assert journal.keep_only(lambda made: made.slot % 2 == 0) == 2
        assert [made.slot for made in journal.trials()] == [0, 2, 4]
        assert read_journal(path) == list(journal.trials())
        with pytest.raises(InputError, match="in use by another search"):
            Journal(path)  # the new file is locked like the old one
        journal.append(trial(0, 1))
    with Journal(path, note=pytest.fail) as journal:
        assert [made.slot for made in journal.trials()] == [0, 2, 4, 1]
        assert journal.keep_only(lambda made: made.slot != 2) == 1
        kept = path.read_bytes()
        with path.open("ab") as file:
            file.write(b"x")
        with pytest.raises(JournalError, match="was changed"):
            journal.keep_only(lambda made: True)
    path.write_bytes(kept)
    assert [made.slot for made in read_journal(path)] == [0, 4, 1]
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_the_old_journal_stays_when_the_new_one_cannot_be_written(path, monkeypatch, step):
    with Journal(path) as journal:
        journal.append(trial(0, 0), trial(0, 1))
        before = path.read_bytes()

        def refuse(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, step, refuse)
        with pytest.raises(JournalError, match="No space left"):
            journal.keep_only(lambda made: made.slot == 0)
        monkeypatch.undo()
        assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
        journal.append(trial(0, 2))
        assert len(journal) == 3


def test_a_lock_on_a_file_that_was_replaced_is_none(path, monkeypatch):
    """Opened just before another process put a new file in its place, locked just after."""
    Journal(path).close()
    real = fcntl.flock

    def late(handle, operation):
        path.with_name("new").write_bytes(b"")
        path.with_name("new").replace(path)
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InputError, match="just replaced"):
        Journal(path)


@pytest.mark.parametrize("taken", [0, 1, 200], ids=["nothing", "a byte", "a part"])
def test_disk_full_keeps_no_half_line(path, monkeypatch, taken):
    with Journal(path) as journal:
        journal.append(trial(0, 0))
        before = path.read_bytes()
        real = os.write
        left = [taken]

        def write(handle, data):
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            part = bytes(data)[: left[0]]
            left[0] -= len(part)
            return real(handle, part)

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(JournalError, match="No space left.*1 finished.*augsearch resume"):
            journal.append(trial(0, 1))
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert (0, 1) not in journal
        journal.append(trial(0, 1))  # room was made
        assert len(journal) == 2


def test_failing_fsync_is_no_success(path, monkeypatch):
    with Journal(path) as journal:

        def fsync(handle):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(JournalError, match="Input/output error"):
            journal.append(trial(0, 0))
        monkeypatch.undo()
        assert len(journal) == 0 and path.read_bytes() == b""


@pytest.mark.long
def test_a_real_limit_on_the_file_size(path):
    """The kernel's own refusal, in a process of its own: RLIMIT_FSIZE."""
    code = f"""
        import resource
        from search.errors import JournalError
        from search.runs.journal import Journal
        from tests.search.fakes import trial
        with Journal({str(path)!r}) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
            for slot in range(100):
                try:
                    journal.append(trial(0, slot))
                except JournalError as error:
                    assert "File too large" in str(error), error
                    print(slot)
                    break
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    kept = int(done.stdout)
    assert 0 < kept < 100
    with Journal(path, note=pytest.fail) as journal:
        assert len(journal) == kept
