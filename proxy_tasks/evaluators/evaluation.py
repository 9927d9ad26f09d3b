"""What an evaluation of one policy returns, and how rewards follow from logits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
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
    diverged      the child did not train (`judge`): the metrics are those of guessing, and it ranks
                  below every child that trained; details["divergence"] says what was seen
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
    def from_json(cls, data: object) -> Evaluation:
        """Inverse of `to_json`, strict: what a journal or a worker hands over may be anything.

        Raises:
            ValueError: naming the field, for a missing, unknown or wrongly typed one, for a number
                that is not finite, and for details that are no JSON data. A reward may be missing
                (None) only when the child diverged.
        """
        return cls(**_checked_fields(data))


_NUMBER = (int, float)
_FIELDS: dict[str, tuple[type, ...]] = {
    "reward": (*_NUMBER, type(None)),
    "stderr": (*_NUMBER, type(None)),
    "metrics": (dict,),
    "seconds": _NUMBER,
    "image_passes": (int,),
    "diverged": (bool,),
    "part": (str,),
    "details": (dict,),
}


def _checked_fields(data: object) -> dict[str, Any]:
    if not isinstance(data, dict) or data.keys() != _FIELDS.keys():
        found = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"must have the fields {', '.join(_FIELDS)}, but has {found}")
    for name, types in _FIELDS.items():
        value = data[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ValueError(f"{name} is {value!r:.80}")
        _check_plain(value, name)
    for name, value in data["metrics"].items():
        if not isinstance(value, _NUMBER) or isinstance(value, bool):
            raise ValueError(f"metrics.{name} is {value!r:.80}")
    if data["reward"] is None and not data["diverged"]:
        raise ValueError("reward is missing")
    if data["part"] not in PARTS:
        raise ValueError(f"part is {data['part']!r:.80}")
    if data["image_passes"] < 0:
        raise ValueError(f"image_passes is {data['image_passes']}")
    return data


def _check_plain(value: object, where: str) -> None:
    """ValueError, naming the place, unless `value` is JSON data with finite numbers."""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}")
    elif not isinstance(value, str | int | None):
        raise ValueError(f"{where} is {value!r:.80}, a {type(value).__name__}")
    for name, item in items:
        if isinstance(value, dict) and not isinstance(name, str):
            raise ValueError(f"{where} has the key {name!r:.80}, which is no text")
        _check_plain(item, f"{where}.{name}")


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


OVERFLOW = "its logits were NaN or infinite"
# Nats below guessing that no honest child reaches, see `judge`.
FAR = 25.0


def judge(logits: np.ndarray, images: np.ndarray, labels: np.ndarray) -> tuple[Scores, str]:
    """Scores of a child on validation images, and why it counts as diverged ("": it does not).

    The one definition of divergence, beside a training loss that is NaN or infinite. A child has
    diverged when

    - a logit is NaN or infinite;
    - it answers every image alike, though the images differ: large steps leave dead units, and
      the log-likelihood of guessing beats that of an honest, overconfident child;
    - its log-likelihood is `FAR` nats below guessing, and at no temperature up to 100 better than
      that of the frequencies of the classes: it is certain, and knows nothing.

    A child that learnt something is safe by its calibrated log-likelihood, however overconfident
    it is (logits of children span up to 60, at rates 25 times too high 90). One that learnt
    nothing is safe by its log-likelihood: children that knew random labels by heart were at most 7
    nats below guessing (20 to 1,000 images, 10 and 120 classes).

    Args:
        logits: float64 [N, K]. images: uint8 [N, C, H, W]. labels: int64 [N].
    """
    count, classes = logits.shape
    if not np.isfinite(logits).all():
        return chance(classes, count), OVERFLOW
    scores = score(logits, labels)
    if (logits == logits[0]).all() and (images != images[0]).any():
        return scores, "it answers every image alike"
    below = -math.log(classes) - scores.metrics["log_likelihood"]
    frequencies = np.bincount(labels) / count
    known = float((frequencies * np.log(np.maximum(frequencies, 1e-300))).sum())
    if below > FAR and scores.metrics["calibrated_log_likelihood"] <= known:
        return scores, f"its log-likelihood is {below:.3g} nats below guessing"
    return scores, ""


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

    The log-likelihood is concave in the inverse temperature b. Its derivative, mean(z_label) -
    mean(E_b[z]), falls monotonically, with slope -mean(Var_b[z]): Newton's method in log b, kept
    inside a bracket that every step narrows, and halved where a step does not.
    """
    gaps = logits - logits.max(1, keepdims=True)
    of_labels = gaps[np.arange(len(labels)), labels].mean()

    def slope(log_inverse: float) -> tuple[float, float]:
        """The derivative, and its own derivative with respect to log b."""
        inverse = math.exp(log_inverse)
        mean, variance = _moments(gaps, inverse)
        return of_labels - mean, -inverse * variance

    low, high = math.log(0.01), math.log(100.0)
    if slope(low)[0] <= 0:
        return 100.0
    if slope(high)[0] >= 0:
        return 0.01
    here, last_step = 0.0, high - low
    while True:
        value, falling = slope(here)
        low, high = (here, high) if value > 0 else (low, here)
        # Tiny or no slope: the step leaves the bracket.
        step = -value / falling if falling else math.inf
        if not low < here + step < high or abs(step) > last_step / 2:
            step = (low + high) / 2 - here
        here += step
        last_step = abs(step)
        if last_step < 1e-10:
            return math.exp(-here)


def _moments(gaps: np.ndarray, inverse: float) -> tuple[float, float]:
    """Mean over the images of E[z] and Var[z] under softmax(inverse * z); z [N, K], at most 0."""
    mean = variance = 0.0
    rows = max(1, 2**15 // gaps.shape[1])  # the part and its weights stay in the cache
    for start in range(0, len(gaps), rows):
        part = gaps[start : start + rows]
        weights = np.exp(part * inverse)
        total = weights.sum(1)
        weights *= part
        first = weights.sum(1) / total
        second = np.einsum("nk,nk->n", weights, part) / total
        mean += first.sum()
        variance += (second - first * first).sum()
    return mean / len(gaps), variance / len(gaps)
