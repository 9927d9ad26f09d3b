"""From a candidate to what the journal holds of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from policies.augmentations import encode_augmentation
from search.trial import Candidate, Trial

from .jobs import Outcome

FIELDS = ("scorer", "part", "seed", "augmentation", "parent")


def identity(asked: Mapping[str, Any]) -> bytes:
    """Equal for evaluations that would give the same result; asked: of `asked_fields`."""
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).digest()


def asked_fields(candidate: Candidate) -> dict[str, Any]:
    """What a candidate asks for, as its trial says it; equal in equal evaluations."""
    return {
        "scorer": candidate.scorer,
        "part": candidate.part,
        "seed": candidate.seed,
        "augmentation": encode_augmentation(candidate.augmentation),
        "parent": candidate.parent,
    }


def made_trial(
    candidate: Candidate,
    outcome: Outcome,
    *,
    status: str = "ok",
    evaluation: dict[str, Any] | None = None,
    error: str | None = None,
    artifact: str | None = None,
) -> Trial:
    """Raises ValueError for an evaluation that is none."""
    data = {
        "batch": candidate.batch,
        "slot": candidate.slot,
        "label": candidate.label,
        **asked_fields(candidate),
        "status": status,
        "attempts": outcome.job.attempt,
        "evaluation": evaluation,
        "error": error,
        "duplicate_of": None,
        "started": round(outcome.started, 3),
        "finished": round(outcome.finished, 3),
        "worker": outcome.worker,
        "artifact": artifact,
    }
    data["parent"] = None if candidate.parent is None else list(candidate.parent)
    return Trial.from_json(data)
