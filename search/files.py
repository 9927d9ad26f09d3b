"""Files that are either the old or the new version after a crash, never a mixture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from policies.errors import InputError

MAX_JSON_BYTES = 64 * 2**20


def fsync_directory(directory: Path) -> None:
    """Make a rename or a new file in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """os.write until everything is written (a nearly full disk takes only a part)."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view):]


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a whole file: temporary file in the same folder, fsync, rename.

    Raises OSError, and then leaves neither a half-written nor a temporary file.
    """
    path = Path(path)
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        try:
            write_all(handle, raw)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Atomic, readable, and independent of dict order in memory only where the caller sorts."""
    atomic_write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def parse_json(text: str | bytes) -> Any:
    """Strict JSON: no NaN or Infinity, no unbounded nesting.

    Raises ValueError for anything else.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Read a JSON file of the run folder.

    Raises InputError naming the file when it is missing, too big, not UTF-8 or not JSON.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise InputError(
            str(path), "must be a readable file", error.strerror, "restore it from a copy"
        ) from error
    if len(raw) > MAX_JSON_BYTES:
        raise InputError(
            str(path), f"must be at most {MAX_JSON_BYTES} bytes", "more", "restore it from a copy"
        )
    try:
        return parse_json(raw)
    except ValueError as error:
        raise InputError(
            str(path), "must be valid JSON", str(error), "restore it from a copy"
        ) from error
