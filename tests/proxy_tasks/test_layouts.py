"""Folders and files as people have them: used, or named as not used."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from policies import InputError
from proxy_tasks import get_task, sources
from proxy_tasks.manifest import Manifest
from proxy_tasks.sources import list_images, printable
from tests.proxy_tasks.trees import write_tree

TINY = dict(resolution=8)


def picture(path: Path, seed: int, form: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path, form)


def tops(task, part: str) -> set[str]:
    return {name.split("/")[0] for name in task.manifest.parts[part].files}


def said(task, *words: str) -> bool:
    return any(all(word in note for word in words) for note in task.notes)


class TestParts:
    @pytest.mark.parametrize("name", ["val", "valid", "validation", "Valid", "VAL"])
    def test_every_name_of_a_validation_part_is_used(self, tmp_path, name):
        root = write_tree(tmp_path, {"train": 6, name: 4, "test": 5})
        task = get_task("folder", root, **TINY)
        assert tops(task, "validation") == {name} and tops(task, "test") == {"test"}
        assert tops(task, "train") == {"train"} and task.notes == ()

    def test_training_and_testing_are_parts_too(self, tmp_path):
        """Not two classes, to be told apart."""
        task = get_task("folder", write_tree(tmp_path, {"Training": 9, "Testing": 4}), **TINY)
        assert task.class_names == ("class0", "class1", "class2") and task.notes == ()
        assert tops(task, "train") == {"Training"} and tops(task, "test") == {"Testing"}

    @pytest.mark.parametrize("part", ["train", ""])
    def test_images_beside_the_classes_are_named(self, tmp_path, part):
        root = write_tree(tmp_path, {part or ".": 9})
        for i in range(3):
            picture(root / part / f"{i}.png", i)
        where = "train/" if part else "the folder"
        assert said(get_task("folder", root, **TINY), f"3 images lie in {where} itself, in no")

    @pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
    def test_the_only_part_held_out_is_the_test_part(self, tmp_path, name):
        root = write_tree(tmp_path, {"train": 8, name: 4})
        task = get_task("folder", root, **TINY)
        assert tops(task, "test") == {name} and tops(task, "validation") == {"train"}
        assert said(task, f"{name}/ is the only part", "cut from train") == (name != "test")

    def test_two_folders_for_one_part(self, tmp_path):
        root = write_tree(tmp_path, {"train": 6, "val": 4, "valid": 4})
        with pytest.raises(
            InputError, match="one folder for validation, but got 'val/ and valid/'"
        ):
            get_task("folder", root, **TINY)

    def test_folders_that_are_not_used_are_named(self, tmp_path):
        root = write_tree(tmp_path, {"train": 8, "extra": 2, "test": 2})
        assert said(get_task("folder", root, **TINY), "not used: extra/")

    def test_a_class_that_train_lacks_is_named(self, tmp_path):
        root = write_tree(tmp_path, {"train": 8, "test": 3})
        for i in range(4):
            picture(root / "test" / "alien" / f"{i}.png", i)
        task = get_task("folder", root, **TINY)
        assert said(task, "test/alien/ is left out: train/ has no such class")
        assert len(task.test) == 9

    def test_classes_without_train(self, tmp_path):
        root = write_tree(tmp_path, {".": 9})
        task = get_task("folder", root, **TINY)
        assert task.class_names == ("class0", "class1", "class2")
        assert said(task, "no train/", "class0/, class1/, class2/", "all parts are cut")
        everything = [
            n for p in ("train", "validation", "test") for n in task.manifest.parts[p].files
        ]
        assert len(set(everything)) == len(everything) and tops(task, "test") <= {*task.class_names}

    def test_classes_beside_a_test_part_are_not_guessed_at(self, tmp_path):
        root = write_tree(tmp_path, {".": 3})
        write_tree(tmp_path, {"test": 3})
        with pytest.raises(InputError, match="without train/"):
            get_task("folder", root, **TINY)

    def test_the_folder_above_is_told_where_to_look(self, tmp_path):
        write_tree(tmp_path / "photos", {"train": 3})
        with pytest.raises(InputError, match="give .*photos"):
            get_task("folder", tmp_path, **TINY)


class TestFiles:
    def test_jfif_is_a_jpeg(self, tmp_path):
        for name in "ab":
            for i in range(6):
                picture(tmp_path / name / f"{i}.jfif", ord(name) + 7 * i, "JPEG")
        assert len(get_task("folder", tmp_path, **TINY).train) == 8  # and 2 in each other part

    @pytest.mark.parametrize(("ending", "count"), [(".gif", 5), (".heic", 2), (".avif", 1)])
    def test_a_class_of_other_formats_only(self, tmp_path, ending, count):
        """The message names what was ignored, and what to convert it to."""
        root = write_tree(tmp_path, {"train": 6})
        for path in (root / "train" / "class1").iterdir():
            path.unlink()
        for i in range(count):
            (root / "train" / "class1" / f"{i}{ending}").write_bytes(b"GIF89a")
        with pytest.raises(
            InputError, match=rf"train/class1/ must hold .*'{count} {ending}'; convert them to JPEG"
        ):
            get_task("folder", root, **TINY)

    def test_sixteen_bits_are_named_with_what_to_do(self, tmp_path):
        root = write_tree(tmp_path, {"train": 9})
        for path in (root / "train" / "class1").iterdir():
            Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(path)
        with pytest.raises(
            InputError, match=r"not 8 bits a channel \(mode I;16\); scale it to 8 bits"
        ):
            get_task("folder", root, **TINY)

    def test_ignored_files_are_counted(self, tmp_path):
        root = write_tree(tmp_path, {"train": 9, "test": 3})
        for name in ("a.gif", "b.gif", "notes.txt", ".hidden.png", "README"):
            (root / "train" / "class0" / name).write_bytes(b"x")
        task = get_task("folder", root, **TINY)
        assert said(task, "ignored in train/: 2 .gif, 1 .txt, 1 files without an ending")

    def test_irregular_files_are_never_opened(self, tmp_path):
        root = write_tree(tmp_path, {"train": 9})
        os.mkfifo(root / "train" / "class0" / "pipe.jpg")
        (root / "train" / "class1" / "zero.jpg").symlink_to("/dev/zero")
        task = get_task("folder", root, **TINY)
        assert said(task, "2 pipes, sockets or devices")
        assert sum(len(part) for part in task.manifest.parts.values()) == 3 * 9

    def test_folders_that_may_not_be_read_are_named(self, tmp_path, monkeypatch):
        root = write_tree(tmp_path, {"train": 9})
        scandir = os.scandir

        def refusing(path):
            if str(path).endswith("class1"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)
        with pytest.raises(InputError, match="class1 .Permission denied"):
            get_task("folder", root, **TINY)


class TestLinks:
    def test_each_real_file_is_listed_once(self, tmp_path):
        """`ln -s . train/cat/all` once made 140 rows of 14 images."""
        root = write_tree(tmp_path, {"train": 14})
        folder = root / "train" / "class0"
        (folder / "all").symlink_to(".")
        (folder / "0-first.png").symlink_to("3.png")
        (folder / "nested").mkdir()
        (folder / "nested" / "up").symlink_to("..")
        plain = write_tree(tmp_path / "plain", {"train": 14})
        linked, unlinked = (get_task("folder", tree, **TINY) for tree in (root, plain))
        assert linked.manifest_hash == unlinked.manifest_hash
        assert said(linked, "3 repeated links")

    def test_two_loops_end(self, tmp_path):
        """Two links to the folder itself have 2^40 paths before the system says stop."""
        folder = tmp_path / "cat"
        picture(folder / "a.png", 0)
        for name in ("one", "two", "three"):
            (folder / name).symlink_to(folder)
        code = (
            "import sys; from pathlib import Path; from proxy_tasks.sources import list_images; "
            "print(list_images(Path(sys.argv[1]), 'cat').files)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.strip() == "['cat/a.png']"

    def test_folders_elsewhere_are_followed(self, tmp_path):
        picture(tmp_path / "store" / "deep" / "a.png", 0)
        picture(tmp_path / "store" / "b.png", 1)
        (tmp_path / "cat").mkdir()
        (tmp_path / "cat" / "here").symlink_to(tmp_path / "store")
        (tmp_path / "cat" / "again").symlink_to(tmp_path / "store")
        found = list_images(tmp_path / "cat", "cat")
        assert found.files == ["cat/again/b.png", "cat/again/deep/a.png"]
        assert found.ignored["repeated links"] == 1

    def test_links_into_a_store_of_images(self, tmp_path):
        """How splits are often made: every image of train/ is a link."""
        for i in range(12):
            picture(tmp_path / "store" / f"{i}.png", i)
            for part in ("train",):
                folder = tmp_path / "data" / part / f"class{i % 2}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{i}.png").symlink_to(tmp_path / "store" / f"{i}.png")
        numbers = dict(train_images=8, validation_images=2, test_images=2)
        task = get_task("folder", tmp_path / "data", **numbers, **TINY)
        assert sum(len(part) for part in task.manifest.parts.values()) == 12 and not task.notes


LATIN = os.fsdecode(b"caf\xe9")


class TestNames:
    def test_what_is_not_utf8_works_to_the_end(self, tmp_path):
        """A class and files in latin-1, as old archives have them."""
        root = write_tree(tmp_path / "data", {"train": 9})
        os.rename(root / "train" / "class1", root / "train" / LATIN)
        os.rename(root / "train" / LATIN / "0.png", root / "train" / LATIN / (LATIN + ".png"))
        task = get_task("folder", root, train_images=21, validation_images=3, test_images=3, **TINY)
        assert r"caf\xe9" in task.class_names
        names = [name for rows in task.manifest.parts.values() for name in rows.files]
        assert r"train/caf\xe9/caf\xe9.png" in names
        task.manifest.write(tmp_path / "manifest.json")
        assert Manifest.read(tmp_path / "manifest.json").hash == task.manifest_hash
        json.dumps(task.class_names, ensure_ascii=False).encode()
        repr(task).encode()

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("plain", "plain"), ("日本", "日本"), (LATIN, r"caf\xe9"), ("a\nb", r"a\x0ab"),
            ("back\\slash", "back\\slash"), (r"caf\xe9", r"caf\\xe9"),
            (LATIN + "\\x", "caf\\xe9\\\\x"),
        ],
    )  # fmt: skip
    def test_names_map_back(self, name, text):
        assert printable(name) == text
        text.encode()

    def test_different_names_stay_different(self):
        names = [LATIN, r"caf\xe9", r"caf\\xe9", "caf\\" + LATIN[3:], "caf\\", "caf\\\\"]
        assert len({printable(name) for name in names}) == len(names)


def medmnist(path: Path, *, compressed: bool = True, **changes) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 60), ("val", 20), ("test", 30)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 5).astype(np.uint8)[:, None]
    arrays = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


class TestMedMNIST:
    @pytest.mark.parametrize("compressed", [True, False])
    def test_its_parts_are_the_parts(self, tmp_path, compressed):
        path = medmnist(tmp_path / "x.npz", compressed=compressed)
        task = get_task("folder", path, resolution=28)
        assert [len(task.train), len(task.validation), len(task.test)] == [60, 20, 30]
        assert tops(task, "validation") == {"val"} and task.class_names == tuple("01234")
        with np.load(path) as arrays:
            for name, label, _ in task.manifest.parts["test"]:
                number = int(name.split("/")[1])
                assert label == arrays["test_labels"][number, 0]
            assert np.array_equal(task.test.images[:, 0], arrays["test_images"])

    def test_colour_and_flat_labels(self, tmp_path):
        images = np.random.default_rng(3).integers(0, 256, (60, 28, 28, 3), np.uint8)
        path = medmnist(tmp_path / "x.npz", train_images=images, train_labels=np.arange(60) % 5)
        assert get_task("folder", path).train.images.shape[1:] == (3, 32, 32)

    def test_train_alone_is_cut(self, tmp_path):
        none = dict.fromkeys(("val_images", "val_labels", "test_images", "test_labels"))
        task = get_task("folder", medmnist(tmp_path / "x.npz", **none))
        assert all(tops(task, part) == {"train"} for part in ("train", "validation", "test"))

    def test_labels_of_their_own(self, tmp_path):
        """Any whole numbers; and what train lacks is left out, and said."""
        path = medmnist(
            tmp_path / "x.npz",
            train_labels=np.array([7, 1000])[np.arange(60) % 2],
            val_labels=np.array([7, 1000])[np.arange(20) % 2],
            test_labels=np.array([7, 1000, 9])[np.arange(30) % 3],
        )
        task = get_task("folder", path)
        assert task.class_names == ("7", "1000") and len(task.test) == 20
        assert said(task, "test: 10 images of class 9 are left out")
        numbers = [int(name.split("/")[1]) for name in task.manifest.parts["test"].files]
        assert all(number % 3 != 2 for number in numbers)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"train_images": None}, "must hold train_images and train_labels"),
            ({"train_labels": None}, "train_labels must be integers"),
            ({"train_labels": np.zeros((60, 14), int)}, "one label an image"),
            ({"train_labels": np.zeros(59, int)}, "train_labels must be integers"),
            ({"train_labels": np.array(["cat", "dog"] * 30)}, "number the classes"),
            ({"train_images": np.zeros((60, 28, 28), float)}, "must be uint8"),
            ({"train_images": np.zeros((60, 28, 28, 28), np.uint8)}, "must be uint8"),
            ({"test_images": np.zeros((0, 8, 8), np.uint8), "test_labels": np.zeros(0, int)},
             "must hold images"),
            ({"train_labels": np.array([object()] * 60)}, "must be a folder or an .npz file"),
        ],
    )  # fmt: skip
    def test_mistakes_are_named(self, tmp_path, change, message):
        with pytest.raises(InputError, match=message):
            get_task("folder", medmnist(tmp_path / "x.npz", **change))

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip", b"not a zip"])
    def test_other_files_are_named(self, tmp_path, content):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(InputError, match="must be a folder or an .npz file"):
            get_task("folder", tmp_path / "x.npz")

    @pytest.mark.parametrize(("place", "value"), [("flag_bits", 1), ("compress_type", 9)])
    def test_encrypted_and_strange_entries_are_named(self, tmp_path, place, value):
        """Both are 2 bytes, 6 and 8 behind the start of an entry, and 8 and 10 in the index."""
        path = medmnist(tmp_path / "x.npz")
        content, at = bytearray(path.read_bytes()), 6 if place == "flag_bits" else 8
        for start, more in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
            where = content.index(start) + at + more
            content[where : where + 2] = value.to_bytes(2, "little")
        path.write_bytes(content)
        with pytest.raises(InputError, match="must be a folder or an .npz file"):
            get_task("folder", path)

    def test_more_than_memory_is_refused_unread(self, tmp_path, monkeypatch):
        path = medmnist(tmp_path / "x.npz")
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
        monkeypatch.setattr("proxy_tasks.medmnist.free_memory", lambda: 2 * size)
        get_task("folder", path)
        monkeypatch.setattr("proxy_tasks.medmnist.free_memory", lambda: 2 * size - 1)
        with pytest.raises(InputError, match="must fit into half of the free memory"):
            get_task("folder", path)


def test_more_than_memory_holds_is_refused_before_it_is_read(tmp_path, monkeypatch):
    data = write_tree(tmp_path, {"train": 40})
    need = 2 * 120 * 3 * 32**2
    for free, refused in ((need - 1, True), (need, False)):
        monkeypatch.setattr("proxy_tasks.data.free_memory", lambda free=free: free)
        with (
            pytest.raises(InputError, match="120 images of 32 x 32 pixels")
            if refused
            else contextlib.nullcontext()
        ):
            get_task("folder", data, whole=True)


def test_the_whole_is_what_the_held_out_parts_leave(tmp_path):
    data = write_tree(tmp_path, {"train": 40})
    whole = get_task("folder", data, resolution=8, whole=True)
    assert [len(part) for part in (whole.train, whole.validation, whole.test)] == [72, 24, 24]
    some = get_task("folder", data, resolution=8, whole=True, train_images=30)
    assert len(some.train) == 30


def test_a_copy_at_another_path_is_the_same_task(tmp_path):
    root = write_tree(tmp_path / "a", {"train": 9, "valid": 3, "test": 3})
    shutil.copytree(root, tmp_path / "b" / "deeper", symlinks=True)
    hashes = {get_task("folder", p, **TINY).manifest_hash for p in (root, tmp_path / "b/deeper")}
    assert len(hashes) == 1


def test_counts_of_a_long_tail(tmp_path):
    root = tmp_path
    for name, count in (("a", 30), ("b", 10), ("c", 4)):
        for i in range(count):
            picture(root / name / f"{i}.png", 1000 * ord(name) + i)
    task = get_task("folder", root, shares="capped", **TINY)
    assert Counter(task.train.labels.tolist()) == {0: 17, 1: 5, 2: 2}


def test_a_terminal_sees_how_far_the_listing_is(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    root = write_tree(tmp_path, {"train": 40})
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    at_once = {"delay": 0, "mininterval": 0, "file": shown}
    monkeypatch.setattr(sources, "tqdm", lambda **options: tqdm(**{**options, **at_once}))
    files = list_images(root / "train", "train").files
    assert "listing train" in shown.getvalue() and f"{len(files)} file" in shown.getvalue()
