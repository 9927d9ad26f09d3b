"""Manifests: what is written can be read, whatever the size, and nothing else can."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import InputError
from proxy_tasks import get_task, manifest
from proxy_tasks.manifest import Duplicates, Listing, Manifest, content_id

ROWS = [("train/a/1.png", 0, content_id(b"1")), (r"train/caf\xe9/ü \"2\".png", 1, content_id(b"2"))]


def make(**changes) -> Manifest:
    parts = {"train": Listing(ROWS), "validation": Listing(ROWS[:1]), "test": Listing([])}
    found = Duplicates([["a", "train", "b", "test"]], [], [], {"removed": 1})
    base = Manifest(
        "folder", 3, "folder", (3, 8, 8), True, ("a", r"caf\xe9"), parts, ("x.png",), found
    )
    return dataclasses.replace(base, **changes)


class TestHash:
    def test_is_that_of_the_rows(self):
        """The definition, written out: canonical JSON with one row an image."""
        m = make()
        data = {
            "format": "augsearch-manifest", "version": 1, "task": "folder", "seed": 3,
            "source": "folder", "shape": [3, 8, 8], "flip": True, "class_names": ["a", r"caf\xe9"],
            "counts": {"train": 2, "validation": 1, "test": 0},
            "parts": {p: [list(r) for r in rows] for p, rows in m.parts.items()},
            "skipped": ["x.png"],
        }  # fmt: skip
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert m.hash == hashlib.sha256(text.encode()).hexdigest()

    def test_of_the_embedded_task_never_changes(self):
        assert get_task("reduced-fashion").manifest_hash.startswith(
            "6062ffcbb3fe75fa4331dfe08c379a"
        )

    def test_duplicates_that_were_removed_do_not_count_twice(self):
        assert make(duplicates=Duplicates()).hash == make().hash


class TestFile:
    @pytest.mark.long
    @given(
        st.lists(
            st.tuples(
                st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n")),
                st.integers(0, 2**31 - 1),
                st.binary().map(content_id),
            )
        )
    )
    def test_what_is_written_can_be_read(self, tmp_path_factory, rows):
        path = tmp_path_factory.mktemp("manifest") / "m.json"
        m = make(parts={"train": Listing(rows), "validation": Listing([]), "test": Listing(ROWS)})
        m.write(path)
        found = Manifest.read(path)
        assert found.hash == m.hash and list(found.parts["train"]) == rows
        assert found.dumps() == m.dumps()

    def test_one_image_a_line(self):
        lines = make().dumps().splitlines()
        assert sum("train/a/1.png" in line for line in lines) == 2

    def test_nothing_too_large_is_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(manifest, "MAX_BYTES", 500)
        with pytest.raises(InputError, match="draw fewer images"):
            make().write(tmp_path / "m.json")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.update(seed=4), "must be as it was written"),
            (lambda d: d["train"].pop(), "must be as it was written"),
            (lambda d: d["train"][0].__setitem__(2, "0" * 16), "must be as it was written"),
            (lambda d: d["train"][0].__setitem__(2, "short"), "must have the fields"),
            (lambda d: d["train"][0].__setitem__(1, "one"), "must have the fields"),
            (lambda d: d["train"][0].__setitem__(1, 2**40), "must have the fields"),
            (lambda d: d["train"].append([1]), "must have the fields"),
            (lambda d: d.pop("test"), "must have the fields"),
            (lambda d: d.update(duplicates={"more": 1}), "must have the fields"),
            (lambda d: d.update(version=1), "must be of version 2"),
            (lambda d: d.update(format="x"), "must be the manifest of a task"),
        ],
    )
    def test_anything_else_is_refused(self, tmp_path, change, message):
        data = json.loads(make().dumps())
        change(data)
        (tmp_path / "m.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=message):
            Manifest.read(tmp_path / "m.json")

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}', "[" * 100_000])
    def test_rubbish_is_refused(self, tmp_path, text):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(InputError):
            Manifest.read(tmp_path / "m.json")

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "m.json")
        with pytest.raises(InputError, match="must be an ordinary, readable file"):
            Manifest.read(tmp_path / "m.json")


def test_millions_of_rows_travel_as_a_few_strings():
    """What every worker is sent: columns, not a list for each image."""
    rows = ((f"train/n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG", i % 1000, f"{i:016x}")
            for i in range(100_000))  # fmt: skip
    sent = pickle.dumps(make(parts={"train": Listing(rows)}), protocol=5)
    assert len(sent) < 100_000 * 64
