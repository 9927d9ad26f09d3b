"""What README and docs/ print is true: commands parse, Python runs, links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from policies import CONVENTIONS, OPS
from policies.formats import FORMATS
from search.cli.main import main
from search.studies.config import Config, read_options
from search.studies.kinds import KINDS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
SET_UP = (
    "git clone REPOSITORY augsearch",
    "cd augsearch",
    "make venv",
    "source .venv/bin/activate",
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def commands(path: Path) -> list[str]:
    lines = [line for block in blocks(path, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("augsearch ")]


@pytest.mark.parametrize(
    "line", list(dict.fromkeys(line for path in PAGES for line in commands(path)))
)
def test_every_command_parses(line):
    name, *arguments = shlex.split(line)[1:]
    with main.commands[name].make_context(name, arguments) as ctx:
        below = [*ctx._protected_args, *ctx.args]
        if isinstance(ctx.command, click.Group) and below:
            _, command, rest = ctx.command.resolve_command(ctx, below)
            with command.make_context(below[0], rest, parent=ctx):
                pass


def test_every_line_of_a_shell_block_is_a_command_or_a_comment():
    """So that no command escapes the test above."""
    for path in PAGES:
        for block in blocks(path, "bash"):
            for line in block.splitlines():
                known = line in SET_UP or re.match(r"augsearch |python examples/|# |$", line)
                assert known, (path.name, line)


def first_steps() -> list[str]:
    (block,) = blocks(ROOT / "docs/first-steps.md", "bash")
    return [line for line in block.splitlines() if not line.startswith("#")]


def test_the_first_steps_are_ten_commands():
    lines = first_steps()
    assert len(lines) == 10 and lines[:4] == list(SET_UP)
    for line in lines:
        if line.startswith("python "):
            assert (ROOT / shlex.split(line)[1]).is_file()


@pytest.mark.slow
@pytest.mark.ray
def test_the_first_steps_lead_to_a_trained_network(tmp_path):
    """As they are printed, from the images on: a quarter of an hour on two cores."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in first_steps()[4:]:
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stderr)
    assert float(re.search(r"test accuracy: (.*)", done.stdout)[1]) > 0.4
    assert "against none" in (tmp_path / "runs/report.html").read_text()


def test_the_guide_shows_every_command():
    assert {shlex.split(line)[1] for line in commands(ROOT / "docs/guide.md")} >= set(main.commands)


def test_what_may_grow_is_said_of_no_single_kind():
    """`--seeds` are other seeds in every study; a budget has searches alone."""
    words = " ".join(CliRunner().invoke(main, ["resume", "--help"]).output.split())
    assert "--seeds N More of them; may grow (select, randaugment," in words
    assert "--budget CHILDREN Cost of the whole search" in words


def test_the_readme_names_every_command():
    text = README.read_text(encoding="utf-8")
    assert [name for name in main.commands if f"| `augsearch {name}` |" not in text] == []


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 135


@pytest.mark.usefixtures("in_process")
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    assert len(code.strip().splitlines()) <= 14
    exec(compile(code, str(README), "exec"), {})
    assert (tmp_path / "runs/api/policy.json").is_file()


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("docs/")])
def test_the_python_of_the_docs_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, space = (ROOT / name).read_text(encoding="utf-8"), {}
    for archive in re.findall(r"\]\((studies/[^)]+)\)", text):
        with tarfile.open(ROOT / "docs" / archive) as packed:
            packed.extractall("runs", filter="data")
    for code in blocks(ROOT / name, "python"):
        exec(compile(code, name, "exec"), space)


def test_the_configuration_files_of_the_docs_are_read(tmp_path):
    printed = [block for path in PAGES for block in blocks(path, "toml")]
    assert printed
    for number, block in enumerate(printed):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        options, _ = read_options(file, "search")
        assert Config.of("search", **options)


