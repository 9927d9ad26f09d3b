"""Whether a search came to a known policy again: agreement, chance, power.

A policy is seen as two tables of shares: how often an operation is applied in each strength, and
which operations stand together in a sub-policy. Both count an operation by its probability, so one
that is never applied is not there. The agreement of two policies is the mean cosine of these
tables; strengths that are near count as nearly alike.

What an agreement means is told by two kinds of other policies. Chance, and from it a p, are the
policies found with other operations in their places: one exchange of names for all of them, since
searches of one kind may like the same operations without having them from the known policy.
(Random policies would be an easier rival: who uses few operations agrees more, or less, with
anything.) Power, and the share that agrees as much, are told by policies of which a share of the
sub-policies is the known policy's and the rest is random. All are drawn with a fixed seed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies import OPS, PAPER_OPS, Policy
from policies.errors import InputError

from .statistics import ROUNDING

DRAWS = 10_000
# Policies by which power is told, and exchanges of names by which each of them is judged.
TRIALS, EXCHANGES = 100, 400
# Bins of magnitude whose difference makes two strengths 0.6 alike.
WIDTH = 2.0
# From this share on, and where chance is ruled out, the known policy was found again.
AGAIN = 0.4
ALPHA, RULED_OUT = 0.05, 0.01
SHARES = np.linspace(0.0, 1.0, 11)
POWER_AT = (0.25, 0.5)
_HAS_MAGNITUDE = np.array([OPS[name].has_magnitude for name in PAPER_OPS])


@dataclass(frozen=True)
class Form:
    """What random policies are drawn from: `rows` sub-policies of `width` operations out of `ops`.

    Probabilities are of 0, 0.1, ... 1, magnitudes of 0 .. bins - 1, all with equal chances. So are
    operations; with `distinct` (two a sub-policy) no two sub-policies have the same pair of them,
    as where a final policy is chosen one by one: of many sub-policies that alone makes two
    policies alike, and like any that uses all operations.
    """

    rows: int
    width: int = 2
    ops: tuple[str, ...] = PAPER_OPS
    bins: int = 10
    distinct: bool = False

    @classmethod
    def of(cls, policy: Policy, ops: Sequence[str] = PAPER_OPS) -> Form:
        """As `policy` is, of `ops`."""
        pairs = [tuple(sorted(name for name, _, _ in sub)) for sub in policy]
        distinct = len(policy) > 1 and len(set(pairs)) == len(policy)
        distinct &= all(len(pair) == 2 and {*pair} <= {*ops} for pair in pairs)
        return cls(len(policy), max(map(len, policy)), tuple(ops), policy.bins, distinct)


@dataclass(frozen=True)
class _Drawn:
    """Policies as arrays [N, sub-policies, operations]; a missing operation has probability 0."""

    names: np.ndarray
    probabilities: np.ndarray
    magnitudes: np.ndarray  # in bins; 0 for operations without one
    bins: int

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares [N, operations x bins] of strengths and [N, operations ** 2] of pairs.

        Strengths are smoothed, so that a product of two tables counts near ones as nearly alike.
        """
        count, kinds = len(self.names), len(PAPER_OPS)
        first = np.arange(count)[:, None, None]
        strengths = np.zeros((count, kinds, self.bins))
        np.add.at(strengths, (first, self.names, self.magnitudes), self.probabilities)
        bins = np.arange(self.bins)
        # Its square is about the kernel exp(-d ** 2 / (2 WIDTH ** 2)).
        smooth = np.exp(-((bins[:, None] - bins) ** 2) / WIDTH**2)
        pairs = np.zeros((count, kinds, kinds))
        for left in range(self.names.shape[2]):
            for right in range(self.names.shape[2]):
                if left != right:
                    both = self.probabilities[..., left] * self.probabilities[..., right]
                    place = (first[..., 0], self.names[..., left], self.names[..., right])
                    np.add.at(pairs, place, np.sqrt(both))
        return (strengths @ smooth).reshape(count, -1), pairs.reshape(count, -1)

    def one(self, place: int) -> _Drawn:
        """The policy at this place alone."""
        own = slice(place, place + 1)
        return _Drawn(self.names[own], self.probabilities[own], self.magnitudes[own], self.bins)

    def usage(self) -> np.ndarray:
        """Shares [N, operations] of what is applied; 0 throughout where nothing is."""
        used = np.zeros((len(self.names), len(PAPER_OPS)))
        np.add.at(used, (np.arange(len(self.names))[:, None, None], self.names), self.probabilities)
        return used / np.maximum(used.sum(axis=1, keepdims=True), 1e-12)


