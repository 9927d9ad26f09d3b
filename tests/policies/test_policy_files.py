"""Policy files: what is written is read back; nothing else gets in."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import (
    CIFAR10,
    IMAGENET,
    InputError,
    Policy,
    PolicyFile,
    RandAugment,
    load_policy,
    load_policy_file,
    save_policy,
)
from policies.policy import MAX_BYTES
from policies.schedule import Schedule, load_schedule
from tests.policies.golden import golden
from tests.policies.test_policy import policies

PROVENANCE = {"task": "reduced-fashion", "seed": 3, "reward": [0.5, None], "é": {"deep": [1]}}


@given(policies(), st.none() | st.dictionaries(st.text(), st.integers() | st.text()))
def test_json_round_trip(tmp_path_factory, policy, provenance):
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    convention = "paper" if policy.bins == 10 else "randaugment"
    save_policy(path, policy, convention, provenance)
    assert load_policy_file(path) == PolicyFile(policy, convention, provenance)
    assert load_policy(path).bins == policy.bins
    assert sorted(os.listdir(path.parent)) == ["policy.json"], "no temporary file stays behind"


def test_text_file(tmp_path):
    path = tmp_path / "policy.txt"
    save_policy(path, IMAGENET)
    assert path.read_text() == IMAGENET.to_text()
    assert load_policy_file(path) == PolicyFile(IMAGENET, "paper", None)


def test_provenance_comes_back(tmp_path):
    save_policy(tmp_path / "p.json", IMAGENET, "tf", PROVENANCE)
    assert load_policy_file(tmp_path / "p.json").provenance == PROVENANCE


def test_plain_rows_can_be_saved(tmp_path):
    save_policy(tmp_path / "p.json", ((("Rotate", 0.5, 3),),))
    assert load_policy(tmp_path / "p.json") == ((("Rotate", 0.5, 3),),)


def test_many_rows(tmp_path):
    policy = RandAugment(3, 9).as_policy()
    save_policy(tmp_path / "p.json", policy, "randaugment")
    assert load_policy(tmp_path / "p.json") == policy


def test_wire_format_stays(tmp_path):
    """A file written by this version must be readable for ever: its bytes are recorded."""
    save_policy(tmp_path / "p.json", IMAGENET, "paper", {"task": "imagenet", "seed": 1})
    golden("policies/imagenet.json", (tmp_path / "p.json").read_text())


def document(**changes) -> dict:
    base = {
        "format": "augsearch-policy", "version": 1, "convention": "paper", "bins": 10,
        "policy": [[["Rotate", 0.5, 3]]], "provenance": None,
    }  # fmt: skip
    return {k: v for k, v in (base | changes).items() if v is not ...}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document(format="other"), "format: must be 'augsearch-policy', but got 'other'"),
        (document(format=...), "format: must be"),
        ([1, 2], "format: must be"),
        ("text", "format: must be"),
        (document(version=2), "version: must be at most 1, but got 2; update"),
        (document(version="1"), "version: must be a positive integer"),
        (document(version=True), "version: must be a positive integer"),
        (document(version=0), "version: must be a positive integer"),
        (document(provenence={}), "must be one of .*'provenence'; did you mean 'provenance'"),
        (document(policy=...), "policy: must be present"),
        (document(bins=...), "bins: must be present"),
        (document(convention=...), "convention: must be present"),
        (document(convention="timmm"), "convention: must be one of"),
        (document(convention=["paper"]), "convention: must be one of"),
        (document(convention="randaugment"), "policy.bins: must be 31"),
        (document(bins=11), "policy.bins: must be 10"),
        (document(bins="10"), "bins: must be an integer"),
        (document(policy={}), "policy: must be a sequence"),
        (document(policy=[]), "policy: must have"),
        (document(policy=[[["Rotate", 0.5, 10]]]), r"policy\[0\]\[0\].magnitude"),
        (document(policy=[[["Rotate", 10**400, 3]]]), r"policy\[0\]\[0\].probability"),
        (document(policy=[[{"name": "Rotate"}]]), r"policy\[0\]\[0\]: must be a triple"),
        (document(provenance=[1]), "provenance: must be an object"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_documents(tmp_path, content, message):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load_policy(path)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"null", b"NaN", b"[" * 200_000, b'{"a":' * 100_000,
        json.dumps(document()).encode()[:-20],
        json.dumps(document()).encode()[:-1] + b', "bins": 10}',
        json.dumps(document()).replace("0.5", "NaN").encode(),
        json.dumps(document()).replace("0.5", "1e999").encode(),
        json.dumps(document()).replace("0.5", "9" * 5000).encode(),
        b"\x80\x04\x95", b"PK\x03\x04",
    ],
    ids=lambda value: repr(value[:12]),
)  # fmt: skip
@pytest.mark.parametrize("name", ["policy.json", "policy.txt"])
def test_hostile_bytes(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        load_policy(tmp_path / name)


@given(st.binary(max_size=200))
def test_any_bytes(tmp_path_factory, content):
    for name in ("p.json", "p.txt"):
        path = tmp_path_factory.mktemp("bytes") / name
        path.write_bytes(content)
        with pytest.raises(InputError):
            load_policy(path)


@given(st.data())
def test_damaged_files(tmp_path_factory, data):
    """One byte changed: the file is refused, or is a valid policy still."""
    path = tmp_path_factory.mktemp("damaged") / "p.json"
    save_policy(path, Policy([[("Rotate", 0.5, 3), ("Invert", 0.25, None)]]), "paper", {"a": 1})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        read = load_policy_file(path)
    except InputError:
        return
    assert Policy(read.policy) == read.policy


def test_huge_file(tmp_path):
    with (tmp_path / "p.json").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="must be at most"):
        load_policy(tmp_path / "p.json")


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")  # opening it would wait for a writer for ever
    for path in (tmp_path, tmp_path / "absent.json", tmp_path / "pipe.json", "/dev/zero"):
        with pytest.raises(InputError, match="must be an existing file"):
            load_policy(path)


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_provenance_must_be_json(tmp_path, value):
    with pytest.raises(InputError, match="provenance: must be plain JSON"):
        save_policy(tmp_path / "p.json", IMAGENET, "paper", {"value": value})
    assert not os.listdir(tmp_path)


def test_nothing_is_written_that_could_not_be_read_back(tmp_path):
    with pytest.raises(InputError, match="must fit in a file"):
        save_policy(tmp_path / "p.json", IMAGENET, "paper", {"log": "x" * MAX_BYTES})
    assert not os.listdir(tmp_path)


def test_convention_must_fit_when_saving(tmp_path):
    with pytest.raises(InputError, match="must be 31 for the trivialaugment"):
        save_policy(tmp_path / "p.json", IMAGENET, "trivialaugment")


# Schedules (policies/schedule.py) are read by the same parser. ------------------------------


def schedule_text() -> str:
    rows = [[["Rotate", 0.5, 3]]]
    about = {"format": "augsearch-schedule", "version": 1, "epochs": 4, "provenance": None}
    return json.dumps(about | {"ranges": [{"first_epoch": 0, "policy": rows}]})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"epochs": 4', '"epochs": 4, "epochs": 5', "given twice"),
        ('"epochs": 4', '"epochs": NaN', "not a number"),
        ('"epochs": 4', '"epoch": 4', "must be one of .*did you mean 'epochs'"),
        ('"epochs": 4, ', "", "epochs: must be present"),
        ('"version": 1', '"version": 2', "version: must be at most 1, but got 2"),
        ('"provenance": null', '"provenance": [1]', "provenance: must be an object"),
    ],
)
def test_wrong_schedule_files(tmp_path, old, new, message):
    path = tmp_path / "schedule.json"
    path.write_text(schedule_text())
    assert load_schedule(path).epochs == 4
    assert schedule_text().count(old) == 1
    path.write_text(schedule_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        load_schedule(path)


def test_schedules_are_of_the_paper_convention():
    """31-bin magnitudes would be read as 10-bin ones later: refused at once."""
    with pytest.raises(InputError, match="policy.bins: must be 10"):
        Schedule([(0, Policy([[("Rotate", 0.5, 3)]], bins=31))], 4)


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "policy.json"
    save_policy(path, IMAGENET)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_policy(path, CIFAR10)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["policy.json"]


def test_a_tuple_list_cannot_say_its_convention(tmp_path):
    """Written as text, other magnitudes would be read as the paper's without a word."""
    with pytest.raises(InputError, match="convention: must be paper in a tuple list"):
        save_policy(tmp_path / "p.txt", IMAGENET, "tf")
    assert not os.listdir(tmp_path)


def test_the_ending_says_the_kind(tmp_path):
    """What save_policy writes, load_policy reads, in any case of the ending; others are refused."""
    for name in ("a.JSON", "b.TXT"):
        save_policy(tmp_path / name, IMAGENET)
        assert load_policy(tmp_path / name) == IMAGENET
    with pytest.raises(InputError, match=r"path: must end in \.json or \.txt"):
        save_policy(tmp_path / "c.policy", IMAGENET)
