"""The surrogate of a table, and the evaluator that looks policies up, on the planted landscape."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from policies import IMAGENET, InputError, Policy, RandAugment, decode_augmentation
from proxy_tasks import EvaluatorConfig, get_task, make_evaluator
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.surrogate import TEST, Fidelity, Surrogate, fit_fidelity
from proxy_tasks.tables import encode_table
from search import PolicySpace
from tests.planted import FIDELITIES, NOISE, landscape, planted_table


@pytest.fixture(scope="module")
def surrogate():
    return Surrogate(planted_table().frame)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "planted.parquet"
    path.write_bytes(encode_table(planted_table()))
    return str(path)


def evaluator(file, reward="accuracy", **options):
    config = EvaluatorConfig(kind="table", reward=reward, options={"table": file, **options})
    return make_evaluator(config, get_task("synthetic"))


def sampled(count, subpolicies=5):
    rng = np.random.default_rng(77)
    return [PolicySpace(subpolicies).sample(rng) for _ in range(count)]


@pytest.mark.long
def test_it_predicts_policies_that_are_not_in_the_table(surrogate):
    policies = sampled(200)
    truth = np.array([landscape().value(policy) for policy in policies])
    guess = surrogate.of("scratch").mean(policies)[TEST]
    # Without knowledge: 0. The correlation of 200 has a standard error of 0.07 at most.
    assert np.corrcoef(truth, guess)[0, 1] > 0.5
    assert abs((guess - truth).mean()) < 0.003


@pytest.mark.long
def test_the_scatter_of_an_evaluation_is_that_of_the_table(surrogate):
    model = surrogate.of("scratch")
    rng = np.random.default_rng(0)
    [policy] = sampled(1)
    drawn = [model.draw(policy, rng) for _ in range(2000)]
    for metric in ("accuracy", TEST):
        values = np.array([draw[metric] for draw in drawn])
        assert values.std() == pytest.approx(NOISE, rel=0.15)
        error = NOISE / np.sqrt(2000)
        assert values.mean() == pytest.approx(model.mean([policy])[metric][0], abs=5 * error)
    # Test and validation images were drawn independently of each other.
    together = np.corrcoef([d["accuracy"] for d in drawn], [d[TEST] for d in drawn])[0, 1]
    assert abs(together) < 0.2


@pytest.mark.long
def test_with_one_seed_the_scatter_is_what_the_process_leaves_open():
    frame = planted_table().frame
    one = frame[(frame["fidelity"] == "scratch") & (frame["seed"] == 0)]
    scatter = np.sqrt(np.diag(fit_fidelity(one).noise))
    assert (scatter[[0, 3]] > 0.8 * NOISE).all() and (scatter[[0, 3]] < 4 * NOISE).all()


@pytest.mark.long
def test_a_few_terrible_policies_do_not_hide_the_good_ones(surrogate):
    """Their values are bent: without that, the fit would go for them alone."""
    frame = planted_table().frame
    bad = frame.copy()
    worst = bad["family"] == "single"
    bad.loc[worst, ["accuracy", TEST]] = np.maximum(bad.loc[worst, ["accuracy", TEST]] - 0.3, 0.05)
    policies = sampled(200)
    truth = np.array([landscape().value(policy) for policy in policies])
    guess = Surrogate(bad).of("scratch").mean(policies)[TEST]
    assert np.corrcoef(truth, guess)[0, 1] > 0.45


@pytest.mark.long
def test_too_few_policies_are_refused():
    frame = planted_table().frame
    few = frame[frame["policy"].isin(frame["policy"].unique()[:10])]
    with pytest.raises(InputError, match="at least 20 policies"):
        Surrogate(few).of("scratch")


# By hand: a fidelity whose process says the same of every policy ---------------------------------


class Flat:
    def predict(self, features, return_std=False):
        values = np.zeros((len(features), 2))
        return (values, values + 1.0) if return_std else values


def flat(centre, noise=0.0):
    return Fidelity(
        ("accuracy", "log_likelihood"), Flat(), np.array(centre), np.ones(2), np.eye(2) * noise,
        1.0, 1,
    )  # fmt: skip


def test_what_is_drawn_keeps_the_bounds_of_a_metric():
    rng = np.random.default_rng(0)
    for accuracy, bound in ((0.99, 1.0), (0.01, 0.0)):
        drawn = [flat((accuracy, -0.01), 0.01).draw(None, rng) for _ in range(50)]
        assert {0.0, 1.0} & {draw["accuracy"] for draw in drawn} == {bound}
        assert all(0 <= draw["accuracy"] <= 1 and draw["log_likelihood"] <= 0 for draw in drawn)
        assert len({draw["accuracy"] for draw in drawn}) > 10


def test_an_interval_covers_as_much_as_it_says():
    low, high = flat((0.5, -1.0)).intervals([None, IMAGENET], 0.9)["accuracy"]
    assert np.arcsinh(high - 0.5) == pytest.approx([1.6449, 1.6449], abs=1e-4)
    assert np.arcsinh(low - 0.5) == pytest.approx([-1.6449, -1.6449], abs=1e-4)


def test_what_diverged_is_left_out_of_the_fit():
    frame = planted_table(random=30, late=0).frame
    rows = frame[frame["fidelity"] == "sharing-80"].copy()
    rows["diverged"] = rows["family"] == "random-25"
    rows.loc[rows["diverged"], "accuracy"] = 0.1
    policies = sampled(5)
    found, wanted = (
        fit_fidelity(each).mean(policies)["accuracy"] for each in (rows, rows[~rows["diverged"]])
    )
    np.testing.assert_array_equal(found, wanted)


# The evaluator -----------------------------------------------------------------------------------


@pytest.mark.long
def test_what_is_tabulated_is_looked_up(file):
    judge = evaluator(file)
    frame = planted_table().frame
    rows = frame[frame["fidelity"] == "sharing-80"]
    for _, row in rows.sample(20, random_state=0).iterrows():
        augmentation = decode_augmentation(json.loads(row["policy"]))
        found = judge.evaluate(augmentation, row["seed"])
        assert found.reward == row["accuracy"] and found.details == {"tabulated": True}
        assert (found.seconds, found.image_passes) == FIDELITIES["sharing-80"][1:]
        # Another seed takes one of the policy's rows.
        again = judge.evaluate(augmentation, row["seed"] + 2 * 10**6)
        assert again.reward == found.reward


@pytest.mark.long
def test_what_is_not_is_drawn_from_seed_and_policy(file):
    judge = evaluator(file, "log_likelihood")
    one, two = sampled(2)
    found = judge.evaluate(one, 5)
    assert found == evaluator(file, "log_likelihood").evaluate(one, 5)
    assert found.details == {"tabulated": False} and not found.diverged
    assert found.reward == found.metrics["log_likelihood"] < 0
    assert (found.seconds, found.image_passes) == FIDELITIES["sharing-80"][1:]
    assert judge.evaluate(one, 6).reward != found.reward != judge.evaluate(two, 5).reward


@pytest.mark.long
def test_the_test_part_has_an_accuracy_from_scratch_alone(file):
    frame = planted_table().frame
    row = frame[(frame["fidelity"] == "scratch") & (frame["family"] == "none")].iloc[0]
    judge = evaluator(file, fidelity="scratch")
    found = judge.evaluate(None, 0, "test")
    assert found.reward == row[TEST] and found.metrics == {"accuracy": row[TEST]}
    with pytest.raises(InputError, match="no test accuracy"):
        evaluator(file).evaluate(None, 0, "test")
    with pytest.raises(InputError, match="must be accuracy"):
        evaluator(file, "log_likelihood", fidelity="scratch").evaluate(None, 0, "test")


def test_a_diverged_row_is_told(tmp_path):

    table = planted_table()
    frame = table.frame.copy()
    frame.loc[frame["family"] == "randaugment", "diverged"] = True
    path = tmp_path / "some.parquet"
    path.write_bytes(encode_table(dataclasses.replace(table, frame=frame)))
    judge = evaluator(str(path))
    assert judge.evaluate(RandAugment(1, 6), 0).diverged
    assert not judge.evaluate(None, 0).diverged


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "option table of table: must be given"),
        ({"table": "nothing-like-it"}, "table"),
        ({"table": "/nowhere/x.parquet"}, "readable"),
        ({"table": 3}, "option table of table: must be text"),
        ({"tabel": "x"}, "option of table"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(options, said):
    with pytest.raises(InputError, match=said):
        check_config(EvaluatorConfig(kind="table", options=options))


def test_a_table_is_not_asked_several_times_for_what_it_has_once(file):
    with pytest.raises(InputError, match="repeats: must be 1 for a table"):
        check_config(EvaluatorConfig(kind="table", options={"table": file}, repeats=2))


def test_a_fidelity_that_was_not_measured_is_refused(file):
    options = {"table": file, "fidelity": "scrach"}
    with pytest.raises(InputError, match="scratch"):
        check_config(EvaluatorConfig(kind="table", options=options))


@pytest.mark.long
def test_published_policies_and_grids_have_a_value(surrogate):
    found = surrogate.of("sharing-80").mean([IMAGENET, RandAugment(3, 14), None, Policy(IMAGENET)])
    assert np.isfinite(found["accuracy"]).all()
    assert found["accuracy"][0] == found["accuracy"][3]


def test_a_seed_has_its_own_row_whatever_its_number(tmp_path):
    table = planted_table(random=30, late=0)
    frame = table.frame.assign(seed=table.frame["seed"] + 2**33 + 1)
    path = tmp_path / "some.parquet"
    path.write_bytes(encode_table(dataclasses.replace(table, frame=frame)))
    judge = evaluator(str(path))
    rows = frame[(frame["fidelity"] == "sharing-80") & (frame["family"] == "none")]
    assert len(set(rows["accuracy"])) == 2
    for _, row in rows.iterrows():
        assert judge.evaluate(None, row["seed"]).reward == row["accuracy"]


def test_policies_under_one_seed_have_noise_of_their_own(tmp_path):
    """Common noise would tell every searcher the true order of all policies."""
    table = planted_table(random=30, late=0)
    path = tmp_path / "some.parquet"
    path.write_bytes(encode_table(table))
    judge = evaluator(str(path))
    model = judge.surrogate.of("sharing-80")
    policies = sampled(30)
    noise = [
        [judge.evaluate(policy, seed).reward - mean for seed in (1, 2)]
        for policy, mean in zip(policies, model.mean(policies)["accuracy"], strict=True)
    ]
    # About NOISE, in each column over the policies as in each row over the seeds.
    spread = np.array(noise).std(axis=0)
    assert (spread > 0.5 * np.sqrt(model.noise[0, 0])).all() and (spread > 0).all()
