"""Search a policy for a network, a loss and a data set of your own.

python examples/own_model_and_loss.py --evaluations 100 --out runs/own
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models import resnet18

from search import Config, run_search


class Shapes(Dataset):
    """Discs, squares and crosses of any size, place and brightness, on noise."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        draw = torch.Generator().manual_seed(1_000_000 * self.seed + index)
        left, top, size, bright = torch.rand(4, generator=draw) * torch.tensor([16, 16, 8, 0.4])
        x = (torch.arange(32)[None, :] - 8 - left).abs() / (4 + size)
        y = (torch.arange(32)[:, None] - 8 - top).abs() / (4 + size)
        square = (x < 1) & (y < 1)
        inside = (x**2 + y**2 < 1, square, square & ((x < 0.3) | (y < 0.3)))[index % 3]
        return 0.5 * torch.rand(3, 32, 32, generator=draw) + (0.1 + bright) * inside, index % 3


def data_sets() -> tuple[Shapes, ...]:
    return tuple(Shapes(600, seed) for seed in range(3))  # train, validation, test


def network(num_classes: int, channels: int) -> nn.Module:
    return resnet18(num_classes=num_classes, norm_layer=partial(nn.GroupNorm, 8))


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)


if __name__ == "__main__":  # the workers import this file
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("evaluations", 100), ("epochs", 20), ("train-images", 300)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", default="runs/own")
    given = vars(parser.parse_args())
    out = given.pop("out")
    recipe = {"loss": loss, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05}
    own = {"task": data_sets, "evaluator_options": {"model": network, "recipe": recipe}}
    config = Config.of("search", evaluator="from-scratch", **own, **given)
    print(run_search(config, out).policy.to_text())
