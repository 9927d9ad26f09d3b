"""Run folders written line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy_tasks.run_format import RUN_FORMAT, RUN_VERSION


@pytest.fixture
def write_run(tmp_path):
    def write(lines: list[dict], config: dict | None = None, name: str = "run") -> Path:
        directory = tmp_path / name
        directory.mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (directory / "trials.jsonl").write_text(text)
        begun = {"format": RUN_FORMAT, "version": RUN_VERSION, "kind": "search"}
        (directory / "config.json").write_text(json.dumps({**begun, **(config or {})}))
        return directory

    return write
