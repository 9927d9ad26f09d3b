"""Reads a run folder: the journal as a table, the rest as plain dictionaries. Never writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from policies import InputError, Policy, load_policy_file

METRICS = ("accuracy", "log_likelihood", "calibrated_log_likelihood", "temperature")
_LINE = ("batch", "slot", "label", "evaluator", "part", "seed", "status", "attempts", "error")
_EVALUATION = ("reward", "stderr", "seconds", "image_passes", "diverged")
_TIMES = ("started", "finished", "worker")
COLUMNS = (*_LINE, *_EVALUATION, *METRICS, *_TIMES, "policy", "details")


@dataclass(frozen=True)
class Run:
    """A run folder in memory.

    `trials` has one row per journal line, ordered by batch and slot, with the columns COLUMNS:
    `policy` is a tuple of sub-policies, the JSON text of another augmentation, or None; a duplicate
    carries the evaluation that it repeats, with `seconds` and `image_passes` 0 because they were
    not spent again. `policy` is the exported policy or None.
    """

    directory: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    manifest: dict[str, Any]
    trials: pd.DataFrame
    policy: Policy | None

    @property
    def evaluated(self) -> pd.DataFrame:
        """The rows that carry a reward (not the failed ones)."""
        return self.trials[self.trials["reward"].notna()]

    def unfinished(self, needed: str) -> InputError:
        """The error of a report that needs more results than there are."""
        return InputError(
            "run",
            f"must have {needed} for its report",
            f"{len(self.evaluated)} results",
            "resume it first",
        )


def load_run(directory: str | Path) -> Run:
    """Load a run folder.

    Raises InputError when the folder or its journal is missing, or a line is not readable. A last
    line without its line end (a run was killed while writing) is left out; the engine repairs it
    when the run is resumed.
    """
    directory = Path(directory)
    journal = directory / "trials.jsonl"
    if not directory.is_dir():
        raise InputError("run", "must be a run folder", str(directory), "give an existing folder")
    if not journal.is_file():
        raise InputError(
            "run", "must hold trials.jsonl", str(directory), "give the --out folder of a run"
        )
    lines = _read_journal(journal)
    final = directory / "policy.json"
    return Run(
        directory=directory,
        config=_read_json(directory / "config.json"),
        environment=_read_json(directory / "environment.json"),
        manifest=_read_json(directory / "manifest.json"),
        trials=trials_table(lines),
        policy=_policy(final),
    )


def trials_table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Journal lines as the table described at Run; the last line of a (batch, slot) counts."""
    by_key = {(line["batch"], line["slot"]): line for line in lines}
    rows = []
    for key in sorted(by_key):
        line = by_key[key]
        evaluation = line.get("evaluation") or {}
        original = line.get("duplicate_of")
        if original is not None:
            evaluation = evaluation or by_key.get(tuple(original), {}).get("evaluation") or {}
            evaluation = {**evaluation, "seconds": 0.0, "image_passes": 0}
        rows.append(
            {
                **{name: line.get(name) for name in _LINE},
                **{name: evaluation.get(name) for name in _EVALUATION},
                **{name: (evaluation.get("metrics") or {}).get(name) for name in METRICS},
                **{name: line.get(name) for name in _TIMES},
                "policy": _hashable(line.get("policy")),
                "details": evaluation.get("details") or {},
            }
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["reward", "stderr", "seconds", "image_passes", *METRICS]
    table[numbers] = table[numbers].apply(pd.to_numeric)
    table["diverged"] = table["diverged"].map(bool)
    return table


def _policy(path: Path) -> Policy | None:
    """The policy of a search; None where there is none yet, or a transform was chosen."""
    if not path.is_file():
        return None
    augmentation = load_policy_file(path).augmentation
    return augmentation if isinstance(augmentation, Policy) else None


def _hashable(policy: Any) -> Any:
    if isinstance(policy, list):
        return tuple(_hashable(part) for part in policy)
    return json.dumps(policy) if isinstance(policy, dict) else policy


def _read_journal(path: Path) -> list[dict[str, Any]]:
    lines = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
        except ValueError as error:
            raise _unreadable(path, number, str(error)) from error
        if not isinstance(record, dict) or not {"batch", "slot"} <= record.keys():
            raise _unreadable(path, number, "no batch and slot")
        lines.append(record)
    return lines


def _unreadable(path: Path, number: int, reason: str) -> InputError:
    return InputError(
        f"{path} line {number}", "must be a journal record", reason, "restore it from a backup"
    )


def _read_json(path: Path) -> dict[str, Any]:
    """The file as a dictionary; empty when there is none (the run was killed while starting)."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(str(path), "must be JSON", str(error), "restore it") from error
    if not isinstance(value, dict):
        raise InputError(str(path), "must hold an object", type(value).__name__, "restore it")
    return value
