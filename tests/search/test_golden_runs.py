"""Run folders that an earlier version wrote must go on in this one, and end as they ended then.

tests/golden/runs holds one of every kind, finished. Each is copied, loses what a kill in its last
evaluations would have cost it, and is resumed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy_tasks.run_format import RUN_VERSION
from search.cli.main import main
from search.studies.kinds import KINDS
from tests.golden.runs import FOLDER, RUNS, TREE, begun_with, copy, is_tested_set, results, tree

pytestmark = pytest.mark.usefixtures("any_versions")
SAME_BYTES = pytest.mark.skipif(
    not is_tested_set(),
    reason="floats are recorded for the versions in constraints.txt",
)
# `estimate` keeps nothing; a training, left in the middle, is tests/golden/training.
NOT_RUNS = {"estimate", "train"}
MOST = 3  # journals of a run that are cut: workers start for each


def lose_the_end(run: Path) -> int:
    """Cut the journals' last lines, remove what was made of the journals; returns lines lost."""
    journals = sorted(path for path in run.rglob("trials.jsonl") if path.stat().st_size)[-MOST:]
    for path in journals:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    if (run / "race.json").exists():  # which has laps instead
        race = json.loads((run / "race.json").read_text())
        (run / "race.json").write_text(json.dumps({**race, "laps": race["laps"][:-1]}))
        journals.append(run / "race.json")
    for path in run.rglob("*"):
        if path.is_file() and not begun_with(path):
            path.unlink()
    return len(journals)


def call(*words: str) -> str:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result.output


def copied(name: str, folder: Path) -> Path:
    return copy(name, folder / name)


def test_every_kind_has_one():
    kinds = {json.loads((FOLDER / name / "config.json").read_text())["kind"] for name in RUNS}
    assert kinds == set(KINDS) - NOT_RUNS
    assert {path.name for path in FOLDER.iterdir()} == set(RUNS)


@pytest.mark.long
@SAME_BYTES
@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", RUNS)
def test_goes_on_and_ends_as_then(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the images of `rederive` are
    tree(tmp_path / TREE)
    run = copied(name, tmp_path)
    expected = results(run)
    assert expected
    lost = lose_the_end(run)
    assert results(run) != expected
    call("resume", str(run), "--quiet")
    assert lost
    assert results(run) == expected


@SAME_BYTES
@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_finished_there_is_nothing_to_do(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / TREE)
    run = copied(name, tmp_path)
    journals = {path: path.read_bytes() for path in run.rglob("trials.jsonl")}
    call("resume", str(run), "--quiet")
    assert {path: path.read_bytes() for path in run.rglob("trials.jsonl")} == journals
    assert results(run) == results(FOLDER / name)


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_has_a_report(name, tmp_path):
    run = copied(name, tmp_path)
    for report in run.rglob("*.md"):
        report.unlink()
    call("report", str(run))
    assert list(run.glob("*.md"))


@pytest.mark.parametrize("command", ["resume", "report"])
@pytest.mark.parametrize("name", RUNS)
def test_another_version_is_refused_in_one_line(name, command, tmp_path):
    run = copied(name, tmp_path)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "version": RUN_VERSION + 1}))
    result = CliRunner().invoke(main, [command, str(run)])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert f"version {RUN_VERSION}, but got 'version {RUN_VERSION + 1}'" in result.output


@pytest.mark.parametrize("file", ["rescore/config.json", "search/config.json", "child.pt"])
def test_folders_of_version_1_without_a_configuration_are_known(file, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    result = CliRunner().invoke(main, ["resume", str(tmp_path)])
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "but got 'version 1'" in result.output
