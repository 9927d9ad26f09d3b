"""Options beside a configuration that is there: of a file (--config), of a run that goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from policies import SVHN, load_policy_file
from policies.errors import InputError
from proxy_tasks.manifest import Manifest
from proxy_tasks.trials import read_journal
from search import Config
from search.cli.main import main
from search.runs.folder import forget_policy
from search.studies import select, study
from search.studies.arms import Arm
from search.studies.config import overridden, read_options, with_recorded
from search.studies.rederive import compare_configs
from search.studies.replicate import with_arms
from search.studies.study import merged
from search.studies.train import _with_arm as with_arm
from tests.golden.runs import copy, results

PLANTED = "--task synthetic --evaluator synthetic --workers 1 --quiet".split()

pytestmark = pytest.mark.usefixtures("any_versions", "in_process")


def called(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def refused(*words: str) -> str:
    said = called(*words, code=2)
    assert said.count("\n") == 1, said
    return said


def of_file(kind: str, file: Path, **given) -> Config:
    """As the command line puts them together."""
    options, held = read_options(file, kind)
    return with_recorded(Config.of(kind, **overridden(options, given)), held)


def float_image(image):
    return image / 2


# Runs that go on ---------------------------------------------------------------------------------


def test_a_growth_that_is_refused_is_taken_back(tmp_path):
    """What is asked for can never become less: the run could not be gone on with any more."""
    run = copy("compare", tmp_path / "compare")
    before, found = (run / "config.json").read_bytes(), results(run)
    here = f"{__name__}:float_image"
    assert "must return an image" in refused("resume", run, "--policy", here, "--quiet")
    assert (run / "config.json").read_bytes() == before
    called("resume", run, "--quiet")
    assert results(run) == found


def test_a_growth_by_another_version_is_taken_back(tmp_path):
    """Its searcher asks otherwise; what the run was is finished and stays so."""
    run = copy("search-ppo", tmp_path / "search")
    journal = run / "trials.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    first["augmentation"] = json.loads(lines[1])["augmentation"]
    journal.write_text(json.dumps(first) + "\n" + "".join(lines[1:]))
    before = {path.name: path.read_bytes() for path in run.glob("[cpt]*.json*")}
    assert {"config.json", "policy.json", "trials.jsonl"} <= before.keys()
    said = called("resume", run, "--evaluations", "30", "--quiet", code=1)
    assert "another configuration or version made it: go on by that" in said
    assert {path.name: path.read_bytes() for path in run.glob("[cpt]*.json*")} == before


def test_a_growth_that_was_begun_stays(tmp_path, monkeypatch):
    run = copy("compare", tmp_path / "compare")
    lines = len(read_journal(run / "trials.jsonl"))

    def found_out_late(*args, **how):
        called_run(*args, **how)
        raise InputError("late", "must be told", 1, "mend it")

    from search.studies import fixed

    called_run = fixed.run
    monkeypatch.setattr(fixed, "run", found_out_late)
    refused("resume", run, "--seeds", "6", "--quiet")
    assert len(read_journal(run / "trials.jsonl")) > lines
    assert json.loads((run / "config.json").read_text())["settings"]["seeds"] == 6


def test_objects_keep_the_order_in_which_a_run_has_them():
    """A fidelity study numbers its batches by it."""
    kinds = {"one": {"kind": "synthetic"}, "two": {"kind": "synthetic", "options": {"passes": 2}}}
    saved, given = (
        Config.of("fidelity", task="synthetic", evaluators=dict(items), seeds=seeds)
        for items, seeds in ((kinds.items(), 2), (reversed(kinds.items()), 3))
    )
    both = merged(saved, given, Path("run"))
    assert list(given.settings.evaluators) == ["two", "one"] and both.settings.seeds == 3
    assert list(both.settings.evaluators) == ["one", "two"]


@pytest.mark.long
def test_a_stage_does_not_grow_beyond_the_others(tmp_path, monkeypatch):
    run = copy("replicate", tmp_path / "whole")
    stage = run / "draw-0" / "random" / "search"
    assert f"let {run} grow" in refused("resume", stage, "--budget", "100")
    monkeypatch.chdir(stage.parent)
    assert f"let {run} grow" in refused("resume", "search", "--budget", "100")
    called("resume", "search", "--quiet")  # nothing more than it was asked for
    again = ("search", "--config", stage / "config.json", "--out", stage, "--resume")
    assert f"let {run} grow" in refused(*again, "--budget", "100")
    alone = Path(stage.rename(tmp_path / "alone"))
    called("resume", alone, "--budget", "30", "--quiet")
    assert json.loads((alone / "config.json").read_text())["settings"]["budget"] == 30


def test_a_run_is_as_long_as_it_was_asked_for_in_its_own_terms(tmp_path):
    staged, ppo = (copy(f"search-{name}", tmp_path / name) for name in ("staged", "ppo"))
    said = refused("resume", staged, "--evaluations", "500")
    assert "evaluations: must not be given to a run that goes by its budget" in said
    assert "pass --evaluations" in refused("resume", ppo, "--budget", "500")


# Files -------------------------------------------------------------------------------------------


def test_options_given_win_over_what_excludes_them(tmp_path):
    staged, ppo = (copy(f"search-{n}", tmp_path / n) / "config.json" for n in ("staged", "ppo"))
    made = of_file("search", staged, evaluations=20, searcher="random")
    assert (made.settings.evaluations, made.settings.budget) == (20, None)
    assert made.settings.cheap == {} and made.searcher.options == {}
    assert of_file("search", staged).to_json() == json.loads(staged.read_text())
    assert of_file("search", staged, searcher="staged").settings.cheap["kind"] == "synthetic"
    assert of_file("search", ppo, budget=30).settings.evaluations is None
    assert overridden({"searcher_options": {"lag": 0}}, {"searcher": "ppo"}) == {
        "searcher_options": {"lag": 0}, "searcher": "ppo",
    }  # fmt: skip
    other = of_file("search", ppo, evaluator="from-scratch")
    assert other.evaluator.options == {} and other.searcher.options == {"batch_size": 6}


def test_another_policy_brings_its_own_recipe(tmp_path):
    file = tmp_path / "config.json"
    cut = with_arm(Config.of("train", policy="none+cutmix:1.0"))
    file.write_text(json.dumps(cut.to_json()))
    assert cut.settings.cutmix == 1 and with_arm(of_file("train", file)) == cut
    other = of_file("train", file, policy="none+erase:0.5", ema=0.5)
    assert with_arm(other) == with_arm(Config.of("train", policy="none+erase:0.5", ema=0.5))
    with pytest.raises(InputError, match="cutmix: must not differ from the cutmix of the policy"):
        with_arm(of_file("train", file, cutmix=0.5))


def test_a_selection_goes_on_from_its_copies(tmp_path, monkeypatch):
    """Killed before its first result, and resumed where its search is no more."""
    search, out = copy("search-random", tmp_path / "search"), tmp_path / "selected"
    with monkeypatch.context() as patch:
        patch.setattr(select._Selection, "run", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            select.run_select(Config.of("select", run=str(search), rescore=2, seeds=2), out)
    search.rename(tmp_path / "elsewhere")
    called("resume", out, "--quiet")
    assert load_policy_file(out / "policy.json").policy


def test_a_runs_own_file_holds_what_its_kind_decides_and_no_other_may(tmp_path):
    rederive = Config.of("rederive", data="nowhere", preset="cpu")
    child = compare_configs(rederive, [])["compare-child"]
    own = tmp_path / "config.json"
    own.write_text(json.dumps(child.to_json()))
    assert child.evaluator.options == {"model": "wrn-16-1"}
    assert of_file("compare", own).evaluator == child.evaluator
    mine = tmp_path / "mine.toml"
    mine.write_text('[settings]\npolicy = ["none", "imagenet"]\n[evaluator]\nrepeats = 3\n')
    with pytest.raises(InputError, match=r"mine.toml, evaluator.repeats: must be left to compare"):
        read_options(mine, "compare")
    mine.write_text("[settings]\nsubpolicies = 3\n[evaluator]\nrepeats = 3\n[pool]\nworkers = 1")
    assert of_file("search", mine).evaluator.repeats == 3


def test_arms_that_follow_from_other_options_are_found_anew(tmp_path):
    file = tmp_path / "config.json"
    methods = {"method": ["random", "published", "random:5"], "data": "nowhere"}
    begun = with_arms(Config.of("replicate", task="reduced-cifar10", **methods))
    file.write_text(json.dumps(begun.to_json()))
    options = {"task": "reduced-svhn", "ops": ("Rotate", "Color")}
    again = with_arms(of_file("replicate", file, **options))
    assert again == with_arms(Config.of("replicate", **methods, **options))
    published, luck = map(Arm.from_json, again.settings.arms)
    assert published.members == (SVHN,) and luck.ops == ("Rotate", "Color")
    assert with_arms(of_file("replicate", file)) == begun


# What nobody can be meant to say -----------------------------------------------------------------


def test_what_a_cheap_evaluation_costs_is_not_the_users_to_say():
    options = {"cheap_cost": 0.1}
    words = "searcher_options: must not hold cheap_cost"
    with pytest.raises(InputError, match=words):
        Config.of("search", searcher="staged", searcher_options=options)
    with pytest.raises(InputError, match=words):
        Config.of(
            "race", table="planted", searcher=("staged",), searcher_options={"staged": options}
        )


@pytest.mark.long
def test_a_replication_asks_what_all_its_searches_cost_before_the_first(tmp_path):
    words = "--method random staged none --draws 2 --budget 24 --seeds 1 --epochs 1".split()
    words += "--task reduced-fashion --preset cpu --train-images 20".split()
    cheap = "search.studies.methods.cheap_of"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cheap, lambda *about: {"kind": "weight-sharing"})
        said = refused("replicate", *words, "--workers", "1", "--quiet", "--out", tmp_path / "run")
    assert said.startswith("Error: method staged, ") and "leave it out" in said
    assert not (tmp_path / "run").exists()


def test_options_before_a_command_below_estimate_are_not_lost():
    said = called("estimate", "--price", "0.05", "rederive", "--preset", "cpu", code=2)
    assert "options must stand behind rederive" in said and "--price" in said


@pytest.mark.parametrize(
    ("evaluators", "words"),
    [
        (
            {"x": {"kind": "synthetic", "threads": 2}},
            "evaluators, x, threads: must be the 1 of all",
        ),
        ({"größe": {"kind": "synthetic"}}, "evaluators: must have names of up to 64 letters"),
        ({"a" * 70: {"kind": "synthetic"}}, "evaluators: must have names of up to 64 letters"),
        (
            {"p": {"kind": "population", "options": {"interval": 3}}},
            "evaluators, p: must be one of",
        ),
    ],
)
def test_evaluators_that_cannot_stand_beside_others(tmp_path, evaluators, words):
    out = tmp_path / "run"
    said = refused("fidelity", *PLANTED[:2], *PLANTED[4:], "--evaluators", json.dumps(evaluators),
                   "--out", out)  # fmt: skip
    assert words in said and not out.exists()


@pytest.mark.parametrize(
    ("cheap", "words"),
    [
        ({"kind": "synthetic", "threads": 2}, "cheap, threads: must be the 1 of all"),
        ({"kind": "population"}, "cheap: must be one of"),
    ],
)
def test_a_cheap_evaluator_that_cannot_stand_beside_the_searchs(tmp_path, cheap, words):
    said = refused("search", *PLANTED, "--budget", "60", "--cheap", json.dumps(cheap),
                   "--out", tmp_path / "run")  # fmt: skip
    assert words in said


def test_a_fidelity_study_takes_no_schedule_beside_density_matching(tmp_path):
    file = copy("pba", tmp_path / "pba") / "schedule.json"
    words = ["fidelity", *PLANTED[:2], *PLANTED[4:], "--policy", str(file), "--out", tmp_path / "r"]
    assert "policy: must not be a schedule for density-matching" in refused(*words)
    assert not (tmp_path / "r").exists()


def test_a_schedule_follows_from_the_journal_as_a_policy_does(tmp_path):
    run = copy("pba", tmp_path / "pba")
    called("resume", run, "--quiet")
    schedule = (run / "schedule.json").read_bytes()
    (run / "schedule.json").write_text('{"truncated')
    called("resume", run, "--quiet")
    assert (run / "schedule.json").read_bytes() == schedule


@pytest.mark.parametrize("name", ["schedule.json", "policy.json", "policy.txt"])
def test_a_grown_or_retried_run_has_no_result_meanwhile(tmp_path, name):
    (tmp_path / name).write_text("{}")
    assert forget_policy(tmp_path) == [name]
    assert not (tmp_path / name).exists() and forget_policy(tmp_path) == []


def test_a_selections_file_says_nothing_of_another_search(tmp_path):
    """What its children are made of is that of the run which it goes on from."""
    run = copy("select", tmp_path / "select")
    config = json.loads((run / "config.json").read_text())
    config["evaluator"]["kernels"] = "fused"
    file = tmp_path / "other.json"
    file.write_text(json.dumps(config))
    searched = copy("search-random", tmp_path / "searched")
    made = of_file("select", file, run=str(searched))
    assert made.evaluator.kernels == "plain" and made.task.name == "synthetic"


def test_what_is_selected_names_its_task_and_images(tmp_path):
    run = copy("select", tmp_path / "select")
    (run / "policy.json").unlink()
    called("resume", run, "--quiet")
    for file in (run / "policy.json", *(run / "proposals").glob("*.json")):
        about = load_policy_file(file).provenance
        assert about["manifest_hash"] == Manifest.read(run / "manifest.json").hash
        assert about["task"] == "synthetic"


def test_a_run_that_grows_while_another_process_draws_its_images_is_left_alone(
    tmp_path, monkeypatch
):
    run = copy("search-random", tmp_path / "run")
    draw = study.task_of

    def meanwhile(config):
        data = json.loads((run / "config.json").read_text())
        data["settings"]["top"] += 1
        (run / "config.json").write_text(json.dumps(data))
        return draw(config)

    monkeypatch.setattr(study, "task_of", meanwhile)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.name != "config.json"}
    assert "must not be changed by another process meanwhile" in refused("resume", run, "--quiet")
    assert all(path.read_bytes() == content for path, content in before.items() if path.is_file())


def test_the_journal_of_a_run_within_is_not_that_of_the_run(tmp_path):
    run = copy("search-random", tmp_path / "run")
    copy("select", run / "selected")
    (run / "trials.jsonl").unlink()
    assert "trials.jsonl: must be there, since the run has results" in refused("resume", run)


def test_a_retry_that_is_refused_leaves_the_schedule(tmp_path):
    run = copy("pba", tmp_path / "run")
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    lines[-1] |= {"status": "failed", "evaluation": None, "error": "it failed", "artifact": None}
    (run / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.rmtree(run / "artifacts")
    schedule = (run / "schedule.json").read_bytes()
    refused("resume", run, "--retry-failed", "--quiet")
    assert (run / "schedule.json").read_bytes() == schedule
