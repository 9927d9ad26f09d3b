"""Formats: what comes out does, in the other library, what it does here - to the pixel."""

from __future__ import annotations

import ast
import itertools
import pickle
import random
import types

import numpy as np
import pytest
import torch
from PIL import Image

from policies import (
    CONVENTIONS,
    IMAGENET,
    OPS,
    PAPER_OPS,
    PUBLISHED,
    InputError,
    Policy,
    PolicyFile,
    PolicyTransform,
    RandAugment,
    Schedule,
    ScheduleTransform,
    TrivialAugmentWide,
    UniformAugment,
    load_policy_file,
)
from policies.formats import FORMATS, convert, in_convention
from tests.policies.images import synthetic

LACKING = ("Cutout", "SamplePairing")
LIBRARIES = ("torchvision", "timm", "kornia", "albumentations")
COMMON = tuple(name for name in PAPER_OPS if name not in LACKING)


def random_policies(count: int, names: tuple[str, ...], bins: int = 10) -> list[Policy]:
    rng = np.random.default_rng(7)

    def operation() -> tuple:
        name = names[rng.integers(len(names))]
        magnitude = int(rng.integers(bins)) if OPS[name].has_magnitude else None
        return name, float(rng.integers(11)) / 10, magnitude

    return [
        Policy([[operation() for _ in range(rng.integers(1, 4))] for _ in range(3)], bins)
        for _ in range(count)
    ]


POLICIES = [*PUBLISHED.values(), *random_policies(200, COMMON)]


def image(mode: str = "RGB") -> Image.Image:
    """Noise and a ramp, not square: 24 pixels high, 31 wide."""
    noise, _, _, smooth = synthetic(3 if mode == "RGB" else 1, 24, 31)
    pixels = np.concatenate([noise[:, :12], smooth[:, 12:]], 1).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.squeeze()))


def module(text: str) -> types.ModuleType:
    """The exported module, imported, as a user would have it."""
    made = types.ModuleType("exported")
    exec(compile(text, "exported.py", "exec"), made.__dict__)
    return made


def called(form: str, transform):
    """On PIL images, as ours is."""

    def kornia(picture: Image.Image) -> np.ndarray:
        pixels = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)
        made = transform(torch.from_numpy(pixels.copy())[None].float() / 255)[0]
        return (made * 255).round().byte().permute(1, 2, 0).contiguous().numpy()

    def albumentations(picture: Image.Image) -> np.ndarray:
        return transform(image=np.atleast_3d(np.asarray(picture)).copy())["image"]

    return {"kornia": kornia, "albumentations": albumentations}.get(form, transform)


def certain(policy: Policy) -> Policy:
    return Policy([[(n, 1.0, m) for n, _, m in row] for row in policy], policy.bins)


def ours(transform, picture: Image.Image) -> set[bytes]:
    """All outcomes of a transform with few: 400 draws miss one of 8 in 1e-22 of cases."""
    pixels = torch.from_numpy(np.asarray(picture).copy())
    batch = (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).expand(400, -1, -1, -1)
    made = transform.with_generator(torch.Generator().manual_seed(0))(batch)
    made = made.permute(0, 2, 3, 1).contiguous().numpy()
    return {row.tobytes() for row in made}


def theirs(call, picture: Image.Image, draws: int) -> set[bytes]:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    return {np.asarray(call(picture)).tobytes() for _ in range(draws)}


# ---------------------------------------------------------------------------------- our own


@pytest.mark.parametrize("form", ["text", "json"])
def test_our_own_formats_are_read_back(tmp_path, form):
    for policy in [*POLICIES, *random_policies(200, tuple(OPS))]:
        path = tmp_path / f"policy{FORMATS[form].ending}"
        text, left_out = convert(PolicyFile(policy, None), form)
        path.write_text(text)
        assert load_policy_file(path) == PolicyFile(policy, None) and not left_out


def test_json_carries_everything(tmp_path):
    schedule = ScheduleTransform(Schedule([(0, IMAGENET)], 3))
    for augmentation in (
        None, RandAugment(16, 30, fill=(1, 2, 3)), TrivialAugmentWide(), UniformAugment(), schedule,
        PolicyTransform(IMAGENET, "timm", fill=7),
    ):  # fmt: skip
        file = PolicyFile(augmentation, {"seed": 3})
        (tmp_path / "p.json").write_text(convert(file, "json").text)
        assert load_policy_file(tmp_path / "p.json") == file


