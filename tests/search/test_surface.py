"""Final policies that are chosen as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from search import PolicySpace
from search.studies import selection, surface
from search.studies.selection import fit_model, one_by_one, together

SPACE = PolicySpace()


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(selection, "NEW_TOGETHER", 500)


def usage(policy, name="Rotate"):
    """How often an operation is applied to an image, on average."""
    return sum(op.probability for row in policy for op in row if op.name == name) / len(policy)


def rewarded(reward, count=80, seed=0):
    rng = np.random.default_rng(seed)
    policies = [SPACE.sample(rng) for _ in range(count)]
    return [(policy, reward(policy) + 0.003 * float(rng.normal())) for policy in policies]


def chosen(evaluated, counts=(25,), ops=SPACE.ops, seed=0):
    return together(evaluated, fit_model(evaluated, SPACE, 0.1), counts, ops, seed)


def test_too_much_of_a_good_thing_is_seen():
    """The more Rotate the better, up to a quarter of an operation an image."""
    evaluated = rewarded(lambda policy: -((usage(policy) - 0.25) ** 2), 150)
    assert sum(usage(policy) > 0.25 for policy, _ in evaluated) < 10
    [policy] = chosen(evaluated, (10,)).values()
    model = fit_model(evaluated, SPACE, 0.1)
    by_parts = one_by_one(evaluated, model, 10, 500, SPACE.ops, seed=0)
    assert usage(by_parts) > 0.75
    assert usage(policy) == pytest.approx(0.25, abs=0.15)


class Half:
    """A surface whose best is at a half."""

    def predict(self, features):
        return -np.abs(features[:, 0] - 0.5)


def test_each_is_chosen_for_what_it_adds_to_those_before():
    """Alone the second would be 0.41, but 0.6 brings the mean nearer."""
    features = np.array([[0.9], [0.41], [0.6], [0.45]])
    assert surface.chosen_together(Half(), features, 3) == [3, 2, 1]


def test_one_that_is_chosen_has_no_part_a_second_time():
    evaluated = rewarded(usage)
    made = chosen(evaluated, (5, 30))
    assert {count: len({*rows}) for count, rows in made.items()} == {5: 5, 30: 30}
    assert made[30][:5] == made[5]
    assert chosen([(policy, reward + 3.0) for policy, reward in evaluated], (5, 30)) == made
    assert chosen(evaluated, seed=1) != chosen(evaluated)


def test_only_operations_that_may_be_used():
    ops = ("Rotate", "Color", "Invert")
    [rows] = chosen(rewarded(usage), ops=ops).values()
    assert rows and {op.name for row in rows for op in row} <= {*ops}


@pytest.mark.parametrize("evaluated", [
    rewarded(usage, surface.LEAST - 1), [(policy, 0.5) for policy, _ in rewarded(usage, 40)],
])  # fmt: skip
def test_few_candidates_or_equal_ones_make_no_surface(evaluated):
    assert chosen(evaluated) == {}
    assert len(chosen(rewarded(usage, surface.LEAST))[25]) == 25


def test_a_long_search_costs_no_more_than_its_part(monkeypatch):
    """As many as it may have, evenly from the first to the last."""
    monkeypatch.setattr(surface, "MOST", 40)
    for count in (39, 40, 41, 100):
        features = np.arange(float(count))[:, None]
        process = surface.fitted_surface(features, [*np.sin(features[:, 0] / 20)])
        used = process.X_train_[:, 0].astype(int).tolist()
        assert len({*used}) == min(count, 40) and (used[0], used[-1]) == (0, count - 1)
        assert max(np.diff(used)) - min(np.diff(used)) <= 1


def test_the_surface_is_as_rough_as_the_rewards_say():
    """Length and noise are chosen by likelihood."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 8, (120, 1))
    found = {
        length: surface.fitted_surface(x, [*np.sin(x[:, 0] / length)]).kernel_.k1.k2.length_scale
        for length in (0.3, 2.0)
    }
    assert found[0.3] < found[2.0]
    noisy = surface.fitted_surface(x, [*(np.sin(x[:, 0]) + rng.normal(0, 1, 120))])
    assert noisy.kernel_.k2.noise_level > 0.2
