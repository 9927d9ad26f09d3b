"""Draws: disjoint, stratified, the same everywhere, and clear words for wrong input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from policies import InputError
from policies.images import fit
from proxy_tasks import get_task
from proxy_tasks.embedded.make_fashion import CLASSES, COUNTS
from tests.proxy_tasks.trees import write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), {"train": 20, "test": 6})


@pytest.fixture(scope="module")
def train_only(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("train_only"), {"train": 20})


def files(task, part):
    return set(task.manifest.parts[part].files)


class TestDraw:
    @given(
        seed=st.integers(0, 2**31), train=st.integers(3, 30), validation=st.integers(3, 15),
        test=st.integers(3, 15),
    )  # fmt: skip
    @pytest.mark.long
    def test_parts_are_disjoint_and_stratified(self, train_only, seed, train, validation, test):
        task = get_task(
            "folder",
            train_only,
            seed=seed,
            train_images=train,
            validation_images=validation,
            test_images=test,
            resolution=8,
        )
        parts = {"train": train, "validation": validation, "test": test}
        assert len(set.union(*(files(task, p) for p in parts))) == sum(parts.values())
        for part, count in parts.items():
            images = getattr(task, part)
            assert len(images) == count and images.images.shape == (count, 3, 8, 8)
            per_class = Counter(images.labels.tolist())
            assert max(per_class.values()) - min(per_class.get(k, 0) for k in range(3)) <= 1

    def test_the_seed_decides_the_files_of_every_part(self, train_only):
        drawn = [
            get_task("folder", train_only, seed=seed, train_images=9, resolution=8)
            for seed in (0, 0, 1)
        ]
        for part in ("train", "validation", "test"):
            first, again, other = (files(task, part) for task in drawn)
            assert first == again != other

    def test_classes_are_drawn_independently(self, train_only):
        """Files are numbered alike in every class; the numbers drawn are not."""
        task = get_task("folder", train_only, train_images=30, resolution=8)
        numbers = [
            {f.split("/")[2] for f in files(task, "train") if f"/class{k}/" in f} for k in range(3)
        ]
        assert numbers[0] != numbers[1] != numbers[2]

    def test_labels_belong_to_files(self, tree):
        task = get_task("folder", tree)
        for part in ("train", "validation", "test"):
            for name, label, _ in task.manifest.parts[part]:
                assert f"/class{label}/" in name

    def test_pixels_belong_to_files(self, tree):
        task = get_task("folder", tree, resolution=20)
        for row, pixels in zip(task.manifest.parts["test"], task.test.images, strict=True):
            with Image.open(tree / row[0]) as image:
                assert np.array_equal(np.asarray(fit(image, 20)).transpose(2, 0, 1), pixels)

    def test_official_test_images_stay_the_test_part(self, tree):
        task = get_task("folder", tree)
        assert {f.split("/")[0] for f in files(task, "test")} == {"test"}
        assert {f.split("/")[0] for f in files(task, "validation")} == {"train"}
        assert len(task.test) == 18  # all there are

    def test_val_and_test_folders_are_both_used(self, tmp_path):
        root = write_tree(tmp_path, {"train": 6, "val": 4, "test": 5})
        task = get_task("folder", root)
        assert {f.split("/")[0] for f in files(task, "validation")} == {"val"}
        assert {f.split("/")[0] for f in files(task, "test")} == {"test"}

    def test_arrays_cannot_be_written(self, tree):
        with pytest.raises(ValueError, match="read-only"):
            get_task("folder", tree).train.images[0] = 0

    def test_grey_tree_has_one_channel_and_mixed_tree_three(self, tmp_path):
        root = write_tree(tmp_path, {"train": 9}, mode="L")
        assert get_task("folder", root, resolution=8).train.images.shape[1] == 1
        Image.new("RGB", (9, 9), (255, 0, 0)).save(root / "train" / "class0" / "0.png")
        task = get_task("folder", root, resolution=8, train_images=21, validation_images=3,
                        test_images=3)  # fmt: skip
        assert task.train.images.shape[1] == 3
        # A greyscale image has three equal channels.
        grey = [i for i, row in enumerate(task.manifest.parts["train"]) if "/1.png" in row[0]]
        assert grey and (np.ptp(task.train.images[grey], axis=1) == 0).all()


class TestManifest:
    @pytest.mark.long
    def test_hash_is_stable_across_processes_and_hash_seeds(self, tree):
        code = (
            "import sys; from proxy_tasks import get_task; "
            "print(get_task('folder', sys.argv[1], seed=3, train_images=9).manifest_hash)"
        )
        other = str(1 + int(os.environ.get("PYTHONHASHSEED", "0").replace("random", "0")))
        there = subprocess.run(
            [sys.executable, "-c", code, str(tree)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": other},
        ).stdout.strip()
        assert there == get_task("folder", tree, seed=3, train_images=9).manifest_hash

    def test_hash_does_not_depend_on_the_place(self, tree, tmp_path):
        copy = tmp_path / "elsewhere"
        for name in sorted(tree.rglob("*.png"), reverse=True):
            target = copy / name.relative_to(tree)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, target)
        assert get_task("folder", copy).manifest_hash == get_task("folder", tree).manifest_hash

    def test_file_system_order_is_ignored(self, tree, monkeypatch):
        before = get_task("folder", tree).manifest_hash
        walk = os.walk

        def backwards(*arguments, **options):
            for where, folders, names in walk(*arguments, **options):
                yield where, folders, sorted(names, reverse=True)

        monkeypatch.setattr(os, "walk", backwards)
        assert get_task("folder", tree).manifest_hash == before

    @pytest.mark.parametrize(
        "change", [{"seed": 1}, {"train_images": 12}, {"resolution": 16}, {"flip": False}]
    )
    def test_hash_changes_with_everything_that_matters(self, tree, change):
        assert (
            get_task("folder", tree, **change).manifest_hash
            != get_task("folder", tree).manifest_hash
        )

    def test_hash_changes_with_the_content_of_a_file(self, tree, tmp_path):
        shutil.copytree(tree, tmp_path / "tree")
        Image.new("RGB", (20, 20)).save(tmp_path / "tree" / "test" / "class0" / "0.png")
        changed = get_task("folder", tmp_path / "tree").manifest_hash
        assert changed != get_task("folder", tree).manifest_hash

    @pytest.mark.parametrize("flip", ["no", 0])
    def test_a_flip_that_only_looks_like_no_is_refused(self, tree, flip):
        with pytest.raises(InputError, match="flip: must be True, False or None"):
            get_task("folder", tree, flip=flip)

    def test_no_absolute_path(self, tree):
        assert str(tree) not in get_task("folder", tree).manifest.dumps()


class TestEmbedded:
    def test_fashion_counts_and_balance(self):
        task = get_task("reduced-fashion")
        for part, (_, _, count) in COUNTS.items():
            images = getattr(task, part)
            assert images.images.shape == (count, 1, 28, 28)
            assert set(Counter(images.labels.tolist()).values()) == {count // CLASSES}

    def test_fashion_parts_are_disjoint(self):
        task = get_task("reduced-fashion")
        assert not files(task, "train") & files(task, "validation")
        assert all(name.startswith("t10k/") for name in files(task, "test"))

    @pytest.mark.long
    def test_fashion_looks_like_fashion(self):
        # Mean images tell trousers from bags: a nearest-mean classifier is right far more often
        # than chance (0.1), which no wrong labelling or layout would be.
        task = get_task("reduced-fashion")
        x = task.train.images.reshape(4000, -1).astype(float)
        means = np.stack([x[task.train.labels == k].mean(0) for k in range(10)])
        test = task.test.images.reshape(2000, -1)
        guess = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
        assert (guess == task.test.labels).mean() > 0.6

    def test_smaller_draw(self):
        task = get_task("reduced-fashion", train_images=500, validation_images=100, seed=4)
        assert (len(task.train), len(task.validation), len(task.test)) == (500, 100, 2000)

    def test_licence_lies_beside_the_data(self):
        from pathlib import Path

        import proxy_tasks

        folder = Path(proxy_tasks.__file__).parent / "embedded"
        assert "MIT License" in (folder / "reduced-fashion.LICENSE").read_text()
        assert (folder / "reduced-fashion.npz").stat().st_size < 5e6


class TestTorchvision:
    def test_cifar10_root(self, tmp_path, monkeypatch):
        import torchvision.datasets

        class Fake:
            classes = [f"c{k}" for k in range(10)]

            def __init__(self, root, train, download):
                assert download is False
                count = 10_000 if train else 500
                rng = np.random.default_rng(train)
                self.data = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
                self.targets = (np.arange(count) % 10).tolist()

        monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
        task = get_task("reduced-cifar10", tmp_path)
        assert [len(task.train), len(task.validation), len(task.test)] == [4000, 5000, 500]
        name, label, _ = list(task.manifest.parts["train"])[7]
        official = Fake(None, True, False).data[int(name.split("/")[1])]
        assert np.array_equal(task.train.images[7], official.transpose(2, 0, 1))
        assert label == int(name.split("/")[1]) % 10 == task.train.labels[7]

    @pytest.mark.long
    def test_svhn_is_never_flipped(self, tmp_path, monkeypatch):
        import torchvision.datasets

        class Fake:
            def __init__(self, root, split, download):
                assert download is False
                rng = np.random.default_rng(len(split))
                self.data = rng.integers(0, 256, (7000, 3, 32, 32), np.uint8)
                self.labels = np.arange(7000) % 10

        monkeypatch.setattr(torchvision.datasets, "SVHN", Fake)
        task = get_task("reduced-svhn", tmp_path)
        assert len(task.train) == 1000 and not task.flip and task.manifest.flip is False
        assert get_task("reduced-fashion").flip

    @pytest.mark.parametrize("name", ["reduced-cifar10", "reduced-svhn"])
    def test_nothing_is_downloaded(self, name, tmp_path):
        with pytest.raises(InputError, match="nothing is downloaded"):
            get_task(name, tmp_path)


class TestWrongInput:
    def test_unknown_task(self):
        with pytest.raises(InputError, match="did you mean 'reduced-imagenet'"):
            get_task("reduced-imagnet", "/")

    def test_missing_data(self):
        with pytest.raises(InputError, match="is needed by folder"):
            get_task("folder")

    def test_data_where_none_is_used(self, tmp_path):
        with pytest.raises(InputError, match="leave it out"):
            get_task("reduced-fashion", tmp_path)

    def test_path_that_does_not_exist(self, tmp_path):
        with pytest.raises(InputError, match="must be an existing folder"):
            get_task("folder", tmp_path / "nowhere")

    def test_empty_folder(self, tmp_path):
        with pytest.raises(InputError, match="without train/"):
            get_task("folder", tmp_path)

    def test_train_without_classes(self, tmp_path):
        (tmp_path / "train").mkdir()
        with pytest.raises(InputError, match="one folder per class"):
            get_task("folder", tmp_path)

    def test_train_without_images(self, tmp_path):
        for name in "ab":
            (tmp_path / "train" / name).mkdir(parents=True)
            (tmp_path / "train" / name / "notes.txt").write_text("no image")
        with pytest.raises(InputError, match="must hold images"):
            get_task("folder", tmp_path)

    def test_class_missing_from_test(self, tree, tmp_path):
        shutil.copytree(tree, tmp_path / "tree")
        shutil.rmtree(tmp_path / "tree" / "test" / "class1")
        with pytest.raises(InputError, match="no folder test/class1"):
            get_task("folder", tmp_path / "tree")

    def test_class_with_too_few_images(self, tree):
        # 20 a class, 4 of which (20 %) are held out for validation.
        with pytest.raises(InputError, match=r"17 images of class .*use at most .*48"):
            get_task("folder", tree, train_images=51)

    def test_fewer_images_than_classes(self, tree):
        with pytest.raises(InputError, match="at least the number of classes"):
            get_task("folder", tree, train_images=2)

    @pytest.mark.parametrize("count", [0, -3])
    def test_no_images_asked_for(self, tree, count):
        with pytest.raises(InputError, match="at least 1"):
            get_task("folder", tree, train_images=count)

    @pytest.mark.parametrize("seed", [-1, 0.5, "0"])
    def test_seed(self, tree, seed):
        with pytest.raises(InputError, match="seed: must be at least 0, an integer"):
            get_task("folder", tree, seed=seed)

    @pytest.mark.parametrize("resolution", [0, 7, 5000, 16.5])
    def test_resolution(self, tree, resolution):
        with pytest.raises(InputError, match="resolution"):
            get_task("folder", tree, resolution=resolution)

    def test_imagenet_tree_with_few_classes(self, tree, tmp_path):
        with pytest.raises(InputError, match="without val/"):
            get_task("reduced-imagenet", tree)
        root = write_tree(tmp_path, {"train": 2, "val": 2})
        with pytest.raises(InputError, match="needs 120 classes"):
            get_task("reduced-imagenet", root)


class TestUnreadable:
    def damaged(self, tmp_path, bad: int):
        """300 images, `bad` of which are truncated."""
        root = write_tree(tmp_path / f"{bad}", {"train": 100}, side=16)
        for i in range(bad):
            path = root / "train" / "class1" / f"{i}.png"
            path.write_bytes(path.read_bytes()[:100])
        return root

    def test_up_to_one_percent_is_skipped_and_named(self, tmp_path):
        root = self.damaged(tmp_path, 3)
        task = get_task("folder", root, resolution=16)
        assert any("skipped 3 of 300" in note for note in task.notes)
        assert sorted(task.manifest.skipped) == [f"train/class1/{i}.png" for i in range(3)]
        assert len(task.train) + len(task.validation) + len(task.test) == 297
        assert not set(task.manifest.skipped) & files(task, "train")

    def test_truncated_jpeg(self, tmp_path):
        root = self.damaged(tmp_path, 0)
        path = root / "train" / "class0" / "0.png"
        photo = path.with_suffix(".JPEG")
        with Image.open(path) as image:
            image.save(photo)
        path.unlink()
        photo.write_bytes(photo.read_bytes()[:-200])
        (note,) = get_task("folder", root, resolution=16).notes
        assert "train/class0/0.JPEG" in note

    def test_a_file_that_cannot_be_opened_is_unreadable(self, tmp_path):
        root = self.damaged(tmp_path, 0)
        path = root / "train" / "class0" / "0.png"
        path.unlink()
        path.symlink_to(tmp_path / "nowhere")
        (note,) = get_task("folder", root, resolution=16).notes
        assert "train/class0/0.png (No such file" in note

    def test_more_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"4 of 300.*train/class1/\d\.png"):
            get_task("folder", self.damaged(tmp_path, 4), resolution=16)

    def test_a_part_without_any_readable_image_is_refused(self, tmp_path):
        """3 of 315: few enough to skip, but they are all there are of the test part."""
        root = write_tree(tmp_path, {"train": 130, "test": 1}, side=16)
        for path in (root / "test").rglob("*.png"):
            path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(InputError, match="the test part"):
            get_task("folder", root, resolution=16)

    def test_sixteen_bit_images_are_refused_not_clipped(self, tmp_path):
        root = write_tree(tmp_path, {"train": 9})
        deep = np.full((20, 20), 40_000, np.uint16)
        Image.fromarray(deep).save(root / "train" / "class0" / "0.png")
        with pytest.raises(InputError, match="not 8 bits"):
            get_task("folder", root, train_images=20, validation_images=3, test_images=3)


class TestFit:
    @given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 40))
    def test_size_is_always_square(self, width, height, resolution):
        assert fit(Image.new("RGB", (width, height)), resolution).size == (resolution,) * 2

    def test_centre_is_kept(self):
        pixels = np.zeros((16, 48), np.uint8)
        pixels[:, 16:32] = 200
        assert (np.asarray(fit(Image.fromarray(pixels), 16)) == 200).all()

    def test_shrinking_is_antialiased(self):
        # A one-pixel checkerboard becomes its mean, not black or white.
        board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
        shrunk = np.asarray(fit(Image.fromarray(board), 16)).astype(int)
        assert abs(shrunk - 127).max() <= 20


@pytest.mark.long
class TestRealPhotographs:
    def test_reduced_imagenet(self, test_data):
        task = get_task("reduced-imagenet", test_data / "imagenet-64", seed=1)
        assert task.train.images.shape == (6000, 3, 32, 32) and task.num_classes == 120
        assert set(Counter(task.train.labels.tolist()).values()) == {50}
        assert not files(task, "train") & files(task, "validation")
        assert all(name.startswith("val/") for name in files(task, "test"))
        # Some of the drawn photographs are greyscale JPEGs: three equal channels.
        grey = (np.ptp(task.train.images, axis=1) == 0).all((1, 2))
        assert 0 < grey.sum() < 600

    def test_classes_are_drawn_by_seed(self, test_data):
        small = dict(train_images=120, validation_images=120, test_images=120)
        names = [
            get_task("reduced-imagenet", test_data / "imagenet-64", seed=s, **small).class_names
            for s in (0, 0, 1)
        ]
        assert names[0] == names[1] != names[2]
        assert all(len(set(n)) == 120 and list(n) == sorted(n) for n in names)

    def test_reduced_cifar10_from_a_folder(self, test_data):
        task = get_task("reduced-cifar10", test_data / "cifar-10")
        assert (len(task.train), len(task.validation), len(task.test)) == (4000, 5000, 4000)
