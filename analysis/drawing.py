"""What all pictures share: canvas, colours, legend, hover texts, and how a file is written.

Figures are built with the object interface, so that importing this module changes no global state
of matplotlib. Colours are Okabe and Ito's, told apart by the colour-blind too; what they say is
said again by markers, lines or hatches.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from policies.files import write_atomically

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8c8c8c"
GRID = "#e6e6e6"
# Not black and white themselves: these stay as they are on any page (svg.py).
DARK, LIGHT = "#111111", "#fefefe"
# Of many evaluators, which have a letter too.
PALETTE = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00", "#7a6a3a", "#5d5d9c")
DPI = 130
TOLD = "#told:"
NARROW = 4.4  # inches
LETTERS = 110  # of one point that are sure to fit in an inch
_widest = contextvars.ContextVar("_widest", default=math.inf)


def broad() -> bool:
    """Whether there is more room than a telephone has."""
    return _widest.get() > NARROW


def told(texts: Iterable[str]) -> list[str]:
    """What points say when they are hovered over, for `set_urls`; a PNG cannot show it."""
    return [TOLD + quote(text) for text in texts]


def literal(text: str) -> str:
    """Text that somebody chose: dollars are no mathematics."""
    return text.replace("$", r"\$")


def canvas(width: float, height: float, **grid: Any) -> tuple[Figure, Any]:
    """A figure of so many inches, a telephone's at most, and its axes; `grid`: for `subplots`."""
    figure = blank(width, height)
    axes = figure.subplots(**grid)
    plain(axes)
    return figure, axes


def blank(width: float, height: float) -> Figure:
    """A figure without axes."""
    figure = Figure(figsize=(min(width, _widest.get()), height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Any) -> None:
    """Axes without a box, with a grid behind what is drawn."""
    for axis in np.atleast_1d(axes).flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)


@contextlib.contextmanager
def narrow() -> Iterator[None]:
    """Within it, pictures are drawn for telephones, as wide as they can be."""
    token = _widest.set(NARROW)
    try:
        yield
    finally:
        _widest.reset(token)


def legend(figure: Figure, handles: Mapping[str, Any] | None = None) -> None:
    """Below the figure, in as many columns as there is room for; of all that has a label."""
    given = () if handles is None else (list(handles.values()), list(handles))
    columns = 3 if broad() else 1
    figure.legend(*given, frameon=False, loc="outside lower center", ncols=columns, fontsize=9)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure in the format of the path's ending, long words broken; return the path."""
    path = Path(path)
    # Words go on the next line where the figure ends; they stand around the middle of the axes.
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    for axis in figure.axes:
        middle = axis.get_position().x0 / 2 + axis.get_position().x1 / 2
        room = LETTERS * figure.get_figwidth() * 2 * min(middle, 1 - middle)
        for text in (axis.title, axis.xaxis.label):
            letters = max(12, int(room / float(text.get_fontsize())))
            text.set_text(textwrap.fill(text.get_text(), letters))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI, format=path.suffix[1:].lower() or "png")
    write_atomically(path, drawn.getvalue())
    return path