def arrays_of(policies: Sequence[Policy]) -> _Drawn:
    """Policies over the same bins as arrays."""
    rows, width = max(map(len, policies)), max(len(sub) for policy in policies for sub in policy)
    shape = (len(policies), rows, width)
    names, magnitudes = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    probabilities = np.zeros(shape)
    for number, policy in enumerate(policies):
        for row, sub in enumerate(policy):
            for place, (name, probability, magnitude) in enumerate(sub):
                if name not in PAPER_OPS:
                    raise InputError(
                        "policy", "must have none but the paper's 16 operations", name,
                        "leave it out",
                    )  # fmt: skip
                names[number, row, place] = PAPER_OPS.index(name)
                probabilities[number, row, place] = probability
                magnitudes[number, row, place] = magnitude or 0
    return _Drawn(names, probabilities, magnitudes, policies[0].bins)


def random_policies(form: Form, count: int, rng: np.random.Generator) -> _Drawn:
    """So many of a form."""
    shape = (count, form.rows, form.width)
    known = np.array([PAPER_OPS.index(name) for name in form.ops])
    if form.distinct:
        pairs = np.array([*itertools.combinations_with_replacement(known, 2)])
        places = rng.permuted(np.tile(np.arange(len(pairs)), (count, 1)), axis=1)[:, : form.rows]
        names = rng.permuted(pairs[places], axis=2)
    else:
        names = known[rng.integers(len(known), size=shape)]
    magnitudes = np.where(_HAS_MAGNITUDE[names], rng.integers(form.bins, size=shape), 0)
    return _Drawn(names, rng.integers(11, size=shape) / 10, magnitudes, form.bins)


