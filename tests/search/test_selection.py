"""Choosing the final policy: by hand on small cases, and better than the paper's on a landscape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policies import OPS, Policy, RandAugment
from policies.errors import InputError
from proxy_tasks import Evaluation, EvaluatorConfig
from proxy_tasks.evaluators.planted import PlantedLandscape
from search import Candidate, Config, FixedSearcher, PolicySpace
from search.studies import config as config_module
from search.studies import select, selection
from search.studies.selection import (
    NEW,
    best_rescored,
    concatenate_best,
    evaluated_policies,
    fit_model,
    one_by_one,
    proposals,
    refine,
    rescore_candidates,
    restricted,
)

SPACE = PolicySpace()


@pytest.mark.long
@pytest.mark.parametrize("hold", [True, False])
def test_a_selection_asks_whether_the_rewards_that_decide_hold(
    small_run, in_process, monkeypatch, tmp_path, hold
):
    """Those of the search do; the fresh ones, by accuracy here, as a case may be."""
    monkeypatch.setattr(select, "rewards_hold", lambda each: hold or each.reward != "accuracy")
    asked = Config.of("select", run=str(small_run), reward="accuracy", rescore=6, seeds=2)
    select.run_select(asked, tmp_path / "run", progress=False)
    made = {path.stem for path in (tmp_path / "run/proposals").iterdir()}
    assert {"best-1", "best-5", "best-5-rescored"} <= made
    assert ("one-by-one-25" in made) == hold


def evaluation(reward):
    return Evaluation(reward, None, {}, 0.0, 0)


def diverged(reward):
    return replace(evaluation(reward), diverged=True)


def one(name, probability=0.5, magnitude=5):
    return Policy([[(name, probability, magnitude)]])


def random_search(landscape: PlantedLandscape, seed: int, count: int):
    rng = np.random.default_rng([seed, 1])
    policies = [SPACE.sample(rng) for _ in range(count)]
    return [(p, landscape.evaluate(p, 1000 * seed + i).reward) for i, p in enumerate(policies)]


def chosen_of(evaluated, count=25, new=0):
    return one_by_one(evaluated, fit_model(evaluated, SPACE), count, new, SPACE.ops, seed=0)


def test_concatenation_is_the_papers():
    evaluated = [(one("Rotate"), 0.3), (one("Color"), 0.9), (one("Invert"), 0.9),
                 (one("Rotate"), 0.95), (one("Solarize"), 0.1)]  # fmt: skip
    assert concatenate_best(evaluated, 3) == one("Rotate") + one("Color") + one("Invert")
    assert concatenate_best(evaluated, 10)[-1] == one("Solarize")[0]
    nine = [(SPACE.sample(np.random.default_rng(i)), i) for i in range(9)]
    assert len(concatenate_best(nine)) == 25


def test_only_policies_with_a_reward_count():
    results = [
        (Candidate(0, 0, one("Color"), 0), evaluation(0.5)),
        (Candidate(0, 1, one("Color"), 0), None),
        (Candidate(0, 2, one("Color"), 0), evaluation(float("nan"))),
        (Candidate(0, 5, one("Invert"), 0), diverged(99.0)),
        (Candidate(0, 3, RandAugment(1, 2), 0), evaluation(0.7)),
        (Candidate(0, 4, None, 0), evaluation(0.7)),
    ]
    assert evaluated_policies(results) == [(one("Color"), 0.5)]
    for function in (concatenate_best, chosen_of):
        with pytest.raises(InputError, match="evaluated"):
            function([])


@pytest.mark.long
@given(seed=st.integers(0, 1000), count=st.integers(1, 25))
def test_one_by_one_takes_what_was_evaluated_and_keeps_it_different(seed, count):
    rng = np.random.default_rng(seed)
    # Of few binary digits: rounding would decide between equal ones, as Invert at 0.2 and 0.5
    # is worth what it is at 0.7 and 0.
    evaluated = [(SPACE.sample(rng), rng.integers(1024) / 1024) for _ in range(40)]
    chosen = chosen_of(evaluated, count)
    assert len(chosen) == count
    every = {row for policy, _ in evaluated for row in policy}
    assert set(chosen) <= every
    pairs = [tuple(sorted(operation.name for operation in row)) for row in chosen]
    assert len(set(pairs)) == len(pairs)
    # Deterministic, and the same whatever constant is added to the rewards.
    shifted = [(policy, reward + 3.0) for policy, reward in evaluated]
    assert chosen_of(shifted, count) == chosen


def test_one_by_one_finds_planted_operations():
    """Rewards that count Rotate for and Invert against; noise of a third of the scatter."""
    rng = np.random.default_rng(0)
    evaluated = []
    for _ in range(300):
        policy = SPACE.sample(rng)
        usage = [sum(op.probability for row in policy for op in row if op.name == name) / 5
                 for name in ("Rotate", "Invert")]  # fmt: skip
        evaluated.append((policy, usage[0] - usage[1] + 0.03 * rng.normal()))
    chosen = chosen_of(evaluated, 10)
    assert all("Rotate" in [op.name for op in row] for row in chosen)
    assert not any("Invert" == op.name and op.probability > 0.2 for row in chosen for op in row)
    model = fit_model(evaluated, SPACE)
    worth = dict(zip(SPACE.ops, model.weights[::3], strict=True))
    assert max(worth, key=worth.get) == "Rotate"
    assert min(worth, key=worth.get) == "Invert"


def test_too_few_different_ones_are_fewer():
    evaluated = [(Policy([[("Rotate", 0.5, m)]]), m / 10) for m in range(10)]
    assert len(chosen_of(evaluated, 2)) == 1
    narrow = fit_model(evaluated, PolicySpace(1, 1))
    made = proposals(evaluated, narrow, counts=(16, 17))  # 16 operations, 17 cannot differ
    assert set(made) == {"best-5", "best-5-refined", "one-by-one-16"}


def test_a_smaller_policy_has_the_best_of_a_larger_one():
    rng = np.random.default_rng(3)
    evaluated = [(policy, float(rng.random())) for policy in map(SPACE.sample, [rng] * 60)]
    made = proposals(evaluated, fit_model(evaluated, SPACE), counts=(5, 9))
    for count in (5, 9):
        assert list(made[f"one-by-one-{count}"]) == chosen_of(evaluated, count, NEW)


def test_refining_moves_a_little_and_uphill():
    rng = np.random.default_rng(0)
    evaluated = []
    for _ in range(400):
        policy = SPACE.sample(rng)
        # Strong geometric operations help, the others do nothing.
        reward = sum(op.probability * op.magnitude for row in policy for op in row
                     if op.name in SPACE.ops[:5])  # fmt: skip
        evaluated.append((policy, reward / 50 + 0.01 * rng.normal()))
    before = Policy([[("Rotate", 0.5, 4), ("Invert", 0.3, None)], [("ShearX", 0.9, 8)]])
    model = fit_model(evaluated, SPACE)
    after = refine(before, model, radius=2)
    assert after[0][0] == ("Rotate", 0.7, 6)
    assert after[1][0] == ("ShearX", 1.0, 9)
    assert (after[0][1].name, after[0][1].magnitude) == ("Invert", None)
    assert refine(before, model, radius=0) == before
    # Nothing known, nothing moved.
    flat = [(policy, 0.5) for policy, _ in evaluated[:50]]
    assert refine(before, fit_model(flat, SPACE)) == before


@given(st.integers(0, 1000))
def test_refined_policies_are_legal(seed):
    rng = np.random.default_rng(seed)
    evaluated = [(SPACE.sample(rng), float(rng.random())) for _ in range(20)]
    policy = SPACE.sample(rng)
    refined = refine(policy, fit_model(evaluated, SPACE), radius=3, caution=0.0)
    for old, new in zip(policy, refined, strict=True):
        for a, b in zip(old, new, strict=True):
            assert a.name == b.name
            assert abs(a.probability - b.probability) <= 0.3 + 1e-9
            assert b.magnitude is None if not OPS[b.name].has_magnitude else 0 <= b.magnitude <= 9
    assert SPACE.contains(refined)


def test_rescoring_goes_by_fresh_rewards_alone():
    evaluated = [(one("Rotate"), 0.9), (one("Color"), 0.8), (one("Solarize"), 0.7),
                 (one("Invert"), 0.1), (one("Color"), 0.2)]  # fmt: skip
    candidates = rescore_candidates(evaluated[:3], [5, 6], scorer="long")
    assert [(c.key, c.augmentation, c.seed) for c in candidates[:4]] == [
        ((0, 0), one("Rotate"), 5), ((0, 1), one("Color"), 5), ((0, 2), one("Solarize"), 5),
        ((1, 0), one("Rotate"), 6),
    ]  # fmt: skip
    assert {c.scorer for c in candidates} == {"long"}
    searcher = FixedSearcher(candidates)
    fresh = {"Rotate": 0.4, "Color": 0.6}
    while (candidate := searcher.ask()) is not None:
        name = candidate.augmentation[0][0].name
        reward = fresh.get(name)
        failed = name == "Solarize" and candidate.batch == 1
        searcher.tell(candidate, None if failed else evaluation(0.99 if reward is None else reward))
    means = best_rescored(candidates, searcher.results)
    assert means == [(one("Color"), 0.6), (one("Rotate"), 0.4)]
    with pytest.raises(InputError, match="seeds"):
        rescore_candidates(evaluated, [])


def test_a_policy_of_which_one_fresh_child_diverged_is_not_chosen():
    """However high that child's reward, and those of its other seeds, are."""
    candidates = rescore_candidates([(one("Rotate"), 0.9), (one("Color"), 0.8)], [5, 6])
    results = {
        c.key: diverged(99.0) if (c.batch, c.slot) == (1, 0) else evaluation(0.9 - c.slot / 10)
        for c in candidates
    }
    assert best_rescored(candidates, results) == [(one("Color"), 0.8)]


