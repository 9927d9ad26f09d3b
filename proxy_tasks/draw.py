"""How many images of each class each part takes, and which.

Functions of class sizes and a seed alone: nothing here reads an image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policies.errors import InputError

from .names import PARTS

# Held-out parts are taken first, so that "all there are" never eats them.
ORDER = ("validation", "test", "train")


@dataclass(frozen=True)
class Request:
    """What is asked for, and what there is.

    sizes: images of each class in the pool of each part, int64 [classes]; a part without a pool
        of its own is held out of train's.
    asked: what a user asks for, by part; None for the default.
    defaults: the task's numbers, None for all there are. wishes: a number where the default is
        only wished for: the share of each class it may take, of train what the others leave; see
        `TaskSpec`.
    shares: one of `names.SHARES`.
    """

    class_names: tuple[str, ...]
    sizes: Mapping[str, np.ndarray]
    asked: Mapping[str, int | None]
    defaults: Mapping[str, int | None]
    wishes: Mapping[str, float | None]
    shares: str
    seed: int

    def pool(self, part: str) -> str:
        """The part whose pool `part` takes its images from."""
        return part if part in self.sizes else "train"

    def available(self, part: str) -> np.ndarray:
        return self.sizes[self.pool(part)]

    def sharing(self, part: str) -> list[str]:
        """The parts that take from the same pool, `part` among them."""
        return [other for other in ORDER if self.pool(other) == self.pool(part)]


class Shortage(Exception):
    """A part cannot have what it wants: the rule that is broken, and what there is."""

    def __init__(self, part: str, rule: str, found: object) -> None:
        super().__init__(part, rule, found)
        self.part, self.rule, self.found = part, rule, found


def shuffled(labels: np.ndarray, classes: int, seed: int) -> list[np.ndarray]:
    """For each class, its indices in seeded random order."""
    return [
        np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        for label in range(classes)
    ]


def class_counts(request: Request) -> dict[str, np.ndarray]:
    """Images of each class in each part, int64 [classes], at least 1 each.

    Raises InputError, whose advice has been tried: the numbers it names can be drawn.
    """
    classes = len(request.class_names)
    try:
        for part, total in request.asked.items():
            if total is not None and total < classes:
                raise Shortage(part, f"must be at least the number of classes ({classes})", total)
        return _split(request)
    except Shortage as short:
        raise InputError(
            f"{short.part}_images", short.rule, short.found, _advice(request, short.part)
        ) from None


def _split(request: Request) -> dict[str, np.ndarray]:
    left = {part: np.array(sizes) for part, sizes in request.sizes.items()}
    counts = {}
    uneven: dict[str, dict[str, np.ndarray]] = {}
    for part in ORDER:
        pool = request.pool(part)
        mine = left[pool]
        if request.shares != "equal":
            if pool not in uneven:
                uneven[pool] = _uneven(request, pool)
            wanted = uneven[pool][part]
        else:
            wanted = _equal(request, part, mine)
        short = (wanted > mine) | (wanted < 1)
        if short.any():
            label = int(np.argmax(short))
            shared = len(request.sharing(part)) > 1
            raise Shortage(
                part,
                f"needs {max(wanted[label], 1)} images of class {request.class_names[label]!r}",
                f"{max(mine[label], 0)}{' after the other parts took theirs' if shared else ''}",
            )
        mine -= wanted
        counts[part] = wanted
    return {part: counts[part] for part in PARTS}


def _equal(request: Request, part: str, left: np.ndarray) -> np.ndarray:
    """The same number of each class, or all that are left; a wish shrinks class by class."""
    total = request.asked[part] or request.defaults[part]
    if total is None:
        return left.copy()
    classes = len(request.class_names)
    counts = fill(total, np.ones(classes), np.full(classes, total), _ties(request, part))
    if not _is_wish(request, part):
        return counts
    return np.minimum(counts, left if part == "train" else _share(request, part))


def _uneven(request: Request, pool: str) -> dict[str, np.ndarray]:
    """More of the large classes than of the small ones, in each part that takes from the pool.

    The parts divide every class among them as they divide the whole, so that none takes all there
    is of a small class. Together they must not be more than there is; that alone decides.
    """
    sizes = request.sizes[pool]
    sharing, classes = request.sharing(pool), len(sizes)
    wanted = {part: _total(request, part) for part in sharing}
    rest = int(sizes.sum()) - sum(total or 0 for total in wanted.values())
    totals = {part: max(rest, classes) if t is None else t for part, t in wanted.items()}
    if "train" in totals and request.defaults["train"] and _is_wish(request, "train"):
        totals["train"] = min(totals["train"], request.defaults["train"])
    whole = sum(totals.values())
    for part in sorted(sharing, key=lambda part: -totals[part]):  # the largest asks too much
        if request.asked[part] is not None and whole > sizes.sum():
            beside = max(0, int(sizes.sum()) - (whole - totals[part]))
            raise Shortage(part, f"needs {totals[part]} images", f"{beside} beside the other parts")
    caps = {part: np.maximum(1, sizes * total // whole) for part, total in totals.items()}
    for part in sorted(sharing, key=lambda part: -totals[part]):
        # One image for each part may be more than a small class has: the largest part gives way.
        excess = np.maximum(0, sum(caps.values()) - sizes)
        caps[part] = np.maximum(1, caps[part] - excess)
    weights = sizes.astype(float) if request.shares == "proportional" else np.ones(classes)
    counts = {}
    for part in sharing:
        total = max(classes, min(totals[part], int(caps[part].sum())))
        counts[part] = fill(total, weights, caps[part], _ties(request, part))
    left = sizes - sum(counts.values())
    for part in sharing:
        # Rounding may have left a part less than it was asked for, and something of other classes.
        lack = 0 if request.asked[part] is None else totals[part] - int(counts[part].sum())
        for _ in range(lack):
            label = int(np.argmax(left))
            counts[part][label] += 1
            left[label] -= 1
    return counts


def _is_wish(request: Request, part: str) -> bool:
    """Whether the default number counts, and is only wished for."""
    return request.asked[part] is None and request.wishes[part] is not None


def _share(request: Request, part: str) -> np.ndarray:
    """The most of each class that a held-out part may wish for."""
    share = 1.0 if part in request.sizes else request.wishes[part]
    return np.maximum(1, (share * request.available(part)).astype(np.int64))


def _total(request: Request, part: str) -> int | None:
    """Images of the part over all classes; None for all that are left."""
    total = request.asked[part] or request.defaults[part]
    if total is None or not _is_wish(request, part):
        return total
    return None if part == "train" else min(total, int(_share(request, part).sum()))


def _ties(request: Request, part: str) -> np.ndarray:
    """The order in which classes get one image more: an uneven total is drawn too."""
    classes = len(request.class_names)
    return np.random.default_rng([request.seed, classes, PARTS.index(part)]).permutation(classes)


def fill(total: int, weights: np.ndarray, caps: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Whole numbers that add up to `total`, as near to a multiple of `weights` as `caps` lets.

    Each is at least 1 and at most its cap, wherever `total` allows that; of equally near ones,
    the first in `ties` get one more.
    """

    def at(scale: float) -> np.ndarray:
        return np.clip(np.floor(scale * weights).astype(np.int64), np.minimum(1, caps), caps)

    low, high = 0.0, (total + 1) / weights[weights > 0].min()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle).sum() <= total else (low, middle)
    counts = at(low)
    nearness = np.where(counts < caps, np.round(low * weights - counts, 6), -np.inf)
    rank = np.argsort(ties)
    counts[np.lexsort((rank, -nearness))[: max(0, total - int(counts.sum()))]] += 1
    return counts


