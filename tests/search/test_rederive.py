"""Re-derivations: what a preset decides, what is searched and compared, and the paper's recipe."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policies import InputError, RandAugment, load_policy_file
from policies.augmentations import encode_augmentation
from proxy_tasks import get_preset
from proxy_tasks.evaluators.registry import make_evaluator
from search import Config
from search.engine import loop
from search.engine.jobs import Outcome
from search.searchers.ppo import PPO_PRESETS
from search.studies import rederive
from search.studies.compare import compare_candidates
from search.studies.config import of_presets, read_config
from search.studies.rederive import (
    BESIDE,
    compare_configs,
    grid_config,
    run_rederive,
    search_configs,
)
from search.studies.rederive_recipe import recipe_of, recipe_text
from search.trial import JOURNAL_NAME, read_journal
from tests.search.commands import answer, invoke
from tests.search.fakes import FakePool, bad


def config(**values):
    return Config.of("rederive", data="imagenet", **values)


# Presets -----------------------------------------------------------------------------------------


def test_the_preset_paper_is_the_papers():
    made = config()
    [search] = search_configs(made).values()
    assert search.searcher.name == "ppo" and search.searcher.options == {"preset": "paper"}
    assert (search.settings.evaluations, search.settings.budget, search.settings.top) == (
        15_000, None, 5,
    )  # fmt: skip
    assert (search.evaluator.kind, search.evaluator.reward) == ("from-scratch", "accuracy")
    assert search.evaluator.kernels == "plain" and search.task.train_images is None
    [grid] = grid_config(made).values()
    assert len(grid.settings.cells) * grid.settings.seeds == 120


def test_the_preset_cpu_is_a_staged_search_by_the_same_controller():
    made = config(preset="cpu")
    searches = search_configs(made)
    assert list(searches) == ["search", "search-2", "search-3", "random", "random-2"]
    assert [each.settings.seed for each in searches.values()] == [0, 1, 2, 0, 1]
    assert {each.settings.budget for each in searches.values()} == {240}
    assert len({each.settings.reserve for each in searches.values()}) == 1  # the same selection
    staged, random = searches["search"], searches["random"]
    assert staged.searcher.name == "staged" and staged.searcher.options == {"proposer": "ppo"}
    assert staged.settings.cheap == {"kind": "weight-sharing"} and random.settings.cheap == {}
    assert staged.evaluator == random.evaluator
    assert staged.evaluator.reward == "calibrated_log_likelihood"
    assert (staged.evaluator.kernels, staged.task.train_images) == ("fused", 1200)
    [grid] = grid_config(made).values()
    assert grid.settings.halving and len(grid.settings.cells) * grid.settings.seeds == 240


def test_operations_that_the_paper_has_not_are_refused_before_anything_is_searched():
    with pytest.raises(InputError, match="ops: must be one of ShearX.*but got 'Identity'"):
        config(ops=("Rotate", "Identity"))


def test_what_is_given_wins_over_the_preset():
    made = config(preset="cpu", evaluations=500, searches=1, grid=0, train_images=6000, seed=4,
                  subpolicies=3, operations=1, ops=("Rotate", "Invert"))  # fmt: skip
    assert (made.settings.evaluations, made.settings.budget) == (500, None)
    assert (made.settings.searches, made.task.train_images) == (1, 6000)
    assert grid_config(made) == {}
    search = search_configs(made)["search"]
    assert search.searcher.options == {"preset": "cpu"} and search.settings.seed == 4
    space = search.settings.subpolicies, search.settings.operations, search.settings.ops
    assert space == (3, 1, ("Rotate", "Invert"))
    assert search_configs(config(evaluations=3))["search"].settings.top == 3
    assert config(budget=100).settings.evaluations is None
    assert [each.evaluator.preset for each in of_presets("rederive")] == ["paper", "cpu"]
    assert [each.evaluator.preset for each in of_presets("rederive", preset="cpu")] == ["cpu"]


@pytest.mark.parametrize(
    ("values", "argument"),
    [
        ({"evaluations": 5, "budget": 5}, "budget"),
        ({"grid": 23}, "grid"),
        ({"preset": "papers"}, "preset"),
    ],
)
def test_bad_input(values, argument):
    with pytest.raises(InputError) as caught:
        config(**values)
    assert caught.value.argument == argument


def test_what_was_found_is_judged_elsewhere_and_by_another_child_too():
    options = {"recipe": {"erase": 0.5}}
    made = config(preset="cpu", task_seed=4, epochs=7, evaluator_options=options)
    here, other, child = compare_configs(made, []).values()
    assert [each.task.seed for each in (here, other, child)] == [4, 5, 5]
    assert [each.evaluator.options.get("model") for each in (here, other, child)] == [
        None, None, "wrn-16-1",
    ]  # fmt: skip
    assert {each.evaluator.options["recipe"]["erase"] for each in (here, other, child)} == {0.5}
    told = {(each.evaluator.reward, each.evaluator.epochs) for each in (here, other, child)}
    assert told == {("accuracy", 7)}
    judged = [{each.seed for each in compare_candidates(made)} for made in (here, other, child)]
    assert len(set.union(*judged)) == sum(map(len, judged)) > 3  # else random policies are shared
    assert len(compare_configs(config(other_child="none"), [])) == 2
    assert compare_configs(config(seeds=0), []) == grid_config(config(seeds=0)) == {}


@pytest.mark.parametrize("kind", ["weight-sharing", "density-matching"])
def test_children_from_scratch_judge_whatever_was_searched_by(kind):
    recipe = {"recipe": {"erase": 0.5}}
    made = config(preset="cpu", evaluator=kind, epochs=7, other_child="none",
                  evaluator_options={"shared_epochs": 9, **recipe})  # fmt: skip
    for each in compare_configs(made, []).values():
        judging = each.evaluator
        assert (judging.kind, judging.epochs, judging.options) == ("from-scratch", None, recipe)
    [grid] = grid_config(made).values()
    assert grid.evaluator.kind == "from-scratch"


def test_another_child_that_is_none_is_told_before_the_first_search(tmp_path):
    with pytest.raises(InputError, match="nonesuch"):
        run_rederive(config(other_child="nonesuch"), tmp_path / "run")


# The recipe --------------------------------------------------------------------------------------


def test_the_recipe_tells_what_is_run():
    rows = {row.what: row for row in recipe_of(config())}
    preset, controller = get_preset("paper", "reduced-imagenet"), PPO_PRESETS["paper"]
    assert rows["child"].paper == "Wide-ResNet-40-2, 200 epochs"
    assert rows["child"].ours == f"{preset.model}, {preset.epochs} epochs" == "wrn-40-2, 200 epochs"
    for number in (preset.lr, preset.batch_size):
        assert f" {number:g}" in rows["its schedule"].ours
    for number in (controller.learning_rate, "0.00001", controller.hidden):
        assert str(number) in rows["controller"].paper
    for number in (controller.clip, controller.epochs, controller.batch_size):
        assert str(number) in rows["controller"].why
    assert rows["candidates"].ours == "15,000 a search"
    assert "6,000 to train on" in rows["images"].ours
    assert all(all(row) for row in rows.values())  # no number without a source and a reason


def test_the_recipe_is_that_of_the_children():
    recipe = {"lr": 0.05, "schedule": "cosine", "batch_size": 64, "pad": 2, "weight_decay": 1e-4}
    made = config(preset="cpu", evaluator_options={"recipe": recipe})
    rows = {row.what: row.ours for row in recipe_of(made)}
    assert rows["its schedule"] == "cosine, peak 0.05, weight decay 0.0001, batch 64"
    assert "2 pixels" in rows["beside the policy"]


def test_the_recipe_follows_the_options():
    made = config(preset="cpu", epochs=7, train_images=240, resolution=16, seeds=0, grid=0)
    rows = {row.what: row.ours for row in recipe_of(made)}
    assert rows["child"] == "convnet, 7 epochs" and rows["resolution"] == "16 pixels"
    assert "240 to train on" in rows["images"]
    assert (
        rows["how policies are judged"] == "not at all" and rows["best RandAugment"] == "left out"
    )
    assert sum(line.strip().startswith("paper:") for line in recipe_text(recipe_of(made))) == len(
        rows
    )


# Runs --------------------------------------------------------------------------------------------


def beside_images(folder, patch, **values):
    """A configuration of planted rewards for a run in `folder`, which is the current one now."""
    made = config(
        preset="cpu", evaluator="synthetic", budget=25, grid=24, other_child="none", seeds=1,
        train_images=120, validation_images=120, resolution=8, workers=3, **values,
    )  # fmt: skip
    folder.mkdir()
    patch.chdir(folder)
    return replace(made, task=replace(made.task, data="../images"))


@pytest.mark.long
def test_searches_of_one_budget_and_what_is_beside_them(place, patch):
    """Their page is tests/analysis/test_rederive.py."""
    made = beside_images(place("a"), patch, searches=2, random_searches=1)
    patch.setattr(loop, "WorkerPool", FakePool(answer=answer))
    done = run_rederive(made, "run", progress=False)
    assert len(done) == 3 + 1 + 2  # searches, grid, comparisons
    run = place("a") / "run"
    for name in ("search", "search-2", "random"):
        spent = [len(read_journal(run / name / stage / JOURNAL_NAME)) for stage in (".", "final")]
        assert spent == [20, 4]  # two finalists, two children each
    assert read_config(run / "search-2").searcher.options == {"proposer": "ppo"}
    assert len(read_journal(run / "randaugment" / JOURNAL_NAME)) == 24
    judged = sorted(read_journal(run / "compare" / JOURNAL_NAME), key=lambda trial: trial.key)
    found = [f"{name}/policy.json" for name in ("search", "search-2", "random", "randaugment")]
    assert [trial.label for trial in judged] == [*BESIDE, *found]
    assert read_config(run / "compare").settings.policy == (*BESIDE, *found)
    best = load_policy_file(run / "randaugment" / "policy.json").augmentation
    assert judged[-1].augmentation == encode_augmentation(best)
    kept = json.loads((run / "recipe.json").read_text())
    assert [row["ours"] for row in kept] == [row.ours for row in recipe_of(read_config(run))]
    # Going on with it: told once, and what had failed takes every comparison with it.
    for name in ("run_search", "run_randaugment", "run_compare"):
        patch.setattr(rederive, name, lambda *_, **__: None)
    forgotten = {}
    patch.setattr(rederive, "forget_followers", lambda _, place, *followers: forgotten.update(
        {place.relative_to(run).as_posix(): {each.name for each in followers}}))  # fmt: skip
    run_rederive(read_config(run), run, resume=True, retry_failed=True, progress=False)
    assert {"search", "search/final", "search-2", "random/final", "randaugment"} <= set(forgotten)
    comparisons = {"compare", "compare-other", "compare-child"}
    assert all(followers == comparisons for followers in forgotten.values())
    assert (run / "run.log").read_text().count("What the paper did") == 1


@pytest.mark.long
def test_a_grid_with_a_failed_child_is_retried_before_anything_is_compared(place, patch):
    made = beside_images(place("failing"), patch, searches=1, random_searches=0)
    grid = []

    def failing(job):
        if isinstance(job.candidate.augmentation, RandAugment):
            grid.append(job.candidate)
        return bad(job) if job.candidate in grid[:1] else answer(job)

    patch.setattr(loop, "WorkerPool", FakePool(answer=failing))
    done = run_rederive(made, "run", progress=False)
    assert [result.failed > 0 for result in done] == [False, True]
    assert not (place("failing") / "run/compare").exists()
    patch.setattr(loop, "WorkerPool", FakePool(answer=answer))
    done = run_rederive(made, "run", resume=True, retry_failed=True, progress=False)
    assert len(done) == 4 and not any(result.failed for result in done)


class InThisProcess(FakePool):
    """Evaluates in earnest, without workers."""

    def __call__(self, config, evaluators, task, *_, **__):
        self._evaluators = {name: make_evaluator(each, task) for name, each in evaluators.items()}
        self._answer = self._evaluated
        return super().__call__(config)

    def _evaluated(self, job):
        asked = job.candidate
        found = self._evaluators[asked.scorer].evaluate(asked.augmentation, asked.seed, asked.part)
        return Outcome(job, "ok", found.to_json(), None, "", 1.0, 2.0, "host:1")


@pytest.mark.slow
def test_a_dry_run_of_the_papers_recipe(place):
    """The same path with its child and its controller, and little of everything."""
    words = """rederive --data ../images --epochs 2 --evaluations 4 --train-images 120
        --validation-images 120 --resolution 8 --seeds 1 --grid 0 --other-child none
        --precision float32 --reward log_likelihood --workers 2 --quiet"""
    invoke(words, place("dry"), InThisProcess())
    run = place("dry") / "run"
    made = read_config(run)
    assert get_preset(made.evaluator.preset, made.task.name).model == "wrn-40-2"
    trials = read_journal(run / "search" / JOURNAL_NAME)
    assert [trial.evaluation.image_passes for trial in trials] == [2 * 120 + 40] * 4
    assert read_config(run / "search").searcher.options == {"preset": "paper"}
    assert "paper: Wide-ResNet-40-2, 200 epochs" in (run / "run.log").read_text()
    assert "| wrn-40-2, 2 epochs |" in " ".join((run / "rederive.md").read_text().split())


def test_what_its_searches_cost_is_asked_before_the_first_in_its_own_words(place, patch):
    made = beside_images(place("b"), patch)
    evaluator = replace(made.evaluator, kind="from-scratch", epochs=1)
    with pytest.raises(InputError, match="^search, (cheap|budget): ") as refused:
        run_rederive(replace(made, evaluator=evaluator), "run", progress=False)
    assert refused.value.fix == "raise --budget or --epochs"  # it has no --cheap
    assert not (place("b") / "run").exists()
