"""A training step of the small child on a CPU, in a few passes over memory instead of many.

The same function of the same parameters as `models.ConvNet`, to within rounding: pooling, batch
norm, ReLU and the final average are one pass over a map, forward and backward; the first
convolution, of few channels, and the classifier compute in float32. The three others are torch's
in bfloat16, but for the last one's weight gradient, which is one product of matrices, and
Winograd's in float32 (winograd.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from policies.lanes import WIDTH

from . import fused_kernels as kernels
from . import winograd
from .models import ConvNet

# How numpy holds what torch computes in: bfloat16 as its bits.
_HELD = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}
# Up to maps of this many pixels the windows of a bfloat16 map fit the cache (measured, 125 images,
# 64 to 128 channels).
_WINDOWS_FIT = 36


def fused(child: nn.Module, precision: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    """What a training step calls instead of `child`; None where there is no such thing.

    There is for a `ConvNet` on a CPU whose widths are multiples of 16, computing in float32 or
    bfloat16. In evaluation mode, or for a gradient of the images, it calls the child itself.
    """
    if type(child) is not ConvNet or precision not in _HELD:
        return None
    if any(p.device.type != "cpu" or len(p) % WIDTH for p in child.features.parameters()):
        return None
    return functools.partial(_call, child, precision)


def _call(child: ConvNet, precision: torch.dtype, images: Tensor) -> Tensor:
    if not child.training or images.requires_grad:
        return child(images)
    dtype = precision if precision is torch.bfloat16 else images.dtype
    norms = [layer for layer in child.features if isinstance(layer, nn.BatchNorm2d)]
    return _Child.apply(images, norms, dtype, *child.parameters())


class _Child(torch.autograd.Function):
    """All layers at once: autograd's own work for each of them would cost a tenth of a step."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, norms: list[nn.BatchNorm2d], dtype: torch.dtype, *given: Tensor
    ) -> Tensor:
        stem, s1, b1, conv2, s2, b2, conv3, s3, b3, conv4, s4, b4, classifier, bias = given
        x = _array(images)
        by_position = stem.permute(2, 3, 1, 0).contiguous().numpy()
        half = [(side - 1) // 2 + 1 for side in x.shape[1:3]]
        z = np.empty((len(x), *half, len(stem)), _HELD[dtype])
        kernels.convolve_stem(x, 2, by_position, z)
        y1, norm1 = _normalise(z, norms[0], s1, b1)
        z, low2 = _convolve(y1, conv2, dtype)
        y2, norm2 = _normalise(z, norms[1], s2, b2, pool=True)
        z, low3 = _convolve(y2, conv3, dtype)
        y3, norm3 = _normalise(z, norms[2], s3, b3, pool=True)
        z, low4 = _convolve(y3, conv4, dtype)
        averages, norm4 = _normalise(z, norms[3], s4, b4, average=True)
        features = torch.from_numpy(averages.reshape(len(x), -1))
        ctx.kept = x, norm1, y1, low2, norm2, y2, low3, norm3, y3, low4, norm4, features
        ctx.save_for_backward(*given)
        with torch.autocast("cpu", enabled=False):
            return torch.addmm(bias, features, classifier.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm1, y1, low2, norm2, y2, low3, norm3, y3, low4, norm4, features = ctx.kept
        classifier = ctx.saved_tensors[-2]
        with torch.autocast("cpu", enabled=False):
            of_features, of_classifier = grad @ classifier, grad.t() @ features
        g = of_features.numpy().reshape(len(x), 1, 1, -1)
        g, s4, b4 = _normalise_back(g, norm4)
        g, conv4 = _convolve_back(g, y3, low4, windows=True)
        g, s3, b3 = _normalise_back(g, norm3)
        g, conv3 = _convolve_back(g, y2, low3)
        g, s2, b2 = _normalise_back(g, norm2)
        g, conv2 = _convolve_back(g, y1, low2)
        g, s1, b1 = _normalise_back(g, norm1)
        by_position = np.zeros((3, 3, x.shape[3], g.shape[3]))
        kernels.stem_weight_gradient(x, 2, g, by_position)
        stem = torch.from_numpy(by_position.astype(s1.numpy().dtype)).permute(3, 2, 0, 1)
        own = (stem, s1, b1, conv2, s2, b2, conv3, s3, b3, conv4, s4, b4)
        return (None, None, None, *own, of_classifier, grad.sum(0))


class _Norm(NamedTuple):
    """What `_normalise_back` needs: see `fused_kernels.backward`."""

    normalised: np.ndarray
    shape: tuple[int, ...]
    pool: bool
    average: bool
    scale: np.ndarray
    shift: np.ndarray
    saved: np.ndarray
    places: np.ndarray


def _normalise(
    x: np.ndarray, norm: nn.BatchNorm2d, scale: Tensor, shift: Tensor,
    pool: bool = False, average: bool = False,
) -> tuple[np.ndarray, _Norm]:  # fmt: skip
    n, h, w, c = x.shape
    factors, offsets = scale.numpy(), shift.numpy()
    pooled = np.empty((n, h // 2, w // 2, c), x.dtype) if pool else x
    if pooled.size <= c:
        raise ValueError(f"batch norm needs more than one value a channel, but got {pooled.shape}")
    places = np.empty(pooled.shape if pool else (0, 0, 0, 0), np.uint8)
    y = np.empty((n, 1, 1, c), factors.dtype) if average else np.empty_like(pooled)
    saved = np.empty((3, c), factors.dtype)
    running_mean = cast(Tensor, norm.running_mean)
    running_variance = cast(Tensor, norm.running_var)
    kernels.forward(
        x, pool, average, factors, offsets, running_mean.numpy(), running_variance.numpy(),
        norm.momentum, norm.eps, pooled, places, y, saved,
    )  # fmt: skip
    cast(Tensor, norm.num_batches_tracked).add_(1)
    return y, _Norm(pooled, x.shape, pool, average, factors, offsets, saved, places)


def _normalise_back(grad: np.ndarray, norm: _Norm) -> tuple[np.ndarray, Tensor, Tensor]:
    """The gradients of what was normalised, of the scale and of the shift."""
    grad_x = np.empty(norm.shape, norm.normalised.dtype)
    grads = np.empty((2, len(norm.scale)), norm.scale.dtype)
    kernels.backward(
        grad, norm.normalised, norm.pool, norm.average, norm.scale, norm.shift, norm.saved,
        norm.places, grad_x, grads,
    )  # fmt: skip
    of_scale, of_shift = torch.from_numpy(grads)
    return grad_x, of_scale, of_shift


def _convolve(x: np.ndarray, weight: Tensor, dtype: torch.dtype) -> tuple[np.ndarray, Tensor]:
    """The 3×3 convolution, and its weights as it computes with them."""
    if dtype is torch.bfloat16:
        low = weight.to(dtype)
        return _array(torch.conv2d(_tensor(x), low, None, 1, 1)), low
    factors = winograd.transformed(weight.to(dtype))
    return winograd.convolve(x, factors), factors


def _convolve_back(
    grad: np.ndarray, x: np.ndarray, weight: Tensor, windows: bool = False
) -> tuple[np.ndarray, Tensor]:
    """The gradients of input and weights; with `windows`, as a product of matrices if small."""
    if weight.dtype is not torch.bfloat16:
        return winograd.gradients(grad, x, weight)
    n, h, w, channels = x.shape
    windows = windows and h * w <= _WINDOWS_FIT
    g = _tensor(grad)
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        g, _tensor(x), weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1,
        (True, not windows, False),
    )  # fmt: skip
    if windows:
        rows = np.empty((n * h * w, 9 * channels), x.dtype)
        kernels.columns(x, rows)
        by_position = torch.from_numpy(grad.reshape(len(rows), -1)).view(weight.dtype).t() @ (
            torch.from_numpy(rows).view(weight.dtype)
        )
        grad_weight = by_position.view(-1, 3, 3, channels).permute(0, 3, 1, 2)
    return _array(grad_x), grad_weight.float()


def _array(x: Tensor) -> np.ndarray:
    """[N, C, H, W] as [N, H, W, C]: no copy of what is channels-last in memory."""
    last = x.permute(0, 2, 3, 1).contiguous()
    return (last.view(torch.uint16) if last.dtype == torch.bfloat16 else last).numpy()


def _tensor(x: np.ndarray) -> Tensor:
    """The map behind `_array`."""
    given = torch.from_numpy(x)
    return (given.view(torch.bfloat16) if given.dtype == torch.uint16 else given).permute(
        0, 3, 1, 2
    )
