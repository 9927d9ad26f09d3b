"""Replications: every method anew on every draw, at one cost, on seeds that never meet."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from policies import IMAGENET, InputError, load_policy_file, save_policy
from policies.augmentations import encode_augmentation
from policies.files import read_json, write_json
from proxy_tasks.run_format import STAND_IN
from search import Config, PoolConfig
from search.engine import cluster
from search.errors import NothingFound
from search.studies import methods, replicate
from search.studies.config import read_config
from search.studies.replicate import (
    FoundNothing,
    _draw,
    _go_on,
    _grown,
    _hashed,
    _stands_for,
    judging,
    planned,
    run_replicate,
    with_arms,
)
from search.trial import JOURNAL_NAME, read_journal
from tests.analysis.journals import journal_line
from tests.search import fakes
from tests.search.commands import PLANTED, answer, ending, invoke
from tests.search.fakes import FakePool, Killed, bad

pytestmark = pytest.mark.long

METHODS = "--method random randaugment-grid random:3 none"
SMALL = f"replicate {PLANTED} {METHODS} --draws 2 --budget 24 --seeds 2"
ANYWHERE = {"task": "folder", "data": "."}
RESULTS = ("replicate.md", "*.csv", "plan.json", "draw-*/*/*/policy.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished replication; copy it before changing anything in it."""
    place = tmp_path_factory.mktemp("whole")
    invoke(SMALL, place)
    return place


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole / "run", tmp_path / "copy" / "run")


def journal(folder):
    return read_journal(folder / JOURNAL_NAME)


def test_every_method_costs_the_same_and_is_judged_twice(whole):
    for draw in range(2):
        folder = whole / "run" / f"draw-{draw}"
        searched = len(journal(folder / "random/search")) + len(
            journal(folder / "random/search/final")
        )
        assert 20 <= searched <= 24 and len(journal(folder / "randaugment-grid/randaugment")) == 24
        for images in ("own", "other"):
            trials = journal(folder / images)
            assert {trial.part for trial in trials} == {"test"} and len(trials) == 4 * 2
            assert {trial.label for trial in trials} == set(METHODS.split()[1:])


def test_what_is_judged_is_what_was_found_on_the_draw(whole):
    found = set()
    for draw in range(2):
        folder = whole / "run" / f"draw-{draw}"
        for name, stage in (("random", "search"), ("randaugment-grid", "randaugment")):
            policy = load_policy_file(folder / name / stage / "policy.json").augmentation
            found.add(repr(policy))
            judged = [t for i in ("own", "other") for t in journal(folder / i) if t.label == name]
            assert {repr(t.augmentation) for t in judged} == {repr(encode_augmentation(policy))}
    assert len(found) >= 3  # every draw has a search of its own


def test_the_draws_are_different_images_and_only_own_is_searched(whole):
    seeds = {
        path.parent.relative_to(whole / "run").as_posix(): read_config(path.parent).task.seed
        for path in (whole / "run").glob("draw-*/**/config.json")
    }
    for draw in range(2):
        at = f"draw-{draw}"
        searched = {seed for name, seed in seeds.items()
                    if name.startswith(at) and not name.endswith("other")}  # fmt: skip
        assert searched == {2 * draw} and seeds[f"{at}/other"] == 2 * draw + 1


def test_no_seed_is_used_twice_but_to_pair(whole):
    """Neither by a search and its judges, nor on two draws; on one draw all methods share them."""
    groups = [
        {trial.seed for trial in journal(whole / "run" / f"draw-{draw}" / stage)}
        for draw in range(2)
        for stage in ("random/search", "randaugment-grid/randaugment", "own", "other")
    ]
    assert sum(map(len, groups)) == len(set().union(*groups))
    # So an arm that is drawn at random is another one wherever it is judged.
    drawn = [t for path in (whole / "run").rglob("o*/trials.jsonl")
             for t in read_journal(path) if t.label == "random:3"]  # fmt: skip
    assert len({repr(trial.augmentation) for trial in drawn}) == len(drawn) == 8


