"""A user's input pipeline at 224: JPEG files to normalised batches, beside torchvision's.

    python -m tests.benchmarks.pipeline --data FOLDER [--rounds 7]

One process, one thread; its CPU time an image, medians of interleaved rounds. FOLDER holds JPEGs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from policies import IMAGENET, DecodedImages, PolicyCollate, decode_image
from policies.collate import IMAGENET_MEAN, IMAGENET_STD
from tests.benchmarks.machine import keep


class Files(Dataset):
    """Image files through a loader and, if given, a transform; and their number."""

    def __init__(self, files: list[Path], load: Callable, transform: Callable | None = None):
        self.files, self.load, self.transform = files, load, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        image = self.load(self.files[index])
        return (image if self.transform is None else self.transform(image)), index


def pillow(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=160, help="of an epoch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = sorted(p for p in options.data.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    files = [found[i % len(found)] for i in range(options.images)]
    start = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    end = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    decoded = Files(files, decode_image)
    with tempfile.TemporaryDirectory() as folder:
        kept = DecodedImages(decoded, 256, Path(folder) / "pixels", progress=False)

        def ours(dataset: Dataset, policy=IMAGENET) -> DataLoader:
            return DataLoader(dataset, 64, collate_fn=PolicyCollate(policy, 224))

        def theirs(*policy: Callable) -> DataLoader:
            steps = transforms.Compose([*start, *policy, *end])
            return DataLoader(Files(files, pillow, steps), 64)

        arms = {
            "torchvision AutoAugment": theirs(transforms.AutoAugment()),
            "torchvision, no policy": theirs(),
            "PolicyCollate, Pillow": ours(Files(files, pillow)),
            "PolicyCollate, Pillow, no policy": ours(Files(files, pillow), None),
            "PolicyCollate, decode_image": ours(decoded),
            "PolicyCollate, DecodedImages": ours(kept),
            "PolicyCollate, DecodedImages, no policy": ours(kept, None),
        }
        times: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(options.rounds + 1):
            for name, loader in arms.items():
                started = time.thread_time()
                for _ in loader:
                    pass
                if number:
                    times[name].append((time.thread_time() - started) / len(files) * 1e6)
    keep("pipeline", {"images": len(files), "us an image": times}, None)
    median = {name: statistics.median(values) for name, values in times.items()}
    base = median["torchvision AutoAugment"]
    rows = [[name, f"{v:,.0f}", f"{base / v:.2f}"] for name, v in median.items()]
    print(tabulate(rows, ["pipeline", "µs an image", "times torchvision"], "github"))
    # Beside the cached pipeline, where little else hides it.
    policy = (
        median["PolicyCollate, DecodedImages"] - median["PolicyCollate, DecodedImages, no policy"]
    )
    print(
        f"the policy: {policy:.0f} µs, {policy / median['PolicyCollate, Pillow']:.1%} of Pillow's"
    )


if __name__ == "__main__":
    main()
