"""What a search will cost, before it is started: measured here, then multiplied out."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from policies.errors import InputError
from proxy_tasks import ProxyTask
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.costs import child_of
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.run_format import LOG_NAME
from search.engine.loop import run
from search.engine.resources import PoolConfig, cores
from search.errors import SearchInterrupted, WorkerError
from search.searchers.random import RandomSearcher
from search.spaces import PolicySpace
from search.trial import JOURNAL_NAME, read_journal

from .config import Config
from .search import policy_space
from .study import settled, task_of

PAPER_EVALUATIONS = 15_000


class PaperBudget(NamedTuple):
    """A search of AutoAugment. gpu_hours: on NVIDIA Tesla P100.

    Hours from table 1 of Fast AutoAugment (arXiv 1905.00397); about 15,000 policies per search
    from section 3 of AutoAugment (arXiv 1805.09501).
    """

    data: str
    gpu_hours: float

    @property
    def gpu_seconds_per_evaluation(self) -> float:
        return self.gpu_hours * 3600 / PAPER_EVALUATIONS


PAPER_BUDGETS = (
    PaperBudget("ImageNet", 15_000),
    PaperBudget("CIFAR-10", 5_000),
    PaperBudget("SVHN", 1_000),
)


@dataclass(frozen=True)
class Estimate:
    """seconds: per evaluation on one worker, as measured (one number per evaluation).

    measured_workers: how many ran side by side while measuring. cores: CPU cores per worker.
    price, gpu_price: money per hour of a core and of a GPU, None when not asked for. unit: what was
    measured, in the plural. gpus: a worker's.
    """

    seconds: tuple[float, ...]
    measured_workers: int
    evaluations: int
    workers: int
    cores: float
    price: float | None = None
    unit: str = "evaluations"
    gpus: float = 0.0
    gpu_price: float | None = None

    @property
    def seconds_per_evaluation(self) -> float:
        return sum(self.seconds) / len(self.seconds)

    def hours(self, evaluations: int | None = None) -> float:
        """Wall-clock hours with all workers busy; default: for the configured evaluations."""
        count = self.evaluations if evaluations is None else evaluations
        return count * self.seconds_per_evaluation / self.workers / 3600

    def core_hours(self, evaluations: int | None = None) -> float:
        return self.hours(evaluations) * self.workers * self.cores

    def gpu_hours(self, evaluations: int | None = None) -> float:
        return self.hours(evaluations) * self.workers * self.gpus

    def lines(self) -> list[str]:
        """The estimate in words, one fact a line."""
        low, high = min(self.seconds), max(self.seconds)
        side = f"{self.measured_workers} side by side"
        lines = [
            f"{self.seconds_per_evaluation:.3g} s per evaluation here ({len(self.seconds)} "
            f"measured, {low:.3g} to {high:.3g} s, {side})",
            self._cost(self.evaluations, f"this search ({self.evaluations} {self.unit}"),
            self._cost(
                PAPER_EVALUATIONS,
                f"the paper's number of evaluations ({PAPER_EVALUATIONS:,}",
            ),
            f"the paper's own searches, {PAPER_EVALUATIONS:,} evaluations each on Tesla P100 GPUs "
            "(arXiv 1905.00397, table 1):",
        ]
        core_seconds = self.seconds_per_evaluation * self.cores
        for budget in PAPER_BUDGETS:
            spent = budget.gpu_seconds_per_evaluation
            lines.append(
                f"  {budget.data}: {budget.gpu_hours:,.0f} GPU-hours, {spent:,.0f} GPU-seconds per "
                f"evaluation, {spent / core_seconds:.3g} times the core-seconds measured here"
            )
        return lines

    def _cost(self, evaluations: int, what: str) -> str:
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        told = [f"{self.hours(evaluations):.3g} h"]
        for hours, what_of, price in (
            (self.core_hours(evaluations), "core", self.price),
            (self.gpu_hours(evaluations), "GPU", self.gpu_price),
        ):
            if hours:
                money = "" if price is None else f" for {hours * price:,.2f}"
                told.append(f"{hours:.3g} {what_of}-hours{money}")
        return f"{what}, {workers}): {', '.join(told)}"


def run_estimate(config: Config) -> Estimate:
    """Run a few evaluations of random policies as the search would, and multiply out.

    Each worker makes one evaluation more than asked for, beforehand, which pays for compilation
    and is not counted. At most as many workers as there are cores run side by side on this
    machine; one-off preparation (weight sharing) is done, but not part of the figures. Writes
    nothing but a temporary folder, which stays only when evaluations fail: run.log says why.

    Args:
        config: `Config.of("estimate", price=0.05)`.

    Raises:
        InputError: for images, evaluators and workers that `run_search` would refuse. Whether a
            budget is too small for its searcher is said by the search, which has one.
    """
    settings = config.settings
    if settings.gpu_price is not None and not config.pool.gpus:
        raise InputError(
            "gpu_price", "must be for workers that have GPUs", settings.gpu_price,
            "pass --gpus 1 too, or leave it out",
        )  # fmt: skip
    evaluator = settled(config.evaluator, config.pool)
    if settings.budget is not None:
        evaluator = child_of(evaluator)
    check_config(evaluator)
    task = task_of(config)
    seconds, side_by_side = measured(
        evaluator, task, policy_space(settings), config.pool, settings.samples
    )
    return Estimate(
        tuple(seconds),
        side_by_side,
        settings.budget or settings.evaluations,
        config.pool.workers,
        cores_of(config.pool, evaluator),
        settings.price,
        "evaluations" if settings.budget is None else "children",
        config.pool.gpus,
        settings.gpu_price,
    )


def measured(
    evaluator: EvaluatorConfig,
    task: ProxyTask,
    space: PolicySpace,
    pool: PoolConfig,
    samples: int,
) -> tuple[list[float], int]:
    """(seconds of each evaluation of a random policy, how many ran side by side).

    Raises WorkerError when one fails.
    """
    side_by_side = pool.workers
    if pool.address is None:
        side_by_side = min(side_by_side, cores())
    with _scratch() as folder:
        result = run(
            RandomSearcher(space),
            {"main": evaluator},
            task,
            folder,
            evaluations=side_by_side * pool.children_per_gpu * (samples + 1),
            pool=replace(pool, workers=side_by_side, retries=0),
            progress=False,
        )
        if result.failed:
            trials = read_journal(folder / JOURNAL_NAME)
            raise WorkerError(next(trial.error for trial in trials if trial.error is not None))
        return _seconds_when_warm(folder, pool.children_per_gpu), side_by_side


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder that stays only where an error names a file in it.

    A run cannot be resumed in it, so errors of the engine are said without that advice.
    """
    folder = Path(tempfile.mkdtemp(prefix="augsearch-estimate-"))
    keep = False
    try:
        yield folder
    except WorkerError as error:
        keep = (folder / LOG_NAME).exists()
        where = f" (tracebacks in {folder / LOG_NAME})" if keep else ""
        raise WorkerError(f"nothing can be evaluated: {error.__cause__ or error}{where}") from error
    except SearchInterrupted as error:
        raise SearchInterrupted(error.signal_number, None, error.finished) from error
    finally:
        if not keep:
            shutil.rmtree(folder)


def cores_of(pool: PoolConfig, evaluator: EvaluatorConfig) -> float:
    """Cores that a worker keeps busy, or that are kept free for it."""
    return max(pool.cpus, float(evaluator.threads))


def _seconds_when_warm(folder: Path, first: int) -> list[float]:
    """Durations of all but each worker's `first` evaluations; of all, if there are no others."""
    by_worker: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for trial in read_journal(folder / JOURNAL_NAME):
        if trial.worker is not None:  # a duplicate has none, and took no time
            spent = trial.finished - trial.started
            by_worker[trial.worker].append((trial.started, max(spent, 1e-6)))
    runs = [sorted(spans) for spans in by_worker.values()]
    warm = [seconds for spans in runs for _, seconds in spans[first:]]
    return warm or [seconds for spans in runs for _, seconds in spans]
