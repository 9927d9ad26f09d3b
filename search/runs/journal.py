"""The journal of a run: one line of JSON per finished evaluation, the only truth about it.

A line is on the disk (fsync) before the searcher is told, so a search killed at any instant can
be replayed from it. A line that the kill cut short is recognised by its missing newline, noted
and cut off: its evaluation was told to nobody and is simply made again.

Lines stand in order of arrival; their meaning depends on their key (batch, slot) alone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from policies.errors import InputError
from policies.files import fsync_directory, write_all
from proxy_tasks.trials import JournalLines, Key, Trial
from search.errors import JournalError, no_locks, resume_command

# A pipe in place of the file would otherwise make us wait for somebody at its other end.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK

log = logging.getLogger("search")


class Journal:
    """Opens (and creates) the journal at `path`, repairs its end and locks it.

    note: called with a line of text when something was repaired; default: a logged warning.

    The lock is the kernel's (flock): it ends with this process, however that ends.
    Memory: the place of each line, not its content.

    Raises InputError when another process writes it, or for a corrupted line, naming the line.
    """

    def __init__(self, path: Path, note: Callable[[str], None] = log.warning) -> None:
        self.path = Path(path)
        existed = self.path.exists()
        try:
            self._handle = os.open(self.path, _FLAGS, 0o666)
        except OSError as error:
            raise self._unusable(error.strerror) from error
        try:
            if not stat.S_ISREG(os.fstat(self._handle).st_mode):
                raise self._unusable("not an ordinary file")
            self._lock(self._handle)
            if not self._is_in_place():
                raise self._unusable("just replaced by another process")
            if not existed:
                fsync_directory(self.path.parent)
            self._places: dict[Key, tuple[int, int]] = {}
            self.size = 0
            self._scan(note)
        except BaseException:
            os.close(self._handle)
            raise

    def _unusable(self, reason: str | None) -> InputError:
        return InputError(
            str(self.path),
            "must be a readable and writable file",
            reason,
            "check the folder and its permissions",
        )

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                str(self.path.parent),
                "must not be in use by another search",
                "locked",
                "wait until it ends, or choose another folder",
            ) from error
        except OSError as error:
            raise no_locks(self.path.parent, error) from error

    def _scan(self, note: Callable[[str], None]) -> None:
        with open(self._handle, "rb", closefd=False) as stream:
            stream.seek(0)
            lines = JournalLines(stream, self.path)
            for trial, length in lines:
                self._places[trial.key] = (self.size, length)
                self.size += length
            if lines.rest:
                self._cut(lines.rest, note)

    def _cut(self, line: bytes, note: Callable[[str], None]) -> None:
        note(
            f"{self.path}: line {len(self) + 1} was cut short ({len(line)} bytes, no newline); it "
            f"is removed and its evaluation made again. It read: {line[:2000]!r}"
        )
        os.ftruncate(self._handle, self.size)
        os.fsync(self._handle)

    # Reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def get(self, key: Key) -> Trial:
        """The trial of a key, read again from the disk. Raises KeyError."""
        offset, length = self._places[key]
        return Trial.from_line(os.pread(self._handle, length, offset))

    def trials(self) -> Iterator[Trial]:
        """All trials in order of arrival."""
        for key in list(self._places):
            yield self.get(key)

    def _is_in_place(self) -> bool:
        """Whether the file at `path` is still the one that this object opened."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raises JournalError when somebody else has removed, replaced or changed the file."""
        changed = None
        if not self._is_in_place():
            changed = "removed or replaced"
        elif (size := os.fstat(self._handle).st_size) != self.size:
            changed = f"changed ({size} bytes instead of {self.size})"
        if changed:
            raise JournalError(
                f"{self.path} was {changed} while this run was writing it; the run cannot go on. "
                f"Restore the file with its {len(self)} evaluations from a copy, or start a new run"
            )

    # Writing ---------------------------------------------------------------------------------

    def append(self, *trials: Trial) -> None:
        """Append lines and fsync once: when it returns they are on the disk.

        Raises ValueError for a repeated key or a malformed trial, JournalError when the disk
        takes no more or somebody else changed the file; in all cases nothing of `trials` is kept,
        not even a half line.
        """
        lines: dict[Key, bytes] = {}
        for trial in trials:
            if trial.key in self._places or trial.key in lines:
                raise ValueError(f"batch {trial.batch}, slot {trial.slot} is in {self.path} twice")
            lines[trial.key] = trial.to_line()
        self.check()
        try:
            write_all(self._handle, b"".join(lines.values()))
            os.fsync(self._handle)
        except OSError as error:
            self._withdraw()
            raise JournalError(
                f"cannot write {self.path}: {error.strerror}; its {len(self)} finished evaluations "
                f"are safe. Make room, then go on with: {resume_command(self.path.parent)}"
            ) from error
        for key, line in lines.items():
            self._places[key] = (self.size, len(line))
            self.size += len(line)

    def _withdraw(self) -> None:
        """Cut off what a failed append left; a cut that fails too is repaired at the next open."""
        try:
            os.ftruncate(self._handle, self.size)
        except OSError as error:
            log.warning("cannot cut the half-written end of %s: %s", self.path, error.strerror)

    def keep_only(self, wanted: Callable[[Trial], bool]) -> int:
        """Leave out the trials that are not `wanted`; returns how many.

        Whatever happens meanwhile, the file is the old one or the new one, and locked. Raises
        JournalError when the disk takes no more; the file is the old one then.
        """
        self.check()
        kept = [trial.key for trial in self.trials() if wanted(trial)]
        left_out = len(self) - len(kept)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        handle = os.open(temporary, _FLAGS | os.O_TRUNC, 0o666)
        try:
            self._lock(handle)  # before it is in place: nobody else may come in between
            places, size = {}, 0
            for key in kept:
                offset, length = self._places[key]
                write_all(handle, os.pread(self._handle, length, offset))
                places[key] = (size, length)
                size += length
            os.fsync(handle)
            os.replace(temporary, self.path)
        except BaseException as error:
            os.close(handle)
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise JournalError(f"cannot write {temporary}: {error.strerror}") from error
            raise
        os.close(self._handle)
        self._handle, self._places, self.size = handle, places, size
        fsync_directory(self.path.parent)
        return left_out

    def close(self) -> None:
        """Close the file and give up the lock."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
