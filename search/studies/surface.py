"""Final policies chosen as a whole, by a Gaussian process on the rewards of the candidates.

The additive regression says what a sub-policy adds, and so would have the best one over and over.
How far one goes that way, and what is too much of a good thing, is seen in the candidates: a
Gaussian process on the same features, means over the sub-policies of a policy, has it from them.
The model is scikit-learn's, with a Matérn kernel (Rasmussen and Williams 2006, section 4.2).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LEAST = 20  # candidates; fewer say nothing of a surface
MOST = 300  # candidates that are used, since the cost grows with their cube
# Tried all with all: the variance of the surface and of the noise, in that of the rewards, and the
# length over which the surface changes, in features. In the order of the kernel's parameters.
VARIANCES = (0.25, 0.7, 2.0, 5.6, 16.0)
LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
NOISES = (0.03, 0.06, 0.12, 0.25, 0.5)


def fitted_surface(features: np.ndarray, rewards: Sequence[float]) -> Any:
    """The process, fitted to candidates with mean `features` [n, F] and `rewards` [n]."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    used = np.linspace(0, len(rewards) - 1, min(len(rewards), MOST)).round().astype(int)
    kernel = ConstantKernel() * Matern(nu=2.5) + WhiteKernel()
    process = GaussianProcessRegressor(kernel, optimizer=_most_likely, normalize_y=True)
    return process.fit(features[used], np.asarray(rewards)[used])


def _most_likely(objective: Callable[..., float], *_: Any, **__: Any) -> tuple[np.ndarray, float]:
    """The best point of the grid: one that rounding does not move, as it would move a descent's."""
    grid = np.log([*itertools.product(VARIANCES, LENGTHS, NOISES)])
    values = [objective(point, eval_gradient=False) for point in grid]
    return grid[np.argmin(values)], min(values)


def chosen_together(process: Any, features: np.ndarray, count: int) -> list[int]:
    """Indices of `count` sub-policies with `features` [n, F], each the one by which the policy of
    it and those before is expected to be best."""
    chosen: list[int] = []
    total, left = np.zeros(features.shape[1]), np.ones(len(features), dtype=bool)
    for size in range(1, min(count, len(features)) + 1):
        expected = process.predict((total + features) / size)
        chosen.append(int(np.where(left, expected, -np.inf).argmax()))
        left[chosen[-1]] = False
        total += features[chosen[-1]]
    return chosen
