from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis import compare_arms, load_run
from analysis.compare import _corrected
from analysis.runs import passes_of_one, trials_table
from analysis.statistics import minimum_detectable_difference, paired_difference
from policies import InputError
from proxy_tasks.trials import Trial
from tests.analysis.journals import journal_line, reported

RUNS = {
    "none": [0.50, 0.52, 0.54, 0.51, 0.53],
    "found": [0.56, 0.57, 0.60, 0.57, 0.58],
    "twin": [0.502, 0.519, 0.541, 0.512, 0.528],
}


def lines(runs=RUNS, **changes):
    return [
        journal_line(seed, slot, accuracy, label=arm, part="test", seed=seed, **changes)
        for slot, (arm, values) in enumerate(runs.items())
        for seed, accuracy in enumerate(values)
    ]


def test_means_and_paired_differences_match_scipy(write_run):
    table = compare_arms(load_run(write_run(lines()))).table.set_index("arm")
    assert list(table.index) == list(RUNS)
    for arm, values in RUNS.items():
        assert table.loc[arm, "mean"] == pytest.approx(100 * np.mean(values))
        assert table.loc[arm, "sd"] == pytest.approx(100 * np.std(values, ddof=1))
    p = {arm: scipy.stats.ttest_rel(RUNS[arm], RUNS["none"]).pvalue for arm in ("found", "twin")}
    assert table.loc["found", "p"] == pytest.approx(p["found"])
    assert table.loc["found", "p_holm"] == pytest.approx(min(1, 2 * p["found"]))
    assert table.loc["twin", "p_holm"] == pytest.approx(p["twin"])
    assert np.isnan(table.loc["none", "difference"])


def test_accuracy_on_the_validation_part_is_that_of_the_same_children(write_run):
    """Diverged children guess there too, and a run that never measured it has an empty column."""
    written = lines({"none": RUNS["none"], "found": RUNS["found"]})
    for line in written[:5]:
        line["evaluation"]["details"] = {"validation": {"accuracy": 0.4 + line["batch"] / 100}}
    diverged = {"details": {"divergence": "the training loss was nan"}, "diverged": True}
    guessed = {**written[4]["evaluation"]["metrics"], "accuracy": 0.1}
    written[4]["evaluation"] |= {**diverged, "metrics": guessed, "reward": 0.1}
    table = compare_arms(load_run(write_run(written))).table.set_index("arm")
    assert table.loc["none", "validation"] == pytest.approx((40 + 41 + 42 + 43 + 10) / 5)
    assert np.isnan(table.loc["found", "validation"])


def test_the_price_of_a_child_is_that_of_one_that_was_trained():
    rows = [journal_line(0, slot, 0.5) for slot in range(3)]
    rows[2] |= {"status": "duplicate", "duplicate_of": [0, 0], "worker": None}
    trials = trials_table([Trial.from_json(row) for row in rows])
    one = rows[0]["evaluation"]["image_passes"]
    assert passes_of_one(trials) == one and trials["image_passes"].mean() < one


def test_every_two_arms_are_compared(write_run):
    pairs = compare_arms(load_run(write_run(lines()))).pairs.set_index(["first", "second"])
    assert list(pairs.index) == [("none", "found"), ("none", "twin"), ("found", "twin")]
    row = pairs.loc[("found", "twin")]
    assert row["p"] == pytest.approx(scipy.stats.ttest_rel(RUNS["twin"], RUNS["found"]).pvalue)
    gap = 100 * (np.array(RUNS["twin"]) - RUNS["found"])
    assert row["difference"] == pytest.approx(gap.mean())
    half = scipy.stats.t.ppf(0.975, 4) * gap.std(ddof=1) / np.sqrt(5)
    assert (row["low"], row["high"]) == pytest.approx((gap.mean() - half, gap.mean() + half))


def test_words_follow_the_numbers(write_run):
    comparison = compare_arms(load_run(write_run(lines(), {"task": {"seed": 7}})))
    said = comparison.sentences
    table = comparison.table.set_index("arm")
    assert list(table["verdict"]) == ["", "better", "equal"]
    assert said[0].startswith("found against none: +5.60 points [+4.74, +6.46]: better (p < 0.001)")
    assert (
        "twin against none: +0.04 points [-0.19, +0.27]: equal within the margin of 0.5 points"
        in said[1]
    )
    detectable = table["detectable"]
    assert said[2].startswith("twin against found: -5.56 points [") and "not corrected" in said[2]
    assert f"found {detectable['found']:.1f}, twin {detectable['twin']:.1f}" in said[3]
    assert "Only the training seed varies" in said[4] and "--task-seed 7" in said[4]


