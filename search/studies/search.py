"""A search from a configuration to an exported policy, in a run folder of its own.

    run_search(RunConfig(out="runs/first", task="reduced-fashion", evaluations=200))

The folder holds config.json, environment.json, manifest.json, trials.jsonl (the journal),
run.log, and at the end policy.json and policy.txt. It appears with the first
three already in it, so that a folder that exists can always be resumed.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from policies import Policy, load_policy, save_policy
from policies.errors import InputError
from policies.files import fsync_directory, parse_json, read_json, write_atomically, write_json
from proxy_tasks.data import get_task
from proxy_tasks.evaluators.config import EvaluatorConfig, resolve
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.manifest import manifest_hash
from proxy_tasks.presets import get_preset
from search.engine.loop import RunResult, run
from search.engine.pool import PoolConfig
from search.engine.progress import LOG_NAME, RunLog
from search.engine.worker import Factory
from search.errors import WorkerError
from search.runs.environment import differences, environment
from search.searchers.base import Searcher
from search.searchers.registry import make_searcher
from search.spaces import PolicySpace
from search.trial import JOURNAL_NAME, best_trials, image_passes, read_journal

CONFIG_NAME = "config.json"
ENVIRONMENT_NAME = "environment.json"
MANIFEST_NAME = "manifest.json"
POLICY_NAME = "policy.json"
FORMAT = "augsearch-run"
VERSION = 2
# Half the width of a 95 % interval in standard errors.
Z95 = 1.959964


def _option(default: Any, text: str) -> Any:
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a search. `pool` and `out` decide only where and how fast."""

    out: str = _option("", "run folder to create (or to resume)")
    task: str = _option("reduced-fashion", "proxy task by name")
    data: str | None = _option(None, "where the task's images are")
    task_seed: int = _option(0, "seed of the draw of the task's images")
    train_images: int | None = _option(None, "training images; default: the preset's or task's")
    validation_images: int | None = _option(None, "validation images; default: the task's")
    resolution: int | None = _option(None, "side of the images in pixels; default: the task's")
    searcher: str = _option("ppo", "search algorithm by name")
    searcher_options: dict = _option({}, "further arguments of the searcher")
    evaluations: int = _option(200, "candidate policies to evaluate")
    seed: int = _option(0, "seed of the search")
    subpolicies: int = _option(5, "sub-policies per candidate")
    operations: int = _option(2, "operations per sub-policy")
    top: int = _option(5, "best candidates whose sub-policies form the exported policy")
    evaluator: str | None = _option(None, "how a candidate is evaluated; default: the preset's")
    evaluator_options: dict = _option({}, "further arguments of the evaluator")
    preset: str = _option("cpu", "child model and schedule")
    reward: str | None = _option(None, "what is maximised; default: what suits the evaluator")
    epochs: int | None = _option(None, "training epochs; default: the preset's")
    repeats: int = _option(1, "training seeds averaged per evaluation")
    threads: int = _option(1, "CPU threads per evaluation")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N")
    precision: str = _option("auto", "auto, float32 or bfloat16")
    pool: PoolConfig = field(default_factory=PoolConfig, metadata={"help": "where evaluations run"})

    def __post_init__(self) -> None:
        if not isinstance(self.out, str) or not self.out.strip():
            raise InputError("out", "must name a folder", self.out, "pass for example runs/first")
        least = {
            "evaluations": 1,
            "seed": 0,
            "task_seed": 0,
            "subpolicies": 1,
            "operations": 1,
            "top": 1,
            "repeats": 1,
            "threads": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise InputError(
                    name,
                    f"must be a whole number, at least {low}",
                    value,
                    f"pass for example {max(low, 1)}",
                )
        # Resolved here, so that config.json says what was done.
        evaluator, reward = resolve(self.evaluator, self.reward, self.preset, self.task)
        object.__setattr__(self, "evaluator", evaluator)
        object.__setattr__(self, "reward", reward)

    def evaluator_config(self) -> EvaluatorConfig:
        return EvaluatorConfig(
            kind=self.evaluator,
            preset=self.preset,
            reward=self.reward,
            epochs=self.epochs,
            threads=self.threads,
            device=self.device,
            precision=self.precision,
            repeats=self.repeats,
            options=dict(self.evaluator_options),
        )

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any, where: str = CONFIG_NAME) -> RunConfig:
        """Raises InputError for a file of another kind, a newer version or unknown fields."""
        fix = "restore it from a copy"
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(where, "must be the configuration of a run", _kind(data), fix)
        if data.get("version") != VERSION:
            raise InputError(
                where,
                f"must be of version {VERSION}",
                data.get("version"),
                "use the version of augsearch that wrote it",
            )
        known = {f.name for f in fields(cls)}
        given = {name: value for name, value in data.items() if name not in ("format", "version")}
        for name in sorted(given.keys() ^ known):
            raise InputError(
                where,
                "must have exactly the known fields",
                f"{'no ' if name in known else ''}{name}",
                fix,
            )
        if not isinstance(given["pool"], dict):
            raise InputError(f"{where}, pool", "must be an object", _kind(given["pool"]), fix)
        try:
            return cls(**{**given, "pool": PoolConfig(**given["pool"])})
        except TypeError as error:
            raise InputError(
                f"{where}, pool", "must have the known fields", str(error), fix
            ) from error


