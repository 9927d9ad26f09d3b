"""What the final policy is chosen from: one by one only by rewards that hold."""

from __future__ import annotations

import numpy as np
import pytest

from policies import InputError
from proxy_tasks.run_format import BEST
from search import PolicySpace
from search.errors import NothingFound
from search.searchers.fixed import fixed_candidates
from search.studies import selection
from search.studies.choice import ORDER, Choice, Evidence, decide, finalists, shortlist
from search.testing import evaluation

SPACE = PolicySpace()


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Sub-policies that are looked at beside those that were evaluated."""
    monkeypatch.setattr(selection, "NEW", 500)
    monkeypatch.setattr(selection, "NEW_TOGETHER", 500)


@pytest.fixture(scope="module")
def evaluated():
    rng = np.random.default_rng(0)
    return [(SPACE.sample(rng), float(rng.normal())) for _ in range(40)]


def named(evidence, ops=SPACE.ops):
    return finalists(evidence, SPACE, ops)[0]


def test_searches_choose_among_new_subpolicies_of_their_own(evaluated):
    """Else two searches on the same images would agree more than independent ones do."""
    known = {row for policy, _ in evaluated for row in policy}
    made = [named(Evidence(evaluated, seed=seed)) for seed in (0, 1)]
    for name in ("one-by-one-60", "together-60"):
        first, second = (set(each[name]) - known for each in made)
        assert len(first) > 20 < len(second) and not first & second, name
    assert named(Evidence(evaluated)) == named(Evidence(evaluated, seed=0))


def test_by_a_reward_that_does_not_hold_nothing_is_chosen_one_by_one(evaluated):
    """Weight sharing ranks at random where a search ends; `fresh` children change that."""
    assert set(named(Evidence(evaluated, holds=False))) == {"best-5", "best-5-refined", BEST}
    fresh = [(policy, -reward) for policy, reward in evaluated[:20]]
    made = named(Evidence(evaluated, fresh=fresh, holds=False))
    assert {*ORDER, "best-5-rescored"} == set(made)
    assert made[BEST] == max(fresh, key=lambda pair: pair[1])[0]
    assert set(named(Evidence(evaluated))) == set(ORDER)


def test_what_is_chosen_together_is_chosen_by_rewards_that_hold(evaluated):
    """By those of fresh children where there are any; the cheap ones have no part in it."""
    fresh = [(policy, -reward) for policy, reward in evaluated[:30]]
    names = [name for name in ORDER if name.startswith("together")]
    alone = named(Evidence(fresh))
    assert len(names) == 2
    for evidence in (Evidence(evaluated, fresh=fresh, holds=False), Evidence(fresh, evaluated)):
        made = named(evidence)
        assert [made[name] for name in names] == [alone[name] for name in names]
    assert named(Evidence(evaluated))["together-25"] != alone["together-25"]


def test_the_cheap_rewards_are_corrected_by_the_dear_ones(evaluated):
    """Cheap rewards alone would have others chosen one by one."""
    cheap = [(policy, 100.0 - reward) for policy, reward in evaluated]
    both, alone = named(Evidence(evaluated, cheap)), named(Evidence(evaluated))
    assert both["best-5"] == alone["best-5"] and both[BEST] == alone[BEST]
    wrong = named(Evidence(cheap))["one-by-one-25"]
    rows = {*alone["one-by-one-25"]}
    assert len({*both["one-by-one-25"]} & rows) > len({*wrong} & rows)


def test_rewards_of_two_scales_are_not_added_up(evaluated):
    """As when a search by likelihoods is selected from by accuracies."""
    fresh = [(policy, 0.5 + reward / 100) for policy, reward in evaluated[:30]]
    made = []
    for level in (0.0, 1000.0):
        searched = [(policy, level - reward) for policy, reward in evaluated]
        made.append(named(Evidence(searched, evaluated, fresh, same=False)))
    assert made[0] == {**made[1], "best-5": made[0]["best-5"]}
    alike = Evidence(evaluated, evaluated, fresh)
    assert alike.dearer == [*evaluated, *fresh]
    assert Evidence(evaluated, evaluated, same=False).dearer == evaluated


def test_fresh_rewards_of_a_shared_child_choose_no_subpolicies(evaluated):
    """Whole candidates are ranked anew, and no more."""
    fresh = [(policy, -reward) for policy, reward in evaluated[:30]]
    made = named(Evidence(evaluated, fresh=fresh, fresh_hold=False))
    assert set(made) == {"best-5", "best-5-refined", "best-5-rescored", BEST}
    assert made[BEST] == max(fresh, key=lambda pair: pair[1])[0]


@pytest.mark.parametrize(
    ("children", "count", "seeds"), [(0, 0, 0), (1, 0, 0), (2, 2, 1), (5, 2, 2), (9, 4, 2),
                                     (24, 8, 3)],
)  # fmt: skip
def test_a_small_share_has_fewer_finalists_and_not_fewer_seeds(evaluated, children, count, seeds):
    candidates = shortlist(named(Evidence(evaluated)), children, seed=3)
    assert [c.label for c in candidates if c.batch == 0] == list(ORDER[:count])
    assert len(candidates) == count * seeds <= children
    assert {c.seed for c in candidates if c.slot == 0} == {c.seed for c in candidates}
    other = shortlist(named(Evidence(evaluated)), children, seed=4)
    assert {c.seed for c in candidates}.isdisjoint(c.seed for c in other)


def test_of_equal_finalists_the_first_is_chosen(evaluated, tmp_path):
    evidence = Evidence(evaluated)
    made = named(evidence)
    candidates = shortlist(made, 4, seed=0)
    told = {each.key: evaluation(0.5 + each.batch / 10) for each in candidates}
    choice = decide(made, candidates, told, evidence, tmp_path, "more")
    assert choice.name == candidates[0].label and len(choice.ranking) == 2
    alike = dict.fromkeys(told, evaluation(0.5))
    for found, words in (
        (dict.fromkeys(told), "failed or diverged"),
        (alike, "all 4 children of 2"),
    ):
        with pytest.raises(NothingFound, match=words):
            decide(made, candidates, found, evidence, tmp_path, "more")


def test_means_that_only_rounding_parts_are_equal(evaluated, tmp_path):
    """Both sum up to 2.083, and the second's mean is higher by its last bit."""
    evidence = Evidence(evaluated)
    made = {name: named(evidence)[name] for name in ("best-5", BEST)}
    rewards = ((0.692, 0.689, 0.702), (0.71, 0.7, 0.673))
    assert np.mean(rewards[1]) > np.mean(rewards[0])
    candidates = fixed_candidates(made, range(3))
    told = {each.key: evaluation(rewards[each.slot][each.batch]) for each in candidates}
    assert decide(made, candidates, told, evidence, tmp_path, "more").name == "best-5"


