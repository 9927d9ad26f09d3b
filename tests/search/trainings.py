"""Small trainings for tests: everything in them draws, and they die where they are told to.

    python -m tests.search.trainings

records one that died after its second epoch, from which every later version must go on (`make
golden` does). Do so only when a change of the format is meant.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from search import Config, run_train
from search.studies import train as study

HERE = "tests.search.trainings"
GOLDEN = Path(__file__).parent.parent / "golden" / "training"
EPOCHS = 4
# Everything that draws: mixing, erasing, repeated augmentation, dropout; and an average of weights.
OPTIONS = {
    "policy": "imagenet", "epochs": EPOCHS, "train_images": 40, "validation_images": 40,
    "test_images": 40, "batch_size": 16, "device": "cpu", "precision": "float32",
    "model": f"{HERE}:Dropping", "schedule": "cosine", "warmup": 0.1, "lr": 0.05, "ema": 0.5,
    "mixup": 0.2, "cutmix": 1.0, "erase": 0.3, "copies": 2, "smoothing": 0.1,
}  # fmt: skip


class Dropping(nn.Sequential):
    def __init__(self, num_classes: int, channels: int):
        super().__init__(
            nn.Conv2d(channels, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(0.3), nn.Linear(72, num_classes),
        )  # fmt: skip


class Opaque(torch.optim.SGD):
    """Keeps a state that no file should hold."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            group["memory"] = Path("here")


def config(**options) -> Config:
    return Config.of("train", **{**OPTIONS, **options})


def weights(out: Path) -> dict[str, bytes]:
    names = ("best.pt", "last.pt", "best.json", "last.json")
    return {name: (out / name).read_bytes() for name in names}


def rows(out: Path) -> list[dict]:
    """The lines of the log without the times."""
    lines = (out / study.EPOCHS_NAME).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]


def arguments(**options) -> list[str]:
    given = {**OPTIONS, **options}
    words: list[str] = []
    for name, value in given.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    return words


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def kill(monkeypatch, where, name: str, call: int, after: bool) -> None:
    """Die before or after the `call`-th time that `where.name` is called."""
    real, calls = getattr(where, name), iter(range(1, 10_000))

    def deadly(*args, **kwargs):
        now = next(calls) == call
        if now and not after:
            raise Killed
        result = real(*args, **kwargs)
        if now:
            raise Killed
        return result

    monkeypatch.setattr(where, name, deadly)


def die_after_two_epochs(out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, study, "_write_log", 2, True)
        with pytest.raises(Killed):
            run_train(config(), out, progress=False)


def record() -> None:
    with tempfile.TemporaryDirectory() as folder:
        die_after_two_epochs(Path(folder) / "run")
        shutil.rmtree(GOLDEN, ignore_errors=True)
        shutil.copytree(
            Path(folder) / "run", GOLDEN, ignore=shutil.ignore_patterns(".*", "run.log")
        )


if __name__ == "__main__":
    # Under its own name, by which the model is found again.
    from tests.search import trainings

    trainings.record()
