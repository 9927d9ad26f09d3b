"""`augsearch replicate`: methods, not single searches, compared over draws of the task.

A search that beat another may owe it to its luck, or to its images. So the unit here is a method
on a draw: for every draw of the images each method searches anew, at the same cost (searchers
choose their final policy alike, the grid by halving, with as many children as are a multiple of its
cells), and its policy is judged by children trained from scratch, on the test images of that draw
(DIR/draw-N/own), which decides, and of another draw that nobody has searched (DIR/draw-N/other).
Draw N has the task seed S + 2 N, the other one S + 2 N + 1, where S is --task-seed.

A method that finds nothing on a draw ends no study: it counts there with what it then stands for.
A draw in whose searches something failed is judged once that is made again (--retry-failed): no
method is judged by less than its budget, and no judgement has to be forgotten.

Everything below DIR is a run folder of its own kind (`methods`), so resuming, safety and reports
are theirs. DIR/plan.json holds what was to be done before the first evaluation, with its hash;
what is added later is added there too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policies.errors import InputError
from policies.files import digest, read_json, write_json
from proxy_tasks.run_format import (
    COSTS_NAME,
    DRAW,
    OTHER,
    OWN,
    PLAN_NAME,
    STAND_IN,
    pairs_of,
)
from search.engine import cluster
from search.errors import NothingFound
from search.runs.folder import has_results
from search.trial import JOURNAL_NAME, image_passes, read_journal

from .arms import Arm, check_pipelines, parse_arms, warn_of_files_changed
from .compare import run_compare
from .config import Config, read_config
from .fixed import forget_followers
from .methods import Ended, arm_of, found, stage_of
from .replicate_settings import SEARCHING
from .search import build_searcher, check_budget
from .seeds import MOST_SEEDS
from .settings import CompareSettings, check_no_twins
from .study import OpenRun, open_run

JUDGES = ("from-scratch", "synthetic")
# Part of the plan: rises when a draw is made otherwise. A searcher that asks for something else
# than it did is found out by its journal.
PROCEDURE = 4


@dataclass(frozen=True)
class FoundNothing:
    """How a stage went that found nothing better than anything else, and why."""

    finished: int
    why: str
    failed: int = 0


@dataclass(frozen=True)
class Replicated:
    """How a replication went: its evaluations in all, and how many of them failed for good."""

    directory: Path
    finished: int
    failed: int


def run_replicate(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> Replicated:
    """Replicate in the run folder `out`; `analysis.report_of(out)` makes the tables.

    Args:
        config: `Config.of("replicate", method=["random", "thompson", "none"])`; draws may grow.
        resume, progress: as for `run_search`.
        retry_failed: when resuming, make evaluations again that failed, and all that had followed
            from them: another policy may be found.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        SearchError: what `engine.loop.run` raises.
    """
    config = with_arms(config)
    check(config)
    with open_run(config, out, resume) as run, cluster.keep_ray():
        arms = [Arm.from_json(arm) for arm in run.config.settings.arms]
        check_pipelines(arms, run.task.train.images)
        warn_of_files_changed(run, arms)
        for name, search in _searches(run.config).items():
            check_budget(
                search, run.task, f"method {name}", "raise --budget or --epochs, or leave it out"
            )
        keep_plan(run)
        how = {"retry_failed": retry_failed, "progress": progress}
        ended = [
            stage for draw in range(run.config.settings.draws) for stage in _draw(run, draw, how)
        ]
        finished, failed = (sum(getattr(e, name) for e in ended) for name in ("finished", "failed"))
        return Replicated(run.path, finished, failed)


def with_arms(config: Config) -> Config:
    """With the methods that search for nothing read in, so that the run folder holds them."""
    settings = config.settings
    known = {arm["text"]: arm for arm in settings.arms}
    arms = [
        known.get(text) or arm_of(text, config.task.name, settings.ops).to_json()
        for text in settings.method
        if stage_of(text) is None
    ]
    return replace(config, settings=replace(settings, arms=tuple(arms)))


def check(config: Config) -> None:
    """InputError for what would only be found out after the first search."""
    settings = config.settings
    if config.evaluator.kind not in JUDGES:
        raise InputError(
            "evaluator", f"must be one of {', '.join(JUDGES)}, since cost is counted in children",
            config.evaluator.kind, "leave it out",
        )  # fmt: skip
    searches = _searches(config).values()
    for search in searches:
        build_searcher(search)  # a wrong option is told before anything runs
    cheap = any(search.settings.cheap for search in searches)
    check_no_twins("method", settings.method, settings, cheap)
    stages = {text: stage_of(text) for text in settings.method}
    arms = [text for text, stage in stages.items() if stage is None]
    taken = {*SEARCHING, *stages} - {*arms}
    names = [arm["name"] for arm in settings.arms if arm["name"] in taken]
    if names:
        raise InputError("method", "must not call a file as a method", names[0], "rename the file")
    parse_arms(arms, settings.seeds, {arm["text"]: arm for arm in settings.arms})


def _searches(config: Config) -> dict[str, Config]:
    """What the methods that have a searcher run on the first draw, by method."""
    stages = {name: stage_of(name) for name in config.settings.method}
    made = {name: stage.configure(config, 0) for name, stage in stages.items() if stage is not None}
    return {name: each for name, each in made.items() if each.searcher is not None}


# The plan --------------------------------------------------------------------------------------


def planned(config: Config) -> dict[str, Any]:
    """What is to be done, and the SHA-256 hash of it: that it was not chosen by the results."""
    saved, settings = config.to_json(), config.settings
    arms = digest(json.dumps(saved["settings"]["arms"], sort_keys=True).encode())
    still = [arm["text"] for arm in settings.arms]
    return _hashed(
        {
            "settings": {**saved["settings"], "arms": arms},
            # What is left open is what it is: an option that comes with a version changes no plan.
            "task": {
                name: value
                for name, value in saved["task"].items()
                if name != "data" and value is not None
            },
            "evaluator": saved["evaluator"],
            "procedure": PROCEDURE,
            "comparisons": [*map(list, pairs_of(settings.method, settings.against, still))],
            "primary": OWN,
        }
    )


def keep_plan(run: OpenRun) -> None:
    """Write the plan into the folder before its first evaluation, and a grown one beside it.

    Raises InputError where something is finished and plan.json is not as it was written.
    """
    path, plan = run.path / PLAN_NAME, planned(run.config)
    run.log.info(f"plan {plan['sha256'][:16]}: {_cost(run.config)}")
    if not run.resumed:
        write_json(path, [plan])
        return
    written = read_json(path)
    last = written[-1] if isinstance(written, list) and written else None
    if not isinstance(last, dict) or _hashed(last) != last or not _grown(last, plan):
        raise InputError(
            str(path), "must be the plan that was written before the first evaluation",
            str(last)[:60], "restore it from a copy, or go on with the version that began it",
        )  # fmt: skip
    if last["settings"]["draws"] < plan["settings"]["draws"]:
        write_json(path, [*written, plan])


def _hashed(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan with the SHA-256 hash of all else in it."""
    plan = {name: value for name, value in plan.items() if name != "sha256"}
    return {**plan, "sha256": digest(json.dumps(plan, sort_keys=True).encode())}


