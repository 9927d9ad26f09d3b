"""The same image twice: never in two parts, counted and named everywhere else."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from policies import InputError
from proxy_tasks import get_task
from proxy_tasks.leaks import PROTECTED, Item, sentences, separate
from tests.proxy_tasks.trees import write_tree

TINY = dict(resolution=20)
CLASSES = ("cat", "dog", "emu")


@st.composite
def parts(draw):
    """Few contents, so that copies abound."""
    item = st.tuples(st.integers(0, 2), st.integers(0, 8))
    return {
        part: [
            Item(f"{part}/{i}", label, bytes([content]), "", i)
            for i, (label, content) in enumerate(draw(st.lists(item, max_size=8)))
        ]
        for part in ("train", "validation", "test")
    }


class TestSeparate:
    @given(parts())
    def test_no_content_is_in_two_parts_and_none_is_lost(self, given_parts):
        kept, found = separate(given_parts, CLASSES)
        contents = {part: {i.fingerprint for i in items} for part, items in kept.items()}
        before = {part: {i.fingerprint for i in items} for part, items in given_parts.items()}
        for number, part in enumerate(PROTECTED):
            above = set().union(*(before[p] for p in PROTECTED[:number]))
            assert contents[part] == before[part] - above
            # What stays, stays in its order, copies and all.
            assert kept[part] == [i for i in given_parts[part] if i.fingerprint not in above]
        total = sum(map(len, given_parts.values()))
        assert found.counts["removed"] == len(found.removed)
        assert total == sum(map(len, kept.values())) + len(found.removed)

    @given(parts())
    def test_every_copy_is_counted(self, given_parts):
        kept, found = separate(given_parts, CLASSES)
        inside = sum(len(i) - len({x.fingerprint for x in i}) for i in kept.values())
        assert found.counts["repeated"] == inside
        labels = {}
        wrong = 0
        for part in PROTECTED:
            for item in given_parts[part]:
                wrong += labels.setdefault(item.fingerprint, item.label) != item.label
        assert found.counts["contradictory"] == wrong
        assert bool(sentences(found)) == any(found.counts.values())


def note(task, *words: str) -> str:
    (found,) = [n for n in task.notes if all(w in n for w in words)]
    return found


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "data", {"train": 20, "test": 6})


ALL = dict(train_images=48, validation_images=12, **TINY)


class TestTask:
    def test_test_images_copied_from_train(self, tree):
        for i in range(5):
            shutil.copy(tree / f"train/class0/{i}.png", tree / f"test/class0/copy{i}.png")
        task = get_task("folder", tree, **ALL)
        assert task.manifest.duplicates.counts["removed"] == 5
        assert len(task.train) + len(task.validation) == 55 and len(task.test) == 23
        left_out = " ".join(n for n in task.notes if "left out of" in n)
        assert "train/class0/" in left_out and "(= test/class0/copy" in left_out
        names = {name for rows in task.manifest.parts.values() for name in rows.files}
        assert not names & {row[0] for row in task.manifest.duplicates.removed}

    def test_the_pixels_count_not_the_bytes(self, tree):
        """Stored again in another format, and with other EXIF data."""
        with Image.open(tree / "train/class0/0.png") as image:
            image.save(tree / "test/class0/again.bmp")
        exif = Image.Exif()
        exif[0x010E] = "a comment"
        with Image.open(tree / "train/class1/0.png") as image:
            image.save(tree / "test/class1/again.png", exif=exif)
        assert get_task("folder", tree, **ALL).manifest.duplicates.counts["removed"] == 2

    def test_all_of_one_class_under_two_labels(self, tree):
        for i in range(20):
            shutil.copy(tree / f"train/class0/{i}.png", tree / f"train/class1/same{i}.png")
        task = get_task("folder", tree, train_images=57, validation_images=3, **TINY)
        found = task.manifest.duplicates
        assert found.counts["contradictory"] > 5
        assert "under two labels" in note(task, "'class0'", "'class1'")

    def test_copies_inside_a_part_stay_and_are_counted(self, tree):
        shutil.copy(tree / "test/class2/1.png", tree / "test/class2/same.png")
        task = get_task("folder", tree, **ALL)
        assert len(task.test) == 19 and task.manifest.duplicates.counts["repeated"] == 1
        assert "1 image is in a part more than once" in note(task, "test/class2/")

    def test_a_part_of_copies_is_refused(self, tree):
        for path in (tree / "train" / "class1").iterdir():
            shutil.copy(path, tree / "test" / "class1" / f"copy{path.name}")
        with pytest.raises(InputError, match="train must hold images of class 'class1' that no"):
            get_task("folder", tree, **ALL)

    def test_the_draw_is_the_same_again(self, tree):
        shutil.copy(tree / "train/class0/3.png", tree / "test/class0/copy.png")
        first, again = (get_task("folder", tree, **ALL) for _ in range(2))
        assert first.manifest_hash == again.manifest_hash and first.notes == again.notes
        assert np.array_equal(first.train.images, again.train.images)

    def test_clean_data_have_nothing_to_say(self, tree):
        task = get_task("folder", tree, **ALL)
        assert task.notes == () and set(task.manifest.duplicates.counts.values()) == {0}

    @pytest.mark.parametrize("name", ["reduced-fashion", "synthetic"])
    def test_the_tasks_that_ship_are_clean(self, name):
        assert get_task(name).notes == ()