# --- advice --------------------------------------------------------------------------------------


def _advice(request: Request, part: str) -> str:
    """What to ask for instead: every number has been tried."""
    asked, classes = request.asked[part], len(request.class_names)
    # Other parts that are too small have an error, and an advice, of their own.
    others = {p: t and max(t, classes) for p, t in request.asked.items()}
    request = dataclasses.replace(request, asked={**others, part: asked})
    if asked is not None and asked < classes:
        request = _with(request, part, classes)
        for shares in dict.fromkeys((request.shares, "capped")):
            if _works(dataclasses.replace(request, shares=shares)):
                option = "" if shares == request.shares else f"--shares {shares} and "
                return f"use {option}at least {classes}"
    advice, most = [], 0
    for shares in dict.fromkeys((request.shares, "capped")):
        other = dataclasses.replace(request, shares=shares)
        if _works(other):
            advice.append(f"use --shares {shares}")
            break
        option = "" if shares == request.shares else f"--shares {shares} and "
        tried = ((p, _largest(other, p)) for p in dict.fromkeys((part, *request.sharing(part))))
        changed, total = next((found for found in tried if found[1]), (part, 0))
        if total > most:
            advice.append(f"use {option}at most --{changed}-images {total}")
            most = total
    if not advice:
        name = request.class_names[int(np.argmin(request.available(part)))]
        return f"ask for less of every part, or add images of class {name!r}, or take it out"
    return ", or ".join(advice)


def _with(request: Request, part: str, total: int) -> Request:
    return dataclasses.replace(request, asked={**request.asked, part: total})


def _works(request: Request) -> bool:
    try:
        _split(request)
    except Shortage:
        return False
    return True


def _largest(request: Request, part: str) -> int:
    """The most images of a part that can be drawn, the other parts as they are; 0 for none."""
    low, high = len(request.class_names), int(request.available(part).sum()) + 1
    if not _works(_with(request, part, low)):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _works(_with(request, part, middle)) else (low, middle)
    return low
