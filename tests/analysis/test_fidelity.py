from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis import analyse_fidelity, load_run, plots, report_of
from analysis.ranks import rank_ceiling
from policies import InputError
from tests.analysis.journals import journal_line, reported

POLICIES, SEEDS = 24, 4
REWARDS = ("accuracy", "log_likelihood", "calibrated_log_likelihood")


def lines(noise: float = 0.02, seed: int = 0):
    """Reference children, a cheap evaluator whose log-likelihood is true and accuracy is random."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(0.5, 0.03, POLICIES)
    rows = []
    for slot, value in enumerate(quality):
        for s in range(SEEDS):
            line = journal_line(
                s,
                slot,
                value + rng.normal(0, 0.01),
                scorer="from-scratch",
                part="test",
                label=f"p{slot}",
                seed=s,
            )
            validation = {name: value + rng.normal(0, 0.01) for name in REWARDS}
            line["evaluation"]["details"]["validation"] = validation
            rows.append(line)
        for s in range(2):
            cheap = journal_line(
                SEEDS + s, slot, rng.uniform(), scorer="cheap", label=f"p{slot}", seed=100 + s
            )
            cheap["evaluation"]["metrics"]["log_likelihood"] = value + rng.normal(0, noise)
            cheap["evaluation"] |= {"seconds": 0.2, "image_passes": 100}
            rows.append(cheap)
    return rows


def test_the_planted_signal_is_found_and_noise_is_not(write_run):
    fidelity = analyse_fidelity(load_run(write_run(lines())))
    table = fidelity.table.set_index(["evaluator", "reward"])
    good, bad = table.loc[("cheap", "log_likelihood")], table.loc[("cheap", "accuracy")]
    assert good["rho"] > 0.6 and good["low"] > 0.3
    assert bad["low"] < 0 < bad["high"]
    assert good["cost"] == pytest.approx(0.1) and good["seconds"] == pytest.approx(0.2)
    assert good["rho_mean"] > good["rho"]  # the mean of two seeds is less noisy


def test_a_child_never_predicts_itself(write_run):
    """From scratch with seed s is compared with the reference without seed s."""
    run = load_run(write_run(lines()))
    table = analyse_fidelity(run).table.set_index(["evaluator", "reward"])
    trials = run.trials
    children = trials[trials["scorer"] == "from-scratch"]
    reference = children.pivot(index="label", columns="seed", values="accuracy")
    held = children["details"].map(lambda details: details["validation"]["accuracy"])
    scores = children.assign(held=held).pivot(index="label", columns="seed", values="held")
    expected = np.mean(
        [
            scipy.stats.spearmanr(
                scores[s], reference[[o for o in reference if o != s]].mean(axis=1)
            ).statistic
            for s in range(SEEDS)
        ]
    )
    assert table.loc[("from-scratch", "accuracy"), "rho"] == pytest.approx(expected)


def test_failed_policies_are_left_out_of_their_evaluator_only(write_run):
    rows = lines()
    index = next(i for i, row in enumerate(rows) if row["scorer"] == "cheap")
    failed = {key: rows[index][key] for key in ("label", "scorer", "seed")}
    rows[index] = journal_line(rows[index]["batch"], rows[index]["slot"], None, **failed)
    table = analyse_fidelity(load_run(write_run(rows))).table.set_index(["evaluator", "reward"])
    assert table.loc[("cheap", "log_likelihood"), "policies"] == POLICIES - 1
    assert table.loc[("from-scratch", "accuracy"), "policies"] == POLICIES


def test_a_diverged_child_ranks_below_all_that_trained(write_run):
    """Whatever its metrics are, or its details say."""
    rows, lowest = lines(), lines()
    scored = [
        [row for row in made if row["slot"] in (3, 8) and row["seed"] in (0, 100)]
        for made in (rows, lowest)
    ]
    for row, low in zip(*scored, strict=True):
        row["evaluation"]["diverged"] = True
        if row["scorer"] == "cheap":
            row["evaluation"]["metrics"] |= {"accuracy": 9.0, "log_likelihood": 9.0}
            low["evaluation"]["metrics"] |= {"accuracy": -9.0, "log_likelihood": -9.0}
        else:
            row["evaluation"]["details"]["validation"] = dict.fromkeys(REWARDS, 9.0)
            low["evaluation"]["details"]["validation"] = dict.fromkeys(REWARDS, -9.0)
    found, expected = (
        analyse_fidelity(load_run(write_run(made, name=name))).table.set_index(
            ["evaluator", "reward"]
        )["rho"]
        for name, made in (("diverged", rows), ("lowest", lowest))
    )
    for key in (("from-scratch", "accuracy"), ("cheap", "accuracy"), ("cheap", "log_likelihood")):
        assert found[key] == pytest.approx(expected[key])


def test_noise_is_that_of_policies_of_which_no_child_diverged(write_run):
    """Accuracy at chance of one child of four is no noise between runs."""
    rows = lines()
    hit = next(row for row in rows if row["slot"] == 5 and row["scorer"] == "from-scratch")
    hit["evaluation"]["diverged"] = True
    hit["evaluation"]["metrics"]["accuracy"] = 0.1
    fidelity = analyse_fidelity(load_run(write_run(rows)))
    assert fidelity.noise.run_sd == pytest.approx(1.0, rel=0.3)
    assert len(fidelity.reference) == POLICIES and fidelity.diverged == 1
    assert "1 policies with a diverged child are left out of the noise." in fidelity.sentences
    whole = analyse_fidelity(load_run(write_run(lines(), name="whole"))).sentences
    assert "left out" not in " ".join(whole)


def test_a_few_policies_have_no_correlation(write_run):
    rows = [row for row in lines() if row["slot"] < 7]
    with pytest.raises(InputError, match="8 policies"):
        analyse_fidelity(load_run(write_run(rows)))


@pytest.mark.long
def test_files_and_words(write_run):
    directory = write_run(lines(), {"kind": "fidelity"})
    said = " ".join(reported(directory).read_text().split())
    assert "24 policies, 4 from-scratch children each" in said and "0.5 points apart" in said
    ceiling = rank_ceiling(report_of(directory).data["reference.csv"].to_numpy())
    assert f"correlate with the mean of 4 seeds at about {ceiling:.2f}." in said
    assert "from scratch is judged by one child fewer" in said
    for name in ("fidelity.csv", "fidelity.md", "fidelity.png", "reference.csv"):
        assert (directory / name).stat().st_size > 0


def test_of_policies_that_noise_hides_nothing_is_claimed(write_run):
    """A variance between policies that is estimated as none is not known to be none."""
    rng = np.random.default_rng(0)
    rows = [
        journal_line(s, slot, 0.5 + 0.1 * (-1) ** (s + slot) + 1e-3 * rng.random(), seed=s,
                     scorer="from-scratch", part="test", label=f"p{slot}")
        for slot in range(10) for s in range(2)
    ]  # fmt: skip
    said = " ".join(reported(write_run(rows, {"kind": "fidelity"})).read_text().split())
    assert "any differences between these policies are lost" in said
    assert "Two seeds do not rank these policies alike" in said and "about 0.00" not in said


def region_lines():
    """Random candidates and found policies: a cheap score that is right among the former, and
    upside down among the latter."""
    rows = []
    for slot in range(32):
        random = slot < 20
        label = f"random 5 #{slot}" if random else f"found: {slot}"
        value = 0.5 + slot / 100 if random else 0.8 + slot / 1000
        for s in range(SEEDS):
            line = journal_line(s, slot, value, scorer="from-scratch", part="test", label=label,
                                seed=s)  # fmt: skip
            line["evaluation"]["details"]["validation"] = dict.fromkeys(REWARDS, value)
            rows.append(line)
        cheap = journal_line(
            SEEDS, slot, value if random else 2 - value, scorer="cheap", label=label, seed=100
        )
        rows.append(cheap)
    return rows


@pytest.mark.long
def test_random_candidates_and_policies_of_searches_are_told_apart(write_run):
    fidelity = report_of(write_run(region_lines(), {"kind": "fidelity"}))
    regions = fidelity.data["regions.csv"].set_index(["evaluator", "reward"])
    cheap = regions.loc[("cheap", "accuracy")]
    assert (cheap["random"], cheap["found"]) == (1.0, -1.0)
    assert cheap[["random_low", "found_high"]].isna().all()  # of width 0
    # The best five of 0.50 .. 0.69, and all of them.
    assert cheap["top"] == pytest.approx(67.0) and cheap["any"] == pytest.approx(59.5)
    scratch = regions.loc[("from-scratch", "accuracy")]
    assert (scratch["random"], scratch["found"], scratch["top"]) == (1.0, 1.0, pytest.approx(67.0))


def test_too_few_of_either_say_nothing(write_run):
    regions = analyse_fidelity(load_run(write_run(lines()))).regions
    assert regions[["random", "found", "top", "any"]].isna().all(axis=None)


def test_an_evaluator_that_costs_nothing_is_drawn_too(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    table = pd.DataFrame({
        "evaluator": ["guess", "children"], "reward": "accuracy", "cost": [0.0, 1.0],
        "rho": [0.2, 0.9], "low": [0.1, 0.8], "high": [0.3, 1.0],
    })  # fmt: skip
    plots.fidelity_cost(table, tmp_path / "x.png")
    axis = drawn[0].axes[0]
    places = [collection.get_offsets()[0] for collection in axis.collections]
    assert np.isfinite(places).all() and 0 < places[0][0] < places[1][0]
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert "a: guess, which costs nothing" in legend and "b: children" in legend
