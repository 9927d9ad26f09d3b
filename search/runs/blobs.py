"""Binary files of a run folder: shared weights and what evaluations leave for their descendants.

Each file begins with the sha256 of the rest, so that a flipped bit is noticed before anything is
made of the content. The content is data for whoever wrote it; nothing here unpickles it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from policies.errors import InputError
from policies.files import digest, fsync_directory, read_json, write_atomically, write_json
from proxy_tasks.run_format import PREPARED_NAME, PREPARED_RECORD
from proxy_tasks.trials import Key
from search.errors import JournalError, resume_command

_HEADER = b"augsearch 1 sha256 "
MAX_BYTES = 2**36  # checkpoints of large networks take gigabytes


class DamagedBlob(ValueError):
    """A binary file that is not as it was written; the message says how."""


def write_blob(path: Path, content: bytes) -> str:
    """Write the file whole or not at all, and its folder if need be; returns the sha256 (hex)."""
    if not path.parent.is_dir():
        path.parent.mkdir()
        fsync_directory(path.parent.parent)
    checksum = digest(content)
    write_atomically(path, _HEADER + checksum.encode() + b"\n" + content)
    return checksum


def read_blob(path: Path, checksum: str | None = None) -> bytes:
    """The content of a file that `write_blob` wrote.

    checksum: what the content's must be besides, as the run has it.

    Raises:
        DamagedBlob: when it is no ordinary file, or its content is another.
    """
    if not path.is_file():
        raise DamagedBlob(f"{path} is missing, or no ordinary file")
    if path.stat().st_size > MAX_BYTES:
        raise DamagedBlob(f"{path} is larger than {MAX_BYTES} bytes")
    header, newline, content = path.read_bytes().partition(b"\n")
    found = digest(content)
    if not newline or header != _HEADER + found.encode():
        raise DamagedBlob(f"{path} is damaged: its content does not have the checksum it names")
    if checksum is not None and checksum != found:
        raise DamagedBlob(f"{path} is of another run: its sha256 is {found}, not {checksum}")
    return content


class Blobs:
    """The binary files of one run: prepared/SCORER.bin and artifacts/BATCH-SLOT.bin.

    The run names their checksums: of artifacts in its journal, of prepared work in prepared.json.

    note: called with a line of text about a file that is not as it should be.
    """

    def __init__(self, directory: Path, note: Callable[[str], None]) -> None:
        self._directory = directory
        self._note = note

    def prepared(self, scorers: Iterable[str]) -> dict[str, bytes]:
        """The one-off work that is done; what is damaged or of another run is said, and left out to
        be made again."""
        found, known = {}, self._checksums()
        for scorer in scorers:
            path = self._directory / PREPARED_NAME / f"{scorer}.bin"
            if path.exists():
                try:
                    found[scorer] = read_blob(path, known.get(scorer))
                except DamagedBlob as damage:
                    self._note(f"{damage}; what it held is made again")
        return found

    def keep_prepared(self, scorer: str, content: bytes) -> None:
        """So that a resume need not make it again. Where the disk takes no more, that is said:
        whoever has made it can go on without the file."""
        path, known = self._directory / PREPARED_NAME / f"{scorer}.bin", self._checksums()
        checksum = digest(content)
        if known.get(scorer, checksum) != checksum:
            self._note(
                f"{path} was made again and is not what it was (another machine, or other "
                "versions): what was evaluated before and after does not compare exactly"
            )
        try:
            # The name first: whoever is killed in between leaves no file that nothing names.
            write_json(self._directory / PREPARED_RECORD, {**known, scorer: checksum})
            write_blob(path, content)
        except OSError as error:
            self._note(
                f"cannot write {path}: {error.strerror}; the run goes on, but what it holds is "
                "made again when it is resumed"
            )

    def _checksums(self) -> dict[str, str]:
        """Scorer -> sha256; none in a run that was begun before there were any."""
        path = self._directory / PREPARED_RECORD
        known = read_json(path) if path.exists() else {}
        if not isinstance(known, dict):
            raise InputError(str(path), "must be an object", known, "restore it from a copy")
        return known

    def artifact(self, key: Key, checksum: str | None) -> bytes:
        """What the evaluation `key` left. Raises JournalError when that is lost."""
        try:
            return read_blob(self._artifact(key), checksum)
        except DamagedBlob as damage:
            raise JournalError(
                f"{damage}; nothing can go on from it. Restore it from a copy, or start a new run"
            ) from damage

    def has_artifact(self, key: Key) -> bool:
        """Whether what the evaluation `key` left is still there."""
        return self._artifact(key).is_file()

    def keep_artifact(self, key: Key, content: bytes) -> None:
        """Raises JournalError when the disk takes no more."""
        path = self._artifact(key)
        try:
            write_blob(path, content)
        except OSError as error:
            raise JournalError(
                f"cannot write {path}: {error.strerror}; the finished evaluations are safe. Make "
                f"room, then run: {resume_command(self._directory)}"
            ) from error

    def forget_artifacts(self, unwanted: Callable[[Key], bool]) -> None:
        """Delete the artifacts of the evaluations that are `unwanted`."""
        for path in (self._directory / "artifacts").glob("*-*.bin"):
            batch, slot = path.stem.split("-")
            if unwanted((int(batch), int(slot))):
                path.unlink(missing_ok=True)

    def _artifact(self, key: Key) -> Path:
        return self._directory / "artifacts" / f"{key[0]}-{key[1]}.bin"