NOT_TEXT = {
    "tf": PolicyTransform(IMAGENET, "tf"),
    "timm": PolicyTransform(IMAGENET, "timm"),
    "randaugment": PolicyTransform(Policy([[("Rotate", 0.5, 5)]], 31), "randaugment"),
    "trivialaugment": PolicyTransform(Policy([[("Rotate", 0.5, 5)]], 31), "trivialaugment"),
    "fill": PolicyTransform(IMAGENET, fill=128),
    "RandAugment": RandAugment(1, 10),
    "TrivialAugmentWide": TrivialAugmentWide(),
    "UniformAugment": UniformAugment(),
    "Schedule": ScheduleTransform(Schedule([(0, IMAGENET)], 3)),
    "none": None,
}


@pytest.mark.parametrize("name", NOT_TEXT)
def test_a_tuple_list_never_means_anything_else(name):
    """Rotate 5 of 31 bins is 5 degrees; read back as one of 10 it would be 16.7."""
    with pytest.raises(InputError, match="paper convention|fill: must be 0|text can express"):
        convert(PolicyFile(NOT_TEXT[name]), "text")


@pytest.mark.parametrize("form", ["text", "torchvision"])
def test_other_conventions_are_converted_where_every_parameter_is_equal(form):
    rows = [
        [("Rotate", 0.5, 10), ("Solarize", 0.25, 20)],
        [("Invert", 1.0, None), ("ShearX", 0.5, 30), ("TranslateY", 0.5, 0)],
        [("Posterize", 0.3, 0), ("Posterize", 0.3, 30), ("Posterize", 0.3, 6)],
    ]
    source = PolicyTransform(Policy(rows, 31), "randaugment")
    text = convert(PolicyFile(source), form).text
    read = Policy.from_text(text) if form == "text" else Policy(module(text).POLICY)
    assert [[op.magnitude for op in row] for row in read] == [[3, 6], [None, 9, 0], [0, 8, 2]]
    if form == "torchvision":
        assert repr(module(text).transform) == "Searched(3 sub-policies, fill=0)"
    for row in range(3):
        batch = torch.from_numpy(np.stack([synthetic(3, 33, 47)[0]] * 64))
        draws = [t(batch) for t in (
            PolicyTransform(Policy([rows[row]], 31), "randaugment", generator=torch.Generator()),
            PolicyTransform([read[row]], generator=torch.Generator()))]  # fmt: skip
        assert torch.equal(*draws)


@pytest.mark.parametrize("source, target", [
    *itertools.product(["paper"], ["tf", "timm", "randaugment", "trivialaugment"]),
    *itertools.product(["tf", "timm", "randaugment", "trivialaugment"], ["paper"]),
    ("trivialaugment", "tf"),
])  # fmt: skip
@pytest.mark.long
def test_conversion_is_right_or_refused(source, target):
    """Against the parameters at sizes where rounding decides."""
    one, other = CONVENTIONS[source], CONVENTIONS[target]
    converted = 0
    for name in PAPER_OPS:
        for index in range(one.bins) if OPS[name].has_magnitude else [None]:
            policy = Policy([[(name, 0.5, index)]], one.bins)
            try:
                ((op,),) = in_convention(policy, source, target)
            except InputError as error:
                assert name in str(error) and target in str(error)
                continue
            converted += 1
            assert (op.name, op.probability) == (name, 0.5)
            for side, negative in itertools.product((1, 32, 100, 224, 331, 662), (False, True)):
                want = one.parameter(name, index, negative, side, side)
                assert other.parameter(name, op.magnitude, negative, side, side) == want
    assert converted >= 3  # those without a magnitude, at least


# ---------------------------------------------------------------------------------- torchvision


@pytest.mark.long
def test_torchvision_pixels():
    """Every sub-policy, every sign, on PIL images; Solarize 3 and 6 are where plain v2 differs."""
    checked = 0
    for policy in POLICIES:
        made = module(convert(PolicyFile(policy), "torchvision").text)
        assert Policy(made.POLICY) == policy
        sure = module(convert(PolicyFile(certain(policy)), "torchvision").text)
        for row in certain(policy):
            sure.transform._policies = [row]
            found = theirs(sure.transform, image(), 6)
            wanted = ours(PolicyTransform([row]), image())
            assert found <= wanted, row
            checked += len(found)
    assert checked > 1500


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("fill", [0, 128, (10, 20, 30)])
@pytest.mark.long
def test_torchvision_every_operation(mode, fill):
    if mode == "L" and isinstance(fill, tuple):
        return
    for name in COMMON:
        for index in range(10) if OPS[name].has_magnitude else [None]:
            transform = PolicyTransform([[(name, 1.0, index)]], fill=fill)
            made = module(convert(PolicyFile(transform), "torchvision").text)
            assert theirs(made.transform, image(mode), 12) == ours(transform, image(mode)), name


@pytest.mark.long
@pytest.mark.parametrize("transform", [RandAugment(1, m) for m in (0, 7, 20, 30)]
                         + [RandAugment(1, 13, fill=9), TrivialAugmentWide()], ids=str)  # fmt: skip
