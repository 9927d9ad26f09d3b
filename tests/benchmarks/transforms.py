"""Transforms side by side: torchvision v1 and v2, timm, kornia and ours, one process, one thread.

    python -m tests.benchmarks.transforms --data FOLDER

Everybody gets the same photographs (the largest files of FOLDER), every image draws for itself
(kornia: one policy a batch). Processor time of the one thread is measured, so that other load on
the machine counts little; repetitions are interleaved and the median is taken: the ratios of one
run are comparable where absolute figures of two runs are not. Only the DataLoader table is wall
time. timm interpolates by nearest neighbour here, as the others do. Peers that are not installed
are reported as such.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from PIL import Image
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

from policies import IMAGENET, OPS, PolicyTransform, RandAugment, TrivialAugmentWide
from tests.benchmarks.machine import keep

BATCH = {32: 512, 64: 256, 224: 64}
COPIES = {32: 20, 64: 10, 224: 5}
OURS = {
    "ImageNet policy": PolicyTransform(IMAGENET),
    "RandAugment(2, 9)": RandAugment(2, 9),
    "TrivialAugmentWide": TrivialAugmentWide(),
}
TORCHVISION = {
    "ImageNet policy": ("AutoAugment", {}),
    "RandAugment(2, 9)": ("RandAugment", {"num_ops": 2, "magnitude": 9}),
    "TrivialAugmentWide": ("TrivialAugmentWide", {}),
}
MISSING = "not installed"


# ---------------------------------------------------------------------------------- images


def photographs(folder: Path | None, count: int = 64) -> list[Image.Image]:
    """Square RGB photographs: the largest files of ``folder``, or generated ones without it."""
    if folder is None:
        return [_generated(seed) for seed in range(count)]
    endings = (".jpg", ".jpeg", ".png")
    files = [p for p in folder.rglob("*") if p.suffix.lower() in endings]
    files.sort(key=lambda p: (-p.stat().st_size, p.name))
    if not files:
        raise SystemExit(f"no images in {folder}")
    return [_square(Image.open(p).convert("RGB")) for p in files[:count]]


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _generated(seed: int) -> Image.Image:
    """Something with a photograph's histogram and smoothness: noise at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((384, 384, 3))
    for scale in (4, 12, 48, 192):
        noise = rng.normal(size=(scale, scale, 3)) / scale**0.5
        for c in range(3):
            layer = Image.fromarray(noise[..., c].astype(np.float32))
            total[..., c] += np.asarray(layer.resize((384, 384), Image.Resampling.BICUBIC))
    total = 110 + 55 * total / total.std()
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


# ---------------------------------------------------------------------------------- timing


TIMES: dict[str, dict[str, list[float]]] = {}  # seconds by table and contestant, for the file


