"""Reads a run folder: the journal as a table, the rest as plain dictionaries. Never writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from policies import InputError, Policy, load_policy_file
from proxy_tasks.trials import Trial, read_journal

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

    def option(self, section: str, name: str, default: Any = None) -> Any:
        """An option of the configuration, e.g. ("settings", "evaluations")."""
        part = self.config.get(section)
        return part.get(name, default) if isinstance(part, dict) else default

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
    final = directory / "policy.json"
    return Run(
        directory=directory,
        config=_read_json(directory / "config.json"),
        environment=_read_json(directory / "environment.json"),
        manifest=_read_json(directory / "manifest.json"),
        trials=trials_table(read_journal(journal)),
        policy=_policy(final),
    )


def trials_table(trials: list[Trial]) -> pd.DataFrame:
    """Trials as the table described at Run."""
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.key):
        line = trial.to_json()
        evaluation = line["evaluation"] or {}
        if evaluation and trial.status == "duplicate":
            evaluation = {**evaluation, "seconds": 0.0, "image_passes": 0}
        rows.append(
            {
                **{name: line[name] for name in _LINE if name != "evaluator"},
                "evaluator": trial.scorer,
                **{name: evaluation.get(name) for name in _EVALUATION},
                **{name: evaluation.get("metrics", {}).get(name) for name in METRICS},
                **{name: line[name] for name in _TIMES},
                "policy": _hashable(trial.augmentation),
                "details": evaluation.get("details", {}),
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
