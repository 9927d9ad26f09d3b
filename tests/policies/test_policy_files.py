"""Policy files: what is written is read back; nothing else gets in."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import (
    CIFAR10,
    IMAGENET,
    InputError,
    Policy,
    PolicyFile,
    PolicyTransform,
    RandAugment,
    Schedule,
    ScheduleTransform,
    TrivialAugmentWide,
    UniformAugment,
    files,
    load_policy,
    load_policy_file,
    load_schedule,
    save_policy,
    save_schedule,
)
from policies.files import (
    MAX_JSON_BYTES,
    read_json,
    write_atomically,
    write_json,
    write_where_other,
)
from policies.policy_files import MAX_BYTES
from tests.policies.golden import golden
from tests.policies.test_augmentations import augmentations

PROVENANCE = {"task": "reduced-fashion", "seed": 3, "reward": [0.5, None], "é": {"deep": [1]}}


@given(augmentations(), st.none() | st.dictionaries(st.text(), st.integers() | st.text()))
def test_json_round_trip(tmp_path_factory, augmentation, provenance):
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    save_policy(path, augmentation, provenance=provenance)
    read = load_policy_file(path)
    assert read == PolicyFile(augmentation, provenance)
    assert type(read.augmentation) is type(augmentation)
    assert sorted(os.listdir(path.parent)) == ["policy.json"], "no temporary file stays behind"


def test_text_file(tmp_path):
    path = tmp_path / "policy.txt"
    save_policy(path, IMAGENET)
    assert path.read_text() == IMAGENET.to_text()
    assert load_policy_file(path) == PolicyFile(IMAGENET, None)


def test_a_parametric_transform_is_stored_as_itself(tmp_path):
    path = tmp_path / "p.json"
    for n in (1, 3, 16):
        save_policy(path, RandAugment(n, 10))
        stored = json.loads(path.read_text())
        assert (stored["transform"], stored["n"], stored["m"]) == ("RandAugment", n, 10)
        assert path.stat().st_size < 200
        assert load_policy_file(path).augmentation == RandAugment(n, 10)
    with pytest.raises(InputError, match=r"as_policy\(\) expands it, in the randaugment"):
        load_policy(path)
    save_policy(path, UniformAugment())
    with pytest.raises(InputError, match="use load_policy_file"):
        load_policy(path)


@pytest.mark.parametrize(
    "augmentation",
    [PolicyTransform(IMAGENET, "tf"), PolicyTransform(IMAGENET, fill=128),
     PolicyTransform(IMAGENET), PolicyTransform(RandAugment(1, 9).as_policy(), "randaugment")],
    ids=["tf", "fill", "paper", "randaugment"],
)  # fmt: skip
def test_a_bare_policy_means_the_paper_convention_only(tmp_path, augmentation):
    path = tmp_path / "p.json"
    save_policy(path, augmentation)
    assert load_policy_file(path).policy == augmentation.policy
    assert load_policy_file(path).convention == augmentation.convention
    with pytest.raises(InputError, match="must hold a policy in the paper convention"):
        load_policy(path)


def test_policies_of_version_1_are_read(tmp_path):
    """As before version 2 wrote them: rows, bins and a convention."""
    path = tmp_path / "p.json"
    for convention, bins in (("timm", 10), ("trivialaugment", 31)):
        path.write_text(json.dumps(document(convention=convention, bins=bins)))
        policy = Policy([[("Rotate", 0.5, 3)]], bins)
        assert load_policy_file(path).augmentation == PolicyTransform(policy, convention)
    path.write_text(json.dumps(document()))
    assert load_policy_file(path).augmentation == Policy([[("Rotate", 0.5, 3)]])
    assert type(load_policy_file(path).augmentation) is Policy


@pytest.mark.parametrize(
    "augmentation", [IMAGENET, RandAugment(2, 9), PolicyTransform(IMAGENET, "timm", fill=128)]
)
def test_a_file_gives_what_augments_images_with_its_fill(tmp_path, augmentation):
    save_policy(tmp_path / "p.json", augmentation)
    wanted = augmentation if not isinstance(augmentation, Policy) else PolicyTransform(augmentation)
    found = load_policy_file(tmp_path / "p.json").transform
    assert found == wanted and found.fill == wanted.fill
    with pytest.raises(InputError, match="leave the transform out"):
        PolicyFile(None).transform  # noqa: B018


def test_infinity_in_the_provenance_is_refused(tmp_path):
    save_policy(tmp_path / "p.json", IMAGENET, provenance={"reward": 1.5})
    text = (tmp_path / "p.json").read_text().replace("1.5", "1e999")
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(InputError, match="must be valid JSON"):
        load_policy_file(tmp_path / "p.json")


def test_no_augmentation_can_be_stored(tmp_path):
    save_policy(tmp_path / "p.json", None)
    assert load_policy_file(tmp_path / "p.json") == PolicyFile(None)
    with pytest.raises(InputError, match="must be a list of sub-policies, but got None"):
        load_policy(tmp_path / "p.json")


def test_provenance_comes_back(tmp_path):
    save_policy(tmp_path / "p.json", IMAGENET, "tf", PROVENANCE)
    assert load_policy_file(tmp_path / "p.json").provenance == PROVENANCE


def test_plain_rows_can_be_saved(tmp_path):
    save_policy(tmp_path / "p.json", ((("Rotate", 0.5, 3),),))
    assert load_policy(tmp_path / "p.json") == ((("Rotate", 0.5, 3),),)


def test_many_rows(tmp_path):
    policy = RandAugment(3, 9).as_policy()
    save_policy(tmp_path / "p.json", policy, "randaugment")
    assert load_policy_file(tmp_path / "p.json").policy == policy


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
        (
            document(format="other"),
            "format: must be 'augsearch-policy' or 'augsearch-schedule', but got 'other'",
        ),
        (document(format=...), "format: must be"),
        ([1, 2], "format: must be"),
        ("text", "format: must be"),
        (document(version=3), "version: must be at most 2, but got 3; update"),
        (document(version=2), "transform: must be one of"),
        (document(version=2, transform="RandAugment"), "field of RandAugment: must be one of"),
        (document(version="1"), "version: must be a positive integer"),
        (document(version=True), "version: must be a positive integer"),
        (document(version=0), "version: must be a positive integer"),
        (document(provenence={}), "field of a policy: must be one of .*'provenence'"),
        (document(policy=...), "policy: must be given"),
        (document(bins=...), "bins: must be given"),
        (document(convention=...), "convention: must be given"),
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
    with pytest.raises(InputError, match=f"more than {MAX_BYTES} bytes"):
        load_policy(tmp_path / "p.json")


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")  # opening it would wait for a writer for ever
    os.symlink("/dev/zero", tmp_path / "zero.json")
    os.symlink(tmp_path / "loop.json", tmp_path / "loop.json")
    for path in (
        tmp_path, tmp_path / "pipe.json", "/dev/zero", tmp_path / "zero.json",
        tmp_path / "loop.json", "null\0.json", "x" * 5000 + ".json",
    ):  # fmt: skip
        for read in (load_policy, load_schedule):
            with pytest.raises(InputError, match="must be an ordinary, readable file"):
                read(path)
    with pytest.raises(InputError, match="must be an existing file"):
        load_policy(tmp_path / "absent.json")
    with pytest.raises(InputError, match="not an ordinary file"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(InputError, match="must be a readable file"):
        read_json(tmp_path / "absent.json")


def test_a_file_that_becomes_a_pipe_while_it_is_opened(tmp_path, monkeypatch):
    path, stat = tmp_path / "p.json", os.stat
    save_policy(path, IMAGENET)

    def then_swapped(*arguments, **options):
        found = stat(*arguments, **options)
        path.unlink()
        os.mkfifo(path)
        monkeypatch.setattr(os, "stat", stat)
        return found

    monkeypatch.setattr(os, "stat", then_swapped)
    with pytest.raises(InputError, match="not an ordinary file"):
        load_policy(path)


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, (1, 2), {1: "one"}])
def test_provenance_must_be_json(tmp_path, value):
    with pytest.raises(InputError, match="provenance: must be plain JSON"):
        save_policy(tmp_path / "p.json", IMAGENET, "paper", {"value": value})
    assert not os.listdir(tmp_path)


@pytest.mark.long
def test_nothing_is_written_that_could_not_be_read_back(tmp_path):
    with pytest.raises(InputError, match="must fit in a file"):
        save_policy(tmp_path / "p.json", IMAGENET, "paper", {"log": "x" * MAX_BYTES})
    long = Policy([[("Rotate", 0.5, 3)] * 60] * 2000)
    with pytest.raises(InputError, match="must fit in a file"):
        save_policy(tmp_path / "p.txt", long)
    with pytest.raises(InputError, match="must fit in a file"):
        save_schedule(tmp_path / "s.json", Schedule([(0, IMAGENET)], 3), {"log": "x" * MAX_BYTES})
    with pytest.raises(InputError, match=f"must be at most {MAX_JSON_BYTES}"):
        write_json(tmp_path / "m.json", "x" * MAX_JSON_BYTES)
    assert not os.listdir(tmp_path)
    save_policy(tmp_path / "p.json", long)
    assert load_policy(tmp_path / "p.json") == long


@pytest.mark.long
def test_a_schedule_above_a_mebibyte(tmp_path):
    rows = [[("Rotate", 0.5, 3)] * 60] * 20
    schedule = Schedule([(i, rows) for i in range(50)], 50)
    save_schedule(tmp_path / "s.json", schedule)
    assert (tmp_path / "s.json").stat().st_size > 2**20
    assert load_schedule(tmp_path / "s.json") == schedule


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
        (
            '"epochs": 4',
            '"epoch": 4',
            "field of a schedule: must be one of .*did you mean 'epochs'",
        ),
        ('"epochs": 4, ', "", "epochs: must be given"),
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


@pytest.mark.parametrize(
    "augmentation",
    [PolicyTransform(IMAGENET, "tf"), PolicyTransform(IMAGENET, fill=1), RandAugment(),
     TrivialAugmentWide(), UniformAugment(), None, ScheduleTransform(Schedule([(0, IMAGENET)], 4)),
     RandAugment(1, 9).as_policy()],
    ids=range(8),
)  # fmt: skip
def test_a_tuple_list_holds_the_paper_convention_only(tmp_path, augmentation):
    """Written as text, anything else would be read as the paper's without a word."""
    for path in (tmp_path / "p.txt", tmp_path / "P.TXT"):
        with pytest.raises(InputError, match="paper|31 bins|must be 10"):
            save_policy(path, augmentation)
    assert not os.listdir(tmp_path)
    save_policy(tmp_path / "p.txt", PolicyTransform(IMAGENET))
    assert load_policy(tmp_path / "p.txt") == IMAGENET


