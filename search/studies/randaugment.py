"""`augsearch randaugment`: RandAugment's grid of N and M (arXiv 1909.13719), each cell x seed once.

The paper's point is that this grid replaces a search. Scores are those of the validation part. At
the end the best cell is policy.json, and the grid is written as an Optuna study too, DIR/optuna.db.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from policies import RandAugment, save_policy
from policies.augmentations import decode_augmentation
from proxy_tasks.trials import best_by_mean
from search.engine.loop import RunResult
from search.errors import NothingFound
from search.runs.folder import POLICY_NAME
from search.runs.optuna_view import catch_up
from search.searchers.grid import grid_candidates
from search.trial import JOURNAL_NAME, Candidate, Trial, image_passes, read_journal, usable_reward

from .config import Config
from .fixed import run_fixed
from .seeds import training_seed


def run_randaugment(config: Config, out: Path | str, **how: Any) -> RunResult:
    """Evaluate every cell with every seed in the run folder `out`, and export the best one;
    `analysis.write_grid(out)` makes the heat map.

    Args:
        config: `Config.of("randaugment", n=[1, 2], m=[5, 10])`; cells and seeds may grow.
        how: `resume`, `retry_failed`, `progress`, as for `run_search`.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        NothingFound: a child diverged in every cell.
    """
    result = run_fixed(config, out, candidates, **how)
    catch_up(Path(out))
    if not result.failed:
        _export(result)
    return result


def candidates(config: Config) -> list[Candidate]:
    """Of the grid: cells and seeds that are added leave the others in their places."""
    settings = config.settings
    seeds = [training_seed("randaugment", settings.seed, index) for index in range(settings.seeds)]
    return grid_candidates([(n, m) for n in settings.n for m in settings.m], seeds)


def best_cell(trials: Iterable[Trial]) -> RandAugment | None:
    """The cell with the highest mean reward; None where a child of every cell diverged.

    A diverged child ranks below every child that trained, so its cell is left out.
    """
    rewards: dict[tuple[int, int], list[float | None]] = defaultdict(list)
    for trial in trials:
        cell = decode_augmentation(trial.augmentation)
        if isinstance(cell, RandAugment) and trial.evaluation is not None:
            rewards[cell.n, cell.m].append(usable_reward(trial.evaluation))
    sound = {
        cell: [reward for reward in told if reward is not None]
        for cell, told in rewards.items()
        if None not in told
    }
    return RandAugment(*best_by_mean(sound)) if sound else None


def _export(result: RunResult) -> None:
    """Write the best cell as policy.json into the run folder: RandAugment(n, m) itself.

    There is no policy.txt: a tuple list could not name it.
    """
    trials = read_journal(result.directory / JOURNAL_NAME)
    best = best_cell(trials)
    if best is None:
        cells = len({trial.label for trial in trials})
        raise NothingFound(
            f"in each of {cells} cells a child diverged, so no cell is recommended and no "
            "policy exported; lower the learning rate, or check the images"
        )
    provenance: dict[str, Any] = {
        "searcher": "randaugment",
        "cell": {"n": best.n, "m": best.m},
        "evaluations": {
            "finished": result.finished,
            "failed": result.failed,
            "duplicates": result.duplicates,
        },
        "cost": {"image_passes": image_passes(trials)},
    }
    save_policy(result.directory / POLICY_NAME, best, provenance=provenance)
