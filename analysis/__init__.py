"""Reads run folders and policies; tables, statistics, pictures, reports. Never trains.

Names are imported when they are first used, so that `import analysis` waits for no library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import plots, tables
    from .compare import Comparison, compare_arms, write_comparison
    from .composition import (
        PolicyStatistics,
        batch_entropies,
        histogram_overlap,
        policy_statistics,
        policy_table,
    )
    from .draws import Draws, Replication, analyse_replication
    from .examples import example_images
    from .fidelity import Fidelity, analyse_fidelity, write_fidelity
    from .html import page, write_reports
    from .race import Race, analyse_race, write_race
    from .randaugment import Grid, analyse_grid, write_grid
    from .rederive import write_rederivation
    from .replicate import write_replication
    from .report import report_of, write_any
    from .runs import Run, load_run
    from .search import write_report
    from .sheet import policy_sheet
    from .statistics import (
        Correlation,
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
        rank_correlation,
        seeds_needed,
        verdict,
    )
    from .surrogate import surrogate_quality
    from .tabulate import Tabulation, analyse_tabulation, write_tabulation

_NAMES = {
    "compare": ("Comparison", "compare_arms", "write_comparison"),
    "composition": (
        "PolicyStatistics", "batch_entropies", "histogram_overlap", "policy_statistics",
        "policy_table",
    ),
    "draws": ("Draws", "Replication", "analyse_replication"),
    "examples": ("example_images",),
    "fidelity": ("Fidelity", "analyse_fidelity", "write_fidelity"),
    "html": ("page", "write_reports"),
    "race": ("Race", "analyse_race", "write_race"),
    "randaugment": ("Grid", "analyse_grid", "write_grid"),
    "rederive": ("write_rederivation",),
    "replicate": ("write_replication",),
    "report": ("report_of", "write_any"),
    "runs": ("Run", "load_run"),
    "search": ("write_report",),
    "sheet": ("policy_sheet",),
    "statistics": (
        "Correlation", "Difference", "Estimate", "NoiseFloor", "arm_difference", "holm",
        "mean_interval", "minimum_detectable_difference", "noise_floor", "paired_difference",
        "probability_of_improvement", "rank_correlation", "seeds_needed", "verdict",
    ),
    "surrogate": ("surrogate_quality",),
    "tabulate": ("Tabulation", "analyse_tabulation", "write_tabulation"),
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
    "write_any",
    "write_comparison",
    "write_fidelity",
    "write_grid",
    "write_race",
    "write_rederivation",
    "write_replication",
    "write_report",
    "write_reports",
    "write_tabulation",
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
