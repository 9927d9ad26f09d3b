"""run_search: the run folder, what it holds, and when it is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from policies import Policy, load_policy, load_policy_file
from policies.errors import InputError
from policies.files import read_json, write_atomically
from search import PoolConfig, RunConfig, run_search
from search.engine import cluster
from search.engine import loop as engine
from search.errors import WorkerError
from search.runs.journal import Journal
from search.studies import search as run_module
from tests.search.fakes import FakePool, Killed, bad


@pytest.fixture
def config(tmp_path):
    return RunConfig(
        out=str(tmp_path / "run"),
        task="synthetic",
        evaluator="synthetic",
        searcher="random",
        searcher_options={"batch_size": 6},
        evaluations=20,
        pool=PoolConfig(workers=3),
    )


@pytest.fixture
def fake(monkeypatch):
    """Runs in this process, on a pool that answers at once."""

    def start(config, pool=None, **options):
        monkeypatch.setattr(engine, "WorkerPool", pool or FakePool())
        return run_search(config, progress=False, **options)

    return start


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# What a run leaves ---------------------------------------------------------------------------


def test_the_folder_holds_the_run_and_its_policy(fake, config, tmp_path):
    result = fake(config)
    folder = tmp_path / "run"
    assert result.directory == folder and result.finished == 20
    assert set(contents(folder)) == {
        "config.json",
        "environment.json",
        "manifest.json",
        "trials.jsonl",
        "checkpoint.pt",
        "run.log",
        "policy.json",
        "policy.txt",
    }
    assert RunConfig.from_json(read_json(folder / "config.json")) == config
    environment = read_json(folder / "environment.json")
    assert environment["packages"]["torch"] and environment["python"]
    best_five = [tuple(map(tuple, row)) for trial in result.best for row in trial.augmentation]
    assert result.policy == Policy(best_five) and len(result.policy) == 25
    assert load_policy(folder / "policy.json") == load_policy(folder / "policy.txt")
    assert load_policy(folder / "policy.json") == result.policy


def test_the_policy_says_where_it_comes_from(fake, config, tmp_path):
    result = fake(config)
    provenance = load_policy_file(tmp_path / "run" / "policy.json").provenance
    assert provenance["task"] == "synthetic" and provenance["searcher"] == "random"
    assert provenance["seed"] == 0 and provenance["evaluations"]["finished"] == 20
    assert len(provenance["manifest_hash"]) == 64
    rewards = [candidate["reward"] for candidate in provenance["candidates"]]
    assert rewards == [trial.evaluation.reward for trial in result.best]
    low, high = provenance["candidates"][0]["interval95"]
    assert high - rewards[0] == pytest.approx(1.959964 * 0.01)
    assert rewards[0] - low == pytest.approx(1.959964 * 0.01)
    assert provenance["versions"]["torch"]


def test_top_decides_how_many_candidates_are_joined(fake, config):
    assert len(fake(replace(config, top=2, subpolicies=3)).policy) == 6


def test_an_empty_folder_is_as_good_as_none(fake, config, tmp_path):
    (tmp_path / "run").mkdir()
    assert fake(config).finished == 20


def test_nothing_found_is_an_error_not_a_policy(fake, config, tmp_path):
    pool = FakePool(0, lambda job: bad(job))
    config = replace(config, pool=PoolConfig(retries=0, max_consecutive_failures=100))
    with pytest.raises(WorkerError, match="none of 20 evaluations succeeded"):
        fake(config, pool)
    assert not (tmp_path / "run" / "policy.json").exists()


# Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["a run", "other files", "a file"])
def test_what_exists_is_never_written_over(fake, config, tmp_path, content):
    if content == "a run":
        fake(config)
    elif content == "a file":
        (tmp_path / "run").write_text("mine")
    else:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="out: must be a new folder"):
        fake(config)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_to_resume(fake, config, tmp_path, exists):
    if exists:
        (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="out: must hold a run to resume"):
        fake(config, resume=True)
    assert contents(tmp_path) == {}


CHANGES = {
    "searcher": "ppo",
    "searcher_options": {"batch_size": 7},
    "evaluations": 21,
    "seed": 1,
    "task_seed": 1,
    "subpolicies": 4,
    "operations": 3,
    "top": 3,
    "reward": "accuracy",
    "evaluator_options": {"noise": 0.0},
    "epochs": 3,
    "repeats": 2,
    "threads": 2,
    "preset": "paper",
    "device": "cpu",
    "precision": "float32",
}


@pytest.mark.parametrize(("name", "value"), CHANGES.items())
def test_a_resume_with_another_configuration_names_the_field_and_both_values(
    fake, config, tmp_path, name, value
):
    fake(config)
    before = contents(tmp_path)
    options = {"searcher_options": {}} if name == "searcher" else {}
    old = getattr(config, name)
    with pytest.raises(InputError) as caught:
        fake(replace(config, **{name: value}, **options), resume=True)
    assert f"{name} was {old!r} and is {value!r}" in str(caught.value.got)
    assert contents(tmp_path) == before


def test_where_and_how_fast_may_change(fake, config, tmp_path):
    with pytest.raises(Killed):
        fake(config, FakePool(0, killed_after=8))
    pool = PoolConfig(workers=7, cpus=0.5, time_limit=9.0, retries=5, max_consecutive_failures=3)
    moved = tmp_path / "moved"
    os.rename(tmp_path / "run", moved)
    assert fake(replace(config, pool=pool, out=str(moved)), resume=True).finished == 20


def test_a_changed_data_set_is_refused(fake, config, tmp_path):
    fake(config)
    path = tmp_path / "run" / "manifest.json"
    manifest = read_json(path)
    write_atomically(path, json.dumps({**manifest, "seed": 99}))
    with pytest.raises(InputError, match="data: must be the images the run was started with"):
        fake(config, resume=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": "augsearch-run"}',
        '{"format": "other", "version": 1}',
        "\x00" * 50,
        '{"format": NaN}',
        "[" * 100_000,
        "\xff\xfe",
    ],
    ids=range(10),
)
@pytest.mark.parametrize("name", ["config.json", "manifest.json", "environment.json"])
def test_damaged_files_are_named(fake, config, tmp_path, name, text):
    fake(config)
    (tmp_path / "run" / name).write_text(text)
    with pytest.raises(InputError) as caught:
        fake(config, resume=True)
    assert name in str(caught.value) or "data: must be the images" in str(caught.value)


def test_a_newer_version_and_unknown_fields_are_refused(config):
    data = config.to_json()
    with pytest.raises(InputError, match="version"):
        RunConfig.from_json({**data, "version": 2})
    with pytest.raises(InputError, match="wings"):
        RunConfig.from_json({**data, "wings": 2})
    with pytest.raises(InputError, match="no seed"):
        RunConfig.from_json({k: v for k, v in data.items() if k != "seed"})
    with pytest.raises(InputError, match="pool"):
        RunConfig.from_json({**data, "pool": {"wings": 2}})
    with pytest.raises(InputError, match="pool"):
        RunConfig.from_json({**data, "pool": 3})


@pytest.mark.parametrize(
    "change",
    [
        {"task": "reduced-imagnet"},
        {"searcher": "grid"},
        {"evaluations": 0},
        {"seed": -1},
        {"out": ""},
        {"top": 0},
        {"subpolicies": 0},
        {"operations": 0},
        {"threads": 0},
        {"searcher_options": {"wings": 2}},
        {"evaluator": "oracle"},
        {"reward": "beauty"},
        {"task": "folder"},
        {"task": "folder", "data": "/nowhere"},
        {"preset": "gpu"},
    ],
    ids=str,
)
def test_mistakes_leave_no_folder(fake, config, tmp_path, change):
    with pytest.raises(InputError):
        fake(replace(config, **change))
    assert contents(tmp_path) == {} and list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_named(fake, config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: must be a folder that can be created"):
        fake(replace(config, out=str(tmp_path / "file" / "run")))


# Crashes -------------------------------------------------------------------------------------


def test_a_finished_run_is_left_alone(fake, config, tmp_path):
    first = fake(config)
    before = contents(tmp_path)
    again = fake(config, pytest.fail, resume=True)
    after = contents(tmp_path)
    assert again.new == 0 and again.policy == first.policy and again.best == first.best
    assert {k: v for k, v in after.items() if "run.log" not in k} == {
        k: v for k, v in before.items() if "run.log" not in k
    }
    assert "is complete: 20 evaluations; nothing was done" in after["run/run.log"].decode()


@pytest.mark.parametrize("step", ["write_atomically", "save_policy"])
def test_killed_while_exporting(fake, config, tmp_path, monkeypatch, step):
    whole = fake(replace(config, out=str(tmp_path / "whole")))

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run_module, step, die)
        with pytest.raises(Killed):
            fake(config)
    assert not (tmp_path / "run" / "policy.json").exists()
    result = fake(config, resume=True)
    assert result.policy == whole.policy
    for name in ("policy.txt", "policy.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_killed_before_the_first_evaluation(fake, config, tmp_path):
    with pytest.raises(Killed):
        fake(config, FakePool(0, killed_after=0))
    assert {"config.json", "environment.json", "manifest.json"} <= set(contents(tmp_path / "run"))
    assert fake(config, resume=True).finished == 20


def test_other_versions_at_resume_are_noted(fake, config, tmp_path):
    with pytest.raises(Killed):
        fake(config, FakePool(0, killed_after=8))
    path = tmp_path / "run" / "environment.json"
    found = read_json(path)
    found["packages"]["torch"] = "1.0"
    write_atomically(path, json.dumps(found))
    fake(config, resume=True)
    assert (
        "started with other versions: torch 1.0 -> " in (tmp_path / "run" / "run.log").read_text()
    )


def test_disk_full_while_creating_leaves_nothing(fake, config, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "write_json", refuse)
    with pytest.raises(InputError, match="No space left on device"):
        fake(config)
    assert list(tmp_path.iterdir()) == []


def test_atomic_write_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    real = os.write

    def half(handle, data):
        if len(data) > 5:
            return real(handle, bytes(data)[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, "new content")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# With real workers ---------------------------------------------------------------------------


def results(folder):
    """The journal, without times and order."""
    times = ("started", "finished", "worker")
    with Journal(folder / "trials.jsonl") as journal:
        rows = [
            {k: v for k, v in r.items() if k not in times}
            for r in (t.to_json() for t in journal.trials())
        ]
    for row in rows:
        row["evaluation"].pop("seconds")
    return sorted(rows, key=lambda row: (row["batch"], row["slot"]))


@pytest.mark.ray
def test_one_two_and_four_workers_give_the_same_policy_and_journal(tmp_path):
    assert cluster.connect(PoolConfig(workers=4))
    try:
        for workers in (1, 2, 4):
            config = RunConfig(
                out=str(tmp_path / str(workers)),
                task="synthetic",
                evaluator="synthetic",
                evaluator_options={"sleep": 0.005},
                searcher="ppo",
                evaluations=90,
                searcher_options={"batch_size": 10},
                pool=PoolConfig(workers=workers, cpus=0.5),
            )
            assert run_search(config, progress=False).finished == 90
    finally:
        cluster.disconnect()
    texts = {(tmp_path / str(n) / "policy.txt").read_bytes() for n in (1, 2, 4)}
    assert len(texts) == 1
    assert results(tmp_path / "1") == results(tmp_path / "2") == results(tmp_path / "4")
    used = set()
    with Journal(tmp_path / "4" / "trials.jsonl") as journal:
        used = {trial.worker for trial in journal.trials()}
    assert len(used) > 1


@pytest.mark.parametrize(
    ("given", "evaluator", "reward"),
    [
        ({}, "from-scratch", "calibrated_log_likelihood"),
        ({"task": "folder"}, "weight-sharing", "log_likelihood"),
        ({"task": "folder", "preset": "paper"}, "from-scratch", "calibrated_log_likelihood"),
        ({"evaluator": "weight-sharing"}, "weight-sharing", "log_likelihood"),
        ({"task": "folder", "reward": "accuracy"}, "weight-sharing", "accuracy"),
    ],
)
def test_evaluator_and_reward_that_suit_the_task_are_the_default(given, evaluator, reward):
    config = RunConfig(out="runs/x", **given)
    assert (config.evaluator, config.reward) == (evaluator, reward)
    assert RunConfig.from_json(config.to_json()) == config
