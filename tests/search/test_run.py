"""run_search: the run folder, what it holds, and when it is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import replace as changed_by

import numpy as np
import pytest
from PIL import Image

from policies import Policy, load_policy, load_policy_file, save_policy
from policies.errors import InputError
from policies.files import read_json, write_atomically
from proxy_tasks.manifest import Manifest
from search import Config, PoolConfig, run_search
from search.engine import cluster
from search.engine import loop as engine
from search.errors import NothingFound
from search.runs import folder as folder_module
from search.runs.folder import locked
from search.runs.journal import Journal
from search.studies import search as run_module
from search.studies import study
from search.studies.config import read_config
from search.studies.kinds import options_of_kind
from tests.search.fakes import FakePool, Killed, bad, good


@pytest.fixture
def config():
    return Config.of(
        "search",
        task="synthetic",
        evaluator="synthetic",
        searcher="random",
        searcher_options={"batch_size": 6},
        evaluations=20,
        precision="float32",
        workers=3,
    )


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Runs in this process, on a pool that answers at once."""

    def start(config, pool=None, out=None, **options):
        monkeypatch.setattr(engine, "WorkerPool", pool or FakePool())
        return run_search(config, out or tmp_path / "run", progress=False, **options)

    return start


def settled(config):
    return changed_by(config, evaluator=study.settled(config.evaluator, config.pool))


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
        "run.log",
        ".augsearch.lock",
        "policy.json",
        "policy.txt",
    }
    assert read_config(folder) == settled(config)
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
    assert len(fake(config.changed(top=2, subpolicies=3)).policy) == 6


def test_an_empty_folder_is_as_good_as_none(fake, config, tmp_path):
    (tmp_path / "run").mkdir()
    assert fake(config).finished == 20


def test_nothing_found_is_an_error_not_a_policy(fake, config, tmp_path, monkeypatch):
    monkeypatch.setattr("search.engine.failures.MAX_IN_A_ROW", 100)
    pool = FakePool(0, lambda job: bad(job, "crash"))
    config = config.changed(retries=0)
    with pytest.raises(NothingFound, match="none of 20 evaluations succeeded"):
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
def test_resume_begins_where_there_is_nothing(fake, config, tmp_path, exists):
    """So that a script which is started again and again needs one command only."""
    if exists:
        (tmp_path / "run").mkdir()
    assert fake(config, resume=True).new == 20
    assert fake(config, resume=True).new == 0


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_without_a_result_is_begun_again_with_other_options(
    fake, config, tmp_path, resume
):
    with pytest.raises(Killed):
        fake(config, FakePool(0, killed_after=0))
    other = config.changed(seed=3)
    assert fake(other, resume=resume).finished == 20
    assert read_config(tmp_path / "run").settings.seed == 3


@pytest.mark.parametrize("name", ["notes.txt", "search/thesis.tex"])
def test_a_folder_with_something_of_the_users_is_never_begun_again(fake, config, tmp_path, name):
    with pytest.raises(Killed):
        fake(config, FakePool(0, killed_after=0))
    path = tmp_path / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(InputError, match="new folder"):
        fake(config.changed(seed=3))
    assert path.read_text() == "mine"


@pytest.mark.parametrize("killed_after", range(4))
def test_killed_while_beginning_is_no_obstacle(fake, config, tmp_path, monkeypatch, killed_after):
    """After each of the files that a folder begins with: both ways on are open."""
    real, written = folder_module.write_atomically, []

    def die(*arguments):
        if len(written) == killed_after:
            raise Killed
        written.append(arguments)
        real(*arguments)

    for place, resume in (("a", False), ("b", True)):
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(folder_module, "write_atomically", die)
            with pytest.raises(Killed):
                fake(config, FakePool(0, killed_after=0), out=tmp_path / place)
        assert fake(config, out=tmp_path / place, resume=resume).finished == 20


def test_one_run_at_a_time_in_a_folder(fake, config, tmp_path):
    fake(config)
    with locked(tmp_path / "run"), pytest.raises(InputError, match="must not be in use"):
        fake(config, resume=True)
    (tmp_path / "new").mkdir()
    with locked(tmp_path / "new"), pytest.raises(InputError, match="must not be in use"):
        fake(config, out=tmp_path / "new")


CHANGES = {
    "searcher": "ppo",
    "searcher_options": {"batch_size": 7},
    "evaluations": 19,
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
    "precision": "bfloat16",
    "kernels": "fused",
}


