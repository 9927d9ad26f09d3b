"""Make reduced-fashion.npz from Debian's package dataset-fashion-mnist.

    apt-get download dataset-fashion-mnist
    dpkg -x dataset-fashion-mnist_*.deb unpacked
    python -m proxy_tasks.embedded.make_fashion unpacked/usr/share/datasets/fashion-mnist

4,000 search-train and 1,000 validation images from the official training set and 2,000 test
images from the official test set, the same number of each class, drawn with seed 0. The numbers
of the images in the official files are kept beside them. Byte for byte reproducible.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

COUNTS = {  # part: (official part, images skipped, images taken)
    "train": ("train", 0, 4000),
    "validation": ("train", 4000, 1000),
    "test": ("t10k", 0, 2000),
}
CLASSES = 10


def read_idx(path: Path) -> np.ndarray:
    """A gzipped IDX file of unsigned bytes (big-endian header: magic, sizes)."""
    data = gzip.decompress(path.read_bytes())
    dimensions = data[3]
    sizes = np.frombuffer(data, ">u4", dimensions, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def main(folder: Path, out: Path) -> None:
    arrays = {}
    for part, (official, skip, count) in COUNTS.items():
        images = read_idx(folder / f"{official}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{official}-labels-idx1-ubyte.gz")
        rng = np.random.default_rng(0)
        per_class = slice(skip // CLASSES, (skip + count) // CLASSES)
        chosen = [rng.permutation(np.flatnonzero(labels == c))[per_class] for c in range(CLASSES)]
        numbers = np.sort(np.concatenate(chosen))
        arrays[f"{part}_images"] = images[numbers]
        arrays[f"{part}_labels"] = labels[numbers]
        arrays[f"{part}_numbers"] = numbers.astype(np.uint16)
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "reduced-fashion.npz")
