"""`augsearch randaugment`: RandAugment's grid of N and M (arXiv 1909.13719), each cell x seed once.

The paper's point is that this grid replaces a search. The journal is the truth; beside it an
Optuna study (DIR/optuna.db) is kept in step for optuna-dashboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policies import RandAugment, save_policy
from policies.errors import InputError
from proxy_tasks import EvaluatorConfig
from search.engine.loop import RunResult
from search.engine.pool import PoolConfig
from search.searchers.grid import GridSearcher
from search.spaces import RandAugmentSpace
from search.trial import JOURNAL_NAME, image_passes, read_journal

from .study import StudyConfig, TaskConfig, run_study

STUDY_FILE = "optuna.db"


def run_grid(
    ns: Sequence[int],
    ms: Sequence[int],
    out: str,
    *,
    task: TaskConfig,
    seeds: int = 2,
    seed: int = 0,
    evaluator: EvaluatorConfig | None = None,
    pool: PoolConfig | None = None,
    resume: bool = False,
    progress: bool = True,
) -> RunResult:
    """Evaluate RandAugment(n, m) for all n of `ns` and m of `ms` with `seeds` seeds each.

    ns: 1 to 16; ms: 0 to 30. Seeds are seed, seed + 1, ..., the same for all cells. Scores
    are those of the validation part.
    Writes the run folder `out`; `analysis.write_grid(out)` makes the heat map, `export_best` the
    policy. Raises InputError before anything is written for a user's mistake.
    """
    if seeds < 1:
        raise InputError("seeds", "must be at least 1", seeds, "use 2")
    if seed < 0:
        raise InputError("seed", "must be at least 0", seed, "use 0")
    space = RandAugmentSpace(tuple(sorted(set(ns))), tuple(sorted(set(ms))))
    if space.ns[0] < 1:
        raise InputError("n", "must be 1 to 16", list(ns), "use 1 2 3")
    evaluator = evaluator or EvaluatorConfig(preset=task.preset)
    config = StudyConfig(
        "randaugment",
        out,
        task,
        {"main": evaluator},
        [],
        {"n": list(space.ns), "m": list(space.ms), "seeds": seeds, "seed": seed},
        pool or PoolConfig(),
    )
    drawn = task.build()
    return run_study(
        config,
        lambda folder: GridSearcher(space, range(seed, seed + seeds), folder / STUDY_FILE),
        drawn,
        resume=resume,
        progress=progress,
    )


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
    save_policy(folder / "policy.json", RandAugment(n, m), provenance=provenance)
