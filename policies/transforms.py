"""The transforms: how each turns uniform random numbers into operations.

What they have in common (input kinds, generator, pickling) is in base.py.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from .base import Transform
from .errors import InputError, check_integer
from .ops import RANDAUGMENT_OPS, UNIFORMAUGMENT_OPS, get_convention
from .policy import Policy, check_bins
from .program import Table, build_table

__all__ = [
    "PolicyTransform", "RandAugment", "SampleAware", "Transform", "TrivialAugmentWide",
    "UniformAugment",
]  # fmt: skip


_KEPT = 32  # image sizes a transform remembers its numbers for


class _Listed(Transform):
    """Draws from a finite list of choices (operation, magnitude index, whether negated)."""

    convention: str
    _choices: list[tuple[str, int | None, bool]]

    @abstractmethod
    def _pick(self, uniform: np.ndarray) -> np.ndarray:
        """Positions in ``_choices``, int64 [N, slots], for uniform numbers [N, columns]."""

    def _decode(self, uniform: np.ndarray, height: int, width: int) -> tuple[Table, np.ndarray]:
        steps, size = self._pick(uniform), (height, width)
        table = self._tables.get(size)
        if table is not None:
            return table, steps
        if len(self._tables) >= _KEPT:
            self._tables.clear()
        if size not in self._tables and steps.size < len(self._choices):
            # Few images, of a size not met before and perhaps never again (photographs as they
            # come): only what was drawn is worth computing.
            self._tables[size] = None
            drawn, steps = np.unique(steps, return_inverse=True)
            steps = steps.reshape(len(uniform), self._slots)
            return self._build([self._choices[i] for i in drawn], height, width), steps
        table = self._tables[size] = self._build(self._choices, height, width)
        return table, steps

    def _build(self, choices: list[tuple[str, int | None, bool]], height: int, width: int) -> Table:
        parameter = get_convention(self.convention).parameter
        return build_table(
            [
                (name, parameter(name, index, negative, height, width))
                for name, index, negative in choices
            ],
            height,
            width,
        )


class PolicyTransform(_Listed):
    """Applies a policy (AutoAugment, arXiv:1805.09501): each image draws one sub-policy uniformly,
    then each of its operations is applied with its probability, signed ones with a random sign.

    SamplePairing blends with another image of the same call, as given (before augmentation); an
    image alone is its own partner and stays as it is. Cutout's centre is uniform over the pixels,
    its square clipped at the borders and filled with grey 128.

    Args:
        policy: a Policy or any nested sequence of (name, probability, magnitude).
        convention: what magnitude indices mean, a name in CONVENTIONS; "paper" is torchvision's.
        fill, generator, threads: see Transform.

    Example:
        >>> transform = PolicyTransform(IMAGENET, generator=torch.Generator().manual_seed(0))
        >>> augmented = transform(batch)  # uint8 [N, 3, H, W]
    """

    def __init__(
        self,
        policy: Policy | Sequence,
        convention: str = "paper",
        fill: int | Sequence[int] = 0,
        generator: torch.Generator | None = None,
        threads: int = 1,
    ) -> None:
        bins = get_convention(convention).bins
        self.policy = policy if isinstance(policy, Policy) else Policy(policy, bins)
        check_bins(self.policy, convention)
        self.convention = convention
        slots = max(len(row) for row in self.policy)
        names = {op.name for row in self.policy for op in row}
        super().__init__(names, slots, 1 + 2 * slots, fill, generator, threads)
        # Choice 0 is the identity, for operations that are not applied; operation k of row i, plus
        # and minus, stand at 1 + 2 * (i * slots + k). Shorter rows end in identities with p = 0.
        nothing = ("Identity", None, False)
        self._choices = [nothing]
        self._probability = np.zeros((len(self.policy), slots))
        for i, row in enumerate(self.policy):
            self._probability[i, : len(row)] = [op.probability for op in row]
            for op, negative in itertools.product(row, (False, True)):
                self._choices.append((op.name, op.magnitude, negative))
            self._choices += [nothing] * (2 * (slots - len(row)))

    def arguments(self) -> dict[str, object]:
        return {"policy": self.policy, "convention": self.convention}

    def _pick(self, uniform: np.ndarray) -> np.ndarray:
        rows, slots = self._probability.shape
        row = (uniform[:, 0] * rows).astype(np.int64)
        # Uniform numbers lie in [0, 1): probability 0 never applies, probability 1 always.
        applied = uniform[:, 1 : 1 + slots] < self._probability[row]
        negative = uniform[:, 1 + slots :] < 0.5
        place = row[:, None] * slots + np.arange(slots)
        return np.where(applied, 1 + 2 * place + negative, 0)


class _Grid(_Listed):
    """Draws operations uniformly from 14, each at a uniform one of some magnitude indices."""

    _names = RANDAUGMENT_OPS

    def __init__(
        self,
        slots: int,
        magnitudes: tuple[int, ...],
        fill: int | Sequence[int],
        generator: torch.Generator | None,
        threads: int,
    ) -> None:
        super().__init__(self._names, slots, 3 * slots, fill, generator, threads)
        self._magnitudes = magnitudes
        self._choices = list(itertools.product(self._names, magnitudes, (False, True)))

    def _pick(self, uniform: np.ndarray) -> np.ndarray:
        n = len(self._magnitudes)
        u = uniform.reshape(len(uniform), self._slots, 3)
        operation = (u[..., 0] * len(self._names)).astype(np.int64)
        magnitude = (u[..., 1] * n).astype(np.int64)
        return 2 * (operation * n + magnitude) + (u[..., 2] < 0.5)

    def as_policy(self) -> Policy:
        """The same distribution as a policy: one sub-policy a combination, all with p = 1.

        Its bins and convention are this transform's ``convention``. InputError where that would be
        no operation, or too many sub-policies to be of use.
        """
        choices = [(name, 1.0, m) for name, m in itertools.product(self._names, self._magnitudes)]
        if not 1 <= self._slots <= 3:
            raise InputError(
                "n", "must be in 1..3 to be written as a policy", self._slots,
                "14**n sub-policies: keep the transform itself",
            )  # fmt: skip
        rows = tuple(itertools.product(choices, repeat=self._slots))
        return Policy(rows, bins=get_convention(self.convention).bins)


class RandAugment(_Grid):
    """RandAugment (arXiv:1909.13719): ``n`` operations of 14, with replacement, all applied at
    magnitude ``m`` of 0..30, signed ones with a random sign. Scales as in torchvision.

    Args:
        n: number of operations, 0..16.
        m: magnitude index 0..30.
        fill, generator, threads: see Transform.
    """

    convention = "randaugment"

    def __init__(
        self,
        n: int = 2,
        m: int = 9,
        fill: int | Sequence[int] = 0,
        generator: torch.Generator | None = None,
        threads: int = 1,
    ) -> None:
        self.n, self.m = check_integer("n", n, 0, 16), check_integer("m", m, 0, 30)
        super().__init__(n, (m,), fill, generator, threads)

    def arguments(self) -> dict[str, object]:
        return {"n": self.n, "m": self.m}


class _Wide(_Grid):
    """One operation, always applied, at a magnitude of the whole scale."""

    convention = "trivialaugment"

    def __init__(
        self,
        fill: int | Sequence[int] = 0,
        generator: torch.Generator | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(1, tuple(range(31)), fill, generator, threads)

    def arguments(self) -> dict[str, object]:
        return {}


class TrivialAugmentWide(_Wide):
    """TrivialAugment, wide space (arXiv:2103.10158): one operation of 14, its magnitude uniform
    over 31 indices, always applied, signed ones with a random sign. Scales as in torchvision.

    Args:
        fill, generator, threads: see Transform.
    """


class SampleAware(_Wide):
    """TrivialAugment whose magnitude follows the sample: what is easy is augmented strongly.

    A training tells before every epoch but the first how easy each image is to the child, by its
    loss (`aware_of`); the hardest then has magnitude 0, the easiest 30. Whoever is not told draws
    magnitudes uniformly, so that over all images they are distributed alike: it differs from
    TrivialAugment only in which image has which. The idea is that of Sample-aware RandAugment,
    whose score is another.

    Args:
        fill, generator, threads: see Transform.
    """

    _ease: np.ndarray | None = None
    _done = 0

    def aware_of(self, ease: np.ndarray) -> SampleAware:
        """This transform, on the same generator, for images whose ease is known.

        Args:
            ease: float64 [N] in [0, 1), of the next N images it is called with, in their order.
        """
        aware = self.with_generator(self.generator)
        aware._ease, aware._done = ease, 0
        return aware

    def of(self, places: np.ndarray) -> SampleAware:
        """This transform, for the images at these places (int64 [M]) of those it was told of."""
        return self if self._ease is None else self.aware_of(self._ease[places])

    def as_policy(self) -> Policy:
        raise InputError(
            "augmentation", "must not follow a child's losses to be written as a policy",
            "sample-aware", "take trivialaugment, whose magnitudes follow nothing",
        )  # fmt: skip

    def _pick(self, uniform: np.ndarray) -> np.ndarray:
        if self._ease is None:
            return super()._pick(uniform)
        ease = self._ease[self._done : self._done + len(uniform)]
        if len(ease) < len(uniform):
            raise InputError(
                "images", "must be as many as their ease was told of", self._done + len(uniform),
                "tell it with aware_of",
            )  # fmt: skip
        self._done += len(uniform)
        return super()._pick(np.column_stack([uniform[:, 0], ease, uniform[:, 2]]))


class UniformAugment(Transform):
    """UniformAugment (arXiv:2003.14348): two operations of 15, with replacement, each applied with
    a probability drawn uniformly from 0..1, at a magnitude uniform and continuous over the paper's
    range, signed ones with a random sign.

    The paper draws from signed ranges; a uniform distance and a random sign are the same
    distribution. Whole-number parameters (pixels, bits) are rounded as in the "paper" convention.

    Args:
        fill, generator, threads: see Transform.
    """

    def __init__(
        self,
        fill: int | Sequence[int] = 0,
        generator: torch.Generator | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(UNIFORMAUGMENT_OPS, 2, 10, fill, generator, threads)

    def arguments(self) -> dict[str, object]:
        return {}

    def _decode(self, uniform: np.ndarray, height: int, width: int) -> tuple[Table, np.ndarray]:
        # A continuum of magnitudes has no table to remember: each batch makes its own.
        convention = get_convention("paper")
        entries = []
        for operation, probability, test, fraction, sign in uniform.reshape(-1, 5).tolist():
            if test >= probability:
                entries.append(("Identity", 0.0))
                continue
            name = UNIFORMAUGMENT_OPS[int(operation * len(UNIFORMAUGMENT_OPS))]
            value = convention.parameter_at(name, fraction, sign < 0.5, height, width)
            entries.append((name, value))
        steps = np.arange(len(entries)).reshape(-1, 2)
        return build_table(entries, height, width), steps
