"""A search from a configuration to an exported policy, in a run folder of its own.

    run_search(Config.of("search", task="reduced-fashion", budget=120), "runs/first")

The folder holds config.json, environment.json, manifest.json, trials.jsonl (the journal) and
run.log, and at the end policy.json and policy.txt, which follow from the others: what is lost of
them is written anew when the run is resumed. A search with a budget keeps a share of it for new
children that choose the final policy, in DIR/final.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from policies import Policy
from policies.errors import InputError
from policies.files import write_atomically, write_where_other
from policies.imports import is_import_path
from policies.policy_files import PolicyFile, to_json_text
from proxy_tasks import ProxyTask
from proxy_tasks.evaluators.config import EvaluatorConfig, companion
from proxy_tasks.evaluators.costs import (
    child_of,
    evaluation_passes,
    preparation_passes,
    rewards_hold,
)
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.run_format import (
    CHEAP_COST,
    COSTS_NAME,
    FINAL,
    LOG_NAME,
    POLICY_NAME,
    POLICY_TEXT_NAME,
)
from search.engine.budget import Budget
from search.engine.loop import RunResult, run
from search.engine.worker import Factory
from search.errors import NothingFound
from search.runs.folder import check_journal
from search.searchers.base import Searcher
from search.searchers.registry import has_cheap_cost, make_searcher
from search.spaces import PolicySpace
from search.trial import (
    CHEAP,
    JOURNAL_NAME,
    MAIN,
    Candidate,
    Trial,
    best_trials,
    image_passes,
    read_journal,
    usable_reward,
)

from .choice import Choice, Evidence, choose
from .config import Config
from .fixed import forget_followers
from .selection import journalled_policies
from .settings import SearcherConfig, SpaceSettings
from .study import OpenRun, open_run

MOST_TRIED = 1_000_000  # budgets, for one that is large enough
# Half the width of a 95 % interval in standard errors.
Z95 = 1.959964


def policy_space(settings: SpaceSettings) -> PolicySpace:
    return PolicySpace(settings.subpolicies, settings.operations, settings.ops)


def build_searcher(config: Config, task: ProxyTask | None = None) -> Searcher:
    """A new searcher, as the configuration says.

    task: tells what a cheap evaluation costs; without it the searcher is only good for a check.
    """
    settings, searcher = config.settings, searcher_config(config)
    options = dict(searcher.options)
    if settings.cheap:
        if not has_cheap_cost(searcher.name):
            raise InputError(
                "cheap", f"needs a searcher with the option {CHEAP_COST}", searcher.name,
                "use the searcher staged, or leave it out",
            )  # fmt: skip
        cost = options[CHEAP_COST] = 0.5 if task is None else cheap_cost(config, task)
        if cost >= 1:
            raise InputError(
                "cheap", "must cost less than an evaluation of the search's own, as it does not "
                "with so few epochs", f"{cost:.3g} times as much",
                "pass --cheap '{}', which leaves it out, or more --epochs",
            )  # fmt: skip
    found = make_searcher(searcher.name, policy_space(settings), settings.seed, options)
    return cast(Searcher, _Own(found, settings)) if is_import_path(searcher.name) else found


class _Own:
    """A searcher of the user's own: its first candidate must be a policy, which a search can join,
    and all policies of the search's operations."""

    def __init__(self, searcher: Searcher, settings: SpaceSettings) -> None:
        self._searcher, self._ops = searcher, policy_space(settings).ops
        self._asked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._searcher, name)

    def ask(self) -> Candidate | None:
        candidate = self._searcher.ask()
        first, self._asked = not self._asked, True
        policy = None if candidate is None else candidate.augmentation
        if not isinstance(policy, Policy):
            if policy is None or not first:
                return candidate
            raise InputError(
                "searcher", "must propose policies, whose sub-policies a search joins", policy,
                "for other augmentations call search.engine.loop.run yourself",
            )  # fmt: skip
        others = {operation.name for row in policy for operation in row} - {*self._ops}
        if others:
            raise InputError(
                "searcher", f"must propose operations of the search: {', '.join(self._ops)}",
                ", ".join(sorted(others)), "draw from space.ops, or name them in --ops",
            )  # fmt: skip
        return candidate