@pytest.mark.parametrize(
    ("count", "ranks"),
    [(1, [1]), (4, [1, 2, 3, 10]), (6, [1, 2, 3, 4, 7, 10]), (99, list(range(1, 11)))],
)
def test_rescored_are_the_best_and_some_of_the_rest(count, ranks):
    evaluated = [(one("Rotate", magnitude=m), -m / 10) for m in range(10)]
    candidates = rescore_candidates(evaluated, [5], count=count)
    assert [c.label for c in candidates] == [f"rank {rank}" for rank in ranks]
    assert [c.augmentation for c in candidates] == [evaluated[rank - 1][0] for rank in ranks]


@pytest.mark.long
def test_new_subpolicies_are_considered_when_asked_for():
    """Strong Rotate is best, but no candidate has it together with anything but weak Invert."""
    rng = np.random.default_rng(0)
    worth = {"Rotate": 1.0, "Color": 0.5, "Invert": -1.0}
    evaluated = []
    for _ in range(200):
        first, second = rng.choice(["Rotate", "Color", "Solarize"], 2)
        p, q = rng.integers(0, 11, 2) / 10
        row = [(first, p, 5), ("Invert", q, None)] if first == second else [(first, p, 5)] * 2
        policy = Policy([row])
        reward = sum(worth.get(op.name, 0.0) * op.probability for op in policy[0])
        evaluated.append((policy, reward + 0.01 * rng.normal()))
    known = {row for policy, _ in evaluated for row in policy}
    old, new = (chosen_of(evaluated, 3, n) for n in (0, NEW))
    assert set(old) <= known and not set(new) <= known
    assert ("Rotate", "Color") in [tuple(sorted((o.name for o in r), reverse=True)) for r in new]
    assert chosen_of(evaluated, 3, NEW) == new


