"""From evaluated candidates to the final policy.

The paper concatenates the sub-policies of the best 5 candidates (`concatenate_best`). That takes
what the noise favoured, and takes it whole: a candidate's bad sub-policies come along. Here are
other ways, all pure functions of what was evaluated, deterministic, ties going to the earlier:

- `one_by_one` credits single sub-policies by a ridge regression over all candidates and
  takes the best one by one, while keeping them different from each other: many different
  sub-policies train better than few (docs/results.md).
- `rescore_candidates` and `best_rescored` evaluate a few dozen again with new seeds and choose by
  these fresh rewards alone, which are not inflated by having been chosen.
- `together` takes them so that the policy as a whole is expected to be best, by a Gaussian process.
- `fit_model` takes such a second, dearer set of rewards to correct the regression where the
  search's evaluator is biased.
- `refine` moves probabilities and magnitudes of a policy a little, as the regression advises.
- `proposals` makes policies in all these ways; evaluating them with new seeds (`fixed_candidates`,
  `best_rescored`) decides between them by data instead of by belief.

`evaluated` is always a sequence of (Policy, reward), for example
everything in a journal; order matters only for ties.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from policies import Policy
from policies.errors import InputError
from policies.policy import Operation
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.trials import to_compare
from search.searchers.additive import FEWEST_DEAR, AdditiveModel
from search.spaces import PolicySpace
from search.trial import MAIN, Candidate, Trial, usable_reward

from . import surface

Evaluated = Sequence[tuple[Policy, float]]
CAUTION = 0.5  # standard deviations of the regression subtracted from what it promises
NEW = 10_000  # sub-policies considered for a final policy beside those that were evaluated
NEW_TOGETHER = 3_000  # and where all are looked at again for each that is chosen


def evaluated_policies(
    results: Iterable[tuple[Candidate, Evaluation | None]],
) -> list[tuple[Policy, float]]:
    """(Policy, reward) of the results that are policies and have a usable reward, in order."""
    return [
        (candidate.augmentation, reward)
        for candidate, evaluation in results
        if isinstance(candidate.augmentation, Policy)
        and (reward := usable_reward(evaluation)) is not None
    ]


def journalled_policies(trials: Iterable[Trial], scorer: str = MAIN) -> list[tuple[Policy, float]]:
    """(Policy, reward) of the evaluations that one scorer made, ordered by batch and slot."""
    return [
        (Policy(trial.augmentation), reward)
        for trial in sorted(trials, key=lambda trial: trial.key)
        if trial.status == "ok"
        and trial.scorer == scorer
        and isinstance(trial.augmentation, list)
        and (reward := usable_reward(trial.evaluation)) is not None
    ]


def concatenate_best(evaluated: Evaluated, k: int = 5) -> Policy:
    """All sub-policies of the k best distinct policies, best first (arXiv 1805.09501).

    With 5 policies of 5 sub-policies that is the paper's policy of 25.
    """
    _check_evaluated(evaluated)
    chosen = _ranked(evaluated)[:k]
    return Policy([row for policy in chosen for row in policy], bins=chosen[0].bins)


def fit_model(
    evaluated: Evaluated, space: PolicySpace, ridge: float = 1.0, dearer: Evaluated = ()
) -> AdditiveModel:
    """The additive model of all evaluated policies (any number of sub-policies each).

    dearer: some policies with rewards of a better evaluator, e.g. from scratch. They correct the
    model (`AdditiveModel.corrected`), whose worths are then in their unit; fewer than FEWEST_DEAR
    tell no scale, and nothing is corrected.
    """
    _check_evaluated(evaluated)
    model = AdditiveModel(space, ridge)
    model.add(*_table(evaluated, model))
    model.fit()
    return model.corrected(*_table(dearer, model)) if len(dearer) >= FEWEST_DEAR else model


def _table(evaluated: Evaluated, model: AdditiveModel) -> tuple[np.ndarray, list[float]]:
    features = [_features(list(policy), model).mean(axis=0) for policy, _ in evaluated]
    return np.stack(features), [reward for _, reward in evaluated]


def _features(rows: Sequence[Sequence[tuple]], model: AdditiveModel) -> np.ndarray:
    """Of sub-policies, which may have unlike numbers of operations, [sub-policies, F]."""
    encoded = [model.space.encode_row(row) for row in rows]
    found = np.empty((len(rows), model.num_features))
    for length in {len(row) for row in encoded}:
        where = [place for place, row in enumerate(encoded) if len(row) == length]
        found[where] = model.features([encoded[place] for place in where])
    return found


def one_by_one(
    evaluated: Evaluated,
    model: AdditiveModel,
    count: int,
    new: int,
    ops: Sequence[str],
    seed: int,
) -> list[tuple[Operation, ...]]:
    """The best `count` sub-policies of all evaluated candidates, best first, kept different.

    No two have the same operations, in whatever order: sub-policies that the regression likes are
    alike, and a policy of alike ones trains worse than its parts promise. All where there are
    fewer. new: how many sub-policies that no candidate has are considered too, drawn uniformly by
    `seed`. ops: the operations that may be used.
    """
    rows = _rows(evaluated, model.space, new, ops, seed)
    features = _features(rows, model)
    worth = model.worth(features) - CAUTION * model.uncertainty(features)
    taken: set[tuple[str, ...]] = set()
    chosen: list[tuple[Operation, ...]] = []
    for index in np.argsort(-worth, kind="stable").tolist():
        operations = tuple(sorted(operation.name for operation in rows[index]))
        if operations not in taken:
            taken.add(operations)
            chosen.append(rows[index])
            if len(chosen) == count:
                break
    return chosen


def together(
    evaluated: Evaluated,
    model: AdditiveModel,
    counts: Sequence[int],
    ops: Sequence[str],
    seed: int,
) -> dict[int, list[tuple[Operation, ...]]]:
    """Size -> sub-policies that are chosen together, of those evaluated and NEW_TOGETHER others.

    By a Gaussian process on the features of `model`, fitted to the rewards of `evaluated`
    (`surface`); no sizes where there are too few of them, or where all are alike.
    """
    features, rewards = _table(evaluated, model)
    if len(rewards) < surface.LEAST or np.ptp(rewards) == 0:
        return {}
    process = surface.fitted_surface(features, rewards)
    rows = _rows(evaluated, model.space, NEW_TOGETHER, ops, seed)
    chosen = surface.chosen_together(process, _features(rows, model), max(counts))
    return {count: [rows[index] for index in chosen[:count]] for count in counts}


def _rows(
    evaluated: Evaluated, space: PolicySpace, new: int, ops: Sequence[str], seed: int
) -> list[tuple[Operation, ...]]:
    """Sub-policies with no other operations than `ops`: all evaluated, and new uniform ones."""
    rng, allowed = np.random.default_rng(seed), set(ops)
    narrow = replace(space, ops=tuple(name for name in space.ops if name in allowed))
    drawn = (narrow.sample(rng) for _ in range(math.ceil(new / space.num_subpolicies)))
    policies = itertools.chain((policy for policy, _ in evaluated), drawn)
    rows = dict.fromkeys(row for policy in policies for row in policy)
    return [row for row in rows if allowed.issuperset(operation.name for operation in row)]


def refine(
    policy: Policy, model: AdditiveModel, *, radius: int = 2, caution: float = CAUTION
) -> Policy:
    """Move each operation's probability and magnitude to the regression's best nearby.

    radius: largest change of the probability and of the magnitude index. caution: standard
    deviations of uncertainty subtracted from each worth, so that only well-supported moves are
    made. Operations stay what they are. The regression is additive: each operation is moved alone.
    """
    return Policy(
        [
            [_refined(operation, model, model.space, radius, caution) for operation in row]
            for row in policy
        ],
        bins=policy.bins,
    )


def _refined(
    operation: tuple, model: AdditiveModel, space: PolicySpace, radius: int, caution: float
) -> tuple:
    index, probability, magnitude = space.encode_row([operation])
    options = [
        (index, p, m)
        for p in range(probability - radius, probability + radius + 1)
        for m in range(magnitude - radius, magnitude + radius + 1)
        if 0 <= p < space.probability_bins and 0 <= m < space.bins
    ]
    # The operation as it is comes first, so that it stays when nothing nearby is better.
    options.sort(key=lambda o: abs(o[1] - probability) + abs(o[2] - magnitude))
    features = model.features(options)
    worth = model.worth(features) - caution * model.uncertainty(features)
    # A difference in the rounding of the rewards is none.
    if worth.max() - worth[0] <= 1e-9 * (1.0 + abs(model.intercept)):
        return tuple(operation)
    _, p, m = options[int(np.argmax(worth))]
    name, _, old_magnitude = operation
    return (name, p / (space.probability_bins - 1), None if old_magnitude is None else m)


def restricted(evaluated: Evaluated, ops: Sequence[str]) -> tuple[list, int]:
    """(evaluated with only the sub-policies that use these operations, how many were dropped).

    A policy of which nothing is left is left out.
    """
    kept, dropped = [], 0
    for policy, reward in evaluated:
        rows = [row for row in policy if all(operation.name in ops for operation in row)]
        dropped += len(policy) - len(rows)
        if rows:
            kept.append((Policy(rows, bins=policy.bins), reward))
    return kept, dropped


def proposals(
    evaluated: Evaluated,
    model: AdditiveModel,
    counts: Sequence[int] = (25, 60, 120),
    ops: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Policy]:
    """Final policies made in several ways, by name, the paper's first.

    model: of `fit_model`. counts: sizes of the policies chosen one by one, of the sub-policies
    evaluated and 10,000 others. ops: operations that these others may use. seed: of their draw;
    two searches are independent only if they choose among others. A size that the space
    is not varied enough for is left out.
    """
    best = concatenate_best(evaluated)
    made = {"best-5": best, "best-5-refined": refine(best, model)}
    space = model.space
    if not counts:
        return made
    allowed = space.ops if ops is None else ops
    rows = one_by_one(evaluated, model, max(counts), NEW, allowed, seed)
    for count in counts:  # each begins with the smaller one
        if count <= len(rows):
            made[f"one-by-one-{count}"] = Policy(rows[:count], bins=space.bins)
    return made


def rescore_candidates(
    evaluated: Evaluated,
    seeds: Sequence[int],
    *,
    count: int = 60,
    scorer: str = "main",
) -> list[Candidate]:
    """Candidates for a `FixedSearcher`: `count` distinct policies with each of new seeds.

    Half of them are the best ones, half lie at even ranks among the others: a regression must
    also see what the search avoided. seeds: not those of the search. batch = index of the seed,
    slot = place in the choice, so policies are compared on equal seeds.
    """
    if not seeds:
        raise InputError("seeds", "must be at least one", list(seeds), "pass for example 1 2 3")
    _check_evaluated(evaluated)
    ranked = _ranked(evaluated)
    top = math.ceil(count / 2)
    rest = np.linspace(top, len(ranked) - 1, count - top).round().astype(int).tolist()
    chosen = sorted({*range(top), *rest} & set(range(len(ranked))))
    return [
        Candidate(batch, slot, ranked[rank], seed, scorer, label=f"rank {rank + 1}")
        for batch, seed in enumerate(seeds)
        for slot, rank in enumerate(chosen)
    ]


def best_rescored(
    candidates: Iterable[Candidate],
    results: Mapping[tuple[int, int], Evaluation | None],
) -> list[tuple[Policy, float]]:
    """Policies with their mean fresh reward, best first: evaluated for any function above.

    results: of `FixedSearcher.results`. A policy with a failed or diverged evaluation is left out:
    a mean over fewer seeds would not be comparable, and whoever diverges is behind all others.
    """
    rewards: dict[Policy, list[float | None]] = {}
    for candidate in candidates:
        policy = candidate.augmentation
        if isinstance(policy, Policy):
            rewards.setdefault(policy, []).append(usable_reward(results.get(candidate.key)))
    means = []
    for policy, values in rewards.items():
        told = [value for value in values if value is not None]
        if len(told) == len(values):
            means.append((policy, float(np.mean(told))))
    return sorted(means, key=lambda pair: -to_compare(pair[1]))


def _ranked(evaluated: Evaluated) -> list[Policy]:
    """Each policy once, by its best reward."""
    best: dict[Policy, float] = {}
    for policy, reward in evaluated:
        best[policy] = max(reward, best.get(policy, reward))
    return sorted(best, key=lambda policy: -best[policy])


def _check_evaluated(evaluated: Evaluated) -> None:
    if not evaluated:
        raise InputError(
            "evaluated",
            "must be at least one policy with a reward",
            0,
            "see the journal for why all evaluations failed",
        )
