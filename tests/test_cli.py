"""The command line from end to end on synthetic rewards."""

from __future__ import annotations

import json
import shutil

import click
import numpy as np
import optuna
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from policies import (
    CIFAR10,
    IMAGENET,
    InputError,
    Policy,
    RandAugment,
    load_policy,
    load_policy_file,
    save_policy,
)
from policies.policy_files import save_schedule
from policies.schedule import Schedule, ScheduleTransform
from proxy_tasks import REWARDS, TASKS
from proxy_tasks.evaluators.config import BEST_REWARDS
from proxy_tasks.evaluators.registry import KINDS
from search import SEARCHERS, PolicySpace
from search.cli.main import main
from search.errors import JournalError
from search.studies import settings
from search.studies.arms import NAMES, Arm, parse_arm, parse_arms
from search.studies.choice import RIDGE
from search.studies.config import read_config
from search.studies.kinds import KINDS as KINDS_OF_RUN
from search.studies.kinds import options_of_kind
from search.studies.seeds import training_seeds
from search.studies.selection import fit_model, journalled_policies, proposals
from search.trial import read_journal
from tests.search.fakes import FakePool, bad

SYNTHETIC = ["--evaluator", "synthetic", "--quiet", "--workers", "1"]


pytestmark = pytest.mark.usefixtures("in_process")


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", main.commands)
def test_help_explains_every_option_and_its_default(name):
    command = main.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            continue
        assert parameter.help, f"{name} {parameter.opts}"
        settled = parameter.required or parameter.is_flag or parameter.show_default
        # An option without a default says what happens without it.
        said = "[default:" in parameter.help or "[required]" in parameter.help
        assert settled or said, f"{name} {parameter.opts}"


def test_names_in_the_help_are_those_of_the_registries():
    assert set(settings.TASKS) == set(TASKS)
    choices = {
        each.name: each.choices for kind in KINDS_OF_RUN for _, each in options_of_kind(kind)
    }
    assert set(settings.SEARCHERS) == set(SEARCHERS)
    assert set(KINDS) == set(BEST_REWARDS)
    assert choices["reward"] == REWARDS
    assert all(name in settings.ARMS for name in NAMES)


def test_every_command_is_there():
    assert {
        "search", "randaugment", "rederive", "compare", "train", "report", "show", "export",
        "estimate", "doctor", "optuna", "fidelity", "pba", "select", "resume", "race", "tabulate",
        "replicate",
    } <= set(main.commands)  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["--m", "0", "5", "10", "--seeds", "3"],
        ["--m", "0", "--m", "5", "--m", "10", "--seeds", "3"],
        ["--seeds", "3", "--m", "0", "5", "--m", "10"],
        ["--m=0", "5", "10", "--seeds=3"],
    ],
)
def test_several_values_after_one_option(words):
    with main.commands["randaugment"].make_context("r", [*words, "--out", "x"]) as context:
        assert context.params["m"] == (0, 5, 10) and context.params["seeds"] == 3


def test_negative_numbers_are_values_not_options():
    with main.commands["randaugment"].make_context("r", ["--m", "-1", "5", "--out", "x"]) as c:
        assert c.params["m"] == (-1, 5)


# --- the main job --------------------------------------------------------------------------------


def test_a_search_leaves_a_complete_run_folder(small_run):
    names = {path.name for path in small_run.iterdir()}
    assert names >= {
        "config.json", "environment.json", "manifest.json", "trials.jsonl", "policy.json",
        "policy.txt",
    }  # fmt: skip
    assert len((small_run / "trials.jsonl").read_text().splitlines()) == 30
    assert load_policy(small_run / "policy.json") == load_policy(small_run / "policy.txt")
    assert len(load_policy(small_run / "policy.json")) == 25