def searcher_config(config: Config) -> SearcherConfig:
    """The searcher's section. Raises InputError for a run that has none."""
    if config.searcher is None:
        raise InputError("searcher", f"must be told in a run of the kind {config.kind}", None,
                         "restore config.json from a copy")  # fmt: skip
    return config.searcher


# Costs -----------------------------------------------------------------------------------------


def evaluators_of(config: Config) -> dict[str, EvaluatorConfig]:
    """What judges the candidates of a search, by the names that searchers give."""
    found = {MAIN: config.evaluator}
    if config.settings.cheap:
        found[CHEAP] = companion(config.evaluator, config.settings.cheap, "cheap")
    return found


def prices_of(config: Config, task: ProxyTask) -> dict[str, int]:
    """Image passes of one evaluation, by scorer."""
    return {
        name: evaluation_passes(evaluator, task, config.settings.subpolicies)
        for name, evaluator in evaluators_of(config).items()
    }


def cheap_cost(config: Config, task: ProxyTask) -> float:
    """What a cheap evaluation costs, in those of the search's own evaluator."""
    prices = prices_of(config, task)
    return prices[CHEAP] / prices[MAIN]


def prepared_passes(config: Config, task: ProxyTask) -> int:
    """Image passes of what the evaluations of a search share, before the first."""
    return sum(preparation_passes(each, task) for each in evaluators_of(config).values())


def budget_of(config: Config, task: ProxyTask) -> Budget | None:
    """What the candidates of a search may cost; None where evaluations count.

    Raises InputError for a budget that pays for none.
    """
    settings = config.settings
    if settings.budget is None:
        if settings.cheap:
            _check_evaluations(config, task)
        return None
    child = evaluation_passes(child_of(config.evaluator), task, settings.subpolicies)
    prepared = prepared_passes(config, task)
    limit = (settings.budget - reserved(config)) * child
    prices = prices_of(config, task)
    opening = build_searcher(config, task).opening if settings.cheap else 0.0
    needed = prepared + opening * prices[MAIN] + max(prices.values())
    if limit < needed:
        budgets = range(settings.budget, settings.budget + MOST_TRIED)
        enough = (b for b in budgets if (b - kept_of(b, settings.reserve)) * child >= needed)
        least = next(enough, None)
        if least is None:
            raise InputError(
                "reserve", "must leave children for the search itself", settings.reserve,
                "pass a smaller one",
            )  # fmt: skip
        raise InputError(
            "budget", f"must be at least {least}: {prepared / child:.3g} children for what cheap "
            f"evaluations share, {opening * prices[MAIN] / child:.3g} for the first of these, one "
            "evaluation, and the final choice", settings.budget,
            "raise it, or pass --cheap '{}'" if settings.cheap else "raise it",
        )  # fmt: skip
    return Budget(limit, prices, prepared, child)


def check_budget(config: Config, task: ProxyTask, where: str, fix: str) -> None:
    """InputError, with this fix, for a stage of a larger run that `budget_of` would refuse."""
    try:
        budget_of(config, task)
    except InputError as error:
        raise InputError(f"{where}, {error.argument}", error.rule, error.got, fix) from None


def _check_evaluations(config: Config, task: ProxyTask) -> None:
    """InputError unless some are left for the search's own evaluator."""
    cheap = round(build_searcher(config, task).opening / cheap_cost(config, task))
    if config.settings.evaluations <= cheap:
        raise InputError(
            "evaluations", f"must be more than the {cheap} cheap ones that come first",
            config.settings.evaluations, "pass --budget, which counts what they cost",
        )  # fmt: skip


