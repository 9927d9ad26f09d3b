"""Files of the project: written whole or not at all, read strictly and with limits."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError


def digest(content: bytes) -> str:
    """sha256, hex."""
    return hashlib.sha256(content).hexdigest()


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

    Text becomes UTF-8; what names in no known encoding have in it instead, an escape (`\\udce9`).
    Raises OSError, and then leaves neither a half-written nor a temporary file.
    """
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    # No other thread, process or machine writes to it; short, as the name may be as long as any.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            write_all(handle, raw)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # else none, or the temporary one
        raise
    fsync_directory(path.parent)


def write_where_other(path: Path, data: bytes | str) -> bool:
    """Write atomically unless the file holds just that; returns whether it was written."""
    raw = data.encode() if isinstance(data, str) else data
    if path.is_file() and path.read_bytes() == raw:
        return False
    write_atomically(path, raw)
    return True


def read_file(path: Path, most: int) -> bytes:
    """The bytes of an ordinary file of at most ``most`` bytes.

    Pipes, sockets and devices are not opened: a reader of a pipe waits for ever, and some devices
    never end. Raises OSError for these, for a file that cannot be read and for a longer one.
    """
    _check_ordinary(os.stat(path).st_mode)
    # Without O_NONBLOCK, a pipe put there in between would still make us wait.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as stream:
        status = os.fstat(handle)
        _check_ordinary(status.st_mode)
        data = stream.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes ({max(status.st_size, most + 1)})")
    return data


def append_text(path: Path, text: str) -> None:
    """Append to an ordinary file, made if missing. Raises OSError, also for pipes and devices."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    handle = os.open(path, flags, 0o666)
    try:
        _check_ordinary(os.fstat(handle).st_mode)
        write_all(handle, text.encode("utf-8", "backslashreplace"))
    finally:
        os.close(handle)


def _check_ordinary(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not an ordinary file")


def read_text(path: Path, what: str, most: int) -> str:
    """UTF-8 text of an ordinary file of at most ``most`` bytes; InputError for anything else."""
    try:
        return read_file(path, most).decode("utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{what} file", "must be an existing file", str(path), "check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(str(path), "must be UTF-8 text", str(error), "check the file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            str(path), f"must be an ordinary, readable file of at most {most} bytes", why,
            f"give a {what} file",
        ) from None  # fmt: skip


@dataclass(frozen=True)
class Document:
    """One of our JSON files: its format and version, its own fields, where it comes from."""

    format: str
    version: int
    body: dict[str, Any]
    provenance: dict[str, Any] | None = None


def parse_document(text: str, where: str, versions: Mapping[str, int], fix: str) -> Document:
    """Read a JSON object that says its format and version.

    Strict: no NaN, no field twice. The fields of the body are left to the caller to check.

    Args:
        text: the file's content.
        where: what errors call it.
        versions: the newest known version of each format that may be there.
        fix: the advice when it is no such file.
    """
    try:
        data = parse_json(text)
    except ValueError as e:
        raise InputError(where, "must be valid JSON", str(e), fix) from None
    name = data.pop("format", None) if isinstance(data, dict) else data
    if not isinstance(name, str) or name not in versions:
        rule = "must be " + " or ".join(map(repr, versions))
        raise InputError(f"{where}: format", rule, name, fix)
    version = data.pop("version", None)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InputError(f"{where}: version", "must be a positive integer", version, fix)
    if version > versions[name]:
        rule = f"must be at most {versions[name]}"
        raise InputError(f"{where}: version", rule, version, "update this toolkit")
    provenance = data.pop("provenance", None)
    if provenance is not None and not isinstance(provenance, dict):
        raise InputError(f"{where}: provenance", "must be an object or null", provenance, fix)
    return Document(name, version, data, provenance)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a field is given twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.40} is too large")
    return value


def dump_document(document: Document, one_a_line: Collection[str]) -> str:
    """JSON text with one entry a line of the lists called so: a diff of two files reads well.

    Raises InputError for a provenance that JSON cannot hold.
    """
    fields = {
        "format": document.format, "version": document.version, **document.body,
        "provenance": document.provenance,
    }  # fmt: skip
    try:
        parts = []
        for key, value in fields.items():
            if key in one_a_line:
                lines = ",\n    ".join(json.dumps(row) for row in value)
                parts.append(f'  "{key}": [\n    {lines}\n  ]')
            else:
                body = json.dumps(value, indent=2, allow_nan=False, sort_keys=True)
                if key == "provenance" and json.loads(body) != value:
                    raise ValueError("JSON has lists and names of text, no tuples or other keys")
                parts.append(f"  {json.dumps(key)}: " + body.replace("\n", "\n  "))
    except (TypeError, ValueError, RecursionError) as e:
        raise InputError(
            "provenance", "must be plain JSON data (no NaN, no objects)", document.provenance,
            f"convert it to strings, numbers, lists and dicts first ({e})",
        ) from None  # fmt: skip
    return "{\n" + ",\n".join(parts) + "\n}\n"


MAX_JSON_BYTES = 64 * 2**20
"""Longest JSON file of a run folder that is written or read."""


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically and readably, its keys in their order.

    Raises InputError for one that would be longer than what ``read_json`` reads.
    """
    data = (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    if len(data) > MAX_JSON_BYTES:
        raise InputError(
            str(path), f"must be at most {MAX_JSON_BYTES} bytes", len(data), "write less into it"
        )
    write_atomically(path, data)


def parse_json(text: str | bytes) -> Any:
    """Strict JSON: finite numbers, no field twice, no unbounded nesting.

    Raises ValueError for anything else.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Read a JSON file of the run folder.

    Raises InputError naming the file when it is missing, no ordinary file, too big, not UTF-8 or
    not JSON.
    """
    path, fix = Path(path), "restore it from a copy"
    try:
        raw = read_file(path, MAX_JSON_BYTES)
    except OSError as error:
        raise InputError(str(path), "must be a readable file", error.strerror, fix) from error
    try:
        return parse_json(raw)
    except ValueError as error:
        raise InputError(str(path), "must be valid JSON", str(error), fix) from error
