"""What of a run is left out so that its failed evaluations are made again."""

from __future__ import annotations

import math

from policies.errors import InputError

from .blobs import Blobs
from .journal import Journal


def forget_failed(journal: Journal, lag: int | None, blobs: Blobs) -> int:
    """Leave out of the journal what failed and what may have depended on it; returns how many.

    Raises InputError, and leaves all as it is, when what it would go on from was deleted.
    """
    failed = {trial.key for trial in journal.trials() if trial.error is not None}
    if not failed:
        return 0
    first = min(batch for batch, _ in failed)
    last = math.inf if lag is None else first + lag
    kept = {t.key for t in journal.trials() if t.key not in failed and t.batch <= last}
    # What is made again goes on from its parents, what follows from anything in the last batch.
    parents = {t.parent for t in journal.trials() if t.key not in kept}
    for trial in journal.trials():
        needed = trial.key in parents or trial.batch == last
        if trial.key in kept and needed and trial.artifact and not blobs.has_artifact(trial.key):
            raise InputError(
                "retry-failed", "must find what the failed evaluations had gone on from",
                f"batch {first} failed, and what evaluation {trial.key} left is deleted",
                "resume without it, or start a new run",
            )  # fmt: skip
    return journal.keep_only(lambda trial: trial.key in kept)
