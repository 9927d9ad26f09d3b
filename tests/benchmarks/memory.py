"""Memory of workers that share a training set: MB of each, and of all.

    python -m tests.benchmarks.memory [--workers 16] [--task reduced-fashion] [--data FOLDER]

Each has evaluated at least one child. RSS counts what is shared in every worker, USS what is a
worker's own, PSS a worker's own and its part of what is shared: the sum of PSS is what they take.
"""

from __future__ import annotations

import argparse
import statistics

import psutil
from tabulate import tabulate

from proxy_tasks import EvaluatorConfig, get_task
from search import PoolConfig
from search.engine.jobs import Job
from search.engine.pool import WorkerPool
from search.trial import Candidate
from tests.benchmarks.machine import keep


def of_workers(pool: WorkerPool, workers: int) -> dict[str, list[float]]:
    """MB by kind of memory, once every worker has evaluated something."""
    met: set[str] = set()
    seed = 0
    while len(met) < workers:
        while pool.capacity():
            pool.submit(Job(Candidate(0, seed, None, seed)))
            seed += 1
        for outcome in pool.wait(1.0):
            if outcome.error is not None:
                raise SystemExit(f"{outcome.error}\n{outcome.detail}")
            met.add(outcome.worker)
    found = [psutil.Process(int(each.rpartition(":")[2])).memory_full_info() for each in met]
    return {
        kind: sorted(getattr(each, kind.lower()) / 1e6 for each in found)
        for kind in ("RSS", "PSS", "USS")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--task", default="reduced-fashion")
    parser.add_argument("--data", help="where the task's images are")
    parser.add_argument("--train-images", type=int)
    options = parser.parse_args()
    task = get_task(options.task, options.data, train_images=options.train_images)
    parts = (task.train, task.validation, task.test)
    shared = sum(part.images.nbytes for part in parts) / 1e6
    config = EvaluatorConfig(epochs=1, device="cpu")
    with WorkerPool(PoolConfig(workers=options.workers), {"main": config}, task) as pool:
        found = of_workers(pool, options.workers)
    rows = [
        [kind, min(values), statistics.median(values), max(values), sum(values)]
        for kind, values in found.items()
    ]
    print(f"{options.workers} workers on {task.name}, {shared:.0f} MB of images")
    headers = ["MB", "least", "median", "most", f"all {options.workers}"]
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".0f"))
    keep("memory", {"workers": options.workers, "images": shared, "MB": found}, 0)


if __name__ == "__main__":
    main()
