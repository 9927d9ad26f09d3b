"""What holds for a search holds for every kind of run: a damaged folder, a full disk, two at once.

On copies of the recorded run folders (tests/golden/runs), in this process and without workers.
"""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from analysis import write_reports
from policies import files
from policies.files import write_json
from search import Config, PoolConfig
from search.cli.main import main
from search.engine import loop
from search.engine.resources import cores
from search.runs.environment import differences
from search.runs.folder import locked
from tests.golden.runs import RUNS, TREE, begun_with, results, tree
from tests.search.commands import FIDELITY, PLANTED, answer, invoke
from tests.search.fakes import FakePool
from tests.search.test_golden_runs import SAME_BYTES, copied

pytestmark = pytest.mark.usefixtures("any_versions")

BEGINNING = ("config.json", "environment.json", "manifest.json")


WITHOUT_JOURNAL = {"race"}  # which keeps race.json
SLOW_TO_REPORT = {"fidelity", "rederive", "replicate"}  # for `make quick`


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.long] * (name in SLOW_TO_REPORT))
        for name in RUNS
        if name not in WITHOUT_JOURNAL
    ]
)
def run(request, tmp_path, monkeypatch) -> Path:
    """A finished run of every kind, in the current folder."""
    monkeypatch.chdir(tmp_path)
    if request.param == "rederive":
        tree(tmp_path / TREE)
    return copied(request.param, tmp_path)


def resumed(run: Path) -> Result:
    return CliRunner().invoke(main, ["resume", str(run), "--quiet"])


def made(run: Path) -> list[Path]:
    """Files that follow from the journal: what the run found."""
    return [path for path in run.rglob("*") if path.is_file() and not begun_with(path)]


def journals(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("trials.jsonl")}


def refused(result: Result, words: str) -> None:
    assert result.exit_code == 2, (result.output, result.exception)
    assert words in result.stderr and result.stderr.count("\n") == 1, result.stderr


@SAME_BYTES
@pytest.mark.long
def test_what_is_lost_or_replaced_of_its_results_is_made_anew(run):
    expected, held = results(run), journals(run)
    for number, path in enumerate(made(run)):
        if number % 3 == 0:
            path.unlink()
        else:
            path.write_bytes(b"{}" if number % 3 == 1 else b"\xff\x00")
    done = resumed(run)
    assert done.exit_code == 0, (done.output, done.exception)
    assert results(run) == expected and journals(run) == held


def test_without_a_journal_it_does_not_start_from_zero(run):
    for path in journals(run):
        held = path.read_bytes()
        path.unlink()
        refused(resumed(run), "trials.jsonl: must be there")
        assert not path.exists()
        path.write_bytes(held)


def test_a_broken_journal_is_named_and_left(run):
    for path, held in journals(run).items():
        broken = b"{torn\n" + held
        path.write_bytes(broken)
        refused(resumed(run), f"{path.name}, line 1")
        assert path.read_bytes() == broken
        path.write_bytes(held)


