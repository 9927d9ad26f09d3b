"""The run folder: when a run may begin in it or go on, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from policies.errors import InputError
from proxy_tasks import get_task
from proxy_tasks.manifest import Manifest
from search import Config
from search.runs import folder as folder_module
from search.runs import journal as journal_module
from search.runs.folder import check_manifest, locked
from search.studies import fixed, study
from search.studies.config import read_config
from search.studies.kinds import options_of_kind
from tests.analysis.journals import journal_line
from tests.proxy_tasks.trees import write_tree
from tests.search.fakes import FakePool, Killed
from tests.search.running import contents, settled


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


@pytest.mark.parametrize(
    ("change", "complete"), [({"evaluations": 26}, False), ({"workers": 7}, True)]
)
def test_a_run_that_goes_on_is_not_complete(fake, config, tmp_path, change, complete):
    fake(config)
    with contextlib.suppress(Killed):
        fake(config.changed(**change), FakePool(0, killed_after=0), resume=True)
    assert (tmp_path / "run" / "policy.json").exists() == complete


def test_a_stage_that_is_made_anew_takes_policy_json_first(tmp_path, monkeypatch):
    (tmp_path / "final").mkdir()
    (tmp_path / "final/trials.jsonl").write_text(json.dumps(journal_line(0, 0)) + "\n")
    (tmp_path / "policy.json").write_text("{}")
    seen = []
    monkeypatch.setattr(
        fixed, "forget_results", lambda _: seen.append((tmp_path / "policy.json").exists())
    )
    run = SimpleNamespace(path=tmp_path, log=logging.getLogger("search"))
    fixed.begin_stage(run, tmp_path / "final", [])  # asked for other candidates than there are
    assert seen == [False]


@pytest.mark.parametrize("first", ["bfloat16", "float32"])
def test_what_auto_stands_for_is_decided_once(fake, config, tmp_path, monkeypatch, first):
    """On another machine it would stand for another number format, and mix two kinds of reward."""
    auto = config.changed(precision="auto", device="auto")
    monkeypatch.setattr(study, "pick_precision", lambda *_: getattr(torch, first))
    with pytest.raises(Killed):
        fake(auto, FakePool(0, killed_after=8))
    decided = read_config(tmp_path / "run").evaluator
    assert decided.precision == first and decided.device != "auto"
    other = {"bfloat16": torch.float32, "float32": torch.bfloat16}[first]
    monkeypatch.setattr(study, "pick_precision", lambda *_: other)
    for again in (auto, read_config(tmp_path / "run")):
        assert fake(again, resume=True).finished == 20
        assert read_config(tmp_path / "run").evaluator == decided


@pytest.mark.parametrize(("kind", "drawn"), [("train", (None, True)), ("search", (200, False))])
def test_a_training_takes_all_images_and_a_search_the_presets(monkeypatch, tmp_path, kind, drawn):
    def noting(*_, train_images, whole, **__):
        raise InputError("data", "was drawn", (train_images, whole), "stop here")

    monkeypatch.setattr(study, "get_task", noting)
    options = {"policy": "none"} if kind == "train" else {}
    with (
        pytest.raises(InputError, match=re.escape(str(drawn))),
        study.open_run(Config.of(kind, **options), tmp_path / "run"),
    ):
        raise AssertionError("was opened")


def test_workers_that_share_a_gpu_among_several_are_told(fake, config, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_gpus", lambda config: 4)
    fake(config)
    said = (tmp_path / "run/run.log").read_text()
    assert "workers use the first of 4 GPUs" in said
    fake(config.changed(workers=1), out=tmp_path / "alone")
    assert "GPUs" not in (tmp_path / "alone/run.log").read_text()


def test_a_selection_has_the_workers_of_the_search(fake, config, tmp_path):
    fake(config.changed(workers=3))
    run = str(tmp_path / "run")
    assert Config.of("select", run=run).pool.workers == 3
    assert Config.of("select", run=run, workers=1).pool.workers == 1


def test_what_changed_in_the_data_is_named(tmp_path):
    data = write_tree(tmp_path / "images", {"train": 12})
    before = get_task("folder", data, resolution=8)
    before.manifest.write(tmp_path / "manifest.json")
    first = min((data / "train/class0").iterdir())
    first.rename(first.with_name(f"elsewhere{first.suffix}"))
    with pytest.raises(
        InputError, match=r"[1-9]\d* of them others, [1-9]\d* not there, .* for one"
    ):
        check_manifest(tmp_path, get_task("folder", data, resolution=8))
    other = dataclasses.replace(before, manifest=dataclasses.replace(before.manifest, seed=5))
    with pytest.raises(InputError, match="the same images in other parts or with other settings"):
        check_manifest(tmp_path, other)


@pytest.mark.parametrize("place", [folder_module, journal_module])
def test_a_disk_without_locks_is_named(fake, config, tmp_path, monkeypatch, place):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(place.fcntl, "flock", refuse)
    with pytest.raises(InputError, match="must lie where files can be locked.*No locks available"):
        fake(config)


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


def test_runs_begun_at_once_below_a_new_folder_do_not_meet(tmp_path, monkeypatch):
    """The one finds what the other has just made, and leaves it when it undoes its own."""
    mkdir = Path.mkdir

    def beaten(path, *args, **options):
        if path == tmp_path / "runs":
            mkdir(path)
            mkdir(path / "other")
        mkdir(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", beaten)
    with folder_module.begun(tmp_path / "runs" / "mine", {"config.json": {}}):
        assert (tmp_path / "runs/mine/config.json").exists()
    monkeypatch.undo()
    with pytest.raises(InputError, match="a mistake"):
        with folder_module.begun(tmp_path / "more" / "mine", {"config.json": {}}):
            (tmp_path / "more" / "other").mkdir()
            raise InputError("seed", "must be a mistake", 1, "mend it")
    assert [path.name for path in (tmp_path / "more").iterdir()] == ["other"]


def test_here_is_a_folder_too(fake, config, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert fake(config, out=".").finished == 20
    assert (tmp_path / "here" / "policy.json").is_file()


@pytest.mark.parametrize("closed", [False, True])
def test_a_disk_of_its_own_is_empty_when_it_is_new(fake, config, tmp_path, monkeypatch, closed):
    """mkfs puts lost+found there, which only root may look into."""
    disk = tmp_path / "run"
    (disk / "lost+found").mkdir(parents=True)
    if closed:
        real = os.listdir

        def guarded(path="."):
            assert "lost+found" not in str(path)
            return real(path)

        monkeypatch.setattr(os, "listdir", guarded)
    with pytest.raises(Killed):
        fake(config, FakePool(0, killed_after=0))
    assert fake(config.changed(seed=3)).finished == 20
    assert (disk / "lost+found").is_dir() and (disk / "policy.json").is_file()


def test_an_unwritable_place_is_named(fake, config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: must be a folder that can be created"):
        fake(config, out=tmp_path / "file" / "run")
