"""The notebooks run from top to bottom, and what comes out is what is committed.

`make golden` (or AUGSEARCH_WRITE_GOLDEN=1 with these tests) writes the outputs anew; look at them.

Words must be equal. How near a number must come is said by the tag of its cell:

    none        to within 0.2 %: exact sums and draws, of which libraries round the last digit
    within-X    X besides: what follows from children that were trained. Processors and releases of
                torch round sums otherwise, and hundreds of steps make of that what another seed
                would: X is some times the scatter between seeds
    chosen      shows what was chosen by such numbers, a policy or a verdict: where rounding made
                another choice, other words and numbers are right, but not none, or other kinds
"""

from __future__ import annotations

import base64
import copy
import io
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.cli.main import main
from search.engine.pool import folders

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
WRITE = "AUGSEARCH_WRITE_GOLDEN"
RUNS = ("first-search", "own-images", "randaugment-grid")  # these begin runs
NAMES = (*RUNS, "anatomy-of-a-policy", "racing-searchers", "rederive-imagenet")
MOST_BYTES = 400_000
PNG, CHOSEN, WITHIN = "image/png", "chosen", "within-"
NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
RELATIVE = 0.002
# What is run before the first cell, where a notebook begins runs: results and folders are the same
# without Ray, which would cost more than the notebook.
WITHOUT_RAY = """from search.engine import loop
from tests.search.fakes import InProcessPool
loop.WorkerPool = InProcessPool()"""
# Of pictures: how much smaller or larger, and by how many of 255 greys 16 x 16 parts may differ.
SIZE, GREYS, GREYS_TRAINED = 0.1, 6, 128


