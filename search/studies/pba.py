"""`augsearch pba`: Population Based Augmentation (arXiv 1905.05393), a schedule of policies.

How the population evolves stands in `searchers.population`, how a member is trained in
`proxy_tasks.evaluators.population`. The run folder is that of any search: the journal has a line
per member and generation, `artifacts/` the weights that the next generation goes on from.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from policies.errors import InputError
from policies.files import write_where_other
from policies.options import to_json
from policies.policy_files import PolicyFile, to_json_text
from policies.schedule import Schedule, ScheduleTransform
from proxy_tasks.evaluators.config import MEMBERS, EvaluatorConfig
from proxy_tasks.presets import get_preset
from proxy_tasks.run_format import SCHEDULE_NAME
from search.engine.loop import RunResult, run
from search.errors import NothingFound
from search.searchers.population import PopulationSearcher, schedule_of
from search.trial import JOURNAL_NAME, Trial, image_passes, read_journal

from .config import Config
from .fixed import forget_followers
from .seeds import training_seeds
from .study import OpenRun, open_run


def run_pba(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> tuple[Schedule, RunResult]:
    """Search a schedule and write `out`/schedule.json.

    Args:
        config: `Config.of("pba", population=16)`.
        out: folder to begin, or with `resume` to go on with.
        retry_failed: make failed evaluations again, and what came after them.
        progress: show it.

    Returns:
        The schedule, and how the search for it went.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        SearchError: NothingFound when no child trained to the end; what `engine.loop.run` raises.
    """
    _epochs(config)
    with open_run(config, out, resume) as opened:
        settings, evaluator = opened.config.settings, opened.config.evaluator
        epochs = _epochs(opened.config)
        generations = math.ceil(epochs / settings.interval)
        seeds = training_seeds("pba", settings.seed, settings.population)
        if retry_failed:
            forget_followers(opened.path, opened.path)
        result = run(
            PopulationSearcher(settings.population, generations, settings.seed, seeds),
            {"main": _member(evaluator, settings.interval)},
            opened.task,
            opened.path,
            pool=opened.config.pool,
            resume=True,  # the journal in a run's folder is always its own
            progress=progress,
            retry_failed=retry_failed,
        )
        file = opened.path / SCHEDULE_NAME
        trials = read_journal(opened.path / JOURNAL_NAME)
        best_of_all = schedule_of(trials, generations, settings.interval, epochs)
        if best_of_all is None:
            raise NothingFound(
                f"none of {settings.population} children trained to the end: {result.failed} "
                f"evaluations failed, the others diverged; see {opened.path}"
            )
        schedule, best = best_of_all
        if all(row[1] == 0 for _, policy in schedule for sub in policy for row in sub):
            opened.log.warning(
                f"{file}: every probability is 0, so the schedule augments nothing: the best child "
                "was one that no replacement reached; train longer or replace more often"
            )
        found = PolicyFile(ScheduleTransform(schedule), _about(opened, trials, best))
        write_where_other(file, to_json_text(found))
        return schedule, result


def _epochs(config: Config) -> int:
    """Of a child. Raises InputError when no child would ever be replaced."""
    evaluator, interval = config.evaluator, config.settings.interval
    epochs = evaluator.epochs or get_preset(evaluator.preset, config.task.name).epochs
    if interval >= epochs:
        raise InputError(
            "interval", f"must be less than the {epochs} epochs, or nothing is searched", interval,
            f"use {max(1, epochs // 4)}" if epochs > 1 else "train for more epochs",
        )  # fmt: skip
    return epochs


def _member(evaluator: EvaluatorConfig, interval: int) -> EvaluatorConfig:
    return dataclasses.replace(evaluator, kind=MEMBERS, options={"interval": interval})


def _about(opened: OpenRun, trials: list[Trial], best: Trial) -> dict:
    return {
        "searcher": "population",
        "pba": to_json(opened.config.settings),
        "evaluator": to_json(opened.config.evaluator),
        "manifest_hash": opened.task.manifest_hash,
        "task": opened.task.name,
        "reward": best.evaluation.reward if best.evaluation else None,
        "evaluations": {"finished": len(trials)},
        "cost": {"image_passes": image_passes(trials)},
    }
