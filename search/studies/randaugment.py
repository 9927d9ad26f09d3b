"""`augsearch randaugment`: RandAugment's grid of N and M (arXiv 1909.13719), each cell x seed once.

The paper's point is that this grid replaces a search. Scores are those of the validation part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policies import RandAugment, save_policy
from search.engine.loop import RunResult
from search.runs.folder import POLICY_NAME
from search.trial import JOURNAL_NAME, Candidate, image_passes, read_journal

from .config import Config
from .fixed import run_fixed
from .seeds import training_seed

MAGNITUDES = 31


def run_randaugment(config: Config, out: Path | str, **how: Any) -> RunResult:
    """Evaluate every cell with every seed in the run folder `out`; `analysis.write_grid(out)`
    makes the heat map, `export_best` the policy.

    Args:
        config: `Config.of("randaugment", n=[1, 2], m=[5, 10])`; cells and seeds may grow.
        how: `resume`, `retry_failed`, `progress`, as for `run_search`.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
    """
    return run_fixed(config, out, grid_candidates, **how)


def grid_candidates(config: Config) -> list[Candidate]:
    """batch = index of the seed; slot = the cell, numbered as if the grid had every N and M."""
    settings = config.settings
    return [
        Candidate(
            index,
            n * MAGNITUDES + m,
            RandAugment(n, m),
            training_seed("randaugment", settings.seed, index),
            label=f"N={n} M={m}",
        )
        for index in range(settings.seeds)
        for n in settings.n
        for m in settings.m
    ]


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
