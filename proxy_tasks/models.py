"""Child models: float images [N, C, H, W] -> logits [N, classes]."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.errors import InputError, check_choice
from policies.imports import check_call, resolve


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def average(x: Tensor) -> Tensor:
    """Global average pooling [N, C, H, W] -> [N, C].

    The same floats as `x.mean((2, 3))`, whose backward pass however lays the gradient out as NCHW
    and makes everything before it convert: a tenth of a training step on a CPU.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


class ConvNet(nn.Module):
    """Four 3×3 convolutions, a stride-2 stem and two 2×2 max-pools; about 100,000 parameters.

    Made for one CPU core: at 32×32 the maps are 16, 16, 8 and 4 pixels wide with 16, 32, 64 and
    128 channels, so that the three inner convolutions cost the same, all widths fill whole vector
    registers, and batch norm and ReLU work on maps that are already pooled.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...] = (16, 32, 64, 128)):
        super().__init__()
        stem, second, third, last = widths
        self.features = nn.Sequential(
            _conv(channels, stem, stride=2),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            _conv(stem, second),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(second),
            nn.ReLU(inplace=True),
            _conv(second, third),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(third),
            nn.ReLU(inplace=True),
            _conv(third, last),
            nn.BatchNorm2d(last),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(average(self.features(x)))


class _WideBlock(nn.Module):
    """Pre-activation residual block (arXiv 1605.07146, B(3, 3))."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1, self.conv2 = _conv(inputs, outputs, 3, stride), _conv(outputs, outputs)
        self.shortcut = _conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(y)
        return skip + self.conv2(F.relu(self.norm2(self.conv1(y))))


class WideResNet(nn.Module):
    """Wide-ResNet-`depth`-`width` (Zagoruyko & Komodakis, arXiv 1605.07146) for small images."""

    def __init__(self, channels: int, classes: int, depth: int = 40, width: int = 2):
        super().__init__()
        if (depth - 4) % 6:
            raise ValueError(f"depth: must be 6n + 4, but got {depth}")
        self.stem = _conv(channels, 16)
        blocks, inputs = [], 16
        for outputs, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for i in range((depth - 4) // 6):
                blocks.append(_WideBlock(inputs, outputs, stride if i == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(average(F.relu(self.norm(self.blocks(self.stem(x))))))


def _fresh(make: Callable[[int, int], nn.Module], channels: int, num_classes: int) -> nn.Module:
    """Built without weights, which are then drawn from torch's generator.

    Convolutions He-normal over the fan-out (arXiv 1502.01852), the classifier U(±1/√inputs).
    """
    with torch.device("meta"):
        child = make(channels, num_classes)
    child = child.to_empty(device="cpu")
    for module in child.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
    return child


# What ships. A user's own model needs no entry here, see `make_child`.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "convnet": functools.partial(_fresh, ConvNet),
    "wrn-40-2": functools.partial(_fresh, WideResNet),
    "wrn-16-1": functools.partial(_fresh, functools.partial(WideResNet, depth=16, width=1)),
}


def _torchvision(name: str, channels: int, num_classes: int) -> nn.Module:
    """A classifier of torchvision, without weights."""
    # Here, since importing torchvision costs each worker a second and 100 MB, and few need it.
    from torchvision import models

    known = [f"torchvision:{each}" for each in models.list_models(module=models)]
    check_choice("model", f"torchvision:{name}", known)
    return _in_colour(models.get_model(name, weights=None, num_classes=num_classes), channels)


def _in_colour(network: nn.Module, channels: int) -> nn.Module:
    """A network of 3 channels that takes images of one channel too, three times over.

    A hook does it, so that the weights' names stay those of the library.
    """
    if channels == 1:
        network.register_forward_pre_hook(_threefold)
    return network


def _threefold(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(images.expand(-1, 3, -1, -1) for images in inputs)


def _timm(name: str, channels: int, num_classes: int) -> nn.Module:
    """A classifier of timm, without weights."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise InputError(
            "model", "needs timm, which is not installed", f"timm:{name}", "pip install timm"
        ) from error
    if not timm.is_model(name):
        raise InputError(
            "model", "must be a model that timm has", f"timm:{name}",
            "timm.list_models('*resnet*') lists those whose name contains resnet",
        )  # fmt: skip
    return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=channels)


# Whole libraries of models: "torchvision:resnet18", "timm:vit_tiny_patch16_224".
LIBRARIES: dict[str, Callable[..., nn.Module]] = {"torchvision": _torchvision, "timm": _timm}


def model_maker(model: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The callable of num_classes and channels that `model` means. Raises InputError."""
    if isinstance(model, str):
        library, colon, name = model.partition(":")
        if colon and library in LIBRARIES:
            return functools.partial(LIBRARIES[library], name)
        if not colon:
            others = (*(f"{name}:NAME" for name in LIBRARIES), "package.module:name")
            check_choice("model", model, (*MODELS, *others))
            return MODELS[model]
    return resolve("model", model)


def make_child(
    model: str | Callable[..., nn.Module],
    channels: int,
    classes: int,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """A child as its author initialises it, with torch's generator at `seed` meanwhile.

    Args:
        model: a name in `MODELS`, one of a library ("torchvision:resnet18", "timm:resnet18"), or
            a callable (a class, say) or its import path "package.module:name", called with
            `num_classes` and `channels`. It returns any nn.Module from float images
            [N, channels, H, W] to logits [N, num_classes].
        seed: decides the weights; torch's global random state is left as it was.

    Raises:
        InputError: there is no such model, or it is not such a callable.
    """
    make = model_maker(model)
    check_call(
        "model", model, make, num_classes=classes, channels=channels,
        rule="must take num_classes and channels",
        fix="write a function of these two that returns the module",
    )  # fmt: skip
    with own_randomness(seed, torch.device("cpu")):
        child = make(num_classes=classes, channels=channels)
    if not isinstance(child, nn.Module):
        raise InputError(
            "model", "must return a torch.nn.Module", f"{model} ({type(child).__name__})",
            "return the module itself",
        )  # fmt: skip
    # Channels-last is the layout that oneDNN and tensor cores convolve without reordering.
    return nn.utils.convert_conv2d_weight_memory_format(child.to(device), torch.channels_last)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads inside torch: the number changes floating-point sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's generators (weights, dropout) start at `seed`, and are put back afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