class TestDearerRewards:
    """500 cheap evaluations that are wrong about Invert, and some dear ones that are right."""

    def evaluated(self, count, invert, noise, seed):
        rng = np.random.default_rng(seed)
        worth = {"Rotate": 1.0, "Color": 0.7, "Solarize": -0.5, "Invert": invert}
        found = []
        for _ in range(count):
            policy = SPACE.sample(rng)
            reward = np.mean(
                [sum(worth.get(op.name, 0.0) * op.probability for op in row) for row in policy]
            )
            found.append((policy, float(reward + noise * rng.normal())))
        return found

    def worth(self, model):
        return dict(zip(SPACE.ops, model.weights[::3], strict=True))

    def test_they_correct_a_bias_and_keep_the_rest(self):
        cheap = self.evaluated(500, +1.0, 0.05, 0)
        dear = [(policy, 10 * reward) for policy, reward in self.evaluated(60, -1.0, 0.05, 1)]
        alone, corrected = fit_model(cheap, SPACE), fit_model(cheap, SPACE, dearer=dear)
        assert self.worth(alone)["Invert"] > 0.5
        worth = self.worth(corrected)
        assert worth["Invert"] < 0  # what the dear ones say
        assert worth["Rotate"] > 3 and worth["Color"] > 2  # in the unit of the dear ones
        few = self.worth(fit_model(dear, SPACE))  # without the cheap ones: worse known
        truth = {"Rotate": 10.0, "Color": 7.0, "Solarize": -5.0}
        error = {
            name: sum(abs(w[op] - t) for op, t in truth.items())
            for name, w in (("both", worth), ("dear", few))
        }
        assert error["both"] < error["dear"]

    def test_the_uncertainty_is_that_of_both(self):
        cheap = self.evaluated(500, 1.0, 0.05, 0)
        alone = fit_model(cheap, SPACE)
        rows = np.array([SPACE.encode(policy) for policy, _ in cheap[:60]]).reshape(60, 5, 6)
        expected = alone.worth(alone.features(rows).mean(axis=1))
        dear = [(policy, 10 * e) for (policy, _), e in zip(cheap, expected, strict=False)]
        corrected = fit_model(cheap, SPACE, dearer=dear)
        # Nothing was left to explain: the cheap model's own, in the dear ones' unit.
        features = alone.features(rows[0])
        assert corrected.uncertainty(features) == pytest.approx(10 * alone.uncertainty(features))

    def test_rewards_that_say_nothing_change_no_order(self):
        cheap = self.evaluated(500, 1.0, 0.05, 0)
        same = fit_model(cheap, SPACE, dearer=cheap[:60])
        alone = fit_model(cheap, SPACE)
        assert np.corrcoef(same.weights, alone.weights)[0, 1] > 0.99


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_dear_rewards_correct_nothing(count):
    """One tells no scale, and two that of their noise, which would turn the model."""
    rng = np.random.default_rng(0)
    searched = [(SPACE.sample(rng), float(rng.normal())) for _ in range(40)]
    dearer = [(policy, -reward) for policy, reward in searched[:count]]
    weights = fit_model(searched, SPACE, dearer=dearer).weights
    assert np.array_equal(weights, fit_model(searched, SPACE).weights)


