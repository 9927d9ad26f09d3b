"""A run as an Optuna study in a SQLite file: for optuna-dashboard and Optuna's plots.

    write_optuna("runs/grid")       # runs/grid/optuna.db
    optuna.load_study(study_name="randaugment", storage="sqlite:///runs/grid/optuna.db")

The study is a view of the journal, of any run that has one. It may be deleted, locked or scribbled
on by others: what it should hold follows from the journal alone. Our rows are known by their key;
rows of others are left alone.
"""

from __future__ import annotations

import datetime
import functools
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from policies.augmentations import decode_augmentation
from policies.errors import InputError
from policies.ops import OPS
from policies.policy import Policy
from policies.transforms import RandAugment
from proxy_tasks.run_format import FROM_SCRATCH
from proxy_tasks.tables import TESTED
from proxy_tasks.trials import CHEAP, JOURNAL_NAME, Key, Trial, read_journal
from search.errors import SearchError, kind_of_run
from search.searchers.tpe import quiet

from .folder import OPTUNA_NAME

log = logging.getLogger("search")

KEY = "augsearch_key"
_ABOUT = ("label", "scorer", "part", "seed", "augmentation", "error", "duplicate_of")
# Seconds that SQLite waits for another process: nobody waits for a view.
PATIENCE = 1.0
MANY = 500
# The scorer of kinds of runs that hold several evaluators against one.
REFERENCE = {"fidelity": FROM_SCRATCH, "tabulate": TESTED}

Values = dict[str, float | int | str]


class ViewError(SearchError):
    """The view cannot be written now. The run it shows is untouched."""


def _check_place(run: Path) -> None:
    """InputError for a run of ours without a journal of its own, saying where there are some."""
    stages = sorted(str(file.parent) for file in run.rglob(JOURNAL_NAME))
    if stages or kind_of_run(run) is not None:
        named = ", ".join(stages[:4]) + (", ..." if len(stages) > 4 else "")
        raise InputError(
            "run", "must keep a journal of its own", str(run),
            f"name a stage: {named}" if stages else "races and trainings keep none",
        )  # fmt: skip


# By what a file, or a study that others have made or written to, answers.
_REFUSED = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError,
            ValueError, TypeError)  # fmt: skip


def write_optuna(run: Path | str, path: Path | str | None = None) -> Path:
    """Write the run in the folder `run` as an Optuna study, or bring the study there up to date.

    The study has the name of the run's kind ("search", "randaugment", ...) and maximises the
    reward. Parameters of a trial:

    - of a cell of RandAugment's grid: n, m;
    - of a policy, for every operation X that occurs in the run: use_X, how often an image gets it
      (its probabilities summed over the policy, divided by the number of sub-policies);
      strength_X, the same with each probability times the magnitude on a scale of 0 to 1; and where
      X occurs magnitude_X, its mean magnitude weighted by probability (index 0 to 9). Also
      operations, how many an image gets, and different_operations;
    - where trials have labels and are neither: arm, the label;
    - seed_index, where the same candidates are evaluated with several seeds: the batch.

    A diverged trial is PRUNED, a failed one FAIL: neither has a value. Cheap evaluations (of a
    staged search, a fidelity study, a table) are PRUNED too, as evaluations that were not carried
    on to the dear evaluator: their rewards (cheap_reward) are on another scale. User attributes
    are the metrics, the standard error, the key, and as one what else the journal says.

    Args:
        run: a run folder with a journal.
        path: SQLite file; default: optuna.db in the run folder.

    Returns:
        The file.

    Raises:
        InputError: there is no journal, or a broken one.
        ViewError: the file is locked by another process, or is no study, or the disk is full.
    """
    run = Path(run)
    path = run / OPTUNA_NAME if path is None else Path(path)
    if not (run / JOURNAL_NAME).exists():
        _check_place(run)
    trials = read_journal(run / JOURNAL_NAME)
    if len(trials) > MANY:
        log.info("writing %d trials to %s; Optuna takes some 50 ms for each", len(trials), path)
    kind = kind_of_run(run) or "augsearch"
    wanted = _rows(trials, kind)
    if path.exists() and not path.is_file():
        raise ViewError(f"cannot write {path}: not an ordinary file")
    try:
        with quiet():
            _bring_up_to_date(path, kind, wanted)
    except _REFUSED as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ViewError(
            f"cannot write {path}: {reason}. It is a view of {run / JOURNAL_NAME}, which holds "
            f"everything; later, `augsearch optuna {run}` writes it"
        ) from error
    return path


