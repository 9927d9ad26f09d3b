"""Reads a run folder: the journal as a table, the rest as plain dictionaries. Never writes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from policies.augmentations import Augmentation, decode_augmentation
from policies.errors import InputError, as_written
from policies.files import MAX_JSON_BYTES, read_file, read_json, read_text
from policies.policy import Policy
from policies.policy_files import load_policy_file
from proxy_tasks.evaluators.config import REWARDS
from proxy_tasks.manifest import Manifest
from proxy_tasks.run_format import (
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    EPOCH_NUMBERS,
    EPOCHS_NAME,
    LOG_NAME,
    MANIFEST_NAME,
    POLICY_NAME,
    read_run_config,
)
from proxy_tasks.trials import CHEAP, JOURNAL_NAME, Trial, read_journal

METRICS = (*REWARDS, "temperature")
_LINE = ("batch", "slot", "label", "scorer", "part", "seed", "status", "attempts", "error")
_EVALUATION = ("reward", "stderr", "seconds", "image_passes", "diverged")
_TIMES = ("started", "finished", "worker")
_EPOCH = {"epoch": int, **dict.fromkeys(EPOCH_NUMBERS, float)}
COLUMNS = (*_LINE, *_EVALUATION, *METRICS, *_TIMES, "policy", "details")


@dataclass(frozen=True)
class Arm:
    """An arm of a comparison, as config.json describes it.

    Attributes:
        name: in tables.
        text: what was asked for.
        members: what it stands for; several where a method made several policies, none where every
            seed has a random one.
        evaluations: what finding it has cost, evaluations of a search.
        image_passes: likewise, images trained on.
    """

    name: str
    text: str
    members: tuple[Augmentation, ...]
    evaluations: float
    image_passes: float

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Arm:
        """Raises AttributeError, TypeError or ValueError for anything but such data."""
        search = data.get("search", {})
        return cls(
            str(data.get("name", "")),
            str(data.get("text", "")),
            tuple(decode_augmentation(member) for member in data.get("members", ())),
            float(search.get("evaluations", 0)),
            float(search.get("image_passes", 0)),
        )


@dataclass(frozen=True)
class Run:
    """A run folder in memory.

    Attributes:
        directory: the folder.
        config: config.json; empty for a folder that was never begun by a command.
        environment: environment.json, or empty.
        manifest: which images; None for a run that was killed before they were drawn.
        trials: one row per journal line, ordered by batch and slot, with the columns COLUMNS:
            `policy` is a tuple of sub-policies, the JSON text of another augmentation, or None; a
            duplicate carries the evaluation that it repeats, with `seconds` and `image_passes` 0
            because they were not spent again.
        chosen: the exported augmentation (policy.json); None where there is none.
        provenance: of the exported augmentation.
    """

    directory: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    manifest: Manifest | None
    trials: pd.DataFrame
    chosen: Augmentation = None
    provenance: dict[str, Any] | None = None
    _stages: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """The command that made the run, e.g. "search"."""
        return str(self.config.get("kind", ""))

    @property
    def task(self) -> str:
        """Name of the proxy task."""
        return self.manifest.task if self.manifest else str(self.option("task", "name", "a task"))

    @property
    def policy(self) -> Policy | None:
        """The exported policy; None where there is none yet, or a transform was chosen."""
        return self.chosen if isinstance(self.chosen, Policy) else None

    @property
    def evaluated(self) -> pd.DataFrame:
        """The rows that did not fail; a child that diverged may have no reward."""
        return self.trials[self.trials["status"] != "failed"]

    @property
    def warnings(self) -> list[str]:
        """What its log warns of, each once."""
        try:
            log = read_file(self.directory / LOG_NAME, MAX_JSON_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:  # it may be another thing: a run does not depend on its log
            return [f"{LOG_NAME} cannot be read: {error.strerror or error}"]
        return [*dict.fromkeys(re.findall(r"^\S+ \S+ WARNING (.+)$", log, re.MULTILINE))]

    def option(self, section: str, name: str, default: Any = None) -> Any:
        """An option of the configuration, e.g. ("settings", "evaluations")."""
        part = self.config.get(section)
        return part.get(name, default) if isinstance(part, dict) else default

    def number(self, section: str, name: str) -> int:
        """An option that is a whole number; 0 where it is not there."""
        value = self.option(section, name)
        return value if type(value) is int else 0

    def choices(self, name: str) -> list[Any]:
        """A setting that is a list; empty where it is not there."""
        value = self.option("settings", name)
        return value if isinstance(value, list) else []

    @property
    def arms(self) -> list[Arm]:
        """The arms of a comparison. Raises InputError for a config.json that was tampered with."""
        where, fix = str(self.directory / CONFIG_NAME), "restore it from a copy"
        with as_written(where, "must hold the arms as the engine wrote them", fix):
            return [Arm.from_json(arm) for arm in self.choices("arms")]

    def of(self, trials: pd.DataFrame) -> Run:
        """This run with these rows of its trials alone."""
        return replace(self, trials=trials)

    def stage(self, name: str) -> Run:
        """This run with the journal in its folder `name` (of several stages); empty without one.

        It is read once: a run is what its folder held when it was loaded.
        """
        if name not in self._stages:
            self._stages[name] = _trials(self.directory / name / JOURNAL_NAME)
        return self.of(self._stages[name])

    def with_stages(self, *names: str) -> Run:
        """This run with the trials of these stages beside its own, as one table."""
        tables = [self.trials, *(self.stage(name).trials for name in names)]
        filled = [table for table in tables if len(table)]
        return self.of(pd.concat(filled, ignore_index=True)) if filled else self

    def unfinished(self, needed: str) -> InputError:
        """The error of an analysis that needs more results than there are."""
        return InputError(
            "run",
            f"must have {needed}",
            f"{len(self.evaluated)} results",
            "resume it first",
        )


def load_run(directory: str | Path) -> Run:
    """Load a run folder.

    A last line of the journal without its line end (a run was killed while writing) is left out;
    the engine repairs it when the run is resumed.

    Raises:
        InputError: when there is no such run, when another version wrote it, or when one of its
            files is not as the engine wrote it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError("run", "must be a run folder", str(directory), "give an existing folder")
    config = read_run_config(directory)
    exported, manifest = directory / POLICY_NAME, directory / MANIFEST_NAME
    chosen = load_policy_file(exported) if exported.is_file() else None
    return Run(
        directory=directory,
        config=config,
        environment=_object(directory / ENVIRONMENT_NAME),
        manifest=Manifest.read(manifest) if manifest.exists() else None,
        trials=_trials(directory / JOURNAL_NAME),
        chosen=chosen.augmentation if chosen else None,
        provenance=chosen.provenance if chosen else None,
    )