def reserved(config: Config) -> int:
    """Children of the budget that choose the final policy. A larger budget keeps no fewer, and
    leaves no less to the search: it goes on where a smaller one ended."""
    return kept_of(config.settings.budget, config.settings.reserve)


def kept_of(budget: int, reserve: float) -> int:
    """Of 100 children 0.29 are 29, where the product is a rounding error less."""
    return int(budget * reserve + 1e-9)


def _write_costs(folder: Path, budget: Budget) -> None:
    """costs.json, for reports: image passes of a child, of evaluations, of what is done once."""
    costs = {"child": budget.unit, "evaluation": dict(budget.prices), "prepared": budget.spent}
    write_where_other(folder / COSTS_NAME, json.dumps(costs, indent=2) + "\n")


# The study -------------------------------------------------------------------------------------


def run_search(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
    factory: Factory | None = None,
) -> RunResult:
    """Search in the folder `out`, then write policy.json and policy.txt there.

    Args:
        config: `Config.of("search", ...)`.
        out: folder to begin, or one in which nothing is finished yet.
        resume: go on with the run in `out`, if there is one; evaluations or budget may have grown.
        retry_failed: when resuming, make evaluations again that failed.
        factory: see `engine.loop.run`.

    Returns:
        How it went; `policy` is what was exported.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        NothingFound: no candidate is better than another.
        SearchError: what `engine.loop.run` raises.
    """
    check_searcher(config, build_searcher(config))
    for evaluator in evaluators_of(config).values():
        check_config(evaluator)
    if config.settings.budget is not None:
        check_config(child_of(config.evaluator))
    with open_run(config, out, resume) as opened:
        config, path = opened.config, opened.path
        budget = budget_of(config, opened.task)
        if budget is not None:
            _write_costs(path, budget)
            if reserved(config) == 1:
                opened.log.warning(
                    "the budget keeps 1 child for the choice of the final policy, which needs 2: "
                    "the best candidates are joined; raise it, or pass --reserve 0"
                )
        if retry_failed:
            forget_followers(path, path, path / FINAL)
            forget_followers(path, path / FINAL)
        if (path / FINAL).exists():
            check_journal(path, below=False)
        result = run(
            build_searcher(config, opened.task),
            evaluators_of(config),
            opened.task,
            path,
            evaluations=config.settings.evaluations,
            budget=budget,
            pool=config.pool,
            progress=progress,
            resume=True,  # the journal in a run's folder is always its own
            factory=factory,
            retry_failed=retry_failed,
        )
        trials = read_journal(path / JOURNAL_NAME)
        check_found(trials, result)
        choice = None
        if budget is not None:
            choice, final = _choose(opened, trials, retry_failed=retry_failed, progress=progress)
            if final is not None:
                result = replace(
                    result,
                    new=result.new + final.new,
                    failed=result.failed + final.failed,
                    finished=result.finished + final.finished,
                )
        return replace(result, policy=export(opened, result, trials, choice))


def _choose(
    run: OpenRun, trials: list[Trial], **how: bool
) -> tuple[Choice | None, RunResult | None]:
    """The final policy by new children; (None, None) where the budget has none for it."""
    config = run.config
    evidence = Evidence(
        journalled_policies(trials),
        journalled_policies(trials, CHEAP),
        holds=rewards_hold(config.evaluator),
        same=replace(config.evaluator, repeats=1) == child_of(config.evaluator),
        seed=config.settings.seed,
    )
    space = policy_space(config.settings)
    return choose(run, evidence, space, reserved(config), child_of(config.evaluator), **how)