def _kind(value: Any) -> str:
    return value.get("format", "no format") if isinstance(value, dict) else type(value).__name__


def build_task(config: RunConfig) -> Any:
    """The proxy task of a configuration, with the preset's number of training images."""
    train, validation = config.train_images, config.validation_images
    preset = get_preset(config.preset, config.task)
    if config.task != "synthetic":  # which has a handful of images that nobody trains on
        train = preset.train_images if train is None else train
        validation = preset.validation_images if validation is None else validation
    return get_task(
        config.task,
        config.data,
        seed=config.task_seed,
        train_images=train,
        validation_images=validation,
        resolution=config.resolution,
    )


def build_searcher(config: RunConfig) -> Searcher:
    """A new searcher over 5 x 2 operations, or as the configuration says."""
    space = PolicySpace(config.subpolicies, config.operations)
    return make_searcher(config.searcher, space, config.seed, config.searcher_options)


def run_search(
    config: RunConfig,
    *,
    resume: bool = False,
    progress: bool = True,
    factory: Factory | None = None,
) -> RunResult:
    """Search, then write policy.json and policy.txt; returns how it went.

    resume: go on with the run in `config.out`, which must be of the same configuration (`pool`
    and `out` aside). A finished run is left untouched. factory: see `engine.run`.

    Raises InputError before anything is written for a user's mistake, and what `engine.run` raises.
    """
    out = Path(config.out)
    if resume:
        _check_same(config, out)
    else:
        check_new(out)
    searcher = build_searcher(config)
    if factory is None:
        check_config(config.evaluator_config())
    task = build_task(config)
    now = environment()
    if resume:
        check_manifest(out, task)
    else:
        create_folder(out, config, now, task.manifest)
    log = RunLog(out)
    if resume:
        changed = differences(read_json(out / ENVIRONMENT_NAME), now)
        if changed:
            log.warning(f"the run was started with other versions: {', '.join(changed)}")
    done = (out / POLICY_NAME).exists()
    result = run(
        searcher,
        {"main": config.evaluator_config()},
        task,
        out,
        evaluations=config.evaluations,
        pool=config.pool,
        progress=progress,
        resume=resume,
        factory=factory,
    )
    if done and not result.new:
        log.info(f"{out} is complete: {result.finished} evaluations; nothing was done")
        return replace(result, policy=load_policy(out / POLICY_NAME))
    policy = export(config, task, result, now)
    log.info(f"{out} is complete: {result.finished} evaluations, policy in {out / POLICY_NAME}")
    return replace(result, policy=policy)