@pytest.mark.parametrize("name", NAMES)
def test_links_to_files_lead_somewhere(name):
    """Anchors too. `make docs` checks those of the site again, as MkDocs makes them."""
    path = ROOT / name
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs both make them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {
        re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def script(name: str):
    """A module of docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(page: str, heading: str = "") -> list[list[str]]:
    """The cells of all rows of a page's tables, once they are filled; of one section's."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    text = script("tables").on_page_markdown(text)
    if heading:
        text = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [re.split(r" \| ", line[2:-2]) for line in text.splitlines() if line[:2] == "| "]


@pytest.mark.parametrize("page", ["operations.md", "conventions.md", "options.md", "guide.md"])
def test_tables_that_stand_in_a_page_are_as_they_are_made(page):
    """Else: `python docs/tables.py`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert text.count("<!-- end -->") >= 1 and text.count("\n| ") > 5
    assert script("tables").on_page_markdown(text) == text


@pytest.mark.parametrize("name", OPS)
def test_operations_are_shown_as_they_are(name):
    """Else: `python docs/pictures.py`."""
    with Image.open(ROOT / f"docs/operations/{name}.png") as picture:
        assert (np.asarray(picture.convert("RGB")) == script("pictures").strip(name)).all()
    assert f"(operations/{name}.png)" in (ROOT / "docs/operations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", ["first-steps", "your-images", "gpus", "your-searcher", "operations", "conventions",
             "compared", "faq"],
)  # fmt: skip
def test_the_readme_leads_to_the_pages_that_users_look_for(page):
    assert f"(docs/{page}.md)" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_options_has_every_option_of_every_command(kind):
    """Among those of several kinds, where the last cell says which, or among the kind's own."""
    shown = [row[0] for row in made("options.md", kind)]
    for option, *_, kinds in made("options.md", "Of several kinds"):
        others = kinds.startswith("all but ")
        if (kind in kinds.removeprefix("all but ").split(", ")) != others:
            shown.append(option)
    shell = {"--config", "--out", "--resume", "--retry-failed", "--quiet", "--help"}
    options = [each for each in main.commands[kind].params if isinstance(each, click.Option)]
    taken = [f"`{each.opts[0]}`" for each in options if each.opts[0] not in shell]
    assert sorted(each for each in shown if each.startswith("`--")) == sorted(taken)


def test_the_tables_of_operations_are_made_from_the_declarations():
    table = made("operations.md")
    rows, others = ({row[0]: row for row in table if len(row) == size} for size in (6, 3))
    assert others["Invert"][1] == "has no magnitude" and set(others) >= set(OPS)
    assert rows["Rotate"][1] == "0 … ±30 degrees" and "0 … ±135 degrees" in rows["Rotate"]
    assert rows["Posterize"][1] == "8 … 4 bits, nearest" and rows["Invert"][1] == "–"
    rows |= {row[0]: row for row in made("conventions.md")}
    assert rows["paper"][1:3] == ["0..9", "index / 9"]
    assert set(rows) >= {*OPS, *CONVENTIONS} - {"Identity"}


def test_conventions_are_compared_by_their_parameters():
    rows = {row[0]: row[1:] for row in made("conventions.md")[8:]}
    values = [value.replace("\N{NO-BREAK SPACE}", " ") for value in rows["Solarize"]]
    assert values == ["from 0", "from 26", "from 230", "from 178", "from 178"]
    assert rows["Rotate"] == ["+30.0°", "+27.0°", "+27.0°", "+9.0°", "+40.5°"]


def test_the_table_of_formats_says_what_each_carries():
    rows = {row[0]: row[1:] for row in made("guide.md")}
    for name, form in FORMATS.items():
        assert rows[f"`{name}`"] == [form.carries, form.loses]
        assert all(op in form.loses for op in form.lacks - {"Identity"})


def test_pages_in_the_site_are_the_pages_in_docs():
    nav = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(nav) == sorted(
        str(p.relative_to(ROOT / "docs")) for p in ROOT.glob("docs/**/*.md")
    )


def places() -> list[tuple[str, str]]:
    """(file, function, class or constant) of every row of docs/faults.md."""
    found = []
    for line in (ROOT / "docs/faults.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("| ") or line.startswith("| kind"):
            continue
        decided = line.rstrip("| ").rpartition(" | ")[2]
        for place in decided.split("; "):
            file, *names = re.findall(r"`([^`]+)`", place)
            assert names, line
            found += [(file, name) for name in names]
    return found


@pytest.mark.parametrize(("file", "name"), sorted(set(places())))
def test_what_the_page_of_faults_names_exists(file, name):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    defined = {
        getattr(node, "name", None) or getattr(node, "id", None)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
    assert name in defined
