"""`augsearch select`: the final policy of a search, chosen by evaluations made for that purpose.

The paper takes the sub-policies of the 5 best candidates, which are partly the luckiest ones. Here
a few dozen are evaluated again with new seeds, by a better evaluator if asked for (DIR/rescore),
several final policies are made from the old and the new rewards (`selection.proposals`), and these
are evaluated with seeds of their own (DIR/final): the best of them becomes DIR/policy.json. All on
the validation part; the price is (rescore x rescore_seeds + proposals x seeds) evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from policies import Policy, save_policy
from policies.augmentations import encode_augmentation
from policies.errors import InputError
from policies.files import read_json, write_atomically
from proxy_tasks import EvaluatorConfig, ProxyTask
from proxy_tasks.evaluators.config import BEST_REWARDS
from search.engine.loop import RunResult
from search.engine.pool import PoolConfig
from search.searchers.fixed import FixedSearcher, fixed_candidates
from search.spaces import PolicySpace
from search.trial import JOURNAL_NAME, Candidate, image_passes, read_journal, usable_reward

from .search import CONFIG_NAME, POLICY_NAME, RunConfig, check_new
from .selection import best_rescored, concatenate_best, fit_model, proposals, rescore_candidates
from .study import StudyConfig, TaskConfig, run_study

# First seeds of the two stages: apart from each other, from searches and from comparisons.
RESCORE_SEED = 2_000_000
FINAL_SEED = 3_000_000


class Selected(NamedTuple):
    """name: how the chosen policy was made. ranking: (name, mean reward), best first."""

    name: str
    policy: Policy
    ranking: tuple[tuple[str, float], ...]
    failed: int


def run_select(
    run: str | Path,
    out: str | Path,
    *,
    rescore: int = 60,
    rescore_seeds: int = 1,
    seeds: int = 5,
    evaluator: Mapping[str, Any] | None = None,
    pool: PoolConfig | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Selected:
    """Choose the final policy of the search in the folder `run`, writing into the folder `out`.

    rescore: candidates to evaluate again, half of them the best, half from the rest; 0 for none.
    evaluator: fields of EvaluatorConfig that differ from the search's for the new evaluations, e.g.
    {"kind": "from-scratch"}.
    Also writes every proposal to `out`/proposals. Raises InputError for a user's mistake.
    """
    for name, value, least in (
        ("rescore", rescore, 0),
        ("rescore_seeds", rescore_seeds, 1),
        ("seeds", seeds, 1),
    ):
        if value < least:
            raise InputError(name, f"must be at least {least}", value, f"use {max(least, 3)}")
    run, out = Path(run), Path(out)
    if not resume:
        check_new(out)
    elif not out.is_dir():
        raise InputError("out", "must hold a run to resume", str(out), "leave --resume out")
    config = RunConfig.from_json(read_json(run / CONFIG_NAME), str(run / CONFIG_NAME))
    evaluated = journalled_policies(run / JOURNAL_NAME)
    space = PolicySpace(config.subpolicies, config.operations)
    last = _evaluator(config, evaluator or {})
    names = [field.name for field in fields(TaskConfig) if hasattr(config, field.name)]
    task = TaskConfig(**{name: getattr(config, name) for name in names})
    stage = _Stage(task, task.build(), pool or PoolConfig(), progress)
    fresh = []
    if rescore:
        candidates = rescore_candidates(
            evaluated, range(RESCORE_SEED, RESCORE_SEED + rescore_seeds), count=rescore
        )
        results, _ = stage.run(out / "rescore", candidates, last, resume)
        fresh = best_rescored(candidates, results)
    made = proposals(evaluated, fit_model(evaluated, space, dearer=fresh))
    if fresh:
        made["best-5-rescored"] = concatenate_best(fresh)
    candidates = fixed_candidates(made, range(FINAL_SEED, FINAL_SEED + seeds))
    results, result = stage.run(out / "final", candidates, last, resume)
    return _export(run, out, made, best_rescored(candidates, results), result)


def journalled_policies(journal: Path) -> list[tuple[Policy, float]]:
    """(Policy, reward) of the evaluations in a search's journal, ordered by batch and slot."""
    return [
        (Policy(trial.augmentation), reward)
        for trial in sorted(read_journal(journal), key=lambda trial: trial.key)
        if trial.status == "ok"
        and isinstance(trial.augmentation, list)
        and (reward := usable_reward(trial.evaluation)) is not None
    ]


def _evaluator(config: RunConfig, changes: Mapping[str, Any]) -> EvaluatorConfig:
    values = asdict(config.evaluator_config())
    if changes.get("kind", values["kind"]) != values["kind"]:
        # Epochs, options and the reward that suits belong to a kind.
        values |= {"epochs": None, "options": {}, "reward": BEST_REWARDS.get(changes["kind"])}
    return EvaluatorConfig(**{**values, **changes})


class _Stage(NamedTuple):
    task: TaskConfig
    drawn: ProxyTask
    pool: PoolConfig
    progress: bool

    def run(
        self, folder: Path, candidates: list[Candidate], evaluator: EvaluatorConfig, resume: bool
    ) -> tuple[dict, RunResult]:
        arms = {c.label: encode_augmentation(c.augmentation) for c in candidates}
        study = StudyConfig(
            "select",
            str(folder),
            self.task,
            {"main": evaluator},
            [{"name": name, "policy": policy} for name, policy in arms.items()],
            {"seeds": sorted({c.seed for c in candidates})},
            self.pool,
        )
        searcher = FixedSearcher(candidates)
        result = run_study(
            study,
            lambda _: searcher,
            self.drawn,
            resume=resume and (folder / CONFIG_NAME).exists(),
            progress=self.progress,
        )
        return searcher.results, result


def _export(
    run: Path,
    out: Path,
    made: dict[str, Policy],
    ranked: list[tuple[Policy, float]],
    result: RunResult,
) -> Selected:
    if not ranked:
        raise InputError(
            "run",
            "must lead to at least one policy that can be evaluated",
            str(run),
            f"see {result.directory / 'run.log'}",
        )
    by_policy = {policy: name for name, policy in reversed(made.items())}
    ranking = tuple((by_policy[policy], reward) for policy, reward in ranked)
    journals = [folder / JOURNAL_NAME for folder in (run, out / "rescore", out / "final")]
    trials = [trial for path in journals if path.exists() for trial in read_journal(path)]
    provenance = {
        "searched_in": run.resolve().name,
        "ranking": [list(pair) for pair in ranking],
        "evaluations": {"finished": len(trials)},
        "cost": {"image_passes": image_passes(trials)},
    }
    (out / "proposals").mkdir(exist_ok=True)
    for name, policy in made.items():
        about = {**provenance, "selection": name}
        save_policy(out / "proposals" / f"{name}.json", policy, provenance=about)
    best = ranked[0][0]
    write_atomically(out / "policy.txt", best.to_text())
    about = {**provenance, "selection": ranking[0][0]}
    save_policy(out / POLICY_NAME, best, provenance=about)
    return Selected(ranking[0][0], best, ranking, result.failed)
