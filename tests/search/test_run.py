"""run_search: what a run leaves in its folder, how it grows, and what crashes do to it."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace as changed_by
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from policies import (
    PAPER_OPS,
    Policy,
    PolicyTransform,
    load_policy,
    load_policy_file,
    save_policy,
)
from policies.errors import InputError
from policies.files import read_json, write_atomically
from policies.formats import convert
from search import Config
from search.errors import NothingFound
from search.runs import folder as folder_module
from search.runs.environment import differences, environment, source_digest
from search.studies import search as run_module
from search.studies import study
from search.studies.config import read_config
from search.trial import JOURNAL_NAME, read_journal
from tests.policies.test_formats import certain, image, ours, theirs
from tests.proxy_tasks.trees import write_tree
from tests.search.fakes import FakePool, Killed, bad, good
from tests.search.running import contents, settled

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


@pytest.mark.parametrize("searcher", ["random", "ppo", "tpe", "thompson", "evolution"])
def test_operations_that_are_left_out_are_in_no_candidate(fake, config, tmp_path, searcher):
    """So that torchvision and timm, which lack them, take all that the search found."""
    without = ("Cutout", "SamplePairing")
    fake(config.changed(searcher=searcher, evaluations=18, top=9, without=without))
    trials = read_journal(tmp_path / "run" / JOURNAL_NAME)
    tried = {name for trial in trials for row in trial.augmentation for name, _, _ in row}
    assert tried == set(PAPER_OPS) - set(without)
    for form in ("torchvision", "timm"):
        assert not convert(load_policy_file(tmp_path / "run" / "policy.json"), form).left_out


@pytest.mark.long
def test_a_searchs_tuple_list_is_torchvisions_pixel_for_pixel(fake, config, tmp_path):
    """The list in torchvision's own class, as a user pastes it; every row, with every sign."""
    without = ("Cutout", "SamplePairing")
    fake(config.changed(evaluations=18, without=without))
    policy = load_policy(tmp_path / "run" / "policy.txt")
    transform = transforms.AutoAugment()
    assert len(policy) == 25
    for row in certain(policy):
        transform.policies = [tuple(row)]
        found = theirs(transform, image(), 6)
        assert found <= ours(PolicyTransform([row]), image()), row


def test_many_of_the_best_are_all_remembered(fake, config, tmp_path):
    """What is not refused before the first evaluation is written after the last."""
    result = fake(config.changed(evaluations=320, top=300, subpolicies=1, operations=2))
    assert len(result.policy) == len(load_policy(tmp_path / "run" / "policy.json")) == 300


def test_names_in_no_known_encoding_are_no_obstacle(fake, config, tmp_path):
    """Class and file in latin-1: a whole search, its resume, and a path that is not UTF-8 too."""
    latin = os.fsdecode(b"caf\xe9")
    root = write_tree(tmp_path / f"images-{latin}", {"train": 12})
    os.rename(root / "train/class1", root / "train" / latin)
    os.rename(root / "train" / latin / "0.png", root / "train" / latin / f"{latin}.png")
    out = tmp_path / f"run-{latin}"
    own = config.changed(task="folder", data=str(root), train_images=9, resolution=16)
    assert len(fake(own, out=out).policy) == 25
    assert load_policy_file(out / "policy.json").provenance["task"] == "folder"
    (out / "policy.json").unlink()
    assert fake(own, out=out, resume=True).new == 0
    assert load_policy(out / "policy.json") == load_policy(out / "policy.txt")


# Growing -------------------------------------------------------------------------------------


@pytest.mark.long
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
    said = "has no policy.json and no policy.txt until it is complete again"
    assert said in (tmp_path / "run" / "run.log").read_text()
    assert said not in (tmp_path / "whole" / "run.log").read_text()


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
    now = found["source"]
    found["packages"]["torch"], found["source"] = "1.0", "0" * 16
    write_atomically(path, json.dumps(found))
    fake(config, resume=True)
    assert "begun with other versions: torch 1.0 -> " in caplog.text
    assert f"source {'0' * 16} -> {now}" in caplog.text


def test_a_change_of_the_source_is_seen(tmp_path, monkeypatch):
    """In any of the four packages; of an environment of an earlier version nothing is said."""
    made = tmp_path / "search/cli/main.py"
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.util,
            "find_spec",
            lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path / name)]),
        )
        found = []
        for change in (
            lambda: made.parent.mkdir(parents=True),
            lambda: made.write_text("pass"),
            lambda: made.write_text("pass "),
            lambda: made.rename(made.with_name("more.py")),
            lambda: (tmp_path / "analysis").mkdir(),
            lambda: (tmp_path / "analysis/main.py").write_text("pass"),
        ):
            change()
            found.append(source_digest.__wrapped__())
    assert found[4] == found[3] and len(set(found)) == 5 and {len(each) for each in found} == {16}
    now = environment()
    assert differences(now, now) == []
    assert differences({**now, "source": None}, now) == []
    assert differences({**now, "source": found[0]}, now) == [
        f"source {found[0]} -> {now['source']}"
    ]


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
    with pytest.raises(FileNotFoundError) as missing:
        write_atomically(tmp_path / "nowhere" / "a.json", "new")
    assert missing.value.filename == str(tmp_path / "nowhere" / "a.json")  # not its temporary one


@pytest.mark.parametrize(
    ("given", "evaluator", "reward"),
    [
        ({}, "from-scratch", "calibrated_log_likelihood"),
        ({"task": "folder"}, "from-scratch", "calibrated_log_likelihood"),
        ({"task": "folder", "searcher": "ppo"}, "weight-sharing", "log_likelihood"),
        ({"task": "folder", "evaluations": 9}, "weight-sharing", "log_likelihood"),
        ({"task": "folder", "preset": "paper"}, "from-scratch", "calibrated_log_likelihood"),
        ({"evaluator": "weight-sharing"}, "weight-sharing", "log_likelihood"),
        ({"task": "folder", "reward": "accuracy"}, "from-scratch", "accuracy"),
    ],
)
def test_evaluator_and_reward_that_suit_the_task_are_the_default(given, evaluator, reward):
    config = Config.of("search", **given)
    assert (config.evaluator.kind, config.evaluator.reward) == (evaluator, reward)
    assert Config.from_json(config.to_json()) == config
