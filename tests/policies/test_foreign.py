"""Tables of other libraries: what comes in means what it meant there."""

from __future__ import annotations

import pytest
from torchvision.transforms import v2

from policies import (
    CIFAR10,
    IMAGENET,
    PUBLISHED,
    InputError,
    Policy,
    PolicyFile,
    PolicyTransform,
    convert,
    read_table,
)
from policies.ops import get_convention
from tests.policies.test_formats import POLICIES, image, ours, theirs


def test_torchvisions_own_tables_are_the_published_policies():
    for name, policy in PUBLISHED.items():
        rows = v2.AutoAugment(v2.AutoAugmentPolicy[name.upper()])._policies
        assert read_table(rows, "torchvision").file.policy == policy
        assert read_table(repr(rows), "torchvision").file == PolicyFile(policy)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_what_was_exported_comes_back(source):
    """The three published policies and 200 random ones; Identity is not written."""
    for policy in POLICIES:
        text = convert(PolicyFile(policy), source).text
        back = read_table(text, source, convention="paper")
        assert (back.left_out, back.rounded) == ({}, 0)
        for row, kept in zip(policy, back.file.policy, strict=True):
            assert [op[:2] for op in row] == [op[:2] for op in kept]
            for op, found in zip(row, kept, strict=True):
                want, got = (
                    get_convention("paper").parameter(op.name, magnitude, True, 224, 224)
                    for magnitude in (op.magnitude, found.magnitude)
                )
                assert want == got  # bits are those of several indices
        if source == "torchvision":
            assert back.file.policy == policy


@pytest.mark.parametrize("fill", [128, (10, 20, 30)])
@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_fill_comes_back_too(source, fill):
    text = convert(PolicyFile(PolicyTransform(IMAGENET, fill=fill)), source).text
    assert read_table(text, source, convention="paper").file.augmentation.fill == fill
    plain = convert(PolicyFile(IMAGENET), source).text
    assert getattr(read_table(plain, source, convention="paper").file.augmentation, "fill", 0) == 0


@pytest.fixture(scope="module")
def auto_augment():
    return pytest.importorskip("timm.data.auto_augment")


def test_timms_original_policy_is_the_published_one_in_its_convention(auto_augment):
    """As declared by timm's own objects; then by pixels."""
    hparams = {"interpolation": 0, "img_mean": (0, 0, 0), "translate_pct": 0.45}
    made = auto_augment.auto_augment_policy_original(hparams)
    table = [[(op.name, op.prob, op.magnitude) for op in row] for row in made]
    read = read_table(table, "timm")
    assert (read.left_out, read.rounded, read.file.convention) == ({}, 0, "timm")
    assert [[op[:2] for op in row] for row in read.file.policy] == [
        [op[:2] for op in row] for row in IMAGENET
    ]
    for row, call in zip(read.file.policy, made, strict=True):
        for op in call:
            op.prob = 1.0
        sure = Policy([[(n, 1.0, m) for n, _, m in row]])
        found = theirs(auto_augment.AutoAugment([call]), image(), 6)
        assert found <= ours(PolicyTransform(sure, "timm"), image()), row


