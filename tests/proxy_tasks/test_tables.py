"""Tables: what is written is read, and whatever is damaged is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from policies import IMAGENET, InputError, Policy, RandAugment
from proxy_tasks import load_table, tables
from proxy_tasks.tables import (
    COLUMNS,
    Table,
    decode_table,
    digest,
    encode_table,
    packaged_tables,
    policy_text,
)


@pytest.fixture
def table():
    policies = {
        "none": None,
        "published": IMAGENET,
        "randaugment": RandAugment(1, 3),
        "optimised": Policy([[("Rotate", 0.3, 4)]]),
    }
    measured = (0.5, -1.5, -1.25)
    rows = [
        (policy_text(policy), family, source, fidelity, seed, *measured, test, 1.0, 1000, False)
        for family, policy in policies.items()
        for source in ["ppo, from-scratch" if family == "optimised" else ""]
        for fidelity, seed, test in (
            ("scratch", 2**33 + 1, 0.25), ("scratch", 2**33 + 2, 0.5), ("quarter", 3, np.nan),
        )
    ]  # fmt: skip
    about = {"scratch": {"seeds": 2}, "quarter": {"seeds": 1}}
    return Table(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        {"name": "folder"},
        "a" * 64,
        about,
        {"numpy": "2"},
    )


def test_what_is_written_is_read(table, tmp_path):
    path = tmp_path / "table.parquet"
    path.write_bytes(encode_table(table))
    read = load_table(path)
    pd.testing.assert_frame_equal(read.frame, table.frame, check_dtype=False)
    assert read.about() == table.about()
    assert encode_table(read) == encode_table(table)


def test_one_policy_has_one_text():
    assert policy_text(None) == "null"
    assert policy_text(RandAugment(3, 10)) == '{"m":10,"n":3,"transform":"RandAugment"}'
    assert policy_text(Policy([[("Rotate", 0.3, 4)]])) == '[[["Rotate",0.3,4]]]'


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("policy", '[[["Rotate", 0.3, 4]]]', "one form"),
        ("policy", '[[["Rotat",0.3,4]]]', "must hold policies"),
        ("policy", "[", "must hold policies"),
        ("family", "lucky", "families"),
        ("source", "ppo", "a source"),
        ("fidelity", "guess", "fidelities"),
        ("seed", -1, "seeds"),
        ("accuracy", 1.01, "accuracies"),
        ("accuracy", np.nan, "accuracies"),
        ("log_likelihood", 0.1, "log_likelihood"),
        ("calibrated_log_likelihood", -np.inf, "calibrated_log_likelihood"),
        ("test_accuracy", np.nan, "a test accuracy"),
        ("test_accuracy", 2.0, "a test accuracy"),
        ("seconds", np.inf, "seconds"),
        ("image_passes", -1, "image passes"),
        ("seed", 2**33 + 2, "once"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused(table, column, value, rule, monkeypatch):
    frame = table.frame.copy()
    frame.loc[0, column] = value
    broken = replace(table, frame=frame)
    with pytest.raises(InputError, match=rule):
        encode_table(broken)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "_check_frame", lambda *_: None)
        content = encode_table(broken)
    with pytest.raises(InputError, match=rule if value is not np.nan else "must have"):
        decode_table(content, "table")


def test_cheap_fidelities_have_no_test_accuracy(table):
    table.frame.loc[table.frame["fidelity"] == "quarter", "test_accuracy"] = 0.5
    with pytest.raises(InputError, match="a test accuracy"):
        encode_table(table)


@pytest.mark.parametrize("change", ["format", "version", "licence", "more"])
def test_other_metadata_are_refused(table, monkeypatch, change):
    changed = {**table.about(), change: 2}
    monkeypatch.setattr(Table, "about", lambda self: changed)
    content = encode_table(table)
    with pytest.raises(InputError, match="version 1" if change == "version" else "metadata|of aug"):
        decode_table(content, "table")


def test_other_columns_are_refused(table, monkeypatch):
    shorter = {name: kind for name, kind in COLUMNS.items() if name != "diverged"}
    with monkeypatch.context() as patch:
        patch.setattr(tables, "COLUMNS", shorter)
        content = encode_table(replace(table, frame=table.frame[list(shorter)]))
    with pytest.raises(InputError, match="must have the columns"):
        decode_table(content, "table")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table" * 100])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match="must be a Parquet file"):
        load_table(tmp_path / "a.parquet")


def test_a_cut_file_is_refused(table, tmp_path):
    content = encode_table(table)
    for end in range(0, len(content), max(1, len(content) // 40)):
        with pytest.raises(InputError):
            decode_table(content[:end], "table")


def test_missing_files_and_unknown_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="must be a readable .parquet file"):
        load_table(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="table: must be one of .*FILE.parquet"):
        load_table("cifar10-2k")


def test_a_packaged_table_must_be_as_it_was_packaged(table, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    content = encode_table(table)
    (tmp_path / "small.parquet").write_bytes(content)
    (tmp_path / "small.json").write_text(json.dumps({"sha256": digest(content)}))
    assert packaged_tables() == ("small",) and len(load_table("small").frame) == 12
    other = replace(table, manifest_hash="b" * 64)
    (tmp_path / "small.parquet").write_bytes(encode_table(other))
    with pytest.raises(InputError, match="as it was packaged"):
        load_table("small")


@pytest.mark.parametrize("name", packaged_tables())
def test_packaged_tables_are_small_whole_and_say_nothing_of_this_machine(name):
    path = tables.FOLDER / f"{name}.parquet"
    assert path.stat().st_size <= tables.MOST_PACKAGED_BYTES
    table = load_table(name)
    assert "data" not in table.task and "/" not in json.dumps(table.about())
    figures = json.loads(path.with_suffix(".json").read_text())
    assert figures["policies"] == table.frame["policy"].nunique()
    assert sum(figures["evaluations"].values()) == len(table.frame)
