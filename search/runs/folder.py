"""The folder of a run: when it may be begun, how it begins, who may work in it.

A folder begins with its lock; config.json comes last. Until something is finished in it, it holds
only what beginning writes, and may be begun again with a corrected command: whoever is killed
while starting leaves nothing that stands in the way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policies.errors import InputError
from policies.files import fsync_directory, write_atomically, write_json
from proxy_tasks.manifest import Manifest
from proxy_tasks.run_format import (
    CONFIG_NAME,
    COSTS_NAME,
    ENVIRONMENT_NAME,
    LOG_NAME,
    MANIFEST_NAME,
    PLAN_NAME,
    POLICY_NAME,
    POLICY_TEXT_NAME,
    PREPARED_NAME,
    PREPARED_RECORD,
    RECIPE_NAME,
    SCHEDULE_NAME,
    SEARCHED_CONFIG,
    SEARCHED_JOURNAL,
)
from proxy_tasks.trials import JOURNAL_NAME
from search.errors import no_locks

LOCK_NAME = ".augsearch.lock"
OPTUNA_NAME = "optuna.db"
# What may lie in a folder in which nothing is finished yet.
_BEGINNING = {
    CONFIG_NAME, COSTS_NAME, ENVIRONMENT_NAME, MANIFEST_NAME, LOG_NAME, LOCK_NAME, JOURNAL_NAME,
    PREPARED_RECORD, RECIPE_NAME, SEARCHED_CONFIG, SEARCHED_JOURNAL, OPTUNA_NAME, PLAN_NAME,
}  # fmt: skip


def is_empty(out: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not out.exists() or (out.is_dir() and not _content(out))


def _content(out: Path) -> list[Path]:
    """What lies in a folder, but for what a file system puts at its own top (a disk of its own)."""
    return [path for path in out.iterdir() if path.name != "lost+found"]


def has_begun(out: Path) -> bool:
    """Whether a run was begun in this folder, finished or not."""
    return (out / LOCK_NAME).is_file() or (out / CONFIG_NAME).is_file()


def has_results(out: Path) -> bool:
    """Whether something is finished in a folder, or lies there that no run has begun with."""
    for path in _content(out):
        if path.is_dir() and not path.is_symlink():
            if path.name != PREPARED_NAME and has_results(path):
                return True
        elif path.name == JOURNAL_NAME:
            with open(path, "rb") as stream:
                if stream.readline().endswith(b"\n"):
                    return True
        elif path.name not in _BEGINNING and not _is_temporary(path.name):
            return True
    return False


def check_journal(out: Path, below: bool = True) -> None:
    """InputError when a run with results has no journal any more: it would start from zero.

    below: whether a journal of a stage will do.
    """
    if not any(out.rglob(JOURNAL_NAME) if below else out.glob(JOURNAL_NAME)):
        raise InputError(
            str(out / JOURNAL_NAME),
            "must be there, since the run has results",
            "no such file",
            "restore it from a copy, or start a new run in another folder",
        )


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def check_free(out: Path) -> None:
    """InputError unless a run may be begun in `out`."""
    if is_empty(out):
        return
    if not out.is_dir() or not (out / LOCK_NAME).is_file() or has_results(out):
        raise InputError(
            "out",
            "must be a new folder",
            str(out),
            "choose another, or pass --resume to go on with the run in it",
        )


# What a run or stage exports when it is complete; policy.json says that it is.
RESULTS = (POLICY_NAME, SCHEDULE_NAME, POLICY_TEXT_NAME)


def forget_policy(out: Path) -> list[str]:
    """Remove what says that the run or stage in `out` is complete; its journals make it again.

    Returns the names of what was there.
    """
    found = [name for name in RESULTS if (out / name).is_file()]
    for name in found:
        (out / name).unlink()
        fsync_directory(out)
    return found


def forget_results(out: Path) -> None:
    """Leave of a run, or of a stage, what it began with, as if nothing had been evaluated.

    The journal goes last, so whoever is killed meanwhile leaves a run that can go on. A folder
    that held nothing else goes too.
    """
    if not out.is_dir():
        return
    for path in out.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name != PREPARED_NAME:
            shutil.rmtree(path)
        elif path.name not in {*_BEGINNING, PREPARED_NAME}:
            path.unlink()
    fsync_directory(out)
    (out / JOURNAL_NAME).unlink(missing_ok=True)
    fsync_directory(out)
    if is_empty(out):
        out.rmdir()
        fsync_directory(out.parent)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder: two runs in one folder would spoil each other's.

    The lock is the kernel's (flock): it ends with this process, however that ends.
    """
    handle = os.open(out / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "out", "must not be in use", str(out), "another process is running in it"
            ) from error
        except OSError as error:
            raise no_locks(out, error) from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def begun(out: Path, files: Mapping[str, Any]) -> Iterator[None]:
    """A folder that begins with these JSON files (config.json last), locked while in use.

    What an earlier attempt left is removed first. When the user turns out to have made a mistake
    (InputError) before anything is finished, nothing is left behind.
    """
    check_free(out)
    made: list[Path] = []
    try:
        for folder in (*reversed(out.parents), out):
            if not folder.exists():
                with contextlib.suppress(FileExistsError):  # another run has made it just now
                    folder.mkdir()
                    made.append(folder)
                    fsync_directory(folder.parent)
    except OSError as error:
        _undo(made)
        raise _cannot_create(out, error) from error
    with locked(out):
        check_free(out)  # another process may have been here since
        _clear(out)
        try:
            try:
                for name, value in sorted(files.items(), key=lambda item: item[0] == CONFIG_NAME):
                    write = write_atomically if isinstance(value, bytes) else write_json
                    write(out / name, value)
            except OSError as error:
                raise _cannot_create(out, error) from error
            yield
        except InputError:
            if not has_results(out):
                _clear(out)
                (out / LOCK_NAME).unlink()
                _undo(made)
            raise


def _cannot_create(out: Path, error: OSError) -> InputError:
    return InputError(
        "out",
        "must be a folder that can be created",
        f"{out} ({error.strerror})",
        "check the path, its permissions and the room on the disk",
    )


def _clear(out: Path) -> None:
    for path in _content(out):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()


def _undo(made: list[Path]) -> None:
    """Remove the folders that were made, but for those in which another run has begun since."""
    with contextlib.suppress(OSError):
        for folder in reversed(made):
            folder.rmdir()


def check_manifest(out: Path, task: Any) -> None:
    """InputError unless the task consists of the images that the run was started with."""
    saved = Manifest.read(out / MANIFEST_NAME)
    if saved.hash != task.manifest_hash:
        raise InputError(
            "data",
            f"must be the images the run was started with (manifest {saved.hash[:16]})",
            f"{task.manifest_hash[:16]}, {_changed(saved, task.manifest)}",
            "restore them, or start a new run in another folder",
        )


def _changed(before: Manifest, after: Manifest) -> str:
    """How the images of two manifests differ, in a few words."""
    told, said = ({row for part in m.parts.values() for row in part} for m in (before, after))
    more, gone = sorted(said - told), sorted(told - said)
    if not more and not gone:
        return "the same images in other parts or with other settings"
    example = (more or gone)[0][0]
    return f"{len(more)} of them others, {len(gone)} not there, {example} for one"