def test_luck_is_told_only_of_rewards_of_one_kind(evaluated):
    best = max(evaluated, key=lambda pair: pair[1])
    for same, told in ((True, best[1]), (False, None)):
        evidence = Evidence(evaluated, same=same)
        made = named(evidence)
        ranked = [(made["best-5"], 2.0), (made[BEST], 1.0)]
        choice = Choice.of(made, ranked, evidence)
        assert (choice.name, choice.policy) == ("best-5", made["best-5"])
        about = choice.provenance().get("best_candidate")
        assert about == (None if told is None else {"reward": told, "measured_again": 1.0})


def test_no_luck_is_told_of_a_best_candidate_that_was_cut(evaluated):
    evidence = Evidence(evaluated)
    best, _ = evidence.best
    cut = next(op.name for row in best for op in row)
    made = named(evidence, tuple(name for name in SPACE.ops if name != cut))
    assert Choice.of(made, [(made[BEST], 1.0)], evidence).best_reward is None


def test_operations_that_are_left_out_are_counted_and_in_none(evaluated):
    ops = tuple(name for name in SPACE.ops if name != "Cutout")
    made, dropped = finalists(Evidence(evaluated), SPACE, ops)
    rows = [row for policy, _ in evaluated for row in policy]
    assert dropped == sum(any(op.name == "Cutout" for op in row) for row in rows)
    assert not any(op.name == "Cutout" for policy in made.values() for row in policy for op in row)
    with pytest.raises(InputError, match="ops"):
        finalists(Evidence(evaluated[:1]), SPACE, ("Identity",))


def test_what_is_left_out_still_explains_the_rewards_it_was_in():
    """A reward is that of a whole policy, whatever of it may be chosen."""
    worth = {"Rotate": 1.0, "Color": 0.6, "Invert": -5.0, "Cutout": -5.0}

    def value(policy):
        return np.mean([sum(worth.get(o.name, 0) * o.probability for o in row) for row in policy])

    rng = np.random.default_rng(0)
    policies = [SPACE.sample(rng) for _ in range(60)]
    found = Evidence([(policy, float(value(policy))) for policy in policies])
    made = named(found, tuple(name for name in SPACE.ops if worth.get(name, 0) >= 0))
    assert value(made["together-25"]) > 0.9  # 0.2 with the rewards laid to what is left
