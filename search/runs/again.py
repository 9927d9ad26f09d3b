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
    trials = list(journal.trials())
    first = min((trial.batch for trial in trials if trial.error is not None), default=None)
    if first is None:
        return 0
    last = math.inf if lag is None else first + lag
    kept = {t.key: t for t in trials if t.error is None and t.batch <= last}
    # What is made again goes on from its parents, what follows from anything in the last batch.
    parents = {trial.parent for trial in trials if trial.key not in kept}
    for key, trial in kept.items():
        needed = key in parents or trial.batch == last
        if needed and trial.artifact and not blobs.has_artifact(key):
            raise InputError(
                "retry-failed", "must find what the failed evaluations had gone on from",
                f"batch {first} failed, and what evaluation {key} left is deleted",
                "resume without it, or start a new run",
            )  # fmt: skip
    return journal.keep_only(lambda trial: trial.key in kept)