def catch_up(run: Path) -> None:
    """`write_optuna`, with a warning where that fails: no run depends on it."""
    try:
        write_optuna(run)
    except ViewError as error:
        log.warning("%s", error)


# What the study should hold ----------------------------------------------------------------------


def _rows(trials: list[Trial], kind: str) -> dict[Key, FrozenTrial]:
    """The study's rows by key, in order of the keys."""
    reference = REFERENCE.get(kind)
    trials = sorted(trials, key=lambda trial: trial.key)
    values = {trial.key: _parameters(trial) for trial in trials}
    _add_unused(values)
    if _has_seeds(trials):
        for key in values:
            values[key]["seed_index"] = key[0]
    distributions = _distributions(values)
    return {
        trial.key: _row(
            trial, values[trial.key], distributions,
            cheap=trial.scorer == CHEAP or reference not in (None, trial.scorer),
        )
        for trial in trials
    }  # fmt: skip


def _parameters(trial: Trial) -> Values:
    augmentation = decode_augmentation(trial.augmentation)
    if isinstance(augmentation, RandAugment):
        return {"n": augmentation.n, "m": augmentation.m}
    if isinstance(augmentation, Policy):
        return _features(augmentation)
    return {"arm": trial.label} if trial.label else {}


def _features(policy: Policy) -> Values:
    use: dict[str, float] = defaultdict(float)
    strength: dict[str, float] = defaultdict(float)
    for row in policy:
        for name, probability, magnitude in row:
            use[name] += probability
            strength[name] += probability * (magnitude or 0)
    values: Values = {
        "operations": sum(use.values()) / len(policy),
        "different_operations": sum(share > 0 for share in use.values()),
    }
    for name in use:
        values[f"use_{name}"] = use[name] / len(policy)
        if OPS[name].has_magnitude:
            values[f"strength_{name}"] = strength[name] / (policy.bins - 1) / len(policy)
            if use[name] > 0:
                values[f"magnitude_{name}"] = strength[name] / use[name]
    return values


def _add_unused(values: Mapping[Key, Values]) -> None:
    """What a policy lacks is used 0 times: Optuna compares only what all trials have."""
    policies = [each for each in values.values() if "operations" in each]
    names = sorted({name for each in policies for name in each})
    for each in policies:
        for name in names:
            if name.startswith(("use_", "strength_")):
                each.setdefault(name, 0.0)


def _has_seeds(trials: list[Trial]) -> bool:
    """Whether some augmentation is evaluated with several seeds, as in a grid or a comparison."""
    seeds: dict[tuple[int, str], set[int]] = defaultdict(set)
    for trial in trials:
        seeds[trial.slot, trial.label].add(trial.seed)
    labelled = bool(trials) and all(trial.label for trial in trials)
    return labelled and any(len(several) > 1 for several in seeds.values())


def _distributions(values: Mapping[Key, Values]) -> dict[str, BaseDistribution]:
    """Ranges are those of the values that occur, so that Optuna weighs no empty space."""
    found: dict[str, list[float | int | str]] = defaultdict(list)
    for each in values.values():
        for name, value in each.items():
            found[name].append(value)
    distributions: dict[str, BaseDistribution] = {}
    for name, seen in found.items():
        if isinstance(seen[0], str):
            distributions[name] = CategoricalDistribution(sorted(set(map(str, seen))))
        else:
            numbers = [value for value in seen if not isinstance(value, str)]
            low, high = min(numbers), max(numbers)
            if isinstance(seen[0], int):
                distributions[name] = IntDistribution(int(low), int(high))
            else:
                distributions[name] = FloatDistribution(low, high)
    return distributions


