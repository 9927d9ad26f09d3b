"""What single operations contribute to a policy's reward: a ridge regression.

One sub-policy is drawn uniformly for each image, so a policy's reward is close to the mean of
what its sub-policies are worth. The model takes the worth of a sub-policy as a sum over its
operations, each with three numbers: how often it is applied (its probability p), p times the
magnitude, and p times the squared magnitude (an optimum in the middle is common). That is 48
weights for the paper's space, few enough to be estimated from hundreds of noisy evaluations, and
enough to credit a sub-policy that was only ever evaluated inside whole policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from policies import OPS
from policies.errors import InputError
from policies.options import Option
from search.spaces import PolicySpace, Space

# A scale and an offset between two kinds of rewards are not told from fewer.
FEWEST_DEAR = 3
LEAST_RIDGE = 1e-6  # with less the weights that no reward tells of drown the others in rounding
Ridge = Annotated[
    float, Option("variance of the noise over prior variance of a weight", least=LEAST_RIDGE)
]


class AdditiveModel:
    """Bayesian linear regression of rewards on operation features.

    space: gives operations and bins; the number of sub-policies of a policy is free.
    ridge: variance of one evaluation's noise over prior variance of a weight, LEAST_RIDGE or more.
    table: features of one operation [operations, probabilities, magnitudes, F], float64.

    Only the normal equations are kept: memory and the cost of `fit` do not grow with the data.
    Rewards may have any scale and offset (the intercept is not penalised).
    """

    def __init__(self, space: Space, ridge: float = 1.0) -> None:
        if not isinstance(space, PolicySpace):
            raise InputError(
                "space", "must be a PolicySpace", type(space).__name__,
                "use the searcher tpe or evolution",
            )  # fmt: skip
        if not ridge >= LEAST_RIDGE:
            raise InputError(
                "ridge", f"must be at least {LEAST_RIDGE}", ridge, "pass for example 1.0"
            )
        self.space = space
        self.ridge = ridge
        self.table = _feature_table(space)
        self.num_features = self.table.shape[-1]
        size = self.num_features + 1
        self._gram = np.zeros((size, size))
        self._moment = np.zeros(size)
        self._squares = 0.0
        self._offset = 0.0  # the first reward: sums of squares of the others keep their digits
        self.count = 0
        self.weights = np.zeros(self.num_features)
        self.intercept = 0.0
        self._covariance = np.zeros((self.num_features, self.num_features))
        self._inverse = np.eye(self.num_features) / ridge
        self._energy = 0.0

    def features(self, decisions: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
        """Decisions [..., operations x 3] of sub-policies -> features [..., F], float64."""
        rows = np.asarray(decisions)
        rows = rows.reshape(*rows.shape[:-1], -1, 3)
        return self.table[rows[..., 0], rows[..., 1], rows[..., 2]].sum(axis=-2)

    def add(self, features: np.ndarray, rewards: Sequence[float] | np.ndarray) -> None:
        """Add evaluated policies: features [n, F], each the mean over its sub-policies."""
        x = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        y = np.asarray(rewards, dtype=np.float64)
        if not self.count and len(y):
            self._offset = float(y[0])
        y = y - self._offset
        self._gram += x.T @ x
        self._moment += x.T @ y
        self._squares += float(y @ y)
        self.count += len(y)

    def fit(self) -> None:
        """Solve for weights, intercept and their uncertainty; call after `add`, before the rest."""
        penalty = np.full(len(self._moment), self.ridge)
        penalty[-1] = 1e-9  # the intercept is free; not exactly 0, so that no data is no error
        inverse = np.linalg.inv(self._gram + np.diag(penalty))
        solution = inverse @ self._moment
        residual = self._squares - 2 * solution @ self._moment + solution @ self._gram @ solution
        variance = max(0.0, float(residual)) / max(1, self.count)
        self.weights = solution[:-1]
        self.intercept = float(solution[-1]) + self._offset
        self._inverse = inverse[:-1, :-1]
        self._covariance = self._inverse * variance
        shrunk = self.ridge * self.weights @ self.weights
        self._energy = max(0.0, float(residual)) + float(shrunk)

    def corrected(self, features: np.ndarray, rewards: Sequence[float]) -> AdditiveModel:
        """A model of another evaluator's rewards, of which there are few (call after `fit`).

        features [n, F], rewards [n]. The other's weights are these, scaled as the rewards tell,
        plus a ridge regression of what is left: where the rewards say nothing, this model is
        believed; where they disagree with it, they are.
        """
        expected, y = self.worth(features), np.asarray(rewards, dtype=np.float64)
        centred = expected - expected.mean()
        spread = float(centred @ centred)
        scale = float(centred @ y) / spread if spread > 0 else 0.0
        other = AdditiveModel(self.space, self.ridge)
        other.add(features, y - scale * expected)
        other.fit()
        other.weights = other.weights + scale * self.weights
        other._covariance = other._covariance + scale**2 * self._covariance
        return other

    def worth(self, features: np.ndarray) -> np.ndarray:
        """Expected effect of sub-policies on the reward, up to a constant: [..., F] -> [...]."""
        return features @ self.weights

    def uncertainty(self, features: np.ndarray) -> np.ndarray:
        """Standard deviation of `worth`, in reward units, with the noise that the fit has left.

        With few rewards that is less than their noise, and this less than the posterior's: 0.63 of
        it with 20 rewards, 0.75 with 48, 0.96 with 500 (the paper's space). It weighs caution.
        """
        return np.sqrt(np.maximum(0.0, ((features @ self._covariance) * features).sum(axis=-1)))

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """The weights [F], drawn from their posterior (call after `fit`).

        The noise's variance s is unknown, with the prior 1/s: its posterior is inverse gamma, and
        given s the weights are normal (Gelman et al., Bayesian Data Analysis, section 14.2, with
        the prior N(0, s / ridge) of the weights). Other than `uncertainty`, which takes s from
        the residuals, this is not sure of itself while there are fewer rewards than weights.
        Of a corrected model the correction is drawn; what it corrects is taken as known.
        """
        variance = self._energy / rng.chisquare(max(1, self.count - 1))
        root = np.linalg.cholesky(self._inverse)
        return self.weights + np.sqrt(variance) * (root @ rng.standard_normal(self.num_features))


class CorrectedModel:
    """The additive model of a search with two evaluators: many cheap rewards, few dear ones.

    It speaks of dear rewards: the model of the cheap ones as the dear ones correct it
    (`AdditiveModel.corrected`), and until there are enough of them, or without any cheap ones, the
    model of what there is. Used as an `AdditiveModel`, of which `add` takes dear rewards.
    """

    def __init__(self, space: Space, ridge: float = 0.1) -> None:
        self.cheap, self._dear = AdditiveModel(space, ridge), AdditiveModel(space, ridge)
        self.space = self.cheap.space
        self._rows: list[np.ndarray] = []
        self._rewards: list[float] = []
        self._current = self._dear

    @property
    def count(self) -> int:
        """Rewards of both kinds."""
        return self.cheap.count + self._dear.count

    def features(self, decisions: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
        return self.cheap.features(decisions)

    def add(self, features: np.ndarray, rewards: Sequence[float] | np.ndarray) -> None:
        """Add policies that the dear evaluator judged: features [n, F]."""
        self._dear.add(features, rewards)
        self._rows += [*features]
        self._rewards += [*map(float, rewards)]

    def fit(self) -> None:
        if self.cheap.count < 2:
            self._current = self._dear
            self._dear.fit()
            return
        self.cheap.fit()
        enough = len(self._rewards) >= FEWEST_DEAR
        self._current = (
            self.cheap.corrected(np.array(self._rows), self._rewards) if enough else self.cheap
        )

    def worth(self, features: np.ndarray) -> np.ndarray:
        return self._current.worth(features)

    def uncertainty(self, features: np.ndarray) -> np.ndarray:
        return self._current.uncertainty(features)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        return self._current.sample(rng)


def add_told(
    model: AdditiveModel | CorrectedModel,
    decisions: Sequence[Sequence[int]],
    rewards: Sequence[float | None],
) -> None:
    """Add the policies of a batch to `model`; those whose evaluation failed (None) are left out.

    decisions: of whole policies, each [sub-policies x operations x 3].
    """
    told = [(row, r) for row, r in zip(decisions, rewards, strict=True) if r is not None]
    if told:
        rows = np.array([row for row, _ in told])
        by_subpolicy = rows.reshape(len(told), -1, 3 * model.space.num_operations)
        model.add(model.features(by_subpolicy).mean(axis=1), [r for _, r in told])


def _feature_table(space: PolicySpace) -> np.ndarray:
    """[operations, probabilities, magnitudes, features] float64, magnitude scaled to -1..1.

    The squared magnitude is centred by its mean over the bins, so that the first weight of an
    operation is its worth at an average magnitude. Operations without magnitude only have p.
    """
    probability = np.linspace(0.0, 1.0, space.probability_bins)[:, None]
    magnitude = np.linspace(-1.0, 1.0, space.bins)
    shape = np.stack(
        [np.ones_like(magnitude), magnitude, magnitude**2 - np.mean(magnitude**2)], axis=-1
    )
    table = np.zeros((len(space.ops), space.probability_bins, space.bins, 3 * len(space.ops)))
    for index, name in enumerate(space.ops):
        used = shape if OPS[name].has_magnitude else shape * np.array([1.0, 0.0, 0.0])
        table[index, :, :, 3 * index : 3 * index + 3] = probability[..., None] * used
    return table
