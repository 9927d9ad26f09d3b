"""What a table says of policies that are not in it: a Gaussian process for each fidelity.

    surrogate = Surrogate(load_table("cifar10-1k").frame)
    surrogate.of("scratch").mean([policy])["test_accuracy"]

Fitted anew where it is loaded, in seconds; nothing fitted is stored. The model is scikit-learn's
`GaussianProcessRegressor` with a Matérn kernel on `features.policy_features`: unlike the additive
model that some searchers use themselves, it has no term that belongs to one operation alone, so
that it favours none of them. (Final policies chosen together are chosen by a process of the same
kind, on other features: races at equal cost may flatter these, whoever searched.) What it cannot
know: what differs between policies with the same features (which operations are applied together,
and in which order), and what diverges (children that did are left out).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from policies.augmentations import Augmentation, decode_augmentation
from policies.errors import InputError, check_choice
from policies.files import parse_json

from .features import policy_features
from .tables import METRICS

if TYPE_CHECKING:
    import pandas as pd

TEST = "test_accuracy"
LEAST_POLICIES = 20
# Degrees of freedom from which the scatter between seeds is taken for known.
_ENOUGH = 10
_POLICIES_OF_KERNEL = 400


@dataclass(frozen=True)
class Fidelity:
    """The surrogate of one fidelity.

    Attributes:
        metrics: names of what is predicted, in order: METRICS, and TEST where it was measured.
        process: the fitted regressor of asinh((value - centre) / spread): a few policies are far
            worse than all others, and what matters is the difference between good ones.
        centre, spread: medians of the policies' values and twice their interquartile range,
            [metrics].
        noise: covariance of what one evaluation adds to the mean of its policy, [metrics, metrics].
        seconds, image_passes: of one evaluation, the medians.
    """

    metrics: tuple[str, ...]
    process: Any
    centre: np.ndarray
    spread: np.ndarray
    noise: np.ndarray
    seconds: float
    image_passes: int

    def mean(self, augmentations: Sequence[Augmentation]) -> dict[str, np.ndarray]:
        """Metric -> predicted values [n]: the median of what the mean over seeds may be."""
        return dict(zip(self.metrics, self._values(augmentations).T, strict=True))

    def intervals(
        self, augmentations: Sequence[Augmentation], confidence: float
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Metric -> ends [n] of where the mean of as many seeds as were measured is expected."""
        bent, error = self.process.predict(_stacked(augmentations), return_std=True)
        half = ndtri((1 + confidence) / 2) * error
        low, high = (self.centre + self.spread * np.sinh(bent + side * half) for side in (-1, 1))
        return {name: (low[:, i], high[:, i]) for i, name in enumerate(self.metrics)}

    def draw(self, augmentation: Augmentation, rng: np.random.Generator) -> dict[str, float]:
        """Metric -> the value of one evaluation, with its scatter."""
        values = rng.multivariate_normal(self._values([augmentation])[0], self.noise, method="eigh")
        found = dict(zip(self.metrics, values.tolist(), strict=True))
        # The normal distribution knows no bounds: accuracies are 0..1, likelihoods at most 0.
        return {
            name: min(max(value, 0.0), 1.0) if name.endswith("accuracy") else min(value, 0.0)
            for name, value in found.items()
        }

    def _values(self, augmentations: Sequence[Augmentation]) -> np.ndarray:
        bent = self.process.predict(_stacked(augmentations))
        return self.centre + self.spread * np.sinh(bent)


class Surrogate:
    """The surrogates of all fidelities of a table, each fitted when it is first asked for.

    frame: rows as `tables.load_table` gives them.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._fitted: dict[str, Fidelity] = {}

    def of(self, fidelity: str) -> Fidelity:
        """Raises InputError for a fidelity with too few policies."""
        if fidelity not in self._fitted:
            self.check(fidelity)
            self._fitted[fidelity] = fit_fidelity(self.frame[self.frame["fidelity"] == fidelity])
        return self._fitted[fidelity]

    def check(self, fidelity: str) -> None:
        """InputError for a fidelity that the table does not have; nothing is fitted."""
        check_choice("fidelity", fidelity, tuple(self.frame["fidelity"].unique()))


def fit_fidelity(rows: pd.DataFrame, like: Fidelity | None = None) -> Fidelity:
    """The surrogate of the rows of one fidelity.

    like: takes its kernel as it is, for example in a cross-validation, instead of looking for the
    one that makes the values most likely.

    Raises InputError for fewer than LEAST_POLICIES policies that trained.
    """
    metrics = (*METRICS, TEST) if rows[TEST].notna().any() else METRICS
    trained = rows[~rows["diverged"]]
    groups = trained.groupby("policy", sort=True)
    means = groups[list(metrics)].mean()
    if len(means) < LEAST_POLICIES:
        raise InputError(
            "table", f"must have at least {LEAST_POLICIES} policies that trained at each fidelity "
            "(for a race each half of them)",
            len(means), "collect more",
        )  # fmt: skip
    features = np.stack([_features_of(text) for text in means.index])
    values = means.to_numpy()
    low, centre, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, 2 * (high - low), 1.0)
    bent = np.arcsinh((values - centre) / spread)
    process = _fitted(features, bent, like)
    inside = trained[list(metrics)].to_numpy() - groups[list(metrics)].transform("mean").to_numpy()
    freedom = len(trained) - len(means)
    if freedom >= _ENOUGH:
        noise = inside.T @ inside / freedom
    else:
        # One seed each: what the process does not explain, the most that the noise can be.
        # Around the centre, where asinh is straight.
        rest = bent - process.predict(features)
        scatter = np.sqrt(process.kernel_.k2.noise_level) * bent.std(axis=0) * spread
        noise = np.outer(scatter, scatter) * _correlations(rest)
    return Fidelity(
        metrics,
        process,
        centre,
        spread,
        noise,
        float(trained["seconds"].median()),
        round(trained["image_passes"].median()),
    )


def _fitted(features: np.ndarray, values: np.ndarray, like: Fidelity | None) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    if like is None:
        kernel = ConstantKernel(1.0, (1e-2, 1e4)) * Matern(1.0, (1e-2, 1e2), nu=2.5)
        kernel += WhiteKernel(0.3, (1e-4, 1e1))
        # The cost grows with the cube of the policies, and these are plenty for three numbers.
        some = np.random.default_rng(0).permutation(len(features))[:_POLICIES_OF_KERNEL]
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        fitted = process.fit(features[some], values[some]).kernel_
    else:
        fitted = like.process.kernel_
    return GaussianProcessRegressor(fitted, optimizer=None, normalize_y=True).fit(features, values)


def _correlations(rest: np.ndarray) -> np.ndarray:
    """Of the columns of `rest`; a constant one goes with none."""
    with np.errstate(invalid="ignore"):
        found = np.corrcoef(rest.T)
    return np.where(np.isfinite(found), found, np.eye(len(found)))


def _stacked(augmentations: Sequence[Augmentation]) -> np.ndarray:
    return np.stack([policy_features(each) for each in augmentations])


@functools.lru_cache(maxsize=10_000)
def _features_of(text: str) -> np.ndarray:
    return policy_features(decode_augmentation(parse_json(text)))
