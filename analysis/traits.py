"""What is said of a published policy, and whether policies found show it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from policies import PAPER_OPS, Policy

from .agreement import DRAWS, arrays_of, central_range, forms_of, one_sided, random_policies
from .statistics import holm

_RARE = ("ShearX", "ShearY", "TranslateX", "TranslateY")


@dataclass(frozen=True)
class Trait:
    """What is said of a policy: the shares of `more` of what is applied, less the mean of `less`.

    `high`: whether the trait is a large number or a small one, against random policies.
    """

    name: str
    more: tuple[str, ...]
    high: bool = True
    less: tuple[str, ...] = ()

    def values(self, usage: np.ndarray) -> np.ndarray:
        """Usage [N, operations] -> [N]."""
        more, less = ([PAPER_OPS.index(name) for name in names] for names in (self.more, self.less))
        shares = usage[:, more].sum(axis=1)
        return shares - usage[:, less].mean(axis=1) if less else shares


TRAITS: tuple[Trait, ...] = (
    *(
        Trait(f"{name} is used often", (name,))
        for name in ("Equalize", "Solarize", "Posterize", "AutoContrast", "Color")
    ),
    Trait("shear and translation are rare", _RARE, high=False),
    Trait("Rotate is used more than other geometry", ("Rotate",), less=_RARE),
    Trait("Invert is rare", ("Invert",), high=False),
)
"""What the paper says of its ImageNet policy (arXiv 1805.09501, section 4.2: colour operations and
rotation, few geometric ones) and what is said of it since."""


def trait_table(
    known: Policy,
    found: Sequence[Policy],
    ops: Sequence[str] = PAPER_OPS,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a trait: what was found, what the known policy has, and whether it is chance.

    Columns trait, found (mean share), known, low and high (95 % of the mean of as many random
    policies), p (one-sided), p_holm over the traits, p_known (of the known policy alone against
    random ones of its own form, not corrected: a trait that it does not show itself cannot come
    again).
    """
    rng = np.random.default_rng(seed)
    # [draws, searches, operations]
    drawn = np.stack(
        [random_policies(form, draws, rng).usage() for form in forms_of(found, ops)], axis=1
    )
    [own] = forms_of([known], PAPER_OPS)
    as_known = random_policies(own, draws, np.random.default_rng([seed, 1])).usage()
    usage, theirs = arrays_of(found).usage(), arrays_of([known]).usage()
    rows = []
    for trait in TRAITS:
        alone = trait.values(drawn.reshape(-1, len(PAPER_OPS)))
        chance = alone.reshape(draws, len(found)).mean(axis=1)
        value, target = trait.values(usage).mean(), trait.values(theirs)[0]
        rows.append(
            {
                "trait": trait.name,
                "found": float(value),
                "known": float(target),
                "low": central_range(chance)[0],
                "high": central_range(chance)[1],
                "p": one_sided(value, chance, trait.high),
                "p_known": one_sided(target, trait.values(as_known), trait.high),
            }
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].tolist())
    return table
