"""RandAugment's grid of N and M (arXiv 1909.13719): a fixed list whose places stay when it grows.

Optuna's own GridSampler neither ends by itself nor survives a crash (it loses cells and repeats
others). The grid as an Optuna study is a view of the journal: `search.runs.optuna_view`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies import RandAugment
from policies.errors import InputError
from search.spaces import RandAugmentSpace
from search.trial import Candidate

from .fixed import FixedSearcher

MAGNITUDES = 31


def grid_candidates(
    cells: Iterable[tuple[int, int]],
    seeds: Sequence[int],
    *,
    scorer: str = "main",
    part: str = "validation",
) -> list[Candidate]:
    """Every cell with every seed, the same for all, so that cells are compared on equal draws.

    Args:
        cells: (N, M) pairs, each once.
        seeds: of the evaluations, each once.

    Returns:
        Candidates with batch = index of the seed and slot = 31 N + M: a cell has its place whatever
        other cells there are, so a journal goes on when cells or seeds are added.
    """
    cells = list(cells)
    return [
        Candidate(batch, n * MAGNITUDES + m, RandAugment(n, m), seed, scorer, part, f"N={n} M={m}")
        for batch, seed in enumerate(seeds)
        for n, m in cells
    ]


class GridSearcher(FixedSearcher):
    """Every cell of the grid with every seed, once; see `grid_candidates`."""

    name = "grid"

    def __init__(
        self,
        space: RandAugmentSpace,
        seeds: Sequence[int],
        *,
        scorer: str = "main",
        part: str = "validation",
    ) -> None:
        if not seeds or len(set(seeds)) != len(seeds):
            raise InputError(
                "seeds", "must be one or more different seeds", list(seeds), "pass for example 0 1"
            )
        self.space = space
        super().__init__(grid_candidates(space.cells, seeds, scorer=scorer, part=part))
