from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis import analyse_grid, load_run
from analysis.randaugment import Again
from analysis.statistics import paired_difference
from proxy_tasks.trials import rank_by_mean
from tests.analysis.journals import journal_line, reported


def lines(mean, seeds=2, sd=0.0, noise=0, ns=(1, 2, 3), ms=(0, 10, 20, 30)):
    rng = np.random.default_rng(noise)
    rows, slot = [], 0
    for n in ns:
        for m in ms:
            for seed in range(seeds):
                reward = mean(n, m) + 0.05 * seed + sd * rng.normal()
                rows.append(journal_line(seed, slot, reward, label=f"N={n} M={m}", seed=seed))
            slot += 1
    return rows


def peak(n, m):
    return 0.6 - 0.02 * abs(n - 2) - 0.002 * abs(m - 10)


def test_the_planted_best_cell_is_found_and_told_apart(write_run):
    grid = analyse_grid(load_run(write_run(lines(peak, sd=0.0005))))
    assert grid.best == (2, 10)
    assert (grid.table["p_worse"].iloc[1:] < 0.05).all()
    assert "Distinguishable from every neighbouring cell." in grid.sentences


def test_a_flat_grid_is_said_to_be_flat(write_run):
    grid = analyse_grid(load_run(write_run(lines(lambda n, m: 0.5, sd=0.01, noise=1))))
    said = " ".join(grid.sentences)
    assert "Not distinguishable from its neighbours" in said
    assert "11 of the other 11 cells" in said


def test_the_seed_effect_is_no_noise(write_run):
    """Seeds shift all cells by 5 points here; the pooled noise must not contain that."""
    grid = analyse_grid(load_run(write_run(lines(peak, sd=0.001))))
    assert grid.run_sd == pytest.approx(0.1, rel=0.6)  # in percent; 11 degrees of freedom


