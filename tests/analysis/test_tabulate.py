"""Rank correlations of a table, on planted numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from analysis import analyse_tabulation

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
