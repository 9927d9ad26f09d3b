"""Recorded results, changed only on purpose.

A mismatch fails. To accept a change, delete the file named in the message and run the test again:
it records the new result and fails once, so that no run that compared nothing can pass.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "golden"


def golden(name: str, text: str) -> None:
    path = ROOT / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        pytest.fail(f"recorded {path}; look at it, then run the test again")
    assert text == path.read_text(encoding="utf-8"), f"differs; if meant, delete {path} and rerun"