def test_without_seed_effect_tukey_agrees_with_scipy(write_run):
    """On a one-way layout of centred seeds scipy's tukey_hsd is the oracle for q, not for df."""
    rows = lines(peak, seeds=3, sd=0.01, ns=(1, 2), ms=(0, 10))
    run = load_run(write_run(rows))
    grid = analyse_grid(run)
    wide = run.trials.pivot(index="label", columns="seed", values="reward").to_numpy() * 100
    cells, seeds = wide.shape
    residual = wide - wide.mean(1, keepdims=True) - wide.mean(0) + wide.mean()
    sd = np.sqrt((residual**2).sum() / ((cells - 1) * (seeds - 1)))
    gap = grid.table["mean"].iloc[0] - grid.table["mean"].iloc[1]
    q = gap / (sd / np.sqrt(seeds))
    expected = scipy.stats.studentized_range.sf(q, cells, (cells - 1) * (seeds - 1))
    assert grid.table["p_worse"].iloc[1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.long
def test_the_best_of_a_flat_grid_is_rarely_called_significant(write_run):
    """Picking the best of 12 cells is part of the test: at most 5 % false claims, 100 grids."""
    false = 0
    rng = np.random.default_rng(4)
    from analysis.runs import Run, trials_table
    from proxy_tasks.trials import Trial

    for _ in range(100):
        rows = lines(lambda n, m: 0.5)
        for row in rows:
            row["evaluation"]["reward"] += rng.normal() * 0.01
        run = Run(Path(), {}, {}, None, trials_table([Trial.from_json(row) for row in rows]))
        false += (analyse_grid(run).table["p_worse"] < 0.05).any()
    # Binomial(100, 0.05): mean 5, five standard deviations above it 16.
    assert false <= 16


def test_one_seed_says_that_nothing_can_be_said(write_run):
    grid = analyse_grid(load_run(write_run(lines(peak, seeds=1))))
    assert grid.best == (2, 10)
    assert "One seed per cell" in grid.sentences[1]


def test_ties_go_to_the_gentler_cell(write_run):
    grid = analyse_grid(load_run(write_run(lines(lambda n, m: 0.5, seeds=1))))
    assert grid.best == (1, 0)


def test_a_lead_of_rounding_size_is_a_tie(write_run):
    """Means of 53.55 twice: to tell them apart would take 10^27 seeds."""
    rewards = {"N=1 M=5": (0.503, 0.568), "N=1 M=10": (0.555, 0.516), "N=2 M=5": (0.49, 0.50),
               "N=2 M=10": (0.48, 0.51)}  # fmt: skip
    rows = [
        journal_line(seed, slot, reward, label=label, seed=seed)
        for slot, (label, both) in enumerate(rewards.items())
        for seed, reward in enumerate(both)
    ]
    grid = analyse_grid(load_run(write_run(rows)))
    assert np.isfinite(grid.run_sd) and "lead" not in " ".join(grid.sentences)
    # Whose mean is higher by its last bit does not come first: in the report as in the run.
    alike = {(1, 10): (0.719, 0.709), (1, 5): (0.72, 0.708)}
    assert np.mean(alike[1, 10]) == np.mean(alike[1, 5]) and rank_by_mean(alike)[0] == (1, 5)
    assert grid.best == (1, 5)
    rows[0]["evaluation"]["reward"] += 1e-5
    said = " ".join(analyse_grid(load_run(write_run(rows, name="near"))).sentences)
    assert "if it is real, takes more than 1,000,000 seeds to show" in said


def test_files_are_written_also_with_a_failed_cell(write_run):
    rows = lines(peak, sd=0.001)
    rows[3] = journal_line(1, 1, None, label="N=1 M=10", seed=1)
    directory = write_run(rows, {"kind": "randaugment", "evaluator": {"reward": "accuracy"}})
    text = reported(directory).read_text()
    assert "N = 2, M = 10" in text and "what a seed shifts in all of them alike is left out" in text
    assert pd.read_csv(directory / "grid.csv")["count"].sum() == 23
    assert (directory / "grid.png").is_file()


def diverging(*cells, reward):
    rows = lines(lambda n, m: peak(n, m) - 2, sd=0.001)
    for row in rows:
        if row["seed"] == 1 and row["label"] in cells:
            row["evaluation"] |= {"reward": reward, "diverged": True}
    return rows


def test_a_cell_with_a_diverged_child_is_never_the_best(write_run):
    """That of guessing may be higher than all that trained; the cell's other seed does not help."""
    found = diverging("N=2 M=10", "N=1 M=0", reward=9.0)
    grid = analyse_grid(load_run(write_run(found, {"evaluator": {"reward": "log_likelihood"}})))
    assert grid.best in {(1, 10), (2, 20), (3, 10)} and len(grid.table) == 10
    assert grid.diverged == ((1, 0), (2, 10))
    assert "Children of (1, 0), (2, 10) diverged" in " ".join(grid.sentences)


def test_a_likelihood_is_no_percentage(write_run):
    config = {"evaluator": {"reward": "log_likelihood"}}
    grid = analyse_grid(load_run(write_run(lines(lambda n, m: peak(n, m) - 2), config)))
    assert grid.unit == "validation log likelihood (nats)"
    assert grid.table["mean"].iloc[0] == pytest.approx(-1.375)  # peak 0.6 - 2, half of the 0.05


def test_cells_without_a_seed_are_compared_over_those_that_they_have(write_run):
    """Seeds shift all cells by 5 points: a mean of fewer seeds would look worse, or better."""
    rows = [row for row in lines(lambda n, m: 0.5, seeds=3, sd=0.001, noise=2)
            if row["seed"] < 2 or row["label"] in ("N=1 M=0", "N=2 M=10", "N=3 M=20")]  # fmt: skip
    grid = analyse_grid(load_run(write_run(rows)))
    assert (grid.table["count"] == 2).sum() == 9 and grid.table["p_worse"].iloc[1:].min() > 0.05
    assert "11 of the other 11 cells cannot be told" in " ".join(grid.sentences)


def test_a_cell_that_has_no_seed_of_the_best_is_not_told_apart(write_run):
    rows = [
        row
        for row in lines(peak, seeds=3, sd=0.0005)
        if row["label"] != "N=3 M=30" or row["seed"] == 2
    ]
    rows = [row for row in rows if row["label"] != "N=2 M=10" or row["seed"] < 2]  # fmt: skip
    table = analyse_grid(load_run(write_run(rows))).table.set_index(["n", "m"])
    assert table["p_worse"].notna().all()


def test_one_whole_cell_is_too_few_to_judge_by(write_run):
    rows = [row for row in lines(peak) if row["seed"] == 0 or row["label"] == "N=1 M=0"]
    said = " ".join(analyse_grid(load_run(write_run(rows))).sentences)
    assert "Fewer than two cells with all seeds: no two cells can be told apart" in said


@pytest.mark.parametrize("label", ["N=2 M=10", "N=1 M=0"])
def test_new_seeds_on_which_a_child_diverged_leave_no_lead(write_run, label):
    directory = write_run(lines(peak, sd=0.001), {"evaluator": {"reward": "accuracy"}})
    again = [
        journal_line(seed, slot, 0.6, label=name, seed=100 + seed)
        for slot, name in enumerate(("N=2 M=10", "N=1 M=0"))
        for seed in range(2)
    ]
    next(row for row in again if row["label"] == label)["evaluation"]["diverged"] = True
    (directory / "again").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in again)
    (directory / "again" / "trials.jsonl").write_text(text)
    said = " ".join(analyse_grid(load_run(directory)).sentences)
    assert "On new seeds a child of one of the two diverged" in said and "--again" not in said


