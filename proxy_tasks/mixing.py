"""What a recipe does to a batch once it is normalised: erase, mix, and the loss of mixed labels.

Order: (policy, crop, flip, normalise) -> erase -> mix. All of it draws from torch's global
generator, which training seeds and puts back (`training.own_randomness`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.errors import InputError, check_choice
from policies.imports import check_call, is_import_path, resolve

from .presets import LOSSES

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


def erase(images: Tensor, probability: float) -> Tensor:
    """Random erasing (Zhong et al., arXiv:1708.04896) of float images [N, C, H, W], in place.

    Each image is hit with `probability`, in a rectangle of its own: 2 to 33 % of its area, sides
    in a ratio of 0.3 to 3.3, set to 0, which is the mean of normalised images. (torchvision's
    transform, which given a whole batch erases the same rectangle in all of it.)
    """
    # Here, since importing torchvision costs each worker a second and 100 MB, and few need it.
    from torchvision.transforms.v2 import RandomErasing

    hit = RandomErasing(p=1.0, inplace=True)
    for i in (torch.rand(len(images)) < probability).nonzero()[:, 0].tolist():
        hit(images[i])
    return images


def make_mix(mixup: float, cutmix: float, classes: int) -> Mix | None:
    """Mix a shuffled batch: (images [N, C, H, W], labels int64 [N]) -> (images, targets [N, K]).

    Args:
        mixup, cutmix: parameter of the Beta distribution of the images' shares, for MixUp
            (arXiv:1710.09412) and CutMix (arXiv:1905.04899); 0 leaves one out. With both, each
            batch draws one of them. All images of a batch get the same share, and CutMix's the
            same rectangle, as in both papers' own code.
        classes: K. A row of the targets holds the shares of the image's classes and sums to 1.

    Returns:
        None when both are 0.
    """
    if not mixup and not cutmix:
        return None
    from torchvision.transforms import v2

    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        if alpha
    ]
    return kinds[0] if len(kinds) == 1 else v2.RandomChoice(kinds)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over images of -sum_k t_k log softmax(logits)_k.

    targets: labels int64 [N], or shares [N, K]. Smoothing replaces t by (1 - s) t + s / K
    (arXiv:1512.00567).
    """
    return F.cross_entropy(logits, targets, label_smoothing=smoothing)


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, threshold: float | None = None
) -> Tensor:
    """Mean over images of the sum over classes of the logistic loss: each class is present or not.

    targets, smoothing: as for cross entropy. threshold: classes with more than this share of a
    mixed image count as wholly present, as in "ResNet strikes back" (arXiv:2110.00476; timm's
    recipe uses 0.2); None keeps the shares. timm divides the sum by the number of classes, which
    makes plain SGD's steps that much smaller.
    """
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    if threshold is not None:
        targets = (targets > threshold).to(logits.dtype)
    targets = (1 - smoothing) * targets + smoothing / logits.shape[1]
    total = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")
    return total / len(logits)


def make_loss(
    name: str,
    smoothing: float = 0.0,
    threshold: float | None = None,
    device: torch.device | None = None,
) -> Loss:
    """The loss called `name`: a function of logits [N, K] and targets (int64 [N], or [N, K] after
    mixing) that gives their mean as a scalar.

    name: one of LOSSES, or an import path of such a function, or of an nn.Module class that is
    built without arguments; `device` is where that is put. Raises InputError, also for a setting
    that the loss has no use for.
    """
    if smoothing and name not in LOSSES:
        raise InputError(
            "smoothing", f"is a setting of {' and '.join(LOSSES)} only", smoothing,
            f"let {name} smooth its own labels",
        )  # fmt: skip
    if threshold is not None and name != "binary-cross-entropy":
        raise InputError(
            "threshold", "is a setting of binary-cross-entropy only", threshold, "leave it out"
        )
    if name == "cross-entropy":
        return lambda logits, targets: cross_entropy(logits, targets, smoothing)
    if name == "binary-cross-entropy":
        return lambda logits, targets: binary_cross_entropy(logits, targets, smoothing, threshold)
    if not is_import_path(name):
        check_choice("loss", name, (*LOSSES, "package.module:name"))
    made = resolve("loss", name)
    if isinstance(made, type):
        check_call("loss", name, made, rule="must be built without arguments",
                   fix="name a function that builds it and calls it")  # fmt: skip
        loss = made()
    else:
        loss = made
    check_call("loss", name, loss, None, None, rule="must take logits and targets",
               fix="e.g. def loss(logits, targets)")  # fmt: skip
    # It may have weights of classes, for example.
    return loss.to(device) if isinstance(loss, nn.Module) else loss
