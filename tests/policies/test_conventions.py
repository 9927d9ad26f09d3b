"""What an index means, convention by convention, against the published implementations."""

from __future__ import annotations

import math

import pytest
from torchvision.transforms import autoaugment as torchvision_v1

from policies import (
    CONVENTIONS,
    IMAGENET,
    OPS,
    InputError,
    Schedule,
    get_convention,
    save_policy,
)

# tensorflow/models research/autoaugment/augmentation_transforms.py, levels 0..9, 32-pixel images.
TF = {
    "ShearX": [0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.21, 0.24, 0.27],
    "TranslateY": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    "Rotate": [0, 3, 6, 9, 12, 15, 18, 21, 24, 27],
    "Solarize": [256, 231, 205, 180, 154, 128, 103, 77, 52, 26],
    "Posterize": [4, 4, 4, 3, 3, 2, 2, 2, 1, 1],
    "Contrast": [0.1, 0.28, 0.46, 0.64, 0.82, 1.0, 1.18, 1.36, 1.54, 1.72],
    "Cutout": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
}
# timm auto_augment.py, policy "original": PosterizeOriginal, Solarize, TranslateXRel.
TIMM = {
    "ShearY": TF["ShearX"],
    "TranslateX": [0.45 * 32 * level / 10 for level in range(10)],
    "Rotate": TF["Rotate"],
    "Solarize": [0, 25, 51, 76, 102, 128, 153, 179, 204, 230],
    "Posterize": [4, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "Sharpness": TF["Contrast"],
}


@pytest.mark.parametrize(("convention", "table"), [("tf", TF), ("timm", TIMM)])
def test_published_levels(convention, table):
    for name, values in table.items():
        got = [CONVENTIONS[convention].parameter(name, i, False, 32, 32) for i in range(10)]
        assert got == pytest.approx(values, abs=1e-12), name
        if name in ("Posterize", "Solarize"):
            assert got == values


@pytest.mark.parametrize(
    ("convention", "name", "index", "share"),
    [
        ("paper", "TranslateX", 9, 150 / 331),
        ("paper", "TranslateY", 3, 50 / 331),
        ("randaugment", "TranslateX", 15, 75 / 331),
        ("timm", "TranslateX", 9, 0.405),
        ("timm", "TranslateY", 0, 0.0),
        ("tf", "TranslateX", 9, None),
        ("trivialaugment", "TranslateY", 9, None),
        ("paper", "Cutout", 9, None),
        ("paper", "ShearX", 9, None),
        ("paper", "Invert", None, None),
    ],
)
def test_the_share_of_the_side_that_an_operation_shifts_by(convention, name, index, share):
    assert CONVENTIONS[convention].share(name, index) == (share and pytest.approx(share))


@pytest.mark.parametrize("convention", ["paper", "randaugment", "trivialaugment"])
@pytest.mark.parametrize("size", [(32, 32), (224, 160)])
def test_torchvision_to_the_last_bit(convention, size):
    bins = CONVENTIONS[convention].bins
    spaces = {
        "paper": lambda: torchvision_v1.AutoAugment()._augmentation_space(bins, size),
        "randaugment": lambda: torchvision_v1.RandAugment()._augmentation_space(bins, size),
        "trivialaugment": lambda: torchvision_v1.TrivialAugmentWide()._augmentation_space(bins),
    }
    for name, (magnitudes, signed) in spaces[convention]().items():
        assert CONVENTIONS[convention].signed(name) == signed
        if magnitudes.ndim == 0:
            assert CONVENTIONS[convention].parameter(name, None, False, *size) == 0.0
            continue
        for index in range(bins):
            want = float(magnitudes[index])
            if name.startswith("Translate"):
                want = int(want)
            if name in ("Brightness", "Color", "Contrast", "Sharpness"):
                want = 1.0 + want
            assert CONVENTIONS[convention].parameter(name, index, False, *size) == want


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_parameter_is_legal(convention):
    """What kernels rely on: bits 1..8, weights 0..1, finite numbers; a sign mirrors."""
    c = CONVENTIONS[convention]
    for name, op in OPS.items():
        for index in range(c.bins):
            plus, minus = (c.parameter(name, index, sign, 37, 61) for sign in (False, True))
            assert math.isfinite(plus)
            if not c.signed(name):
                assert plus == minus
            elif c.scale(name).unit == "1 + factor":
                assert plus - 1 == pytest.approx(1 - minus)
            else:
                assert plus == -minus
            if op.kernel == "posterize":
                assert plus in range(1, 9)
            if op.kernel == "pairing":
                assert 0 <= plus <= 0.4 + 1e-7
            if op.kernel == "cutout":
                assert plus == int(plus) and 0 <= plus <= 37


@pytest.mark.parametrize("name", ["papr", "", None, 3, ["paper"]])
def test_unknown_convention(name):
    with pytest.raises(InputError, match="convention: must be one of paper, tf, timm"):
        get_convention(name)


def test_strength_of_paper_scales_grows_as_declared():
    for name, op in OPS.items():
        if op.scale is None:
            continue
        values = [CONVENTIONS["paper"].parameter(name, i, False, 224, 224) for i in range(10)]
        falling = op.severity == "grows as the value falls"
        assert values == sorted(values, reverse=falling) and values[0] != values[-1], name


def test_a_schedule_brings_its_own_convention(tmp_path):
    with pytest.raises(InputError, match="convention: must be left out for all but policies"):
        save_policy(tmp_path / "s.json", Schedule([(0, IMAGENET)], 3), convention="timm")