@pytest.mark.parametrize(("name", "value"), CHANGES.items())
def test_a_resume_with_another_configuration_names_the_field_and_both_values(
    fake, config, tmp_path, name, value
):
    fake(config)
    before = contents(tmp_path)
    options = {"searcher_options": {}} if name == "searcher" else {}
    (old,) = (
        getattr(getattr(settled(config), section), declared.field)
        for section, declared in options_of_kind("search")
        if declared.name == name
    )
    with pytest.raises(InputError) as caught:
        fake(config.changed(**{name: value}, **options), resume=True)
    assert f"{name} was {old!r} and is {value!r}" in str(caught.value.got)
    assert contents(tmp_path) == before


def test_other_operations_are_named(fake, config):
    fake(config.changed(ops=("Rotate", "Color", "Invert")))
    with pytest.raises(InputError, match="ops lacks Invert and has in addition Solarize"):
        fake(config.changed(ops=("Rotate", "Color", "Solarize")), resume=True)


def test_a_run_without_its_journal_does_not_start_from_zero(fake, config, tmp_path):
    fake(config)
    (tmp_path / "run" / "trials.jsonl").unlink()
    with pytest.raises(InputError, match=r"trials.jsonl: must be there, since the run has results"):
        fake(config, resume=True)
    assert not (tmp_path / "run" / "trials.jsonl").exists()


def test_where_and_how_fast_may_change(fake, config, tmp_path):
    with pytest.raises(Killed):
        fake(config, FakePool(0, killed_after=8))
    pool = {"workers": 7, "cpus": 0.5, "time_limit": 9.0, "retries": 5}
    moved = tmp_path / "moved"
    os.rename(tmp_path / "run", moved)
    assert fake(config.changed(**pool), out=moved, resume=True).finished == 20


def test_a_changed_data_set_is_refused(fake, config, tmp_path):
    fake(config)
    path = tmp_path / "run" / "manifest.json"
    dataclasses.replace(Manifest.read(path), seed=99).write(path)
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


def test_other_versions_and_unknown_fields_are_refused(config):
    data = config.to_json()
    for version in (1, 3, None, "2"):
        with pytest.raises(InputError, match="must be a run folder of version 2"):
            Config.from_json({**data, "version": version})
    with pytest.raises(InputError, match="wings"):
        Config.from_json({**data, "wings": 2})
    with pytest.raises(InputError, match="wings"):
        Config.from_json({**data, "pool": {"wings": 2}})
    with pytest.raises(InputError, match="pool"):
        Config.from_json({**data, "pool": 3})
    with pytest.raises(InputError, match="kind"):
        Config.from_json({**data, "kind": "dance"})
    del data["settings"]["seed"]
    assert Config.from_json(data) == config  # a field that came later takes its default


