"""Charts for a page: matplotlib's SVG, made to follow the page's colours and to tell its points.

matplotlib has no hover texts. Pictures give a point's text as its link (`plots.told`), which only
the SVG writer reads; here the links become titles.
"""

from __future__ import annotations

import re
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import matplotlib

from .document import Picture
from .plots import BLUE, GREEN, GREY, GRID, ORANGE, TOLD

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", _SVG[1:-1])
ElementTree.register_namespace("xlink", _LINK[1 : _LINK.index("}")])

# Colours that a page has in a light and a dark form.
_COLOURS = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    GRID: "var(--grid)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    GREY: "var(--grey)",
}


def inline(picture: Picture) -> str:
    """The picture as an <svg> element for a page; text stays text.

    The element has a title, and so has every point that was told.
    """
    # The same chart is the same text, whenever it is drawn; and clip paths of several charts in
    # one page have the same name only where they are the same.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": picture.name}
    with tempfile.TemporaryDirectory() as folder, matplotlib.rc_context(settings):
        root = ElementTree.parse(picture.draw(Path(folder) / "picture.svg")).getroot()
    for element in root.iter():
        style = element.get("style")
        if style:
            element.set("style", re.sub(r"#[0-9a-f]{6}", _coloured, style))
        if element.tag in (f"{_SVG}g", f"{_SVG}text"):
            element.attrib.pop("id", None)  # charts in one page would share them
        if element.tag == f"{_SVG}a":
            text = unquote(element.attrib.pop(_LINK).removeprefix(TOLD))
            element.tag = f"{_SVG}g"
            element.set("class", "point")
            element.insert(0, _title(text))
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    width = float(root.attrib.pop("width").removesuffix("pt")) / 72
    root.attrib.pop("height")
    root.set("style", f"max-width: {width:.2f}in; min-width: min(34rem, {width:.2f}in)")
    root.set("role", "img")
    root.insert(0, _title(picture.alt))
    return ElementTree.tostring(root, encoding="unicode")


def _coloured(match: re.Match[str]) -> str:
    return _COLOURS.get(match.group(), match.group())


def _title(text: str) -> ElementTree.Element:
    title = ElementTree.Element(f"{_SVG}title")
    title.text = text
    return title
