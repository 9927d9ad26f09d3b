"""Rank correlations of a table, on planted numbers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis import analyse_tabulation, load_run
from analysis.tabulate import readable_correlations, table_of
from tests.golden.runs import FOLDER

METRICS = ["accuracy", "log_likelihood", "calibrated_log_likelihood"]


def frame():
    """12 policies, 2 seeds at each fidelity; the cheap one knows what is tested."""
    rng = np.random.default_rng(0)
    rows = []
    for policy, quality in enumerate(rng.normal(0.5, 0.03, 12)):
        for seed in range(4):
            row = {name: quality + rng.normal(0, 0.005) for name in METRICS}
            tested = {"fidelity": "scratch", "test_accuracy": quality + rng.normal(0, 0.005)}
            cheap = {"fidelity": "cheap", "test_accuracy": np.nan}
            rows.append(
                {"policy": f"p{policy:02}", "family": "random", "seed": seed, "diverged": False}
                | row
                | (tested if seed < 2 else cheap)
            )
    return pd.DataFrame(rows)


@pytest.mark.long
def test_a_diverged_child_ranks_below_all_that_trained():
    """Whatever guessing would give it."""

    def correlations(value, diverged):
        changed = frame()
        hit = changed.index[(changed["fidelity"] == "cheap") & (changed["seed"] == 2)][:2]
        changed.loc[hit, METRICS] = value
        changed.loc[hit, "diverged"] = diverged
        table = SimpleNamespace(frame=changed, fidelities=("scratch", "cheap"))
        return analyse_tabulation(table).correlations

    lowest = correlations(-9.0, False)
    assert len(lowest) and correlations(9.0, True).equals(lowest)


def analysed(changed):
    """With the columns and the fidelities of a whole table."""
    cost = changed["fidelity"].map({"scratch": 1000, "cheap": 100})
    whole = changed.assign(source="", seconds=3600.0, image_passes=cost)
    evaluators = {"scratch": {"threads": 3}, "cheap": {"threads": 1}}
    fidelities = {name: {"evaluator": about} for name, about in evaluators.items()}
    return analyse_tabulation(SimpleNamespace(frame=whole, fidelities=fidelities))


def test_noise_is_in_points_and_its_share_that_of_the_policies():
    """Planted: 3 points between policies, half a point between runs."""
    noise = analysed(frame()).noise
    tested = noise[(noise["measure"] == "test_accuracy") & (noise["among"] == "all")].iloc[0]
    assert 0.25 < tested["run_sd"] < 1 and 1.5 < tested["policy_sd"] < 4.5
    ratio = tested["run_sd"] ** 2 / (tested["run_sd"] ** 2 + tested["policy_sd"] ** 2)
    assert tested["share"] == pytest.approx(1 - ratio)
    nats = noise[(noise["measure"] == "log_likelihood") & (noise["among"] == "all")]
    assert (nats["run_sd"] < 0.01).all()


def test_policies_with_a_diverged_child_are_left_out_of_the_noise():
    changed = frame()
    hit = changed.index[(changed["fidelity"] == "scratch") & (changed["seed"] == 0)][:2]
    changed.loc[hit, [*METRICS, "test_accuracy"]] = 0.1
    changed.loc[hit, "diverged"] = True
    found = analysed(changed)
    tested = found.noise.set_index(["measure", "fidelity", "among"])
    assert tested.loc[("test_accuracy", "scratch", "all"), "policies"] == 10
    assert 0.25 < tested.loc[("test_accuracy", "scratch", "all"), "run_sd"] < 1
    assert tested.loc[("accuracy", "cheap", "all"), "policies"] == 12
    assert found.sentences[-1].endswith("left out of the noise: 2 of scratch.")
    assert "diverged child" not in " ".join(analysed(frame()).sentences)


def test_costs_are_core_hours_and_parts_of_a_child_from_scratch():
    found = analysed(frame())
    assert found.figures["core_hours"] == 24 * 3 + 24  # an hour each, the former on 3 threads
    costs = readable_correlations(found).set_index("fidelity")["cost"]
    assert set(costs["scratch"]) == {"1/1.0"} and set(costs["cheap"]) == {"1/10.0"}


def test_no_child_predicts_its_own_test():
    """Two seeds that contradict each other: each predicts the other, and always wrongly."""
    changed = frame()
    tested = changed["fidelity"] == "scratch"
    place = changed["policy"].str[1:].astype(float)
    value = place.where(changed["seed"] == 0, -(place**3))[tested]
    for name in (*METRICS, "test_accuracy"):
        changed.loc[tested, name] = value
    found = analysed(changed).correlations.set_index(["fidelity", "among", "measure"])
    assert found.loc[("scratch", "all", "accuracy"), "rho"] == pytest.approx(-1)


def test_a_repeat_is_no_row_of_its_own():
    run = load_run(FOLDER / "tabulate")
    whole = table_of(run).frame
    trials = run.trials.copy()
    trials.loc[trials["status"].eq("ok").idxmax(), "status"] = "duplicate"
    assert len(table_of(replace(run, trials=trials)).frame) == len(whole) - 1
