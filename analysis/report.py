"""`augsearch report`: the right report for any run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policies.errors import InputError
from proxy_tasks.run_format import CONFIG_NAME

from .compare import comparison_report
from .document import Report
from .fidelity import fidelity_report
from .pba import pba_report
from .race import race_report
from .randaugment import grid_report
from .rederive import rederivation_report
from .replicate import replication_report
from .runs import Run, load_run
from .search import search_report
from .select import select_report
from .tabulate import tabulation_report
from .train import train_report

REPORTS: dict[str, Callable[[Run], Report]] = {
    "search": search_report,
    "select": select_report,
    "randaugment": grid_report,
    "compare": comparison_report,
    "fidelity": fidelity_report,
    "rederive": rederivation_report,
    "pba": pba_report,
    "tabulate": tabulation_report,
    "train": train_report,
    "race": race_report,
    "replicate": replication_report,
}


def report_of(directory: str | Path) -> Report:
    """The report of a run folder, finished or not; its config.json says of which kind it is.

    Raises InputError for a folder that is no run.
    """
    run = load_run(directory)
    if run.kind not in REPORTS:
        raise InputError(
            str(run.directory / CONFIG_NAME),
            f"must be of a kind that has a report: {', '.join(REPORTS)}",
            run.kind,
            "give the --out folder of a run",
        )
    return REPORTS[run.kind](run)
