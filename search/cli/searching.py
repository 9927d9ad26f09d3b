"""Commands that look for policies: search, select, randaugment, rederive, pba, and resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from policies.errors import InputError
from search.studies.config import Config
from search.studies.kinds import KINDS

from .options import (
    ManyValues,
    options_for_resuming,
    options_of_run,
    out_option,
    quiet_option,
    resume_option,
    retry_option,
)

if TYPE_CHECKING:
    from search.engine.loop import RunResult
    from search.studies.replicate import Replicated
    from search.studies.select import Selected

# What is done with a configuration of each kind; `augsearch resume` finds it here too. Each takes
# (config, out) and how: resume, progress, and retry_failed where single evaluations can fail.
RUN: dict[str, Callable[..., None]] = {}


def run_command(kind: str) -> Callable:
    """A command that runs a kind of study; the function's docstring is its help."""

    def decorate(function: Callable[..., None]) -> click.Command:
        RUN[kind] = function

        @quiet_option
        def command(config: Config, out: str, resume: bool, quiet: bool, **how: Any) -> None:
            if resume:
                from search.studies.study import check_whole

                check_whole(Path(out))
            function(config, out, resume=resume, progress=not quiet, **how)

        command = retry_option(command) if KINDS[kind].journal else command
        command = options_of_run(kind)(out_option(resume_option(command)))
        return click.command(kind, cls=ManyValues, help=function.__doc__)(command)

    return decorate


def check_complete(out: Path | str, *results: RunResult | Selected | Replicated) -> None:
    """A run with failed evaluations, in whichever of its stages, is not what was asked for."""
    failed = sum(result.failed for result in results)
    if failed:
        from search.errors import WorkerError, resume_command

        finished = sum(result.finished for result in results)
        raise WorkerError(
            f"{failed} of {finished} evaluations failed after all retries (see every run.log in "
            f"{out}); once that is mended, `{resume_command(Path(out), '--retry-failed')}` makes "
            "them again"
        )


def tell_report(out: str, *results: RunResult | Replicated) -> None:
    """Write the report of a run, say what it found, and only then what failed in it."""
    import analysis

    report = analysis.report_of(out)
    path = analysis.write_report(report)
    click.echo(report.text or analysis.tables.wrapped(report.found))
    click.echo(f"report in {path}")
    check_complete(out, *results)


@run_command("search")
def search(config: Config, out: str, **how: Any) -> None:
    """Search a policy and export it to DIR/policy.json and DIR/policy.txt."""
    from search.studies.search import run_search

    result = run_search(config, out, **how)
    best = f", best reward {result.best[0].reward:.4f}" if result.best else ""
    click.echo(
        f"{result.finished} evaluations ({result.failed} failed, {result.duplicates} repeats)"
        f"{best}; {len(result.policy or ())} sub-policies in {result.directory / 'policy.json'}"
    )
    check_complete(out, result)


@run_command("select")
def select(config: Config, out: str, **how: Any) -> None:
    """Choose the final policy of the search in the folder RUN by new evaluations.

    The paper's way (sub-policies of the best 5 candidates) is one of the proposals; others take
    re-scored candidates, or many different sub-policies one by one. DIR/policy.json is the best of
    them.
    """
    from search.studies.select import run_select

    selected = run_select(config, out, **how)
    for name, score in selected.ranking:
        click.echo(f"{score:10.4f}  {name}")
    if selected.dropped:
        click.echo(f"{selected.dropped} sub-policies of the search left out for their operations")
    click.echo(
        f"{selected.name}: {len(selected.policy)} sub-policies in "
        f"{selected.directory / 'policy.json'}"
    )
    check_complete(out, selected)


@run_command("randaugment")
def randaugment(config: Config, out: str, **how: Any) -> None:
    """Evaluate RandAugment on a grid of N and M and recommend a cell.

    Every cell is evaluated once with every seed.
    """
    from search.studies.randaugment import run_randaugment

    tell_report(out, run_randaugment(config, out, **how))


@run_command("rederive")
def rederive(config: Config, out: str, **how: Any) -> None:
    """Search anew for the ImageNet policy and compare it with the published one.

    DIR/search is the search on reduced-imagenet (and search-2, random, ...), DIR/compare trains
    children under what was found, the published policy and others, DIR/compare-other does on
    another draw of the images; DIR/rederive.md says whether the published policy was found again.
    """
    from search.studies.rederive import run_rederive

    tell_report(out, *run_rederive(config, out, **how))


@run_command("pba")
def pba(config: Config, out: str, **how: Any) -> None:
    """Search a schedule of policies by Population Based Augmentation.

    DIR/schedule.json is an arm of `augsearch compare` like any policy.
    """
    from search.studies.pba import run_pba

    schedule, result = run_pba(config, out, **how)
    click.echo(
        f"{len(schedule)} policies over {schedule.epochs} epochs in {Path(out) / 'schedule.json'}"
    )
    check_complete(out, result)


@click.command(cls=ManyValues)
@click.argument("run")
@options_for_resuming
@retry_option
@quiet_option
def resume(run: str, changes: dict[str, Any], retry_failed: bool, quiet: bool) -> None:
    """Go on with the run in the folder RUN, of any kind; nothing else has to be said.

    Options of the pool may change. What may grow extends the run, a finished one too: more
    --budget or --evaluations of a search, more --seeds, cells, arms or --draws of a study. Values
    that are lists are added to those that are there.
    """
    from search.studies.study import grown

    config = grown(Path(run), changes)
    how = {"retry_failed": retry_failed} if KINDS[config.kind].journal else {}
    if retry_failed and not how:
        raise InputError(
            "retry_failed", "must be for a run of single evaluations", f"one of {config.kind}",
            f"`augsearch resume {run}` goes on from where it was",
        )  # fmt: skip
    RUN[config.kind](config, run, resume=True, progress=not quiet, **how)


COMMANDS = (search, select, randaugment, rederive, pba, resume)
