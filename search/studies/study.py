"""What every kind of run shares: drawing the task, beginning or going on with a folder, growing.

    with open_run(config, out, resume) as run:
        run.config, run.task, run.path, run.environment

A run is resumed by its folder. Its configuration may grow (more evaluations, seeds, cells, arms,
see `KINDS`): the journal goes on, and the end is that of a run configured so from the start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from policies.errors import InputError
from policies.files import read_json, write_atomically, write_json
from policies.options import options_of
from proxy_tasks import ProxyTask, get_preset, get_task
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.run_format import (
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    MANIFEST_NAME,
    PLAN_NAME,
    RACE_NAME,
)
from proxy_tasks.training import pick_device, pick_precision
from proxy_tasks.trials import JOURNAL_NAME, read_journal
from search.engine.progress import RunLog
from search.engine.resources import PoolConfig
from search.errors import JournalError, whole_run
from search.runs.environment import differences, environment
from search.runs.folder import (
    RESULTS,
    begun,
    check_free,
    check_journal,
    check_manifest,
    forget_policy,
    has_begun,
    has_results,
    locked,
)

from .config import Config, read_config
from .kinds import COUNTED, KINDS, MOVABLE, options_of_kind
from .settings import TaskConfig

# Their journals are those of their stages.
STAGED_RUNS = ("rederive", "replicate", "select")


@dataclass(frozen=True)
class OpenRun:
    """A run folder that this process holds.

    environment: of the machine that began it. resumed: whether something was finished before.
    grown: whether more is asked for than before.
    """

    path: Path
    config: Config
    task: ProxyTask
    environment: dict[str, Any]
    log: RunLog
    resumed: bool
    grown: bool = False


def build_task(task: TaskConfig, preset: str, whole: bool = False) -> ProxyTask:
    """Draw the task, with the preset's training images; `whole`, with all there are where the task
    does not say how many. Raises what `get_task` raises."""
    train = task.train_images
    if train is None and not whole:
        train = get_preset(preset, task.name).train_images
    return get_task(
        task.name,
        task.data,
        seed=task.seed,
        train_images=train,
        validation_images=task.validation_images,
        test_images=task.test_images,
        resolution=task.resolution,
        shares=task.shares,
        flip=None if task.flip is None else task.flip == "yes",
        whole=whole,
    )


def task_of(config: Config) -> ProxyTask:
    """The task of a run, as its kind draws it."""
    whole = KINDS[config.kind].whole
    return build_task(config.task, config.evaluator.preset, whole)


def settled(evaluator: EvaluatorConfig, pool: PoolConfig) -> EvaluatorConfig:
    """With "auto" decided, once: a run that goes on elsewhere must not mix number formats.

    Without an address the device must be one of this machine. On a cluster the workers have it;
    what cannot be seen from here computes in float32 unless a precision is named.
    """
    device, precision = evaluator.device, evaluator.precision
    if device == "auto" and pool.address is not None and pool.gpus > 0:
        device = "cuda"
    elif device == "auto" or pool.address is None:
        device = str(pick_device(device))
    if precision == "auto":
        here = device == "cpu" or torch.cuda.is_available()
        chosen = pick_precision("auto", torch.device(device)) if here else torch.float32
        precision = "bfloat16" if chosen is torch.bfloat16 else "float32"
    return replace(evaluator, device=device, precision=precision)


@contextlib.contextmanager
def open_run(
    config: Config, out: Path | str, resume: bool = False, files: Mapping[str, Any] | None = None
) -> Iterator[OpenRun]:
    """Begin a run in the folder `out`, or go on with the one in it, and hold the folder meanwhile.

    Args:
        config: of the run to begin, or that the run must have; it may have grown.
        resume: go on with a run that has results. Without it such a folder is refused; a folder
            in which nothing is finished may be begun again either way.
        files: further files to begin with: JSON values, or bytes as they are.

    Raises:
        InputError: before anything is written; an InputError raised inside the block while
            nothing is finished leaves nothing behind either, and a run that goes on as it was.
    """
    out = _named(out)
    saved = _saved(out) if resume else None
    if saved is None:
        check_free(out)
    else:
        config = merged(saved, config, out)
    config = replace(config, evaluator=settled(config.evaluator, config.pool))
    check_config(config.evaluator)
    task = task_of(config)
    now = environment()
    if saved is None:
        manifest = task.manifest.encode()
        start = {CONFIG_NAME: config.to_json(), ENVIRONMENT_NAME: now, MANIFEST_NAME: manifest}
        with begun(out, {**start, **(files or {})}):
            log = RunLog(out)
            for note in task.notes:
                log.warning(f"data: {note}")
            if config.pool.gpus == 0 and 1 < config.pool.workers and _gpus(config) > 1:
                log.warning(
                    f"pool: all {config.pool.workers} workers use the first of {_gpus(config)} "
                    "GPUs; --gpus 1 --workers N gives each its own"
                )
            yield OpenRun(out, config, task, now, log, resumed=False)
        return
    with locked(out):
        if read_config(out) != saved:  # since it was read; drawing the images may take minutes
            raise InputError(
                "out", "must not be changed by another process meanwhile", str(out),
                f"see what it says now: `augsearch resume {out}`",
            )  # fmt: skip
        check_manifest(out, task)
        log = RunLog(out)
        then = read_json(out / ENVIRONMENT_NAME)
        changed = differences(then, now)
        if changed:
            log.warning(f"{out} was begun with other versions: {', '.join(changed)}")
        before, after = _flat(saved), _flat(config)
        more = after != {**before, MOVABLE: after[MOVABLE]}
        with _as_it_was(out):
            if after != before:
                for journal in out.rglob(JOURNAL_NAME):
                    read_journal(journal)  # a broken one is refused before anything is written
                if more:
                    gone = forget_policy(out)  # of what the run was asked for before
                    if gone:
                        log.info(f"{out} has no {' and no '.join(gone)} until it is complete again")
                write_json(out / CONFIG_NAME, config.to_json())
            yield OpenRun(out, config, task, then, log, resumed=True, grown=more)


@contextlib.contextmanager
def _as_it_was(out: Path) -> Iterator[None]:
    """A mistake that nothing was evaluated for is taken back: what a run was asked for could else
    never become less again. So is a growth by another version, whose searchers ask otherwise."""
    files = [out / name for name in (CONFIG_NAME, PLAN_NAME, *RESULTS)]
    held = {path: path.read_bytes() for path in files if path.is_file()}
    journals = _sizes(out)
    try:
        yield
    except (InputError, JournalError):
        if _sizes(out) == journals:
            for path, content in held.items():
                if not path.is_file() or path.read_bytes() != content:
                    write_atomically(path, content)
        raise


def _sizes(out: Path) -> dict[Path, int]:
    found = (*out.rglob(JOURNAL_NAME), *out.glob(RACE_NAME))
    return {path: path.stat().st_size for path in found}


def _gpus(config: Config) -> int:
    """GPUs of this machine that evaluations could use; 0 where none is asked for."""
    asked = config.pool.address is None and config.evaluator.device == "cuda"
    return torch.cuda.device_count() if asked else 0


def _named(out: Path | str) -> Path:
    if not str(out).strip():
        raise InputError("out", "must name a folder", str(out), "pass for example runs/first")
    return Path(out)


def _saved(out: Path) -> Config | None:
    """The configuration of the run to go on with; None where one is begun (again)."""
    if not out.is_dir() or not has_begun(out) or not has_results(out):
        return None
    config = read_config(out)
    if KINDS[config.kind].journal:
        check_journal(out, below=config.kind in STAGED_RUNS)
    return config


# Growing ---------------------------------------------------------------------------------------


def merged(saved: Config, given: Config, out: Path) -> Config:
    """`given` for a run that was begun with `saved`: what decides it must be equal or have grown.

    Free are the pool, the place of the data (the manifest proves the images) and "auto", which
    stands for what was decided when the run began.
    """
    if given.kind != saved.kind:
        raise InputError(
            "out", f"must hold a run of the kind {given.kind}", saved.kind,
            f"use `augsearch resume {out}`",
        )  # fmt: skip
    evaluator = given.evaluator
    for name in ("device", "precision"):
        if getattr(evaluator, name) == "auto":
            evaluator = replace(evaluator, **{name: getattr(saved.evaluator, name)})
    given = replace(given, evaluator=evaluator)
    before, after = _flat(saved), _flat(given)
    # Equal objects may name things in another order, which the journal follows.
    same = {name: old for name, old in before.items() if isinstance(old, dict)}
    given = given.changed(**{name: old for name, old in same.items() if after[name] == old})
    changed, shrunk = [], []
    for name, old in before.items():
        new = after[name]
        if new == old or name == MOVABLE:
            continue
        line = f"{name} {_difference(old, new)}"
        if name not in KINDS[saved.kind].grows:
            changed.append(line)
        elif not _grown(old, new):
            shrunk.append(line)
    if changed or shrunk:
        may_grow = ", ".join(KINDS[saved.kind].grows)
        raise InputError(
            "resume",
            "must have the configuration the run was started with"
            + (f" ({may_grow} may grow)" if may_grow else ""),
            "; ".join(changed + shrunk),
            "give these options the values they had, or start a new run in another folder",
        )
    return replace(given, settings=given.settings.grown_from(saved.settings))


def grown(out: Path, changes: Mapping[str, Any]) -> Config:
    """The configuration of the run in `out` with these options changed; lists are added to.

    Raises InputError for a folder without a run, and for what its kind of run may not change.
    """
    config = read_config(out)
    may = {*KINDS[config.kind].grows}
    if changes.keys() & may:
        check_whole(out)
    may |= {MOVABLE, *(declared.name for declared in options_of(PoolConfig))}
    before = _flat(config)
    new = {}
    for name, value in changes.items():
        if name not in may:
            raise InputError(
                name, f"must not change in a run of the kind {config.kind}", value,
                f"what may is {', '.join(sorted(may))}",
            )  # fmt: skip
        if name in COUNTED and before[name] is None:
            [other] = COUNTED - {name}
            raise InputError(
                name, f"must not be given to a run that goes by its {other}", value,
                f"pass --{other}",
            )  # fmt: skip
        if isinstance(value, tuple):
            value = (*before[name], *(each for each in value if each not in before[name]))
        new[name] = value
    return config.changed(**new)


def check_whole(out: Path) -> None:
    """InputError for a stage of another run, which alone would become more than the others."""
    whole = whole_run(out.resolve())
    if whole != out.resolve() and has_begun(out):
        raise InputError(
            "DIR", "must not be a stage of another run, to grow: it would be more than the others",
            str(out),
            f"`augsearch resume {out}` goes on with it as it is; let {whole} grow, or copy the "
            "stage's folder elsewhere",
        )  # fmt: skip


def _flat(config: Config) -> dict[str, Any]:
    """Every option that decides something, by the name that users know."""
    return {
        declared.name: getattr(getattr(config, section), declared.field)
        for section, declared in options_of_kind(config.kind, hidden=True)
        if section != "pool" and getattr(config, section) is not None
    }


def _grown(old: Any, new: Any) -> bool:
    if isinstance(old, tuple):
        return set(old) <= set(new)
    return None not in (old, new) and new >= old


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, tuple) and isinstance(new, tuple) and set(old) ^ set(new):
        gone, more = set(old) - set(new), set(new) - set(old)
        words = (("lacks", gone), ("has in addition", more))
        return " and ".join(
            f"{word} {', '.join(sorted(map(str, each)))}" for word, each in words if each
        )
    return f"was {_short(old)} and is {_short(new)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