def test_a_moved_folder_goes_on_where_it_was_killed(whole, tmp_path):
    with pytest.raises(Killed):
        invoke(SMALL, tmp_path / "first", FakePool(answer=answer, killed_after=22))
    begun = tmp_path / "first/run/draw-0/random"
    assert (begun / "search/final/trials.jsonl").exists()
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    shutil.rmtree(tmp_path / "first")
    invoke("resume run --quiet", tmp_path / "moved")
    assert ending(tmp_path / "moved/run", RESULTS) == ending(whole / "run", RESULTS)


@pytest.mark.parametrize("stage", ["random/search", "own"])
def test_what_failed_is_made_again_and_what_followed_from_it(whole, tmp_path, stage):
    best = max(journal(whole / "run/draw-1" / stage), key=lambda trial: trial.reward)

    def failing(job):
        asked = job.candidate
        fails = (asked.seed, encode_augmentation(asked.augmentation)) == (
            best.seed,
            best.augmentation,
        )
        return bad(job) if fails else answer(job)

    said = invoke(SMALL, tmp_path / "run", FakePool(answer=failing), code=1)
    assert "1 of" in said and "augsearch resume run --retry-failed" in said
    assert said.index("report in") < said.index("evaluations failed")
    assert (tmp_path / "run/run/draw-1/own/trials.jsonl").exists() == (stage == "own")
    invoke("resume run --retry-failed --quiet", tmp_path / "run")
    assert ending(tmp_path / "run/run", RESULTS) == ending(whole / "run", RESULTS)


def test_a_grid_with_a_failed_child_leaves_its_draw_to_be_retried(whole, tmp_path):
    first = journal(whole / "run/draw-0/randaugment-grid/randaugment")[0]

    def failing(job):
        asked = job.candidate
        fails = (asked.key, asked.seed, encode_augmentation(asked.augmentation)) == (
            first.key, first.seed, first.augmentation,
        )  # fmt: skip
        return bad(job) if fails else answer(job)

    said = invoke(SMALL, tmp_path, FakePool(answer=failing), code=1)
    assert "augsearch resume run --retry-failed" in said
    assert not (tmp_path / "run/draw-0/own").exists() and (tmp_path / "run/draw-1/own").exists()
    assert "Unfinished: 1 of 2 draws" in (tmp_path / "run/replicate.md").read_text()
    invoke("resume run --retry-failed --quiet", tmp_path)
    assert ending(tmp_path / "run", RESULTS) == ending(whole / "run", RESULTS)


SHORT = f"replicate {PLANTED} --method random none --draws 2 --budget 24 --seeds 1"


@pytest.mark.parametrize(
    ("stage", "found", "why"),
    [("search", {"reward": 0.5}, "all"), ("final", {"diverged": True}, "of each of")],
)
def test_a_method_that_finds_nothing_counts_as_no_augmentation(tmp_path, stage, found, why):
    def alike(job):
        asked = job.candidate
        blind = asked.part == "validation" and bool(asked.label) == (stage == "final")
        told = answer(job)
        return replace(told, evaluation={**told.evaluation, **found}) if blind else told

    invoke(SHORT, tmp_path, FakePool(answer=alike))
    run = tmp_path / "run"
    for images in ("own", "other"):
        [judged] = [t for t in journal(run / "draw-0" / images) if t.label == "random"]
        assert judged.augmentation is None
    said = (run / "replicate.md").read_text()
    assert f"On draw 0 random found nothing, and counts there with no augmentation: {why}" in said
    before = ending(run, ("replicate.md", "*.csv"))
    invoke("resume run --quiet", tmp_path, FakePool(answer=alike))
    assert ending(run, ("replicate.md", "*.csv")) == before


