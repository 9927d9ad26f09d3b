"""Reads run folders and policies; tables, statistics, pictures, reports. Never trains.

Names are imported when they are first used, so that `import analysis` waits for no library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import plots, tables
    from .compare import Comparison, compare_arms
    from .composition import (
        PolicyStatistics,
        batch_entropies,
        histogram_overlap,
        policy_statistics,
        policy_table,
    )
    from .document import Report, write_report
    from .draws import Draws, Replication, analyse_replication
    from .examples import example_images
    from .fidelity import Fidelity, analyse_fidelity
    from .html import page, write_reports
    from .race import Race, analyse_race
    from .randaugment import Grid, analyse_grid
    from .ranks import Correlation, rank_correlation
    from .report import report_of
    from .runs import Run, load_run
    from .sheet import policy_sheet
    from .statistics import (
        Difference,
        Estimate,
        NoiseFloor,
        arm_difference,
        holm,
        mean_interval,
        minimum_detectable_difference,
        noise_floor,
        paired_difference,
        probability_of_improvement,
        seeds_needed,
        verdict,
    )
    from .surrogate import surrogate_quality
    from .tabulate import Tabulation, analyse_tabulation

_NAMES = {
    "compare": ("Comparison", "compare_arms"),
    "composition": (
        "PolicyStatistics", "batch_entropies", "histogram_overlap", "policy_statistics",
        "policy_table",
    ),
    "document": ("Report", "write_report"),
    "draws": ("Draws", "Replication", "analyse_replication"),
    "examples": ("example_images",),
    "fidelity": ("Fidelity", "analyse_fidelity"),
    "html": ("page", "write_reports"),
    "race": ("Race", "analyse_race"),
    "randaugment": ("Grid", "analyse_grid"),
    "ranks": ("Correlation", "rank_correlation"),
    "report": ("report_of",),
    "runs": ("Run", "load_run"),
    "sheet": ("policy_sheet",),
    "statistics": (
        "Difference", "Estimate", "NoiseFloor", "arm_difference", "holm",
        "mean_interval", "minimum_detectable_difference", "noise_floor", "paired_difference",
        "probability_of_improvement", "seeds_needed", "verdict",
    ),
    "surrogate": ("surrogate_quality",),
    "tabulate": ("Tabulation", "analyse_tabulation"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = ("plots", "tables")

__all__ = [
    "Comparison",
    "Correlation",
    "Difference",
    "Draws",
    "Estimate",
    "Fidelity",
    "Grid",
    "NoiseFloor",
    "PolicyStatistics",
    "Race",
    "Replication",
    "Report",
    "Run",
    "Tabulation",
    "analyse_fidelity",
    "analyse_grid",
    "analyse_race",
    "analyse_replication",
    "analyse_tabulation",
    "arm_difference",
    "batch_entropies",
    "compare_arms",
    "example_images",
    "histogram_overlap",
    "holm",
    "load_run",
    "mean_interval",
    "minimum_detectable_difference",
    "noise_floor",
    "page",
    "paired_difference",
    "plots",
    "policy_sheet",
    "policy_statistics",
    "policy_table",
    "probability_of_improvement",
    "rank_correlation",
    "report_of",
    "seeds_needed",
    "surrogate_quality",
    "tables",
    "verdict",
    "write_report",
    "write_reports",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