def test_what_new_seeds_leave_of_the_lead(write_run):
    """Of the best cell over the middle one, within seeds; those of the grid are not used again."""
    directory = write_run(lines(peak, sd=0.001), {"evaluator": {"reward": "accuracy"}})
    again = [
        journal_line(seed, slot, reward + 0.2 * seed, label=label, seed=100 + seed)
        for label, slot, rewards in (("N=2 M=10", 5, [0.61, 0.62, 0.63]),
                                     ("N=1 M=0", 0, [0.60, 0.60, 0.60]))
        for seed, reward in enumerate(rewards)
    ]  # fmt: skip
    (directory / "again").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in again)
    (directory / "again" / "trials.jsonl").write_text(text)
    found = analyse_grid(load_run(directory)).again
    assert found.cell == (1, 0) and found.chosen == pytest.approx(4.0, abs=0.3)
    test = scipy.stats.ttest_1samp([1.0, 2.0, 3.0], 0)
    assert found.now.mean == pytest.approx(2.0) and found.now.p == pytest.approx(test.pvalue)
    said = " ".join(analyse_grid(load_run(directory)).sentences)
    assert "points while chosen, and by +2 [-0.484, +4.484] on 3 new seeds" in said
    assert "stand" not in said and " points over the second cell" in said
    assert "whether what is lost was luck cannot be told" in said  # 4 is within the interval
    assert Again((1, 0), 5.0, found.now).sentence("nats").endswith("what is lost was luck.")
    assert Again((1, 0), 1.0, found.now).sentence("nats").endswith("no part in the choice.")
    one = Again((1, 0), 5.0, paired_difference(np.ones(1), np.zeros(1)))
    assert "+5 nats while chosen, and by +1 on 1 new seed, which" in one.sentence("nats")


@pytest.mark.parametrize("reward, unit", [("accuracy", "points"), ("log_likelihood", "nats")])
def test_a_report_says_what_judged_and_in_what_unit(write_run, reward, unit):
    run = write_run(
        lines(peak, sd=0.001),
        {"kind": "randaugment", "evaluator": {"kind": "weight-sharing", "reward": reward}},
    )
    text = reported(run).read_text()
    assert "Cells are judged by weight-sharing." in text
    assert f" {unit} over the second cell" in text and f" {unit} above the truth" in text


def test_a_halved_grid_compares_those_that_had_all_seeds(write_run):
    """A mean of one lucky seed above all others is not the best."""
    rows = [row for row in lines(peak, seeds=6, sd=0.001)
            if row["seed"] == 0 or row["label"] in ("N=2 M=10", "N=2 M=20")]  # fmt: skip
    next(row for row in rows if row["label"] == "N=1 M=0")["evaluation"]["reward"] = 0.99
    grid = analyse_grid(load_run(write_run(rows, {"settings": {"halving": True}})))
    assert grid.best == (2, 10) and grid.halved
    assert grid.table["p_worse"].notna().sum() == 2 and grid.table["p_worse"].iloc[1] < 0.05
    said = " ".join(grid.sentences)
    assert "2 of 12 cells had all 6 seeds" in said and "Distinguishable" not in said