def test_many_other_pairs_are_told_in_the_table_alone(write_run):
    rng = np.random.default_rng(0)
    arms = {name: list(0.5 + 0.01 * rng.normal(size=5)) for name in ("none", "a", "b", "c", "d")}
    told = compare_arms(load_run(write_run(lines(arms)))).sentences
    assert not any("not corrected" in each for each in told)


def test_interval_and_p_of_a_sentence_are_corrected_alike(write_run):
    """0.9 points with p = 0.03 of four comparisons: the interval that is shown contains 0."""
    rng = np.random.default_rng(0)
    none = rng.normal(0.5, 0.02, 5)
    noise = np.array([-1.0, 0.4, 1.0, -0.7, 0.3]) * 0.0075
    runs = {"none": none, "found": none + 0.009 + noise - noise.mean()}
    runs |= {f"other {i}": none + rng.normal(0, 0.01, 5) for i in range(3)}
    comparison = compare_arms(load_run(write_run(lines({k: v.tolist() for k, v in runs.items()}))))
    row = comparison.table.set_index("arm").loc["found"]
    assert row["p"] < 0.05 < row["p_holm"] and row["difference_low"] > 0
    assert row["corrected_low"] < 0 and row["verdict"] == "undecided"
    for _, row in comparison.table.iloc[1:].iterrows():
        outside = row["corrected_low"] > 0 or row["corrected_high"] < 0
        assert outside == (row["p_holm"] < 0.05) == (row["verdict"] in ("better", "worse"))


def test_detectable_differences_use_the_level_of_the_correction_and_each_arms_own_spread(write_run):
    table = compare_arms(load_run(write_run(lines()))).table.set_index("arm")
    for arm in ("found", "twin"):
        sd = 100 * np.std(np.array(RUNS[arm]) - RUNS["none"], ddof=1)
        expected = minimum_detectable_difference(sd, 5, alpha=0.025)
        assert table.loc[arm, "detectable"] == pytest.approx(expected)


def test_two_seeds_with_the_same_difference_are_no_proof(write_run):
    runs = {"none": [0.50, 0.53], "found": [0.52, 0.55], "same": [0.50, 0.53]}
    comparison = compare_arms(load_run(write_run(lines(runs))))
    assert list(comparison.table["verdict"]) == ["", "undecided", "undecided"]
    assert comparison.table[["corrected_low", "p_holm"]].isna().all(axis=None)
    assert "+2.00 points in each of 2 pairs: undecided" in comparison.sentences[0]


@pytest.mark.long
def test_false_verdicts_of_two_seeds_on_few_images_are_rare():
    """Accuracies of 100 images lie on a lattice; equal differences must not count as certainty."""
    rng = np.random.default_rng(1)
    trials = 20_000
    first, second = rng.binomial(100, 0.6, (2, trials, 2)) / 100
    found = [paired_difference(a, b).p < 0.05 for a, b in zip(first, second, strict=True)]
    same = (np.diff(first - second, axis=1).ravel() == 0).mean()
    assert same > 0.02  # how often a t test would have claimed p = 0
    # Five standard deviations of a binomial share of 5 %.
    assert np.mean(found) < 0.05 + 5 * np.sqrt(0.05 * 0.95 / trials)


@pytest.mark.long
def test_a_comparison_of_equal_arms_claims_something_in_one_of_twenty():
    """All its verdicts together, as `compare.csv` has them: five arms against the first."""
    rng, trials, arms, seeds = np.random.default_rng(2), 400, 6, 4
    wrong = 0
    for _ in range(trials):
        values = rng.normal(0, 2, (1, seeds)) + rng.normal(57, 0.9, (arms, seeds))
        paired = [None, *(paired_difference(arm, values[0]) for arm in values[1:])]
        table = pd.DataFrame({"arm": list("abcdef"), "paired": paired, "validation": 0.0})
        found = _corrected(table, margin=0.5)
        claimed = found["verdict"].isin(["better", "worse"])
        assert (claimed == (found["p_holm"] < 0.05)).all()
        wrong += claimed.any()
    # Five standard deviations of a binomial share of 5 %, which Holm's procedure stays below here.
    assert 0.005 < wrong / trials < 0.05 + 5 * np.sqrt(0.05 * 0.95 / trials)


def test_the_margin_is_the_callers(write_run):
    run = load_run(write_run(lines()))
    assert compare_arms(run, margin=0.1).table["verdict"].iloc[2] == "undecided"
    with pytest.raises(InputError, match="margin"):
        compare_arms(run, margin=0.0)


def test_the_terminals_table_fits_80_columns(write_run):
    long = "a-folder-with-a-name-that-goes-on-for-ever/policy.json"
    runs = {"none": RUNS["none"], long: RUNS["found"], "twin": RUNS["twin"]}
    text = compare_arms(load_run(write_run(lines(runs)))).text
    assert max(map(len, text.splitlines())) <= 80
    assert "…" in text and "policy.json" in text.splitlines()[3]


