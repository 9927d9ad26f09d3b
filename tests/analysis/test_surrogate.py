"""Quality of a surrogate: figures that can be known on the planted landscape."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from analysis import surrogate, surrogate_quality
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


def measured_policies():
    """10 policies, 2 seeds that agree: the means are 0.0, 0.1, ... 0.9."""
    return pd.DataFrame(
        [
            {"policy": f"p{number}", "seed": seed, "accuracy": number / 10}
            for number in range(10)
            for seed in range(2)
        ]
    )


def test_the_figures_of_predictions_by_hand():
    """A bias is positive where the surrogate promises too much."""
    measured = measured_policies()
    truth = measured.groupby("policy")["accuracy"].mean()
    # Of the ten intervals around truth + 0.05, the last two begin above it.
    low = truth - 0.1
    low.iloc[-2:] = truth.iloc[-2:] + 0.01
    predicted = pd.DataFrame(
        {"accuracy": truth + 0.05, "accuracy low": low, "accuracy high": truth + 0.2}
    )
    found = surrogate._figures(measured, predicted, "accuracy")
    assert found["bias"] == pytest.approx(0.05)
    assert found["r2"] == pytest.approx(1 - 0.05**2 / truth.var(ddof=0))
    assert found["spearman"] == pytest.approx(1) and found["covered"] == 0.8
    turned = predicted.assign(accuracy=-predicted["accuracy"])
    assert surrogate._figures(measured, turned, "accuracy")["spearman"] == pytest.approx(-1)


def test_what_is_judged_was_not_learnt(monkeypatch):
    class Stop(Exception):
        pass

    def noting(rows, like):
        assert set(rows["policy"]) == {f"p{number}" for number in range(3, 10)}
        raise Stop

    monkeypatch.setattr(surrogate, "fit_fidelity", noting)
    with pytest.raises(Stop):
        surrogate._predictions(measured_policies(), ["p0", "p1", "p2"], None)