@pytest.mark.long
def test_report_and_show(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    written = [folder / "report.md", folder / "report.html"]
    assert run("report", folder).split() == [str(path) for path in written]
    assert "Complete: 30 evaluations" in (folder / "report.md").read_text()
    run("show", "--policy", folder / "policy.json", "--out", tmp_path / "a.png", "--rows", "4")
    assert Image.open(tmp_path / "a.png").width > 400


@pytest.mark.long
def test_compare_writes_tables_and_says_what_they_mean(small_run, tmp_path):
    out = tmp_path / "compare"
    arms = ["none", "imagenet", small_run / "policy.json", "random:25", "randaugment:2,9"]
    arguments = ["compare", *SYNTHETIC, "--policy", *arms, "--seeds", 3, "--out", out]
    said = run(*arguments)
    assert "imagenet against none" in said and "80 % probability" in said
    for name in ("compare.csv", "compare.md", "compare.png"):
        assert (out / name).stat().st_size > 0
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert len(lines) == 15 and {line["part"] for line in lines} == {"test"}
    # Paired: every arm with the same seeds; random arms with a policy per seed.
    assert {line["seed"] for line in lines} == {*training_seeds("compare", 0, 3)}
    random = {json.dumps(line["augmentation"]) for line in lines if line["label"] == "random:25"}
    assert len(random) == 3
    assert "30 evaluations" in (out / "compare.md").read_text()  # what the search has cost
    before = (out / "trials.jsonl").read_bytes()
    assert run(*arguments, "--resume").replace("\n", "")
    assert (out / "trials.jsonl").read_bytes() == before


@pytest.mark.long
def test_a_study_with_failed_evaluations_is_not_complete(tmp_path, monkeypatch):
    """Exit code 1, and what to do; `resume --retry-failed` completes it."""
    monkeypatch.setattr(
        "search.engine.loop.WorkerPool",
        FakePool(0, lambda job: bad(job) if job.candidate.key == (1, 31 + 10) else None),
    )
    out = tmp_path / "grid"
    arguments = ["randaugment", "--n", 1, "--m", 5, 10, "--seeds", 3, *SYNTHETIC]
    said = run(*arguments, "--retries", 0, "--out", out, code=1)
    assert said.index("report in") < said.index("1 of 6 evaluations failed after all retries")
    assert f"augsearch resume {out} --retry-failed" in said
    monkeypatch.setattr("search.engine.loop.WorkerPool", FakePool())
    assert "Best cell" in run("resume", out, "--retry-failed")


def studied(path):
    return optuna.load_study(study_name="randaugment", storage=f"sqlite:///{path}")


@pytest.mark.long
def test_the_grid_is_evaluated_once_and_its_best_cell_exported(tmp_path):
    out = tmp_path / "grid"
    arguments = ["randaugment", "--n", 1, 2, "--m", 0, 10, 30, "--seeds", 2, *SYNTHETIC]
    said = run(*arguments, "--out", out)
    assert "Best cell: N = 2, M = 10." in said  # planted: RandAugment(2, 12) is best
    labels = [json.loads(row)["label"] for row in (out / "trials.jsonl").read_text().splitlines()]
    assert len(labels) == 12 and all(labels.count(label) == 2 for label in labels)
    file = load_policy_file(out / "policy.json")
    assert file.augmentation == RandAugment(2, 10)
    # The exported file is an arm like any other.
    assert parse_arm(str(out / "policy.json")).search["evaluations"] == 12
    # The grid is an Optuna study too, which may be deleted.
    best = studied(out / "optuna.db").best_params
    assert (best["n"], best["m"]) == (2, 10)
    (out / "optuna.db").unlink()
    assert str(out / "optuna.db") in run("optuna", out)
    assert studied(out / "optuna.db").best_params == best


@pytest.mark.long
def test_select_makes_proposals_and_exports_the_best_of_them(small_run, tmp_path):
    out = tmp_path / "selected"
    arguments = ["select", small_run, "--rescore", 6, "--rescore-seeds", 2, "--seeds", 2,
                 "--reward", "accuracy"]  # fmt: skip
    said = run(*arguments, "--workers", 1, "--quiet", "--out", out)
    made = {path.stem: load_policy(path) for path in (out / "proposals").glob("*.json")}
    assert {"best-5", "best-5-rescored", "one-by-one-60"} <= set(made)
    # The second evaluations are made as asked for, and their rewards make the proposals.
    assert read_config(out).evaluator.reward == "accuracy"
    again = journalled_policies(read_journal(out / "rescore/trials.jsonl"))
    means = {p: sum(r for q, r in again if q == p) / 2 for p, _ in again}
    first = journalled_policies(read_journal(small_run / "trials.jsonl"))
    model = fit_model(first, PolicySpace(), RIDGE, list(means.items()))
    assert set(proposals(first, model)["one-by-one-60"]) == set(made["one-by-one-60"])
    without = proposals(first, fit_model(first, PolicySpace(), RIDGE))
    assert made["one-by-one-60"] != without["one-by-one-60"]
    # The paper's proposal is what the search itself exported.
    assert made["best-5"] == load_policy(small_run / "policy.json")
    file = load_policy_file(out / "policy.json")
    ranking = file.provenance["ranking"]
    assert ranking == sorted(ranking, key=lambda pair: -pair[1]) and len(ranking) == len(made)
    assert file.policy == made[ranking[0][0]] == load_policy(out / "policy.txt")
    assert ranking[0][0] in said
    # 30 of the search, 6 x 2 again, all proposals x 2.
    assert file.provenance["evaluations"]["finished"] == 30 + 12 + 2 * len(made)
    keys = (out / "final/trials.jsonl").read_bytes()
    assert run(*arguments, "--workers", 1, "--quiet", "--out", out, "--resume")
    assert (out / "final/trials.jsonl").read_bytes() == keys


@pytest.mark.long
def test_a_small_fidelity_study(tmp_path):
    out = tmp_path / "fidelity"
    said = run(
        "fidelity",
        "--policies",
        8,
        "--seeds",
        2,
        "--evaluation-seeds",
        2,
        "--epochs",
        1,
        "--train-images",
        50,
        "--validation-images",
        50,
        "--test-images",
        50,
        "--quiet",
        "--evaluators",
        '{"planted": {"kind": "synthetic"}}',
        "--out",
        out,
        "--workers",
        1,
    )
    assert "8 policies, 2 from-scratch children each" in said
    assert len((out / "trials.jsonl").read_text().splitlines()) == 8 * (2 + 2)
    assert "planted" in (out / "fidelity.md").read_text()


def test_train_saves_weights_that_load_without_running_code(tmp_path):
    out = tmp_path / "child"
    said = run(
        "train",
        "--policy",
        "cifar10",
        "--epochs",
        1,
        "--train-images",
        50,
        "--validation-images",
        50,
        "--test-images",
        50,
        "--out",
        out,
    )
    assert "test accuracy" in said
    assert torch.load(out / "best.pt", weights_only=True)
    result = json.loads((out / "result.json").read_text())
    assert result["evaluation"]["part"] == "test"


@pytest.mark.long
def test_rederive_searches_compares_and_sets_side_by_side(tmp_path):
    rng = np.random.default_rng(0)  # every image another: parts share no content
    for number in range(120):
        for part, count in (("train", 2), ("val", 1)):
            folder = tmp_path / "imagenet" / part / f"n{number:08}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    out = tmp_path / "out"
    arguments = [
        "rederive", "--data", tmp_path / "imagenet", "--evaluations", 8, "--preset", "cpu",
        "--train-images", 120, "--validation-images", 120, "--seeds", 2, "--resolution", 8,
        "--searches", 1, "--random-searches", 0, "--grid", 0, "--other-child", "none",
        *SYNTHETIC, "--out", out,
    ]  # fmt: skip
    said = run(*arguments)
    assert "The published policy was" in said and said.endswith(f"report in {out}/rederive.md\n")
    text = (out / "rederive.md").read_text()
    assert "The published policy was" in text and "re-derived" in text
    assert text.count("search/policy.json against none") == 2
    done = [(out / name / "trials.jsonl").read_bytes() for name in ("compare", "compare-other")]
    assert done[0] != done[1]
    run(*arguments, "--resume")
    again = [(out / name / "trials.jsonl").read_bytes() for name in ("compare", "compare-other")]
    assert again == done


# --- export --------------------------------------------------------------------------------------


def test_text_and_json_exports_read_back(tmp_path):
    for form, name in (("text", "a.txt"), ("json", "a.json")):
        run("export", "--policy", "imagenet", "--format", form, "--out", tmp_path / name)
        assert load_policy(tmp_path / name) == IMAGENET


def test_exports_say_what_they_leave_out(tmp_path):
    path = tmp_path / "p.json"
    save_policy(path, Policy([[("Cutout", 0.5, 3), ("Rotate", 0.5, 3)], [("Cutout", 1.0, 3)]]))
    for form in ("torchvision", "timm"):
        said = run("export", "--policy", path, "--format", form, code=2)
        assert "must use operations that" in said and "--drop" in said
        out = tmp_path / f"{form}.py"
        said = run("export", "--policy", path, "--format", form, "--drop", "--out", out)
        assert "2 Cutout" in said and "Rotate" in out.read_text()
    assert "2 Cutout" not in run("export", "--policy", path)


def test_a_table_of_another_library_becomes_a_policy_file(tmp_path):
    table, out = tmp_path / "table.txt", tmp_path / "policy.json"
    table.write_text("[[['Rotate', 0.5, 0.77], ['Cutout', 0.4, 0.3]], [['Invert', 1.0, 0.2]]]")
    asked = ("export", "--from", "fast-autoaugment", "--policy", table, "--format", "json")
    assert "must have an equal magnitude" in run(*asked, code=2)
    said = run(*asked, "--nearest", "--drop", "--out", out)
    assert "Left out, as this toolkit lacks it: 1 Cutout" in said
    assert "Magnitudes made the nearest: 1, by 4.0 % of their range at most" in said
    assert load_policy_file(out).policy == ((("Rotate", 0.5, 5),), (("Invert", 1.0, None),))


def test_a_winning_transform_can_be_exported(tmp_path):
    path = tmp_path / "p.json"
    save_policy(path, RandAugment(3, 10))
    exported = run("export", "--policy", path, "--format", "torchvision")
    assert "num_ops=3, magnitude=10" in exported
    assert "text can express" in run("export", "--policy", path, code=2)
    assert "as_policy()" in run("show", "--policy", path, "--out", tmp_path / "x.png", code=2)


# --- errors --------------------------------------------------------------------------------------


def test_errors_of_a_run_are_one_line_without_traceback(monkeypatch, tmp_path):
    def full(*_, **__):
        raise JournalError("cannot write trials.jsonl: No space left on device")

    monkeypatch.setattr("search.studies.search.run_search", full)
    said = run("search", "--out", tmp_path / "new", code=1)
    assert said == "Error: cannot write trials.jsonl: No space left on device\n"


def test_bugs_keep_their_traceback(monkeypatch, tmp_path):
    def bug(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr("search.studies.search.run_search", bug)
    result = CliRunner().invoke(main, ["search", "--out", str(tmp_path / "new")])
    assert result.exit_code == 1 and isinstance(result.exception, ValueError)


def test_random_arms_are_the_same_every_time_and_differ_between_seeds():
    arm = parse_arm("random:5")
    assert arm == parse_arm("random:5")
    assert arm.augmentation(3, 0) == arm.augmentation(3, 1) != arm.augmentation(4, 0)
    assert parse_arm("random:25").augmentation(3, 0) != arm.augmentation(3, 0)


def test_several_files_of_one_method_are_taken_by_turns(tmp_path):
    files = []
    for number, name in enumerate(("Rotate", "Color")):
        files.append(tmp_path / f"{name}.json")
        provenance = {"evaluations": {"finished": 100 + 50 * number}, "cost": {"image_passes": 10}}
        save_policy(files[-1], Policy([[(name, 0.5, 3)]]), provenance=provenance)
    arm = parse_arm(f"ppo={files[0]},{files[1]}")
    assert arm.name == "ppo" and arm.search == {"evaluations": 125, "image_passes": 10}
    turns = [arm.augmentation(0, index)[0][0].name for index in range(4)]
    assert turns == ["Rotate", "Color", "Rotate", "Color"]
    with pytest.raises(InputError, match="multiple of the 2"):
        parse_arms([arm.text], 3)
    for text in ("ppo=", f"={files[0]}", "ppo=random:3"):
        with pytest.raises(InputError, match="NAME=FILE"):
            parse_arm(text)


@pytest.mark.parametrize("provenance", [
    {"evaluations": {"finished": "many"}}, {"cost": {"image_passes": None}},
    {"cost": {"image_passes": [3]}}, {"evaluations": {"finished": True}},
    {"cost": {"image_passes": -1}},
])  # fmt: skip
def test_a_cost_that_is_no_number_is_refused_before_training(tmp_path, provenance):
    path = tmp_path / "p.json"
    save_policy(path, CIFAR10, provenance=provenance)
    with pytest.raises(InputError, match=r"provenance\.\w+\.\w+: must be a whole number"):
        parse_arm(str(path))


def test_a_schedule_file_is_an_arm(tmp_path):
    path = tmp_path / "schedule.json"
    schedule = Schedule([(0, CIFAR10), (2, IMAGENET)], epochs=4)
    save_schedule(path, schedule, {"pba": {"population": 8}, "cost": {"image_passes": 1200}})
    arm = parse_arm(str(path))
    assert arm.members == (ScheduleTransform(schedule),)
    assert arm.search == {"evaluations": 8, "image_passes": 1200}


def test_a_policy_file_of_another_convention_is_trained_in_it(tmp_path):
    from policies import PolicyTransform, save_policy

    path = tmp_path / "mine.json"
    save_policy(path, CIFAR10, "timm")
    assert parse_arm(str(path)).members == (PolicyTransform(CIFAR10, "timm"),)


@pytest.mark.parametrize(
    "text", ["none", "imagenet", "randaugment:3,10", "trivialaugment", "uniform", "random:7"]
)
def test_arms_are_read_back_from_a_run_folder(text):
    arm = parse_arm(text)
    assert Arm.from_json(json.loads(json.dumps(arm.to_json()))) == arm


@pytest.mark.parametrize(
    "damage",
    [
        lambda arm: arm.pop("members"),
        lambda arm: arm.update(members=[]),
        lambda arm: arm.update(members=[[["Rotat", 0.5, 3]]]),
        lambda arm: arm.update(members=3),
        lambda arm: arm.update(random="many"),
        lambda arm: arm.update(search=None),
    ],
)
def test_arms_that_are_damaged_are_refused(damage):
    data = parse_arm("imagenet").to_json()
    damage(data)
    with pytest.raises(InputError):
        Arm.from_json(data)
