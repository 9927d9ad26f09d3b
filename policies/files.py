"""Files of the project: written whole or not at all, read strictly and with limits."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .errors import InputError, check_choice


def fsync_directory(directory: Path) -> None:
    """Make a rename or a new file in ``directory`` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """os.write until everything is written (a nearly full disk takes only a part)."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a temporary file beside ``path``, then rename it: the old content, or the new.

    Raises OSError, and then leaves neither a half-written nor a temporary file.
    """
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def read_text(path: Path, what: str, most: int) -> str:
    """UTF-8 text of an ordinary file of at most ``most`` bytes; InputError for anything else."""
    # is_file() before open(): opening a pipe or a device would wait for ever.
    if not path.is_file():
        raise InputError(f"{what} file", "must be an existing file", str(path), "check the path")
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise InputError(
                str(path), f"must be at most {most} bytes", path.stat().st_size,
                f"this is not a {what} file",
            )  # fmt: skip
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(str(path), "must be readable UTF-8 text", str(e), "check it") from None


def parse_document(
    text: str, where: str, name: str, version: int, fields: Collection[str], fix: str
) -> dict[str, Any]:
    """The JSON object of one of our files: its format and version fit, its fields are known.

    Strict: no NaN, no field twice, no field that is not one of ``fields``. ``fix`` is the advice
    when it is no such file. InputError names ``where``.
    """
    try:
        document = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise InputError(where, "must be valid JSON", str(e) or "deep nesting", fix) from None
    if not isinstance(document, dict) or document.get("format") != name:
        got = document.get("format") if isinstance(document, dict) else document
        raise InputError(f"{where}: format", f"must be {name!r}", got, fix)
    found = document.get("version")
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise InputError(f"{where}: version", "must be a positive integer", found, fix)
    if found > version:
        raise InputError(
            f"{where}: version", f"must be at most {version}", found, "update this toolkit"
        )
    for field in document:
        check_choice(f"{where}: field", field, fields)
    for field in fields:
        if field not in document and field != "provenance":
            raise InputError(f"{where}: {field}", "must be present", "no such field", fix)
    provenance = document.setdefault("provenance", None)
    if provenance is not None and not isinstance(provenance, dict):
        raise InputError(f"{where}: provenance", "must be an object or null", provenance, fix)
    return document


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a field is given twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def dump_document(document: dict[str, Any], rows: str) -> str:
    """JSON with one entry of the list ``document[rows]`` a line: a diff of two files reads well."""
    try:
        parts = []
        for key, value in document.items():
            if key == rows:
                lines = ",\n    ".join(json.dumps(row) for row in value)
                parts.append(f'  "{rows}": [\n    {lines}\n  ]')
            else:
                body = json.dumps(value, indent=2, allow_nan=False, sort_keys=True)
                parts.append(f"  {json.dumps(key)}: " + body.replace("\n", "\n  "))
    except (TypeError, ValueError, RecursionError) as e:
        raise InputError(
            "provenance", "must be plain JSON data (no NaN, no objects)", document["provenance"],
            f"convert it to strings, numbers, lists and dicts first ({e})",
        ) from None  # fmt: skip
    return "{\n" + ",\n".join(parts) + "\n}\n"


MAX_JSON_BYTES = 64 * 2**20


def write_json(path: Path, value: Any) -> None:
    """Atomic, readable, and independent of dict order in memory only where the caller sorts."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Strict JSON: no NaN or Infinity, no unbounded nesting.

    Raises ValueError for anything else.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
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
