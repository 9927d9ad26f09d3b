"""JSON files of a run folder: written whole or not at all, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policies.errors import InputError
from policies.files import write_atomically

MAX_JSON_BYTES = 64 * 2**20


def write_json(path: Path, value: Any) -> None:
    """Atomic, readable, and independent of dict order in memory only where the caller sorts."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


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
