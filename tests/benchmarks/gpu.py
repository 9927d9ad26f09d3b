"""Children an hour on one GPU with K trained at once, launches, and the shares of a step.

    python -m tests.benchmarks.gpu [--data FOLDER] [--preset cpu] [--rounds 3]   (make bench-gpu)
    python -m tests.benchmarks.gpu --count

Every K is trained with plain steps and with recorded ones (CUDA graphs), in turn; medians of the
rounds after a first one that is not counted. Without a GPU --count tells what can be known: the
operations that a step and an epoch ask of torch on the path that a GPU takes, counted on a CPU by
torch.profiler. Each is a launch or more; views and allocations are none.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from policies import PolicyTransform
from policies.together import transform_copies
from proxy_tasks import EvaluatorConfig, FromScratch, ProxyTask, get_task, make_evaluator
from proxy_tasks.batches import prepare_batch_torch
from search import PolicySpace, make_searcher
from tests.benchmarks.machine import keep

AT_ONCE = (1, 8, 32)
SEED = 0
# Operations of torch that launch nothing.
NOTHING = {
    f"aten::{name}"
    for name in (
        "alias as_strided chunk detach empty empty_like empty_strided expand flatten item "
        "lift_fresh narrow numpy_T permute reshape resize_ result_type select slice split "
        "squeeze t to transpose unbind unsafe_split unsqueeze view _unsafe_view "
        "_local_scalar_dense _reshape_alias is_nonzero new_empty_strided"
    ).split()
}
SHARES = {
    "convolutions and products": ("conv", "gemm", "cudnn", "cutlass", "wgrad", "dgrad", "xmma"),
    "batch norm": ("batch_norm", "bn_"),
    "pooling": ("pool",),
    "copies": ("memcpy", "memset", "copy"),
    "crop, flip, normalise, policy": ("index", "gather", "scatter", "pad"),
}


def policies(count: int) -> list:
    searcher = make_searcher("random", PolicySpace(), SEED)
    return [searcher.ask().augmentation for _ in range(count)]


def evaluator(task: ProxyTask, preset: str, device: str, kernels: str = "plain") -> FromScratch:
    made = make_evaluator(EvaluatorConfig(preset=preset, device=device, kernels=kernels), task)
    assert isinstance(made, FromScratch)
    return made


def train(made: FromScratch, count: int, epochs: int) -> None:
    made.epochs = epochs
    made.evaluate_together(policies(count), list(range(SEED, SEED + count)))


# Counting ----------------------------------------------------------------------------------------


def operations(work: Callable[[], object]) -> int:
    """How many operations of torch that launch something `work` asks for, on a CPU."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    return sum(
        event.name.startswith("aten::") and event.name not in NOTHING and not event.cpu_children
        for event in profiled.events()
    )


@contextlib.contextmanager
def as_on_a_gpu(made: FromScratch) -> Iterator[None]:
    """Torch's operations where a CPU has kernels of its own."""
    arena = made.arena
    with (
        mock.patch("proxy_tasks.training.prepare_batch", prepare_batch_torch),
        mock.patch.object(
            arena, "_augmented", lambda augments: transform_copies(augments, arena.images)
        ),
    ):
        yield


def counted(task: ProxyTask, preset: str) -> list[dict[str, Any]]:
    made = evaluator(task, preset, "cpu")
    batches = -(-len(task.train) // made.preset.batch_size)
    rows = []
    for count in AT_ONCE:
        augments = [PolicyTransform(each) for each in policies(count)]
        policy = operations(lambda a=augments: transform_copies(a, made.arena.images))
        with as_on_a_gpu(made):
            one, three = (operations(lambda e=e: train(made, count, e)) for e in (1, 3))  # noqa: B023
        epoch = (three - one) / 2
        rows.append({
            "children at once": count,
            "a step": round((epoch - policy) / batches),
            "the policies, an epoch": policy,
            "an epoch": round(epoch),
            "an epoch and child": round(epoch / count),
        })  # fmt: skip
    return rows


# On a GPU ----------------------------------------------------------------------------------------


def seconds(made: FromScratch, count: int) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    train(made, count, made.preset.epochs)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def shares(made: FromScratch, count: int) -> dict[str, float]:
    """Of the GPU's time in two epochs; how busy it is; launches a step."""
    train(made, count, 2)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    started = time.perf_counter()
    with profile(activities=activities) as profiled:
        train(made, count, 2)
        torch.cuda.synchronize()
    wall = time.perf_counter() - started
    spent: Counter[str] = Counter()
    launches = 0
    for event in profiled.key_averages():
        name = event.key.lower()
        if name.startswith(("cudalaunchkernel", "culaunchkernel", "cudagraphlaunch")):
            launches += event.count
        if event.device_type == torch.autograd.DeviceType.CUDA:
            kind = next((k for k, words in SHARES.items() if any(w in name for w in words)), "else")
            spent[kind] += event.self_device_time_total / 1e6
    total = sum(spent.values())
    found = {kind: spent[kind] / total for kind in (*SHARES, "else")}
    steps = 2 * -(-len(made.task.train) // made.preset.batch_size)
    return {**found, "GPU busy": total / wall, "launches a step": launches / steps}


def measured(task: ProxyTask, preset: str, rounds: int) -> list[dict[str, Any]]:
    arms = {
        (kernels, count): evaluator(task, preset, "cuda", kernels)
        for kernels in ("plain", "graphs")
        for count in AT_ONCE
    }
    times: dict[tuple[str, int], list[float]] = {arm: [] for arm in arms}
    for number in range(rounds + 1):
        for (kernels, count), made in arms.items():
            spent = seconds(made, count)
            if number:
                times[kernels, count].append(spent)
    rows = []
    for (kernels, count), made in arms.items():
        spent = times[kernels, count]
        rows.append({
            "steps": kernels,
            "children at once": count,
            "children an hour": round(3600 * count / statistics.median(spent)),
            **{name: round(value, 3) for name, value in shares(made, count).items()},
            "seconds": spent,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder train/<class>/ test/<class>/ (1,000 images used)")
    parser.add_argument("--preset", default="cpu", choices=["cpu", "paper"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", action="store_true", help="count operations; needs no GPU")
    options = parser.parse_args()
    if not options.count and not torch.cuda.is_available():
        raise SystemExit(
            "needs a GPU that torch can use (CUDA); --count counts the operations of a step without"
        )
    torch.set_num_threads(1)
    counts = {"train_images": 1000, "validation_images": 1000, "test_images": 1000}
    name = "folder" if options.data else "reduced-fashion"
    task = get_task(name, options.data, **counts)
    how = f"{len(task.train)} images {task.train.images.shape[1:]}, preset {options.preset}"
    if options.count:
        rows = counted(task, options.preset)
        print(f"operations asked of torch, counted on a CPU; {how}")
    else:
        rows = measured(task, options.preset, options.rounds)
        print(f"{torch.cuda.get_device_name()}; {how}")
    shown = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    print(tabulate(shown, headers="keys", tablefmt="github"))
    keep("gpu operations" if options.count else "gpu", {"what": how, "rows": rows}, SEED)


if __name__ == "__main__":
    main()
