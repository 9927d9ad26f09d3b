"""Fills the tables from where operations, options and formats are declared (a hook of MkDocs).

    python docs/tables.py

writes those between `<!-- NAME -->` and `<!-- end -->` into the pages, for who reads them there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis.gallery import written  # noqa: E402
from policies.formats import FORMATS  # noqa: E402
from policies.ops import CONVENTIONS, OPS, PAPER_OPS, Scale  # noqa: E402
from search.studies.kinds import KINDS, default_text, described, options_of_kind  # noqa: E402


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for every page, before Markdown becomes HTML."""
    filled = re.sub(r"<!-- (\w+) -->.*?<!-- end -->", _filled, markdown, flags=re.DOTALL)
    # Notebooks are shown by GitHub and Jupyter; the site has none.
    return re.sub(r"\[([^]]+)\]\(\.\./(notebooks/[^)]+)\)", r"\1 (`\2`)", filled)


def _filled(match: re.Match[str]) -> str:
    name = match.group(1)
    return f"<!-- {name} -->\n\n{TABLES[name]()}\n\n<!-- end -->"


def operations() -> str:
    rows = [
        [
            name if name in PAPER_OPS else f"{name} (not in the paper's space)",
            *(_scale(convention.scale(name)) for convention in CONVENTIONS.values()),
        ]
        for name in OPS
    ]
    return _table(["operation", *CONVENTIONS], rows)


def sources() -> str:
    rows = [[name, op.severity, op.source] for name, op in OPS.items()]
    return _table(["operation", "strength", "source"], rows)


def conventions() -> str:
    rows = [
        [name, f"0..{c.bins - 1}", f"index / {c.steps}", c.source]
        for name, c in CONVENTIONS.items()
    ]
    return _table(["convention", "indices", "way along the scale", "source"], rows)


def compared(index: int = 9, side: int = 224) -> str:
    """What one index means, by operation and convention."""
    rows = [
        [
            name,
            *(
                written(name, convention.parameter(name, index, False, side, side))
                for convention in CONVENTIONS.values()
            ),
        ]
        for name in PAPER_OPS
        if OPS[name].has_magnitude
    ]
    return _table(["operation", *CONVENTIONS], rows)


def formats() -> str:
    rows = [[f"`{name}`", form.carries, form.loses] for name, form in FORMATS.items()]
    return _table(["format", "carries", "cannot carry, or does otherwise"], rows)


def options() -> str:
    """What several kinds of run have alike, then a section for each kind with what it alone has."""
    kinds: dict[tuple[str, ...], list[str]] = {}  # by row
    for kind in KINDS:
        for section, declared in options_of_kind(kind):
            row = (
                f"`--{declared.name.replace('_', '-')}`",
                f"`{section}.{declared.field}`",
                *map(_cell, (declared.option.unit, default_text(declared), described(declared))),
            )
            kinds.setdefault(row, []).append(kind)
    head = ["option", "in a file", "unit", "default", "what it is"]
    shared = [(*row, _named(those)) for row, those in kinds.items() if len(those) > 1]
    sections = [f"## Of several kinds\n\n{_table([*head, 'kinds'], shared)}"]
    for kind in KINDS:
        own = [row for row, those in kinds.items() if those == [kind]]
        sections.append(f"## {kind}\n\n{_table(head, own)}")
    return "\n\n".join(sections)


def _named(kinds: list[str]) -> str:
    others = [kind for kind in KINDS if kind not in kinds]
    return ", ".join(kinds) if len(kinds) <= len(others) else f"all but {', '.join(others)}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def _scale(scale: Scale | None) -> str:
    if scale is None:
        return "–"
    sign = "±" if scale.signed else ""
    rounding = "" if scale.rounding == "none" else f", {scale.rounding}"
    return f"{scale.low:.4g} … {sign}{scale.high:.4g} {scale.unit}{rounding}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), ["---"] * len(list(head)), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


TABLES = {
    "operations": operations,
    "sources": sources,
    "conventions": conventions,
    "compared": compared,
    "options": options,
    "formats": formats,
}

if __name__ == "__main__":
    for path in Path(__file__).parent.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        if "<!-- end -->" in text:
            path.write_text(on_page_markdown(text), encoding="utf-8")
