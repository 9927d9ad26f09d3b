"""What an evaluation costs is known beforehand: as the evaluation itself then says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies import InputError, Policy
from proxy_tasks import EvaluatorConfig
from proxy_tasks.evaluators.costs import (
    child_of,
    evaluation_passes,
    preparation_passes,
    rewards_hold,
)
from proxy_tasks.tables import encode_table
from tests.planted import planted_table
from tests.proxy_tasks.test_evaluators import CONFIGS, prepared
from tests.proxy_tasks.trees import striped_task

POLICY = Policy([[("Rotate", 0.5, 3), ("Brightness", 0.7, 6)], [("Cutout", 1.0, 8)]])
CASES = {
    **CONFIGS,
    "best of 3": EvaluatorConfig("density-matching", options={"shared_epochs": 2, "best_of": 3}),
    "copies": EvaluatorConfig(epochs=1, options={"recipe": {"copies": 2}}),
    "counted": EvaluatorConfig("synthetic", options={"passes": 7}),
    "table": EvaluatorConfig("table", options={"table": "cifar10-1k", "fidelity": "quarter"}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_the_evaluation_says(name, tmp_path):
    config, task = CASES[name], striped_task()
    told = prepared(config, tmp_path).evaluate(POLICY, 3).image_passes
    assert evaluation_passes(config, task, subpolicies=len(POLICY)) == told > 0


def test_a_shared_child_is_paid_for_once():
    task = striped_task()
    assert preparation_passes(CONFIGS["weight-sharing"], task) == 2 * len(task.train)
    assert preparation_passes(CONFIGS["from-scratch"], task) == 0
    alone = EvaluatorConfig("density-matching", epochs=3)
    assert preparation_passes(alone, task) == 3 * len(task.train)


def test_the_child_is_trained_from_scratch_whatever_a_search_goes_by():
    recipe = {"recipe": {"cutmix": 1.0}}
    cheap = EvaluatorConfig(
        "weight-sharing", reward="log_likelihood", epochs=5, threads=2, repeats=3,
        options={"shared_epochs": 9, **recipe},
    )  # fmt: skip
    child = child_of(cheap)
    assert child == EvaluatorConfig(
        "from-scratch", reward="calibrated_log_likelihood", threads=2, options=recipe
    )
    own = EvaluatorConfig(epochs=7, repeats=2)
    assert child_of(own) == replace(own, repeats=1)
    tabulated = EvaluatorConfig("table", options={"table": "cifar10-1k"})
    assert child_of(tabulated).options["fidelity"] == "scratch"


def test_what_a_table_stands_for_shares_its_child_too():
    """`cifar10-1k`: 1,000 images, children shared after 80 and 20 epochs."""
    told = {
        fidelity: EvaluatorConfig("table", options={"table": "cifar10-1k", "fidelity": fidelity})
        for fidelity in ("sharing-80", "sharing-20", "quarter", "scratch")
    }
    passes = {name: preparation_passes(each, striped_task()) for name, each in told.items()}
    assert passes == {"sharing-80": 80_000, "sharing-20": 20_000, "quarter": 0, "scratch": 0}
    assert {name for name, each in told.items() if rewards_hold(each)} == {"scratch"}
    assert rewards_hold(CONFIGS["from-scratch"]) and not rewards_hold(CONFIGS["weight-sharing"])


def test_a_table_need_not_be_large_enough_for_a_surrogate(tmp_path):
    whole = planted_table(random=4, late=0)
    path = tmp_path / "small.parquet"
    path.write_bytes(encode_table(whole))
    config = EvaluatorConfig("table", options={"table": str(path), "fidelity": "sharing-80"})
    rows = whole.frame[whole.frame["fidelity"] == "sharing-80"]
    assert evaluation_passes(config, striped_task()) == round(rows["image_passes"].median())
    with pytest.raises(InputError, match="fidelity"):
        evaluation_passes(
            replace(config, options={"table": str(path), "fidelity": "half"}), striped_task()
        )


def test_what_is_not_known_beforehand_is_refused():
    with pytest.raises(InputError, match="budget"):
        evaluation_passes(EvaluatorConfig("population"), striped_task())


@pytest.mark.parametrize(
    "evaluator", [None, {"kind": "weight-sharing", "later": 1}, {"kind": "no such"}]
)
def test_a_table_that_does_not_tell_its_evaluators_is_named(tmp_path, evaluator):
    whole = planted_table(random=4, late=0)
    told = {**whole.fidelities["sharing-80"], "evaluator": evaluator}
    fidelities = {**whole.fidelities, "sharing-80": told}
    path = tmp_path / "table.parquet"
    path.write_bytes(encode_table(replace(whole, fidelities=fidelities)))
    config = EvaluatorConfig("table", options={"table": str(path), "fidelity": "sharing-80"})
    with pytest.raises(InputError, match="table .*: must tell its task and evaluators"):
        preparation_passes(config, striped_task())
