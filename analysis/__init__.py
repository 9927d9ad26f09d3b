"""Reads run folders and policies; tables, statistics, pictures, reports. Never trains."""

from .compare import Comparison, compare_arms, write_comparison
from .composition import (
    PolicyStatistics,
    batch_entropies,
    histogram_overlap,
    policy_statistics,
    policy_table,
)
from .examples import example_images
from .fidelity import Fidelity, analyse_fidelity, write_fidelity
from .randaugment import Grid, analyse_grid, write_grid
from .rederive import write_rederivation
from .report import write_any
from .runs import Run, load_run
from .search import write_report
from .sheet import policy_sheet
from .statistics import (
    Correlation,
    Difference,
    Estimate,
    NoiseFloor,
    holm,
    mean_interval,
    minimum_detectable_difference,
    noise_floor,
    paired_difference,
    rank_correlation,
    seeds_needed,
)

__all__ = [
    "Comparison",
    "Correlation",
    "Difference",
    "Estimate",
    "Fidelity",
    "Grid",
    "NoiseFloor",
    "PolicyStatistics",
    "Run",
    "analyse_fidelity",
    "analyse_grid",
    "batch_entropies",
    "compare_arms",
    "example_images",
    "histogram_overlap",
    "holm",
    "load_run",
    "mean_interval",
    "minimum_detectable_difference",
    "noise_floor",
    "paired_difference",
    "policy_sheet",
    "policy_statistics",
    "policy_table",
    "rank_correlation",
    "seeds_needed",
    "write_any",
    "write_comparison",
    "write_fidelity",
    "write_grid",
    "write_rederivation",
    "write_report",
]