def test_nothing_found_among_failures_is_an_error(tmp_path):
    """What failed is to be made again: it may be better than the rest."""

    def failing(job):
        asked, told = job.candidate, answer(job)
        if asked.label:
            return told
        return (
            bad(job)
            if asked.slot == 7
            else replace(told, evaluation={**told.evaluation, "reward": 0.5})
        )

    assert "so no policy is better" in invoke(SHORT, tmp_path, FakePool(answer=failing), code=1)
    assert not (tmp_path / "run/draw-0/random/stand-in.json").exists()
    invoke("resume run --retry-failed --quiet", tmp_path)
    assert (tmp_path / "run/draw-1/other/compare.csv").exists()


def test_what_a_method_stands_for_is_said_while_it_found_nothing(tmp_path):
    note, place = tmp_path / STAND_IN, tmp_path / "search"
    assert _stands_for("random", place, "all alike").members == (None,)
    assert read_json(note) == {"why": "all alike"}
    for folder, prepared in ((place, 40), (place / "final", None)):
        folder.mkdir()
        (folder / "trials.jsonl").write_text(
            "".join(json.dumps(journal_line(0, slot)) + "\n" for slot in range(3))
        )
        if prepared:
            write_json(folder / "costs.json", {"prepared": prepared})
    spent = {"evaluations": 6, "image_passes": 6040}
    assert _stands_for("random", place, "all alike").search == spent
    save_policy(place / "policy.json", IMAGENET)
    assert _stands_for("random", place, "").members == (IMAGENET,)
    assert not note.exists()


@pytest.mark.parametrize("changes", [{}, {"status": "failed", "evaluation": None, "error": "no"}])
def test_a_stage_goes_on_as_it_was_begun_and_may_find_nothing(tmp_path, changes):
    options = {"method": ["random", "none"], "task": "folder"}
    begun = Config.of("replicate", data="here", seeds=4, **options)
    now = Config.of("replicate", data="moved", workers=3, **options)
    for folder, trial in (
        ("stage", fakes.trial(0, 0)),
        ("stage/final", fakes.trial(0, 0, **changes)),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / JOURNAL_NAME).write_bytes(trial.to_line())
    write_json(tmp_path / "stage/config.json", begun.to_json())
    ran = []

    def stage(made, place, **how):
        ran.append((made, how))
        raise NothingFound("all alike")

    if changes:  # what failed is to be made again
        with pytest.raises(NothingFound):
            _go_on(now, stage, now, tmp_path / "stage", {})
    else:
        assert _go_on(now, stage, now, tmp_path / "stage", {}) == FoundNothing(2, "all alike")
    [(made, how)] = ran
    assert (made.task.data, made.pool, made.settings) == ("moved", now.pool, begun.settings)
    assert how == {"resume": True}


def test_what_had_failed_takes_with_it_what_followed(monkeypatch, tmp_path):
    forgotten = {}
    monkeypatch.setattr(
        replicate,
        "forget_followers",
        lambda _, place, *followers: forgotten.update(
            {place.relative_to(tmp_path / "draw-0").as_posix(): [each.name for each in followers]}
        ),
    )
    monkeypatch.setattr(replicate, "_go_on", lambda *_: FoundNothing(0, "all alike"))
    (tmp_path / "draw-0/random/search/final").mkdir(parents=True)
    config = with_arms(Config.of("replicate", method=["random", "none"], **ANYWHERE))
    run = SimpleNamespace(config=config, path=tmp_path, log=logging.getLogger("search"))
    assert len(list(_draw(run, 0, {"retry_failed": True}))) == 3  # the search, and what judges
    judged = ["own", "other"]
    assert forgotten == {"random/search": judged, "random/search/final": judged}


def test_a_replication_by_another_procedure_is_not_gone_on_with(run):
    """As one of an earlier version, where a method searched and selected in two runs."""
    [plan] = read_json(run / "plan.json")
    before = {name: value for name, value in plan.items() if name not in ("procedure", "sha256")}
    write_json(run / "plan.json", [_hashed(before)])
    assert "must be the plan" in invoke("resume run --quiet", run.parent, code=2)


