"""What the final policy is chosen from, and how: shared by a search with a budget and `select`.

Final policies are made in several ways of what a search found, and new children with seeds of
their own decide between them. Sub-policies are chosen one by one only by rewards that hold where a
search ends: of children from scratch, not of copies of a shared one, which there rank at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies import Policy
from policies.errors import InputError
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.run_format import BEST, FINAL
from search.engine.loop import RunResult
from search.errors import NothingFound
from search.searchers.fixed import fixed_candidates
from search.spaces import PolicySpace
from search.trial import JOURNAL_NAME, MAIN, Candidate, Key, read_journal, usable_reward

from .fixed import begin_stage, evaluate_fixed
from .seeds import LARGEST_SEED, MOST_SEEDS, training_seeds
from .selection import (
    Evaluated,
    best_rescored,
    concatenate_best,
    fit_model,
    proposals,
    restricted,
    together,
)
from .study import OpenRun

COUNTS = (25, 60, 120)  # sizes of policies whose sub-policies are chosen one by one
TOGETHER = (25, 60)  # and together
RIDGE = 0.1  # of the regression; it predicted better than 1 after searches of every size
# Those that a small share of a budget has children for, the first first.
ORDER = (
    BEST, "best-5", "together-25", "one-by-one-25", "best-5-refined", "together-60",
    "one-by-one-60", "one-by-one-120",
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What is known of a search's candidates, each (Policy, reward) in order of evaluation.

    searched: by the search's own evaluator. cheap: by its cheaper one. fresh: some again, by the
    evaluator that will decide. holds, fresh_hold: whether rewards of the search's own evaluator,
    and the fresh ones, hold where a search ends. same: whether that evaluator is the one that
    decides, and its rewards can be compared. seed: of the search.
    """

    searched: Evaluated
    cheap: Evaluated = ()
    fresh: Evaluated = ()
    holds: bool = True
    same: bool = True
    fresh_hold: bool = True
    seed: int = 0

    @property
    def holding(self) -> Evaluated:
        """The rewards that hold; of the fresh ones where there are any."""
        told, hold = (self.fresh, self.fresh_hold) if self.fresh else (self.searched, self.holds)
        return told if hold else ()

    @property
    def dearer(self) -> list[tuple[Policy, float]]:
        """What corrects the cheap rewards, or adds to the searched ones: all of one scale."""
        searched = self.cheap and (self.same or not self.fresh)
        return [*(self.searched if searched else ()), *self.fresh]

    @property
    def best(self) -> tuple[Policy, float] | None:
        """The best candidate by fresh rewards, else by such as hold; the reward is the largest of
        many noisy ones."""
        return max(self.fresh or self.holding, key=lambda pair: pair[1], default=None)


def finalists(
    evidence: Evidence, space: PolicySpace, ops: Sequence[str]
) -> tuple[dict[str, Policy], int]:
    """(final policies by name, sub-policies of the search that use other operations than `ops`).

    Raises InputError when no sub-policy of the search is left.
    """
    usable, dropped = restricted(evidence.searched, ops)
    if not usable:
        raise InputError("ops", "must leave some sub-policies of the search", ops, "name more")
    model = fit_model(evidence.cheap or evidence.searched, space, RIDGE, evidence.dearer)
    counts = COUNTS if evidence.holding else ()
    made = proposals(usable, model, counts, ops, evidence.seed)
    holding, _ = restricted(evidence.holding, ops)
    if holding:
        # A reward is that of the whole policy: only what may be chosen is restricted.
        chosen = together(evidence.holding, model, TOGETHER, ops, evidence.seed)
        made |= {f"together-{count}": Policy(rows, space.bins) for count, rows in chosen.items()}
    fresh, _ = restricted(evidence.fresh, ops)
    if fresh:
        made["best-5-rescored"] = concatenate_best(fresh)
    made[BEST] = concatenate_best(fresh or holding or usable, 1)
    return made, dropped


