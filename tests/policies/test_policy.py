"""Policies as data: equality, validation, text and pickles; the published tables."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from policies import (
    CIFAR10,
    IMAGENET,
    OPS,
    PAPER_OPS,
    PUBLISHED,
    SVHN,
    InputError,
    Operation,
    Policy,
)

ROWS = ((("Posterize", 0.4, 8), ("Rotate", 0.6, 9)), (("Equalize", 1.0, None),))


@st.composite
def operations(draw, bins: int):
    name = draw(st.sampled_from(tuple(OPS)))
    magnitude = draw(st.integers(0, bins - 1)) if OPS[name].has_magnitude else None
    return (name, draw(st.floats(0, 1)), magnitude)


@st.composite
def policies(draw):
    bins = draw(st.sampled_from((10, 31)))
    row = st.lists(operations(bins), min_size=1, max_size=3).map(tuple)
    return Policy(draw(st.lists(row, min_size=1, max_size=6)), bins=bins)


class TestEquality:
    def test_equals_the_tuple_list(self):
        policy = Policy(ROWS)
        assert policy == ROWS and ROWS == policy and hash(policy) == hash(ROWS)
        assert policy != ROWS[:1]
        assert isinstance(policy[0][0], Operation) and policy[0][0].magnitude == 8

    def test_any_nested_sequence(self):
        lists = [[list(op) for op in row] for row in ROWS]
        assert Policy(lists) == Policy(iter(lists)) == Policy(Policy(ROWS)) == ROWS

    def test_numpy_scalars_become_python_numbers(self):
        op = Policy([[("Rotate", np.float64(0.5), np.int64(3))]])[0][0]
        assert type(op.probability) is float and type(op.magnitude) is int

    def test_dead_magnitudes_are_dropped(self):
        assert Policy([[("Invert", 0.5, 4)]]) == Policy([[("Invert", 0.5, None)]])

    def test_bins_are_part_of_a_policy(self):
        assert Policy(ROWS) != Policy(ROWS, bins=31)
        assert Policy(ROWS, bins=31) == ROWS

    @given(policies())
    def test_copies(self, policy):
        for other in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy), copy.copy(policy)):
            assert other == policy and other.bins == policy.bins and type(other) is Policy

    @given(policies())
    def test_repr_builds_it_again(self, policy):
        again = eval(repr(policy), {"Policy": Policy})
        assert again == policy and again.bins == policy.bins


class TestText:
    @given(policies())
    def test_round_trip(self, policy):
        assert Policy.from_text(policy.to_text(), policy.bins) == policy

    def test_form_of_the_published_tables(self):
        assert Policy(ROWS).to_text() == (
            '(("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),\n(("Equalize", 1.0, None),),\n'
        )

    @pytest.mark.parametrize("form", ["{}", "({})", "[{}]", "# a comment :)\n{}\n# the end"])
    def test_forms_people_paste(self, form):
        assert Policy.from_text(form.format(Policy(ROWS).to_text())) == ROWS

    def test_one_row_alone(self):
        assert Policy.from_text('(("Rotate", 0.6, 9), ("Invert", 0.1, None)),') == (
            (("Rotate", 0.6, 9), ("Invert", 0.1, None)),
        )

    @pytest.mark.parametrize(
        "text",
        [
            "", "(", ")", "((((", "__import__('os').system('true')", "lambda: 0", "[" * 100_000,
            "(" * 50_000 + ")" * 50_000, "-" * 100_000 + "1", "9" * 10_000, "'a' * 10 ** 9",
            '(("Rotate", 0.6, 9)', "),(", ") + (", "[" * 150 + "]" * 150, "\x00",
            "(('Rotate', 1e999, 3),),", "{1: 2}", "1+2j",
            '(("Rotate", 0.6, open("/etc/passwd")),),', "(" + "1," * 100_000 + ")",
        ],
        ids=lambda text: text[:12],
    )  # fmt: skip
    def test_hostile_text(self, text):
        with pytest.raises(InputError):
            Policy.from_text(text)

    def test_huge_text_is_refused_by_size(self):
        with pytest.raises(InputError, match="at most"):
            Policy.from_text("#" + "x" * 5_000_000)


class TestValidation:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([[("Rotat", 0.5, 3)]], r"policy\[0\]\[0\].name: must be one of .*'Rotat'.*'Rotate'\?"),
            ([[("rotate", 0.5, 3)]], "did you mean 'Rotate'"),
            ([[(7, 0.5, 3)]], r"policy\[0\]\[0\].name: must be one of"),
            ([[("Rotate", 1.5, 3)]], r"probability: must be a number in 0\.\.1, but got 1\.5"),
            ([[("Rotate", float("nan"), 3)]], "probability: .* got nan"),
            ([[("Rotate", "0.5", 3)]], "probability: .* got '0.5'"),
            ([[("Rotate", True, 3)]], "probability: .* got True"),
            ([[("Rotate", 0.5, 10)]], r"magnitude: must be an integer in 0\.\.9, but got 10"),
            ([[("Rotate", 0.5, -1)]], "magnitude: .* got -1"),
            ([[("Rotate", 0.5, 3.0)]], "magnitude: .* got 3.0"),
            ([[("Rotate", 0.5, True)]], "magnitude: .* got True"),
            ([[("Rotate", 0.5, None)]], r"magnitude: .* 0\.\.9 for Rotate, but got None"),
            ([[("Invert", 0.5, "x")]], "magnitude: .* got 'x'"),
            ([[("Rotate", 0.5)]], r"policy\[0\]\[0\]: must be a triple"),
            ([("Rotate", 0.5, 3)], r"policy\[0\]\[0\]: must be a triple .* got 'Rotate'"),
            ([ROWS[0], "Rotate"], r"policy\[1\]: must be a sequence"),
            ([ROWS[0], ()], r"policy\[1\]: must have 1 to 64"),
            ([], "policy: must have 1 to"),
            ("imagenet", "policy: must be a sequence"),
            (None, "policy: must be a sequence"),
            ({"policy": ROWS}, "policy: must be a sequence"),
            ([{ROWS[0][0]}], r"policy\[0\]: must be a sequence"),  # in what order?
            ([ROWS[0]] * 17_000, "policy: must have 1 to 16384"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_errors_name_position_rule_value_and_fix(self, rows, message):
        with pytest.raises(InputError, match=message) as caught:
            Policy(rows)
        assert "; " in str(caught.value) and "\n" not in str(caught.value)

    @pytest.mark.parametrize("bins", [0, 1, 2.5, True, "10", 10**9])
    def test_bins(self, bins):
        with pytest.raises(InputError, match="bins: must be an integer"):
            Policy(ROWS, bins=bins)

    def test_long_values_are_shortened(self):
        with pytest.raises(InputError) as caught:
            Policy([[("x" * 10_000, 0.5, 3)]])
        assert len(str(caught.value)) < 600

    def test_error_survives_pickling(self):
        error = InputError("a", "must be b", 3, "do c")
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) == "a: must be b, but got 3; do c"
        assert isinstance(again, ValueError)


class TestPublished:
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (IMAGENET, AutoAugmentPolicy.IMAGENET),
            (CIFAR10, AutoAugmentPolicy.CIFAR10),
            (SVHN, AutoAugmentPolicy.SVHN),
        ],
        ids=["imagenet", "cifar10", "svhn"],
    )
    def test_equals_torchvision_entry_by_entry(self, ours, theirs):
        table = AutoAugment(theirs)._get_policies(theirs)
        assert len(ours) == len(table) == 25
        for row, other in zip(ours, table, strict=True):
            assert row == tuple(other)
        assert ours == tuple(table)

    def test_repeated_and_dead_rows_are_kept(self):
        assert len(set(IMAGENET)) == 20 and IMAGENET[20:] == tuple(
            IMAGENET[i] for i in (4, 1, 13, 14, 2)
        )
        assert len(set(SVHN)) == 23
        for policy in PUBLISHED.values():
            assert sum(op.probability == 0 for row in policy for op in row) == 1

    def test_operations_of_the_paper(self):
        assert len(PAPER_OPS) == 16 and tuple(OPS) == (*PAPER_OPS, "Identity")
        assert [n for n in OPS if not OPS[n].has_magnitude] == [
            "AutoContrast", "Invert", "Equalize", "Identity",
        ]  # fmt: skip
        assert all(re.match(r".*\d{4}\.\d{5}", op.source) for op in OPS.values())
