"""The transforms of Winograd's F(4×4, 3×3) for a CPU; what they are for: winograd.py.

Maps are C-contiguous arrays [N, H, W, C] of float32 or float64, C a multiple of 16. An image has
ceil(H / 4) * ceil(W / 4) tiles of 4×4, each in a window of 6×6 that begins a pixel before it; a
transform goes along the rows of one, then along its columns, 16 channels at a time. One thread,
no GIL.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from policies.compiled import compiled
from policies.lane_arithmetic import multiply_add
from policies.lanes import WIDTH, fill, load, move, store

# Polynomials are evaluated at 0, ±NEAR, ±FAR and infinity. Lavin and Gray's ±1 and ±2 would lose a
# bit more; the product of these is 1, which the transforms below use.
NEAR, FAR = 2 / 3, 3 / 2
NEAR2, FAR2 = NEAR**2, FAR**2
BOTH2 = NEAR2 + FAR2


@njit(nogil=True, inline="always")
def _times(lanes, factor, add):
    return multiply_add(fill(lanes, factor), lanes, add)


@njit(nogil=True, inline="always")
def _window(v):
    """Bᵀ of six numbers."""
    near, far = _times(v[2], -FAR2, v[4]), _times(v[2], -NEAR2, v[4])
    near1 = _times(v[3], NEAR, fill(v[1], -FAR) * v[1])
    far1 = _times(v[3], FAR, fill(v[1], -NEAR) * v[1])
    first, last = _times(v[2], -BOTH2, v[0] + v[4]), _times(v[3], -BOTH2, v[1] + v[5])
    return first, near + near1, near - near1, far + far1, far - far1, last


@njit(nogil=True, inline="always")
def _window_back(v):
    """B of six numbers."""
    near, near1, far, far1 = v[1] + v[2], v[1] - v[2], v[3] + v[4], v[3] - v[4]
    one = _times(near1, -FAR, _times(far1, -NEAR, v[5]))
    two = _times(v[0], -BOTH2, _times(near, -FAR2, fill(far, -NEAR2) * far))
    three = _times(near1, NEAR, _times(far1, FAR, fill(v[5], -BOTH2) * v[5]))
    return v[0], one, two, three, v[0] + near + far, v[5]


@njit(nogil=True, inline="always")
def _tile(v):
    """Aᵀ of six numbers."""
    near, near1, far, far1 = v[1] + v[2], v[1] - v[2], v[3] + v[4], v[3] - v[4]
    one = _times(near1, NEAR, fill(far1, FAR) * far1)
    two = _times(near, NEAR2, fill(far, FAR2) * far)
    return v[0] + near + far, one, two, _times(near1, NEAR**3, _times(far1, FAR**3, v[5]))


@njit(nogil=True, inline="always")
def _tile_back(v):
    """A of four numbers."""
    near, far = _times(v[2], NEAR2, v[0]), _times(v[2], FAR2, v[0])
    near1 = _times(v[1], NEAR, fill(v[3], NEAR**3) * v[3])
    far1 = _times(v[1], FAR, fill(v[3], FAR**3) * v[3])
    return v[0], near + near1, near - near1, far + far1, far - far1, v[3]


@njit(nogil=True, inline="always")
def _get4(x, at, step):
    return load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step)


@njit(nogil=True, inline="always")
def _get6(x, at, step):
    one, two, three, four = _get4(x, at, step)
    return one, two, three, four, load(x, at + 4 * step), load(x, at + 5 * step)


@njit(nogil=True, inline="always")
def _put4(x, at, step, v):
    store(x, at, v[0])
    store(x, at + step, v[1])
    store(x, at + 2 * step, v[2])
    store(x, at + 3 * step, v[3])


@njit(nogil=True, inline="always")
def _put6(x, at, step, v):
    _put4(x, at, step, v)
    store(x, at + 4 * step, v[4])
    store(x, at + 5 * step, v[5])


@njit(nogil=True)
def _move_rows(x, first, target, to, rows, count, step, step_to):
    """`rows` rows of `count` numbers from one array to another, `step` and `step_to` apart."""
    for row in range(rows):
        for k in range(0, count, WIDTH):
            move(x, first + row * step + k, target, to + row * step_to + k)


@njit(nogil=True)
def _layout(shape, border):
    """Tiles down and across an image, numbers of its row, and of a row of all its tiles with so
    much `border` on both sides."""
    _, height, width, channels = shape
    down, across = (height + 3) // 4, (width + 3) // 4
    return down, across, width * channels, (4 * across + 2 * border) * channels


@compiled()
def transform_windows(x, windows):
    """`windows` [36, N * tiles, C] = Bᵀ d B of the 6×6 windows of x [N, H, W, C]."""
    images, height, _, channels = x.shape
    flat, out = x.reshape(-1), windows.reshape(-1)
    down, across, size, row = _layout(x.shape, 1)
    padded, scratch = np.zeros((4 * down + 2) * row, x.dtype), np.empty(36 * WIDTH, x.dtype)
    place, to = windows.shape[1] * channels, 0
    for image in range(images):
        _move_rows(flat, image * height * size, padded, row + channels, height, size, size, row)
        for tile in range(down * across):
            corner = 4 * (tile // across * row + tile % across * channels)
            for c in range(0, channels, WIDTH):
                for k in range(6):
                    v = _get6(padded, corner + k * row + c, channels)
                    _put6(scratch, 6 * k * WIDTH, WIDTH, _window(v))
                for k in range(6):
                    v = _get6(scratch, k * WIDTH, 6 * WIDTH)
                    _put6(out, to + k * place + c, 6 * place, _window(v))
            to += channels


@compiled()
def add_windows(windows, x):
    """x [N, H, W, C] = B v Bᵀ of `windows` [36, N * tiles, C], added where they overlap."""
    images, height, _, channels = x.shape
    flat, given = x.reshape(-1), windows.reshape(-1)
    down, across, size, row = _layout(x.shape, 1)
    padded, scratch = np.empty((4 * down + 2) * row, x.dtype), np.empty(36 * WIDTH, x.dtype)
    place, start = windows.shape[1] * channels, 0
    for image in range(images):
        padded[:] = 0
        for tile in range(down * across):
            corner = 4 * (tile // across * row + tile % across * channels)
            for c in range(0, channels, WIDTH):
                for k in range(6):
                    v = _get6(given, start + k * place + c, 6 * place)
                    _put6(scratch, k * WIDTH, 6 * WIDTH, _window_back(v))
                for k in range(6):
                    at = corner + k * row + c
                    v = _window_back(_get6(scratch, 6 * k * WIDTH, WIDTH))
                    w = _get6(padded, at, channels)
                    added = v[0] + w[0], v[1] + w[1], v[2] + w[2], v[3] + w[3], v[4] + w[4]
                    _put6(padded, at, channels, (*added, v[5] + w[5]))
            start += channels
        _move_rows(padded, row + channels, flat, image * height * size, height, size, row, size)


@compiled()
def tiles_of_products(products, y):
    """y [N, H, W, C] = the tiles Aᵀ m A of `products` [36, N * tiles, C]."""
    images, height, _, channels = y.shape
    flat, given = y.reshape(-1), products.reshape(-1)
    down, across, size, row = _layout(y.shape, 0)
    padded, scratch = np.empty(4 * down * row, y.dtype), np.empty(24 * WIDTH, y.dtype)
    place, start = products.shape[1] * channels, 0
    for image in range(images):
        for tile in range(down * across):
            corner = 4 * (tile // across * row + tile % across * channels)
            for c in range(0, channels, WIDTH):
                for k in range(6):
                    v = _get6(given, start + k * place + c, 6 * place)
                    _put4(scratch, k * WIDTH, 6 * WIDTH, _tile(v))
                for k in range(4):
                    v = _get6(scratch, 6 * k * WIDTH, WIDTH)
                    _put4(padded, corner + k * row + c, channels, _tile(v))
            start += channels
        _move_rows(padded, 0, flat, image * height * size, height, size, row, size)


@compiled()
def products_of_tiles(grad, products):
    """`products` [36, N * tiles, C] = A g Aᵀ of the 4×4 tiles of grad [N, H, W, C]."""
    images, height, _, channels = grad.shape
    flat, out = grad.reshape(-1), products.reshape(-1)
    down, across, size, row = _layout(grad.shape, 0)
    padded, scratch = np.zeros(4 * down * row, grad.dtype), np.empty(24 * WIDTH, grad.dtype)
    place, to = products.shape[1] * channels, 0
    for image in range(images):
        _move_rows(flat, image * height * size, padded, 0, height, size, size, row)
        for tile in range(down * across):
            corner = 4 * (tile // across * row + tile % across * channels)
            for c in range(0, channels, WIDTH):
                for k in range(4):
                    v = _get4(padded, corner + k * row + c, channels)
                    _put6(scratch, 6 * k * WIDTH, WIDTH, _tile_back(v))
                for k in range(6):
                    v = _get4(scratch, k * WIDTH, 6 * WIDTH)
                    _put6(out, to + k * place + c, 6 * place, _tile_back(v))
            to += channels
