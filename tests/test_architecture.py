"""Which package may import which: policies <- proxy_tasks <- search and analysis."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"policies", "proxy_tasks", "search", "analysis"}
ALLOWED = {
    "policies": {"policies"},
    "proxy_tasks": {"policies", "proxy_tasks"},
    "search": {"policies", "proxy_tasks", "search"},
    "analysis": {"policies", "proxy_tasks", "analysis"},
}
# The roof: the command line puts the packages together.
ROOF = {Path("search/cli/main.py"): PACKAGES}


def modules() -> list[Path]:
    return sorted(p.relative_to(ROOT) for name in PACKAGES for p in (ROOT / name).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0] if node.level == 0 else path.parts[0])
    return found


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_one_way(path):
    allowed = ROOF.get(path, ALLOWED[path.parts[0]])
    assert imported(path) & (PACKAGES | {"tests"}) <= allowed


@pytest.mark.parametrize("path", [p for p in modules() if p.parts[0] == "analysis"], ids=str)
def test_analysis_never_trains_or_runs(path):
    assert not imported(path) & {"ray", "optuna"}
    source = (ROOT / path).read_text(encoding="utf-8")
    assert "proxy_tasks.training" not in source and "proxy_tasks.evaluators" not in source


def test_the_check_sees_imports_inside_functions():
    assert "analysis" in imported(Path("search/cli/main.py"))


def test_every_public_name_exists():
    for package in sorted(PACKAGES):
        module = importlib.import_module(package)
        assert not [name for name in module.__all__ if not hasattr(module, name)]


def test_help_waits_for_no_heavy_library():
    """What makes --help quick: it imports none of these. (A time limit would measure the load.)"""
    heavy = ("torch", "numpy", "pandas", "matplotlib", "scipy", "ray", "optuna", "numba")
    code = (
        "import sys; from click.testing import CliRunner; from search.cli.main import main; "
        "[CliRunner().invoke(main, [c, '--help']) for c in main.commands]; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
