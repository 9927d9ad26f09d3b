"""Searchers as users write them, by what they propose: named by import path in test_budget.py."""

from __future__ import annotations

from dataclasses import replace

from policies import Policy, RandAugment
from search import BatchSearcher
from search.spaces import sample_decisions


class Ragged(BatchSearcher):
    """Sub-policies of one and of two operations, and no augmentation at all."""

    def __init__(self, space, seed=0):
        super().__init__(space, seed, batch_size=4)

    def _draw(self, batch):
        rng = self._generator(batch)
        drawn = [sample_decisions(self.space.decisions, rng) for _ in range(self.batch_size)]
        return drawn, {}

    def ask(self):
        candidate = super().ask()
        return candidate and replace(candidate, augmentation=self._made(candidate))

    def _made(self, candidate):
        if candidate.slot == 1:
            return None
        return Policy([row[: 1 + place % 2] for place, row in enumerate(candidate.augmentation)])


class Cells(Ragged):
    def _made(self, candidate):
        return RandAugment(1, candidate.slot)


class Mixed(Ragged):
    """A policy first, then others."""

    def _made(self, candidate):
        return candidate.augmentation if candidate.slot == 0 else RandAugment(1, candidate.slot)


class Wild(Ragged):
    """In its third batch an operation that the search may leave out."""

    def _made(self, candidate):
        found = candidate.augmentation
        return Policy([*found[1:], [("Cutout", 0.5, 3)]]) if candidate.key == (2, 1) else found
