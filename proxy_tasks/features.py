"""An augmentation in numbers, of whatever kind it is: what it does to an image on average."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np

from policies.augmentations import Augmentation
from policies.errors import InputError
from policies.ops import OPS, RANDAUGMENT_OPS, UNIFORMAUGMENT_OPS, get_convention
from policies.policy import Policy
from policies.transforms import PolicyTransform, RandAugment, TrivialAugmentWide, UniformAugment

NAMES = tuple(name for name in OPS if name != "Identity")
_INDEX = {name: index for index, name in enumerate(NAMES)}
SUMMARIES = ("applied", "untouched", "kinds", "variety", "repeats")
NUM_FEATURES = 3 * len(NAMES) + len(SUMMARIES)
# Of 1,000 sub-policies and more an image that is seen 100 times never sees the same one twice.
_MOST_ROWS = 1000
_SIDE = 331  # pixels; the paper's images, on which its scales are exact
# (operation, how often it is applied to an image, strength 0..1)
_Use = tuple[str, float, float]


def policy_features(augmentation: Augmentation) -> np.ndarray:
    """Features [NUM_FEATURES] float64.

    Of each operation in NAMES: how often it is applied to an image, that times its strength, and
    times its squared strength. Strengths are shares of the paper's range, whatever the convention,
    as -1 (nothing) to 1 (all), the square centred by its mean over that range. Then SUMMARIES:
    operations applied to an image, share of images that none is applied to, effective number of
    kinds of operations (exp of the entropy) over their number, the logarithm of the number of
    different sub-policies over that of 1,000, and the share of sub-policies whose operations an
    earlier one has, in whatever order.

    Raises InputError for a schedule, which is no one distribution.
    """
    uses, untouched, rows, repeats = _described(augmentation)
    features = np.zeros((len(NAMES), 3))
    for name, often, strength in uses:
        s = 2 * strength - 1
        features[_INDEX[name]] += often * np.array([1.0, s, s * s - 1 / 3])
    counts = features[:, 0]
    applied = counts.sum()
    shares = counts[counts > 0] / applied if applied else np.ones(1)
    kinds = math.exp(-float(shares @ np.log(shares))) / len(NAMES)
    variety = math.log(min(rows, _MOST_ROWS)) / math.log(_MOST_ROWS)
    return np.concatenate([features.ravel(), [applied, untouched, kinds, variety, repeats]])


def _described(augmentation: Augmentation) -> tuple[Iterable[_Use], float, int, float]:
    """(uses, share of images untouched, number of different sub-policies, share of repeats)."""
    if augmentation is None:
        return (), 1.0, 1, 0.0
    if isinstance(augmentation, Policy):
        return _of_policy(augmentation, "paper")
    if isinstance(augmentation, PolicyTransform):
        return _of_policy(augmentation.policy, augmentation.convention)
    if isinstance(augmentation, UniformAugment):
        # Probability and strength are uniform over 0..1: half of two operations are applied.
        uses = (
            (name, 1 / len(UNIFORMAUGMENT_OPS) / 10, (tenth + 0.5) / 10 if has else 1.0)
            for name, tenth in itertools.product(UNIFORMAUGMENT_OPS, range(10))
            for has in [OPS[name].has_magnitude]
        )
        return uses, 1 / 4, _MOST_ROWS, 0.0  # the mean of (1 - p)(1 - q)
    if isinstance(augmentation, RandAugment):
        return _of_grid(augmentation.convention, augmentation.n, (augmentation.m,))
    if isinstance(augmentation, TrivialAugmentWide):
        magnitudes = tuple(range(get_convention(augmentation.convention).bins))
        return _of_grid(augmentation.convention, 1, magnitudes)
    raise InputError(
        "augmentation", "must be a policy or a transform with one distribution for all epochs",
        type(augmentation).__name__,
        "evaluate schedules and pipelines of your own by training",
    )  # fmt: skip


def _of_policy(policy: Policy, convention: str) -> tuple[Iterator[_Use], float, int, float]:
    uses = (
        (name, probability / len(policy), _strength(convention, name, magnitude))
        for row in policy
        for name, probability, magnitude in row
        if name in _INDEX
    )
    untouched = [math.prod(1 - p for name, p, _ in row if name in _INDEX) for row in policy]
    kinds = {tuple(sorted(name for name, _, _ in row)) for row in policy}
    return uses, sum(untouched) / len(policy), len(set(policy)), 1 - len(kinds) / len(policy)


def _of_grid(convention: str, slots: int, magnitudes: tuple[int, ...]) -> tuple:
    choices = len(RANDAUGMENT_OPS) * len(magnitudes)
    uses = (
        (name, slots / choices, _strength(convention, name, magnitude))
        for name, magnitude in itertools.product(RANDAUGMENT_OPS, magnitudes)
        if name in _INDEX
    )
    nothing = sum(name not in _INDEX for name in RANDAUGMENT_OPS) / len(RANDAUGMENT_OPS)
    return uses, nothing**slots, min(choices**slots, _MOST_ROWS), 0.0


@functools.cache
def _strength(convention: str, name: str, magnitude: int | None) -> float:
    """Distance from doing nothing as a share of the paper's range; 1 where there is no choice."""
    if magnitude is None or not OPS[name].has_magnitude:
        return 1.0
    paper = get_convention("paper")
    nothing, most = (paper.parameter_at(name, end, False, _SIDE, _SIDE) for end in (0.0, 1.0))
    value = get_convention(convention).parameter(name, magnitude, False, _SIDE, _SIDE)
    return abs(value - nothing) / abs(most - nothing)
