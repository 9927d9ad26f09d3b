"""Reports as one page that needs nothing else: no network, no other file.

The page is made from the same `Report` as the Markdown, through the templates beside this module.
Whatever comes from a user or a folder is escaped by the template engine.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from policies.errors import InputError
from policies.files import write_atomically

from . import gallery, sections, svg
from .document import Gallery, Picture, Report, Table, write_report
from .examples import task_images
from .report import report_of

PAGE_NAME = "report.html"
# What a page says it was written by: a file that does not is never written over.
GENERATOR = '<meta name="generator" content="augsearch">'
IMAGES = 6  # columns of a gallery
CONCLUSIONS = ("compare", "replicate", "race")  # kinds of runs that a summary begins with


def page(directories: Sequence[str | Path]) -> str:
    """The page of one or several runs.

    Raises InputError for a folder that is no run.
    """
    return _page([report_of(directory) for directory in directories])


def _page(reports: Sequence[Report]) -> str:
    names = [report.run.directory.resolve().name for report in reports]
    title = reports[0].title if len(reports) == 1 else f"{len(reports)} runs"
    named = list(zip(names, reports, range(1, len(reports) + 1), strict=True))
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            reports=named,
            # What was compared is what readers of several runs want to know first.
            summary=sorted(named, key=lambda each: each[1].run.kind not in CONCLUSIONS),
            generator=Markup(GENERATOR),
        )
    )


def write_reports(directories: Sequence[str | Path], out: str | Path | None = None) -> list[Path]:
    """Write the report of every run as Markdown, and one page of all; return their paths.

    Args:
        directories: run folders.
        out: the page; see `place_of_page`.

    Raises:
        InputError: for a folder that is no run, or where no page may be written; then nothing is.
    """
    place = place_of_page(directories, out)
    reports = [report_of(directory) for directory in directories]
    paths = [write_report(report) for report in reports]
    write_atomically(place, _page(reports))
    return [*paths, place]


def place_of_page(directories: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Where the page of these runs goes.

    Args:
        directories: run folders.
        out: file to write; default: report.html in the run's folder, of several runs in the
            folder that all of them lie in.

    Raises:
        InputError: unless a page can be written there: a new file, or in the place of a page.
    """
    places = [Path(directory) for directory in directories]
    if out is not None:
        path = Path(out)
    elif len(places) == 1:
        path = places[0] / PAGE_NAME
    else:
        path = Path(os.path.commonpath([place.absolute().parent for place in places])) / PAGE_NAME
    if out is not None and not path.parent.is_dir():
        raise InputError("out", "must lie in an existing folder", str(path), "create it first")
    if path.is_dir() or (path.is_file() and GENERATOR not in _beginning(path)):
        raise InputError(
            "out", "must be a new file, or a page of augsearch", str(path), "choose another name"
        )
    return path


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1000).decode("utf-8", "replace")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures: dict[Path, tuple[np.ndarray, str]] = {}
    places = itertools.count()

    @pass_context
    def shown(context: Context, block: Gallery) -> dict[str, Any]:
        """What the template needs to show an augmentation on images of the run's task."""
        run = context["report"].run
        if run.directory not in pictures:
            pictures[run.directory] = task_images(run, IMAGES)
        images, about = pictures[run.directory]
        rows, remark = gallery.rows(block.augmentation, images)
        words = " ".join(text for text in (block.about, remark, about) if text)
        return {"about": words, "rows": [gallery.originals(images), *rows] if rows else []}

    def chart(picture: Picture) -> Markup:
        """The picture as SVG elements, whose texts the SVG writer has escaped."""
        return Markup("\n".join(svg.inline(picture, next(places))))

    environment.filters |= {
        "prose": prose,
        "chart": chart,
        "cells": cells,
        "shown": shown,
        "about": sections.about,
        "kind_of": lambda block: type(block).__name__,
        "asset": _asset,
    }
    return environment


def _asset(name: str) -> Markup:
    """A file of this package, as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def prose(text: str) -> Markup:
    """Escaped text; what stands between two backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def cells(table: Table) -> dict[str, Any]:
    """Heads and rows of text; which columns hold numbers."""
    frame = table.frame.astype(object).where(table.frame.notna(), "").astype(str)
    number = re.compile(r"\[?(< )?[+−–-]?\d|–?$")
    numeric = [
        bool(len(values)) and all(number.match(v) and len(v) <= 24 for v in values)
        for _, values in frame.items()
    ]
    heads = list(zip(map(str, frame.columns), numeric, strict=True))
    rows = [list(zip(row, numeric, strict=True)) for row in frame.itertuples(index=False)]
    return {"heads": heads, "rows": rows, "facts": list(frame) == ["what", "value"]}
