"""Child models: float images [N, C, H, W] -> logits [N, classes]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


MODELS = {"convnet": ConvNet, "wrn-40-2": WideResNet}


def make_child(
    model: str, channels: int, classes: int, seed: int, device: torch.device
) -> nn.Module:
    """A child with freshly drawn weights. Uses its own generator: no global random state.

    Convolutions He-normal over the fan-out (arXiv 1502.01852), the classifier U(±1/√inputs).
    """
    with torch.device("meta"):
        child = MODELS[model](channels, classes)
    child = child.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for module in child.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)
    # Channels-last is the layout that oneDNN and tensor cores convolve without reordering.
    return child.to(device, memory_format=torch.channels_last)