def export(run: OpenRun, result: RunResult, trials: list[Trial], choice: Choice | None) -> Policy:
    """Write policy.txt and policy.json, unless they are there and say what the journal says."""
    policy, text, document = rendered(run, trials, result, choice)
    wanted = {POLICY_TEXT_NAME: text, POLICY_NAME: document}
    differing = [
        name for name, content in wanted.items() if _content(run.path / name) != content.encode()
    ]
    if not differing:
        run.log.info(f"{run.path} is complete: {result.finished} evaluations; nothing was done")
        return policy
    if not result.new and not run.grown:
        run.log.warning(
            f"{run.path}: {' and '.join(differing)} not as the journal says; written anew"
        )
    # policy.json comes last: its presence says that the run is complete.
    for name in wanted:
        write_atomically(run.path / name, wanted[name])
    run.log.info(
        f"{run.path} is complete: {result.finished} evaluations, policy in {run.path / POLICY_NAME}"
    )
    return policy


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def rendered(
    run: OpenRun, trials: list[Trial], result: RunResult, choice: Choice | None
) -> tuple[Policy, str, str]:
    """(policy, policy.txt, policy.json) of a search, from its folder alone.

    choice: of the final policy by new children; without it the best candidates are joined.
    """
    config = run.config
    chosen = best_trials((t for t in trials if _joins(t)), config.settings.top)
    selection = f"sub-policies of the {len(chosen)} best candidates, in order of reward"
    policy = Policy([row for each in chosen for row in each.augmentation or ()])
    final: list[Trial] = []
    if choice is not None:
        policy = choice.policy
        selection = f"{choice.name}, the best of {len(choice.ranking)} by new children"
        final = read_journal(run.path / FINAL / JOURNAL_NAME)
    provenance: dict[str, Any] = {
        "task": run.task.name,
        "manifest_hash": run.task.manifest_hash,
        "searcher": searcher_config(config).name,
        "seed": config.settings.seed,
        "evaluator": config.to_json()["evaluator"],
        "evaluations": {
            "finished": result.finished,
            "failed": result.failed,
            "duplicates": result.duplicates,
        },
        # In image passes, not in seconds: the file then depends on the configuration alone.
        "cost": {
            "image_passes": image_passes(trials)
            + image_passes(final)
            + prepared_passes(config, run.task)
        },
        "selection": selection,
        **(choice.provenance() if choice else {}),
        # Rewards of the best of many: their maximum flatters; compare on the test part.
        "candidates": [
            {
                "batch": each.batch,
                "slot": each.slot,
                "reward": each.reward,
                "interval95": interval(each.reward, each.result.stderr),
            }
            for each in chosen
        ],
        "versions": {"python": run.environment["python"], **run.environment["packages"]},
    }
    return policy, policy.to_text(), to_json_text(PolicyFile(policy, provenance))


def _joins(trial: Trial) -> bool:
    """Whether it is of a policy, whose sub-policies may become part of the final one."""
    return trial.scorer == MAIN and isinstance(trial.augmentation, list)


def check_searcher(config: Config, searcher: Searcher) -> None:
    """InputError for one of a user's own whose first candidate is no policy, asked of a new one."""
    if is_import_path(searcher_config(config).name):
        searcher.ask()


def check_found(trials: list[Trial], result: RunResult) -> None:
    """NothingFound unless the rewards say that some policy is better than another."""
    judged = [trial for trial in trials if _joins(trial)]
    evaluated = [trial.evaluation for trial in judged if trial.evaluation is not None]
    if not evaluated:
        raise NothingFound(
            f"none of {result.finished} evaluations succeeded; see {result.directory / LOG_NAME}"
        )
    rewards = [reward for each in evaluated if (reward := usable_reward(each)) is not None]
    if not rewards:
        raise NothingFound(
            f"all {len(evaluated)} children diverged, so no policy is better than another and "
            "none is exported; lower the learning rate, or check the images"
        )
    if len(rewards) > 1 and len(set(rewards)) == 1:
        raise NothingFound(
            f"all {len(rewards)} rewards are {rewards[0]:.6g}, so no policy is better than "
            "another and none is exported; evaluate on more images, or choose another reward"
        )


def interval(reward: float, stderr: float | None) -> list[float] | None:
    """Normal 95 % interval of one evaluation's reward."""
    return None if stderr is None else [reward - Z95 * stderr, reward + Z95 * stderr]
