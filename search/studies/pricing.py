"""What a study of many stages will cost, before it is started: `augsearch estimate rederive`.

    for line in price(Config.of("rederive", data="imagenet", preset="cpu"), Prices(price=0.05)): ...

A study is a bill: so many evaluations of each of a few evaluators. Of each a few are measured here,
long ones in part, and multiplied out by image passes (`proxy_tasks.evaluators.costs`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from proxy_tasks import ImageSet, ProxyTask, get_preset
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.costs import child_of, evaluation_passes
from proxy_tasks.models import make_child
from proxy_tasks.run_format import COMPARE, COMPARE_CHILD
from search.engine import cluster

from .config import Config
from .estimate import PAPER_BUDGETS, PAPER_EVALUATIONS, cores_of, measured
from .methods import stage_of
from .rederive import compare_configs, grid_config, search_configs
from .rederive_recipe import recipe_of, recipe_text
from .search import policy_space
from .settings import Prices
from .study import settled, task_of

# Floating-point operations (forward) that are measured of a child: some seconds of a core, or of a
# GPU, which does as many as a hundred.
MEASURED, CORES_OF_A_GPU = 5e11, 100
IMAGENET = PAPER_BUDGETS[0]
# Of the paper's child: 200 epochs of 6,000 images of 32 pixels, 120 classes.
PAPER_PASSES, PAPER_SIDE, PAPER_CLASSES = 200 * 6000, 32, 120


@dataclass(frozen=True)
class Item:
    """So many evaluations by one evaluator."""

    what: str
    evaluations: int
    evaluator: EvaluatorConfig

    @property
    def child(self) -> str:
        """What its cost depends on: all but the reward."""
        return repr(replace(self.evaluator, reward="accuracy"))


def rederive_bill(config: Config) -> list[Item]:
    """What a re-derivation evaluates. Several workers wait at times for the last of a stage."""
    own, child = config.settings, child_of(config.evaluator)
    each, by = (own.evaluations, config.evaluator) if own.budget is None else (own.budget, child)
    grid, compared = grid_config(config), compare_configs(config, [])
    items = [
        Item(f"{own.searches} by the controller", own.searches * each, by),
        Item(f"{own.random_searches} by random search", own.random_searches * each, by),
        Item("RandAugment's grid", own.grid * len(grid), child),
    ]
    if compared:
        here = compared[COMPARE]
        arms = len(here.settings.policy) + len(search_configs(config)) + len(grid)
        items.append(
            Item(f"{arms} policies compared on two draws", 2 * own.seeds * arms, here.evaluator)
        )
    if COMPARE_CHILD in compared:
        by = compared[COMPARE_CHILD].evaluator
        items.append(Item(f"and with {own.other_child}", own.seeds * arms, by))
    return [item for item in items if item.evaluations]


def replicate_bill(config: Config) -> list[Item]:
    """What a replication evaluates."""
    own, child = config.settings, child_of(config.evaluator)
    searching = sum(stage_of(name) is not None for name in own.method)
    judged = 2 * own.draws * own.seeds * len(own.method)
    items = [
        Item(f"{searching} searches on each of {own.draws} draws",
             own.draws * searching * own.budget, child),
        Item(f"{len(own.method)} methods judged on each and another", judged, child),
    ]  # fmt: skip
    return [item for item in items if item.evaluations]


BILLS: dict[str, Callable[[Config], list[Item]]] = {
    "rederive": rederive_bill,
    "replicate": replicate_bill,
}


@dataclass(frozen=True)
class Rate:
    """What an evaluation takes: seconds on a worker here; GPU-seconds, None where not known."""

    seconds: float
    gpu_seconds: float | None
    told: str


def price(config: Config, prices: Prices) -> list[str]:
    """The estimate in words, one fact a line; a re-derivation's recipe first.

    Raises:
        InputError, WorkerError: as `run_estimate` does.
    """
    config = replace(config, evaluator=settled(config.evaluator, config.pool))
    task = task_of(config)
    bill = BILLS[config.kind](config)
    with cluster.keep_ray():
        rates: dict[str, Rate] = {}
        for item in bill:
            if item.child not in rates:
                rates[item.child] = _rate(config, item.evaluator, task, prices.samples)
    lines = [] if config.kind != "rederive" else recipe_text(recipe_of(config))
    lines.append(f"{config.kind}, preset {config.evaluator.preset}, on this machine:")
    lines += [f"  {rate.told}" for rate in rates.values()]
    total, gpu = 0.0, 0.0
    known = True
    for item in bill:
        rate = rates[item.child]
        total += item.evaluations * rate.seconds
        known &= rate.gpu_seconds is not None
        gpu += item.evaluations * (rate.gpu_seconds or 0.0)
        hours = item.evaluations * rate.seconds / 3600
        lines.append(f"  {item.what}: {item.evaluations:,} children, {hours:.3g} worker-hours")
    lines.append("  in all: " + _sums(config, prices, total, gpu if known else None))
    if config.kind == "rederive":
        first = rates[bill[0].child]
        spent = PAPER_EVALUATIONS * first.seconds
        gpus = None if first.gpu_seconds is None else PAPER_EVALUATIONS * first.gpu_seconds
        lines.append(
            f"  one search by the paper's {PAPER_EVALUATIONS:,} such children: "
            + _sums(config, prices, spent, gpus)
        )
        lines.append(
            f"  the paper's own: {IMAGENET.gpu_hours:,.0f} hours of Tesla P100 (its cost table); "
            f"about {PAPER_EVALUATIONS:,} candidates, so an hour each"
        )
    return lines


def _sums(config: Config, prices: Prices, seconds: float, gpu: float | None) -> str:
    """Seconds of workers, and of GPUs, as hours here, core-hours, GPU-hours and money."""
    workers, hours = config.pool.workers, seconds / 3600
    cores = hours * cores_of(config.pool, config.evaluator)
    here = hours / workers
    time = f"{here:.3g} h" if here < 48 else f"{here / 24:,.0f} days"
    words = [
        f"{time} with {workers} worker{'s' if workers > 1 else ''}",
        f"{cores:,.3g} core-hours",
    ]
    if prices.price is not None:
        words[-1] += f" for {cores * prices.price:,.2f}"
    told = ", ".join(words)
    if gpu is None:
        return told
    # Measured on GPUs, both are paid for; else it is one or the other.
    money = "" if prices.gpu_price is None else f" for {gpu / 3600 * prices.gpu_price:,.2f}"
    link = ", " if config.pool.gpus else "; or "
    return f"{told}{link}{gpu / 3600:,.3g} GPU-hours{money}"


def _rate(config: Config, evaluator: EvaluatorConfig, task: ProxyTask, samples: int) -> Rate:
    """Measure an evaluator here; of a child as much as `MEASURED` pays for."""
    space, pool = policy_space(config.settings), config.pool
    if evaluator.kind != "from-scratch":
        seconds, _ = measured(evaluator, task, space, pool, samples)
        mean = sum(seconds) / len(seconds)
        told = f"{evaluator.kind}: {mean:,.3g} s an evaluation ({len(seconds)} measured)"
        return Rate(mean, None, told)
    preset = get_preset(evaluator.preset, task.name)
    name, epochs = evaluator.options.get("model") or preset.model, evaluator.epochs or preset.epochs
    operations = _operations(name, task.num_classes, task.train.images.shape[1:])
    passes = max(1, int(MEASURED * (CORES_OF_A_GPU if pool.gpus else 1) / operations))
    few = min(epochs, max(1, passes // len(task.train)))
    every = max(1, len(task.train) // passes)
    short, part = replace(evaluator, epochs=few), _thinned(task, every)
    times = evaluation_passes(evaluator, task) / evaluation_passes(short, part)
    seconds, side = measured(short, part, space, pool, samples)
    mean = times * sum(seconds) / len(seconds)
    told = (
        f"{name}: {mean:,.3g} s a child ({len(seconds)} measured, {side} side by side, {few} of "
        f"{epochs} epochs with {len(part.train):,} of {len(task.train):,} images, multiplied out)"
    )
    if pool.gpus:
        return Rate(mean, mean * pool.gpus, told)
    paper = PAPER_PASSES * _operations("wrn-40-2", PAPER_CLASSES, (3, PAPER_SIDE, PAPER_SIDE))
    work = evaluation_passes(evaluator, task) * operations
    gpu = work / paper * IMAGENET.gpu_seconds_per_evaluation
    told += (
        f"; {gpu:,.3g} s of a Tesla P100 at the pace of the paper's search, by floating-point "
        "operations (small children keep a GPU less busy)"
    )
    return Rate(mean, gpu, told)


def _thinned(task: ProxyTask, every: int) -> ProxyTask:
    """The task with every so many-th of the images to train and to validate on."""

    def thin(images: ImageSet) -> ImageSet:
        return ImageSet(images.images[::every], images.labels[::every])

    return replace(task, train=thin(task.train), validation=thin(task.validation))


def _operations(model: str, classes: int, shape: tuple[int, ...]) -> int:
    """Floating-point operations of one image through a model, forward."""
    child = make_child(model, shape[0], classes, 0, torch.device("cpu")).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        child(torch.zeros(1, *shape))
    return counter.get_total_flops()