def test_another_evaluator_brings_its_own_reward(monkeypatch):
    searched = Config.of(
        "search", task="folder", searcher="ppo", epochs=8, evaluator_options={"lr": 0.2}
    )
    assert searched.evaluator.reward == "log_likelihood"
    monkeypatch.setattr(config_module, "read_config", lambda folder: searched)
    assert Config.of("select", run="x", evaluator="weight-sharing").evaluator == searched.evaluator
    other = Config.of("select", run="x")
    assert other.evaluator == EvaluatorConfig("from-scratch", reward="calibrated_log_likelihood")
    assert other.task == searched.task
    third = Config.of("select", run="x", evaluator="from-scratch", reward="accuracy")
    assert third.evaluator.reward == "accuracy"


@pytest.mark.long
def test_operations_that_are_left_out_are_in_no_proposal():
    rng = np.random.default_rng(0)
    evaluated = [(SPACE.sample(rng), float(rng.random())) for _ in range(60)]
    ops = tuple(name for name in SPACE.ops if name not in ("Cutout", "SamplePairing"))
    usable, dropped = restricted(evaluated, ops)
    rows = [row for policy, _ in evaluated for row in policy]
    bad = [row for row in rows if not {"Cutout", "SamplePairing"}.isdisjoint(o.name for o in row)]
    assert dropped == len(bad) > 0
    assert sum(len(policy) for policy, _ in usable) == len(rows) - dropped
    made = proposals(usable, fit_model(evaluated, SPACE), ops=ops)
    assert set(made) >= {"best-5", "best-5-refined", "one-by-one-60"}
    assert all(o.name in ops for policy in made.values() for row in policy for o in row)


@pytest.mark.parametrize("allowed", [4, 16])
def test_as_many_new_subpolicies_are_considered_of_few_operations(allowed):
    rows = selection._rows([], SPACE, 1000, SPACE.ops[:allowed], 0)
    assert len(rows) > 950
    assert {operation.name for row in rows for operation in row} == {*SPACE.ops[:allowed]}


@pytest.mark.long
def test_one_by_one_beats_the_papers_choice_after_random_search():
    """On landscapes with noise half the policies' scatter; paired over 8 searches of 300."""
    paper, ours = [], []
    for seed in range(8):
        landscape = PlantedLandscape(EvaluatorConfig(kind="synthetic"), landscape=seed)
        evaluated = random_search(landscape, seed, 300)
        paper.append(landscape.value(concatenate_best(evaluated)))
        ours.append(landscape.value(Policy(chosen_of(evaluated))))
    assert stats.ttest_rel(ours, paper, alternative="greater").pvalue < 0.01
