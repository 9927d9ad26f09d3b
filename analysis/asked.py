"""How long a run will be, as its configuration says."""

from __future__ import annotations

import math
from collections.abc import Callable

from proxy_tasks.evaluators.config import STUDIED
from proxy_tasks.presets import get_preset

from .runs import Run


def evaluations(run: Run) -> int:
    """In its journal when it is complete; 0 where that is not known beforehand."""
    return _ASKED[run.kind](run) if run.kind in _ASKED else 0


def epochs(run: Run) -> int:
    """Of each of its children."""
    own = run.number("evaluator", "epochs")
    return own or get_preset(str(run.option("evaluator", "preset", "cpu")), run.task).epochs


def _search(run: Run) -> int:
    asked = run.number("settings", "evaluations")
    ended = asked and run.chosen is not None  # a searcher may be at its end before
    return len(run.trials) if ended else asked


def _grid(run: Run) -> int:
    if run.option("settings", "halving") is True:  # at most so many: what is left over is not spent
        return 0
    return len(run.choices("n")) * len(run.choices("m")) * run.number("settings", "seeds")


def _arms(run: Run) -> int:
    return len(run.choices("policy")) * run.number("settings", "seeds")


def _fidelity(run: Run) -> int:
    chosen = run.option("settings", "evaluators")
    cheap = chosen if isinstance(chosen, dict) else STUDIED
    each = run.number("settings", "seeds") + len(cheap) * run.number("settings", "evaluation_seeds")
    return (run.number("settings", "policies") + len(run.choices("policy"))) * each


def _population(run: Run) -> int:
    interval = run.number("settings", "interval") or 1
    return run.number("settings", "population") * math.ceil(epochs(run) / interval)


def _table(run: Run) -> int:
    most = 1 + run.number("settings", "late")
    searched = sum(len(search["policies"][:most]) for search in run.choices("optimised"))
    seeds = sum(about["seeds"] for about in run.option("settings", "fidelities", {}).values())
    return (run.number("settings", "policies") + searched) * seeds


_ASKED: dict[str, Callable[[Run], int]] = {
    "search": _search,
    "randaugment": _grid,
    "compare": _arms,
    "fidelity": _fidelity,
    "pba": _population,
    "tabulate": _table,
}
