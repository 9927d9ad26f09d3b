"""`augsearch randaugment`: RandAugment's grid of N and M (arXiv 1909.13719).

The paper's point is that this grid replaces a search. Every cell is evaluated with the same seeds,
or, halved, the better half of the cells with ever more of them at the same cost. Scores are those
of the validation part. At the end the best cell and the middle one are evaluated again with new
seeds (DIR/again), since the best of many is partly the luckiest; the best becomes policy.json, and
the grid is written as an Optuna study too, DIR/optuna.db.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from policies import RandAugment, save_policy
from policies.augmentations import decode_augmentation
from proxy_tasks.evaluators.costs import preparation_passes
from proxy_tasks.run_format import AGAIN, POLICY_NAME
from proxy_tasks.trials import rank_by_mean
from search.engine import cluster
from search.engine.loop import RunResult, run
from search.errors import NothingFound
from search.runs.folder import check_journal
from search.runs.optuna_view import catch_up
from search.searchers.base import Searcher
from search.searchers.fixed import FixedSearcher
from search.searchers.grid import HalvingSearcher, grid_candidates
from search.trial import JOURNAL_NAME, Trial, image_passes, read_journal, usable_reward

from .config import Config
from .fixed import begin_stage, evaluate_fixed, forget_followers
from .seeds import training_seeds
from .study import OpenRun, open_run


def run_randaugment(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> RunResult:
    """Evaluate the grid in the run folder `out`, and export its best cell.

    `analysis.report_of(out)` makes the heat map.

    Args:
        config: `Config.of("randaugment", n=[1, 2], m=[5, 10])`; cells and seeds may grow, unless it
            is halved.
        resume, retry_failed, progress: as for `run_search`.

    Returns:
        How the grid went; failures of the stage `again` are counted in it.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        NothingFound: a child diverged in every cell.
    """
    with open_run(config, out, resume) as opened, cluster.keep_ray():
        journal, stage = opened.path / JOURNAL_NAME, opened.path / AGAIN
        if stage.is_dir():
            check_journal(opened.path, below=False)
        if retry_failed:
            forget_followers(opened.path, opened.path, stage)
            forget_followers(opened.path, stage)
        how: dict[str, Any] = {"retry_failed": retry_failed, "progress": progress}
        settings = opened.config.settings
        grid = run(
            searcher_of(opened.config),
            {"main": opened.config.evaluator},
            opened.task,
            opened.path,
            evaluations=len(settings.cells) * settings.seeds,
            pool=opened.config.pool,
            resume=True,  # the journal in a run's folder is always its own
            **how,
        )
        catch_up(opened.path)
        if grid.failed:
            return grid
        ranked = ranked_cells(read_journal(journal))
        _check_found(grid, ranked)
        ended = [grid]
        if settings.again and len(ranked) > 1:
            ended.append(_evaluate_again(opened, ranked, how))
        # policy.json comes last: its presence says that the run is complete.
        _export(opened, ranked[0], grid)
        finished, failed = (sum(getattr(e, name) for e in ended) for name in ("finished", "failed"))
        return replace(grid, finished=finished, failed=failed)


def searcher_of(config: Config) -> Searcher:
    """Of the grid: cells and seeds that are added leave the others in their places."""
    settings = config.settings
    evaluations = len(settings.cells) * settings.seeds
    if settings.halving:
        seeds = training_seeds("randaugment", settings.seed, evaluations)
        return HalvingSearcher(settings.cells, seeds, evaluations)
    seeds = training_seeds("randaugment", settings.seed, settings.seeds)
    return FixedSearcher(grid_candidates(settings.cells, seeds))


def ranked_cells(trials: Iterable[Trial]) -> list[RandAugment]:
    """Cells by their mean reward, the best first, those with most seeds before all others.

    A diverged child ranks below every child that trained, so its cell is left out.
    """
    rewards: dict[tuple[int, int], list[float | None]] = defaultdict(list)
    for trial in trials:
        cell = decode_augmentation(trial.augmentation)
        if isinstance(cell, RandAugment) and trial.evaluation is not None:
            rewards[cell.n, cell.m].append(usable_reward(trial.evaluation))
    return [RandAugment(n, m) for n, m in rank_by_mean(rewards)]


def _evaluate_again(opened: OpenRun, ranked: list[RandAugment], how: dict[str, Any]) -> RunResult:
    """The best cell beside the middle one, which is neither lucky nor unlucky, on new seeds."""
    cells = [(cell.n, cell.m) for cell in (ranked[0], ranked[len(ranked) // 2])]
    settings, stage = opened.config.settings, opened.path / AGAIN
    seeds = training_seeds("randaugment again", settings.seed, settings.again)
    candidates = grid_candidates(cells, seeds)
    begin_stage(opened, stage, candidates)
    return evaluate_fixed(opened, stage, candidates, {"main": opened.config.evaluator}, **how)


def _check_found(result: RunResult, ranked: list[RandAugment]) -> None:
    if not ranked:
        cells = len({trial.label for trial in read_journal(result.directory / JOURNAL_NAME)})
        raise NothingFound(
            f"in each of {cells} cells a child diverged, so no cell is recommended and no "
            "policy exported; lower the learning rate, or check the images"
        )


def _export(run: OpenRun, best: RandAugment, result: RunResult) -> None:
    """Write the best cell as policy.json into the run folder: RandAugment(n, m) itself.

    There is no policy.txt: a tuple list could not name it.
    """
    trials = read_journal(run.path / JOURNAL_NAME)
    prepared = preparation_passes(run.config.evaluator, run.task)
    provenance: dict[str, Any] = {
        "searcher": "randaugment",
        "cell": {"n": best.n, "m": best.m},
        "evaluations": {
            "finished": result.finished,
            "failed": result.failed,
            "duplicates": result.duplicates,
        },
        "cost": {"image_passes": image_passes(trials) + prepared},
    }
    save_policy(run.path / POLICY_NAME, best, provenance=provenance)
