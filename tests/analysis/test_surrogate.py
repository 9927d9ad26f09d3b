"""Quality of a surrogate: figures that can be known on the planted landscape."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analysis import surrogate_quality
from analysis.surrogate import COLUMNS
from tests.planted import planted_table


def without_signal(table):
    """Every policy has another's figures."""
    rng = np.random.default_rng(3)
    texts = table.frame["policy"].unique()
    other = dict(zip(texts, rng.permutation(texts), strict=True))
    frame = table.frame.copy()
    frame["policy"] = frame["policy"].map(other)
    families = table.frame.groupby("policy")[["family", "source"]].first()
    frame[["family", "source"]] = families.loc[frame["policy"]].to_numpy()
    return dataclasses.replace(table, frame=frame)


@pytest.mark.long
def test_quality_against_the_noise_ceiling():
    found = surrogate_quality(planted_table(), ("accuracy", "test_accuracy"))
    assert tuple(found.columns) == COLUMNS
    assert set(found["fidelity"]) == {"scratch", "sharing-80"}
    assert not ((found["fidelity"] == "sharing-80") & (found["metric"] == "test_accuracy")).any()
    assert {"5 folds", "family random-5x2", "family optimised", "searcher ppo",
            "searcher thompson"} <= set(found["left_out"])  # fmt: skip
    folds = found[(found["left_out"] == "5 folds")].set_index(["fidelity", "metric", "judged"])
    random = folds.loc[("scratch", "accuracy", "random")]
    assert random["policies"] == 300
    # Two seeds, noise 0.006, policies with a standard deviation of about 0.013.
    assert 0.75 < random["ceiling_r2"] < 0.95
    assert 0.2 < random["r2"] < random["ceiling_r2"]
    assert random["low"] < random["spearman"] < random["high"] < 1
    assert 0.75 < random["covered"] <= 1
    assert (found["spearman"] <= 1).all() and (found["policies"] >= 8).all()


@pytest.mark.long
def test_a_table_without_signal_is_not_predicted():
    found = surrogate_quality(without_signal(planted_table()), ("accuracy",))
    folds = found[(found["left_out"] == "5 folds") & (found["judged"] == "all")]
    assert (folds["r2"] < 0.1).all()
    assert (folds["low"] < 0.1).all()