def _mixed(known: Policy, share: float, form: Form, count: int, rng: np.random.Generator) -> _Drawn:
    """Every sub-policy is with probability `share` one of the known policy's, each once."""
    theirs, others = arrays_of([known]), random_policies(form, count, rng)
    width = max(theirs.names.shape[2], form.width)
    again = -(-form.rows // len(known))
    all_of_them = np.tile(np.arange(len(known)), (count, again))
    chosen = rng.permuted(all_of_them, axis=1)[:, : form.rows]
    taken = (rng.random((count, form.rows)) < share)[..., None]

    def joined(name: str) -> np.ndarray:
        mine, given = (
            np.pad(array, [(0, 0), (0, 0), (0, width - array.shape[2])])
            for array in (getattr(others, name), getattr(theirs, name))
        )
        return np.where(taken, given[0][chosen], mine)

    return _Drawn(joined("names"), joined("probabilities"), joined("magnitudes"), form.bins)


def _exchanges(ops: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Names [count, operations]: those of `ops` in any order, all others in their places."""
    known = np.array([PAPER_OPS.index(name) for name in ops])
    names = np.tile(np.arange(len(PAPER_OPS)), (count, 1))
    rng = np.random.default_rng([seed, 2])
    names[:, known] = rng.permuted(np.tile(known, (count, 1)), axis=1)
    return names


def _exchanged(policy: _Drawn, names: np.ndarray, seed: int) -> _Drawn:
    """One policy with other operations: `names` [N, operations] says which stands for which.

    Who had no magnitude and needs one gets any.
    """
    now = names[:, policy.names[0]]
    fresh = np.random.default_rng([seed, 3]).integers(policy.bins, size=now.shape)
    kept = np.where(_HAS_MAGNITUDE[policy.names[0]], policy.magnitudes[0], fresh)
    return _Drawn(
        now,
        np.broadcast_to(policy.probabilities[0], now.shape),
        np.where(_HAS_MAGNITUDE[now], kept, 0),
        policy.bins,
    )


def _cosines(policies: _Drawn, others: _Drawn) -> np.ndarray:
    """Agreement [N] of each policy with its opposite of as many others, or with the only other."""
    found = np.zeros(len(policies.names))
    for ours, theirs in zip(policies.tables(), others.tables(), strict=True):
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        # Where nothing is applied, or nothing together, nothing is in common.
        common = (ours * theirs).sum(axis=1) / np.maximum(lengths, 1e-12)
        found += np.where(lengths > 0, common, 0.0) / 2
    return found


def policy_agreement(first: Policy, second: Policy) -> float:
    """Mean cosine of strengths and pairs of two policies over the same bins: 0 .. 1, symmetric."""
    _same_bins(first, second)
    return float(_cosines(arrays_of([first]), arrays_of([second]))[0])


@dataclass(frozen=True)
class Agreement:
    """How far policies found agree with a known one.

    Attributes:
        values: agreement of each policy found, 0 .. 1.
        chance: 95 % range of their mean with other operations in their places.
        p: share of these means at least as large as the one found (never 0).
        share: of the known policy's sub-policies in policies that agree as much, 0 .. 1.
    """

    values: tuple[float, ...]
    chance: tuple[float, float]
    p: float
    share: float

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def verdict(self) -> str:
        """ "re-derived", "partly" or "not", by agreement alone."""
        return _verdict(self.p, self.share)


def _verdict(p: float, share: float) -> str:
    if p <= RULED_OUT and share >= AGAIN:
        return "re-derived"
    return "partly" if p <= ALPHA else "not"


def agreement_with(
    known: Policy,
    found: Sequence[Policy],
    ops: Sequence[str] = PAPER_OPS,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Agreement:
    """Agreement of `found`, policies of independent searches, with `known`.

    A permutation test (Davison and Hinkley 1997, section 4.3) of the names: the mean agreement of
    the policies found against what it is once the operations `ops` have changed places, in all of
    them alike. It is exact for policies that have nothing to do with the known one, however alike
    they are among themselves and however few operations they use.
    """
    if not found:
        raise InputError("found", "must be at least one policy", found, "finish a search first")
    for policy in found:
        _same_bins(policy, known)
    return _agreement(known, tuple(found), tuple(ops), draws, seed)


# Kept, since whoever watches a run has its page made again and again.
@functools.lru_cache(maxsize=64)
def _agreement(
    known: Policy, found: tuple[Policy, ...], ops: tuple[str, ...], draws: int, seed: int
) -> Agreement:
    theirs, curve = arrays_of([known]), _curve(known, forms_of(found, ops), seed)
    values = _cosines(arrays_of(found), theirs)
    chance = _chance([arrays_of([policy]) for policy in found], theirs, ops, draws, seed)
    return Agreement(
        tuple(map(float, values)),
        central_range(chance),
        one_sided(values.mean(), chance, True),
        float(np.interp(values.mean(), curve, SHARES)),
    )


def _chance(
    found: Sequence[_Drawn], known: _Drawn, ops: Sequence[str], draws: int, seed: int
) -> np.ndarray:
    """Mean agreement [draws] of policies, each alone in its arrays, under exchanges of names."""
    names = _exchanges(ops, draws, seed)
    return np.mean([_cosines(_exchanged(each, names, seed), known) for each in found], axis=0)


def central_range(chance: np.ndarray) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.quantile(chance, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Power:
    """Of policies of which `share` of the sub-policies are known: how often they would be told from
    chance (p at most 5 %), and how often called re-derived."""

    share: float
    told: float
    called: float


def agreement_power(
    known: Policy, found: Sequence[Policy], ops: Sequence[str] = PAPER_OPS, *, seed: int = 0
) -> tuple[Power, ...]:
    """Power at POWER_AT of `agreement_with` for as many searches that end in policies of the forms
    of `found`; TRIALS of each are judged."""
    return _powers(known, forms_of(found, ops), tuple(ops), seed)


@functools.lru_cache(maxsize=16)
def _powers(
    known: Policy, forms: tuple[Form, ...], ops: tuple[str, ...], seed: int
) -> tuple[Power, ...]:
    rng = np.random.default_rng([seed, 4])
    theirs, curve, powers = arrays_of([known]), _curve(known, forms, seed), []
    for share in POWER_AT:
        mixed = [_mixed(known, share, form, TRIALS, rng) for form in forms]
        means = np.mean([_cosines(each, theirs) for each in mixed], axis=0)
        judged = []
        for trial, mean in enumerate(means):
            chance = _chance([each.one(trial) for each in mixed], theirs, ops, EXCHANGES, seed)
            p = one_sided(mean, chance, True)
            judged.append(_verdict(p, float(np.interp(mean, curve, SHARES))))
        told, called = (np.mean([word in words for word in judged])
                        for words in (("partly", "re-derived"), ("re-derived",)))  # fmt: skip
        powers.append(Power(share, float(told), float(called)))
    return tuple(powers)


@dataclass(frozen=True)
class Between:
    """How far independent searches agree: the mean over their pairs, its 95 % range and p with
    other operations in their places, in each policy others."""

    mean: float
    chance: tuple[float, float]
    p: float


def agreement_between(
    found: Sequence[Policy],
    ops: Sequence[str] = PAPER_OPS,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Between:
    """Agreement of `found`, policies of at least two independent searches, with each other."""
    if len(found) < 2:
        raise InputError("found", "must be at least two policies", len(found), "search again")
    return _between(tuple(found), tuple(ops), draws, seed)


@functools.lru_cache(maxsize=16)
def _between(found: tuple[Policy, ...], ops: tuple[str, ...], draws: int, seed: int) -> Between:
    pairs = [*itertools.combinations(range(len(found)), 2)]
    mean = float(np.mean([policy_agreement(found[i], found[j]) for i, j in pairs]))
    each = [
        _exchanged(arrays_of([policy]), _exchanges(ops, draws, seed + place), seed + place)
        for place, policy in enumerate(found)
    ]
    chance = np.mean([_cosines(each[i], each[j]) for i, j in pairs], axis=0)
    return Between(mean, central_range(chance), one_sided(mean, chance, True))


def forms_of(policies: Sequence[Policy], ops: Sequence[str]) -> tuple[Form, ...]:
    """In an order of their own: that of the policies changes nothing."""
    forms = (Form.of(each, ops) for each in policies)
    return tuple(sorted(forms, key=lambda form: (form.rows, form.width, form.distinct)))


@functools.lru_cache(maxsize=16)
def _curve(known: Policy, forms: tuple[Form, ...], seed: int) -> np.ndarray:
    """The mean agreement at each of SHARES, of policies of these forms."""
    rng, theirs = np.random.default_rng(seed), arrays_of([known])
    means = [
        np.mean([_cosines(_mixed(known, share, form, 500, rng), theirs).mean() for form in forms])
        for share in SHARES
    ]
    return np.maximum.accumulate(means)  # means of random draws may turn back by a hair


def _same_bins(first: Policy, second: Policy) -> None:
    if first.bins != second.bins:
        raise InputError(
            "policy", f"must have {second.bins} magnitudes, as the other has", first.bins,
            "compare policies of one convention",
        )  # fmt: skip


def one_sided(value: float, chance: np.ndarray, high: bool) -> float:
    """The share of `chance` that is at least, or at most, `value`; never 0."""
    # Sums in another order differ by rounding: what ties must count as a tie.
    beyond = chance >= value - ROUNDING if high else chance <= value + ROUNDING
    return (1 + int(beyond.sum())) / (1 + len(chance))
