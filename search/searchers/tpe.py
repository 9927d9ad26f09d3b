"""Optuna behind the ask/tell contract: TPE over policies.

TPE: Bergstra et al. 2011, as in optuna.samplers.TPESampler; with `multivariate` its joint form
(Falkner et al. 2018, as Optuna's documentation describes it).
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from policies.errors import InputError
from policies.options import Option, checks_options
from search.spaces import PolicySpace, RandAugmentSpace, Space

from .base import STREAM_DRAW, derive_seed
from .batches import BatchSearcher, BatchSize, Decisions, Lag


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """One Optuna parameter per decision, in order.

    Operations are categories; probability and magnitude indices are integers, so that TPE knows
    their order. Values are indices as in `space.encode`.
    """
    if isinstance(space, PolicySpace):
        found: dict[str, BaseDistribution] = {}
        for i in range(space.num_subpolicies):
            for j in range(space.num_operations):
                place = f"{i}_{j}"
                found[f"operation_{place}"] = CategoricalDistribution(range(len(space.ops)))
                found[f"probability_{place}"] = IntDistribution(0, space.probability_bins - 1)
                found[f"magnitude_{place}"] = IntDistribution(0, space.bins - 1)
        return found
    if isinstance(space, RandAugmentSpace):
        return {
            "n": IntDistribution(0, len(space.ns) - 1),
            "m": IntDistribution(0, len(space.ms) - 1),
        }
    raise InputError(
        "space",
        "must be a PolicySpace or a RandAugmentSpace",
        type(space).__name__,
        "pass one of these",
    )


class OptunaSearcher(BatchSearcher):
    """TPE, told whole batches like every `BatchSearcher`.

    Candidates of one batch are drawn one after the other from the same results; those drawn before
    in the batch count as bad ones (Optuna's "constant liar"), which keeps them apart.

    Batches stay small, since TPE changes its mind with every result. `history` bounds
    what TPE sees: Optuna itself would keep all, at a cost per ask that grows with their number
    (20 ms at 500 results).
    """

    @checks_options
    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        batch_size: BatchSize = 10,
        lag: Lag = 1,
        startup: Annotated[
            int, Option("results that TPE waits for before it begins", least=1)
        ] = 50,
        multivariate: Annotated[
            bool, Option("model decisions jointly (Optuna's multivariate=True)")
        ] = True,
        history: Annotated[
            int,
            Option("results that TPE sees: the best half and the latest others", least=20),
        ] = 500,
    ) -> None:
        super().__init__(space, seed, batch_size=batch_size, lag=lag)
        if history < startup:
            raise InputError(
                "history", f"must be at least startup, {startup}: with fewer results TPE draws "
                "uniformly for ever", history, f"pass {startup} or more",
            )  # fmt: skip
        self.startup = startup
        self.multivariate = multivariate
        self.history = history
        self._distributions = distributions(space)
        # (reward, decisions) in the order of (batch, slot), and the same as Optuna trials.
        self._told: list[tuple[float, Decisions]] = []
        self._trials: list[FrozenTrial] = []

    def _draw(self, batch: int) -> tuple[list[Decisions], dict[str, Any]]:
        # A fresh study per batch holds nothing but the results to be used: what is drawn cannot
        # depend on how the searcher got here.
        with quiet():
            study = optuna.create_study(
                direction="maximize",
                sampler=self._sampler(derive_seed(self.seed, STREAM_DRAW, batch)),
            )
            study.add_trials(self._trials)
            asked = [study.ask(self._distributions) for _ in range(self.batch_size)]
        names = list(self._distributions)
        return [tuple(int(trial.params[name]) for name in names) for trial in asked], {}

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            # Options marked experimental; their behaviour is pinned by our tests.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _Sampler(
                self._distributions,
                n_startup_trials=self.startup,
                multivariate=self.multivariate,
                constant_liar=True,
                seed=seed,
            )

    def _update(
        self,
        batch: int,
        decisions: Sequence[Decisions],
        rewards: Sequence[float | None],
        notes: dict[str, Any],
    ) -> None:
        for row, reward in zip(decisions, rewards, strict=True):
            if reward is not None:
                self._told.append((reward, row))
                self._trials.append(self._trial(reward, row))
        if len(self._told) > self.history:
            self._forget()

    def _forget(self) -> None:
        """Keep the best half and, of the rest, the latest, in their order."""
        ranked = sorted(range(len(self._told)), key=lambda i: (-self._told[i][0], i))
        best = set(ranked[: self.history // 2])
        others = [i for i in range(len(self._told)) if i not in best]
        kept = sorted(best.union(others[len(others) - (self.history - len(best)) :]))
        self._told = [self._told[i] for i in kept]
        self._trials = [self._trials[i] for i in kept]

    def _trial(self, reward: float, row: Decisions) -> FrozenTrial:
        now = datetime.datetime.now()  # of no consequence; Optuna wants one
        return _Told(
            -1, TrialState.COMPLETE, reward, now, now,
            dict(zip(self._distributions, row, strict=True)), self._distributions, {}, {}, {}, -1,
        )  # fmt: skip


class _Told(FrozenTrial):
    """A result whose contents nobody changes, so that storages need not copy them: half the time
    of a draw went into that."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        return copy.copy(self)


class _Sampler(optuna.samplers.TPESampler):
    """TPE that is told the space: its base finds the same by looking through all results."""

    def __init__(self, space: dict[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._modelled = options["multivariate"]
        self._joint = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._joint if self._modelled else {}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's line about every new study, of which there is one per batch."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
