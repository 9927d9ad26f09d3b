"""From evaluated candidates to the final policy.

The paper concatenates the sub-policies of the best 5 candidates (`concatenate_best`). That takes
what the noise favoured, and takes it whole: a candidate's bad sub-policies come along. Here are
other ways, all pure functions of what was evaluated, deterministic, ties going to the earlier:

- `select_subpolicies` credits single sub-policies by a ridge regression over all candidates and
  takes the best one by one, while keeping them different from each other.
- `rescore_candidates` and `best_rescored` evaluate the best few dozen again with new seeds and
  choose by these fresh rewards alone, which are not inflated by having been chosen.
- `refine` moves probabilities and magnitudes of a policy a little, as the regression advises.
- `proposals` makes policies in all these ways; evaluating them with new seeds (`fixed_candidates`,
  `best_rescored`) decides between them by data instead of by belief.

`evaluated` is always a sequence of (Policy, reward), for example
`evaluated_policies(searcher.best(256))` or everything in a journal; order matters only for ties.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from policies import Policy
from policies.errors import InputError
from proxy_tasks.evaluation import Evaluation

from .additive import AdditiveModel
from .searcher import Candidate, usable_reward
from .spaces import PolicySpace

Evaluated = Sequence[tuple[Policy, float]]


class TooFewSubpolicies(InputError):
    """More different sub-policies were asked for than the candidates have."""


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


def concatenate_best(evaluated: Evaluated, k: int = 5) -> Policy:
    """All sub-policies of the k best distinct policies, best first (arXiv 1805.09501).

    With 5 policies of 5 sub-policies that is the paper's policy of 25.
    """
    _check_evaluated(evaluated)
    best: dict[Policy, float] = {}
    for policy, reward in evaluated:
        best[policy] = max(reward, best.get(policy, reward))
    chosen = sorted(best, key=lambda policy: -best[policy])[:k]
    return Policy([row for policy in chosen for row in policy], bins=chosen[0].bins)


def fit_model(evaluated: Evaluated, space: PolicySpace, ridge: float = 1.0) -> AdditiveModel:
    """The additive model of all evaluated policies (any number of sub-policies each)."""
    _check_evaluated(evaluated)
    model = AdditiveModel(space, ridge)
    features = [
        model.features([encode_row(row, space) for row in policy]).mean(axis=0)
        for policy, _ in evaluated
    ]
    model.add(np.stack(features), [reward for _, reward in evaluated])
    model.fit()
    return model


def select_subpolicies(
    evaluated: Evaluated,
    space: PolicySpace,
    count: int = 25,
    *,
    per_pair: int = 1,
    caution: float = 0.5,
    ridge: float = 1.0,
) -> Policy:
    """The best sub-policies of all evaluated candidates, one by one, kept different.

    count: sub-policies of the result. per_pair: how many may have the same operations, in
    whatever order; sub-policies that the regression likes are alike, and a policy of 25 alike
    ones trains worse than its parts promise. caution: standard deviations of the regression's
    uncertainty subtracted from each worth. Raises TooFewSubpolicies (an InputError).
    """
    model = fit_model(evaluated, space, ridge)
    rows = list(dict.fromkeys(row for policy, _ in evaluated for row in policy))
    features = model.features([encode_row(row, space) for row in rows])
    worth = model.worth(features) - caution * model.uncertainty(features)
    taken: dict[tuple[str, ...], int] = defaultdict(int)
    chosen = []
    for index in np.argsort(-worth, kind="stable").tolist():
        operations = tuple(sorted(operation.name for operation in rows[index]))
        if taken[operations] < per_pair:
            taken[operations] += 1
            chosen.append(rows[index])
            if len(chosen) == count:
                return Policy(chosen, bins=space.bins)
    raise TooFewSubpolicies(
        "count", f"the evaluated candidates have {len(chosen)} sub-policies that differ enough",
        count, "ask for fewer, raise per_pair, or evaluate more candidates",
    )


def refine(
    policy: Policy,
    evaluated: Evaluated,
    space: PolicySpace,
    *,
    radius: int = 2,
    caution: float = 0.5,
    ridge: float = 1.0,
) -> Policy:
    """Move each operation's probability and magnitude to the regression's best nearby.

    radius: largest change of the probability and of the magnitude index. caution: standard
    deviations of uncertainty subtracted from each worth, so that only well-supported moves are
    made. Operations stay what they are. The regression is additive: each operation is moved alone.
    """
    model = fit_model(evaluated, space, ridge)
    return Policy(
        [
            [_refined(operation, model, space, radius, caution) for operation in row]
            for row in policy
        ],
        bins=policy.bins,
    )


def _refined(
    operation: tuple, model: AdditiveModel, space: PolicySpace, radius: int, caution: float
) -> tuple:
    index, probability, magnitude = encode_row([operation], space)
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


def proposals(
    evaluated: Evaluated, space: PolicySpace, counts: Sequence[int] = (10, 25)
) -> dict[str, Policy]:
    """Final policies made in several ways, by name, the paper's first.

    counts: sizes of the policies chosen one by one. A size that the candidates are not varied
    enough for is left out.
    """
    made = {"best-5": concatenate_best(evaluated)}
    for count in counts:
        try:
            made[f"one-by-one-{count}"] = select_subpolicies(evaluated, space, count)
        except TooFewSubpolicies:
            continue
    return made | {
        f"{name}-refined": refine(policy, evaluated, space) for name, policy in made.items()
    }


def rescore_candidates(
    evaluated: Evaluated,
    seeds: Sequence[int],
    *,
    top: int = 24,
    evaluator: str = "main",
) -> list[Candidate]:
    """Candidates for a `FixedSearcher`: the `top` best distinct policies with each of new seeds.

    seeds: not those of the search. batch = index of the seed, slot = rank by the first reward,
    so policies are compared on equal seeds.
    """
    if not seeds:
        raise InputError("seeds", "must be at least one", list(seeds), "pass for example 1 2 3")
    _check_evaluated(evaluated)
    best: dict[Policy, float] = {}
    for policy, reward in evaluated:
        best[policy] = max(reward, best.get(policy, reward))
    chosen = sorted(best, key=lambda policy: -best[policy])[:top]
    return [
        Candidate(batch, slot, policy, seed, evaluator, label=f"rank {slot + 1}")
        for batch, seed in enumerate(seeds)
        for slot, policy in enumerate(chosen)
    ]


def best_rescored(
    candidates: Iterable[Candidate],
    results: Mapping[tuple[int, int], Evaluation | None],
) -> list[tuple[Policy, float]]:
    """Policies with their mean fresh reward, best first: evaluated for any function above.

    results: of `FixedSearcher.results`. A policy with a failed evaluation is left out, since a
    mean over fewer seeds would not be comparable.
    """
    rewards: dict[Policy, list[float | None]] = {}
    for candidate in candidates:
        reward = usable_reward(results.get(candidate.key))
        rewards.setdefault(candidate.augmentation, []).append(reward)
    means = [
        (policy, float(np.mean(values))) for policy, values in rewards.items()
        if None not in values
    ]
    return sorted(means, key=lambda pair: -pair[1])


def encode_row(row: Sequence[tuple], space: PolicySpace) -> list[int]:
    """Decisions of one sub-policy, 3 per operation, as in `PolicySpace.encode`."""
    decisions: list[int] = []
    for name, probability, magnitude in row:
        if name not in space.ops:
            raise InputError(
                "policy", "must have operations of the space only", name, f"use {space.ops}"
            )
        decisions += (
            space.ops.index(name), round(probability * (space.probability_bins - 1)),
            0 if magnitude is None else magnitude,
        )
    return decisions


def _check_evaluated(evaluated: Evaluated) -> None:
    if not evaluated:
        raise InputError(
            "evaluated", "must be at least one policy with a reward", 0,
            "see the journal for why all evaluations failed",
        )
