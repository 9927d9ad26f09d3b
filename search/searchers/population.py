"""Population Based Augmentation (arXiv 1905.05393): who goes on from whom, under which policy.

A population of children is trained side by side, `interval` epochs to a generation. After each,
the worst quarter goes on from a copy of one of the best quarter (weights and all), with that one's
policy explored a little. The ancestors of the child that is best at the end are the schedule: which
policy in which epochs.

As in the paper: 15 operations (without SamplePairing), each twice, with 11 probabilities and 10
magnitudes; all of them 0 at the start; exploring draws a value anew with probability 0.2 and
otherwise moves it 0 to 3 steps up or down. Different from the paper: there, an image gets up to
two of the 30 operations, in random order; here the 30 are paired into the 15 sub-policies of a
`Policy`, of which an image draws one, so that a schedule is made of ordinary policies. The partner
of an operation is drawn once from the seed. And the generations are in step (in the paper workers
are not), so that the seed alone decides the result, whatever the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from policies.errors import InputError, check_integer
from policies.ops import PAPER_OPS
from policies.policy import Policy
from policies.schedule import Schedule
from proxy_tasks.evaluators.evaluation import Evaluation
from search.spaces import PolicySpace
from search.trial import Candidate, Key, Trial, usable_reward

from .base import STREAM_EVALUATION, QueueSearcher, derive_seed

OPS = PAPER_OPS[:15]
SPACE = PolicySpace(num_subpolicies=len(OPS), num_operations=2, ops=OPS)
QUANTILE = 0.25
RESAMPLE = 0.2
LEAST_POPULATION = 4

# A member's choice: per operation (30 of them) the index of its probability and its magnitude.
Levels = list[int]


def start_levels() -> Levels:
    """No augmentation: every probability and magnitude 0."""
    return [0] * (4 * len(OPS))


def levels_to_policy(levels: Sequence[int], seed: int) -> Policy:
    """The policy of 2 x 30 levels (probability, magnitude of each operation, twice over)."""
    partners = np.random.default_rng([seed, 5]).permutation(len(OPS)).tolist()
    decisions: list[int] = []
    for first, second in enumerate(partners):
        for copy, operation in enumerate((first, second)):
            place = 2 * (copy * len(OPS) + operation)
            decisions += (operation, levels[place], levels[place + 1])
    return SPACE.decode(decisions)


def explore(levels: Sequence[int], rng: np.random.Generator) -> Levels:
    """The paper's algorithm 1 for all levels."""
    explored = []
    for place, level in enumerate(levels):
        choices = SPACE.bins if place % 2 else SPACE.probability_bins
        if rng.random() < RESAMPLE:
            explored.append(int(rng.integers(choices)))
        else:
            step = int(rng.integers(4)) * (1 if rng.random() < 0.5 else -1)
            explored.append(min(choices - 1, max(0, level + step)))
    return explored


class _Member(NamedTuple):
    parent: int  # slot in the generation before; its own unless it was replaced
    levels: Levels


class PopulationSearcher(QueueSearcher):
    """Asks for every member of a generation, then for the next generation.

    Args:
        population: children trained side by side, at least 4.
        generations: how often each is trained on, at least 1.
        seed: of partners and exploring, >= 0.
        children: training seed of each member; default: derived from the seed.

    A candidate's batch is its generation, its slot the member; from the second generation on it
    names the `parent` whose weights it goes on from. A member that failed or diverged is replaced
    like the worst.
    """

    def __init__(
        self,
        population: int = 8,
        generations: int = 10,
        seed: int = 0,
        children: Sequence[int] | None = None,
    ) -> None:
        check_integer("population", population, LEAST_POPULATION)
        check_integer("generations", generations, 1)
        check_integer("seed", seed, 0)
        super().__init__()
        self.population = population
        self.generations = generations
        self.seed = seed
        self.children = children or [
            derive_seed(seed, STREAM_EVALUATION, slot) for slot in range(population)
        ]
        if len(self.children) != population:
            raise InputError(
                "children", f"must be {population} seeds", len(self.children), "one per member"
            )
        self._generation = -1
        self._members = [_Member(slot, start_levels()) for slot in range(population)]
        self._results: dict[int, Evaluation | None] = {}
        self._over = False
        self._open_generation()

    def _fill(self) -> None:
        if not self.finished and len(self._results) == self.population:
            self._exchange()

    def _learn(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        self._results[candidate.slot] = evaluation
        complete = len(self._results) == self.population
        trained = any(usable_reward(result) is not None for result in self._results.values())
        self._over = complete and (not trained or self._generation + 1 == self.generations)

    @property
    def finished(self) -> bool:
        """After the last generation, or when no member is left that trained."""
        return self._over

    def may_continue(self, key: Key) -> bool:
        return key[0] >= self._generation - 1

    def _open_generation(self) -> None:
        self._generation += 1
        self._results = {}
        self._queue.extend(
            Candidate(
                self._generation,
                slot,
                levels_to_policy(member.levels, self.seed),
                self.children[slot],
                label=f"member {slot}",
                parent=(self._generation - 1, member.parent) if self._generation else None,
            )
            for slot, member in enumerate(self._members)
        )

    def _exchange(self) -> None:
        """Replace the worst quarter and who has not trained by explored copies of the best."""
        rng = np.random.default_rng([self.seed, 6, self._generation])
        rewards = [usable_reward(self._results[slot]) for slot in range(self.population)]
        worth = [-math.inf if reward is None else reward for reward in rewards]
        ranked = sorted(range(self.population), key=lambda slot: -worth[slot])
        quarter = math.ceil(QUANTILE * self.population)
        best = [slot for slot in ranked[:quarter] if rewards[slot] is not None]
        replaced = {slot for slot in ranked if rewards[slot] is None} | {*ranked[-quarter:]}
        members = []
        for slot, member in enumerate(self._members):
            if slot in replaced:
                parent = best[int(rng.integers(len(best)))]
                members.append(_Member(parent, explore(self._members[parent].levels, rng)))
            else:
                members.append(_Member(slot, member.levels))
        self._members = members
        self._open_generation()


def ancestry(trials: Iterable[Trial], key: Key) -> list[Trial]:
    """The trial of `key` and those whose weights it went on from, the first one first."""
    by_key = {trial.key: trial for trial in trials}
    line = [by_key[key]]
    while line[-1].parent is not None:
        line.append(by_key[line[-1].parent])
    return line[::-1]


def schedule_of(
    trials: Iterable[Trial], generations: int, interval: int, epochs: int
) -> tuple[Schedule, Trial] | None:
    """The schedule of the best member of the last generation, and its last trial.

    Equal rewards: the lower slot. None when no member trained to the end.

    Args:
        trials: of a run's journal.
        generations: of the run.
        interval: epochs of a generation.
        epochs: of the whole training.
    """
    trials = list(trials)
    last = [
        (reward, -trial.slot, trial)
        for trial in trials
        if trial.batch == generations - 1
        and (reward := usable_reward(trial.evaluation)) is not None
    ]
    if not last:
        return None
    best = max(last)[2]
    ranges: list[tuple[int, Policy]] = []
    for trial in ancestry(trials, best.key):
        policy = Policy(trial.augmentation or ())
        if not ranges or ranges[-1][1] != policy:
            ranges.append((trial.batch * interval, policy))
    return Schedule(ranges, epochs), best
