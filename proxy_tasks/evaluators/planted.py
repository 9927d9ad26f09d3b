"""A planted landscape: a millisecond evaluator whose best policy is known. For tests of search.

Structure and noise follow what was measured on real proxy tasks: a policy's value is the mean of
its sub-policies' values plus a charge for repeating an operation pair, policies of five uniform
sub-policies scatter by 1.5 points of accuracy, and one evaluation by 0.8 points.
"""

from __future__ import annotations

import itertools
import math
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from policies.ops import OPS
from policies.options import Option
from policies.policy import Operation, Policy
from proxy_tasks.data import ProxyTask

from .base import Evaluator, check_call
from .config import EvaluatorConfig
from .evaluation import Evaluation

if TYPE_CHECKING:
    from policies.augmentations import Augmentation

OPERATIONS = tuple(name for name in OPS if name != "Identity")
PROBABILITIES = tuple(p / 10 for p in range(11))
BINS = 10
SIZE = 5  # sub-policies of a candidate
CEILING = 0.06  # returns diminish: no policy is this much better than the mean one


class PlantedLandscape(Evaluator):
    """Evaluator of planted rewards. The task's images are not used.

    landscape      seed of the landscape itself
    policy_sd      sd of the true value over uniform policies of 5 x 2 operations (accuracy, 0..1)
    noise          sd of one evaluation around the true value
    sleep          seconds each evaluation takes
    passes         image passes that an evaluation counts as
    cheap_bias     how strongly a second, unrelated landscape is mixed in (0: none), to imitate a
                   cheap evaluator with a bias of its own; its returns do not diminish,
                   so it decides where a search ends
    own_noise      whether policies under one seed have noise of their own, as real children have;
                   otherwise a seed shifts all alike, and a choice under one seed meets no noise
    """

    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask | None = None,
        *,
        landscape: Annotated[int, Option("seed of the planted rewards", least=0)] = 0,
        policy_sd: Annotated[float, Option("spread of random policies", least=0)] = 0.015,
        noise: Annotated[float, Option("spread between seeds", least=0)] = 0.008,
        sleep: Annotated[float, Option("seconds of an evaluation", least=0, most=1e6)] = 0.0,
        passes: Annotated[int, Option("image passes that an evaluation counts as", least=1)] = 1,
        cheap_bias: Annotated[float, Option("spread of the bias off test", least=0)] = 0.0,
        own_noise: Annotated[bool, Option("noise of its own for every policy of a seed")] = False,
    ):
        self.config, self.noise, self.sleep, self.passes = config, noise, sleep, passes
        self.own_noise = own_noise
        self.truth = Landscape(landscape, policy_sd)
        self.bias = Landscape(landscape + 1_000_003, policy_sd * cheap_bias) if cheap_bias else None

    @property
    def optimum(self) -> Policy:
        """The best policy of 5 sub-policies of 2 operations."""
        return self.truth.optimum(5)

    def value(self, augmentation: Augmentation) -> float:
        """The true reward (accuracy) without noise and bias."""
        return self.truth.value(augmentation)

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        check_call(seed, part)
        started = time.perf_counter()
        if self.sleep:
            time.sleep(self.sleep)
        metrics = self._metrics(augmentation, seed, part)
        details: dict[str, Any] = {}
        if part == "test":  # of the same child, as real evaluators tell
            details["validation"] = self._metrics(augmentation, seed, "validation")
        return Evaluation(
            metrics[self.config.reward],
            self.noise,
            metrics,
            time.perf_counter() - started,
            self.passes,
            part=part,
            details=details,
        )

    def _metrics(self, augmentation: Augmentation, seed: int, part: str) -> dict[str, float]:
        # The noise differs between parts, as different images would make it.
        stream = [seed, 0 if part == "validation" else 1]
        if self.own_noise:
            from proxy_tasks.tables import policy_text  # which imports torch

            stream.append(zlib.crc32(policy_text(augmentation).encode()))
        rng = np.random.default_rng(stream)
        accuracy = self.truth.value(augmentation) + self.noise * rng.standard_normal()
        if self.bias and part == "validation":
            accuracy += self.bias.surplus(augmentation)
        accuracy = float(np.clip(accuracy, 0.0, 1.0))
        # Likelihoods move with accuracy; their scale is of no interest here.
        likelihood = math.log(max(accuracy, 1e-3))
        return {
            "accuracy": accuracy,
            "log_likelihood": likelihood,
            "calibrated_log_likelihood": likelihood,
            "temperature": 1.0,
        }


