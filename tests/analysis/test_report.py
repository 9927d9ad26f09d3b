from __future__ import annotations

import pytest

from analysis.report import write_any
from policies import InputError
from tests.analysis.journals import journal_line


@pytest.mark.parametrize("kind", ["compare", "randaugment", "fidelity"])
@pytest.mark.parametrize("rows", [[], [journal_line(0, 0, None)]])
def test_a_study_without_results_says_so(write_run, kind, rows):
    with pytest.raises(InputError, match="resume it first"):
        write_any(write_run(rows, {"kind": kind}))


@pytest.mark.parametrize(
    ("kind", "line", "name"),
    [
        (None, journal_line(0, 0), "report.md"),
        ("select", journal_line(0, 0, label="best-5"), "report.md"),
        ("compare", journal_line(0, 0, label="none", part="test"), "compare.md"),
        ("randaugment", journal_line(0, 0, label="N=1 M=5"), "grid.md"),
    ],
)
def test_the_kind_of_run_decides_on_the_report(write_run, kind, line, name):
    directory = write_run([line], {"kind": kind})
    assert write_any(directory) == directory / name
    assert (directory / name).stat().st_size > 0
