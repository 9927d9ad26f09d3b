"""The house's rules: which package may import which, no circles, quiet and complete faces."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import Imports, circle, reachable, rooms

ROOT = Path(__file__).parent.parent
# policies <- proxy_tasks <- search and analysis.
ALLOWED = {
    "policies": {"policies"},
    "proxy_tasks": {"policies", "proxy_tasks"},
    "search": {"policies", "proxy_tasks", "search"},
    "analysis": {"policies", "proxy_tasks", "analysis"},
}
PACKAGES = sorted(ALLOWED)
# The roof: the command line puts the packages together.
ROOF = "search.cli"
HEAVY = ("torch", "numpy", "pandas", "matplotlib", "scipy", "ray", "optuna", "numba")

IMPORTS = Imports(ROOT, PACKAGES)
GRAPH = IMPORTS.graph()


def package_of(module: str) -> str:
    return module.split(".")[0]


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip()


# --- imports -------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_point_one_way(module):
    if not module.startswith(ROOF):
        found = {package_of(name) for name in IMPORTS.imported(module)}
        assert found & {*PACKAGES, "tests"} <= ALLOWED[package_of(module)]


def test_nothing_below_imports_the_roof():
    assert not {m for m, names in GRAPH.items() for n in names if n.startswith(ROOF)} - {
        m for m in GRAPH if m.startswith(ROOF)
    }


def test_there_is_no_circle_of_modules():
    assert circle(GRAPH) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_circle_of_rooms(package):
    assert circle(rooms(GRAPH, package)) == []


@pytest.mark.parametrize("module", [m for m in sorted(GRAPH) if package_of(m) == "analysis"])
def test_analysis_never_trains_or_runs(module):
    below = reachable(GRAPH, module)
    libraries = {package_of(name) for inner in below for name in IMPORTS.imported(inner)}
    assert not libraries & {"ray", "optuna"}
    assert "proxy_tasks.training" not in below


class TestTheCheckItself:
    """On a small tree that breaks the rules."""

    @pytest.fixture
    def broken(self, tmp_path):
        files = {
            "one/__init__.py": "",
            "one/__init__.pyi": "from .upper.attic import Thing as Thing\n",
            "one/cellar.py": "def f():\n    from one import Thing\n",
            "one/upper/__init__.py": "",
            "one/upper/attic.py": "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from one.lone import Other\nfrom .. import cellar\n",
            "one/lone.py": "from two import *\nimport one.upper.attic as attic\n",
            "two/__init__.py": "import torch.nn\n",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text(text)
        return Imports(tmp_path, ["one", "two"])

    def test_sees_relative_imports_faces_and_functions(self, broken):
        assert broken.graph() == {
            "one": set(),
            "one.cellar": {"one.upper.attic"},
            "one.upper": set(),
            "one.upper.attic": {"one.cellar"},
            "one.lone": {"two", "one.upper.attic"},
            "two": set(),
        }
        assert broken.imported("two") == {"torch.nn"}
        assert broken.public("one") == {"Thing"}

    def test_finds_circles(self, broken):
        assert circle(broken.graph()) == ["one.cellar", "one.upper.attic", "one.cellar"]
        assert circle(rooms(broken.graph(), "one")) == ["one.cellar", "one.upper", "one.cellar"]
        assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []

    def test_follows_imports_through_others(self, broken):
        assert reachable(broken.graph(), "one.lone") == set(broken.graph()) - {"one", "one.upper"}


# --- files ---------------------------------------------------------------------------------------

LONGEST = 450


def test_no_file_is_too_long():
    """Compiled kernels may be: they are one program."""
    paths = [path for top in (*PACKAGES, "tests", "docs", "examples") for path in python(top)]
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {path: n for path, n in lengths.items() if n > LONGEST} == {}


def python(top: str) -> list[Path]:
    return [path for path in (ROOT / top).rglob("*.py") if "kernels" not in path.stem]


@pytest.mark.long
def test_no_assert_carries_a_rule_of_the_product():
    """Under `python -O` it would be gone."""
    asserting = [
        f"{module}:{node.lineno}"
        for module, path in IMPORTS.files.items()
        if module != "search.testing"  # the contract, run by pytest
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert asserting == []


def test_nothing_that_is_read_is_executed():
    """Run folders and data sets come from others: numbers are read from them, never objects."""
    safe = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}
    reading = {"load", "loads", "Unpickler", "restore"}
    unsafe = []
    for module, path in IMPORTS.files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            named = ast.unparse(node.func.value), node.func.attr
            option, value = safe.get(named, ("", None))
            given = {k.arg: k.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            if named in safe and (option not in given or given[option].value is not value):
                unsafe.append(f"{module}:{node.lineno}")
            if named[0].endswith(("pickle", "joblib", "Tuner")) and named[1] in reading:
                unsafe.append(f"{module}:{node.lineno}")
    assert unsafe == []


# --- faces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_a_type_checker_sees_every_public_name(package):
    module = importlib.import_module(package)
    assert IMPORTS.public(package) == set(module.__all__)
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_exists_and_is_explained(package):
    module = importlib.import_module(package)
    assert inspect.getdoc(module)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            # A dataclass without a docstring gets its signature for one.
            assert thing.__doc__ and not thing.__doc__.startswith(f"{name}("), name


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_there_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        importlib.import_module(package).nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_faces_are_lazy(package):
    heavy = f"[name for name in {HEAVY!r} if name in sys.modules]"
    assert fresh(f"import sys, {package}; print({heavy})") == "[]"


def test_help_waits_for_no_heavy_library():
    """What makes --help quick: it imports none of these. (A time limit would measure the load.)"""
    code = (
        "import sys; from click.testing import CliRunner; from search.cli.main import main; "
        "[CliRunner().invoke(main, [c, '--help']) for c in main.commands]; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert fresh(code) == "[]"