@pytest.mark.parametrize("name", [*BEGINNING, "trials.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_not_opened(run, name):
    path = next(run.rglob(name))
    path.unlink()
    os.mkfifo(path)
    done = resumed(run)
    assert done.exit_code in (1, 2) and done.stderr.count("\n") == 1, (done.output, done.exception)
    assert name in done.stderr


@pytest.mark.long
@SAME_BYTES
def test_a_pipe_in_the_place_of_the_log_ends_nothing(run):
    for folder in {path.parent for path in journals(run)}:
        os.mkfifo(folder / "run.log")
    done = resumed(run)
    assert done.exit_code == 0 and "cannot write" in done.stderr


@pytest.mark.long
def test_other_versions_are_said(run, monkeypatch):
    monkeypatch.setattr("search.studies.study.differences", differences)
    path = run / "environment.json"
    environment = json.loads(path.read_text())
    environment["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(environment))
    done = resumed(run)
    assert done.exit_code == 0 and "begun with other versions" in done.stderr
    assert "torch 1.0 -> " in done.stderr


def test_two_at_once_are_refused(run):
    with locked(run):
        refused(resumed(run), "another process is running in it")


@pytest.mark.long
def test_a_full_disk_at_the_end_is_one_line_and_loses_nothing(run, monkeypatch):
    expected, held = results(run), journals(run)
    for path in made(run):
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", _full)
        done = resumed(run)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    *warnings, error = done.stderr.splitlines()
    assert all(
        "run.log" in line or re.search("written anew|augments nothing", line) for line in warnings
    )
    assert re.fullmatch(rf"Error: {run}.*: No space left on device", error), error
    assert journals(run) == held
    assert resumed(run).exit_code == 0 and results(run) == expected


def _full(handle: int, data: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("content", [b"{torn", b"[]", b"\xff", b'{"laps": NaN}', None])
def test_a_race_does_not_go_on_from_a_broken_file(tmp_path, content):
    run = copied("race", tmp_path)
    path = run / "race.json"
    path.unlink()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    done = resumed(run)
    refused(done, "race.json")
    assert content is None or path.read_bytes() == content


def test_a_population_that_found_nothing_says_so(tmp_path):
    """In the recorded one the best child is of a line that never explored."""
    done = CliRunner().invoke(main, ["resume", str(copied("pba", tmp_path)), "--quiet"])
    assert done.exit_code == 0 and "every probability is 0" in done.stderr


def test_scripts_and_the_command_line_have_the_same_workers():
    assert PoolConfig().workers == cores() == Config.of("search").pool.workers


# Studies that read another run -------------------------------------------------------------------


@pytest.fixture
def searched(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "WorkerPool", FakePool())
    return copied("search-random", tmp_path)


def select(*words: str) -> Result:
    arguments = ["select", "search-random", "--workers", "2", "--quiet", "--out", "selected"]
    return CliRunner().invoke(main, [*arguments, *words])


@pytest.mark.long
@pytest.mark.parametrize("command", [
    f"compare {PLANTED} --policy none imagenet --seeds 2",
    f"tabulate {PLANTED} --policies 8",
    FIDELITY + " --policies 8 --seeds 2 --evaluation-seeds 1",
], ids=lambda words: words.split()[0])  # fmt: skip
def test_a_study_of_children_that_all_diverged_says_so(tmp_path, command):
    """In one line, with an exit code that is not 0; its report can be written all the same."""

    def diverging(job):
        outcome = answer(job)
        changes = {"diverged": True, "image_passes": 10}
        return replace(outcome, evaluation={**outcome.evaluation, **changes})

    said = invoke(command, tmp_path, FakePool(answer=diverging), code=1)
    assert said.startswith("Error: all ") and "children diverged" in said, said
    assert said.count("\n") == 1
    write_reports([tmp_path / "run"])


SAME = {"reward": 0.25}
DIVERGED = {"diverged": True}


@pytest.mark.parametrize(
    ("changes", "words"),
    [(SAME, "final policies have the reward 0.25"), (DIVERGED, "a child failed or diverged")],
)
@pytest.mark.long
def test_a_selection_without_a_difference_exports_nothing(searched, monkeypatch, changes, words):
    """And says what to do, which can be done."""

    def alike(job):
        outcome = answer(job)
        return replace(outcome, evaluation={**outcome.evaluation, **changes})

    monkeypatch.setattr(loop, "WorkerPool", FakePool(answer=alike))
    done = select("--rescore", "4", "--seeds", "2")
    assert done.exit_code == 1 and words in done.stderr and done.stderr.count("\n") == 1
    assert not Path("selected/policy.json").exists()
    for advice in re.findall("`augsearch (.*?)`", done.stderr):
        monkeypatch.setattr(loop, "WorkerPool", FakePool(answer=answer))
        followed = CliRunner().invoke(main, [*advice.split()])
        assert followed.exit_code == 0, (advice, followed.output)


def test_what_has_no_single_evaluations_makes_none_again(tmp_path):
    """--retry-failed would be without effect."""
    for kind, option in {"race": {"table": "planted"}, "train": {"policy": "none"}}.items():
        run = tmp_path / kind
        run.mkdir()
        write_json(run / "config.json", Config.of(kind, **option).to_json())
        refused(CliRunner().invoke(main, ["resume", str(run), "--retry-failed"]), kind)
        started = CliRunner().invoke(main, [kind, "--out", str(run), "--retry-failed"])
        assert started.exit_code == 2 and "No such option" in started.stderr


@pytest.mark.long
def test_select_leaves_out_a_last_line_that_was_cut(searched):
    journal = searched / "trials.jsonl"
    *lines, last = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines) + last[: len(last) // 2])
    done = select("--rescore", "4", "--seeds", "2")
    assert done.exit_code == 0, (done.output, done.exception)
    provenance = json.loads(Path("selected/policy.json").read_text())["provenance"]
    stages = sum(path.read_bytes().count(b"\n") for path in Path("selected").rglob("trials.jsonl"))
    assert provenance["evaluations"]["finished"] == len(lines) + stages


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda line: line[: len(line) // 2] + b"\n", "line 2"),
        (lambda line: re.sub(rb'"reward":[^,]*', b'"reward":1e999', line), "line 2"),
        (lambda line: re.sub(rb'"reward":[^,]*', b'"reward":NaN', line), "line 2"),
        (lambda line: re.sub(rb'"reward":[^,]*', b'"reward":"99"', line), "line 2"),
        (lambda line: line + line, "line 3"),
    ],
    ids=["cut in the middle", "infinite", "not a number", "text", "twice"],
)
@pytest.mark.parametrize("reader", ["select", "report", "resume", "optuna"])
def test_every_reader_of_a_journal_refuses_what_was_not_written_so(searched, reader, damage, said):
    journal = searched / "trials.jsonl"
    first, second, *others = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([first, damage(second), *others]))
    assert damage(second) != second
    words = [reader, "search-random"]
    done = select() if reader == "select" else CliRunner().invoke(main, words)
    refused(done, said)
    assert not Path("selected").exists()