@pytest.mark.parametrize(
    "change",
    [
        {"task": "reduced-imagnet"},
        {"searcher": "grid"},
        {"evaluations": 0},
        {"seed": -1},
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
        fake(config.changed(**change))
    assert contents(tmp_path) == {} and list(tmp_path.iterdir()) == []


def test_an_out_without_a_name(fake, config, tmp_path):
    with pytest.raises(InputError, match="out: must name a folder"):
        fake(config, out=" ")


def test_a_mistake_found_by_a_worker_leaves_no_folder(fake, config, tmp_path):
    def refuse(*_, **__):
        raise InputError("task", "must have images", 0, "add some")

    with pytest.raises(InputError):
        fake(config, refuse, out=tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        fake(config, refuse, out=tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_here_is_a_folder_too(fake, config, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert fake(config, out=".").finished == 20
    assert (tmp_path / "here" / "policy.json").is_file()


def test_an_unwritable_place_is_named(fake, config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: must be a folder that can be created"):
        fake(config, out=tmp_path / "file" / "run")


# Growing -------------------------------------------------------------------------------------


def test_a_finished_search_that_grows_ends_as_if_it_had_been_so_from_the_start(
    fake, config, tmp_path
):
    small = fake(config.changed(searcher="ppo", searcher_options={"batch_size": 6}))
    big = config.changed(searcher="ppo", searcher_options={"batch_size": 6}, evaluations=50)
    whole = fake(big, out=tmp_path / "whole")
    grown = fake(study.grown(tmp_path / "run", {"evaluations": 50}), resume=True)
    assert grown.new == 30 and grown.policy == whole.policy != small.policy
    assert read_config(tmp_path / "run") == read_config(tmp_path / "whole")
    for name in ("policy.txt", "policy.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_data_may_have_moved(fake, config, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "here" / "train" / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "here" / "train" / name / f"{index}.png")
    own = config.changed(task="folder", data=str(tmp_path / "here"), train_images=8)
    fake(own)
    os.rename(tmp_path / "here", tmp_path / "there")
    moved = study.grown(tmp_path / "run", {"data": str(tmp_path / "there")})
    assert fake(moved, resume=True).new == 0
    assert read_config(tmp_path / "run").task.data == str(tmp_path / "there")


def test_what_may_not_change_is_said(fake, config, tmp_path):
    fake(config)
    for change in ({"seed": 1}, {"seeds": 3}, {"wings": 1}):
        with pytest.raises(InputError, match="must not change in a run of the kind search"):
            study.grown(tmp_path / "run", change)
    with pytest.raises(InputError, match="may grow"):
        fake(study.grown(tmp_path / "run", {"evaluations": 7}), resume=True)


def test_a_lost_or_replaced_policy_is_written_anew(fake, config, tmp_path, caplog):
    result = fake(config)
    before = contents(tmp_path / "run")
    for damage in (
        lambda folder: (folder / "policy.txt").unlink(),
        lambda folder: (folder / "policy.json").write_text("{}"),
        lambda folder: save_policy(folder / "policy.json", Policy([[("Invert", 1.0, None)]])),
    ):
        damage(tmp_path / "run")
        caplog.clear()
        again = fake(config, resume=True)
        assert "not as the journal says; written anew" in caplog.text
        assert again.policy == result.policy
        for name in ("policy.txt", "policy.json"):
            assert contents(tmp_path / "run")[name] == before[name]


# Nothing to choose by ------------------------------------------------------------------------


def same_reward(job, **changes):
    outcome = good(job)
    return changed_by(outcome, evaluation={**outcome.evaluation, "reward": 0.25, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, "rewards are 0.25"), ({"diverged": True}, "all 20 children diverged")],
)
def test_a_search_without_a_difference_exports_nothing(fake, config, tmp_path, changes, words):
    pool = FakePool(0, lambda job: same_reward(job, **changes))
    with pytest.raises(NothingFound, match=words) as caught:
        fake(config, pool)
    assert caught.value.exit_code == 1
    assert not {"policy.json", "policy.txt"} & set(contents(tmp_path / "run"))


def test_a_diverged_child_is_never_exported(fake, config, tmp_path):
    """However high its reward is."""

    def answer(job):
        outcome = good(job)
        if job.candidate.slot == 0:
            best = {**outcome.evaluation, "reward": 9.0, "diverged": True}
            return changed_by(outcome, evaluation=best)
        return outcome

    result = fake(config, FakePool(0, answer))
    chosen = load_policy_file(tmp_path / "run" / "policy.json").provenance["candidates"]
    assert all(each["slot"] and each["reward"] < 9 for each in chosen) and result.policy


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


@pytest.mark.parametrize("after", [0, 1])
def test_killed_while_exporting(fake, config, tmp_path, monkeypatch, after):
    whole = fake(config, out=tmp_path / "whole")

    written = []

    def die(path, text):
        if len(written) == after:
            raise Killed
        written.append(path)
        write_atomically(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_atomically", die)
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


def test_other_versions_at_resume_are_noted(fake, config, tmp_path, caplog):
    with pytest.raises(Killed):
        fake(config, FakePool(0, killed_after=8))
    path = tmp_path / "run" / "environment.json"
    found = read_json(path)
    found["packages"]["torch"] = "1.0"
    write_atomically(path, json.dumps(found))
    fake(config, resume=True)
    assert "begun with other versions: torch 1.0 -> " in caplog.text


def test_disk_full_while_creating_leaves_nothing(fake, config, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_atomically", refuse)
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
            config = Config.of(
                "search",
                task="synthetic",
                evaluator="synthetic",
                evaluator_options={"sleep": 0.005},
                searcher="ppo",
                evaluations=90,
                searcher_options={"batch_size": 10},
                workers=workers,
                cpus=0.5,
            )
            assert run_search(config, tmp_path / str(workers), progress=False).finished == 90
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
    config = Config.of("search", **given)
    assert (config.evaluator.kind, config.evaluator.reward) == (evaluator, reward)
    assert Config.from_json(config.to_json()) == config
