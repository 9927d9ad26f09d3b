"""`augsearch randaugment`: RandAugment's grid of N and M (arXiv 1909.13719), each cell x seed once.

The paper's point is that this grid replaces a search. Scores are those of the validation part. At
the end the grid is written as an Optuna study too, DIR/optuna.db.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policies import RandAugment, save_policy
from search.engine.loop import RunResult
from search.errors import NothingFound
from search.runs.folder import POLICY_NAME
from search.runs.optuna_view import catch_up
from search.searchers.grid import grid_candidates
from search.trial import JOURNAL_NAME, Candidate, image_passes, read_journal, usable_reward

from .config import Config
from .fixed import run_fixed
from .seeds import training_seed


def run_randaugment(config: Config, out: Path | str, **how: Any) -> RunResult:
    """Evaluate every cell with every seed in the run folder `out`; `analysis.write_grid(out)`
    makes the heat map, `export_best` the policy.

    Args:
        config: `Config.of("randaugment", n=[1, 2], m=[5, 10])`; cells and seeds may grow.
        how: `resume`, `retry_failed`, `progress`, as for `run_search`.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        NothingFound: a child diverged in every cell.
    """
    result = run_fixed(config, out, candidates, **how)
    catch_up(Path(out))
    cells: dict[str, bool] = {}  # whether all its children trained
    for trial in read_journal(Path(out) / JOURNAL_NAME):
        trained = usable_reward(trial.evaluation) is not None
        cells[trial.label] = trained and cells.get(trial.label, True)
    if not result.failed and not any(cells.values()):
        raise NothingFound(
            f"in each of {len(cells)} cells a child diverged, so no cell is recommended and no "
            "policy exported; lower the learning rate, or check the images"
        )
    return result


def candidates(config: Config) -> list[Candidate]:
    """Of the grid: cells and seeds that are added leave the others in their places."""
    settings = config.settings
    seeds = [training_seed("randaugment", settings.seed, index) for index in range(settings.seeds)]
    return grid_candidates([(n, m) for n in settings.n for m in settings.m], seeds)


def export_best(out: str | Path, best: tuple[int, int], result: RunResult) -> None:
    """Write the cell `best` (n, m) as policy.json into the run folder: RandAugment(n, m) itself.

    There is no policy.txt: a tuple list could not name it.
    """
    n, m = best
    folder = Path(out)
    provenance: dict[str, Any] = {
        "searcher": "randaugment",
        "cell": {"n": n, "m": m},
        "evaluations": {
            "finished": result.finished,
            "failed": result.failed,
            "duplicates": result.duplicates,
        },
        "cost": {"image_passes": image_passes(read_journal(folder / JOURNAL_NAME))},
    }
    save_policy(folder / POLICY_NAME, RandAugment(n, m), provenance=provenance)
