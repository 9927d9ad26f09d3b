"""`augsearch select`: the final policy of a search, chosen by evaluations made for that purpose.

The paper takes the sub-policies of the 5 best candidates, which are partly the luckiest ones. Here
a few dozen are evaluated again with new seeds, from scratch unless told otherwise (DIR/rescore),
several final policies are made from the old and the new rewards (`choice.finalists`), and these
are evaluated with seeds of their own (DIR/final): the best of them becomes DIR/policy.json. All on
the validation part; the price is (rescore x rescore_seeds + proposals x seeds) evaluations.

The folder keeps a copy of the search's configuration and journal, so that it is resumed by itself
and ends the same even if the search has gone on since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policies import Policy, save_policy
from policies.errors import InputError
from policies.files import read_json, write_atomically
from proxy_tasks.evaluators.costs import preparation_passes, rewards_hold
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.run_format import (
    CONFIG_NAME,
    FINAL,
    POLICY_NAME,
    POLICY_TEXT_NAME,
    PROPOSALS,
    RESCORE,
    SEARCHED_CONFIG,
    SEARCHED_JOURNAL,
)
from search.engine.loop import RunResult
from search.runs.folder import check_journal, has_results
from search.searchers.fixed import fixed_candidates
from search.trial import (
    CHEAP,
    JOURNAL_NAME,
    Candidate,
    Key,
    image_passes,
    read_journal,
)

from .choice import Choice, Evidence, decide, finalists
from .config import Config, read_config
from .fixed import evaluate_fixed, forget_followers
from .search import policy_space, prepared_passes
from .seeds import training_seeds
from .selection import best_rescored, journalled_policies, rescore_candidates, restricted
from .settings import narrowed
from .study import OpenRun, open_run

# What there is only when a stage is finished.
_LATER = {RESCORE: FINAL, FINAL: PROPOSALS}


@dataclass(frozen=True)
class Selected:
    """How a selection went.

    Attributes:
        name: how the chosen policy was made. ranking: (name, mean reward), best first.
        failed: evaluations that failed for good, of `finished`.
        dropped: sub-policies of the search that were left out for their operations.
    """

    directory: Path
    name: str
    policy: Policy
    ranking: tuple[tuple[str, float], ...]
    finished: int
    failed: int
    dropped: int

    def __repr__(self) -> str:
        return (
            f"<Selected {self.name}: {len(self.policy)} sub-policies, mean reward "
            f"{self.ranking[0][1]:.4g}, in {self.directory}>"
        )


def run_select(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> Selected:
    """Choose the final policy of a search, writing into the folder `out`.

    Args:
        config: `Config.of("select", run="runs/first")`; seeds may grow.
        resume, retry_failed, progress: as for `run_search`.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        NothingFound: no policy is better than another.
    """
    out = Path(out)
    files = None
    if not (resume and out.is_dir() and has_results(out)):
        files = (_kept(config, out) if resume else None) or _copies(Path(config.settings.run))
    with open_run(config, out, resume, files) as run:
        return _Selection(run, retry_failed, progress).run()


def _kept(config: Config, out: Path) -> dict[str, bytes] | None:
    """The copies that the selection in the folder `out` was begun with, if it was of this search:
    to go on it needs nothing else, wherever the search is now."""
    paths = [out / name for name in (SEARCHED_CONFIG, SEARCHED_JOURNAL)]
    if not all(path.is_file() for path in (*paths, out / CONFIG_NAME)):
        return None
    saved = read_config(out)
    if saved.kind != config.kind or saved.settings.run != config.settings.run:
        return None
    return {path.name: path.read_bytes() for path in paths}


def _copies(source: Path) -> dict[str, bytes]:
    """Raises InputError for what is no search with results."""
    journal = source / JOURNAL_NAME
    if not journalled_policies(read_journal(journal)):
        raise InputError(
            "run", "must hold a search with evaluated policies", str(source), "resume it first"
        )
    return {
        SEARCHED_CONFIG: (source / CONFIG_NAME).read_bytes(),
        SEARCHED_JOURNAL: journal.read_bytes(),
    }


class _Selection:
    def __init__(self, run: OpenRun, retry_failed: bool, progress: bool) -> None:
        self.opened = run
        self.how = {"retry_failed": retry_failed, "progress": progress}
        searched = Config.from_json(
            read_json(run.path / SEARCHED_CONFIG), str(run.path / SEARCHED_CONFIG)
        )
        if searched.kind != "search":
            raise InputError(
                "run", "must be the folder of a search",
                f"{run.config.settings.run}, of {searched.kind}", "name another",
            )  # fmt: skip
        self.searched = searched
        self.space = policy_space(searched.settings)
        self.failed = self.finished = 0

    def run(self) -> Selected:
        settings = self.opened.config.settings
        trials = read_journal(self.opened.path / SEARCHED_JOURNAL)
        every = journalled_policies(trials)
        ops, _ = narrowed(settings.ops or self.space.ops, settings.without)
        fresh: list = []
        if self.how["retry_failed"]:
            out = self.opened.path
            forget_followers(out, out / RESCORE, out / PROPOSALS, out / FINAL)
            forget_followers(out, out / FINAL)
        if settings.rescore and restricted(every, ops)[0]:
            seeds = training_seeds("select rescore", 0, settings.rescore_seeds)
            candidates = rescore_candidates(every, seeds, count=settings.rescore)
            fresh = best_rescored(candidates, self._evaluate(RESCORE, candidates))
        own, deciding = self.searched.evaluator, self.opened.config.evaluator
        evidence = Evidence(
            every,
            journalled_policies(trials, CHEAP),
            fresh,
            holds=rewards_hold(own),
            same=replace(own, repeats=1) == replace(deciding, repeats=1),
            fresh_hold=rewards_hold(deciding),
            seed=self.searched.settings.seed,
        )
        made, dropped = finalists(evidence, self.space, ops)
        seeds = training_seeds("select final", 0, settings.seeds)
        candidates = fixed_candidates(made, seeds)
        out = self.opened.path
        more = f"`augsearch resume {out} --seeds {2 * settings.seeds}` makes more evaluations"
        told = self._evaluate(FINAL, candidates)
        choice = decide(made, candidates, told, evidence, out, more)
        return self._export(made, choice, dropped)

    def _evaluate(self, stage: str, candidates: list[Candidate]) -> dict[Key, Evaluation | None]:
        folder = self.opened.path / stage
        if (self.opened.path / _LATER[stage]).exists():
            check_journal(folder)
        evaluators = {"main": self.opened.config.evaluator}
        result: RunResult = evaluate_fixed(self.opened, folder, candidates, evaluators, **self.how)
        self.failed += result.failed
        self.finished += result.finished
        return {trial.key: trial.evaluation for trial in read_journal(folder / JOURNAL_NAME)}

    def _export(self, made: dict[str, Policy], choice: Choice, dropped: int) -> Selected:
        out = self.opened.path
        journals = [out / SEARCHED_JOURNAL]
        journals += [out / stage / JOURNAL_NAME for stage in (RESCORE, FINAL)]
        trials = [trial for path in journals if path.exists() for trial in read_journal(path)]
        provenance: dict[str, Any] = {
            "task": self.opened.task.name,
            "manifest_hash": self.opened.task.manifest_hash,
            "searched_in": Path(self.opened.config.settings.run).resolve().name,
            **choice.provenance(),
            "dropped": dropped,
            "evaluations": {"finished": len(trials)},
            "cost": {"image_passes": image_passes(trials) + self._prepared()},
        }
        (out / PROPOSALS).mkdir(exist_ok=True)
        for name, policy in made.items():
            about = {**provenance, "selection": name}
            save_policy(out / PROPOSALS / f"{name}.json", policy, provenance=about)
        write_atomically(out / POLICY_TEXT_NAME, choice.policy.to_text())
        about = {**provenance, "selection": choice.name}
        save_policy(out / POLICY_NAME, choice.policy, provenance=about)
        return Selected(
            out, choice.name, choice.policy, choice.ranking, self.finished, self.failed, dropped
        )

    def _prepared(self) -> int:
        """Image passes of the shared children, the search's and that of the evaluations here."""
        task = self.opened.task
        here = preparation_passes(self.opened.config.evaluator, task)
        return prepared_passes(self.searched, task) + here
