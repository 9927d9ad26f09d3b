"""Run folders written line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def write_run(tmp_path):
    def write(lines: list[dict], config: dict | None = None, name: str = "run") -> Path:
        directory = tmp_path / name
        directory.mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (directory / "trials.jsonl").write_text(text)
        (directory / "config.json").write_text(json.dumps(config or {}))
        return directory

    return write
