"""3×3 convolutions in a quarter of the multiplications, for a CPU that multiplies float32 best.

F(4×4, 3×3) of "Fast Algorithms for Convolutional Neural Networks" (Lavin & Gray, arXiv 1509.09308,
section 4.3): a tile of 4×4 results is 36 products of transformed numbers, Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A,
instead of 144; over channels and tiles each of the 36 is a product of matrices. The gradients are
the transposed operations. Maps are C-contiguous arrays [N, H, W, C] of float32 or float64, C a
multiple of 16, with a border of 1; what a tile has beyond the map is zero, and what it gives
beyond it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from . import winograd_kernels as kernels

_TILE, _WINDOW = 4, 6
# Of a child's convolutions this many numbers at a time stay in a core's caches (measured).
_AT_ONCE = 2**19
_NEAR = 2 * kernels.NEAR2 * (kernels.NEAR2 - kernels.FAR2)
_FAR = 2 * kernels.FAR2 * (kernels.FAR2 - kernels.NEAR2)
_G = np.array(
    [[1, 0, 0]]
    + [[1 / _NEAR, x / _NEAR, x * x / _NEAR] for x in (kernels.NEAR, -kernels.NEAR)]
    + [[1 / _FAR, x / _FAR, x * x / _FAR] for x in (kernels.FAR, -kernels.FAR)]
    + [[0, 0, 1]]
)
_WEIGHTS = torch.from_numpy(np.kron(_G, _G))  # [36, 9]


def transformed(weight: Tensor) -> Tensor:
    """G w Gᵀ [36, C, outputs] of a convolution's weight [outputs, C, 3, 3]."""
    by_position = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (_WEIGHTS.to(weight.dtype) @ by_position).view(-1, weight.shape[1], len(weight))


def convolve(x: np.ndarray, factors: Tensor) -> np.ndarray:
    """The convolution of x [N, H, W, C] by a `transformed` weight: [N, H, W, outputs]."""
    outputs = factors.shape[2]
    y = np.empty((*x.shape[:3], outputs), x.dtype)
    for images, windows, products in _parts(x, outputs):
        kernels.transform_windows(x[images], windows.numpy())
        torch.bmm(windows, factors, out=products)
        kernels.tiles_of_products(products.numpy(), y[images])
    return y


def gradients(grad: np.ndarray, x: np.ndarray, factors: Tensor) -> tuple[np.ndarray, Tensor]:
    """Of `convolve`'s x and of the weight, given that of its result."""
    of_factors = torch.zeros_like(factors)
    grad_x = np.empty_like(x)
    for images, windows, products in _parts(x, factors.shape[2]):
        kernels.transform_windows(x[images], windows.numpy())
        kernels.products_of_tiles(grad[images], products.numpy())
        of_factors.baddbmm_(windows.transpose(1, 2), products)
        torch.bmm(products, factors.transpose(1, 2), out=windows)
        kernels.add_windows(windows.numpy(), grad_x[images])
    by_position = _WEIGHTS.to(factors.dtype).t() @ of_factors.flatten(1)
    return grad_x, by_position.view(3, 3, *factors.shape[1:]).permute(3, 2, 0, 1)


def _parts(x: np.ndarray, outputs: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some images at a time, and where their windows [36, tiles, C] and products with the weights
    [36, tiles, outputs] go."""
    count, height, width, channels = x.shape
    tiles = -(-height // _TILE) * -(-width // _TILE)
    each = _WINDOW**2 * tiles * (channels + outputs)
    most = max(_AT_ONCE // each, 1)
    kept = torch.from_numpy(x[:0]).new_empty(min(most, count) * each)
    for first in range(0, count, most):
        images = slice(first, min(first + most, count))
        rows = (images.stop - images.start) * tiles
        middle, end = (_WINDOW**2 * rows * size for size in (channels, channels + outputs))
        yield (
            images,
            kept[:middle].view(_WINDOW**2, rows, channels),
            kept[middle:end].view(_WINDOW**2, rows, outputs),
        )
