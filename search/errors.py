"""What can end a search early, other than a user's mistake (`policies.errors.InputError`)."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path

from policies.errors import InputError
from proxy_tasks.run_format import (
    COMPARE,
    COMPARE_CHILD,
    COMPARE_OTHER,
    CONFIG_NAME,
    CONTROLLER,
    DRAW,
    GRID,
    RANDOM,
)

# What the folders of stages are called, by the kind of run.
STAGES = {
    "rederive": rf"({CONTROLLER}|{RANDOM})(-\d+)?|{GRID}|{COMPARE}|{COMPARE_OTHER}|{COMPARE_CHILD}",
    "replicate": rf"{DRAW}\d+",
}


def resume_command(directory: Path, *options: str) -> str:
    """What to type to go on with the run in `directory`, or of which it is a stage."""
    return shlex.join(["augsearch", "resume", str(whole_run(directory)), *options])


def whole_run(directory: Path) -> Path:
    """The folder of the run in `directory`, or of which it is a stage."""
    root = directory
    if kind_of_run(directory) is None and kind_of_run(directory.parent) is not None:
        root = directory.parent
    # Stages of some runs are runs themselves; but other runs may lie in a run's folder, too.
    for above in directory.parents:
        stages = STAGES.get(kind_of_run(above) or "")
        if stages and re.fullmatch(stages, directory.relative_to(above).parts[0]):
            root = above
    return root


def kind_of_run(directory: Path) -> str | None:
    """None where there is no run; config.json is the name of other programs' files too."""
    try:
        data = json.loads((directory / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = data.get("kind") if isinstance(data, dict) else None
    return kind if isinstance(kind, str) else None


class SearchError(RuntimeError):
    """A search that could not go on; everything finished is safe in its journal.

    `exit_code` is what a command line should exit with.
    """

    exit_code = 1


class JournalError(SearchError):
    """The journal cannot be written (disk full, read-only, removed) or contradicts the search."""


class WorkerError(SearchError):
    """Workers cannot be started, or evaluations fail one after the other.

    detail: a traceback, for the log.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        self.detail = detail
        super().__init__(message)


class SearchInterrupted(SearchError):
    """Stopped by SIGINT or SIGTERM; `exit_code` is 128 + the signal's number (130, 143)."""

    def __init__(
        self,
        signal_number: int,
        directory: Path | None,
        finished: int,
        unit: str = "evaluations",
    ) -> None:
        """directory: of the run that can be resumed; None where nothing is kept. unit: what is
        counted."""
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        self.finished = finished
        done = f"after {finished} {unit}"
        if directory is None:
            kept = ", none of them kept"
        else:
            root = whole_run(directory)
            if root != directory:
                done += f" of its stage {directory.relative_to(root)}"
            kept = f"; all that finished is kept in {root}; go on with: {resume_command(directory)}"
        super().__init__(f"stopped by {signal.Signals(signal_number).name} {done}{kept}")


class NothingFound(SearchError):
    """All evaluations are made, but they do not say that any candidate is better than another."""


class OutputError(SearchError):
    """Standard output takes no more; what was to be written in files is written."""


def no_locks(out: Path, error: OSError) -> InputError:
    """A file system without flock: of NFS or Lustre, as they are mounted."""
    return InputError(
        "out", "must lie where files can be locked", f"{out} ({error.strerror})",
        "put runs on a local disk, or mount this one with flock",
    )  # fmt: skip
