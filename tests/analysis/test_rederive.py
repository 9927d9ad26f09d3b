"""The report of a re-derivation: unfinished, with one search, with several and random ones."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from analysis import compare_arms, load_run, report_of
from analysis.document import Table
from analysis.rederive import _together, _used
from analysis.statistics import unpaired_difference
from analysis.worth import accuracies, differences, gains, overlap
from policies import CIFAR10, IMAGENET, PAPER_OPS, InputError, Policy, save_policy
from tests.analysis.journals import journal_line, reported
from tests.analysis.test_agreement import random_policy

ARMS = {"none": 0.50, "imagenet": 0.55, "random:25": 0.53, "search/policy.json": 0.551}
NOISE = (-0.002, 0.002, -0.001, 0.001)


def compared(write_run, name):
    rows = [
        journal_line(
            seed, slot, value + (slot == 3) * NOISE[seed], label=arm, part="test", seed=seed
        )
        for slot, (arm, value) in enumerate(ARMS.items())
        for seed in range(4)
    ]
    return write_run(rows, {"kind": "compare"}, name=f"run/{name}")


def begun(write_run, **settings):
    write_run([], {"kind": "rederive", "settings": {"evaluations": 1, **settings}}, name="run")


def searched(write_run, name, policy):
    save_policy(write_run([journal_line(0, 0)], name=f"run/{name}") / "policy.json", policy)


def written(tmp_path):
    return " ".join(reported(tmp_path / "run").read_text().split())


def test_an_unfinished_search_is_reported_as_such(write_run, tmp_path):
    write_run([], {"kind": "rederive", "settings": {"evaluations": 9}}, name="run")
    write_run([journal_line(0, slot) for slot in range(6)], name="run/search")
    text = written(tmp_path)
    assert "Unfinished: 6 of 9 evaluations" in text and "exported a policy yet" in text


@pytest.mark.long
def test_the_published_policy_is_recognised(write_run, tmp_path):
    begun(write_run)
    searched(write_run, "search", IMAGENET)
    folders = [compared(write_run, name) for name in ("compare", "compare-other")]
    text = written(tmp_path)
    assert "The published policy was re-derived." in text and "agreement 1.00" in text
    assert "A policy of which 100 % of the sub-policies" in text
    assert "by the controller: Equalize is used often, shear and translation are rare." in text
    assert "| published for CIFAR-10 | 0.47 |" in text and "| published for SVHN | 0.33 |" in text
    assert "Children on the images that were searched" in text and "on another draw" in text
    assert "with CIFAR-10's 0.47 and SVHN's 0.33" in text and "It is at least as much" not in text
    assert text.count("search/policy.json against none: +5.10 points") == 2
    assert all((folder / "compare.md").is_file() for folder in folders)
    for name in ("rederive", "search-histograms", "compare-compare", "compare-other-compare"):
        assert (tmp_path / f"run/{name}.png").stat().st_size > 0


@pytest.mark.long
def test_what_the_published_policy_does_not_show_cannot_be_found_again(write_run, tmp_path):
    """That Invert is rare is said of it, and no more so than of random policies."""
    begun(write_run)
    without = random_policy(np.random.default_rng(6), 200, tuple(sorted({*PAPER_OPS} - {"Invert"})))
    searched(write_run, "search", without)
    assert "the controller: none." in written(tmp_path)


@pytest.mark.long
def test_a_random_policy_is_not(write_run, tmp_path):
    begun(write_run)
    searched(write_run, "search", random_policy(np.random.default_rng(0)))
    text = written(tmp_path)
    assert "The published policy was not re-derived." in text and "the controller: none." in text


@pytest.mark.long
def test_several_searches_are_one_verdict_and_agree_among_themselves(write_run, tmp_path):
    begun(write_run, searches=2, random_searches=2)
    half = Policy([*IMAGENET[:12], *random_policy(np.random.default_rng(2), 13)])
    for name, policy in (
        ("search", half),
        ("search-2", half),
        ("random", random_policy(np.random.default_rng(3))),
        ("random-2", random_policy(np.random.default_rng(4))),
    ):
        searched(write_run, name, policy)
    text = written(tmp_path)
    assert "Complete: 4 evaluations of the searches." in text
    assert "The published policy was re-derived." in text  # the controller decides
    assert "the controller (2 searches): agreement" in text
    assert "random search (2 searches): agreement" in text
    assert "| between searches by the controller | 1.00 |" in text
    between = text.split("| between searches by random search |")[1].split("|")[0]
    assert float(between) < 0.6
    assert "| mean of 2 searches by" not in text  # no comparison has been made yet
    for title in ("The policy of search-2", "The run random-2"):
        assert f"## {title}" in text


@pytest.mark.long
def test_a_budget_counts_searches_and_all_accuracies_stand_together(write_run, tmp_path):
    begun(write_run, evaluations=None, budget=30, searches=2)
    row = {"what": "child", "paper": "large", "source": "section 4.2", "ours": "small", "why": "t"}
    (tmp_path / "run/recipe.json").write_text(json.dumps([row]))
    for name in ("search", "search-2"):
        searched(write_run, name, random_policy(np.random.default_rng(3)))
    arms = {"none": 0.5, "search/policy.json": 0.52, "search-2/policy.json": 0.54}
    for name in ("compare", "compare-other"):
        rows = [
            journal_line(seed, slot, value + NOISE[seed], label=arm, part="test", seed=seed)
            for slot, (arm, value) in enumerate(arms.items())
            for seed in range(4)
        ]
        write_run(rows, {"kind": "compare"}, name=f"run/{name}")
    text = written(tmp_path)
    assert "Complete: 2 searches." in text and "Still to come" not in text
    assert "| child | large (section 4.2) | small | t |" in text
    # Standard deviation of 52 and 54: the square root of 2.
    assert text.count("53.00 (sd 1.41)") == 2
    assert "| mean of 2 searches by the controller |" in text
    (tmp_path / "run/recipe.json").write_text("[1]")
    with pytest.raises(InputError, match="must hold what the run wrote"):
        report_of(tmp_path / "run")


@pytest.mark.parametrize("searches", [1, 2])
@pytest.mark.long
def test_a_search_that_has_not_begun_is_waited_for(write_run, tmp_path, searches):
    begun(write_run, searches=searches)
    searched(write_run, "search", IMAGENET)
    assert ("Unfinished: 1 of 2" in written(tmp_path)) == (searches == 2)


def raced(write_run, name, arms):
    """Children of arms, each with its mean and the scatter of NOISE."""
    rows = [
        journal_line(
            seed, slot, value + NOISE[(seed + slot) % 4], label=arm, part="test", seed=seed
        )
        for slot, (arm, value) in enumerate(arms.items())
        for seed in range(4)
    ]
    return write_run(rows, {"kind": "compare"}, name=f"run/{name}")


def test_what_the_controller_gained_counts_searches(write_run):
    arms = {
        "imagenet": 0.55, "randaugment/policy.json": 0.56, "search/policy.json": 0.58,
        "search-2/policy.json": 0.60, "random/policy.json": 0.53, "random-2/policy.json": 0.54,
    }  # fmt: skip
    rows = [
        journal_line(seed, slot, value + NOISE[seed], label=arm, part="test", seed=seed)
        for slot, (arm, value) in enumerate(arms.items())
        for seed in range(4)
    ]
    comparison = compare_arms(load_run(write_run(rows, {"kind": "compare"})))
    won = gains(comparison, ["search", "search-2", "random", "random-2"])
    assert list(won) == ["random search", "published", "RandAugment's best cell"]
    welch = scipy.stats.ttest_ind([58, 60], [53, 54], equal_var=False)
    luck = won["random search"]
    assert luck.mean == pytest.approx(5.5) and luck.p == pytest.approx(welch.pvalue)
    children = 55 + 100 * np.array(NOISE)
    error = np.sqrt(2 / 2 + children.var(ddof=1) / 4)  # the variance of 58 and 60 is 2
    assert won["published"].mean == pytest.approx(4)
    assert won["published"].error == pytest.approx(error) and won["published"].n == 2
    assert gains(comparison, ["search", "random"]) == {}  # one search has no scatter


def test_the_other_draw_tells_what_it_shares(write_run):
    def drawn(**parts):
        rows = {part: SimpleNamespace(contents=images) for part, images in parts.items()}
        return SimpleNamespace(manifest=SimpleNamespace(parts=rows))

    here = drawn(train=list("abcd"), validation=list("ef"), test=list("xyz"))
    there = drawn(train=list("aeGH"), validation=list("IJ"), test=list("xyQRS"))
    [line] = overlap(here, there)
    assert "40 % of its test images" in line and "50 % of its training images" in line
    assert overlap(here, SimpleNamespace(manifest=None)) == []


@pytest.mark.long
def test_a_verdict_is_the_controllers_and_names_a_nearer_policy(write_run, tmp_path):
    begun(write_run, searches=2, random_searches=1, seeds=3, grid=24, other_child="none")
    searched(write_run, "random", IMAGENET)
    text = written(tmp_path)
    assert "there is no verdict" in text and "was re-derived" not in text
    assert "Still to come: randaugment, compare, compare-other." in text
    searched(write_run, "search", CIFAR10)
    text = written(tmp_path)
    assert "So far: The published policy was re-derived in part" in text
    assert "at least as much like the policy published for CIFAR-10" in text


def test_searches_without_an_answer_of_their_own_are_told_so(write_run):
    run = load_run(write_run([], {"kind": "rederive"}))
    rng = np.random.default_rng(4)
    apart = _together(run, "the controller", [random_policy(rng), random_policy(rng)])
    assert "they have no answer in common" in apart
    assert "no answer" not in _together(run, "the controller", [IMAGENET, IMAGENET])


def test_what_is_used_most_and_not_by_the_published_policy():
    liked = Policy([[("Brightness", 1.0, 5), ("Equalize", 0.5, None)]])
    said = _used("the controller", [liked])
    assert "uses most Brightness (67 %), Equalize (33 %)" in said
    assert "the published policy Equalize (36 %)" in said
    never = said.split(";")[1]
    assert "Brightness" in never and "Equalize" not in never


def test_the_levels_of_gains_are_holms():
    won = {
        "compare": {
            "clear": unpaired_difference([60, 60.2, 60.4], [50, 50.1, 50.3]),
            "near": unpaired_difference([60, 60.2, 60.4], [59.5, 60.1, 60.6]),
        }
    }
    [table] = (block for block in differences(won).blocks if isinstance(block, Table))
    told = table.frame.set_index("minus")["Children on the images that were searched"]
    low, high = won["compare"]["clear"].interval(1 - 0.05 / 2)  # the smaller p of two
    assert f"[{low:+.2f}, {high:+.2f}] better" in told["clear"]
    assert told["near"].endswith("undecided")


def test_fewer_children_than_others_had_are_told(write_run):
    rows = [
        journal_line(seed, slot, 0.5 + NOISE[seed], label=arm, part="test", seed=seed)
        for slot, arm in enumerate(("none", "imagenet"))
        for seed in range(4 - slot)
    ]
    comparison = compare_arms(load_run(write_run(rows, {"kind": "compare"})))
    [table] = (b for b in accuracies({"compare": comparison}, []).blocks if isinstance(b, Table))
    cells = table.frame.set_index("policy").iloc[:, 0]
    assert cells["imagenet"].endswith("(n 3)") and "(n" not in cells["none"]


@pytest.mark.long
def test_a_search_counts_its_final_choice_and_says_what_was_chosen(write_run, tmp_path):
    begun(write_run, searches=1)
    folder = write_run([journal_line(0, 0)], name="run/search")
    save_policy(folder / "policy.json", IMAGENET, provenance={"selection": "best-5"})
    write_run([journal_line(0, slot, label="best-5") for slot in range(3)], name="run/search/final")
    text = written(tmp_path)
    assert "4 evaluations, its final choice included." in text
    assert "The finalist that was chosen: best-5." in text
