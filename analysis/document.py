"""What a report consists of, whatever it is written as: sections of words, tables and pictures.

Every kind of run makes a `Report` (report.py); `write_report` puts it into the run's folder as
Markdown with its pictures and tables beside it, html.py makes one page of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from policies.augmentations import Augmentation
from policies.files import write_atomically

from . import tables
from .runs import Run


@dataclass(frozen=True)
class Text:
    """A paragraph. What stands between two backticks is code."""

    text: str


@dataclass(frozen=True)
class Sentences:
    """A list of sentences that stand for themselves."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of formatted cells, and a line about it."""

    frame: pd.DataFrame
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A chart. `draw(path)` writes it in the format of the path's ending (.png or .svg)."""

    name: str
    alt: str
    draw: Callable[[Path], Path]


@dataclass(frozen=True)
class Code:
    """Text to copy, in a language ("python", "json", "console")."""

    text: str
    language: str


@dataclass(frozen=True)
class Gallery:
    """What an augmentation does to images of the task; pages show it, Markdown does not."""

    augmentation: Augmentation
    about: str = ""


@dataclass(frozen=True)
class Part:
    """The report of a run inside this run's folder: a page folds it, Markdown links to it."""

    report: Report


Block = Text | Sentences | Table | Picture | Code | Gallery | Part


@dataclass(frozen=True)
class Section:
    """Blocks under a title; `details` are for reference: a page folds them."""

    title: str
    blocks: tuple[Block, ...]
    details: bool = False


@dataclass(frozen=True)
class Report:
    """The report of one run.

    Attributes:
        title: of the document.
        run: what it reports.
        name: of the Markdown file in the run's folder.
        sections: in order; the first may have no title and says what was found.
        data: tables in full, by the name of their CSV file.
        text: what was found, for a terminal of 80 columns; empty as long as there is nothing.
        further: writes what else there is into the run's folder.
    """

    title: str
    run: Run
    name: str
    sections: tuple[Section, ...]
    data: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    text: str = ""
    further: Callable[[Path], object] | None = None

    @property
    def path(self) -> Path:
        """Of the Markdown file."""
        return self.run.directory / self.name

    @property
    def found(self) -> tuple[str, ...]:
        """What was found, in sentences: those of the section without a title."""
        lines: list[str] = []
        for block in (block for part in self.sections if not part.title for block in part.blocks):
            if isinstance(block, Text):
                lines.append(block.text)
            elif isinstance(block, Sentences):
                lines += block.lines
        return tuple(lines)


def section(title: str, *blocks: Block | None, details: bool = False) -> Section:
    """A section of those blocks that are there."""
    return Section(title, tuple(block for block in blocks if block is not None), details)


def write_report(report: Report) -> Path:
    """Write the Markdown file, its pictures and its other files, and those of its parts.

    Returns the Markdown's path.
    """
    directory = report.run.directory
    for block in (block for part in report.sections for block in part.blocks):
        if isinstance(block, Picture):
            block.draw(directory / f"{block.name}.png")
        elif isinstance(block, Part):
            write_report(block.report)
    write_data(report)
    if report.further:
        report.further(directory)
    return tables.write_text(report.path, markdown(report))


def write_data(report: Report) -> None:
    """Write its tables in full, and nothing else."""
    for name, frame in report.data.items():
        csv = frame.to_csv(index=frame.index.name is not None)
        write_atomically(report.run.directory / name, csv)


def markdown(report: Report) -> str:
    """The report as GitHub shows it."""
    parts = [f"# {report.title}"]
    for part in report.sections:
        blocks = [text for block in part.blocks if (text := _markdown(block, report))]
        if blocks:
            parts += [f"## {part.title}"] * bool(part.title) + blocks
    return "\n\n".join(parts)


def _markdown(block: Block, report: Report) -> str:
    match block:
        case Text(text):
            return text
        case Sentences(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Table(frame, note):
            return "\n\n".join([tables.markdown(frame)] + [note] * bool(note))
        case Picture(name, alt, _):
            return f"![{alt}]({name}.png)"
        case Code(text, language):
            return f"```{language}\n{text.strip()}\n```"
        case Gallery():
            return ""
        case Part(part):
            place = Path(os.path.relpath(part.path, report.run.directory)).as_posix()
            return f"[{part.title}]({place})"