def test_pairs_are_matched_by_seed_when_one_failed(write_run):
    rows = lines()
    rows[7] = journal_line(2, 1, None, label="found", part="test", seed=2)
    comparison = compare_arms(load_run(write_run(rows)))
    row = comparison.table.set_index("arm").loc["found"]
    kept = [0, 1, 3, 4]
    expected = 100 * np.mean([RUNS["found"][s] - RUNS["none"][s] for s in kept])
    assert row["n"] == 4 and row["failed"] == 1
    assert row["difference"] == pytest.approx(expected)
    assert any("1 evaluations failed" in sentence for sentence in comparison.sentences)


def test_an_arm_of_several_policies_counts_each_once(write_run):
    """Two searches by one method, three seeds each, against two by another: two units, not six."""
    policies = [[[["Color", 0.5, m], ["Invert", 0.2, None]]] for m in range(4)]
    values = {"ppo": [0.60, 0.55, 0.61, 0.57, 0.62, 0.56], "random": [0.55, 0.54] * 3}
    rows = lines({"none": [0.50, 0.52, 0.51, 0.50, 0.53, 0.52]}) + [
        journal_line(
            seed,
            1 + slot,
            value,
            label=arm,
            part="test",
            seed=seed,
            augmentation=policies[2 * slot + seed % 2],
        )
        for slot, arm in enumerate(values)
        for seed, value in enumerate(values[arm])
    ]
    run = load_run(write_run(rows))
    table = compare_arms(run).table.set_index("arm")
    assert table["n"].to_dict() == {"none": 6, "ppo": 2, "random": 2}
    units = [np.mean(values["ppo"][::2]), np.mean(values["ppo"][1::2])]
    assert table.loc["ppo", "mean"] == pytest.approx(100 * np.mean(units))
    assert table.loc["ppo", "sd"] == pytest.approx(100 * np.std(units, ddof=1))
    against = [rows[0:6:2], rows[1:6:2]]
    none = [np.mean([row["evaluation"]["metrics"]["accuracy"] for row in part]) for part in against]
    test = scipy.stats.ttest_rel(units, none)
    assert table.loc["ppo", "p"] == pytest.approx(test.pvalue)
    without = replace(run, trials=run.trials[run.trials["label"] != "none"])
    first = compare_arms(without).table.set_index("arm")
    gap = np.array(units) - [0.55, 0.54]
    assert first.loc["random", "difference"] == pytest.approx(-100 * gap.mean())
    assert first.loc["random", "p"] == pytest.approx(scipy.stats.ttest_1samp(gap, 0).pvalue)


def test_one_seed_makes_no_claim(write_run):
    one = {arm: values[:1] for arm, values in RUNS.items()}
    comparison = compare_arms(load_run(write_run(lines(one))))
    assert comparison.table["p_holm"].isna().all()
    assert any("at least three" in sentence for sentence in comparison.sentences)


@pytest.mark.parametrize(("kind", "said"), [("weight-sharing", 1), ("from-scratch", 0)])
def test_what_no_interval_of_a_shared_child_holds_is_said(write_run, kind, said):
    run = load_run(write_run(lines(), {"kind": "compare", "evaluator": {"kind": kind}}))
    assert sum("shared child" in sentence for sentence in compare_arms(run).sentences) == said


def test_validation_lines_are_not_compared(write_run):
    rows = lines() + [journal_line(9, 0, 0.99, label="found", seed=99)]
    assert compare_arms(load_run(write_run(rows))).table.set_index("arm").loc["found", "n"] == 5


def test_files_are_written_with_the_cost_of_the_search(write_run):
    config = {
        "task": "reduced-fashion",
        "settings": {
            "arms": [
                {"name": "none"},
                {"name": "found", "search": {"evaluations": 100, "image_passes": 7000}},
            ]
        },
    }
    directory = write_run(lines(), {"kind": "compare", **config})
    text = reported(directory).read_text()
    assert "100 evaluations = 7 children" in text and "minus none" in text
    row = next(
        line for line in text.splitlines() if line.startswith("| twin") and "found |" in line
    )
    gap = 100 * (np.mean(RUNS["twin"]) - np.mean(RUNS["found"]))
    assert row.split("|")[3].strip() == f"{gap:+.2f}"
    assert "pairs.csv has every two arms, not corrected." in text
    assert len(pd.read_csv(directory / "compare.csv")) == 3
    assert len(pd.read_csv(directory / "pairs.csv")) == 3
    assert (directory / "compare.png").read_bytes()[:4] == b"\x89PNG"
