"""Presets: child model, schedule and usual evaluator, resolved per task.

`paper`  AutoAugment (arXiv 1805.09501): Wide-ResNet-40-2, SGD with Nesterov momentum 0.9, one
         cosine cycle; 120 epochs, lr 0.01, weight decay 1e-4 for CIFAR-10 and SVHN; 200 epochs,
         lr 0.1, weight decay 1e-5 for ImageNet. The batch size is not given; 128 is the value of
         the authors' CIFAR code. Needs a GPU to be practical.
`cpu`    a small ConvNet, few images and many epochs: the regime in which augmentation visibly
         matters (on 4,000 CIFAR-10 images × 20 epochs no augmentation wins). On 1,000 CIFAR-10
         images a child takes about 10 core seconds and the published CIFAR-10 policy gains 6.9
         points of test accuracy over crop and flip (50.7 -> 57.6, two seeds).

The numbers of images and epochs were chosen with such gains on *test* images in view: they say
that augmentation matters in that setting, and are no unbiased estimate of how much.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from policies.errors import check_choice

# What a preset's `loss` and `optimizer` may be by name; all else is an import path.
LOSSES = ("cross-entropy", "binary-cross-entropy")
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Preset:
    """How a child is trained from scratch, and by which evaluator a search usually ranks policies.

    `train_images`: total the preset is meant for (None: the task's own default). `lr` is the peak,
    see `training.LearningRate`. `pad`: pixels of zero padding around the random crop. `evaluator`
    is what `augsearch fidelity` found fit for the task. The rest is
    told by the options of `recipe.Recipe`, which change a preset field by field.
    """

    name: str
    model: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: str
    warmup: float = 0.0
    momentum: float = 0.9
    pad: int = 4
    final_lr: float = 0.0
    optimizer: str = "sgd"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    loss: str = "cross-entropy"
    smoothing: float = 0.0
    threshold: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0
    copies: int = 1
    ema: float = 0.0
    evaluator: str = "from-scratch"
    train_images: int | None = None


PAPER_CIFAR = Preset("paper", "wrn-40-2", 120, 128, 0.01, 1e-4, "cosine")
PAPER_IMAGENET = Preset("paper", "wrn-40-2", 200, 128, 0.1, 1e-5, "cosine")
CPU = Preset(
    "cpu",
    "convnet",
    80,
    128,
    0.2,
    5e-4,
    "one-cycle",
    warmup=0.3,
    evaluator="weight-sharing",
    train_images=1000,
)

# Tasks that are not named take the entry "*".
PRESETS: dict[str, dict[str, Preset]] = {
    "paper": {"*": PAPER_CIFAR, "reduced-imagenet": PAPER_IMAGENET},
    "cpu": {
        "*": CPU,
        # All 6,000 images: 64 core seconds a child, and RandAugment(2, 9) gains 2.5 points over
        # crop and flip (23.4 -> 25.9, one seed); with 40 epochs only 1.1. With 2,400 images: 27
        # core seconds and 3.2 points (13.1 -> 16.3).
        "reduced-imagenet": dataclasses.replace(CPU, train_images=None),
        # Fashion-MNIST is easy: with 200 images the published CIFAR-10 policy gains 2.5 points of
        # test accuracy over crop and flip, with 1,000 images 1.2. No shared child ranks policies
        # on it.
        "reduced-fashion": dataclasses.replace(
            CPU, train_images=200, epochs=150, evaluator="from-scratch"
        ),
        "synthetic": dataclasses.replace(CPU, evaluator="synthetic", train_images=None),
    },
}


def get_preset(name: str, task: str) -> Preset:
    """The preset called `name` as it is for the task called `task`. Raises InputError."""
    check_choice("preset", name, PRESETS)
    return PRESETS[name].get(task, PRESETS[name]["*"])
