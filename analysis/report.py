"""`augsearch report`: the right report for any run folder."""

from __future__ import annotations

from pathlib import Path

from .compare import write_comparison
from .fidelity import write_fidelity
from .randaugment import write_grid
from .runs import load_run
from .search import write_report


def write_any(directory: str | Path) -> Path:
    """Write (again) the report of a run folder and return its path.

    The kind of run stands in its config.json; a search names none.
    """
    directory = Path(directory)
    kind = load_run(directory).config.get("kind")
    if kind == "compare":
        write_comparison(directory)
        return directory / "compare.md"
    if kind == "randaugment":
        write_grid(directory)
        return directory / "grid.md"
    if kind == "fidelity":
        write_fidelity(directory)
        return directory / "fidelity.md"
    return write_report(directory)
