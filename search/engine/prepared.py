"""Keeps the one-off work of evaluators (a shared child) in the run folder: prepared/NAME/..."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from policies.files import fsync_directory

from .worker import Files, read_files, write_files

FOLDER = "prepared"


def load(folder: Path, names: Iterable[str]) -> dict[str, dict[str, bytes]]:
    """The files of those evaluators whose work is done."""
    return {name: read_files(folder / name) for name in names if (folder / name).is_dir()}


def save(folder: Path, prepared: Mapping[str, Files]) -> None:
    """Write each evaluator's folder whole or not at all (temporary folder, fsync, rename)."""
    for name, files in prepared.items():
        folder.mkdir(exist_ok=True)
        temporary = folder / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_files(temporary, files)
        for path in temporary.rglob("*"):
            if path.is_file():
                with open(path, "rb") as stream:
                    os.fsync(stream.fileno())
        os.replace(temporary, folder / name)
        fsync_directory(folder)