@dataclass(frozen=True)
class Choice:
    """How the final policy was chosen.

    ranking: (name, mean reward of new children), best first. best_reward: of the best candidate
    when it was found, None where that was another kind of reward.
    """

    name: str
    policy: Policy
    ranking: tuple[tuple[str, float], ...]
    best_reward: float | None = None

    @classmethod
    def of(
        cls, made: dict[str, Policy], ranked: Sequence[tuple[Policy, float]], evidence: Evidence
    ) -> Choice:
        """From the finalists and (policy, mean) of `best_rescored`, which must have some."""
        by_policy = {policy: name for name, policy in reversed(made.items())}
        ranking = tuple((by_policy[policy], reward) for policy, reward in ranked)
        best = evidence.best if evidence.fresh or evidence.same else None
        found = None if best is None or made[BEST] != best[0] else best[1]
        return cls(ranking[0][0], ranked[0][0], ranking, found)

    def provenance(self) -> dict[str, Any]:
        """For policy files: the ranking; the reward of the best candidate, then and now."""
        about: dict[str, Any] = {"ranking": [list(pair) for pair in self.ranking]}
        again = dict(self.ranking).get(BEST)
        if self.best_reward is not None and again is not None:
            about["best_candidate"] = {"reward": self.best_reward, "measured_again": again}
        return about


def shortlist(made: dict[str, Policy], children: int, seed: int) -> list[Candidate]:
    """As many finalists as so many children tell apart, each with the same seeds.

    Two seeds or more while that leaves two finalists; none for fewer than two children. seed: of
    the search; another search's finalists are trained under other seeds.
    """
    count = min(len(made), max(2, children // 2))
    if children < 2 or count < 2:
        return []
    ranked = [name for name in ORDER if name in made][:count]
    first = seed * MOST_SEEDS % LARGEST_SEED  # searches 20,000 seeds apart have the same again
    seeds = training_seeds("search final", first, children // len(ranked))
    return fixed_candidates({name: made[name] for name in ranked}, seeds)


def choose(
    run: OpenRun,
    evidence: Evidence,
    space: PolicySpace,
    children: int,
    evaluator: EvaluatorConfig,
    **how: bool,
) -> tuple[Choice | None, RunResult | None]:
    """Choose between finalists by so many new children, in DIR/final.

    Of finalists that are not those of an earlier call (the search has gone on since) all is
    evaluated anew.

    how: retry_failed and progress, as for `run_search`.

    Returns:
        The choice, and how the evaluations went; both None for fewer than two children.

    Raises:
        NothingFound: as `decide` raises it.
    """
    candidates = shortlist(finalists(evidence, space, space.ops)[0], children, evidence.seed)
    if not candidates:
        return None, None
    made: dict[str, Any] = {each.label: each.augmentation for each in candidates}
    folder = run.path / FINAL
    begin_stage(run, folder, candidates)
    result = evaluate_fixed(run, folder, candidates, {MAIN: evaluator}, **how)
    told = {trial.key: trial.evaluation for trial in read_journal(folder / JOURNAL_NAME)}
    choice = decide(made, candidates, told, evidence, run.path, "raise the budget")
    return choice, result


def decide(
    made: dict[str, Any],
    candidates: Sequence[Candidate],
    told: Mapping[Key, Evaluation | None],
    evidence: Evidence,
    out: Path,
    more: str,
) -> Choice:
    """The best of the finalists `made` by what their children were told; of equal ones the first.

    out: folder of the run, more: what would give more children; both for the message.

    Raises:
        NothingFound: of every finalist a child failed or diverged, or all children were alike.
    """
    ranked = best_rescored(candidates, told)
    if not ranked:
        raise NothingFound(
            f"of each of {len(made)} final policies a child failed or diverged, so none is "
            f"exported; see `augsearch report {out}`"
        )
    rewards = {usable_reward(told.get(candidate.key)) for candidate in candidates}
    if len(ranked) > 1 and len(rewards) == 1:
        raise NothingFound(
            f"all {len(candidates)} children of {len(ranked)} final policies have the reward "
            f"{ranked[0][1]:.6g}, so none is better than another and none is exported; {more}, or "
            "choose another reward"
        )
    return Choice.of(made, ranked, evidence)