def _grown(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a plan is another, or the same with more draws.

    What a later version writes too is not asked of one that was written before; but the first
    plans, which named no procedure, are of another one.
    """
    if not {"settings", "task", "evaluator", "procedure"} <= set(before):
        return False
    settings = {**after["settings"], "draws": before["settings"]["draws"]}
    now = {**after, "settings": settings, "sha256": before["sha256"]}
    for part in ("settings", "evaluator"):
        now[part] = {name: value for name, value in now[part].items() if name in before[part]}
    return (
        before == {name: value for name, value in now.items() if name in before}
        and before["settings"]["draws"] <= after["settings"]["draws"]
    )


def _cost(config: Config) -> str:
    settings = config.settings
    searching = sum(stage_of(name) is not None for name in settings.method)
    children = searching * settings.budget + 2 * settings.seeds * len(settings.method)
    return (
        f"{settings.draws} draws of at most {children} children each ({searching} methods that "
        f"search, {settings.budget} children each; {len(settings.method)} judged by "
        f"2 x {settings.seeds})"
    )


# One draw --------------------------------------------------------------------------------------


def _draw(run: OpenRun, draw: int, how: dict[str, Any]) -> Iterator[Ended]:
    """Search by every method on a draw, then judge what they found, there and on another draw.

    Where something failed in a search, nothing is judged.
    """
    settings, folder = run.config.settings, run.path / f"{DRAW}{draw}"
    judged = [folder / OWN, folder / OTHER]
    arms: list[Arm] = []
    failed = 0
    for name in settings.method:
        stage = stage_of(name)
        if stage is None:
            known = next(arm for arm in settings.arms if arm["text"] == name)
            arms.append(Arm.from_json(known))
            continue
        place = folder / name / stage.kind
        if how["retry_failed"]:  # earlier versions judged all the same
            for journalled in (place, *sorted(place.glob("*/"))):
                forget_followers(place, journalled, *judged)
        run.log.info(f"draw {draw + 1} of {settings.draws}, {name}: {stage.kind}")
        made = stage.configure(on_draw(run.config, 2 * draw), draw)
        ended = _go_on(run.config, stage.run, made, place, how)
        yield ended
        failed += ended.failed
        if not failed:
            why = ended.why if isinstance(ended, FoundNothing) else ""
            arms.append(_stands_for(name, place, why))
    if failed:
        return
    for offset, place in enumerate(judged):
        run.log.info(f"draw {draw + 1} of {settings.draws}: children on its {place.name} images")
        made = judging(run.config, 2 * draw + offset, arms)
        yield _go_on(run.config, run_compare, made, place, how)


def _stands_for(name: str, place: Path, why: str) -> Arm:
    """The arm of a method on a draw: what its stage in the folder `place` found.

    Where it found nothing, and why, no augmentation. STAND_IN says so to the report.
    """
    note = place.parent / STAND_IN
    if why:
        write_json(note, {"why": why})
        return Arm(name, name, (None,), search=_spent(place))
    note.unlink(missing_ok=True)
    return found(name, place)


def _spent(place: Path) -> dict[str, Any]:
    """What a stage has cost, as the provenance of a policy says it."""
    trials = [trial for path in place.rglob(JOURNAL_NAME) for trial in read_journal(path)]
    costs = place / COSTS_NAME
    prepared = read_json(costs)["prepared"] if costs.exists() else 0
    return {"evaluations": len(trials), "image_passes": image_passes(trials) + prepared}


def _go_on(
    config: Config, run: Callable[..., Ended], made: Config, place: Path, how: dict[str, Any]
) -> Ended:
    """Run a stage, or go on with it. What it was begun with stays: paths in it may have changed.

    Raises NothingFound only where evaluations failed: these are to be made again.
    """
    if place.is_dir() and has_results(place):
        begun = read_config(place)
        made = replace(begun, task=replace(begun.task, data=config.task.data), pool=config.pool)
    try:
        return run(made, place, resume=True, **how)
    except NothingFound as nothing:
        trials = [t for path in place.rglob(JOURNAL_NAME) for t in read_journal(path)]
        if any(trial.error is not None for trial in trials):
            raise
        return FoundNothing(len(trials), str(nothing))


def on_draw(config: Config, number: int) -> Config:
    """The configuration on the `number`-th draw of the task, counted from that of --task-seed."""
    return replace(config, task=replace(config.task, seed=config.task.seed + number))


def judging(config: Config, number: int, arms: list[Arm]) -> Config:
    """The comparison of the methods' policies on a draw, by children from scratch.

    Every draw has seeds of its own, so that what is drawn at random for every seed (random:K) is
    drawn anew.
    """
    settings = config.settings
    return replace(
        on_draw(config, number),
        kind="compare",
        evaluator=replace(config.evaluator, reward="accuracy"),
        settings=CompareSettings(
            tuple(arm.text for arm in arms),
            settings.seeds,
            settings.seed + number * MOST_SEEDS,
            arms=tuple(arm.to_json() for arm in arms),
        ),
    )