def test_a_plan_grows_by_draws_alone(run):
    invoke("resume run --draws 3 --quiet", run.parent)
    plans = json.loads((run / "plan.json").read_text())
    assert [plan["settings"]["draws"] for plan in plans] == [2, 3]
    said = invoke("resume run --draws 2 --quiet", run.parent, code=2)
    assert "was 3 and is 2" in said
    options = f"replicate {PLANTED} {METHODS} --draws 3 --budget 24 --seeds 2 --resume"
    for change in ("--budget 30", "--seeds 3", "--margin 1.0", "--against none", "--task-seed 9"):
        assert "must have the configuration" in invoke(f"{options} {change}", run.parent, code=2)


def test_a_plan_names_the_comparisons_and_what_decides(run):
    [plan] = read_json(run / "plan.json")
    assert plan["comparisons"] == [["randaugment-grid", "random"]] and plan["primary"] == "own"
    pairs = (run / "pairs.csv").read_text().splitlines()[1:]
    assert {tuple(row.split(",")[:2]) for row in pairs} == {("randaugment-grid", "random")}


def test_a_plan_written_before_a_field_came_is_gone_on_with(run):
    [plan] = read_json(run / "plan.json")
    del plan["primary"], plan["comparisons"], plan["evaluator"]["kernels"]
    write_json(run / "plan.json", [_hashed(plan)])
    invoke("resume run --quiet", run.parent)
    assert read_json(run / "plan.json") == [_hashed(plan)]
    invoke("resume run --draws 3 --quiet", run.parent)
    assert [len(each) for each in read_json(run / "plan.json")] == [len(plan), len(plan) + 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda plans: plans[0].update(_hashed({**plans[0], "primary": "other"})),
        lambda plans: plans[0].update(_hashed({**plans[0], "task": {"name": "folder"}})),
        lambda plans: plans[0]["settings"].update(margin=2.0),
        lambda plans: plans[0].update(sha256="0" * 64),
        lambda plans: plans[0]["settings"].update(draws=1),
        lambda plans: plans.clear(),
    ],
)
def test_a_plan_that_was_changed_is_refused(run, change):
    plans = json.loads((run / "plan.json").read_text())
    change(plans)
    (run / "plan.json").write_text(json.dumps(plans))
    assert "plan.json: must be the plan" in invoke("resume run --quiet", run.parent, code=2)


def test_another_margin_in_the_configuration_is_not_what_was_planned(run):
    config = json.loads((run / "config.json").read_text())
    config["settings"]["margin"] = 5.0
    (run / "config.json").write_text(json.dumps(config))
    assert "plan.json: must be the plan" in invoke("resume run --quiet", run.parent, code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method random", "method: must be at least two"),
        ("--method random nonesuch", "policy: must be a policy or schedule file"),
        ("--method random none --against imagenet", "against: must be one of random, none"),
        ("--method random none --budget 20", "budget: must be a whole number, at least 24"),
        ("--method random none --draws 1", "draws: must be a whole number, at least 2"),
        ("--method random none --margin 0", "margin: must be a number, above 0"),
        (
            '--method random none --searcher-options \'{"random": {"batch": 3}}\'',
            "option of the searcher random",
        ),
        ("--method random none --searcher-options '{\"none\": {}}'", "an object for a searcher"),
        ("--method random none --evaluator weight-sharing", "evaluator: must be one of from-scr"),
        ("--method imagenet imagenet+cutmix:x", "cutmix"),
        ("--method staged thompson", "twice: staged is the same without a cheap evaluator"),
        ("--method thompson staged@5", "twice: thompson is the same without a cheap evaluator"),
    ],
)
def test_a_mistake_is_said_before_anything_is_written(tmp_path, words, said):
    words = f"replicate --task synthetic --evaluator synthetic --quiet {words}"
    assert said in invoke(words, tmp_path / "new", code=2)
    assert not (tmp_path / "new/run").exists()


