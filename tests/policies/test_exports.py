"""kornia and albumentations: what is handed over, by the library's own declarations and pixels."""

from __future__ import annotations

import importlib
import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from policies import (
    CONVENTIONS,
    IMAGENET,
    OPS,
    InputError,
    Policy,
    PolicyFile,
    PolicyTransform,
    RandAugment,
    TrivialAugmentWide,
)
from policies.exports import DIFFERENCES, EXACT
from policies.formats import FORMATS, convert
from tests.policies.test_formats import (
    COMMON,
    POLICIES,
    called,
    certain,
    image,
    module,
    ours,
    theirs,
)

FORMS = ("kornia", "albumentations")
PLACES = {"kornia": "kornia.augmentation", "albumentations": "albumentations"}


@pytest.fixture(scope="module")
def library():
    return lambda form: pytest.importorskip(PLACES[form], exc_type=ImportError)


def converted(policy, form: str, convention: str = "paper", fill=0):
    """The exported module of a policy, and how many operations it went without."""
    text, left_out = convert(PolicyFile(PolicyTransform(policy, convention, fill)), form, drop=True)
    return module(text), sum(left_out.values())


# By the table in the paper's appendix, at index i of 0..9, in degrees, shares, 0..1, bits, factors.
DEFINED = {
    **dict.fromkeys(("ShearX", "ShearY"), lambda i: both(math.degrees(math.atan(0.3 * i / 9)))),
    **dict.fromkeys(("TranslateX", "TranslateY"), lambda i: both(150 / 331 * i / 9)),
    "Rotate": lambda i: both(30 * i / 9),
    "Solarize": lambda i: {round(max(math.ceil(255 - 255 / 9 * i) - 0.5, 0) / 255, 6)},
    "Posterize": lambda i: {8 - round(4 * i / 9)},
    **dict.fromkeys(
        ("Contrast", "Color", "Brightness", "Sharpness"),
        lambda i: {round(1 + 0.1 * i, 6), round(1 - 0.1 * i, 6)},
    ),
}


def both(value: float) -> set[float]:
    return {round(value, 6), round(-value, 6)}


def declared(form: str, op, name: str) -> tuple[float, set[float]]:
    """The probability and the values that the library's own objects of an operation hold."""
    if form == "albumentations":
        return op.p, {value for made in op.transforms for value in _albumentations(made, name)}
    made = list(op.children()) if type(op).__name__ == "ImageSequential" else [op]
    assert len({one.p for one in made}) == 1
    return made[0].p, {value for one in made for value in _kornia(one, name)}


def _kornia(made, name: str) -> set[float]:
    if hasattr(made, "factor"):
        return {round(made.factor, 6)}
    drawn = made.forward_parameters(torch.Size([4, 3, 24, 31]))
    sides = {"TranslateX": ("translate_x", 31), "TranslateY": ("translate_y", 24)}
    key, unit = sides.get(name, (KORNIA.get(name), 1))
    return {round(float(value) / unit, 6) for value in drawn[key]} if key else set()


KORNIA = {
    "ShearX": "shear_x", "ShearY": "shear_y", "Rotate": "degrees", "Solarize": "thresholds",
    "Posterize": "bits_factor",
}  # fmt: skip


def _albumentations(made, name: str) -> set[float]:
    ends = {
        "ShearX": lambda: made.shear["x"], "ShearY": lambda: made.shear["y"],
        "TranslateX": lambda: made.translate_percent["x"],
        "TranslateY": lambda: made.translate_percent["y"],
        "Rotate": lambda: made.rotate, "Solarize": lambda: made.threshold_range,
        "Posterize": lambda: made.num_bits, "Contrast": lambda: made.contrast,
        "Color": lambda: made.saturation, "Brightness": lambda: made.brightness,
    }  # fmt: skip
    return {round(float(value), 6) for value in ends[name]()} if name in ends else set()


@pytest.mark.parametrize("form", FORMS)
def test_policies_come_back_from_the_librarys_own_objects(library, form):
    """Order, probabilities, signs and units of the three published and 200 random policies."""
    library(form)
    lacks, dropped = FORMATS[form].lacks, 0
    for policy in POLICIES:
        made, left_out = converted(policy, form)
        dropped += left_out
        assert left_out == sum(op.name in lacks and op.probability > 0 for r in policy for op in r)
        assert len(made.SUBPOLICIES) == len(policy)
        for row, sub in zip(policy, made.SUBPOLICIES, strict=True):
            kept = [op for op in row if op.name not in lacks]
            found = list(sub.children() if form == "kornia" else sub.transforms)
            assert len(found) == len(kept)
            for op, theirs_ in zip(kept, found, strict=True):
                wanted = DEFINED[op.name](op.magnitude) if op.magnitude is not None else set()
                probability, values = declared(form, theirs_, op.name)
                assert probability == op.probability
                assert sorted(values) == pytest.approx(sorted(wanted), abs=2e-6), op
    assert dropped == (0 if form == "kornia" else 77)


