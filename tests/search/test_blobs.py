"""Binary files of a run: no bit that differs from what was written is ever gone on from."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from policies import files
from search.errors import JournalError
from search.runs.blobs import Blobs, DamagedBlob, digest, read_blob, write_blob

CONTENT = bytes(range(40))


@pytest.fixture
def blob(tmp_path):
    path = tmp_path / "prepared" / "main.bin"
    write_blob(path, CONTENT)
    return path


def test_every_flipped_bit_is_noticed(blob):
    written = blob.read_bytes()
    for place in range(len(written)):
        damaged = bytearray(written)
        damaged[place] ^= 1 << place % 8
        blob.write_bytes(damaged)
        with pytest.raises(DamagedBlob, match="damaged"):
            read_blob(blob)
    blob.write_bytes(written)
    assert read_blob(blob) == CONTENT


def test_every_cut_is_noticed(blob):
    written = blob.read_bytes()
    for length in range(len(written)):
        blob.write_bytes(written[:length])
        with pytest.raises(DamagedBlob, match="damaged"):
            read_blob(blob)
    blob.write_bytes(written + b"\n")
    with pytest.raises(DamagedBlob, match="damaged"):
        read_blob(blob)


def test_an_intact_file_of_another_run_is_not_the_one_that_the_journal_names(blob):
    assert read_blob(blob, digest(CONTENT)) == CONTENT
    with pytest.raises(DamagedBlob, match="of another run"):
        read_blob(blob, digest(b"another"))


@pytest.mark.parametrize("there", ["nothing", "a pipe", "a folder", "a link to nothing"])
def test_what_is_no_file_is_not_opened(blob, there):
    blob.unlink()
    if there == "a pipe":
        os.mkfifo(blob)
    elif there == "a folder":
        blob.mkdir()
    elif there == "a link to nothing":
        blob.symlink_to("nowhere")
    with pytest.raises(DamagedBlob, match="missing, or no ordinary file"):
        read_blob(blob)


def test_damaged_shared_weights_are_said_and_made_again(blob, tmp_path):
    said = []
    blobs = Blobs(tmp_path, said.append)
    assert blobs.prepared(["main", "other"]) == {"main": CONTENT} and said == []
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x00")
    assert blobs.prepared(["main"]) == {}
    assert len(said) == 1 and "made again" in said[0]


def test_shared_weights_of_another_run_are_said_and_made_again(tmp_path):
    """Whole in themselves, with a checksum of their own: the run names the one that is its own."""
    said = []
    for name in ("run", "another"):
        (tmp_path / name).mkdir()
    blobs, others = Blobs(tmp_path / "run", said.append), Blobs(tmp_path / "another", pytest.fail)
    for each, content in ((blobs, CONTENT), (others, CONTENT[::-1])):
        each.keep_prepared("main", content)
        assert each.prepared(["main"]) == {"main": content}
    shutil.copy(tmp_path / "another/prepared/main.bin", tmp_path / "run/prepared/main.bin")
    assert blobs.prepared(["main"]) == {} and not blobs.prepared(["other"])
    assert len(said) == 1 and "of another run" in said[0]
    blobs.keep_prepared("main", CONTENT)
    assert blobs.prepared(["main"]) == {"main": CONTENT} and len(said) == 1
    blobs.keep_prepared("main", CONTENT[1:])
    assert "not what it was" in said[1] and blobs.prepared(["main"]) == {"main": CONTENT[1:]}


def test_weights_that_no_record_names_are_those_of_an_earlier_version(blob, tmp_path):
    assert Blobs(tmp_path, pytest.fail).prepared(["main"]) == {"main": CONTENT}


def test_shared_weights_that_the_disk_does_not_take_are_not_lost(tmp_path, monkeypatch):
    """Whoever made them goes on: they may have taken longer than all that follows."""
    said, full = [], OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write = files.write_all

    def nearly_full(handle, data):
        if len(data) > 100 and b"sha256" in bytes(data):
            raise full
        write(handle, data)

    monkeypatch.setattr(files, "write_all", nearly_full)
    blobs = Blobs(tmp_path, said.append)
    blobs.keep_prepared("main", CONTENT)
    assert len(said) == 1 and "No space left" in said[0] and "the run goes on" in said[0]
    assert blobs.prepared(["main"]) == {} and not list((tmp_path / "prepared").iterdir())


def test_what_a_descendant_needs_is_never_made_up(tmp_path):
    blobs = Blobs(tmp_path, pytest.fail)
    blobs.keep_artifact((2, 1), CONTENT)
    assert blobs.artifact((2, 1), digest(CONTENT)) == CONTENT
    path = tmp_path / "artifacts" / "2-1.bin"
    path.write_bytes(path.read_bytes().replace(b"\x07", b"\x06"))
    with pytest.raises(JournalError, match="2-1.bin is damaged"):
        blobs.artifact((2, 1), digest(CONTENT))


def test_a_full_disk_is_said_with_what_to_do(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("policies.files.write_all", full)
    with pytest.raises(JournalError, match=r"cannot write .*No space left.*augsearch resume"):
        Blobs(tmp_path, pytest.fail).keep_artifact((2, 1), CONTENT)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
