"""Charts for a page: matplotlib's SVG, made to follow the page's colours and to tell its points.

matplotlib has no hover texts. Pictures give a point's text as its link (`drawing.told`), which only
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

from . import drawing
from .document import Picture
from .drawing import BLUE, GREEN, GREY, GRID, ORANGE, TOLD

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


def inline(picture: Picture, place: int = 0) -> list[str]:
    """The picture as <svg> elements for a page, text as text: one, or a broad and a narrow one.

    An element has a title, and so has every point that was told.

    Args:
        picture: what to draw.
        place: another for every picture of a page.
    """
    broad = _drawn(picture, f"{place} broad")
    with drawing.narrow():
        narrow = _drawn(picture, f"{place} narrow")
    found = {"broad": broad, "narrow": narrow}
    if _width(broad) <= _width(narrow):
        found = {"": broad}
    return [_finished(root, look, picture.alt) for look, root in found.items()]


def _drawn(picture: Picture, salt: str) -> ElementTree.Element:
    # The same chart is the same text, whenever it is drawn; but no two charts of a page share the
    # names of hatches and clip paths: browsers do not find those of a chart that is hidden.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": salt}
    with tempfile.TemporaryDirectory() as folder, matplotlib.rc_context(settings):
        return ElementTree.parse(picture.draw(Path(folder) / "picture.svg")).getroot()


def _width(root: ElementTree.Element) -> float:
    """In inches."""
    return float(root.attrib["width"].removesuffix("pt")) / 72


def _finished(root: ElementTree.Element, look: str, alt: str) -> str:
    """As it stands in a page; `look` is its class."""
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
    width = _width(root)
    del root.attrib["width"], root.attrib["height"]
    least = "" if look == "narrow" else f"; min-width: min(34rem, {width:.2f}in)"
    root.attrib |= {"style": f"max-width: {width:.2f}in{least}", "role": "img", "class": look}
    root.insert(0, _title(alt))
    return ElementTree.tostring(root, encoding="unicode")


def _coloured(match: re.Match[str]) -> str:
    return _COLOURS.get(match.group(), match.group())


def _title(text: str) -> ElementTree.Element:
    title = ElementTree.Element(f"{_SVG}title")
    title.text = text
    return title
