"""What an evaluation of one policy returns, and how rewards follow from logits."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

PARTS = ("validation", "test")


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating one policy.

    reward        the metric the evaluator was asked for (higher is better)
    stderr        standard error of the reward from the finite number of held-out images: binomial
                  for accuracy, sd/√n for log-likelihoods. It does not contain the scatter between
                  training seeds, except with `Repeat`, where it is sd/√repeats over seeds
    metrics       accuracy (0..1), log_likelihood and calibrated_log_likelihood (nats per image),
                  temperature (of the calibration)
    seconds       wall-clock time of the evaluation
    image_passes  cost independent of the machine: images trained on (forward and backward = 1)
                  plus a third of the images only evaluated
    diverged      the child's loss became NaN or infinite; the metrics are those of guessing
    part          the images the metrics come from: validation or test
    details       evaluator-specific extras, JSON only
    """

    reward: float | None
    stderr: float | None
    metrics: dict[str, float]
    seconds: float
    image_passes: int
    diverged: bool = False
    part: str = "validation"
    details: dict = field(default_factory=dict)

    def to_json(self) -> dict:
        """A dict of plain JSON types; floats survive exactly."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> Evaluation:
        return cls(**data)


@dataclass(frozen=True)
class Scores:
    """Metrics and their standard errors, over a set of images."""

    metrics: dict[str, float]
    stderrs: dict[str, float]


def score(logits: np.ndarray, labels: np.ndarray, temperature: float | None = None) -> Scores:
    """Metrics of float64 logits [N, K] against labels [N].

    `calibrated_log_likelihood` divides the logits by one temperature: the given one, or the best
    for these very images (one parameter: the optimism is about 1/(2N) nats).
    """
    if temperature is None:
        temperature = fit_temperature(logits, labels)
    correct = logits.argmax(1) == labels
    plain = log_likelihoods(logits, labels)
    calibrated = log_likelihoods(logits / temperature, labels)
    accuracy = float(correct.mean())
    root = math.sqrt(len(labels))
    return Scores(
        {
            "accuracy": accuracy,
            "log_likelihood": float(plain.mean()),
            "calibrated_log_likelihood": float(calibrated.mean()),
            "temperature": float(temperature),
        },
        {
            "accuracy": math.sqrt(accuracy * (1 - accuracy)) / root,
            "log_likelihood": float(plain.std()) / root,
            "calibrated_log_likelihood": float(calibrated.std()) / root,
        },
    )


def chance(classes: int, images: int) -> Scores:
    """The scores of guessing uniformly, for diverged children."""
    accuracy = 1 / classes
    likelihood = -math.log(classes)
    return Scores(
        {
            "accuracy": accuracy,
            "log_likelihood": likelihood,
            "calibrated_log_likelihood": likelihood,
            "temperature": 1.0,
        },
        {
            "accuracy": math.sqrt(accuracy * (1 - accuracy) / images),
            "log_likelihood": 0.0,
            "calibrated_log_likelihood": 0.0,
        },
    )


def log_likelihoods(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-probability of each image's label in nats, [N]."""
    return logits[np.arange(len(labels)), labels] - logsumexp(logits, axis=1)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [0.01, 100] that maximises the mean log-likelihood of logits / T.

    The log-likelihood is concave in the inverse temperature b; its derivative, mean(z_label) -
    mean(E_b[z]), falls monotonically, and its root is bracketed.
    """
    label_logits = logits[np.arange(len(labels)), labels].mean()

    def slope(log_inverse: float) -> float:
        scaled = logits * math.exp(log_inverse)
        weights = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))
        return float(label_logits - (weights * logits).sum(1).mean())

    low, high = math.log(0.01), math.log(100.0)
    if slope(low) <= 0:
        return 100.0
    if slope(high) >= 0:
        return 0.01
    return math.exp(-brentq(slope, low, high, xtol=1e-10))
