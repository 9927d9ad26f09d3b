"""The journal of a run: one line of JSON per finished evaluation, the only truth about it.

A line is on the disk (fsync) before the searcher is told, so a search killed at any instant can
be replayed from it. A line that the kill cut short is recognised by its missing newline, noted
and cut off: its evaluation was told to nobody and is simply made again.

Lines stand in order of arrival; their meaning depends on their key (batch, slot) alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from policies.errors import InputError
from policies.files import fsync_directory, parse_json, write_all
from search.errors import JournalError

Key = tuple[int, int]
Record = dict[str, Any]

JOURNAL_NAME = "trials.jsonl"
STATUSES = ("ok", "failed", "duplicate")
MAX_LINE_BYTES = 2**20

_NUMBER = (int, float)
_OPTIONAL_TEXT = (str, type(None))
# Every field of a line, all required; a line with others was written by a newer version.
FIELDS: dict[str, tuple[type, ...]] = {
    "batch": (int,),
    "slot": (int,),
    "label": (str,),
    "evaluator": (str,),
    "part": (str,),
    "seed": (int,),
    "policy": (list, dict, type(None)),
    "status": (str,),
    "attempts": (int,),
    "evaluation": (dict, type(None)),
    "error": _OPTIONAL_TEXT,
    "duplicate_of": (list, type(None)),
    "started": _NUMBER,
    "finished": _NUMBER,
    "worker": _OPTIONAL_TEXT,
}

log = logging.getLogger("search")


def record_key(record: Record) -> Key:
    return (record["batch"], record["slot"])


def check_record(record: Any) -> None:
    """Types and ranges of one line; raises ValueError saying what is wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"no object, but a {type(record).__name__}")
    if record.keys() != FIELDS.keys():
        missing = sorted(FIELDS.keys() - record.keys())
        extra = sorted(record.keys() - FIELDS.keys())
        raise ValueError(f"missing fields {missing} and unknown fields {extra}")
    for name, types in FIELDS.items():
        value = record[name]
        if not isinstance(value, types) or isinstance(value, bool):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise ValueError(f"{name} must be {wanted}, but is {value!r:.80}")
    for name in ("batch", "slot", "seed", "attempts"):
        if record[name] < 0:
            raise ValueError(f"{name} must be at least 0, but is {record[name]}")
    status = record["status"]
    if status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, but is {status!r:.80}")
    if status == "ok" and record["evaluation"] is None:
        raise ValueError("an evaluation with status ok must have its result")
    if status == "failed" and (record["evaluation"] is not None or record["error"] is None):
        raise ValueError("a failed evaluation must have an error and no result")
    original = record["duplicate_of"]
    if (status == "duplicate") != (original is not None):
        raise ValueError("duplicate_of and status duplicate go together")
    if original is not None and not (
        len(original) == 2 and all(type(n) is int and n >= 0 for n in original)
    ):
        raise ValueError(f"duplicate_of must be [batch, slot], but is {original!r:.80}")


def encode_record(record: Record) -> bytes:
    """One line, newline included. Raises ValueError for what the journal would not read back."""
    check_record(record)
    line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a line must be at most {MAX_LINE_BYTES} bytes, but has {len(line)}")
    return line


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
            self._hash = hashlib.sha256()
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
            number = 0
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise self._corrupted(number, f"more than {MAX_LINE_BYTES} bytes")
                if not line.endswith(b"\n"):
                    self._cut(number, line, note)
                    break
                try:
                    record = parse_json(line)
                    check_record(record)
                except ValueError as error:
                    raise self._corrupted(number, str(error)) from error
                key = record_key(record)
                if key in self._places:
                    raise self._corrupted(number, f"batch {key[0]}, slot {key[1]} again")
                self._add(key, line)

    def _corrupted(self, number: int, reason: str) -> InputError:
        return InputError(
            f"{self.path}, line {number}",
            "must be a journal line as the engine wrote it",
            reason,
            "restore the file from a copy, or delete this line to have it evaluated again",
        )

    def _cut(self, number: int, line: bytes, note: Callable[[str], None]) -> None:
        note(
            f"{self.path}: line {number} was cut short ({len(line)} bytes, no newline); it is "
            f"removed and its evaluation made again. It read: {line[:2000]!r}"
        )
        os.ftruncate(self._handle, self.size)
        os.fsync(self._handle)

    def _add(self, key: Key, line: bytes) -> None:
        self._places[key] = (self.size, len(line))
        self.size += len(line)
        self._hash.update(line)

    # Reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def get(self, key: Key) -> Record:
        """The line of a key, read again from the disk. Raises KeyError."""
        offset, length = self._places[key]
        return parse_json(os.pread(self._handle, length, offset))

    def records(self) -> Iterator[Record]:
        """All lines in order of arrival."""
        for key in list(self._places):
            yield self.get(key)

    def digest(self) -> str:
        """sha256 of the journal so far, hex."""
        return self._hash.hexdigest()

    def prefix_digest(self, size: int) -> str:
        """sha256 of the first `size` bytes, hex (of what there is, if that is less)."""
        digest = hashlib.sha256()
        offset = 0
        while offset < size:
            block = os.pread(self._handle, min(2**20, size - offset), offset)
            if not block:
                break
            digest.update(block)
            offset += len(block)
        return digest.hexdigest()

    # Writing ---------------------------------------------------------------------------------

    def append(self, *records: Record) -> None:
        """Append lines and fsync once: when it returns they are on the disk.

        Raises ValueError for a repeated key or a malformed record, JournalError when the disk
        takes no more; in both cases nothing of `records` is kept, not even a half line.
        """
        lines: dict[Key, bytes] = {}
        for record in records:
            line = encode_record(record)
            key = record_key(record)
            if key in self._places or key in lines:
                raise ValueError(f"batch {key[0]}, slot {key[1]} is already in {self.path}")
            lines[key] = line
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
            self._add(key, line)

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
