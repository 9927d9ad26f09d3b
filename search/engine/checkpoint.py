"""The searcher's state beside the journal: a shortcut for resuming, never a second truth.

A checkpoint is bound to a prefix of the journal (its length and sha256): it holds the searcher as
it was when exactly those lines had been told. Without a usable checkpoint the whole journal is
replayed, which ends in the same state.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from policies.errors import InputError
from policies.files import write_atomically
from search.runs.journal import Journal
from search.searchers.base import Searcher

CHECKPOINT_NAME = "checkpoint.pt"
FORMAT = "augsearch-checkpoint"
VERSION = 1
MAX_BYTES = 2**30
SECONDS_BETWEEN = 5.0
# A checkpoint may take at most this share of the time, however big the searcher is.
SHARE = 0.02


class UnusableCheckpoint(Exception):
    """The checkpoint cannot be used; the journal can."""


def save(path: Path, searcher: Searcher, journal: Journal, batch: int) -> None:
    """Write the checkpoint (atomically). Raises OSError."""
    buffer = io.BytesIO()
    torch.save(
        {
            "format": FORMAT,
            "version": VERSION,
            "batch": batch,
            "lines": len(journal),
            "size": journal.size,
            "sha256": journal.digest(),
            "state": searcher.state_dict(),
        },
        buffer,
    )
    write_atomically(path, buffer.getvalue())


def _read(path: Path) -> Any:
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnusableCheckpoint(error.strerror) from error
    if len(raw) > MAX_BYTES:
        raise UnusableCheckpoint(f"more than {MAX_BYTES} bytes")
    if raw.startswith(b"\x80"):  # a bare pickle; `save` writes a zip archive
        raise _hostile(path)
    try:
        return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged bytes
        if "unsupported global" in str(error).lower():
            raise _hostile(path) from error
        raise UnusableCheckpoint(f"damaged ({type(error).__name__})") from error


def _hostile(path: Path) -> InputError:
    return InputError(
        str(path),
        "must hold nothing but data",
        "a pickle that may name code to be run",
        "nothing of it was run; delete it (the journal suffices to resume) and find out where it "
        "came from",
    )


def load(path: Path, searcher: Searcher, journal: Journal) -> int:
    """Load the checkpoint into `searcher`; returns the number of journal lines it was told.

    Raises UnusableCheckpoint when there is none, or it is damaged or belongs to another journal or
    searcher (then build the searcher anew and replay), InputError when it tries to run code.
    """
    if not path.exists():
        raise UnusableCheckpoint("missing")
    saved = _read(path)
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise UnusableCheckpoint("not a checkpoint")
    if saved.get("version") != VERSION:
        raise UnusableCheckpoint(f"version {saved.get('version')!r:.20}, not {VERSION}")
    lines, size = saved.get("lines"), saved.get("size")
    if type(lines) is not int or type(size) is not int:
        raise UnusableCheckpoint("fields of the wrong type")
    if not (0 <= lines <= len(journal) and 0 <= size <= journal.size):
        raise UnusableCheckpoint("of a longer journal")
    if journal.prefix_digest(size) != saved.get("sha256"):
        raise UnusableCheckpoint("of another journal")
    try:
        searcher.load_state_dict(saved["state"])
    except Exception as error:  # whatever a foreign state makes a searcher raise
        raise UnusableCheckpoint(f"of another searcher ({error})") from error
    return lines


class Checkpointer:
    """Saves every few seconds, and never takes more than 2 % of the time."""

    def __init__(
        self, path: Path, searcher: Searcher, journal: Journal, saved_lines: int = 0
    ) -> None:
        self.path = path
        self._searcher = searcher
        self._journal = journal
        self._due = time.monotonic() + SECONDS_BETWEEN
        self._saved_lines = saved_lines

    def tick(self, batch: int) -> None:
        """Save if it is time to. Raises OSError."""
        if time.monotonic() >= self._due:
            self.save(batch)

    def save(self, batch: int) -> None:
        """Save now, unless nothing was told since. Raises OSError."""
        if self._saved_lines == len(self._journal):
            return
        started = time.monotonic()
        save(self.path, self._searcher, self._journal, batch)
        self._saved_lines = len(self._journal)
        finished = time.monotonic()
        self._due = finished + max(SECONDS_BETWEEN, (finished - started) / SHARE)
