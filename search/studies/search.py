"""A search from a configuration to an exported policy, in a run folder of its own.

    run_search(Config.of("search", task="reduced-fashion", evaluations=200), "runs/first")

The folder holds config.json, environment.json, manifest.json, trials.jsonl (the journal) and
run.log, and at the end policy.json and policy.txt, which follow from the others: what is lost of
them is written anew when the run is resumed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from policies import Policy
from policies.files import write_atomically
from policies.policy_files import PolicyFile, to_json_text
from search.engine.loop import RunResult, run
from search.engine.worker import Factory
from search.errors import NothingFound
from search.runs.folder import LOG_NAME, POLICY_NAME
from search.searchers.base import Searcher
from search.searchers.registry import make_searcher
from search.spaces import PolicySpace
from search.trial import (
    JOURNAL_NAME,
    Trial,
    best_trials,
    image_passes,
    read_journal,
    usable_reward,
)

from .config import Config
from .settings import SearcherConfig, Space
from .study import OpenRun, open_run

POLICY_TEXT_NAME = "policy.txt"
# Half the width of a 95 % interval in standard errors.
Z95 = 1.959964


def policy_space(settings: Space) -> PolicySpace:
    return PolicySpace(settings.subpolicies, settings.operations, settings.ops)


def build_searcher(config: Config) -> Searcher:
    """A new searcher, as the configuration says."""
    settings, searcher = config.settings, searcher_config(config)
    return make_searcher(searcher.name, policy_space(settings), settings.seed, searcher.options)


def searcher_config(config: Config) -> SearcherConfig:
    """The searcher's section. Raises ValueError for a kind of run that has none."""
    if config.searcher is None:
        raise ValueError(f"{config.kind} has no searcher")
    return config.searcher


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
        resume: go on with the run in `out`, if there is one; evaluations may have grown.
        retry_failed: when resuming, make evaluations again that failed.
        factory: see `engine.run`.

    Returns:
        How it went; `policy` is what was exported.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        NothingFound: no candidate is better than another.
        SearchError: what `engine.run` raises.
    """
    searcher = build_searcher(config)
    with open_run(config, out, resume) as opened:
        if opened.resumed:
            searcher = build_searcher(opened.config)
        result = run(
            searcher,
            {"main": opened.config.evaluator},
            opened.task,
            opened.path,
            evaluations=opened.config.settings.evaluations,
            pool=opened.config.pool,
            progress=progress,
            resume=True,  # the journal in a run's folder is always its own
            factory=factory,
            retry_failed=retry_failed,
        )
        return replace(result, policy=export(opened, result))


def export(run: OpenRun, result: RunResult) -> Policy:
    """Write policy.txt and policy.json, unless they are there and say what the journal says."""
    trials = read_journal(run.path / JOURNAL_NAME)
    policy, text, document = rendered(run, trials, result)
    wanted = {POLICY_TEXT_NAME: text, POLICY_NAME: document}
    differing = [
        name for name, content in wanted.items() if _content(run.path / name) != content.encode()
    ]
    if not differing:
        run.log.info(f"{run.path} is complete: {result.finished} evaluations; nothing was done")
        return policy
    if not result.new:
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


def rendered(run: OpenRun, trials: list[Trial], result: RunResult) -> tuple[Policy, str, str]:
    """(policy, policy.txt, policy.json) of a search, from its folder alone."""
    config = run.config
    chosen = best_trials(trials, config.settings.top)
    check_found(trials, result)
    policy = Policy([row for each in chosen for row in each.augmentation or ()])
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
        "cost": {"image_passes": image_passes(trials)},
        "selection": f"sub-policies of the {len(chosen)} best candidates, in order of reward",
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


def check_found(trials: list[Trial], result: RunResult) -> None:
    """NothingFound unless the rewards say that some candidate is better than another."""
    evaluated = [trial.evaluation for trial in trials if trial.evaluation is not None]
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
