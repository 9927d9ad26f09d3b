"""`augsearch compare`: children trained from scratch under each arm, with the same seeds.

Each seed gives every arm the same initial weights and the same order of images, so differences are
taken within seeds. The accuracy is that on the test part, of which no search has seen an image
(where one has, a warning says so), and the seeds are those of comparisons alone (`seeds.BLOCKS`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy_tasks.evaluators.config import EvaluatorConfig
from search.engine.loop import RunResult
from search.trial import Candidate

from .arms import (
    Arm,
    check_pipelines,
    parse_arms,
    warn_of_files_changed,
    warn_of_images_seen,
)
from .config import Config
from .fixed import run_fixed
from .seeds import training_seed
from .study import OpenRun


def run_compare(config: Config, out: Path | str, **how: Any) -> RunResult:
    """Train children under each arm in the run folder `out`; `analysis.report_of(out)` makes
    the tables.

    Args:
        config: `Config.of("compare", policy=[...])`; see `arms.FORMS` for what an arm may be. The
            first arm is the one that the others are compared with. Arms and seeds may grow.
        how: `resume`, `retry_failed`, `progress`, as for `run_search`.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
    """
    config = with_arms(config)
    compare_evaluators(config)
    return run_fixed(
        config,
        out,
        compare_candidates,
        evaluators=_evaluators,
        **how,
    )


def _evaluators(run: OpenRun) -> dict[str, EvaluatorConfig]:
    arms = [Arm.from_json(arm) for arm in run.config.settings.arms]
    check_pipelines(arms, run.task.train.images)
    warn_of_images_seen(run, arms)
    warn_of_files_changed(run, arms)
    return compare_evaluators(run.config)


def with_arms(config: Config) -> Config:
    """With the arms that are named read in, so that the run folder holds them."""
    settings = config.settings
    known = {arm["text"]: arm for arm in settings.arms}
    arms = parse_arms(settings.policy, settings.seeds, known)
    settings = replace(settings, arms=tuple(arm.to_json() for arm in arms))
    return replace(config, settings=settings)


def compare_evaluators(config: Config) -> dict[str, EvaluatorConfig]:
    """The evaluator of every arm by the name that its candidates ask for: one for each recipe."""
    arms = [Arm.from_json(arm) for arm in config.settings.arms]
    return {arm.scorer: arm.evaluator(config.evaluator) for arm in arms}


def compare_candidates(config: Config) -> list[Candidate]:
    """Every arm with every seed: batch = index of the seed, slot = index of the arm."""
    settings = config.settings
    arms = [Arm.from_json(arm) for arm in settings.arms]
    return [
        Candidate(
            index,
            slot,
            arm.augmentation(settings.seed + index, index),
            training_seed("compare", settings.seed, index),
            arm.scorer,
            part="test",
            label=arm.name,
        )
        for index in range(settings.seeds)
        for slot, arm in enumerate(arms)
    ]
