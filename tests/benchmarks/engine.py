"""What the engine costs: overhead per evaluation, use of two workers, resuming, memory.

    python -m tests.benchmarks.engine [--evaluations 15000] [--searcher ppo|random]

Evaluations are synthetic and cost nothing, or sleep. "controller" is the time inside the searcher's
ask and tell, "engine" all the rest of the driver: journal with fsync, dispatch, results, progress
and checkpoints. CPU time is the driver's; on a busy machine it says more than wall-clock time.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from tabulate import tabulate

from proxy_tasks import EvaluatorConfig, get_task
from search import PolicySpace, PoolConfig, make_searcher
from search.engine.loop import run
from search.searchers.base import Searcher
from search.trial import JOURNAL_NAME, Candidate, read_journal
from tests.benchmarks.machine import keep

WORKERS = 2
MEGABYTE = 2**20


class Timed(Searcher):
    """Another searcher, with a stopwatch: one reading at every result."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.inside_wall = self.inside_cpu = 0.0
        self.wall, self.cpu, self.controller_wall, self.controller_cpu, self.rss = (
            array("d") for _ in range(5)
        )
        self._process = psutil.Process()

    def _timed(self, call: Any, *arguments: Any) -> Any:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return call(*arguments)
        finally:
            self.inside_wall += time.perf_counter() - wall
            self.inside_cpu += time.thread_time() - cpu

    def ask(self) -> Candidate | None:
        return self._timed(self.searcher.ask)

    def tell(self, candidate: Candidate, evaluation: Any) -> None:
        self._timed(self.searcher.tell, candidate, evaluation)
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.controller_wall.append(self.inside_wall)
        self.controller_cpu.append(self.inside_cpu)
        due = len(self.wall) % 50 == 0
        self.rss.append(self._process.memory_info().rss if due or not self.rss else self.rss[-1])

    @property
    def finished(self) -> bool:
        return self.searcher.finished


@dataclass(frozen=True)
class Window:
    """Means over the evaluations around one, in microseconds per evaluation."""

    evaluation: int
    engine_cpu: float
    controller_cpu: float
    wall: float
    megabytes: float


def window(timed: Timed, evaluation: int, width: int) -> Window:
    last = min(len(timed.wall) - 1, evaluation + width // 2)
    first = max(0, last - width)
    count = last - first

    def mean(series: array) -> float:
        return (series[last] - series[first]) / count * 1e6

    controller = mean(timed.controller_cpu)
    return Window(
        evaluation,
        mean(timed.cpu) - controller,
        controller,
        mean(timed.wall),
        timed.rss[last] / MEGABYTE,
    )


def start(searcher: Searcher, folder: Path, evaluations: int, sleep: float = 0.0, **more: Any):
    config = EvaluatorConfig(kind="synthetic", options={"sleep": sleep})
    return run(
        searcher,
        {"main": config},
        get_task("synthetic"),
        folder,
        evaluations=evaluations,
        pool=PoolConfig(workers=WORKERS),
        **more,
    )


def overhead(name: str, folder: Path, evaluations: int) -> list[Window]:
    timed = Timed(make_searcher(name, PolicySpace()))
    start(timed, folder, evaluations)
    places = [n for n in (100, 1000, evaluations) if n <= evaluations]
    return [window(timed, n, 100 if n == 100 else 500) for n in sorted(set(places))]


def efficiency(name: str, folder: Path, evaluations: int, sleep: float) -> float:
    """Share of the workers' time spent in evaluations, from each one's first start to the end of
    the run. (How long a worker takes to start is no matter of the evaluations.)"""
    start(make_searcher(name, PolicySpace()), folder, evaluations, sleep)
    rows = read_journal(folder / JOURNAL_NAME)
    first: dict[str, float] = {}
    for row in rows:
        first[row.worker] = min(row.started, first.get(row.worker, math.inf))
    end = max(row.finished for row in rows)
    return evaluations * sleep / sum(end - begin for begin in first.values())


def resume(name: str, folder: Path, evaluations: int) -> tuple[float, float]:
    """Seconds until everything in the journal is known again, and until the next evaluation runs
    (Ray and its workers have to start in between)."""
    timed = Timed(make_searcher(name, PolicySpace()))
    asked: list[float] = []
    ask = timed.ask

    def noting() -> Candidate | None:
        candidate = ask()
        if candidate is not None and (candidate.key not in before):
            asked.append(time.perf_counter())
        return candidate

    before = {trial.key for trial in read_journal(folder / JOURNAL_NAME)}
    timed.ask = noting  # type: ignore[method-assign]
    begun, clock = time.perf_counter(), time.time()
    start(timed, folder, evaluations + 40, resume=True)
    trials = read_journal(folder / JOURNAL_NAME)
    first = min(trial.started for trial in trials if trial.key not in before)
    return asked[0] - begun, first - clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=15_000)
    parser.add_argument("--searcher", default="ppo")
    parser.add_argument("--skip-efficiency", action="store_true")
    options = parser.parse_args()
    count, name = options.evaluations, options.searcher
    with tempfile.TemporaryDirectory(prefix="augsearch-bench-") as temporary:
        base = Path(temporary)
        windows = overhead(name, base / "long", count)
        print(f"\nOverhead per evaluation, {name}, {WORKERS} workers, zero-cost evaluations")
        print(
            tabulate(
                [
                    (w.evaluation, w.engine_cpu, w.controller_cpu, w.wall, w.megabytes)
                    for w in windows
                ],
                headers=[
                    "at evaluation",
                    "engine CPU µs",
                    "controller CPU µs",
                    "wall µs",
                    "RSS MB",
                ],
                floatfmt=".0f",
            )
        )
        growth = windows[-1].megabytes - windows[0].megabytes
        print(f"memory of the driver grew by {growth:.0f} MB from evaluation 100 to {count}")

        known, running = resume(name, base / "long", count)
        print(
            f"resuming {count} lines: {known:.1f} s to know them, "
            f"{running:.1f} s to the next evaluation"
        )
        rows: list[tuple[float, int, float, float]] = []
        if not options.skip_efficiency:
            rows = [
                (sleep, n, efficiency(name, base / f"sleep-{sleep}", n, sleep), target)
                for sleep, n, target in ((1.0, 60, 0.97), (0.05, 800, 0.90))
            ]
            print(
                tabulate(
                    rows,
                    headers=["seconds each", "evaluations", "use of 2 workers", "target"],
                    floatfmt=".3f",
                )
            )
        kept = {
            "searcher": name,
            "overhead": [asdict(w) for w in windows],
            "seconds to know them, to the next": [known, running],
            "seconds each, evaluations, use of workers, target": rows,
        }
        keep("engine", kept, 0)


if __name__ == "__main__":
    main()