def test_torchvision_transforms(transform):
    made = module(convert(PolicyFile(transform), "torchvision").text)
    draws = 3000 if isinstance(transform, TrivialAugmentWide) else 300
    theirs_found = theirs(made.transform, image(), draws)
    every = PolicyTransform(transform.as_policy(), transform.convention, fill=transform.fill)
    wanted = set()
    for row in every.policy:
        one = Policy([row], every.policy.bins)
        wanted |= ours(PolicyTransform(one, every.convention, fill=transform.fill), image())
    assert theirs_found <= wanted
    assert len(theirs_found) > 0.85 * len(wanted)


def test_torchvision_arguments():
    made = module(convert(PolicyFile(RandAugment(16, 30, fill=5)), "torchvision").text)
    assert (made.transform.num_ops, made.transform.magnitude) == (16, 30)
    assert made.transform.num_magnitude_bins == 31 and made.transform.fill == 5


# ---------------------------------------------------------------------------------- timm


@pytest.fixture(scope="module")
def auto_augment():
    return pytest.importorskip("timm.data.auto_augment")


def test_timm_pixels(auto_augment):
    """As torchvision's, without shifts; probabilities and order are compared too."""
    unshifted = tuple(name for name in COMMON if not name.startswith("Translate"))
    published = [
        Policy([row for row in policy if not any("Translate" in name for name, _, _ in row)])
        for policy in PUBLISHED.values()
    ]
    assert [len(policy) for policy in published] == [25, 19, 20], "all rows but those with shifts"
    for policy in [*published, *random_policies(200, unshifted)]:
        made = module(convert(PolicyFile(policy), "timm").text)
        chances = [[p for _, p, _ in row] for row in made.POLICY]
        assert chances == [[op.probability for op in row] for row in policy]
        sure = module(convert(PolicyFile(certain(policy)), "timm").text)
        for row, call in zip(certain(policy), sure.transform.policy, strict=True):
            found = theirs(auto_augment.AutoAugment([call]), image(), 6)
            assert found <= ours(PolicyTransform([row]), image()), row


@pytest.mark.parametrize(
    ("fill", "modes"), [(0, "RGB or L"), (7, "RGB"), ((7,), "L"), ((1, 2, 3), "RGB")]
)
def test_timm_says_which_images_it_fills(fill, modes):
    """Pillow takes (7,) of an RGB image for a red."""
    text = convert(PolicyFile(PolicyTransform(IMAGENET, fill=fill)), "timm").text
    assert f"PIL images of mode {modes}" in text and f"of mode {modes} or" not in text


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("fill", [0, 128, (128,), (10, 20, 30)])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_timm_every_operation(auto_augment, convention, fill, mode):
    if fill and (mode == "L") != (fill == (128,)):
        return
    for name in COMMON:
        for index in range(CONVENTIONS[convention].bins) if OPS[name].has_magnitude else [None]:
            bins = CONVENTIONS[convention].bins
            transform = PolicyTransform(Policy([[(name, 1.0, index)]], bins), convention, fill)
            beyond = convention == "trivialaugment" and index and index > 27
            if beyond and name in ("Contrast", "Color", "Brightness", "Sharpness"):
                with pytest.raises(InputError, match="must lie in timm's range"):
                    convert(PolicyFile(transform), "timm")
                continue
            made = module(convert(PolicyFile(transform), "timm").text)
            if name.startswith("Translate") and convention in ("paper", "randaugment"):
                continue  # measured below
            found = theirs(made.transform, image(mode), 12)
            assert found == ours(transform, image(mode)), (name, index)


def test_timms_own_magnitudes_stay_as_they_are():
    for name in ("ShearX", "ShearY", "Rotate", "TranslateX", "TranslateY"):
        policy = Policy([[(name, 0.5, index) for index in range(10)]])
        text = convert(PolicyFile(PolicyTransform(policy, "timm")), "timm").text
        table = ast.literal_eval(text[text.index("[") : text.index("\n\ntransform")])
        levels = [level for _, _, level in table[0]]
        exact = "Translate" in name  # where a last bit could decide between two pixels
        assert levels == (list(range(10)) if exact else pytest.approx(range(10), rel=1e-15))
        assert {op for op, _, _ in table[0]} == {f"{name}Rel" if "Translate" in name else name}


