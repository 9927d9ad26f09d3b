"""Ready pipelines for a user's own training with torchvision v2: crop, flip -> policy -> erase.

    train, evaluate = autoaugment(224)
    dataset = ImageFolder("train", transform=train)

or faster, with the same steps for a whole batch, on images that are decoded once:

    ready = autoaugment(224)
    photographs = DecodedImages(ImageFolder("train", loader=decode_image), 256, "train-256")
    loader = DataLoader(photographs, 128, shuffle=True, collate_fn=ready.collate())

Top-1 accuracy of ResNet-50 on ImageNet, in per cent, as published. Recipes and lengths of training
differ between papers, so compare within a row's source:

===================  ==========  =================================================================
pipeline             accuracy    source
===================  ==========  =================================================================
``baseline``         76.3        AutoAugment, arXiv:1805.09501
``autoaugment``      77.6        AutoAugment, arXiv:1805.09501
``randaugment``      77.6        RandAugment, arXiv:1909.13719, N = 2, M = 9
``trivialaugment``   78.1        TrivialAugment, arXiv:2103.10158
baseline + CutMix    78.6        CutMix, arXiv:1905.04899 (its own baseline 76.3)
===================  ==========  =================================================================

CutMix and MixUp work on batches: see `proxy_tasks.mixing.make_mix` and examples/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2

from policies import (
    IMAGENET,
    Policy,
    PolicyCollate,
    RandAugment,
    ScheduleTransform,
    TrivialAugmentWide,
)
from policies.augmentations import Augmentation, as_transform
from policies.collate import IMAGENET_MEAN, IMAGENET_STD
from policies.errors import InputError, check_integer
from policies.images import check_mode

from .mixing import erase as erase_each

RESIZE = 256 / 224  # the evaluation's shorter side before the centre crop, in crops


@dataclass(frozen=True)
class Pipelines:
    """What images go through: PIL or uint8 [C, H, W] -> float32 [C, size, size], normalised.

    It unpacks into train and evaluate.

    Attributes:
        train: random, one image at a time.
        evaluate: the same for every call, without any policy.
        collate: makes a DataLoader's collate_fn, which does what `train` does to whole batches,
            each image drawing for itself: `PolicyCollate`, then random erasing. Samples are images
            or (image, label...), decoded but else as they are. It mirrors after the augmentation,
            not before. Raises InputError for an augmentation that is neither a Policy, a Transform
            of operations nor None.
    """

    train: Callable[[Any], torch.Tensor]
    evaluate: Callable[[Any], torch.Tensor]
    collate: Callable[[], Callable[[Any], Any]]

    def __iter__(self) -> Iterator[Callable[[Any], torch.Tensor]]:
        return iter((self.train, self.evaluate))


@dataclass(frozen=True)
class _Batches:
    """The steps of training for a DataLoader: samples -> float32 [N, C, size, size], and labels."""

    prepare: PolicyCollate
    erase: float

    def __call__(self, samples: Sequence[Any]) -> Any:
        made = self.prepare(samples)
        images, *rest = made if isinstance(made, tuple) else (made,)
        if self.erase:
            images = erase_each(images, self.erase)
        return (images, *rest) if rest else images


def pipelines(
    augmentation: Augmentation,
    size: int = 224,
    *,
    erase: float = 0.0,
    flip: bool = True,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Pipelines:
    """Training and evaluation under any augmentation, e.g. a policy that was found.

    Training: a random resized crop (8 to 100 % of the area, sides 3:4 to 4:3) to `size` pixels
    and a horizontal flip, the augmentation, normalisation, random erasing. Evaluation: the shorter
    side to 8/7 of `size`, the centre crop, normalisation. Both antialiased bilinear.

    Args:
        augmentation: a Policy (paper convention), a Transform, or None.
        size: side of the network's input in pixels.
        erase: probability of random erasing.
        flip: False where a mirrored image is of another class (digits).
        mean, std: of the channels, on a scale of 0 to 1; of one channel for grey images.

    Raises:
        InputError: for a schedule, which an image cannot know the epoch of, and numbers out of
            their range.
    """
    if isinstance(augmentation, ScheduleTransform):
        raise InputError(
            "augmentation", "must be the same in all epochs", augmentation,
            "make a pipeline of schedule.at_epoch(epoch, epochs) in each epoch",
        )  # fmt: skip
    check_integer("size", size, 8)
    if not 0 <= erase <= 1:
        raise InputError("erase", "must be a probability in 0..1", erase, "e.g. 0.25")
    policy = as_transform(augmentation)
    if policy is not None and not callable(policy):
        raise InputError(
            "augmentation", "must be a Policy, what is called with an image, or None", augmentation,
            "a table of rows is made one by policies.Policy(rows)",
        )  # fmt: skip
    numbers = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    train: list[Callable] = [_checked, v2.RandomResizedCrop(size, antialias=True)]
    train += [v2.RandomHorizontalFlip()] if flip else []
    train += [v2.PILToTensor()]
    train += [policy] if policy is not None else []
    train += numbers
    train += [v2.RandomErasing(erase)] if erase else []
    held = [
        _checked,
        v2.Resize(round(RESIZE * size), antialias=True),
        v2.CenterCrop(size),
        v2.PILToTensor(),
    ]
    return Pipelines(
        v2.Compose(train), v2.Compose(held + numbers),
        lambda: _Batches(
            PolicyCollate(augmentation, size, mean=mean, std=std, flip=0.5 if flip else 0.0), erase
        ),
    )  # fmt: skip


def _checked(image: Any) -> Any:
    """The image; InputError for a PIL image whose numbers are no colours, as of a palette."""
    if isinstance(image, Image.Image):
        check_mode(image)
    return image


def baseline(size: int = 224, **options: Any) -> Pipelines:
    """Crop and flip only. ResNet-50 on ImageNet: 76.3 % (arXiv:1805.09501). See `pipelines`."""
    return pipelines(None, size, **options)


def autoaugment(size: int = 224, policy: Policy = IMAGENET, **options: Any) -> Pipelines:
    """The published ImageNet policy. ResNet-50: 77.6 % (arXiv:1805.09501). See `pipelines`."""
    return pipelines(policy, size, **options)


def randaugment(size: int = 224, n: int = 2, m: int = 9, **options: Any) -> Pipelines:
    """RandAugment. ResNet-50, N = 2, M = 9: 77.6 % (arXiv:1909.13719). See `pipelines`."""
    return pipelines(RandAugment(n, m), size, **options)


def trivialaugment(size: int = 224, **options: Any) -> Pipelines:
    """TrivialAugment, wide. ResNet-50: 78.1 % (arXiv:2103.10158). See `pipelines`."""
    return pipelines(TrivialAugmentWide(), size, **options)