@pytest.mark.parametrize("form", FORMS)
def test_pixels_of_whole_policies_where_they_are_exact(library, form):
    library(form)
    checked = 0
    for policy in POLICIES:
        rows = [row for row in certain(policy) if all(op.name in EXACT[form] for op in row)]
        for row in rows:
            made, _ = converted(Policy([row]), form)
            found = theirs(called(form, made.transform), image(), 6)
            assert found <= ours(PolicyTransform([row]), image()), row
            checked += 1
    assert checked > 20


def centred(name: str, slope: float, picture: Image.Image) -> np.ndarray:
    """A shear about the centre, by Pillow."""
    width, height = picture.size
    shift = -slope * ((height if name == "ShearX" else width) - 1) / 2
    matrix = (1, slope, shift, 0, 1, 0) if name == "ShearX" else (1, 0, 0, slope, 1, shift)
    return np.atleast_3d(
        np.asarray(picture.transform(picture.size, Image.Transform.AFFINE, matrix))
    )


def further(picture: Image.Image) -> np.ndarray:
    """Pillow's equalize, its table one bin further."""
    made = []
    for channel in picture.split():
        counts = np.array(channel.histogram())
        step = counts[: counts.nonzero()[0][-1]].sum() // 255
        table = np.minimum((counts.cumsum() + step // 2) // step, 255).astype(np.uint8)
        made.append(table[np.asarray(channel)])
    return np.stack(made, -1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("form", FORMS)
def test_every_operation_is_what_the_table_says(library, form, mode):
    """Exact, or different in the way that DIFFERENCES names and no other."""
    library(form)
    picture = image(mode)
    for name in [name for name in COMMON if name not in FORMATS[form].lacks]:
        for index in (0, 2, 5, 9) if OPS[name].has_magnitude else [None]:
            made, _ = converted([[(name, 1.0, index)]], form)
            found = theirs(called(form, made.transform), picture, 12)
            wanted = ours(PolicyTransform([[(name, 1.0, index)]]), picture)
            pixels = {p: np.frombuffer(p, np.uint8).reshape(24, 31, -1) for p in found | wanted}
            if name in EXACT[form]:
                assert found == wanted, (name, index)
                continue
            assert name in " ".join(DIFFERENCES[form])
            if name.startswith("Shear"):
                slopes = (0.3 * index / 9, -0.3 * index / 9)
                expected = [centred(name, slope, picture) for slope in slopes]
            elif name == "Equalize" and form == "albumentations":
                expected = [further(picture)]
            elif name.startswith("Translate"):
                expected = [np.roll(pixels[p], roll, axis) for p in wanted for roll in (-1, 0, 1)
                            for axis in [1 if name == "TranslateX" else 0]]  # fmt: skip
            else:
                expected = [pixels[p] for p in wanted]
            moves, whole = OPS[name].moves, name in ("Posterize", "Equalize")
            for one in found:
                off = [abs(pixels[one].astype(int) - other) for other in expected]
                near = [(o > 0).mean() < 0.25 if moves else o.max() <= (not whole) for o in off]
                assert any(near), (name, index, [(o.max(), (o > 0).mean()) for o in off])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_other_conventions_keep_their_parameters(library, form, convention):
    """Exact operations at every index of every convention, or refused by name."""
    library(form)
    refused, bins = Counter(), CONVENTIONS[convention].bins
    for name in EXACT[form]:
        for index in range(bins) if OPS[name].has_magnitude else [None]:
            policy = Policy([[(name, 1.0, index)]], bins)
            try:
                made, _ = converted(policy, form, convention)
            except InputError as error:
                assert name in str(error) and form in str(error)
                refused[name] += 1
                continue
            if name.startswith("Translate") and convention == "timm":
                continue  # not cut off there
            found = theirs(called(form, made.transform), image(), 6)
            assert found <= ours(PolicyTransform(policy, convention), image()), (name, index)
    assert sum(refused.values()) <= 2 * bins


def test_shifts_of_a_whole_number_of_pixels_are_not_cut_by_a_last_bit(library):
    """150 / 331 of 993 pixels are 450: index 1 of 9 is 50."""
    library("albumentations")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2, 993, 3), np.uint8))
    for index in (1, 2, 4, 8):
        policy = Policy([[("TranslateX", 1.0, index)]])
        made, _ = converted(policy, "albumentations")
        found = theirs(called("albumentations", made.transform), picture, 6)
        assert found <= ours(PolicyTransform(policy), picture), index


@pytest.mark.parametrize("form", FORMS)
def test_sub_policies_operations_and_signs_are_drawn_as_they_should(library, form):
    """4000 draws: five standard deviations of a binomial are 5 * sqrt(4000 / 4) = 158."""
    library(form)
    policy = [[("Invert", 0.3, None)], [("Brightness", 1.0, 5)], [("Posterize", 1.0, 9)]]
    made, _ = converted(policy, form)
    picture = Image.new("RGB", (3, 3), (100, 100, 100))
    torch.manual_seed(3)
    call = called(form, made.transform)
    if form == "albumentations":
        made.transform.set_random_seed(3)
    counts = Counter(int(call(picture)[0, 0, 0]) for _ in range(4000))
    chances = {155: 0.1, 100: 0.7 / 3, 50: 1 / 6, 150: 1 / 6, 96: 1 / 3}
    assert set(counts) == set(chances)
    for value, chance in chances.items():
        assert abs(counts[value] - 4000 * chance) < 158, value


