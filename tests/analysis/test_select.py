"""What a report says of a selection: over seeds in common, and luck only where that is shown."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats

from analysis.document import markdown
from analysis.runs import load_run
from analysis.select import select_report
from proxy_tasks.trials import read_journal
from tests.golden.runs import FOLDER

NOISE = np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1], [0, 0, 0]]) * 1e-3  # [labels, seeds]


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(FOLDER / "select", tmp_path / "run")


def words(folder) -> str:
    return markdown(select_report(load_run(folder)))


def rewrite(path, reward: Callable[[int, int], float | None], seeds: int = 3, **changes: Any):
    """The journal anew: of label number i with seed s the reward, or none yet."""
    firsts = {line["label"]: line for line in map(json.loads, path.read_text().splitlines())}
    lines = []
    for place, line in enumerate(firsts.values()):
        for seed in range(seeds):
            value = reward(place, seed)
            if value is not None:
                told = {**line["evaluation"], "reward": value, **changes.get(line["label"], {})}
                where = {"batch": seed, "slot": place, "seed": 2**33 + seed}
                lines.append({**line, **where, "evaluation": told})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return list(firsts)


def rescored(run, gain):
    """Candidates measured again with 3 seeds, which shift all by as much: search reward + gain."""
    searched = {
        repr(trial.augmentation): trial.result.reward
        for trial in read_journal(run / "searched.jsonl")
    }
    trials = read_journal(run / "rescore" / "trials.jsonl")
    found = [searched[repr(trial.augmentation)] for trial in trials]
    rewrite(
        run / "rescore" / "trials.jsonl",
        lambda place, seed: found[place] + gain(place) + NOISE[place, seed] + 0.1 * seed,
    )


def test_what_new_seeds_shift_for_all_candidates_is_no_luck(run):
    rescored(run, lambda place: -0.5)
    found = words(run).split("The chosen")[0]
    assert re.search(r"It lost [+-]0\.0000 \[-0", found) and "luck" not in found


def test_what_the_best_loses_beside_the_others_is_luck(run):
    rescored(run, lambda place: -0.55 if place == 0 else -0.5)
    more = 0.05 - (NOISE[0] - NOISE[1:].mean(axis=0))
    low, high = scipy.stats.ttest_1samp(more, 0).confidence_interval(0.95)
    said = f"It lost +0.0500 [{low:+.4f}, {high:+.4f}] more than the 3 others on average"
    assert f"{said}, whom the new seeds shift alike: that was luck." in words(run)


def test_a_candidate_of_which_a_child_diverged_is_not_the_mean_of_the_others(run):
    rewrite(run / "rescore" / "trials.jsonl", lambda place, seed: -0.5)
    path = run / "rescore" / "trials.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    next(line for line in lines if line["label"] == "rank 1")["evaluation"]["diverged"] = True
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = words(run)
    assert "| rank 2 " in said and "| rank 1 " not in said
    assert "Left out of the choice, for a child that failed or diverged: rank 1." in said


def test_proposals_are_compared_over_the_seeds_that_all_have(run):
    """The third seed is the easiest, and only the worst proposal has been trained with it."""
    worth = [-0.5, -0.6, -0.7, -0.8, -0.9, -1.0, -1.1]
    names = rewrite(
        run / "final" / "trials.jsonl",
        lambda place, seed: (
            None if seed == 2 and place != 6 else worth[place] + 3 * seed + NOISE[place % 4, seed]
        ),
    )
    table = [line.split("|")[1:-1] for line in words(run).splitlines() if line.startswith("| ")]
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in table}
    assert list(rows)[1] == names[0] and {rows[name][2] for name in names} == {"2"}
    known = NOISE[np.arange(7) % 4, :2] + np.array(worth)[:, None]
    gap = known.mean(axis=1) - known[0].mean()
    assert rows[names[6]][3] == f"{gap[6]:+.4f}"
    residual = known - known.mean(axis=1, keepdims=True) - known.mean(axis=0) + known.mean()
    half = scipy.stats.studentized_range.ppf(0.95, 7, 6) * np.sqrt((residual**2).sum() / 6 / 2)
    assert rows[names[6]][4] == f"[{gap[6] - half:+.4f}, {gap[6] + half:+.4f}]"


def test_equal_means_are_in_the_order_of_the_choice(run):
    """Sums of the same three numbers in two orders differ in their last digits."""
    rewards = {0: (0.814, 0.8, 0.802), 1: (0.814, 0.802, 0.8)}
    names = rewrite(
        run / "final" / "trials.jsonl",
        lambda place, seed: rewards.get(place, (0.1, 0.2, 0.3))[seed],
    )
    lines = [line for line in words(run).splitlines() if line.startswith("| ")]
    rows = [line.split("|")[1].strip() for line in lines]
    assert rows.index(names[0]) < rows.index(names[1])


def test_the_best_candidate_was_the_best_of_those_measured_again(run):
    about = json.loads((run / "policy.json").read_text())["provenance"]["best_candidate"]
    said = words(run)
    assert f"had the reward {about['reward']:.4f} when candidates were measured again" in said
    assert "luck" not in said.split("## ")[0]