def _row(
    trial: Trial, values: Values, distributions: dict[str, BaseDistribution], *, cheap: bool
) -> FrozenTrial:
    evaluation = trial.evaluation
    state, value = TrialState.FAIL, None
    about = {name: value for name, value in trial.to_json().items() if name in _ABOUT}
    attributes: dict[str, Any] = {KEY: list(trial.key), "trial": about}
    if evaluation is not None:
        state, value = TrialState.COMPLETE, evaluation.reward
        if cheap and value is not None:
            attributes["cheap_reward"] = value
        if evaluation.diverged or cheap:
            state, value = TrialState.PRUNED, None
        attributes |= {"stderr": evaluation.stderr, **evaluation.metrics}
    row = create_trial(
        state=state, value=value, params=values,
        distributions={name: distributions[name] for name in values}, user_attrs=attributes,
    )  # fmt: skip
    row.datetime_start = datetime.datetime.fromtimestamp(trial.started)
    row.datetime_complete = datetime.datetime.fromtimestamp(max(trial.started, trial.finished))
    return row


# Writing -----------------------------------------------------------------------------------------


def _bring_up_to_date(path: Path, name: str, wanted: Mapping[Key, FrozenTrial]) -> None:
    storage = _open(path)
    try:
        study = _study(storage, name)
        present, foreign = _split(study)
        have = {key for key, _ in present}
        if len(have) < len(present) or any(_differs(row, wanted.get(key)) for key, row in present):
            # The run has grown in a new direction, or somebody has changed our rows. Optuna can
            # neither change nor delete a single one.
            optuna.delete_study(study_name=name, storage=storage)
            study = _study(storage, name)
            study.add_trials(wanted.values())
            _give_back(study, foreign)
        else:
            study.add_trials(row for key, row in wanted.items() if key not in have)
    finally:
        storage.engine.dispose()


def _give_back(study: optuna.Study, rows: list[FrozenTrial]) -> None:
    """Rows of others, after ours: theirs may no longer fit what the run has grown to."""
    lost = 0
    for row in rows:
        try:
            study.add_trial(row)
        except ValueError:
            lost += 1
    if lost:
        log.warning(
            "%d trials of others no longer fit the study %s, and are left out",
            lost,
            study.study_name,
        )


def _open(path: Path) -> optuna.storages.RDBStorage:
    # Not by its name in the URL: a name in no known encoding cannot stand there.
    connect = functools.partial(sqlite3.connect, path, PATIENCE, check_same_thread=False)
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{OPTUNA_NAME}", engine_kwargs={"creator": connect}
    )

    def hurry(connection: Any, _: object) -> None:
        # A view that a power cut spoils is written again: it need not be on the disk each time.
        connection.execute("PRAGMA synchronous=OFF")

    storage.engine.dispose()
    sqlalchemy.event.listen(storage.engine, "connect", hurry)
    return storage


def _study(storage: optuna.storages.RDBStorage, name: str) -> optuna.Study:
    return optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=0),
    )  # fmt: skip


def _split(study: optuna.Study) -> tuple[list[tuple[Key, FrozenTrial]], list[FrozenTrial]]:
    """(our rows with their keys, rows of others)."""
    ours, foreign = [], []
    for row in study.get_trials(deepcopy=False):
        key = row.user_attrs.get(KEY)
        if isinstance(key, list) and [*map(type, key)] == [int, int]:
            ours.append(((key[0], key[1]), row))
        else:
            foreign.append(row)
    return ours, foreign


def _differs(row: FrozenTrial, wanted: FrozenTrial | None) -> bool:
    return wanted is None or any(
        getattr(row, name) != getattr(wanted, name)
        for name in ("state", "value", "params", "distributions", "user_attrs")
    )