@pytest.mark.parametrize("convention", ["paper", "randaugment"])
def test_timm_shifts_are_one_pixel_further_at_most(auto_augment, convention):
    differ = 0
    for name, side in itertools.product(("TranslateX", "TranslateY"), (24, 31, 32, 224, 331)):
        for index in range(CONVENTIONS[convention].bins):
            policy = Policy([[(name, 1.0, index)]], CONVENTIONS[convention].bins)
            file = PolicyFile(PolicyTransform(policy, convention))
            ((op, _, level),) = module(convert(file, "timm").text).POLICY[0]
            share = auto_augment.LEVEL_TO_ARG[op](level, {"translate_pct": 0.45})[0]
            pixels = round(abs(share) * side)
            truncated = CONVENTIONS[convention].parameter(name, index, False, side, side)
            assert 0 <= pixels - truncated <= 1
            differ += pixels != truncated
    assert differ  # as the docstring says: not exact


def test_timm_randaugment(auto_augment):
    for transform in (RandAugment(1, 9), RandAugment(1, 30, fill=77)):
        made = module(convert(PolicyFile(transform), "timm").text).transform
        assert made.num_layers == 1 and len(made.ops) == 14 and made.choice_weights is None
        assert [op.prob for op in made.ops] == [0.0] + [1.0] * 13
        wanted = set()
        for (op,) in transform.as_policy():
            if not op.name.startswith("Translate"):
                one = Policy([[op]], 31)
                wanted |= ours(PolicyTransform(one, "randaugment", transform.fill), image())
        made.ops = [op for op in made.ops if not op.name.startswith("Translate")]
        assert theirs(made, image(), 400) == wanted
    assert module(convert(PolicyFile(RandAugment(16, 9)), "timm").text).transform.num_layers == 16


# ---------------------------------------------------------------------------------- what is lost


@pytest.mark.parametrize("form", LIBRARIES)
def test_what_is_left_out_is_asked_for_and_counted(form):
    policy = Policy([
        [("Cutout", 0.5, 3), ("Rotate", 0.5, 3)],
        [("SamplePairing", 1.0, 3), ("Cutout", 0.1, 0)],
        [("Invert", 0.5, None), ("Identity", 1.0, None)],
        [("Cutout", 0.0, 3), ("Invert", 0.0, None)],
    ])  # fmt: skip
    with pytest.raises(InputError, match=f"operations that {form} has, but got 'Cutout'; .*--drop"):
        convert(PolicyFile(policy), form)
    text, left_out = convert(PolicyFile(policy), form, drop=True)
    assert left_out == {"Cutout": 2, "SamplePairing": 1}
    place = "timm.data.auto_augment" if form == "timm" else form
    pytest.importorskip(place, exc_type=ImportError)
    table = module(text).POLICY
    assert [[(op[0], op[1]) for op in row] for row in table] == [
        [("Rotate", 0.5)], [], [("Invert", 0.5)], [("Invert", 0.0)],
    ]  # fmt: skip
    transform = called(form, module(text).transform)
    for _ in range(20):  # an empty sub-policy changes nothing, and raises nothing
        assert np.asarray(transform(image())).shape == (24, 31, 3)


@pytest.mark.parametrize("form", LIBRARIES)
def test_what_changes_nothing_needs_no_asking(form):
    policy = Policy([[("Cutout", 0.0, 3), ("Identity", 0.7, None), ("Invert", 1.0, None)]])
    assert convert(PolicyFile(policy), form).left_out == {}


@pytest.mark.parametrize("form, augmentation", [
    *itertools.product(LIBRARIES, [
        None, UniformAugment(), ScheduleTransform(Schedule([(0, IMAGENET)], 3))]),
    ("timm", TrivialAugmentWide()), ("torchvision", PolicyTransform(IMAGENET, "tf")),
], ids=str)  # fmt: skip
def test_what_cannot_be_expressed_is_refused(form, augmentation):
    with pytest.raises(InputError, match="can express|paper convention"):
        convert(PolicyFile(augmentation), form, drop=True)


def test_unknown_formats():
    with pytest.raises(InputError, match="did you mean 'torchvision'"):
        convert(PolicyFile(IMAGENET), "torchvison")


def test_an_exported_transform_pickles(tmp_path, monkeypatch):
    """A DataLoader with spawned workers needs that."""
    (tmp_path / "exported_policy.py").write_text(convert(PolicyFile(IMAGENET), "torchvision").text)
    monkeypatch.syspath_prepend(tmp_path)
    import exported_policy

    again = pickle.loads(pickle.dumps(exported_policy.transform))
    torch.manual_seed(3)
    first = np.asarray(exported_policy.transform(image()))
    torch.manual_seed(3)
    assert np.array_equal(first, np.asarray(again(image())))


@pytest.mark.parametrize("form", ["text", "torchvision", "timm", "kornia", "albumentations"])
def test_magnitudes_of_other_bins_are_not_taken_for_the_papers(form):
    policy = RandAugment(1, 9).as_policy()
    assert policy.bins == 31
    with pytest.raises(InputError, match="bins: must be 10 for the paper convention"):
        convert(PolicyFile(policy), form, drop=True)
