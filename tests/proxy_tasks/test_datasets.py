"""Own torch Datasets: every form of image becomes the same bytes, or is refused by name."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from policies.errors import InputError
from proxy_tasks import get_task
from proxy_tasks.datasets import as_image, dataset_pools, open_dataset

from .trees import write_tree

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
GREY = PIXELS[..., 0]


class Pairs(Dataset):
    def __init__(self, images, labels, **facts):
        self.images, self.labels = images, labels
        self.__dict__.update(facts)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


def test_all_forms_of_an_image_are_the_same_bytes():
    planes = torch.from_numpy(PIXELS).permute(2, 0, 1)
    colour = [
        Image.fromarray(PIXELS),
        Image.merge("RGBA", [*Image.fromarray(PIXELS).split(), Image.new("L", (9, 12), 7)]),
        PIXELS,
        PIXELS / 255.0,
        planes,
        v2.functional.to_dtype(planes, torch.float32, scale=True),
        v2.functional.to_dtype(planes, torch.float64, scale=True),
        v2.functional.to_image(Image.fromarray(PIXELS)),
    ]
    for image in colour:
        assert np.array_equal(np.asarray(as_image(image, "train/0")), PIXELS)
    whole = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]] * 3, dtype=torch.bfloat16)
    found = np.asarray(as_image(whole, "train/0"))
    assert found[..., 0].tolist() == [[0, 255], [128, 64]] and found.shape == (2, 2, 3)
    plane = torch.from_numpy(GREY)
    for image in (Image.fromarray(GREY), GREY, GREY[..., None], plane, plane[None], plane / 255):
        found = as_image(image, "train/0")
        assert found.mode == "L" and np.array_equal(np.asarray(found), GREY)


def test_palettes_bits_and_rotated_photographs():
    few = Image.fromarray(PIXELS // 128 * 255)
    palette = few.quantize(8)
    assert np.array_equal(np.asarray(as_image(palette, "x")), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GREY).convert("1")
    assert np.array_equal(np.asarray(as_image(bits, "x")), np.asarray(bits, np.uint8) * 255)
    sideways = Image.fromarray(PIXELS)
    sideways.getexif()[0x0112] = 6  # turned a quarter clockwise to be upright
    assert np.array_equal(np.asarray(as_image(sideways, "x")), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("I;16", (4, 4)), "mode I;16"),
        (Image.new("F", (4, 4)), "mode F"),
        (torch.zeros(4, 5, 5, dtype=torch.uint8), "shape 4x5x5"),
        (torch.zeros(2, 3, 5, 5), "shape 2x3x5x5"),
        (np.zeros((3, 20, 20), np.uint8), "shape 3x20x20"),
        (np.zeros((0, 5), np.uint8), "shape 0x5"),
        (torch.full((3, 5, 5), -0.1), "floats in -0.1..-0.1.*leave Normalize out"),
        (torch.full((3, 5, 5), float("nan")), "floats in nan..nan"),
        (torch.full((3, 5, 5), 255.0), "floats in 255"),
        (torch.zeros(3, 5, 5, dtype=torch.int64), "int64 values"),
        ("cat.jpg", "str.*return a PIL image"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_image_of_8_bits_is_refused(image, words):
    with pytest.raises(InputError, match=f"^validation/7: must be an image.*{words}"):
        as_image(image, "validation/7")


def test_labels_and_names():
    images = [Image.new("L", (8, 8), value) for value in range(4)]
    names, source = open_dataset(Pairs(images, [0, 2, 1, 2]), "train")
    assert names == ("0", "1", "2") and source.labels.tolist() == [0, 2, 1, 2]
    labels = torch.tensor([0, 2, 1, 2])
    names, source = open_dataset(Pairs(images, labels, classes=["a", "b", "c"]), "train")
    assert names == ("a", "b", "c") and source.labels.tolist() == [0, 2, 1, 2]
    names, _ = open_dataset(Pairs(images, labels, classes=3), "train")  # their number says nothing
    assert names == ("0", "1", "2")
    names, _ = open_dataset(Pairs(images, labels), "train", ("x", "y", "z"))
    assert names == ("x", "y", "z")
    assert source.labels.dtype == np.int64 and source.name(3) == "train/3"


def test_labels_are_taken_from_targets_and_not_by_reading_everything():
    read = []

    class Costly(Pairs):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    images = [Image.new("L", (8, 8), value) for value in range(50)]
    labels = [i % 2 for i in range(50)]
    _, source = open_dataset(Costly(images, labels, targets=labels), "train")
    assert source.labels.tolist() == labels and len(set(read)) <= 3
    # A subset passes attributes on in no form: its own items count, not the whole set's targets.
    _, part = open_dataset(Subset(Costly(images, labels, targets=labels), [3, 5, 7]), "train")
    assert part.labels.tolist() == [1, 1, 1]


def test_targets_are_not_taken_for_labels_that_a_transform_has_changed():
    images = [Image.new("L", (8, 8), value) for value in range(6)]
    halved = Pairs(images, [i // 2 for i in range(6)], targets=list(range(6)),
                   target_transform=lambda label: label // 2)  # fmt: skip
    assert open_dataset(halved, "train")[1].labels.tolist() == [0, 0, 1, 1, 2, 2]
    swapped = Pairs(images, [1, 0] * 3, targets=[0, 1] * 3, classes=["cat", "dog"],
                    target_transform=lambda label: 1 - label)  # fmt: skip
    assert open_dataset(swapped, "train")[0] == ("0", "1"), "no names are those of other labels"


def test_targets_that_are_no_numbers_of_classes_are_not_taken():
    images = [Image.new("L", (8, 8), value) for value in range(4)]
    for targets in (["cat", "dog"] * 2, 2, [0, 1]):
        _, source = open_dataset(Pairs(images, [0, 1] * 2, targets=targets), "train")
        assert source.labels.tolist() == [0, 1, 0, 1]


def test_targets_of_a_table_are_taken_by_their_places():
    images = [Image.new("L", (8, 8), value) for value in range(4)]
    series = pd.Series([0, 1, 2, 1], index=range(100, 104))
    for targets in (series, series.to_numpy(), torch.tensor(series.to_numpy())):
        _, source = open_dataset(Pairs(images, [0, 1, 2, 1], targets=targets), "train")
        assert source.labels.tolist() == [0, 1, 2, 1]


def test_a_label_that_is_not_its_target_is_refused_where_it_is_read():
    """Three items tell most regroupings; reading tells all."""
    images = [Image.new("L", (8, 8), value) for value in range(40)]
    targets = [i // 10 for i in range(40)]
    merged = Pairs(images, [0 if i == 1 else i for i in targets], targets=targets)
    sizes = {"train_images": 8, "validation_images": 8, "test_images": 8}
    with pytest.raises(InputError, match="train.targets: must be the labels of the items, but got "
                       "'1, where train/1. has 0'"):  # fmt: skip
        get_task.from_datasets(merged, **sizes)


def test_targets_are_not_taken_for_labels_that_items_do_not_have():
    """As where a subclass of ImageFolder regroups its classes."""
    images = [Image.new("L", (8, 8), value) for value in range(6)]
    classes = [*"abcdef"]
    halved = Pairs(images, [i // 2 for i in range(6)], targets=list(range(6)), classes=classes)
    names, source = open_dataset(halved, "train")
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2] and names == ("0", "1", "2")
    given, _ = open_dataset(halved, "train", ["x", "y", "z"])
    assert given == ("x", "y", "z")
    pools = dataset_pools(halved, test=halved)
    assert pools.class_names == ("0", "1", "2")


def test_a_subset_has_the_classes_of_the_whole_sets_beside_it():
    images = [Image.new("L", (8, 8), value) for value in range(6)]
    whole = Pairs(images, [0, 1] * 3, classes=["cat", "dog"])
    assert dataset_pools(Subset(whole, [0, 1, 2]), test=whole).class_names == ("cat", "dog")
    assert dataset_pools(Subset(whole, [0, 1]), Subset(whole, [2, 3])).class_names == ("0", "1")
    with pytest.raises(InputError, match="must have the classes of train"):
        dataset_pools(whole, test=Pairs(images, [0, 1] * 3, classes=["dog", "cat"]))


class Damaged(Pairs):
    def __getitem__(self, index):
        if index == 7:
            raise self.error
        return super().__getitem__(index)


def test_an_image_that_cannot_be_read_is_left_out_and_named():
    images = [Image.new("L", (8, 8), value % 250) for value in range(300)]
    labels = [i % 2 for i in range(300)]
    damaged = Damaged(images, labels, targets=labels, error=OSError("image file is truncated"))
    task = get_task.from_datasets(damaged, train_images=100, validation_images=90, test_images=90)
    assert any("skipped 1 of" in note and "train/7 (OSError" in note for note in task.notes)
    cut = OSError("image file is truncated")  # whose label nobody knows
    for error, fact in ((KeyError("x"), {"targets": labels}), (KeyError("x"), {}), (cut, {})):
        with pytest.raises(InputError, match="train/7: must be readable"):
            get_task.from_datasets(
                Damaged(images, labels, error=error, **fact),
                train_images=100, validation_images=90, test_images=90,
            )  # fmt: skip


def test_so_is_one_that_is_read_only_when_it_is_looked_at(tmp_path):
    """As where `__getitem__` returns what Image.open gives."""
    for index in range(300):
        Image.fromarray(np.full((8, 8), index % 250, np.uint8)).save(tmp_path / f"{index}.png")
    whole = (tmp_path / "7.png").read_bytes()
    (tmp_path / "7.png").write_bytes(whole[:-30])

    class Opened(Pairs):
        def __getitem__(self, index):
            return Image.open(tmp_path / f"{index}.png"), self.labels[index]

    labels = [i % 2 for i in range(300)]
    opened = Opened(range(300), labels, targets=labels)
    task = get_task.from_datasets(opened, train_images=100, validation_images=90, test_images=90)
    assert any("skipped 1 of" in note and "train/7 (" in note for note in task.notes)


def test_random_flips_are_seen():
    rng = random.Random(0)

    class Flipping(Pairs):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                    if rng.random() < 0.5 else image), label  # fmt: skip

    images = [Image.fromarray(PIXELS)] * 9
    seen = 0
    for _ in range(200):
        try:
            open_dataset(Flipping(images, [0, 1, 0] * 3, targets=[0, 1, 0] * 3), "train")
        except InputError:
            seen += 1
    assert seen >= 197  # of 200 that are, 0.4 go unseen


def test_torchvision_and_tensor_data_sets(tmp_path):
    folder = ImageFolder(str(write_tree(tmp_path, {"train": 2}) / "train"))
    names, source = open_dataset(folder, "train")
    assert names == ("class0", "class1", "class2") and source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    decoded = source.read(3, 16)
    assert decoded.pixels.shape == (16, 16, 3) and decoded.coloured
    tensors = TensorDataset(
        torch.zeros(4, 1, 20, 30, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    )
    decoded = open_dataset(tensors, "train")[1].read(0, 16)
    assert decoded.pixels.shape == (16, 16) and not decoded.coloured


def test_content_is_that_of_the_pixels_and_their_shape():
    wide = np.arange(64, dtype=np.uint8).reshape(4, 16)
    images = [wide, wide.reshape(16, 4), Image.fromarray(wide), wide + 1]
    _, source = open_dataset(Pairs(images, [0, 0, 1, 1]), "train")
    ids = [source.read(i, 8).content for i in range(4)]
    assert ids[0] == ids[2] and len(set(ids)) == 3


class Random(Pairs):
    def __getitem__(self, index):
        return torch.rand(3, 8, 8), 0


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (iter([]), "must be a map-style torch Dataset"),
        (Pairs([], []), "must hold images"),
        (Random(range(5), range(5)), "same image every time.*leave random transforms out"),
        (Pairs([GREY], ["cat"]), "labels must be whole numbers, but got .*'cat' at train/0"),
        (Pairs([GREY], [0.5]), "labels must be whole numbers"),
        (Pairs([GREY, GREY], [0, -1]), r"labels must be in 0\.\.0, .*-1"),
        (Pairs([GREY, GREY], [0, 3], classes=["a", "b"]), r"in 0\.\.1, the classes are a, b"),
        ([GREY], "items must be an .image, label. pair"),
    ],
)  # fmt: skip
def test_data_sets_that_cannot_be_used(dataset, words):
    with pytest.raises(InputError, match=f"train: .*{words}"):
        open_dataset(dataset, "train")