def interleaved(
    table: str,
    contestants: dict[str, Callable],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Median seconds of each; the first call, which may compile something, is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()
    for _ in range(repeats):
        for name, run in contestants.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    TIMES[table] = times
    return {name: statistics.median(values) for name, values in times.items()}


def _each(transform: Callable, images: list) -> Callable:
    return lambda: [transform(image) for image in images]


def _timm(scheme: str) -> Callable | None:
    try:
        from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
    except ImportError:
        return None
    options = {"interpolation": Image.Resampling.NEAREST, "img_mean": (0, 0, 0)}
    if scheme == "ImageNet policy":
        return auto_augment_transform("original", options)
    if scheme == "RandAugment(2, 9)":
        return rand_augment_transform("rand-m9-n2-p1.0", options)
    return None


def _kornia(scheme: str) -> Callable | None:
    try:
        from kornia.augmentation import auto
    except ImportError:
        return None
    if scheme == "ImageNet policy":
        return auto.AutoAugment("imagenet")
    if scheme == "RandAugment(2, 9)":
        return auto.RandAugment(n=2, m=9)
    return auto.TrivialAugment()


def _installed(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def schemes(photos: list[Image.Image], repeats: int) -> None:
    """Images a second of every contestant, and ours over the fastest peer."""
    rows = []
    for scheme, ours in OURS.items():
        for size, n in BATCH.items():
            pils = [photos[i % len(photos)].resize((size, size)) for i in range(n)]
            batch = torch.stack([v2.functional.pil_to_tensor(image) for image in pils])
            some = n if size == 224 else n // 4  # one at a time is slow: fewer will do
            few, tensors = pils[:some], list(batch[:some])
            name, options = TORCHVISION[scheme]
            contestants = {
                "torchvision v1, PIL": _each(getattr(v1, name)(**options), few),
                "torchvision v2, tensor": _each(getattr(v2, name)(**options), tensors),
                "ours, batch": lambda ours=ours, batch=batch: ours(batch),
                "ours, PIL": _each(ours, few),
            }
            timm, kornia = _timm(scheme), _kornia(scheme)
            if timm:
                contestants["timm, PIL"] = _each(timm, few)
            if kornia:
                floats = batch[:some].float() / 255
                contestants["kornia, float batch"] = lambda t=kornia, x=floats: t(x)
            seconds = interleaved(f"{scheme} at {size}", contestants, repeats)
            rate = {k: (n if k == "ours, batch" else some) / s for k, s in seconds.items()}
            peers = {k: r for k, r in rate.items() if not k.startswith("ours")}
            best = max(peers.values())
            empty = {
                "timm, PIL": "–" if _installed("timm") else MISSING,
                "kornia, float batch": "–" if _installed("kornia") else MISSING,
            }
            cells = [
                f"{rate[k]:,.0f}" if k in rate else empty[k]
                for k in ("torchvision v1, PIL", "torchvision v2, tensor", "timm, PIL",
                          "kornia, float batch", "ours, PIL", "ours, batch")
            ]  # fmt: skip
            rows.append(
                [scheme, size, *cells, f"{rate['ours, batch'] / best:.1f}×",
                 f"{rate['ours, PIL'] / rate['torchvision v1, PIL']:.1f}×"]
            )  # fmt: skip
    headers = [
        "images/s", "pixels", "torchvision v1, PIL", "torchvision v2, tensor", "timm, PIL",
        "kornia, float batch", "ours, PIL", "ours, batch", "batch / fastest peer",
        "PIL / torchvision PIL",
    ]  # fmt: skip
    _table("Whole transforms, one thread", headers, rows)


def operations(photos: list[Image.Image], repeats: int) -> None:
    """Microseconds an image, magnitude 8, against torchvision v1 on PIL at 224; and in memcpys: how
    many plain copies of the batch, in the same rounds, take as long."""
    seconds: dict[str, dict[int, float]] = {name: {} for name in OPS}
    peer, copies = {}, {}
    for size, n in BATCH.items():
        pils = [photos[i % len(photos)].resize((size, size)) for i in range(n)]
        batch = torch.stack([v2.functional.pil_to_tensor(image) for image in pils])
        plain, target = batch.numpy(), np.empty(batch.shape, np.uint8)
        many = range(COPIES[size])  # one alone is too short for the clock
        contestants = {"memcpy": lambda s=plain, t=target, r=many: [np.copyto(t, s) for _ in r]}
        for name in OPS:
            transform = PolicyTransform([[(name, 1.0, 8)]])
            contestants[name] = lambda t=transform, x=batch: t(x)
        if size == 224:
            space = v1.AutoAugment()._augmentation_space(10, (size, size))
            for name, (magnitudes, _) in space.items():
                m = float(magnitudes[8]) if magnitudes.ndim else 0.0
                contestants["torchvision " + name] = lambda name=name, m=m, pils=pils: [
                    v1.autoaugment._apply_op(p, name, m, v1.InterpolationMode.NEAREST, None)
                    for p in pils
                ]
        for name, value in interleaved(f"operations at {size}", contestants, repeats).items():
            if name == "memcpy":
                copies[size] = value / COPIES[size] / n * 1e6
            elif name.startswith("torchvision "):
                peer[name.removeprefix("torchvision ")] = value / n * 1e6
            else:
                seconds[name][size] = value / n * 1e6
    rows = [
        [name, *(f"{v:.1f}" for v in values.values()), f"{values[224] / copies[224]:.1f}",
         f"{peer[name]:.1f}" if name in peer else "–",
         f"{peer[name] / values[224]:.1f}×" if name in peer else "–"]
        for name, values in seconds.items()
    ]  # fmt: skip
    rows.append(["memcpy", *(f"{copies[s]:.2f}" for s in BATCH), "1", "–", "–"])
    headers = [
        "µs an image", *(f"ours, {s}" for s in BATCH), "memcpys, 224", "torchvision PIL, 224",
        "ratio, 224",
    ]  # fmt: skip
    _table("Single operations, one thread", headers, rows)


def memory() -> None:
    """Peak above input and output, in batches, of 256 images at 224; in a process of its own."""
    code = """
        import torch, policies
        def status(field):
            line = next(l for l in open("/proc/self/status") if l.startswith(field))
            return int(line.split()[1]) * 1024
        transform = policies.PolicyTransform(policies.IMAGENET)
        transform(torch.zeros(2, 3, 224, 224, dtype=torch.uint8))
        images = torch.randint(0, 256, (256, 3, 224, 224), dtype=torch.uint8)
        for given in (images, images.contiguous(memory_format=torch.channels_last)):
            before = status("VmRSS")
            result = transform(given)
            print((status("VmHWM") - before) / images.numel() - 1)
            del result
    """
    print("\n### Memory\n")
    if not Path("/proc/self/status").exists():
        print("not measured: needs Linux's /proc")
        return
    root = Path(__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=root, check=True, capture_output=True,
        text=True,
    ).stdout.split()  # fmt: skip
    plain, last = (max(float(v), 0.0) for v in out)
    print(
        f"Peak above input and output at 224 × 224: {plain:.2f} batches "
        f"({last:.2f} for channels-last input)."
    )


# ---------------------------------------------------------------------------------- DataLoader


class Jpegs(Dataset):
    """JPEG bytes -> decode, random crop to 224, flip, policy, tensor."""

    def __init__(self, data: list[bytes], n: int, policy: Callable | None) -> None:
        steps = [v2.RandomCrop(224, pad_if_needed=True), v2.RandomHorizontalFlip()]
        steps += [policy] if policy else []
        self.data, self.n = data, n
        self.transform = v1.Compose([*steps, v2.functional.pil_to_tensor])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(io.BytesIO(self.data[index % len(self.data)])).convert("RGB")
        return self.transform(image)


def _worker_init(_: int) -> None:
    torch.set_num_threads(1)


def loaders(photos: list[Image.Image], repeats: int, n: int) -> None:
    """A real input pipeline: 4 workers, images of 256 pixels as JPEG."""
    data = []
    for photo in photos:
        stream = io.BytesIO()
        photo.resize((256, 256)).save(stream, "JPEG", quality=90)
        data.append(stream.getvalue())

    def run(policy: Callable | None, batched: Callable | None = None) -> Callable:
        loader = DataLoader(
            Jpegs(data, n, policy), batch_size=64, num_workers=4, worker_init_fn=_worker_init,
            persistent_workers=True, multiprocessing_context="fork" if os.name == "posix" else None,
        )  # fmt: skip

        def once() -> None:
            for batch in loader:
                if batched:
                    batched(batch)

        return once

    ours = OURS["ImageNet policy"]
    seconds = interleaved(
        "DataLoader",
        {
            "no policy": run(None),
            "torchvision v1 AutoAugment": run(v1.AutoAugment()),
            "torchvision v2 AutoAugment": run(v2.AutoAugment()),
            "ours, each image in a worker": run(ours),
            "ours, whole batches in the main process": run(None, ours),
        },
        repeats,
        time.perf_counter,
    )
    base = seconds["torchvision v1 AutoAugment"]
    plain = seconds["no policy"]
    rows = [
        [name, f"{n / s:,.0f}", f"{base / s:.2f}×", f"{max(s - plain, 0) / n * 1e6:.0f}"]
        for name, s in seconds.items()
    ]
    headers = ["DataLoader, 4 workers", "images/s", "over torchvision v1", "µs the policy adds"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    _table(f"JPEG decode, crop, flip, ImageNet policy at 224; {cores} cores", headers, rows)


def _table(title: str, headers: list[str], rows: list[list]) -> None:
    print(f"\n### {title}\n")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True), flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("AUGSEARCH_TEST_DATA"),
        help="folder of photographs (default: $AUGSEARCH_TEST_DATA, else generated images)",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repetitions [7]")
    parser.add_argument("--loader-images", type=int, default=1024, help="images an epoch [1024]")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Four workers on fewer cores is what the loader table is about.
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
    photos = photographs(Path(options.data) if options.data else None)
    source = f"{len(photos)} photographs" if options.data else "generated, photograph-like images"
    print(f"Transforms on {source}; medians of {options.repeats} interleaved repetitions.")
    schemes(photos, options.repeats)
    operations(photos, options.repeats)
    memory()
    loaders(photos, min(options.repeats, 5), options.loader_images)
    keep("transforms", {"images": source, "batch": BATCH, "seconds": TIMES}, {"torch": 0})


if __name__ == "__main__":
    main()
