"""What a report is made of, as Markdown."""

from __future__ import annotations

import pandas as pd

from analysis import tables


def test_a_bar_in_a_cell_ends_no_cell():
    table = pd.DataFrame({"error": ["wanted int | None", "other"], "times": ["2", "1"]})
    head, _, first, _ = tables.markdown(table).splitlines()
    assert first.replace(r"\|", "").count("|") == head.count("|") == 3
    assert r"int \| None" in first