def read(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def text_of(value: Any) -> str:
    return " ".join("".join(value).split())  # columns are padded to the widest number


def picture_of(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


# Comparing ---------------------------------------------------------------------------------------


def complaints(committed: Any, executed: Any) -> list[str]:
    """What is otherwise in the executed notebook, one line each."""
    said = []
    for number, (old, new) in enumerate(zip(committed.cells, executed.cells, strict=True)):
        tags = old.metadata.get("tags", [])
        before, after = (list(map(contents, cell.get("outputs", []))) for cell in (old, new))
        kinds, made = ([list(each) for each in outputs] for outputs in (before, after))
        if kinds != made:
            said.append(f"cell {number}: {made} for {kinds}")
            continue
        for one, other in zip(before, after, strict=True):
            for kind in one:
                differs = picture_differs if kind == PNG else text_differs
                reason = differs(one[kind], other[kind], tags)
                said += [f"cell {number}, {kind}: {reason}"] if reason else []
    return said


def contents(output: Any) -> dict[str, Any]:
    """Kind -> content of an output."""
    if output.output_type in ("display_data", "execute_result"):
        return {kind: output.data[kind] for kind in sorted(output.data)}
    if output.output_type == "stream":
        return {output.name: output.text}
    return {output.output_type: output.evalue}


def text_differs(one: str, other: str, tags: list[str]) -> str:
    one, other = text_of(one), text_of(other)
    if CHOSEN in tags:
        return "" if len(other) > len(one) / 3 else f"{other!r} for {one!r}"
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return f"{other!r} for {one!r}"
    absolute = sum(float(tag.removeprefix(WITHIN)) for tag in tags if tag.startswith(WITHIN))
    for pair in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True):
        was, now = (float(text.replace("−", "-")) for text in pair)
        if abs(now - was) > absolute + RELATIVE * abs(was):
            return f"{now} for {was} in {other!r}"
    return ""


def picture_differs(one: str, other: str, tags: list[str]) -> str:
    old, new = (
        Image.open(io.BytesIO(base64.b64decode(each))).convert("L") for each in (one, other)
    )
    if np.asarray(new).std() < 5:
        return "is blank"
    if CHOSEN in tags:
        return ""
    if any(abs(a - b) > SIZE * a for a, b in zip(old.size, new.size, strict=True)):
        return f"has {new.size} pixels for {old.size}"
    parts = [np.asarray(each.resize((16, 16)), float) for each in (old, new)]
    greys = np.abs(parts[0] - parts[1]).max()
    most = GREYS_TRAINED if tags else GREYS
    return f"differs by {greys:.0f} greys" if greys > most else ""


# Executing ---------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_is_what_is_committed(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    committed = read(name)
    executed = copy.deepcopy(committed)
    if name in RUNS:
        executed.cells.insert(0, nbformat.v4.new_code_cell(WITHOUT_RAY))
    nbclient.NotebookClient(
        executed,
        timeout=600,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    del executed.cells[: len(executed.cells) - len(committed.cells)]
    if os.environ.get(WRITE):
        write(name, executed)
        return
    assert complaints(committed, executed) == []


def write(name: str, book: Any) -> None:
    """The notebook with small pictures, and without what changes from one time to the next."""
    book.metadata["language_info"] = {"name": "python"}
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
            if PNG in output.get("data", {}):
                output.data[PNG] = small(output.data[PNG])
    nbformat.write(book, NOTEBOOKS / f"{name}.ipynb")


def small(picture: str) -> str:
    file = io.BytesIO()
    colours = picture_of(picture).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    colours.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def test_workers_of_a_notebook_find_what_is_installed(monkeypatch):
    """Ray's workers search the folder of a user's script last; a kernel is a script too."""
    installed = Path(np.__file__).parent.parent
    monkeypatch.setattr("sys.argv", [str(installed / "ipykernel_launcher.py")])
    monkeypatch.delattr("__main__.__file__", raising=False)
    assert str(installed) not in folders()[1]


# What is committed -------------------------------------------------------------------------------


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_those_that_begin_runs_are_known(name):
    code = "".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
    assert bool(re.search(r"run_(?!race)\w+\(", code)) == (name in RUNS)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_committed_with_outputs_that_github_shows(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < MOST_BYTES
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum(PNG in output.get("data", {}) for output in outputs) >= 3
    shown = [contents(output) for output in outputs]
    assert {kind for each in shown for kind in each} <= {PNG, "stdout", "text/html", "text/plain"}
    for kind, text in (item for each in shown for item in each.items() if item[0] != PNG):
        assert "<script" not in text, kind
        assert "Warning" not in text and str(Path.home()) not in text and "/tmp/" not in text


@pytest.mark.parametrize("name", NAMES)
def test_its_links_and_commands_lead_somewhere(name):
    text = "\n\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert (NOTEBOOKS / link).exists(), link
    commands = re.findall(r"^ {4,}(augsearch .*)$", text.replace("\\\n", " "), re.MULTILINE)
    for command in commands + re.findall(r"`(augsearch \w+ -[^`]*)`", text):
        kind, *arguments = shlex.split(command)[1:]
        with main.commands[kind].make_context(kind, arguments):
            pass


def test_two_clicks_lead_from_the_readme_to_every_notebook():
    page = (ROOT / "docs/notebooks.md").read_text(encoding="utf-8")
    assert "(docs/notebooks.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"(../notebooks/{name}.ipynb)" not in page] == []


# The comparison itself ---------------------------------------------------------------------------


def book(*outputs: Any, tags: tuple[str, ...] = ()) -> Any:
    cell = nbformat.v4.new_code_cell("x", outputs=list(outputs), metadata={"tags": list(tags)})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("word"), cell])


def printed(text: str) -> Any:
    return nbformat.v4.new_output("stream", text=text)


def pictured(shade: Callable[[int, int], float], size: tuple[int, int] = (90, 60)) -> Any:
    array = np.fromfunction(np.vectorize(shade), size[::-1]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    data = {PNG: base64.b64encode(file.getvalue()).decode("ascii"), "text/plain": "<Figure>"}
    return nbformat.v4.new_output("display_data", data)


def rising(y: int, x: int) -> float:
    return 2.5 * x


@pytest.mark.parametrize(
    ("one", "other", "tags", "same"),
    [
        ("found  58.33 %\n", "found 58.34 %", (), True),
        ("found 58.33 %", "found 58.53 %", (), False),
        ("found 58.33 %", "found 60.3 %", ("within-3",), True),
        ("found 58.33 %", "found 62.3 %", ("within-3",), False),
        ("lead −1.2", "lead +1.3", ("within-3",), True),
        ("lead −1.2", "lead +1.3", (), False),
        ("thompson is better", "thompson is worse", ("within-3",), False),
        ('("Rotate", 0.6, 9)', '("Invert", 0.2, None)', ("chosen",), True),
        ('("Rotate", 0.6, 9)', "", ("chosen",), False),
        ("one 1\ntwo 2", "one 1", (), False),
    ],
)
def test_words_are_equal_and_numbers_near(one, other, tags, same):
    found = complaints(book(printed(one), tags=tags), book(printed(other), tags=tags))
    assert (found == []) == same


@pytest.mark.parametrize(
    ("other", "tags", "same"),
    [
        (pictured(lambda y, x: 2.5 * x + 3), (), True),
        (pictured(lambda y, x: 225 - 2.5 * x), (), False),
        (pictured(lambda y, x: 225 - 2.5 * x), ("within-1",), False),
        (pictured(lambda y, x: 225 - 2.5 * x, (120, 60)), ("chosen",), True),
        (pictured(lambda y, x: 2.5 * x + 20), (), False),
        (pictured(lambda y, x: 2.5 * x + 20), ("within-1",), True),
        (pictured(lambda y, x: 255), ("chosen",), False),
        (pictured(rising, (90, 80)), (), False),
        (printed("<Figure>"), (), False),
    ],
)
def test_pictures_are_there_and_alike(other, tags, same):
    found = complaints(book(pictured(rising), tags=tags), book(other, tags=tags))
    assert (found == []) == same


@pytest.mark.parametrize("name", NAMES)
def test_a_tampered_notebook_is_told(name):
    """Every output of every notebook, taken away, put twice or blanked."""
    committed = read(name)
    assert complaints(committed, committed) == []
    for cell in committed.cells:
        one = nbformat.v4.new_notebook(cells=[cell])
        for place in range(len(cell.get("outputs", []))):
            for tamper in (take_away, put_twice, spoil):
                changed = copy.deepcopy(one)
                tamper(changed.cells[0].outputs, place)
                assert complaints(one, changed) != [], (cell.source, place, tamper)


def take_away(outputs: list[Any], place: int) -> None:
    del outputs[place]


def put_twice(outputs: list[Any], place: int) -> None:
    outputs.insert(place, outputs[place])


def spoil(outputs: list[Any], place: int) -> None:
    output = outputs[place]
    if output.output_type == "stream":
        output.text = "no"
    elif PNG in output.data:
        output.data[PNG] = pictured(lambda y, x: 255).data[PNG]
    else:
        output.data["text/plain"] = "no"
