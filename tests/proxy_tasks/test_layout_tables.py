"""Data sets whose labels stand in metadata.csv, as Hugging Face has them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from policies import InputError
from proxy_tasks import get_task
from tests.proxy_tasks.test_layouts import TINY, picture, said, tops


class TestTable:
    def folder(self, root: Path, parts=("train", "validation", "test"), labels=("cat", "dog")):
        for number, part in enumerate(parts):
            lines = ["file_name,label,author"]
            for i in range(12):
                picture(root / part / "images" / f"{i}.png", 100 * number + i)
                lines.append(f"images/{i}.png,{labels[i % len(labels)]},someone")
            (root / part / "metadata.csv").write_text("\n".join(lines) + "\n")
        return root

    def test_as_hugging_face_has_it(self, tmp_path):
        task = get_task("folder", self.folder(tmp_path), **TINY)
        assert task.class_names == ("cat", "dog") and not task.notes
        for part in ("train", "validation", "test"):
            assert tops(task, part) == {part}
            for name, label, _ in task.manifest.parts[part]:
                assert int(Path(name).stem) % 2 == label
        assert len(task.validation) == 12

    @pytest.mark.parametrize("shares", ["equal", "proportional", "capped"])
    def test_a_part_of_other_labels_is_told_by_them(self, tmp_path, shares):
        self.folder(tmp_path, parts=("train",))
        self.folder(tmp_path, parts=("test",), labels=("0", "1"))
        with pytest.raises(InputError, match="the test part must hold images of the classes of "
                           "train, but got \"test/: 6 images of class '0' are left"):  # fmt: skip
            get_task("folder", tmp_path, shares=shares)

    def test_one_table_for_everything(self, tmp_path):
        self.folder(tmp_path, parts=(".",))
        task = get_task("folder", tmp_path, **TINY)
        assert said(task, "all parts are cut from metadata.csv")
        assert len(task.train) + len(task.validation) + len(task.test) == 12

    def test_one_table_with_folders_of_parts(self, tmp_path):
        lines = ["file_name,label"]
        for part in ("train", "test"):
            for i in range(12):
                picture(tmp_path / part / f"{i}.png", i + (part == "test") * 50)
                lines.append(f"{part}/{i}.png,{i % 2}")
        (tmp_path / "metadata.csv").write_text("\n".join(lines))
        task = get_task("folder", tmp_path, **TINY)
        assert tops(task, "test") == {"test"} and len(task.test) == 12
        assert not [note for note in task.notes if "metadata.csv" in note]

    def test_one_table_with_folders_of_parts_tells_what_it_leaves_out(self, tmp_path):
        self.test_one_table_with_folders_of_parts(tmp_path)
        picture(tmp_path / "train" / "unlisted.png", 200)
        picture(tmp_path / "extra" / "0.png", 201)
        lines = ["\ntrain/lost.png,0", "extra/0.png,1"]
        (tmp_path / "metadata.csv").open("a").write("\n".join(lines))
        task = get_task("folder", tmp_path, **TINY)
        assert said(task, "1 images are not in metadata.csv")
        assert said(task, "1 files that metadata.csv names are not there: train/lost.png")
        assert said(task, "1 images of metadata.csv lie below none of train/, test/")

    def test_files_that_are_not_there_are_named(self, tmp_path):
        """Half a download: found out before the draw, not by chance in it."""
        root = self.folder(tmp_path, parts=("train",))
        for i in (3, 7):
            (root / "train" / "images" / f"{i}.png").unlink()
        task = get_task("folder", root, **TINY)
        assert said(task, "2 files that train/metadata.csv names are not there: train/images/3.png")
        shutil.rmtree(root / "train" / "images")
        with pytest.raises(InputError, match="must name files that are there"):
            get_task("folder", root, **TINY)

    def test_numbers_are_ordered_as_numbers(self, tmp_path):
        task = get_task("folder", self.folder(tmp_path, labels=("10", "9", "2")), **TINY)
        assert task.class_names == ("2", "9", "10")

    def test_images_without_a_row_and_classes_without_train_are_named(self, tmp_path):
        root = self.folder(tmp_path)
        picture(root / "train" / "images" / "more.png", 900)
        table = root / "test" / "metadata.csv"
        table.write_text(table.read_text().replace("0.png,cat", "0.png,emu"))
        task = get_task("folder", root, **TINY)
        assert said(task, "1 images are not in train/metadata.csv")
        assert said(task, "test/: 2 images of class 'emu' are left out")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name,label\n", "must have the columns file_name and label"),
            ("file_name,label\n", "must list images"),
            ("file_name,label\na.png\n", "line 2 must have a file and a label"),
            ("file_name,label\n../a.png,x\n", "line 2 must name a file below it"),
            ("file_name,label\n/etc/a.png,x\n", "line 2 must name a file below it"),
            ("file_name,label\na.png,x\n./a.png,y\n", "line 3 must name a file once"),
            (b"file_name,label\n\xff\xfe.png,x\n", "must be a CSV file in UTF-8"),
            ('file_name,label\n"a.png,x\n', "must be a CSV file in UTF-8"),
        ],
    )
    def test_mistakes_are_named_by_line(self, tmp_path, text, message):
        root = self.folder(tmp_path)
        raw = text if isinstance(text, bytes) else text.encode()
        (root / "train" / "metadata.csv").write_bytes(raw)
        with pytest.raises(InputError, match=message):
            get_task("folder", root, **TINY)
