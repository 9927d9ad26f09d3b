"""The roof: the command line, which alone may use every package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGES = ("policies", "proxy_tasks", "analysis")


def foreign_module(root: Path) -> str | None:
    """The file of a module that hides one of our packages, which lie in `root`, if there is one.

    A user's analysis.py does, where PYTHONPATH names its folder: whatever imports `analysis` then
    gets that, and nothing here can help it.
    """
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        places = () if found is None else found.submodule_search_locations or (found.origin,)
        if not any(place and Path(place).resolve() == root / name for place in places):
            return next(filter(None, places), f"no package {name}")
    return None


_hiding = foreign_module(Path(__file__).resolve().parents[2])
if _hiding is not None:
    print(
        f"Error: PYTHONPATH: must not hide augsearch's own packages, but got {_hiding}; rename it, "
        "or take its folder out of PYTHONPATH",
        file=sys.stderr,
    )
    sys.exit(2)
