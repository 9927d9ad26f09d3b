"""A fixed list of evaluations in a run folder: what compare, randaugment and fidelity share.

The folder is that of a search (config.json, environment.json, manifest.json, trials.jsonl) and is
resumed in the same way; only who chooses the candidates differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from policies.errors import InputError
from policies.files import read_json
from proxy_tasks import EvaluatorConfig, ProxyTask, get_preset, get_task
from proxy_tasks.evaluators.registry import check_config
from search.engine.loop import RunResult, run
from search.engine.pool import PoolConfig
from search.runs.environment import environment
from search.searchers.fixed import FixedSearcher

from .search import CONFIG_NAME, FORMAT, VERSION, check_manifest, check_new, create_folder


@dataclass(frozen=True)
class TaskConfig:
    """Which images: the arguments of `proxy_tasks.get_task`, with the preset's sizes as default."""

    task: str = "reduced-fashion"
    data: str | None = None
    task_seed: int = 0
    train_images: int | None = None
    validation_images: int | None = None
    test_images: int | None = None
    resolution: int | None = None
    preset: str = "cpu"

    def build(self) -> ProxyTask:
        """Draw the task; InputError for what `get_task` or `get_preset` refuses."""
        preset = get_preset(self.preset, self.task)
        train, validation = self.train_images, self.validation_images
        return get_task(
            self.task,
            self.data,
            seed=self.task_seed,
            train_images=preset.train_images if train is None else train,
            validation_images=preset.validation_images if validation is None else validation,
            test_images=self.test_images,
            resolution=self.resolution,
        )


@dataclass(frozen=True)
class StudyConfig:
    """Everything that decides a study. `out` and `pool` decide only where and how fast.

    kind: "compare", "randaugment" or "fidelity". evaluators: by the names candidates ask for.
    arms: what is evaluated, as JSON (names, policies, search costs). settings: further JSON.
    """

    kind: str
    out: str
    task: TaskConfig
    evaluators: dict[str, EvaluatorConfig]
    arms: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    pool: PoolConfig = field(default_factory=PoolConfig)

    def to_json(self) -> dict[str, Any]:
        """Flat, so that readers find `task` where a search has it; `pool` for the record."""
        data = asdict(self)
        return {"format": FORMAT, "version": VERSION, **data.pop("task"), **data}


def run_study(
    config: StudyConfig,
    make_searcher: Callable[[Path], FixedSearcher],
    task: ProxyTask,
    *,
    resume: bool,
    progress: bool,
) -> RunResult:
    """Create (or with `resume` check) the run folder and run the study to its end.

    make_searcher: builds the searcher, given the run folder, once that is there.
    Raises InputError before anything is written for a user's mistake, and what `engine.run` raises.
    """
    out = Path(config.out)
    for evaluator in config.evaluators.values():
        check_config(evaluator)
    if resume:
        _check_same(config, out)
        check_manifest(out, task)
    else:
        check_new(out)
        create_folder(out, config, environment(), task.manifest)
    searcher = make_searcher(out)
    return run(
        searcher,
        config.evaluators,
        task,
        out,
        evaluations=len(searcher.candidates),
        pool=config.pool,
        progress=progress,
        resume=resume,
    )


def _check_same(config: StudyConfig, out: Path) -> None:
    if not (out / CONFIG_NAME).is_file():
        raise InputError(
            "out", "must hold a run to resume", str(out), "check the path, or leave --resume out"
        )
    saved, now = read_json(out / CONFIG_NAME), config.to_json()
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise InputError(
            str(out / CONFIG_NAME),
            "must be the configuration of a run",
            type(saved).__name__,
            "restore it from a copy",
        )
    free = ("out", "pool")
    changed = [
        f"{name} was {_short(saved.get(name))} and is {_short(now.get(name))}"
        for name in sorted(saved.keys() | now.keys())
        if name not in free and saved.get(name) != now.get(name)
    ]
    if changed:
        raise InputError(
            "resume",
            "must have the configuration the run was started with",
            "; ".join(changed),
            "give these options the values they had, or start a new run in another folder",
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
