"""Files that hold an augmentation: policies, transforms and schedules, with where they come from.

JSON (``.json``) holds anything that ``encode_augmentation`` can write, and its provenance. A tuple
list (``.txt``) holds a policy alone, and is always read in the paper's convention: nothing that
means another convention is written as one.

What JSON files contain beside ``format``, ``version`` and ``provenance`` (an object or null):

=====================================  ============================================================
``augsearch-policy``, version 1        ``convention``, ``bins``, ``policy`` (rows, one a line). Read
                                       as a ``Policy`` in the paper convention, as a
                                       ``PolicyTransform`` in others; written for a ``Policy``.
``augsearch-policy``, version 2        the fields of ``encode_augmentation``, e.g. ``transform``,
                                       ``n`` and ``m`` for RandAugment; ``transform: null`` for
                                       no augmentation
``augsearch-schedule``, version 1      ``epochs``, ``ranges`` (one a line)
=====================================  ============================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .augmentations import (
    Augmentation,
    as_transform,
    check_fields,
    decode_augmentation,
    encode_augmentation,
)
from .base import Transform
from .errors import InputError, check_choice, located
from .files import Document, dump_document, parse_document, read_text, write_atomically
from .policy import MAX_TEXT_BYTES, Policy, check_bins
from .schedule import Schedule, ScheduleTransform
from .transforms import PolicyTransform, RandAugment, TrivialAugmentWide

POLICY_FORMAT, SCHEDULE_FORMAT = "augsearch-policy", "augsearch-schedule"
VERSIONS = {POLICY_FORMAT: 2, SCHEDULE_FORMAT: 1}
"""The newest version of each format that can be read."""
MAX_BYTES = 2**24
"""Longest JSON file that is written or read; a tuple list has at most MAX_TEXT_BYTES."""
_FIX = (
    "give a file written by save_policy, a tuple list with the ending .txt, or what `augsearch "
    "export --from` makes of another library's"
)


@dataclass(frozen=True)
class PolicyFile:
    """The content of a policy file.

    Attributes:
        augmentation: a ``Policy`` in the paper convention, a transform, a schedule's transform, or
            None for no augmentation.
        provenance: where it comes from, e.g. task, manifest hash, searcher, seed, budget, reward.
    """

    augmentation: Augmentation
    provenance: dict[str, Any] | None = None

    @property
    def transform(self) -> Transform | ScheduleTransform:
        """What augments images, whatever the file holds; InputError for no augmentation.

        It draws from torch's global generator; ``with_generator`` gives it one of its own.
        """
        if self.augmentation is None:
            raise InputError(
                "augmentation", "must augment", None, "leave the transform out of the pipeline"
            )
        return as_transform(self.augmentation)

    @property
    def policy(self) -> Policy:
        """The sub-policies; InputError for an augmentation that has none. See ``convention``."""
        if isinstance(self.augmentation, Policy):
            return self.augmentation
        if isinstance(self.augmentation, PolicyTransform):
            return self.augmentation.policy
        fix = "use load_policy_file(path).augmentation as it is"
        if isinstance(self.augmentation, RandAugment | TrivialAugmentWide):
            fix = (
                "load_policy_file(path).augmentation.as_policy() expands it, in the "
                f"{self.augmentation.convention} convention"
            )
        raise InputError("augmentation", "must be a list of sub-policies", self.augmentation, fix)

    @property
    def convention(self) -> str:
        """What the magnitudes of ``policy`` mean, a name in ``CONVENTIONS``."""
        policy = self.policy  # refuses what has no sub-policies
        if policy is self.augmentation:
            check_bins(policy, "paper")
        return getattr(self.augmentation, "convention", "paper")


def save_policy(
    path: str | os.PathLike[str],
    augmentation: Augmentation | Sequence,
    convention: str = "paper",
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write an augmentation to a file that appears whole or not at all.

    Args:
        path: a name ending in ``.json``, or in ``.txt`` for the tuple list alone.
        augmentation: a policy (or its plain rows), a transform, a schedule's transform, or None.
        convention: of a policy; a transform brings its own.
        provenance: any plain JSON data about where it comes from; JSON files only.

    Raises:
        InputError: for another ending, what a file of this kind could not give back, or a file
            above the limit that reading has.
    """
    path = Path(path)
    if isinstance(augmentation, Schedule):
        augmentation = ScheduleTransform(augmentation)
    if convention != "paper" and not isinstance(augmentation, Sequence):
        raise InputError(
            "convention", "must be left out for all but policies", convention, "leave it out",
        )  # fmt: skip
    if isinstance(augmentation, Sequence):
        transform = PolicyTransform(augmentation, convention)
        augmentation = transform.policy if convention == "paper" else transform
    ending = path.suffix.lower()
    check_choice("path's ending", ending, (".json", ".txt"))
    if ending == ".txt":
        text, most = to_text(augmentation), MAX_TEXT_BYTES
    else:
        text, most = to_json_text(PolicyFile(augmentation, _plain(provenance))), MAX_BYTES
    size = len(text.encode())
    if size > most:
        raise InputError(
            "policy and provenance", f"must fit in a file of {most} bytes", size,
            "leave out some of the provenance",
        )  # fmt: skip
    write_atomically(path, text)


