"""A searcher that proposes a given list: comparisons, grids, fidelity studies, re-scoring."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from policies import Policy
from policies.errors import InputError
from proxy_tasks.evaluators.evaluation import Evaluation

from .base import (
    Candidate,
    Key,
    Leaderboard,
    Searcher,
    check_configuration,
    result_from_state,
    result_to_state,
)


class FixedSearcher(Searcher):
    """Asks the given candidates once each, in the given order, and is `finished` when all are told.

    candidates: with unique keys; evaluator, part, seed and label are passed on untouched.
    All results are kept (`results`), so memory grows with the list.
    """

    name = "fixed"

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.candidates = tuple(candidates)
        self._by_key = {candidate.key: candidate for candidate in self.candidates}
        if len(self._by_key) != len(self.candidates):
            raise InputError(
                "candidates",
                "must have unique (batch, slot) keys",
                f"{len(self.candidates)} candidates with {len(self._by_key)} keys",
                "number them with `fixed_candidates`",
            )
        self.results: dict[Key, Evaluation | None] = {}
        self._queue = deque(self.candidates)
        self._asked: set[Key] = set()

    def ask(self) -> Candidate | None:
        if not self._queue:
            return None
        candidate = self._queue.popleft()
        self._asked.add(candidate.key)
        return candidate

    def tell(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        if candidate.key not in self._asked:
            raise ValueError(f"candidate {candidate.key} is not open: never asked, or told before")
        self._asked.remove(candidate.key)
        self.results[candidate.key] = evaluation

    @property
    def finished(self) -> bool:
        return len(self.results) == len(self.candidates)

    def best(self, k: int = 1) -> list[tuple[Candidate, Evaluation]]:
        leaders = Leaderboard(keep=max(1, k))
        for key, evaluation in self.results.items():
            if evaluation is not None:
                leaders.add(self._by_key[key], evaluation)
        return leaders.best(k)

    def _configuration(self) -> dict[str, Any]:
        rows = "\n".join(repr(candidate) for candidate in self.candidates)
        return {"searcher": self.name, "candidates": hashlib.sha256(rows.encode()).hexdigest()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "configuration": self._configuration(),
            "results": [
                [*key, result_to_state(result)] for key, result in sorted(self.results.items())
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_configuration(state, self._configuration())
        self.results = {
            (batch, slot): result_from_state(result) for batch, slot, result in state["results"]
        }
        self._asked = set()
        self._queue = deque(c for c in self.candidates if c.key not in self.results)


def fixed_candidates(
    arms: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    evaluator: str = "main",
    part: str = "validation",
) -> list[Candidate]:
    """Every arm with every seed: batch = index of the seed, slot = index of the arm.

    arms: label -> Policy, Transform or None. All arms of one seed come before the next seed, so an
    unfinished run still compares arms on equal seeds.
    """
    for label, augmentation in arms.items():
        if isinstance(augmentation, tuple) and not isinstance(augmentation, Policy):
            raise InputError(
                f"arms[{label!r}]",
                "must be a Policy, a Transform or None",
                type(augmentation).__name__,
                "wrap the rows in Policy(...)",
            )
    return [
        Candidate(batch, slot, augmentation, seed, evaluator, part, label)
        for batch, seed in enumerate(seeds)
        for slot, (label, augmentation) in enumerate(arms.items())
    ]