def test_fill_goes_to_albumentations_alone(library):
    policy = Policy([[("Rotate", 1.0, 9)]])
    with pytest.raises(InputError, match="fill: must be 0 for kornia"):
        converted(policy, "kornia", fill=9)
    black = PolicyFile(PolicyTransform(policy, fill=(0, 0, 0)))
    assert convert(black, "kornia") == convert(PolicyFile(policy), "kornia")
    library("albumentations")
    for fill in (7, (10, 20, 30)):
        made, _ = converted(policy, "albumentations", fill=fill)
        corner = called("albumentations", made.transform)(Image.new("RGB", (20, 20)))[0, 0]
        assert np.array_equal(corner, np.broadcast_to(fill, 3))


@pytest.mark.parametrize("form", FORMS)
def test_randaugment_draws_n_times_of_its_operations(library, form):
    library(form)
    file = PolicyFile(RandAugment(3, 9))
    if form == "albumentations":
        with pytest.raises(InputError, match="albumentations has, but got 'Sharpness'"):
            convert(file, form)
    text, left_out = convert(file, form, drop=True)
    assert left_out == ({} if form == "kornia" else {"Sharpness": 1})
    made = module(text)
    assert len(made.POLICY) == 14  # Identity, and what is left out, stay as rows that do nothing
    draws = list(made.transform.children()) if form == "kornia" else made.transform.transforms
    assert len(draws) * getattr(draws[0], "n", 1) == 3
    assert getattr(draws[0], "replace", True), "an operation may be drawn twice"
    assert called(form, made.transform)(image()).shape == (24, 31, 3)


def test_trivialaugment_goes_to_albumentations(library):
    with pytest.raises(InputError, match="must be something that kornia can express"):
        convert(PolicyFile(TrivialAugmentWide()), "kornia", drop=True)
    library("albumentations")
    made = module(convert(PolicyFile(TrivialAugmentWide()), "albumentations", drop=True).text)
    assert len(made.POLICY) == 14 * 31
    assert [("TranslateXPixels", 1.0, (32, -32))] in made.POLICY
    assert called("albumentations", made.transform)(image()).shape == (24, 31, 3)


@pytest.mark.parametrize("n, m", [(2, 9), (1, 30), (16, 1)])
@pytest.mark.parametrize("form", ["torchvision", "timm", "kornia"])
def test_randaugment_in_one_line_of_the_library(form, n, m):
    """With M on that library's scale: 0..30 of torchvision and kornia, 0..10 of timm."""
    names = {"timm": "timm.data.auto_augment", "kornia": "kornia.augmentation.auto"}
    place = pytest.importorskip(names.get(form, "torchvision.transforms.v2"), exc_type=ImportError)
    import torchvision.transforms.v2 as v2

    text = convert(PolicyFile(RandAugment(n, m)), form).text
    if form == "kornia" and (m == 30 or n == 16):
        assert "In one line" not in text  # it takes 1..29, and none twice
        return
    line = text.splitlines()[-1].removeprefix("# ")
    scope = {"v2": v2, **vars(place)}
    if form == "kornia":
        import kornia

        scope["kornia"] = kornia
    made = eval(line, scope)
    if form == "timm":
        assert (made.num_layers, made.ops[0].magnitude, made.ops[0].prob) == (n, round(m / 3), 1.0)
    else:
        found = (made.num_ops, made.magnitude) if form == "torchvision" else (made.n, made.m)
        assert found == (n, m)


@pytest.mark.parametrize("form", FORMS)
def test_an_exported_transform_pickles(library, form, tmp_path, monkeypatch):
    """A DataLoader with spawned workers needs that."""
    library(form)
    name = f"exported_for_{form}"
    text = convert(PolicyFile(IMAGENET), form, drop=True).text
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    made = importlib.import_module(name)
    again = pickle.loads(pickle.dumps(made.transform))
    assert called(form, again)(image()).shape == (24, 31, 3)


@pytest.mark.parametrize("form", FORMS)
def test_the_published_policy_is_counted_where_it_is_cut(form):
    left_out = convert(PolicyFile(IMAGENET), form, drop=True).left_out
    assert left_out == ({} if form == "kornia" else {"Sharpness": 1})


def test_the_table_names_every_operation_once():
    """What is carried is exact, or said to differ."""
    for form in FORMS:
        named = [*EXACT[form], *", ".join(DIFFERENCES[form]).split(", ")]
        for name in COMMON:
            expected = 0 if name in FORMATS[form].lacks else 1
            counted = named.count(name)
            assert counted == expected or name.startswith("Translate"), (form, name)
