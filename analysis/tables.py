"""Tables as Markdown, and the words for numbers that all reports share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from policies.files import write_atomically

WIDTH = 80  # columns of a terminal
PROSE = 40  # characters: longer cells are text and stand on the left


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table of already formatted cells; missing values are left empty."""
    cells = table.astype(object).where(table.notna(), "")
    wide = [bool((cells[name].astype(str).str.len() > PROSE).any()) for name in cells]
    sides = [
        "left" if first or text else "right"
        for first, text in zip([True] + [False] * len(wide), wide, strict=False)
    ]
    cells = cells.map(lambda cell: cell.replace("|", r"\|") if isinstance(cell, str) else cell)
    # disable_numparse: a formatted cell such as "0.50" stays as it was written.
    return cells.to_markdown(index=False, disable_numparse=True, colalign=sides)


def plain(table: pd.DataFrame, width: int = WIDTH) -> str:
    """The table for a terminal: the first column is cut in the middle where `width` asks for it."""
    first, *others = ([str(name), *table[name].astype(str)] for name in table)
    right = [[text.rjust(max(map(len, column))) for text in column] for column in others]
    room = max(8, width - sum(len(column[0]) + 2 for column in right))
    names = [shortened(text, room) for text in first]
    left = [text.ljust(max(map(len, names))) for text in names]
    rows = ["  ".join(row).rstrip() for row in zip(left, *right, strict=True)]
    rule = "-" * max(map(len, rows))
    return "\n".join([rows[0], rule, *rows[1:]])


def shortened(text: str, room: int) -> str:
    """At most `room` characters of `text`, both ends kept."""
    if len(text) <= room:
        return text
    head = (room - 1) // 2
    return f"{text[:head]}…{text[len(text) - (room - 1 - head) :]}"


def wrapped(sentences: Iterable[str]) -> str:
    """Sentences as a list for a terminal."""
    return "\n".join(
        textwrap.fill(s, WIDTH, initial_indent="- ", subsequent_indent="  ") for s in sentences
    )


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """`value` with `digits` decimals; a value that does not exist is a dash."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def numbers(values: Iterable[float], digits: int = 2, sign: bool = False) -> list[str]:
    """`number` of each."""
    return [number(value, digits, sign) for value in values]


def interval(low: float, high: float, digits: int = 2, sign: bool = False) -> str:
    """`[low, high]`, or a dash when there is none."""
    if low is None or high is None or not (np.isfinite(low) and np.isfinite(high)):
        return "–"
    return f"[{number(low, digits, sign)}, {number(high, digits, sign)}]"


def intervals(
    lows: Iterable[float], highs: Iterable[float], digits: int = 2, sign: bool = False
) -> list[str]:
    """`interval` of every two."""
    return [interval(*ends, digits, sign) for ends in zip(lows, highs, strict=True)]


def share(value: float) -> str:
    """A share of 1 in whole percent."""
    return f"{100 * value:.0f} %" if np.isfinite(value) else "–"


def part(value: float) -> str:
    """A share of 1 as what it divides by: 1/9.5."""
    return f"1/{1 / value:.1f}" if value > 0 else "–"


def measure(name: str) -> str:
    """A metric's name where there is little room."""
    short = {"log_likelihood": "log-lik.", "calibrated_log_likelihood": "calibrated"}
    return short.get(name, name)


def about(count: int, most: int) -> str:
    """A number that was counted up to `most`."""
    return f"about {count}" if count < most else f"more than {most:,}"


def p_value(p: float) -> str:
    if not np.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_clause(p: float) -> str:
    """What stands after "p" in a sentence: "= 0.020", "< 0.001"."""
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader would choose."""
    if not np.isfinite(seconds):
        return "–"
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def policy(policy: object) -> str:
    """A policy on one line, sub-policies joined by ';'."""
    if not isinstance(policy, tuple):
        return "none" if policy is None else str(policy)
    return "; ".join(
        " + ".join(
            f"{name} {probability:g}" + ("" if magnitude is None else f" {magnitude}")
            for name, probability, magnitude in sub
        )
        for sub in policy
    )


def write_text(path: str | Path, text: str) -> Path:
    """Write a report file as UTF-8 with one line end at its end."""
    path = Path(path)
    write_atomically(path, text.rstrip("\n") + "\n")
    return path
