"""Agreement with a known policy: its parts by hand, and its verdicts on planted cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis.agreement import (
    AGAIN,
    Agreement,
    Form,
    _exchanged,
    _exchanges,
    _mixed,
    agreement_between,
    agreement_power,
    agreement_with,
    arrays_of,
    policy_agreement,
    random_policies,
)
from analysis.traits import trait_table
from policies import CIFAR10, IMAGENET, OPS, PAPER_OPS, SVHN, InputError, Policy

FORM = Form.of(IMAGENET)


def random_policy(rng, count=25, ops=PAPER_OPS):
    return Policy(
        [
            [
                (
                    str(name),
                    int(rng.integers(11)) / 10,
                    int(rng.integers(10)) if OPS[str(name)].has_magnitude else None,
                )
                for name in rng.choice(ops, 2)
            ]
            for _ in range(count)
        ]
    )


def noisy(rng, policy=IMAGENET, replaced=0.2):
    """Up to two tenths and two magnitudes off, and a fifth of the operations another one."""
    others = iter([op for sub in random_policy(rng, len(policy)) for op in sub])
    rows = []
    for sub in policy:
        row = []
        for name, probability, magnitude in sub:
            other = next(others)
            if rng.random() < replaced:
                row.append(other)
                continue
            tenths = int(np.clip(round(10 * probability) + rng.integers(-2, 3), 0, 10))
            if magnitude is not None:
                magnitude = int(np.clip(magnitude + rng.integers(-2, 3), 0, 9))
            row.append((name, tenths / 10, magnitude))
        rows.append(row)
    return Policy(rows)


def mixture(rng, share):
    """Some of the published sub-policies, the others random."""
    count = round(share * 25)
    chosen = [IMAGENET[index] for index in rng.permutation(25)[:count]]
    return Policy([*chosen, *random_policy(rng, 25 - count)])


# By hand -----------------------------------------------------------------------------------------


def test_agreement_is_one_with_itself_and_symmetric():
    assert policy_agreement(IMAGENET, IMAGENET) == pytest.approx(1)
    assert policy_agreement(IMAGENET, CIFAR10) == pytest.approx(policy_agreement(CIFAR10, IMAGENET))
    shuffled = Policy([sub[::-1] for sub in IMAGENET[::-1]])
    assert policy_agreement(IMAGENET, shuffled) == pytest.approx(1)


def test_nothing_in_common_is_zero():
    first = Policy([[("Rotate", 1.0, 5), ("ShearX", 1.0, 5)]])
    second = Policy([[("Equalize", 1.0, None), ("Invert", 1.0, None)]])
    assert policy_agreement(first, second) == 0


def test_what_is_never_applied_is_not_there():
    first = Policy([[("Rotate", 1.0, 5), ("Invert", 0.5, None)]])
    second = Policy([*first, [("Equalize", 0.0, None), ("ShearX", 0.0, 9)]])
    assert policy_agreement(first, second) == pytest.approx(1)
    assert policy_agreement(first, Policy([[("Rotate", 0.0, 5), ("Invert", 0.0, None)]])) == 0


def test_near_strengths_are_nearly_alike():
    def rotate(magnitude):
        return Policy([[("Rotate", 1.0, magnitude), ("Equalize", 0.5, None)]])

    near = [policy_agreement(rotate(4), rotate(other)) for other in (4, 5, 7, 9)]
    assert near == sorted(near, reverse=True) and near[0] - near[-1] > 0.2
    assert near[0] == pytest.approx(1)


def test_which_operations_stand_together_counts():
    together = Policy(
        [[("Rotate", 1.0, 5), ("Invert", 1.0, None)], [("Color", 1.0, 3), ("Equalize", 1.0, None)]]
    )
    apart = Policy(
        [[("Rotate", 1.0, 5), ("Equalize", 1.0, None)], [("Color", 1.0, 3), ("Invert", 1.0, None)]]
    )
    # The same strengths, so half of it is there.
    assert policy_agreement(together, apart) == pytest.approx(0.5)


def test_policies_of_other_magnitudes_are_refused():
    with pytest.raises(InputError, match="magnitudes"):
        policy_agreement(IMAGENET, Policy([[("Rotate", 1.0, 20)]], bins=31))
    with pytest.raises(InputError, match="at least one policy"):
        agreement_with(IMAGENET, [])
    with pytest.raises(InputError, match="16 operations"):
        policy_agreement(IMAGENET, Policy([[("Identity", 1.0, None)]]))


# Draws -------------------------------------------------------------------------------------------


def test_random_policies_are_of_their_form():
    form = Form(4, 3, ("Rotate", "Invert"), 5)
    drawn = random_policies(form, 300, np.random.default_rng(0))
    assert drawn.names.shape == (300, 4, 3)
    assert set(np.unique(drawn.names)) == {PAPER_OPS.index("Rotate"), PAPER_OPS.index("Invert")}
    rotate = drawn.names == PAPER_OPS.index("Rotate")
    assert set(np.unique(drawn.magnitudes[rotate])) == set(range(5))
    assert not drawn.magnitudes[~rotate].any()
    assert set(np.unique(drawn.probabilities)) == {tenth / 10 for tenth in range(11)}


def test_a_mixture_has_its_share_of_known_sub_policies():
    known = Policy([[("Invert", 0.35, None), ("Equalize", 0.35, None)]])  # of no random policy
    drawn = _mixed(known, 0.25, FORM, 200, np.random.default_rng(0))
    theirs = (drawn.probabilities == 0.35).all(axis=2).mean()
    # Binomial(5,000, 0.25): five standard deviations are 0.03.
    assert abs(theirs - 0.25) < 0.031
    short = Policy([[("Invert", 0.35, None)], [("Invert", 0.45, None)]])
    drawn = _mixed(short, 1.0, Form(1, 1), 50, np.random.default_rng(0))
    assert set(drawn.probabilities.ravel()) == {0.35, 0.45}  # any of them


# Planted cases -----------------------------------------------------------------------------------


def verdicts(make, count=200, searches=1):
    rng = np.random.default_rng(7)
    found = [
        agreement_with(IMAGENET, [make(rng) for _ in range(searches)], draws=1000)
        for _ in range(count)
    ]
    return [each.verdict for each in found], np.array([each.p for each in found])


@pytest.mark.parametrize(
    ("p", "share", "verdict"),
    [
        (0.01, 0.4, "re-derived"), (0.01, 0.39, "partly"), (0.011, 1.0, "partly"),
        (0.05, 0.0, "partly"), (0.051, 1.0, "not"),
    ],
)  # fmt: skip
def test_verdicts_by_hand(p, share, verdict):
    assert Agreement((0.5,), (0.1, 0.2), p, share).verdict == verdict


def test_exchanged_names_leave_all_else_in_its_place():
    ops = ("Rotate", "Color", "Equalize", "Invert")
    names = _exchanges(ops, 300, seed=0)
    known = [PAPER_OPS.index(name) for name in ops]
    others = [place for place in range(len(PAPER_OPS)) if place not in known]
    assert (np.sort(names, axis=1) == np.arange(len(PAPER_OPS))).all()
    assert (names[:, others] == others).all()
    # Each stands in each place in a quarter: five standard deviations of Binomial(300, 1/4).
    counts = [(names[:, place] == other).sum() for place in known for other in known]
    assert min(counts) > 37 and max(counts) < 113
    policy = Policy([[("Rotate", 0.3, 7), ("Equalize", 0.8, None)], [("ShearX", 1.0, 2)]])
    drawn = _exchanged(arrays_of([policy]), names, seed=0)
    assert (drawn.probabilities == [[0.3, 0.8], [1.0, 0.0]]).all()
    has = np.array([OPS[name].has_magnitude for name in PAPER_OPS])[drawn.names]
    kept = has[:, 0, 0]
    assert (drawn.magnitudes[kept, 0, 0] == 7).all() and not drawn.magnitudes[~has].any()
    fresh = drawn.magnitudes[has[:, 0, 1], 0, 1]
    assert set(fresh) == set(range(10))  # Equalize had none
    assert (drawn.magnitudes[:, 1, 0] == 2).all()


def test_chance_is_that_of_the_operations_that_were_searched():
    """Of two operations there are two orders, so no p is below a half."""
    few = Policy([[("Rotate", 0.9, 5), ("ShearX", 0.1, 5)]])
    found = agreement_with(few, [few], ("Rotate", "ShearX"), draws=400)
    assert found.mean == pytest.approx(1) and found.p == pytest.approx(0.5, abs=0.1)
    assert agreement_with(few, [few], draws=400).p < 0.02


@pytest.mark.parametrize("searches", [1, 3, 9, 10, 12])
def test_ties_with_chance_are_ties_in_whatever_order_they_were_added_up(searches):
    ops = ("Rotate", "ShearX")
    strengths = [(1 + each % 9, each % 10) for each in range(searches)]
    found = [Policy([[("Rotate", p / 10, m), ("ShearX", 0.1, 5)]]) for p, m in strengths]
    few = Policy([[("Rotate", 0.9, 5), ("ShearX", 0.1, 5)]])
    assert agreement_with(few, found, ops, draws=400).p > 0.4
    # Two searches that found the same of three operations: of six orders one is as good.
    three = Policy([[("Rotate", 0.9, 5), ("ShearX", 0.1, 5)], [("Color", 0.4, 2)] * 2])
    assert agreement_between([three, three], (*ops, "Color"), draws=400).p > 0.1


def test_searches_that_like_the_same_are_not_told_twice():
    """That they agree among themselves makes no agreement with the known policy more certain."""
    rng = np.random.default_rng(4)
    p = []
    for _ in range(200):
        liked = random_policy(rng, 4)
        found = [Policy([*liked, *random_policy(rng, 1)]) for _ in range(3)]
        p.append(agreement_with(IMAGENET, found, draws=400).p)
    # At 5 %: Binomial(200, 0.05), four standard deviations.
    assert np.sum(np.array(p) <= 0.05) <= 22 and 0.3 < np.median(p) < 0.7


def test_the_published_policy_with_noise_is_re_derived():
    found, p = verdicts(noisy)
    assert found.count("re-derived") >= 190 and (p <= 0.01).all()


def test_a_random_policy_is_not():
    found, p = verdicts(random_policy)
    assert found.count("re-derived") == 0
    # At 5 %: Binomial(200, 0.05) has a mean of 10; 4 standard deviations are 12.
    assert found.count("not") >= 178
    assert 0.3 < np.median(p) < 0.7


@pytest.mark.parametrize("searches", [1, 3])
def test_power_is_what_is_promised(searches):
    """Of a policy that is a quarter published, made otherwise than the promise is."""
    quarter, half = agreement_power(IMAGENET, [IMAGENET] * searches)
    for promised in (quarter, half):
        found, p = verdicts(lambda rng, share=promised.share: mixture(rng, share), 100, searches)
        # Two shares of 100 each differ by 0.28 at most in four standard deviations.
        assert abs((p <= 0.05).mean() - promised.told) < 0.2
        assert abs(found.count("re-derived") / 100 - promised.called) < 0.28
    assert quarter.told > 0.75 and quarter.called < 0.3 < half.called and half.told > 0.95


@pytest.mark.long
def test_chance_is_that_of_each_policys_own_form():
    """A long random policy agrees more than a short one; together they are no news either."""
    p = []
    rng = np.random.default_rng(11)
    for _ in range(200):
        found = [random_policy(rng, count) for count in (60, 5)]
        p.append(agreement_with(IMAGENET, found, draws=400).p)
        assert p[-1] == agreement_with(IMAGENET, found[::-1], draws=400).p
    # Binomial(200, 0.05), four standard deviations.
    assert (np.array(p) <= 0.05).sum() <= 22 and 0.3 < np.median(p) < 0.7


def test_the_share_is_that_of_the_mixture():
    rng = np.random.default_rng(3)
    for share in (0.24, 0.52, 0.76):
        found = [agreement_with(IMAGENET, [mixture(rng, share)], draws=1).share for _ in range(100)]
        assert np.mean(found) == pytest.approx(share, abs=0.05)


def test_the_other_published_policies_are_not_taken_for_it():
    for other in (CIFAR10, SVHN):
        found = agreement_with(IMAGENET, [other])
        assert found.share < AGAIN and found.verdict != "re-derived"


def one_of_each_pair(rng, count=120):
    """As a final policy chosen one by one from rewards that are noise: no pair stands twice."""
    pairs = [*itertools.combinations_with_replacement(PAPER_OPS, 2)]
    rows = random_policy(rng, count)
    chosen = [pairs[index] for index in rng.permutation(len(pairs))[:count]]
    return Policy(
        [
            [
                (name, probability, int(rng.integers(10)) if OPS[name].has_magnitude else None)
                for name, (_, probability, _) in zip(pair, row, strict=True)
            ]
            for pair, row in zip(chosen, rows, strict=True)
        ]
    )


def test_policies_of_one_of_each_pair_are_held_against_such():
    """They agree with any that uses all operations, and most with each other."""
    rng = np.random.default_rng(11)
    p = [agreement_with(IMAGENET, [one_of_each_pair(rng)], draws=400).p for _ in range(60)]
    assert np.mean(np.array(p) <= 0.05) < 0.15 and 0.35 < np.mean(p) < 0.65
    between = [
        agreement_between([one_of_each_pair(rng), one_of_each_pair(rng)], draws=200)
        for _ in range(12)
    ]
    assert min(each.mean for each in between) > 0.6
    assert 0.25 < np.mean([each.p for each in between]) < 0.75


def test_searches_that_agree_do_so_beyond_chance():
    rng = np.random.default_rng(12)
    found = agreement_between([noisy(rng), noisy(rng), noisy(rng)], draws=400)
    assert found.mean > found.chance[1] and found.p < 0.01
    with pytest.raises(InputError, match="at least two"):
        agreement_between([IMAGENET])


# Traits ------------------------------------------------------------------------------------------


def test_traits_of_the_published_policy_by_hand():
    table = trait_table(IMAGENET, [IMAGENET]).set_index("trait")
    used = {name: 0.0 for name in PAPER_OPS}
    for sub in IMAGENET:
        for name, probability, _ in sub:
            used[name] += probability
    total = sum(used.values())
    row = table.loc["Equalize is used often"]
    assert row["found"] == row["known"] == pytest.approx(used["Equalize"] / total)
    geometry = [used[name] / total for name in ("ShearX", "ShearY", "TranslateX", "TranslateY")]
    assert table.loc["shear and translation are rare", "known"] == pytest.approx(sum(geometry))
    assert table.loc["Rotate is used more than other geometry", "known"] == pytest.approx(
        used["Rotate"] / total - np.mean(geometry)
    )
    assert row["p_holm"] < 0.01 and table.loc["shear and translation are rare", "p_holm"] < 0.01
    # One policy of this size shows little of the rest, not even the published one.
    assert table.loc["Invert is rare", "p_known"] > 0.05


def test_traits_of_several_policies_are_against_means_of_as_many():
    one, two = (trait_table(IMAGENET, [IMAGENET] * n).set_index("trait") for n in (1, 2))
    assert ((two["high"] - two["low"]) < 0.85 * (one["high"] - one["low"])).all()
    assert two["p_known"].to_numpy() == pytest.approx(one["p_known"].to_numpy(), abs=0.05)
    some = one["p"].between(0.02, 0.4)
    assert some.any() and (two["p"] < one["p"])[some].all()


def test_what_the_known_policy_shows_does_not_depend_on_how_long_those_found_are():
    rng = np.random.default_rng(8)
    long, short = (trait_table(IMAGENET, [random_policy(rng, n)]) for n in (120, 5))
    assert long["p_known"].to_numpy() == pytest.approx(short["p_known"].to_numpy())


def test_what_is_never_used_is_rare():
    without = random_policy(np.random.default_rng(6), 200, tuple(sorted({*PAPER_OPS} - {"Invert"})))
    table = trait_table(IMAGENET, [without], draws=200).set_index("trait")
    assert table.loc["Invert is rare", "p"] == 1 / 201


@pytest.mark.long
def test_traits_of_random_policies_are_chance():
    rng = np.random.default_rng(5)
    p = np.array(
        [trait_table(IMAGENET, [random_policy(rng)], draws=300)["p_holm"].min() for _ in range(150)]
    )
    # At most 5 % of families, and four standard deviations.
    assert (p <= 0.05).mean() <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 150)
