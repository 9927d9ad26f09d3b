from . import plots, tables
from .compare import Comparison, compare_arms
from .composition import (
    PolicyStatistics,
    batch_entropies,
    histogram_overlap,
    policy_statistics,
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
