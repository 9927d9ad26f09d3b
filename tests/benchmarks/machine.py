"""One JSON file a machine, in which every benchmark keeps what it measured last, and on what."""

from __future__ import annotations

import json
import platform
import re
import time
from pathlib import Path
from typing import Any

from search.runs.environment import environment

FOLDER = Path(__file__).parents[2] / "build" / "bench"


def keep(benchmark: str, results: Any, seeds: Any, folder: Path = FOLDER) -> None:
    """Write results (JSON data) and the seeds they were made with; say where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^A-Za-z0-9.-]', '-', platform.node()) or 'machine'}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[benchmark] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": environment(),
        "seeds": seeds,
        "results": results,
    }
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\n{benchmark}: results, seeds and environment in {path}")
