"""A searcher that proposes a given list: comparisons, grids, fidelity studies, re-scoring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from policies import Policy
from policies.errors import InputError
from proxy_tasks.evaluators.evaluation import Evaluation
from search.trial import Candidate, Key, usable_reward

from .base import QueueSearcher

SHOWN = 4  # arms that progress names


class FixedSearcher(QueueSearcher):
    """Asks the given candidates once each, in the given order, and is `finished` when all are told.

    candidates: with unique keys; scorer, part, seed and label are passed on untouched.
    All results are kept (`results`), so memory grows with the list.
    """

    lag = None

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        super().__init__()
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
        self._queue.extend(self.candidates)

    def _learn(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        self.results[candidate.key] = evaluation

    def arms(self) -> str:
        """Up to four of them with their mean rewards, `none 0.834 (2/3)`, else how many are done;
        by evaluator, where several judge."""
        arm = "scorer" if len({each.scorer for each in self.candidates}) > 1 else "label"
        sizes = Counter(getattr(each, arm) for each in self.candidates)
        told = Counter(getattr(self._by_key[key], arm) for key in self.results)
        if len(sizes) > SHOWN:
            return f"{sum(told[name] == size for name, size in sizes.items())} of {len(sizes)} arms"
        words = []
        for name, size in sizes.items():
            rewards = [
                reward for key, each in self.results.items()
                if getattr(self._by_key[key], arm) == name
                and (reward := _counted(self._by_key[key], each)) is not None
            ]  # fmt: skip
            mean = f" {np.mean(rewards):.4g}" if rewards and arm == "label" else ""
            words.append(f"{name}{mean} ({told[name]}/{size})")
        return ", ".join(words)

    @property
    def finished(self) -> bool:
        return len(self.results) == len(self.candidates)


def _counted(candidate: Candidate, evaluation: Evaluation | None) -> float | None:
    """What counts in an arm's mean, as in reports: tested children that diverged, at chance."""
    if evaluation is None or candidate.part != "test":
        return usable_reward(evaluation)
    reward = evaluation.reward
    return None if reward is None or not np.isfinite(reward) else reward


def fixed_candidates(
    arms: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    scorer: str = "main",
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
        Candidate(batch, slot, augmentation, seed, scorer, part, label)
        for batch, seed in enumerate(seeds)
        for slot, (label, augmentation) in enumerate(arms.items())
    ]
