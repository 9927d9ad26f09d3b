"""A fixed list of evaluations in a run folder: what compare, randaugment and fidelity share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.run_format import POLICY_NAME
from search.engine.loop import RunResult, run
from search.engine.records import FIELDS, asked_fields
from search.errors import NothingFound
from search.runs.folder import check_journal, forget_policy, forget_results
from search.searchers.fixed import FixedSearcher
from search.trial import JOURNAL_NAME, Candidate, read_journal

from .config import Config
from .study import OpenRun, open_run


def run_fixed(
    config: Config,
    out: Path | str,
    candidates: Callable[[Config], list[Candidate]],
    *,
    evaluators: Callable[[OpenRun], Mapping[str, EvaluatorConfig]] | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> RunResult:
    """Evaluate the candidates that a configuration means, in the run folder `out`.

    Args:
        candidates: of a configuration. A configuration that has grown must give those that it
            gave before the same keys, so that the journal goes on.
        evaluators: by the names that candidates ask for; default: the configuration's, as "main".

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
        SearchError: NothingFound when all children diverged, and what `engine.loop.run` raises.
    """
    candidates(config)
    out = Path(out)
    with open_run(config, out, resume) as opened:
        result = evaluate_fixed(
            opened,
            opened.path,
            candidates(opened.config),
            evaluators(opened) if evaluators else {"main": opened.config.evaluator},
            retry_failed=retry_failed,
            progress=progress,
        )
        evaluated = [e for t in read_journal(out / JOURNAL_NAME) if (e := t.evaluation) is not None]
        if evaluated and all(each.diverged for each in evaluated):
            raise NothingFound(
                f"all {len(evaluated)} children diverged, so nothing can be told apart; lower the "
                f"learning rate, or check the images (`augsearch report {out}` shows what there is)"
            )
        return result


def forget_followers(run: Path, stage: Path, *followers: Path) -> None:
    """Before failed evaluations of a stage are made again: what followed from it is forgotten.

    At first, so that a kill in between leaves nothing that followed from what is no longer there;
    before all the run's policy.json, which promises that every journal is there.
    run: the folder of the stage's run, which may be the stage. followers: the latest first.
    """
    journal = stage / JOURNAL_NAME
    if journal.is_file() and any(trial.error is not None for trial in read_journal(journal)):
        forget_policy(run)
        for follower in followers:
            forget_results(follower)


def begin_stage(run: OpenRun, stage: Path, candidates: Sequence[Candidate]) -> None:
    """Before a stage that decides on policy.json: forget what it was asked for before, if other.

    Raises InputError where the run is complete and the stage's journal is lost.
    """
    journal = stage / JOURNAL_NAME
    if stage.exists() and (run.path / POLICY_NAME).exists():
        check_journal(stage)
    asked = {each.key: asked_fields(each) for each in candidates}
    others = journal.is_file() and any(
        asked.get(trial.key) != {name: getattr(trial, name) for name in FIELDS}
        for trial in read_journal(journal)
    )
    if others:
        run.log.info(f"the run has gone on: {stage.name} is made anew")
        forget_policy(run.path)
        forget_results(stage)


def evaluate_fixed(
    opened: OpenRun,
    folder: Path,
    candidates: list[Candidate],
    evaluators: Mapping[str, EvaluatorConfig],
    *,
    retry_failed: bool,
    progress: bool,
) -> RunResult:
    """Evaluate candidates into the journal of `folder`, the run's own or one below it."""
    return run(
        FixedSearcher(candidates),
        evaluators,
        opened.task,
        folder,
        evaluations=len(candidates),
        pool=opened.config.pool,
        progress=progress,
        resume=True,  # the journal in a run's folder is always its own
        retry_failed=retry_failed,
    )
