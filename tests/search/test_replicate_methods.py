"""Who may be a method of a replication, and what its draws have in common."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies import save_policy
from search import Config
from search.studies import methods
from search.studies.replicate_settings import MOST_SEEDS
from search.trial import JOURNAL_NAME, read_journal
from tests.search.commands import PLANTED, invoke

pytestmark = pytest.mark.long

ANYWHERE = {"task": "folder", "data": "."}
SHORT = f"replicate {PLANTED} --method random none --draws 2 --budget 24 --seeds 1"


def journal(folder):
    return read_journal(folder / JOURNAL_NAME)


def test_a_searcher_of_a_users_own_is_a_method_too(tmp_path):
    own = "search.searchers.random:RandomSearcher"
    words = f"replicate {PLANTED} --method {own} random none --draws 2 --budget 24 --seeds 1"
    more = """--searcher-options '{"search.searchers.random:RandomSearcher": {"batch_size": 7}}'"""
    invoke(f"{words} {more}", tmp_path)
    for draw in range(2):
        folder = tmp_path / f"run/draw-{draw}"
        mine, theirs = (
            [trial.augmentation for trial in sorted(journal(folder / name / "search"),
                                                    key=lambda trial: trial.key)]
            for name in (own, "random")
        )  # fmt: skip
        assert len(mine) == len(theirs) > 10
        assert max(trial.slot for trial in journal(folder / own / "search")) == 6
    assert own in (tmp_path / "run/replicate.md").read_text()


def test_a_searcher_by_candidates_of_another_size_is_a_method_of_its_own(tmp_path):
    """Its options are those of the searcher, unless it is given some of its own."""
    own = "search.searchers.random:RandomSearcher@3"
    words = f"replicate {PLANTED} --method random random@4 random@5 {own} none --draws 2"
    options = '{"random": {"batch_size": 6}, "random@4": {"batch_size": 7}}'
    invoke(
        f"{words} --budget 24 --seeds 1 --subpolicies 2 --searcher-options '{options}'", tmp_path
    )
    for draw in range(2):
        found = {
            method: journal(tmp_path / f"run/draw-{draw}/{method}/search")
            for method in ("random", "random@4", "random@5", own)
        }
        sizes = {name: {len(t.augmentation) for t in trials} for name, trials in found.items()}
        assert sizes == {"random": {2}, "random@4": {4}, "random@5": {5}, own: {3}}
        assert [max(t.slot for t in trials) for trials in found.values()][:3] == [5, 6, 5]
    assert "random@4 " in (tmp_path / "run/replicate.md").read_text()


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("random random@", "method: must have a number of sub-policies behind @"),
        ("random random@few", "method: must have a number of sub-policies behind @"),
        ("random ppo@0", "subpolicies: must be a whole number, at least 1"),
        ("random randaugment-grid@25", "randaugment-grid@25"),
        ("random random@5", "method: must name no searcher twice: random is the same"),
    ],
)
def test_candidates_of_no_size_are_told_before_the_first_search(tmp_path, methods, said):
    words = f"replicate {PLANTED} --method {methods} --draws 2 --budget 24"
    assert said in invoke(words, tmp_path, code=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["random", "random@4"])
def test_a_file_that_bears_a_methods_name_is_told_before_the_first_search(method, tmp_path):
    file = tmp_path / "policy.json"
    save_policy(file, [[("Rotate", 0.5, 3)]])
    words = f"replicate {PLANTED} --method {method} {method}={file} --draws 2 --budget 24"
    said = invoke(words, tmp_path, code=2)
    assert f"method: must not call a file as a method, but got '{method}'" in said
    assert not (tmp_path / "run").exists()


def test_a_pipeline_that_takes_no_image_is_told_before_the_first_search(tmp_path):
    """As is a class that is no searcher."""
    words = f"replicate {PLANTED} --method random fractions:Fraction none --draws 2 --budget 24"
    assert "fractions:Fraction" in invoke(words, tmp_path, code=2)
    assert not (tmp_path / "run").exists()


def test_random_policies_are_of_the_operations_that_may_be_searched(tmp_path):
    words = f"{SHORT.replace('random none', 'random random:3')} --without Invert Rotate Cutout"
    invoke(words, tmp_path)
    drawn = [t for t in journal(tmp_path / "run/draw-0/own") if t.label == "random:3"]
    names = {op[0] for trial in drawn for row in trial.augmentation for op in row}
    assert names and not names & {"Invert", "Rotate", "Cutout"}


def test_images_that_draws_share_are_told(tmp_path):
    """These draws are of the same six pictures of noise."""
    invoke(SHORT, tmp_path)
    said = (tmp_path / "run/replicate.md").read_text()
    assert "Two draws share 100 % of their test images" in said


def test_names_from_papers_stand_for_arms():
    assert (
        methods.arm_of("published", "reduced-cifar10").members
        == methods.arm_of("cifar10", "reduced-cifar10").members
    )
    assert methods.arm_of("published", "folder").members == methods.arm_of("imagenet", "").members
    uniform = methods.arm_of("uniformaugment", "folder")
    assert uniform.name == "uniformaugment" and repr(uniform.members[0]).startswith("Uniform")


def test_a_staged_search_is_told_its_cheap_evaluator_at_the_same_cost():
    config = Config.of("replicate", method=["staged", "random"], task="folder", data=".")
    made = methods.stage_of("staged").configure(config, 1).settings
    plain = methods.stage_of("random").configure(config, 1).settings
    assert made == replace(plain, cheap={"kind": "weight-sharing"}) and plain.cheap == {}
    assert plain.budget == config.settings.budget and plain.evaluations is None


def test_grids_of_two_draws_share_no_seed():
    config = Config.of("replicate", method=["randaugment-grid", "none"], seed=7, **ANYWHERE)
    grid = methods.stage_of("randaugment-grid")
    settings = [grid.configure(config, draw).settings for draw in range(2)]
    assert [each.seed for each in settings] == [7, 7 + MOST_SEEDS]
    assert len(settings[0].cells) * settings[0].seeds <= MOST_SEEDS
