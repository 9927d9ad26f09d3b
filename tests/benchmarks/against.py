"""A child, a weight-sharing evaluation and the policies, beside an older checkout, interleaved.

    python -m tests.benchmarks.against --against /path/to/checkout [--data FOLDER] [--rounds 7]

Each code runs in a process of its own, one thread, and does a piece of work when it is asked, by
turns; CPU time of that thread, medians and quartiles, and the ratio of the medians. A share of the
core's peak is the convolutions' arithmetic (21.9 MFLOP an image and step at 32 x 32) over a large
bfloat16 product in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EPOCHS = 4  # of a child from scratch, each round; the preset's number costs that many times more
SIZES = {32: 512, 64: 256, 224: 64}
MFLOP = 21.9


def workloads(kernels: str, data: str | None) -> dict[str, Callable[[], Any]]:
    """What one code can be asked for; runs in the process of that code."""
    import numpy as np
    import torch

    import policies
    from proxy_tasks import EvaluatorConfig, get_task, make_evaluator

    torch.set_num_threads(1)
    counts = {"train_images": 1000, "validation_images": 1000, "test_images": 1000}
    task = get_task("folder" if data else "reduced-fashion", data, **counts)
    more = {} if kernels == "old" else {"kernels": kernels}
    scratch = make_evaluator(EvaluatorConfig("from-scratch", epochs=EPOCHS, **more), task)
    sharing = make_evaluator(
        EvaluatorConfig("weight-sharing", options={"shared_epochs": 4}, **more), task
    )
    if kernels == "old":  # it keeps its child in a folder
        with tempfile.TemporaryDirectory() as folder:
            sharing.prepare(Path(folder))
    else:
        sharing.prepare()
    square = torch.randn(1024, 1024).bfloat16()
    work: dict[str, Callable[[], Any]] = {
        f"child, {EPOCHS} epochs": lambda: scratch.evaluate(policies.CIFAR10, 0),
        "weight-sharing evaluation": lambda: sharing.evaluate(policies.CIFAR10, 0),
        "bfloat16 product": lambda: square @ square,
    }
    rng = np.random.default_rng(0)
    named = {
        "ImageNet policy": policies.PolicyTransform(policies.IMAGENET),
        "RandAugment(2, 9)": policies.RandAugment(2, 9),
        "TrivialAugmentWide": policies.TrivialAugmentWide(),
    }
    for size, count in SIZES.items():
        images = torch.from_numpy(rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8))
        for name, transform in named.items():
            work[f"{name} at {size}"] = lambda t=transform, x=images: t(x)
    return work


def serve(kernels: str, data: str | None) -> None:
    """Answers each line on stdin, the name of a workload, with its seconds."""
    work = workloads(kernels, data)
    print(json.dumps(list(work)), flush=True)
    for line in sys.stdin:
        started = time.thread_time()
        work[line.rstrip("\n")]()
        print(time.thread_time() - started, flush=True)


class Code:
    """A process that runs the workloads on one checkout."""

    def __init__(self, root: Path, kernels: str, data: str | None) -> None:
        command = [
            sys.executable,
            __file__,
            "--serve",
            kernels,
            *(["--data", data] if data else []),
        ]
        # The cache of compiled kernels must not be shared: both have files of the same name.
        environment = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS="1")
        self.process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.names = json.loads(self._line())

    def _line(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended with {self.process.wait()}")
        return line

    def seconds(self, name: str) -> float:
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(self._line())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="folder of the older checkout")
    parser.add_argument("--data", help="folder train/<class>/ test/<class>/ (1,000 images used)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.data)
    if options.against is None:
        parser.error("--against is missing")
    # Here: a process that serves an older checkout must not look for it there.
    from tests.benchmarks.machine import keep

    here = Path(__file__).parents[2]
    codes = {
        "old": Code(options.against.resolve(), "old", options.data),
        "plain": Code(here, "plain", options.data),
        "fused": Code(here, "fused", options.data),
    }
    names = codes["old"].names
    times: dict[str, dict[str, list[float]]] = {n: {c: [] for c in codes} for n in names}
    for number in range(options.rounds + 1):
        for name in names:
            for label, code in codes.items():
                seconds = code.seconds(name)
                if number:  # the first round fills caches
                    times[name][label].append(seconds)
    median = {n: {c: statistics.median(v) for c, v in row.items()} for n, row in times.items()}
    print(f"{options.rounds} interleaved rounds on {platform.processor() or platform.machine()}")
    print("| ms of CPU time | old | plain | fused | old / plain | old / fused |\n|" + "---|" * 6)
    for name, row in median.items():
        cells = []
        for label in codes:
            low, _, high = statistics.quantiles(times[name][label], n=4, method="inclusive")
            cells.append(f"{row[label] * 1e3:.2f} ({low * 1e3:.2f} to {high * 1e3:.2f})")
        ratios = [f"{row['old'] / row[label]:.2f}" for label in ("plain", "fused")]
        print(f"| {name} | {' | '.join(cells + ratios)} |")
    child = median[f"child, {EPOCHS} epochs"]
    for label in codes:
        peak = 2 * 1024**3 / median["bfloat16 product"][label]
        share = EPOCHS * 1000 * MFLOP * 1e6 / child[label] / peak
        print(f"{label}: {share:.1%} of the bfloat16 product's {peak / 1e9:.0f} GFLOP/s")
    keep("against", {"older": str(options.against), "CPU seconds": times}, 0)


if __name__ == "__main__":
    main()
