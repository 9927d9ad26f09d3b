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
from collections.abc import Callable, Iterator
from pathlib import Path

from policies.errors import InputError
from policies.files import fsync_directory, write_all
from proxy_tasks.trials import JournalLines, Key, Trial
from search.errors import JournalError

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
            self._handle = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666
            )
        except OSError as error:
            raise InputError(
                str(self.path),
                "must be a readable and writable file",
                error.strerror,
                "check the folder and its permissions",
            ) from error
        try:
            self._lock()
            if not existed:
                fsync_directory(self.path.parent)
            self._places: dict[Key, tuple[int, int]] = {}
            self.size = 0
            self._scan(note)
        except BaseException:
            os.close(self._handle)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                str(self.path.parent),
                "must not be in use by another search",
                "locked",
                "wait until it ends, or choose another folder",
            ) from error

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

    # Writing ---------------------------------------------------------------------------------

    def append(self, *trials: Trial) -> None:
        """Append lines and fsync once: when it returns they are on the disk.

        Raises ValueError for a repeated key or a malformed trial, JournalError when the disk
        takes no more; in both cases nothing of `trials` is kept, not even a half line.
        """
        lines: dict[Key, bytes] = {}
        for trial in trials:
            if trial.key in self._places or trial.key in lines:
                raise ValueError(f"batch {trial.batch}, slot {trial.slot} is in {self.path} twice")
            lines[trial.key] = trial.to_line()
        try:
            write_all(self._handle, b"".join(lines.values()))
            os.fsync(self._handle)
        except OSError as error:
            self._withdraw()
            raise JournalError(
                f"cannot write {self.path}: {error.strerror}; its {len(self)} finished "
                "evaluations are safe. Make room, then run the same command with --resume"
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

    def close(self) -> None:
        """Close the file and give up the lock."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