@pytest.mark.parametrize("changed", [
    {"method": ["staged", "thompson@25"]},
    {"searcher_options": {"staged": {"proposer": "ppo"}}},
    {"searcher_options": {"thompson": {"pool": 500}}},
    {"task": "reduced-cifar10", "evaluator": "from-scratch"},  # which has a cheap evaluator
])  # fmt: skip
def test_staged_search_beside_thompson_is_another_method(changed):
    options = {"task": "synthetic", "evaluator": "synthetic", "method": ["staged", "thompson"]}
    replicate.check(with_arms(Config.of("replicate", **{**options, **changed})))


def test_an_own_method_is_one_more_row(monkeypatch, tmp_path):
    """What replicate knows of a method is its stages; this one searches the grid and no more."""
    grid = methods.METHODS["randaugment-grid"]
    monkeypatch.setitem(methods.METHODS, "mine", grid)
    monkeypatch.setattr("search.engine.loop.WorkerPool", FakePool(answer=answer))
    config = Config.of("replicate", task="synthetic", evaluator="synthetic", draws=2, budget=24,
                       method=["mine", "none"], seeds=1, workers=2)  # fmt: skip
    result = run_replicate(config, tmp_path / "run", progress=False)
    assert (result.finished, result.failed) == (2 * (24 + 2 * 2), 0)


def test_children_are_judged_by_accuracy_whatever_was_searched_by():
    config = Config.of("replicate", method=["random", "none"], task_seed=40)
    assert config.evaluator.reward == "calibrated_log_likelihood"
    judged = judging(config, 3, [methods.arm_of("none", "")])
    assert judged.evaluator.reward == "accuracy" and judged.task.seed == 43


# Ray -------------------------------------------------------------------------------------------


@pytest.fixture
def fake_ray(monkeypatch):
    """Stands for Ray: whether it is up, and how often it was started."""
    state = SimpleNamespace(up=False, starts=0)

    def start(*_, **__):
        state.up, state.starts = True, state.starts + 1

    module = SimpleNamespace(cluster_resources=dict)
    monkeypatch.setattr(cluster, "running", lambda: state.up)
    monkeypatch.setattr(cluster, "_starting", lambda loopback: contextlib.nullcontext(module))
    monkeypatch.setattr(cluster, "_start_local", start)
    monkeypatch.setattr(cluster, "_silence_driver", lambda: None)
    monkeypatch.setattr(cluster, "disconnect", lambda: setattr(state, "up", False))
    return state


def test_ray_is_started_once_and_ended_where_keeping_ends(fake_ray):
    pool = PoolConfig(workers=1)
    with cluster.keep_ray():
        with cluster.keep_ray():
            assert not cluster.connect(pool) and not cluster.connect(pool)
        assert fake_ray.up  # the inner one did not begin it
    assert (fake_ray.up, fake_ray.starts) == (False, 1)
    assert cluster.connect(pool)  # as ever: who started it ends it


def test_ray_of_the_calling_program_is_left_to_it(fake_ray):
    fake_ray.up = True
    with cluster.keep_ray():
        assert not cluster.connect(PoolConfig(workers=1))
    assert fake_ray.up and fake_ray.starts == 0


def test_ray_ends_with_an_error_too(fake_ray):
    with pytest.raises(InputError), cluster.keep_ray():
        cluster.connect(PoolConfig(workers=1))
        raise InputError("a", "b", "c", "d")
    assert not fake_ray.up


def test_others_are_compared_with_the_first_method_unless_told():
    config = Config.of("replicate", method=["random", "staged", "none"], **ANYWHERE)
    assert config.settings.against == ("random",)


def test_a_plan_is_the_same_wherever_the_images_are():
    here = Config.of("replicate", method=["random", "none"], **ANYWHERE)
    there = replace(here, task=replace(here.task, data="elsewhere"))
    assert planned(there) == planned(here)


@pytest.mark.parametrize(("draws", "may"), [(2, False), (3, True), (4, True)])
def test_a_plan_never_has_fewer_draws_than_it_had(draws, may):
    config = Config.of("replicate", method=["random", "none"], draws=3, **ANYWHERE)
    settings = replace(config.settings, draws=draws)
    assert _grown(planned(config), planned(replace(config, settings=settings))) is may