def test_timms_levels_are_its_own_arguments(auto_augment):
    """Every operation and level against timm's functions, signs aside; or no equal in this one."""
    hparams = {"translate_const": 250, "translate_pct": 0.45}
    carried = 0
    for name, argument in auto_augment.LEVEL_TO_ARG.items():
        for level in range(11):
            for convention in ("timm", "paper"):
                try:
                    read = read_table([[(name, 0.5, level)]], "timm", convention=convention)
                except InputError as error:
                    assert name in str(error)
                    continue
                ((op,),) = read.file.policy
                carried += 1
                if argument is None:
                    assert op == (name, 0.5, None)
                    continue
                (wanted,) = argument(level, hparams)
                if "Translate" in name:
                    scale = get_convention(convention).scale(op.name)
                    got = op.magnitude / get_convention(convention).steps * scale.high
                else:
                    got = get_convention(convention).parameter(op.name, op.magnitude, False, 1, 1)
                if name.endswith("Increasing") and name[:4] not in ("Sola", "Post"):
                    wanted, got = abs(wanted - 1), abs(got - 1)
                if op.name == "Solarize":
                    got = -(-got // 1)
                assert abs(wanted) == pytest.approx(abs(got), abs=1e-6), (name, level, convention)
    assert carried > 150


def by_fast_autoaugment(name: str, level: float) -> float:
    """The argument's size: level * (high - low) + low of its table of ranges."""
    low, high = {
        "ShearX": (-0.3, 0.3), "TranslateY": (-0.45, 0.45), "Rotate": (-30, 30),
        "Solarize": (0, 256), "Posterize": (4, 8), "Color": (0.1, 1.9),
    }[name]  # fmt: skip
    value = level * (high - low) + low
    return abs(int(value) if name == "Posterize" else value)


@pytest.mark.parametrize("name", ["ShearX", "TranslateY", "Rotate", "Solarize", "Posterize",
                                  "Color"])  # fmt: skip
def test_fast_autoaugments_levels(name):
    convention = get_convention("timm")
    scale = convention.scale(name)
    for level in (0.0, 0.05, 0.3, 0.5, 0.77, 0.9, 0.95):
        row = [[[name, 0.25, level]], [["Invert", 1.0, level]]]
        read = read_table(row, "fast-autoaugment", nearest=True)
        ((op,), (other,)) = read.file.policy
        assert other == ("Invert", 1.0, None) and op[:2] == (name, 0.25)
        if name == "TranslateY":
            found = op.magnitude / 10 * 0.45
        else:
            found = convention.parameter(name, op.magnitude, False, 1, 1)
        off = abs(found - by_fast_autoaugment(name, level)) / abs(scale.high - scale.low)
        assert off <= 0.051 if level not in (0.0, 0.95) else off <= 0.101
        assert read.furthest == pytest.approx(off, abs=5e-3)
        assert read.rounded == (read.furthest > 0)


def test_dada_means_by_its_genotypes_what_fast_autoaugment_does():
    """Its code applies them alike; theirs is one list of pairs, with probabilities of any size."""
    text = "[[('ShearX', 0.5183, 0.5752), ('Cutout', 0.31, 0.5)], [('Posterize', 1.0, 0.0379)]]"
    read = read_table(text, "dada", nearest=True, drop=True)
    assert read == read_table(text, "fast-autoaugment", nearest=True, drop=True)
    assert read.left_out == {"Cutout": 1} and read.file.policy[0][0].probability == 0.5183


def test_what_has_no_equal_is_refused_or_asked_for_and_counted():
    table = [
        [["Rotate", 0.5, 0.77], ["Cutout", 0.4, 0.3]],
        [["Cutout", 0.2, 0.1], ["Cutout", 0.0, 0.1]],
    ]
    with pytest.raises(InputError, match=r"policy\[0\]\[0\]: must have an equal magnitude.*neares"):
        read_table(table, "fast-autoaugment")
    with pytest.raises(InputError, match=r"policy\[0\]\[1\]: .* 'Cutout of fast-autoaugment'"):
        read_table(table, "fast-autoaugment", nearest=True)
    read = read_table(table, "fast-autoaugment", nearest=True, drop=True)
    assert read.left_out == {"Cutout": 2} and read.rounded == 1
    assert read.file.policy == ((("Rotate", 0.5, 5),), (("Identity", 1.0, None),))


@pytest.mark.parametrize("name, convention", [("ColorIncreasing", "timm"), ("Color", "paper")])
def test_a_factor_with_a_random_sign_is_not_one_without(name, convention):
    with pytest.raises(InputError, match=f"that the {convention} convention has, but got '{name}"):
        read_table([[(name, 0.5, 5)]], "timm", convention=convention, nearest=True)


@pytest.mark.parametrize("table, words", [
    ("[[('Rotate', 2, 3)]]", "probability"),
    ("[[('Rotate', 0.5)]]", "must be a triple"),
    ("[[('Rotate', 0.5, 'x')]]", "must be a number"),
    ("[[('Rotate', 0.5, None)]]", "must be given for Rotate"),
    ("__import__('os').system('true')", "must be a list of tuples of literals"),
    ("POLICY = open('x')", "a module with such a list as POLICY"),
    ("5", r"policy\[0\]: must be a list of triples"),
    ("[5]", r"policy\[0\]: must be a list of triples"),
    ([[("Rotate", 0.5, 10**400)]], "level: must be a number"),
    ([[("Rotate", 0.5, float("inf"))]], "level: must be a number"),
    ("POLICY = [[('Rotate', 0.5, 3)]]\nAutoAugment(fill=(M, M, M))", "fill: must be written out"),
    ("POLICY = [[('Rotate', 0.5, 3)]]\nAutoAugment(fill=GREY)", "fill: must be written out"),
    ("POLICY = [[('Rotate', 0.5, 3)]]\nAutoAugment(fill=-1)", "fill: must be an integer in 0..255"),
])  # fmt: skip
def test_malformed_tables(table, words):
    with pytest.raises(InputError, match=words):
        read_table(table, "timm", nearest=True)


def test_subpolicies_from_which_all_is_left_out_come_back():
    policy = Policy([[("Cutout", 1.0, 3)], [("Rotate", 0.5, 3)]])
    text, left_out = convert(PolicyFile(policy), "timm", drop=True)
    read = read_table(text, "timm", convention="paper")
    assert sum(left_out.values()) == 1 and not read.left_out
    assert read.file.policy == ((("Identity", 1.0, None),), (("Rotate", 0.5, 3),))


@pytest.mark.parametrize("said, fill", [
    ("fill", 0), ("self.fill", 0), ("[7, 7, 7]", 7), ("(7, 7, 7)", 7), ("[7, 8, 9]", (7, 8, 9)),
])  # fmt: skip
def test_a_fill_is_what_the_module_writes(said, fill):
    """`fill=fill` only passes one on, as in a library's own code, and says none."""
    module = f"POLICY = [[('Rotate', 0.5, 3)]]\nrotate(picture, 30, fill={said})"
    read = read_table(module, "torchvision")
    assert getattr(read.file.augmentation, "fill", 0) == fill


def test_no_fill_is_black():
    read = read_table("POLICY = [[('Rotate', 0.5, 3)]]\nAutoAugment(fill=None)", "torchvision")
    assert read.file == PolicyFile(Policy([[("Rotate", 0.5, 3)]]))


def test_names():
    with pytest.raises(InputError, match="did you mean 'torchvision'"):
        read_table([], "torchvison")
    with pytest.raises(InputError, match="must be paper for torchvision"):
        read_table(list(CIFAR10), "torchvision", convention="timm")
