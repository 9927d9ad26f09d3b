"""Recorded results, changed only on purpose: by `make golden`, to be looked at in `git diff`."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1] / "golden"
# `make golden` sets it; tests then record instead of comparing.
WRITE = "AUGSEARCH_WRITE_GOLDEN"


def golden(name: str, text: str) -> None:
    """Fail unless `text` is what is recorded under this name."""
    path = ROOT / name
    if os.environ.get(WRITE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.is_file(), f"nothing is recorded in {path}: run `make golden`"
    assert text == path.read_text(encoding="utf-8"), f"differs from {path}; if meant: `make golden`"
