"""Augmentations as data: an exact inverse of each other, and strict."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies import (
    CIFAR10,
    IMAGENET,
    OPS,
    InputError,
    Policy,
    PolicyTransform,
    RandAugment,
    TrivialAugmentWide,
    UniformAugment,
)
from policies.augmentations import decode_augmentation, encode_augmentation
from policies.schedule import Schedule, ScheduleTransform

SMALL = [[["Rotate", 0.5, 3]]]


@st.composite
def policies(draw, bins=10):
    def operation():
        name = draw(st.sampled_from(list(OPS)))
        magnitude = draw(st.integers(0, bins - 1)) if OPS[name].has_magnitude else None
        return name, draw(st.floats(0, 1)), magnitude

    rows = [[operation() for _ in range(draw(st.integers(1, 3)))]
            for _ in range(draw(st.integers(1, 3)))]  # fmt: skip
    return Policy(rows, bins)


fills = st.one_of(st.integers(0, 255), st.tuples(*[st.integers(0, 255)] * 3))


@st.composite
def augmentations(draw):
    kind = draw(st.integers(0, 6))
    fill = draw(fills)
    if kind == 0:
        return draw(policies())
    if kind == 1:
        return RandAugment(draw(st.integers(0, 16)), draw(st.integers(0, 30)), fill=fill)
    if kind == 2:
        return TrivialAugmentWide(fill=fill)
    if kind == 3:
        return UniformAugment(fill=fill)
    if kind == 4:
        convention = draw(st.sampled_from(["paper", "tf", "timm"]))
        return PolicyTransform(draw(policies()), convention, fill=fill)
    if kind == 5:
        return PolicyTransform(draw(policies(31)), "randaugment", fill=fill)
    ranges = [(0, draw(policies())), (3, draw(policies()))]
    return ScheduleTransform(Schedule(ranges, draw(st.integers(4, 100))))


@given(augmentations())
def test_reading_inverts_writing(augmentation):
    data = encode_augmentation(augmentation)
    back = decode_augmentation(json.loads(json.dumps(data, allow_nan=False)))
    assert type(back) is type(augmentation) and back == augmentation
    assert getattr(back, "bins", None) == getattr(augmentation, "bins", None)
    assert encode_augmentation(back) == data


@pytest.mark.parametrize(
    "augmentation, data",
    [
        (None, None),
        (Policy([[("Rotate", 0.5, 3), ("Invert", 1, None)]]),
         [[["Rotate", 0.5, 3], ["Invert", 1.0, None]]]),
        (RandAugment(3, 10), {"transform": "RandAugment", "n": 3, "m": 10}),
        (TrivialAugmentWide(), {"transform": "TrivialAugmentWide"}),
        (TrivialAugmentWide(threads=4), {"transform": "TrivialAugmentWide"}),
        (UniformAugment(fill=(1, 2, 3)), {"transform": "UniformAugment", "fill": [1, 2, 3]}),
        (PolicyTransform(SMALL, "timm"),
         {"transform": "PolicyTransform", "convention": "timm", "bins": 10, "policy": SMALL}),
        (ScheduleTransform(Schedule([(0, SMALL)], 40)),
         {"transform": "Schedule", "epochs": 40,
          "ranges": [{"first_epoch": 0, "policy": SMALL}]}),
    ],
)  # fmt: skip
def test_what_is_written_is_fixed(augmentation, data):
    """Journals and policy files hold these: a change needs a new version of both."""
    assert encode_augmentation(augmentation) == data
    assert decode_augmentation(data) == augmentation


class Mine(RandAugment):
    pass


@pytest.mark.parametrize(
    "augmentation, part",
    [
        (Policy(SMALL, bins=31), "convention"),
        (Mine(), "RandAugment, TrivialAugmentWide, UniformAugment"),
        ("RandAugment(2, 9)", "which can be written as data"),
        (SMALL, "which can be written as data"),
        (RandAugment(generator=torch.Generator()), "with_generator"),
        (ScheduleTransform(Schedule([(0, SMALL)], 4), torch.Generator()), "with_generator"),
    ],
    ids=range(6),
)
def test_what_cannot_be_written_is_refused(augmentation, part):
    with pytest.raises(InputError, match=part):
        encode_augmentation(augmentation)


RANDAUGMENT = {"transform": "RandAugment", "n": 2, "m": 9}
POLICY = {"transform": "PolicyTransform", "convention": "timm", "bins": 10, "policy": SMALL}
SCHEDULE = {"transform": "Schedule", "epochs": 4, "ranges": [{"first_epoch": 0, "policy": SMALL}]}


@pytest.mark.parametrize(
    "data, part",
    [
        ("RandAugment(n=2, m=9)", "file.json: data: must be null"),
        (3, "file.json: data: must be null"),
        ({}, "transform: must be one of"),
        ({"transform": "Randaugment", "n": 2, "m": 9}, "did you mean 'RandAugment'"),
        ({"transform": ["RandAugment"]}, "transform: must be one of"),
        ({"transform": "RandAugment", "n": 2}, "file.json: m: must be given"),
        ({**RANDAUGMENT, "mm": 3}, "did you mean 'm'"),
        ({**RANDAUGMENT, "threads": 3}, "field of RandAugment"),
        ({**RANDAUGMENT, "generator": None}, "field of RandAugment"),
        ({**RANDAUGMENT, "n": 17}, "n: must be an integer in 0..16"),
        ({**RANDAUGMENT, "n": True}, "n: must be an integer"),
        ({**RANDAUGMENT, "m": 9.0}, "m: must be an integer"),
        ({**RANDAUGMENT, "fill": 256}, "fill"),
        ({**RANDAUGMENT, "fill": "0"}, "fill"),
        ({"transform": "TrivialAugmentWide", "n": 1}, "field of TrivialAugmentWide"),
        ({**POLICY, "bins": 31}, "policy.bins: must be 10 for the timm"),
        ({**POLICY, "bins": 10.0}, "bins: must be an integer"),
        ({**POLICY, "convention": "tim"}, "did you mean 'timm'"),
        ({**POLICY, "convention": None}, "convention: must be one of"),
        ({**POLICY, "policy": None}, "policy: must be"),
        ({**POLICY, "policy": [[["Rotat", 0.5, 3]]]}, "did you mean 'Rotate'"),
        ({k: v for k, v in POLICY.items() if k != "convention"}, "convention: must be given"),
        ({**SCHEDULE, "epochs": 0}, "epochs"),
        ({**SCHEDULE, "fill": 0}, "field of Schedule"),
        ({**SCHEDULE, "ranges": [[0, SMALL]]}, "file.json: ranges: must list"),
        ({**SCHEDULE, "ranges": [{"first_epoch": 1, "policy": SMALL}]}, "must start at 0"),
        ([], "policy: must have 1 to"),
        ([[["Rotate", 0.5, 10]]], r"policy\[0\]\[0\].magnitude"),
        ([[["Rotate", float("nan"), 1]]], r"policy\[0\]\[0\].probability"),
    ],
)
def test_anything_else_is_refused_with_its_place(data, part):
    with pytest.raises(InputError, match=part):
        decode_augmentation(data, "file.json")


def test_equal_augmentations_are_equal_text():
    """Journals recognise a repeated augmentation by its text."""
    text = [json.dumps(encode_augmentation(RandAugment(m=9, n=2))),
            json.dumps(encode_augmentation(RandAugment(2, 9, threads=2)))]  # fmt: skip
    assert text[0] == text[1]
    read = OrderedDict(reversed(RANDAUGMENT.items()))
    assert json.dumps(encode_augmentation(decode_augmentation(read))) == text[0]


def test_published_policies():
    for policy in (CIFAR10, IMAGENET):
        assert decode_augmentation(encode_augmentation(policy)) == policy


def test_reprs_fit_on_a_line():
    """A log line or an error that holds one stays readable; a small one shows everything."""
    schedule = Schedule([(first, IMAGENET) for first in range(500)], 500)
    augmentations = [PolicyTransform(IMAGENET, "timm", fill=3), schedule,
                     ScheduleTransform(schedule), RandAugment(3, 10)]  # fmt: skip
    for augmentation in augmentations:
        assert len(repr(augmentation)) < 120
    assert repr(augmentations[0]) == (
        "PolicyTransform(policy=<25 sub-policies>, convention='timm', fill=3)"
    )
    assert "('Rotate', 0.5, 3)" in repr(PolicyTransform(SMALL))