class Landscape:
    """True values: mean over sub-policies of (operation gains + pair gain), less repeats, squashed.

    Each operation's gain is concave in its probability (0 at probability 0) and in its magnitude,
    with a planted best of both; a third of the operations only harm. Repeating an unordered
    operation pair costs, in a policy of five, `repeat_cost` for each earlier sub-policy with the
    same pair, and in others as much for the same shares.
    """

    base = 0.55

    def __init__(self, seed: int, policy_sd: float):
        rng = np.random.default_rng([seed, 99])
        count = len(OPERATIONS)
        gain = rng.normal(0.3, 1.0, count)
        best_p = rng.integers(3, 11, count) / 10
        best_m = rng.integers(1, 9, count)
        self.gains = {
            name: _gain_table(gain[i], best_p[i], best_m[i] if OPS[name].has_magnitude else None)
            for i, name in enumerate(OPERATIONS)
        }
        pairs = rng.normal(0.0, 0.4, (count, count))
        self.pairs = (pairs + pairs.T) / 2
        self.index = {name: i for i, name in enumerate(OPERATIONS)}
        self.repeat_cost, self.scale, self.offset = 0.8, 1.0, 0.0
        raw = np.array([self._raw(_uniform_rows(rng)) for _ in range(1000)])
        self.scale, self.offset = policy_sd / raw.std(), raw.mean()

    def value(self, augmentation: Augmentation) -> float:
        """Accuracy in 0..1: the surplus over the mean policy's, with diminishing returns."""
        return self.base + CEILING * (1 - math.exp(-self.surplus(augmentation) / CEILING))

    def surplus(self, augmentation: Augmentation) -> float:
        """What it is worth more than the mean uniform policy. None is a policy without gains; a
        transform other than a Policy is worth its distance from RandAugment(2, 12), if it has `n`
        and `m`."""
        if isinstance(augmentation, Policy):
            raw = self._raw(augmentation)
        elif augmentation is None:
            raw = 0.0
        else:
            n, m = getattr(augmentation, "n", 2), getattr(augmentation, "m", 12)
            raw = self.offset + (2.0 - 0.8 * (n - 2) ** 2 - ((m - 12) / 8) ** 2) / 4
        return self.scale * (raw - self.offset)

    def subpolicy_value(self, row: tuple[Operation, ...]) -> float:
        """Contribution of one sub-policy, unscaled: gains of its operations and their pairs."""
        gains = sum(self._gain(op) for op in row)
        names = [self.index[op.name] for op in row if op.probability > 0 and op.name in self.index]
        return gains + sum(self.pairs[a, b] for a, b in itertools.combinations(names, 2))

    def optimum(self, subpolicies: int) -> Policy:
        """The best policy of so many sub-policies of two operations.

        A pair taken k times earns k v - cost k (k - 1) / 2: the marginal gains fall, so taking
        the largest marginal gain again and again is exact.
        """
        best = {
            (a, b): row
            for a, b in itertools.combinations_with_replacement(OPERATIONS, 2)
            for row in [self._best_row(a, b)]
        }
        taken: dict[tuple[str, str], int] = dict.fromkeys(best, 0)
        rows = []
        for _ in range(subpolicies):
            pair = max(
                best, key=lambda k: self.subpolicy_value(best[k]) - self.repeat_cost * taken[k]
            )
            rows.append(best[pair])
            taken[pair] += 1
        return Policy(rows)

    def _best_row(self, a: str, b: str) -> tuple[Operation, ...]:
        """The pair gain is only paid when both have a probability above 0: four cases."""
        options = [[self._best(name, 0.1), self._best(name, 0.0, 0.0)] for name in (a, b)]
        return max(itertools.product(*options), key=self.subpolicy_value)

    def _best(self, name: str, low: float, high: float = 1.0) -> Operation:
        magnitudes = range(BINS) if OPS[name].has_magnitude else (None,)
        choices = [
            Operation(name, p, m) for p in PROBABILITIES if low <= p <= high for m in magnitudes
        ]
        return max(choices, key=self._gain)

    def _gain(self, op: Operation) -> float:
        if op.name == "Identity":
            return 0.0
        table = self.gains[op.name]
        return float(table(op.probability, op.magnitude))

    def _raw(self, policy: Sequence[tuple[Operation, ...]]) -> float:
        total, size = 0.0, len(policy)
        seen: dict[tuple[str, ...], int] = {}
        for row in policy:
            pair = tuple(sorted(op.name for op in row))
            total += self.subpolicy_value(row) - self.repeat_cost * seen.get(pair, 0)
            seen[pair] = seen.get(pair, 0) + 1
        # By number it is a charge for concentration in policies of one size alone. By share it is
        # one in all, the same for policies of five: a policy and its double augment alike.
        concentration = sum(count**2 for count in seen.values()) / size**2
        return total / size + self.repeat_cost * (size - SIZE) / 2 * concentration


def _gain_table(
    gain: float, best_p: float, best_m: float | None
) -> Callable[[float, int | None], float]:
    def value(probability: float, magnitude: int | None) -> float:
        strength = 1.0 - (1.0 - probability / best_p) ** 2
        if best_m is None or magnitude is None:
            fit = 1.0
        else:
            fit = 1.0 - 2.0 * ((magnitude - best_m) / (BINS - 1)) ** 2
        if gain > 0:
            return gain * strength * fit
        # A harmful operation: more is worse.
        return gain * probability * (0.5 + (5 if magnitude is None else magnitude) / 9)

    return value


def _uniform_rows(rng: np.random.Generator) -> list[tuple[Operation, ...]]:
    """A policy's rows, each operation, probability and magnitude as likely as any other."""

    def operation() -> Operation:
        name = OPERATIONS[rng.integers(len(OPERATIONS))]
        magnitude = int(rng.integers(BINS))
        return Operation(
            name, float(rng.integers(11)) / 10, magnitude if OPS[name].has_magnitude else None
        )

    return [(operation(), operation()) for _ in range(5)]