def test_a_transform_brings_its_own_convention(tmp_path):
    with pytest.raises(InputError, match="convention: must be left out"):
        save_policy(tmp_path / "p.json", PolicyTransform(IMAGENET), "tf")


def test_the_ending_says_the_kind(tmp_path):
    """What save_policy writes, load_policy reads, in any case of the ending; others are refused."""
    for name in ("a.JSON", "b.TXT"):
        save_policy(tmp_path / name, IMAGENET)
        assert load_policy(tmp_path / name) == IMAGENET
    with pytest.raises(InputError, match=r"ending: must be one of \.json, \.txt"):
        save_policy(tmp_path / "c.policy", IMAGENET)


def test_what_a_policy_file_holds_a_journal_line_holds():
    """Else an arm would be trained, and its result refused by the journal."""
    from proxy_tasks.trials import MAX_LINE_BYTES

    assert MAX_LINE_BYTES >= MAX_BYTES + 2**20


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path = tmp_path / f"{'x' * 250}.json"  # as long as a name may be
    contents = [str(number) * 100_000 for number in range(4)]

    def write(content):
        for _ in range(15):
            write_atomically(path, content)
            assert path.read_text() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert os.listdir(tmp_path) == [path.name]


def test_a_schedule_is_saved_as_its_transform_is(tmp_path):
    schedule = Schedule([(0, IMAGENET)], 5)
    save_policy(tmp_path / "one.json", schedule)
    save_schedule(tmp_path / "two.json", schedule)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    with pytest.raises(InputError, match="must be the transform of an epoch"):
        load_policy_file(tmp_path / "one.json").transform(None)
    with pytest.raises(InputError, match="provenance"):
        save_policy(tmp_path / "three.json", IMAGENET, provenance=["a"])
    with pytest.raises(InputError, match="ranges"):
        Schedule.from_json({})


def test_what_is_as_it_should_be_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "file"
    assert write_where_other(path, "é") and path.read_bytes() == "é".encode()
    assert write_where_other(path, b"other") and path.read_bytes() == b"other"
    monkeypatch.setattr(files, "write_atomically", None)
    assert not write_where_other(path, "other")
