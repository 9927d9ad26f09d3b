"""Build the wheel, install it into a fresh environment, and use it far from the source.

    python -m tests.packaging.wheel

The search runs in a temporary folder that holds files named like the project's packages, as a
user's folder may. uv's cache makes the fresh environment cheap: files are linked, not copied.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))
PACKAGES = ("policies", "proxy_tasks", "search", "analysis")
# Whoever imports one of these in place of the package sees it at once.
OWN_FILE = 'raise ImportError("this file is the user\'s own, not a part of augsearch")\n'
SEARCH = [
    *("search", "--task", "reduced-fashion", "--evaluator", "synthetic", "--searcher", "random"),
    *("--evaluations", "12", "--workers", "2", "--out", "run"),
]


def call(*command: str, cwd: Path = ROOT) -> None:
    """Run a command outside of any environment of this process; end when it fails."""
    print("wheel:", " ".join(command), flush=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    code = subprocess.run(command, cwd=cwd, env=kept).returncode
    if code:
        raise SystemExit(f"wheel: {' '.join(command)} ended with exit code {code}")


def build(folder: Path) -> Path:
    # The wheel of the source distribution: it holds nothing that merely lies in this folder.
    call(UV, "build", "--quiet", "--out-dir", str(folder))
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    wanted = [f"{package}/py.typed" for package in PACKAGES]
    wanted += ["proxy_tasks/embedded/reduced-fashion.LICENSE"]
    tables = (ROOT / "proxy_tasks" / "tables").iterdir()
    wanted += [f"proxy_tasks/tables/{path.name}" for path in tables]
    missing = [name for name in wanted if name not in names]
    foreign = sorted({n.split("/")[0] for n in names if ".dist-info/" not in n} - set(PACKAGES))
    if missing or foreign or not any(n.endswith("licenses/LICENSE") for n in names):
        raise SystemExit(f"{wheel.name} lacks {missing} or its licence, or brings {foreign}")
    return wheel


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wheel-") as name:
        folder = Path(name)
        wheel, environment = build(folder / "dist"), folder / "environment"
        call(UV, "venv", "--quiet", "--python", sys.executable, str(environment))
        python = str(environment / "bin" / "python")
        constraints = str(ROOT / "constraints.txt")
        call(UV, "pip", "install", "--quiet", "--python", python, "-c", constraints, str(wheel))
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        for package in PACKAGES:
            (elsewhere / f"{package}.py").write_text(OWN_FILE, encoding="utf-8")
        augsearch = str(environment / "bin" / "augsearch")
        call(augsearch, "doctor", cwd=elsewhere)
        call(augsearch, *SEARCH, cwd=elsewhere)
        call(augsearch, "report", "run", cwd=elsewhere)
        subpolicies = (elsewhere / "run" / "policy.txt").read_text(encoding="utf-8")
        print(f"wheel: {wheel.name} works; its policy begins {subpolicies.splitlines()[0]!r}")


if __name__ == "__main__":
    main()