def to_text(augmentation: Augmentation) -> str:
    """The tuple list of a policy; InputError unless it is one in the paper convention, fill 0."""
    if isinstance(augmentation, Policy) and augmentation.bins == 10:
        return augmentation.to_text()
    if isinstance(augmentation, PolicyTransform):
        if augmentation.convention == "paper" and augmentation.fill == 0:
            return augmentation.policy.to_text()
    raise InputError(
        "augmentation", "must be a policy in the paper convention to be a tuple list, which is read"
        " in that one", augmentation, "save it as .json",
    )  # fmt: skip


def to_json_text(file: PolicyFile) -> str:
    """The content of a JSON file as ``save_policy`` writes it and ``load_policy_file`` reads it."""
    augmentation = file.augmentation
    encoded = encode_augmentation(augmentation)
    if isinstance(encoded, list):
        body = {"convention": "paper", "bins": 10, "policy": encoded}
        document = Document(POLICY_FORMAT, 1, body, file.provenance)
    elif isinstance(augmentation, ScheduleTransform):
        body = augmentation.schedule.to_json()
        document = Document(SCHEDULE_FORMAT, 1, body, file.provenance)
    else:
        body = {"transform": None} if encoded is None else encoded
        document = Document(POLICY_FORMAT, 2, body, file.provenance)
    return dump_document(document, one_a_line=("policy", "ranges"))


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file, in the paper convention.

    Raises:
        InputError: where the file is none, or holds anything else: another convention or a
            transform (``load_policy_file`` reads all).
    """
    file = load_policy_file(path)
    policy = file.policy
    if not isinstance(file.augmentation, Policy):
        raise InputError(
            str(path), "must hold a policy in the paper convention, fill 0", file.augmentation,
            "take load_policy_file(path).augmentation",
        )  # fmt: skip
    return policy


def load_policy_file(path: str | os.PathLike[str]) -> PolicyFile:
    """Read a file: JSON (``.json``) or a tuple list (anything else: paper convention).

    Nothing in the file is executed. A file that is missing, no ordinary file, too large, of another
    format or a newer version, or has an unknown field raises InputError.
    """
    path = Path(path)
    where = str(path)
    if path.suffix.lower() != ".json":
        text = read_text(path, "policy", MAX_TEXT_BYTES)
        with located(where):
            return PolicyFile(Policy.from_text(text))
    document = parse_document(read_text(path, "policy", MAX_BYTES), where, VERSIONS, _FIX)
    with located(where):
        return PolicyFile(_augmentation(document), document.provenance)


def save_schedule(
    path: str | os.PathLike[str], schedule: Schedule, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a schedule as ``save_policy`` does: JSON, operations by name, one range a line."""
    save_policy(path, ScheduleTransform(schedule), provenance=provenance)


def load_schedule(path: str | os.PathLike[str]) -> Schedule:
    """Read what ``save_schedule`` wrote; InputError for anything else."""
    augmentation = load_policy_file(path).augmentation
    if not isinstance(augmentation, ScheduleTransform):
        raise InputError(
            str(path), "must hold a schedule", augmentation,
            "give a file written by `augsearch pba`",
        )  # fmt: skip
    return augmentation.schedule


def _plain(provenance: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not isinstance(provenance, Mapping | None):
        raise InputError("provenance", "must be an object of names", provenance, "pass a dict")
    return None if provenance is None else dict(provenance)


def _augmentation(document: Document) -> Augmentation:
    body = document.body
    if document.format == SCHEDULE_FORMAT:
        check_fields(body, "a schedule", ("epochs", "ranges"))
        return ScheduleTransform(Schedule.from_json(body))
    if document.version == 1:
        check_fields(body, "a policy", ("convention", "bins", "policy"))
        policy, convention = Policy(body["policy"], body["bins"]), body["convention"]
        check_bins(policy, convention)
        return policy if convention == "paper" else PolicyTransform(policy, convention)
    return None if body == {"transform": None} else decode_augmentation(body, "transform")