# The folder ----------------------------------------------------------------------------------


def check_new(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(
            "out",
            "must be a new folder",
            str(out),
            "choose another, or pass --resume to go on with the run in it",
        )


def _check_same(config: RunConfig, out: Path) -> None:
    if not (out / CONFIG_NAME).is_file():
        raise InputError(
            "out",
            "must hold a run to resume",
            str(out),
            "leave --resume out to start one there" if not out.exists() else "check the path",
        )
    saved = RunConfig.from_json(read_json(out / CONFIG_NAME), str(out / CONFIG_NAME)).to_json()
    given = parse_json(json.dumps(config.to_json()))
    changed = [
        f"{name} was {saved[name]!r} and is {value!r}"
        for name, value in given.items()
        if name not in ("out", "pool") and saved[name] != value
    ]
    if changed:
        raise InputError(
            "resume",
            "must have the configuration the run was started with",
            "; ".join(changed),
            "give these options the values they had, or start a new run in another folder",
        )


def check_manifest(out: Path, task: Any) -> None:
    saved = manifest_hash(read_json(out / MANIFEST_NAME))
    if saved != task.manifest_hash:
        raise InputError(
            "data",
            f"must be the images the run was started with (manifest {saved[:16]})",
            task.manifest_hash[:16],
            "restore them, or start a new run in another folder",
        )


def create_folder(
    out: Path, config: RunConfig, now: dict[str, Any], manifest: dict[str, Any]
) -> None:
    """Make the folder appear complete: written under another name, then renamed."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            write_json(temporary / CONFIG_NAME, config.to_json())
            write_json(temporary / ENVIRONMENT_NAME, now)
            write_json(temporary / MANIFEST_NAME, manifest)
            os.rename(temporary, out)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_directory(out.parent)
    except OSError as error:
        raise InputError(
            "out",
            "must be a folder that can be created",
            f"{out} ({error.strerror})",
            "check the path, its permissions and the room on the disk",
        ) from error


# The result ----------------------------------------------------------------------------------


def export(config: RunConfig, task: Any, result: RunResult, now: dict[str, Any]) -> Policy:
    """Write policy.txt and, last, policy.json: its presence says that the run is complete."""
    trials = read_journal(result.directory / JOURNAL_NAME)
    chosen = best_trials(trials, config.top)
    if not chosen:
        raise WorkerError(
            f"none of {result.finished} evaluations succeeded; see {result.directory / LOG_NAME}"
        )
    policy = Policy([row for trial in chosen for row in trial.augmentation])
    provenance = {
        "task": task.name,
        "manifest_hash": task.manifest_hash,
        "searcher": config.searcher,
        "seed": config.seed,
        "evaluator": asdict(config.evaluator_config()),
        "evaluations": {
            "finished": result.finished,
            "failed": result.failed,
            "duplicates": result.duplicates,
        },
        # In image passes, not in seconds: the file then depends on the configuration alone.
        "cost": {"image_passes": image_passes(trials)},
        "selection": f"sub-policies of the {len(chosen)} best candidates, in order of reward",
        # Rewards of the best of many: their maximum flatters; compare on the test part.
        "candidates": [
            {
                "batch": trial.batch,
                "slot": trial.slot,
                "reward": trial.evaluation.reward,
                "interval95": interval(trial.evaluation.reward, trial.evaluation.stderr),
            }
            for trial in chosen
        ],
        "versions": {"python": now["python"], **now["packages"]},
    }
    write_atomically(result.directory / "policy.txt", policy.to_text())
    save_policy(result.directory / POLICY_NAME, policy, provenance=provenance)
    return policy


def interval(reward: float, stderr: float | None) -> list[float] | None:
    """Normal 95 % interval of one evaluation's reward."""
    return None if stderr is None else [reward - Z95 * stderr, reward + Z95 * stderr]
