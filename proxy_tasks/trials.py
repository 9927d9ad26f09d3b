"""Trials: the one record of an evaluation, from worker to journal to report, and its one reader.

A run's journal (trials.jsonl, version 2) holds one JSON object per line, with exactly the fields of
`Trial`. Lines stand in order of arrival; what they mean depends on their key (batch, slot) alone.

    trials = read_journal("runs/first/trials.jsonl")
    best = best_trials(trials, 5)
    policy = decode_augmentation(best[0].augmentation)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from policies.augmentations import decode_augmentation
from policies.errors import InputError, check_integer
from policies.files import parse_json
from proxy_tasks.evaluators.evaluation import PARTS, Evaluation

Key = tuple[int, int]

JOURNAL_NAME = "trials.jsonl"
# Names of the evaluators of a search: its own, and what a staged one asks first.
MAIN, CHEAP = "main", "cheap"
STATUSES = ("ok", "failed", "duplicate")
MAX_LINE_BYTES = 2**25  # whatever augmentation a policy file holds (policies.policy_files), it fits


@dataclass(frozen=True)
class Trial:
    """One evaluation as it ended.

    Attributes:
        batch: >= 0, with `slot` its place in the search.
        slot: >= 0.
        label: free text for reports, for example the name of an arm.
        scorer: name of the configured evaluator that made it, one of the run's.
        part: "validation", or in comparisons "test".
        seed: of the evaluation, 0 <= seed < 2**63.
        augmentation: what `policies.augmentations.encode_augmentation` gives.
        status: "ok"; "failed" (after all retries); or "duplicate" of an earlier trial with the
            same scorer, part, seed and augmentation, whose result it repeats at no cost.
        attempts: evaluations made for it, failed ones included; 0 for a duplicate.
        evaluation: the result; None when failed.
        error: why it failed, one line; else None.
        duplicate_of: key of the original; else None.
        started: seconds since 1970 by the worker's clock.
        finished: likewise.
        worker: "host:pid" of the process that made it; None for a duplicate.
        parent: key of the trial whose artifact the evaluation started from; else None.
        artifact: sha256 (hex) of what the evaluation left for others to start from; else None.
    """

    batch: int
    slot: int
    label: str
    scorer: str
    part: str
    seed: int
    augmentation: list[Any] | dict[str, Any] | None
    status: str
    attempts: int
    evaluation: Evaluation | None
    error: str | None
    duplicate_of: Key | None
    started: float
    finished: float
    worker: str | None
    parent: Key | None = None
    artifact: str | None = None

    @property
    def key(self) -> Key:
        """(batch, slot), unique within a run."""
        return (self.batch, self.slot)

    @property
    def result(self) -> Evaluation:
        """The evaluation of a trial that has one. Raises ValueError for a failed trial."""
        if self.evaluation is None:
            raise ValueError(f"trial {self.key} failed and has no result")
        return self.evaluation

    @property
    def reward(self) -> float:
        """The reward of a trial that has one. Raises ValueError for any other."""
        reward = self.result.reward
        if reward is None:
            raise ValueError(f"trial {self.key} diverged and has no reward")
        return reward

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON data; floats survive exactly."""
        data = {name: getattr(self, name) for name in _FIELDS}
        for name in ("duplicate_of", "parent"):
            data[name] = None if data[name] is None else list(data[name])
        data["evaluation"] = None if self.evaluation is None else self.evaluation.to_json()
        return data

    @classmethod
    def from_json(cls, data: object) -> Trial:
        """Inverse of `to_json`, strict. Raises ValueError saying what is wrong."""
        fields = _checked_types(data)
        for name in ("duplicate_of", "parent"):
            if fields[name] is not None:
                fields[name] = _key(fields[name], name)
        if fields["evaluation"] is not None:
            try:
                fields["evaluation"] = Evaluation.from_json(fields["evaluation"])
            except ValueError as error:
                raise ValueError(f"evaluation.{error}") from None
        trial = cls(**fields)
        _check_values(trial)
        return trial

    def to_line(self) -> bytes:
        """One journal line, newline included.

        Raises ValueError (TypeError for objects that are no JSON data) for what would not be read
        back: what is written can be read.
        """
        data = self.to_json()
        Trial.from_json(data)
        line = json.dumps(data, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a line must be at most {MAX_LINE_BYTES} bytes, but has {len(line)}")
        return line

    @classmethod
    def from_line(cls, line: bytes) -> Trial:
        """Inverse of `to_line`. Raises ValueError saying what is wrong."""
        return cls.from_json(parse_json(line))


_NUMBER = (int, float)
_TEXT = (str,)
_KEY = (list, type(None))
_OPTIONAL_TEXT = (str, type(None))
# Types of a line's fields in JSON; all are required.
_FIELDS: dict[str, tuple[type, ...]] = {
    "batch": (int,),
    "slot": (int,),
    "label": _TEXT,
    "scorer": _TEXT,
    "part": _TEXT,
    "seed": (int,),
    "augmentation": (list, dict, type(None)),
    "status": _TEXT,
    "attempts": (int,),
    "evaluation": (dict, type(None)),
    "error": _OPTIONAL_TEXT,
    "duplicate_of": _KEY,
    "started": _NUMBER,
    "finished": _NUMBER,
    "worker": _OPTIONAL_TEXT,
    "parent": _KEY,
    "artifact": _OPTIONAL_TEXT,
}


def _checked_types(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"no object, but a {type(data).__name__}")
    if data.keys() != _FIELDS.keys():
        missing = sorted(_FIELDS.keys() - data.keys())
        extra = sorted(data.keys() - _FIELDS.keys())
        raise ValueError(f"missing fields {missing} and unknown fields {extra}")
    for name, types in _FIELDS.items():
        value = data[name]
        if not isinstance(value, types) or isinstance(value, bool):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise ValueError(f"{name} must be {wanted}, but is {value!r:.80}")
    return dict(data)


def _key(value: list, name: str) -> Key:
    if len(value) != 2 or any(type(n) is not int or n < 0 for n in value):
        raise ValueError(f"{name} must be [batch, slot], but is {value!r:.80}")
    return (value[0], value[1])


def _check_values(trial: Trial) -> None:
    for name in ("batch", "slot", "seed", "attempts"):
        if not 0 <= getattr(trial, name) < 2**63:
            raise ValueError(f"{name} must lie in 0..2**63-1, but is {getattr(trial, name)}")
    for name in ("started", "finished"):
        if not math.isfinite(getattr(trial, name)):
            raise ValueError(f"{name} must be finite, but is {getattr(trial, name)}")
    if trial.part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, but is {trial.part!r:.80}")
    decode_augmentation(trial.augmentation)
    status = trial.status
    if status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, but is {status!r:.80}")
    if (trial.evaluation is None) != (trial.error is not None):
        raise ValueError("a trial must have either a result or an error")
    if status != "duplicate" and (status == "ok") != (trial.error is None):
        raise ValueError(f"an error and status {status} do not go together")
    if (status == "duplicate") != (trial.duplicate_of is not None):
        raise ValueError("duplicate_of and status duplicate go together")
    if trial.artifact is not None and not re.fullmatch("[0-9a-f]{64}", trial.artifact):
        raise ValueError(f"artifact must be a sha256 in hex, but is {trial.artifact!r:.80}")


# Reading ---------------------------------------------------------------------------------------


def read_journal(path: Path | str) -> list[Trial]:
    """All trials of a journal, in order of arrival.

    A last line without its line end is left out: the run that wrote it was killed, and makes that
    evaluation again when it is resumed.

    Raises:
        InputError: when there is no such file, or for a line that is not as the engine wrote it or
            repeats a key, naming the line.
    """
    path = Path(path)
    # is_file() before open(): opening a pipe or a device would wait for ever.
    if not path.is_file():
        raise InputError("journal", "must be an existing file", str(path), "check the path")
    try:
        with path.open("rb") as stream:
            lines = JournalLines(stream, path)
            return [trial for trial, _ in lines]
    except OSError as error:
        raise InputError(str(path), "must be readable", error.strerror, "check it") from error


class JournalLines:
    """Iterates over (trial, length of its line in bytes) of an open journal, strictly.

    Afterwards `rest` is what follows the last whole line: b"", or a line that was cut short.
    Raises InputError as `read_journal` does.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self.rest = b""

    def __iter__(self) -> Iterator[tuple[Trial, int]]:
        seen: set[Key] = set()
        number = 0
        while line := self._stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise self._corrupted(number, f"more than {MAX_LINE_BYTES} bytes")
            if not line.endswith(b"\n"):
                self.rest = line
                return
            try:
                trial = Trial.from_line(line)
            except ValueError as error:
                raise self._corrupted(number, str(error)) from error
            if trial.key in seen:
                raise self._corrupted(number, f"batch {trial.batch}, slot {trial.slot} again")
            seen.add(trial.key)
            yield trial, len(line)

    def _corrupted(self, number: int, reason: str) -> InputError:
        return InputError(
            f"{self._path}, line {number}",
            "must be a journal line as the engine wrote it",
            reason,
            "restore the file from a copy, or delete this line to have it evaluated again",
        )


# What a run found ------------------------------------------------------------------------------


def best_trials(trials: Iterable[Trial], k: int) -> list[Trial]:
    """Up to `k` trials with distinct augmentations, highest reward first.

    An augmentation evaluated several times counts with its highest reward. Equal rewards: the
    earlier (batch, slot) first. Trials that failed are left out, and so are diverged ones: a child
    that did not train is below every child that did, whatever its reward, and never a result.
    """
    check_integer("k", k, 1)
    kept: dict[str, Trial] = {}
    worst = (math.inf, (0, 0))
    for trial in trials:
        if trial.evaluation is None or trial.evaluation.diverged or _rank(trial) >= worst:
            continue
        name = json.dumps(trial.augmentation)
        if name in kept and _rank(kept[name]) <= _rank(trial):
            continue
        kept[name] = trial
        if len(kept) > k:
            del kept[max(kept, key=lambda name: _rank(kept[name]))]
        if len(kept) == k:
            worst = max(_rank(trial) for trial in kept.values())
    return sorted(kept.values(), key=_rank)


def _rank(trial: Trial) -> tuple[float, Key]:
    return (-trial.reward, trial.key)


def image_passes(trials: Iterable[Trial]) -> int:
    """Image passes of all evaluations that were made; duplicates cost nothing."""
    return sum(trial.result.image_passes for trial in trials if trial.status == "ok")


def to_compare(mean: float) -> float:
    """A mean reward without its rounding, so that means of equal sums are equal."""
    return round(mean, 12)


def rank_by_mean(rewards: Mapping[Key, Sequence[float | None]]) -> list[Key]:
    """Cells (N, M) of a grid, the highest mean reward first.

    A cell with a None among its rewards, of a child that failed or diverged, is left out. Cells
    with more rewards come before those with fewer: a mean of few is high by luck more often. Ties
    go to the gentler cell, of fewer operations, then smaller magnitude.
    """

    order = {}
    for cell, told in rewards.items():
        sound = [reward for reward in told if reward is not None]
        if len(sound) == len(told):
            mean = math.fsum(sound) / max(1, len(sound))
            order[cell] = -len(sound), -to_compare(mean), cell
    return sorted(order, key=order.__getitem__)
