"""RandAugment's grid of N and M (arXiv 1909.13719): a fixed list, or one that is halved.

A fixed grid keeps the places of its cells when it grows. Optuna's own GridSampler neither ends by
itself nor survives a crash (it loses cells and repeats others). The grid as an Optuna study is a
view of the journal: `search.runs.optuna_view`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from policies import RandAugment
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.trials import rank_by_mean
from search.trial import Candidate, usable_reward

from .base import QueueSearcher

MAGNITUDES = 31
FINALISTS = 2  # cells that the last round of a halving compares
Cell = tuple[int, int]


def grid_candidates(
    cells: Iterable[Cell], seeds: Sequence[int], *, first: int = 0
) -> list[Candidate]:
    """Every cell with every seed, the same for all, so that cells are compared on equal draws.

    Args:
        cells: (N, M) pairs, each once.
        seeds: of the evaluations, each once.
        first: index of the first of these seeds.

    Returns:
        Candidates with batch = index of the seed and slot = 31 N + M: a cell has its place whatever
        other cells there are, so a journal goes on when cells or seeds are added.
    """
    cells = list(cells)
    return [
        Candidate(batch, n * MAGNITUDES + m, RandAugment(n, m), seed, label=f"N={n} M={m}")
        for batch, seed in enumerate(seeds, first)
        for n, m in cells
    ]


def rounds(cells: int, evaluations: int) -> list[tuple[int, int]]:
    """Successive halving (Jamieson and Talwalkar, arXiv 1502.07943): (cells, seeds) of each round.

    Each round costs about the same, so every halving of the cells doubles the seeds; a cell keeps
    what it had. Together at most `evaluations`, which must be at least one a cell.
    """
    sizes = [cells]
    while sizes[-1] > FINALISTS:
        sizes.append(-(-sizes[-1] // 2))
    made = []
    for place, size in enumerate(sizes):
        seeds = max(1, evaluations // (len(sizes) - place) // size)
        if seeds * size > evaluations:
            break  # a smaller round would not be the better half of the one before
        made.append((size, seeds))
        evaluations -= seeds * size
    return made


class HalvingSearcher(QueueSearcher):
    """Every cell with a few seeds, then the better half with more, and so on: `rounds`.

    Cells of a round have the same seeds, so they are ranked by the mean over all they had so far.
    A cell whose child diverged or failed goes no further. The results of a round are awaited before
    the next: batches are seeds in order, and depend on all earlier ones.

    Args:
        cells: (N, M) pairs, each once.
        seeds: of the evaluations, each once; as many as the rounds of a grid need at most.
        evaluations: in all, at least one a cell.
    """

    lag = 0

    def __init__(self, cells: Sequence[Cell], seeds: Sequence[int], evaluations: int) -> None:
        super().__init__()
        self._seeds = list(seeds)
        self._rounds = deque(rounds(len(cells), evaluations))
        self._rewards: dict[Cell, list[float | None]] = {cell: [] for cell in cells}
        self._left = list(cells)
        self._used = 0

    def _fill(self) -> None:
        while self._rounds and not self._queue and not self._open:
            self._next_round()

    def _next_round(self) -> None:
        size, seeds = self._rounds.popleft()
        ranked = rank_by_mean({cell: self._rewards[cell] for cell in self._left})
        self._left = sorted(ranked[:size])
        fresh = self._seeds[self._used : self._used + seeds]
        self._queue.extend(grid_candidates(self._left, fresh, first=self._used))
        self._used += seeds

    def _learn(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        cell = divmod(candidate.slot, MAGNITUDES)
        # In any order: `rank_by_mean` adds them up without rounding.
        self._rewards[cell].append(usable_reward(evaluation))

    @property
    def finished(self) -> bool:
        return not (self._rounds or self._queue or self._open)