def contents_of(run: Run) -> dict[str, set[str]]:
    """What the images of each part are known by. Raises InputError where none are drawn yet."""
    if run.manifest is None:
        raise run.unfinished("its manifest.json")
    return {part: set(rows.contents) for part, rows in run.manifest.parts.items()}


def _trials(journal: Path) -> pd.DataFrame:
    return trials_table(read_journal(journal) if journal.exists() else [])


def trials_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Trials as the table described at Run."""
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.key):
        line = trial.to_json()
        evaluation = line["evaluation"] or {}
        if evaluation and trial.status == "duplicate":
            evaluation = {**evaluation, "seconds": 0.0, "image_passes": 0}
        rows.append(
            {
                **{name: line[name] for name in _LINE},
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
    table["diverged"] = table["diverged"].map(bool).astype(bool)
    return table


def dear(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows without a staged search's cheap evaluations, whose rewards have another scale."""
    return trials[trials["scorer"] != CHEAP]


def computed(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows that cost something: a duplicate is taken from an earlier result."""
    return trials[trials["status"] == "ok"]


def passes_of_one(trials: pd.DataFrame) -> float:
    """Mean image passes of an evaluation that was computed."""
    return float(computed(trials)["image_passes"].mean())


def in_children(passes: float, one: float) -> float:
    """Image passes in those of one child; NaN where evaluations cost none, as planted ones may."""
    return passes / one if one else math.nan


def sound(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of children that trained: with a reward, and not diverged."""
    return trials[trials["reward"].notna() & ~trials["diverged"]]


def chosen_among(trials: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows by which a choice between labels was made, and the labels that it left out.

    As `search.studies.selection.best_rescored` does: a mean over fewer children is not comparable,
    and whoever diverges is behind all others.
    """
    bad = trials["reward"].isna() | trials["diverged"].astype(bool)
    lost = bad.groupby(trials["label"]).transform("any") if len(trials) else bad
    return trials[~lost], list(dict.fromkeys(trials["label"][lost]))


def shared_seeds(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds that all labels have, where there are any; else all rows.

    Seeds shift all labels alike, so means over different ones are not compared.
    """
    labels = trials.groupby("seed")["label"].transform("nunique")
    whole = labels == trials["label"].nunique()
    return trials[whole] if whole.any() else trials


def validated(trials: pd.DataFrame, metric: str) -> pd.Series:
    """A metric on the validation part of children that were tested; NaN for all others."""

    def held(details: dict[str, Any]) -> float:
        metrics = details.get("validation")
        return metrics.get(metric, np.nan) if isinstance(metrics, dict) else np.nan

    return pd.to_numeric(trials["details"].map(held))


def read_epochs(run: Run) -> pd.DataFrame:
    """epochs.jsonl as a table with the columns epoch, lr, loss, accuracy, log_likelihood and
    divergence; empty without one.

    Raises InputError for a line that no training wrote.
    """
    path = run.directory / EPOCHS_NAME
    rows = []
    text = read_text(path, "log", MAX_JSON_BYTES) if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        with as_written(f"{path}, line {number}", "must be as a training wrote it",
                        "resume the run, which writes it anew"):  # fmt: skip
            row = json.loads(line)
            numbers = {
                name: kind("nan" if row[name] is None else row[name])
                for name, kind in _EPOCH.items()
            }
            rows.append({**numbers, "divergence": str(row["divergence"])})
    return pd.DataFrame(rows, columns=[*_EPOCH, "divergence"]).astype(_EPOCH)


def augmentation_of(policy: Any) -> Augmentation:
    """What an entry of the column `policy` means."""
    if isinstance(policy, tuple):
        return Policy(policy)
    return decode_augmentation(json.loads(policy) if isinstance(policy, str) else policy)


def _hashable(policy: Any) -> Any:
    if isinstance(policy, list):
        return tuple(_hashable(part) for part in policy)
    return json.dumps(policy) if isinstance(policy, dict) else policy


def _object(path: Path) -> dict[str, Any]:
    """The file as a dictionary; empty when there is none (the run was killed while starting)."""
    if not path.exists():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(str(path), "must hold an object", type(value).__name__, "restore it")
    return value
