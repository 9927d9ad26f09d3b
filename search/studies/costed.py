"""Races at equal cost: searches of two fidelities, with the final choice that searches make.

    entrant = Entrant("thompson", space, CHEAP)
    spent = search_at_cost(entrant, evaluators, worth, seed=0, budget=120)

A race by evaluations (`race`) compares who proposes; here the cheap evaluator can be told to a
searcher, or the dear one, or both (a staged search), for the same cost. Each search ends as one
with a budget does: a fifth of it evaluates finalists by the dear evaluator, with new seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from policies.policy import Policy
from proxy_tasks.evaluators.base import Evaluator
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.run_format import CHEAP_COST
from search.searchers.registry import has_cheap_cost, make_searcher
from search.spaces import PolicySpace
from search.trial import CHEAP, MAIN, Candidate

from .choice import Evidence, finalists, shortlist
from .search_settings import RESERVE
from .selection import best_rescored, concatenate_best, evaluated_policies

BIAS = 1.0  # of a planted landscape's cheap evaluations, in standard deviations of policies
COST = 10  # of a planted landscape's dear evaluations, in cheap ones


@dataclass(frozen=True)
class Entrant:
    """A searcher, what it draws candidates from, and what it is told.

    told: CHEAP or MAIN (the dear one). A searcher with the option `cheap_cost` is told both.
    """

    searcher: str
    space: PolicySpace
    told: str = MAIN
    options: Mapping[str, Any] = field(default_factory=dict)


def two_fidelities(config: EvaluatorConfig, dear: str) -> dict[str, EvaluatorConfig]:
    """The cheap and the dear evaluator of a race, from that of a race by evaluations."""
    if config.kind == "synthetic":
        return {
            CHEAP: replace(config, options={"cheap_bias": BIAS, "passes": 1}),
            # The final choice is made under common seeds.
            MAIN: replace(config, options={"passes": COST, "own_noise": True}),
        }
    reward: Any = "calibrated_log_likelihood"
    return {
        CHEAP: config,
        MAIN: replace(config, reward=reward, options={**config.options, "fidelity": dear}),
    }


@dataclass(frozen=True)
class Spent:
    """How a search at a cost ended: the true worth of its final policy (None: nothing trained),
    its name, image passes and seconds of all evaluations, and how many candidates the search asked
    the same evaluator for again."""

    value: float | None
    name: str
    image_passes: int
    seconds: float
    duplicates: int


def search_at_cost(
    entrant: Entrant,
    evaluators: Mapping[str, Evaluator],
    worth: Callable[[Sequence[Policy]], list[float]],
    seed: int,
    budget: int,
    prepared: int = 0,
) -> Spent:
    """One search that costs `budget` dear evaluations, the choice of its final policy included.

    evaluators: CHEAP and MAIN. worth: true worth of policies, told to nobody. prepared: image
    passes of what cheap evaluations share, paid once by who asks for any.
    """
    prices = {name: each.evaluate(None, 0).image_passes for name, each in evaluators.items()}
    options = dict(entrant.options)
    both = has_cheap_cost(entrant.searcher)
    if both:
        options[CHEAP_COST] = prices[CHEAP] / prices[MAIN]
    searcher = make_searcher(entrant.searcher, entrant.space, seed, options)
    children = int(budget * RESERVE)
    passes = prepared if both or entrant.told == CHEAP else 0
    limit, seconds = (budget - children) * prices[MAIN], 0.0
    told: dict[str, list[tuple[Candidate, Evaluation | None]]] = {CHEAP: [], MAIN: []}
    while (candidate := searcher.ask()) is not None:
        scorer = candidate.scorer if both else entrant.told
        if passes + prices[scorer] > limit:
            break
        found = evaluators[scorer].evaluate(candidate.augmentation, candidate.seed)
        passes, seconds = passes + found.image_passes, seconds + found.seconds
        told[scorer].append((candidate, found))
        searcher.tell(candidate, found)
    judged = {name: evaluated_policies(results) for name, results in told.items()}
    marks = {(name, each.augmentation) for name, results in told.items() for each, _ in results}
    duplicates = sum(map(len, told.values())) - len(marks)
    holds = bool(told[MAIN])
    searched = judged[MAIN] if holds else judged[CHEAP]
    if not searched:
        return Spent(None, "", passes, seconds, duplicates)
    evidence = Evidence(
        searched, judged[CHEAP] if holds else (), holds=holds, same=holds, seed=seed
    )
    made, _ = finalists(evidence, entrant.space, entrant.space.ops)
    candidates = shortlist(made, children, seed)
    again = {
        each.key: evaluators[MAIN].evaluate(each.augmentation, each.seed) for each in candidates
    }
    passes += sum(each.image_passes for each in again.values())
    seconds += sum(each.seconds for each in again.values())
    ranked = best_rescored(candidates, again)
    policy = ranked[0][0] if ranked else concatenate_best(searched)
    names = {each.augmentation: each.label for each in candidates}
    [value] = worth([policy])
    return Spent(value, names.get(policy, "best-5"), passes, seconds, duplicates)
