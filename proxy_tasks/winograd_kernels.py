"""The transforms of Winograd's F(4×4, 3×3) for a CPU; what they are for: winograd.py.

Maps are C-contiguous arrays [N, H, W, C] of float32 or float64, C a multiple of 16. An image has
ceil(H / 4) * ceil(W / 4) tiles of 4×4, each in a window of 6×6 that begins a pixel before it; a
transform goes along the columns of one, then along its rows, 16 channels at a time. One thread,
no GIL.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from policies.compiled import compiled
from policies.lane_arithmetic import multiply_add
from policies.lanes import WIDTH, fill, load, move, store


@njit(nogil=True, inline="always")
def _window(a, b, c, d, e, f):
    """Bᵀ of six numbers."""
    four, five = fill(a, 4.0), fill(a, -5.0)
    two = fill(a, 2.0)
    less, more = multiply_add(fill(a, -4.0), c, e), multiply_add(fill(a, -4.0), b, d)
    near, far = e - c, two * (d - b)
    return (
        multiply_add(four, a, multiply_add(five, c, e)),
        less + more,
        less - more,
        near + far,
        near - far,
        multiply_add(four, b, multiply_add(five, d, f)),
    )


@njit(nogil=True, inline="always")
def _window_back(a, b, c, d, e, f):
    """B of six numbers."""
    four, five, two = fill(a, 4.0), fill(a, -5.0), fill(a, 2.0)
    sum1, difference1 = b + c, b - c
    sum2, difference2 = d + e, two * (d - e)
    return (
        four * a,
        multiply_add(four, f - difference1, fill(a, 0.0) - difference2),
        multiply_add(five, a, multiply_add(fill(a, -4.0), sum1, fill(a, 0.0) - sum2)),
        multiply_add(five, f, difference1 + difference2),
        a + sum1 + sum2,
        f,
    )


@njit(nogil=True, inline="always")
def _tile(a, b, c, d, e, f):
    """Aᵀ of six numbers."""
    sum1, difference1, sum2, difference2 = b + c, b - c, d + e, d - e
    return (
        a + sum1 + sum2,
        multiply_add(fill(a, 2.0), difference2, difference1),
        multiply_add(fill(a, 4.0), sum2, sum1),
        multiply_add(fill(a, 8.0), difference2, difference1) + f,
    )


@njit(nogil=True, inline="always")
def _tile_back(a, b, c, d):
    """A of four numbers."""
    even, odd = a + c, b + d
    even2, odd2 = multiply_add(fill(a, 4.0), c, a), fill(a, 2.0) * multiply_add(fill(a, 4.0), d, b)
    return a, even + odd, even - odd, even2 + odd2, even2 - odd2, d


@njit(nogil=True)
def _move_rows(x, first, target, to, rows, count, step, step_to):
    """`rows` rows of `count` numbers from one array to another, `step` and `step_to` apart."""
    for row in range(rows):
        for k in range(0, count, WIDTH):
            move(x, first + row * step + k, target, to + row * step_to + k)


@compiled()
def transform_windows(x, windows):
    """`windows` [36, N * tiles, C] = Bᵀ d B of the 6×6 windows of x [N, H, W, C]."""
    images, height, width, channels = x.shape
    flat, out = x.reshape(-1), windows.reshape(-1)
    down, across = (height + 3) // 4, (width + 3) // 4
    row = (4 * across + 2) * channels
    padded = np.zeros((4 * down + 2) * row, x.dtype)
    scratch = np.empty(36 * WIDTH, x.dtype)
    place = windows.shape[1] * channels
    to = 0
    for image in range(images):
        first = image * height * width * channels
        size = width * channels
        _move_rows(flat, first, padded, row + channels, height, size, size, row)
        for y in range(down):
            for left in range(across):
                corner = 4 * y * row + 4 * left * channels
                for c in range(0, channels, WIDTH):
                    at = corner + c
                    for k in range(6):
                        v = _window(
                            load(padded, at),
                            load(padded, at + channels),
                            load(padded, at + 2 * channels),
                            load(padded, at + 3 * channels),
                            load(padded, at + 4 * channels),
                            load(padded, at + 5 * channels),
                        )
                        s = 6 * k * WIDTH
                        store(scratch, s, v[0])
                        store(scratch, s + WIDTH, v[1])
                        store(scratch, s + 2 * WIDTH, v[2])
                        store(scratch, s + 3 * WIDTH, v[3])
                        store(scratch, s + 4 * WIDTH, v[4])
                        store(scratch, s + 5 * WIDTH, v[5])
                        at += row
                    for k in range(6):
                        s = k * WIDTH
                        v = _window(
                            load(scratch, s),
                            load(scratch, s + 6 * WIDTH),
                            load(scratch, s + 12 * WIDTH),
                            load(scratch, s + 18 * WIDTH),
                            load(scratch, s + 24 * WIDTH),
                            load(scratch, s + 30 * WIDTH),
                        )
                        at = to + k * place + c
                        store(out, at, v[0])
                        store(out, at + 6 * place, v[1])
                        store(out, at + 12 * place, v[2])
                        store(out, at + 18 * place, v[3])
                        store(out, at + 24 * place, v[4])
                        store(out, at + 30 * place, v[5])
                to += channels


@compiled()
def add_windows(windows, x):
    """x [N, H, W, C] = B v Bᵀ of `windows` [36, N * tiles, C], added where they overlap."""
    images, height, width, channels = x.shape
    flat, given = x.reshape(-1), windows.reshape(-1)
    down, across = (height + 3) // 4, (width + 3) // 4
    row = (4 * across + 2) * channels
    padded = np.empty((4 * down + 2) * row, x.dtype)
    scratch = np.empty(36 * WIDTH, x.dtype)
    place = windows.shape[1] * channels
    start = 0
    for image in range(images):
        padded[:] = 0
        for y in range(down):
            for left in range(across):
                corner = 4 * y * row + 4 * left * channels
                for c in range(0, channels, WIDTH):
                    for k in range(6):
                        at = start + k * place + c
                        v = _window_back(
                            load(given, at),
                            load(given, at + 6 * place),
                            load(given, at + 12 * place),
                            load(given, at + 18 * place),
                            load(given, at + 24 * place),
                            load(given, at + 30 * place),
                        )
                        s = k * WIDTH
                        store(scratch, s, v[0])
                        store(scratch, s + 6 * WIDTH, v[1])
                        store(scratch, s + 12 * WIDTH, v[2])
                        store(scratch, s + 18 * WIDTH, v[3])
                        store(scratch, s + 24 * WIDTH, v[4])
                        store(scratch, s + 30 * WIDTH, v[5])
                    at = corner + c
                    for k in range(6):
                        s = 6 * k * WIDTH
                        v = _window_back(
                            load(scratch, s),
                            load(scratch, s + WIDTH),
                            load(scratch, s + 2 * WIDTH),
                            load(scratch, s + 3 * WIDTH),
                            load(scratch, s + 4 * WIDTH),
                            load(scratch, s + 5 * WIDTH),
                        )
                        store(padded, at, load(padded, at) + v[0])
                        one, two = at + channels, at + 2 * channels
                        store(padded, one, load(padded, one) + v[1])
                        store(padded, two, load(padded, two) + v[2])
                        one, two = at + 3 * channels, at + 4 * channels
                        store(padded, one, load(padded, one) + v[3])
                        store(padded, two, load(padded, two) + v[4])
                        one = at + 5 * channels
                        store(padded, one, load(padded, one) + v[5])
                        at += row
                start += channels
        size = width * channels
        first = image * height * size
        _move_rows(padded, row + channels, flat, first, height, size, row, size)


@compiled()
def tiles_of_products(products, y):
    """y [N, H, W, C] = the tiles Aᵀ m A of `products` [36, N * tiles, C]."""
    images, height, width, channels = y.shape
    flat, given = y.reshape(-1), products.reshape(-1)
    down, across = (height + 3) // 4, (width + 3) // 4
    row = 4 * across * channels
    padded = np.empty(4 * down * row, y.dtype)
    scratch = np.empty(24 * WIDTH, y.dtype)
    place = products.shape[1] * channels
    start = 0
    for image in range(images):
        for top in range(down):
            for left in range(across):
                corner = 4 * top * row + 4 * left * channels
                for c in range(0, channels, WIDTH):
                    for k in range(6):
                        at = start + k * place + c
                        v = _tile(
                            load(given, at),
                            load(given, at + 6 * place),
                            load(given, at + 12 * place),
                            load(given, at + 18 * place),
                            load(given, at + 24 * place),
                            load(given, at + 30 * place),
                        )
                        s = k * WIDTH
                        store(scratch, s, v[0])
                        store(scratch, s + 6 * WIDTH, v[1])
                        store(scratch, s + 12 * WIDTH, v[2])
                        store(scratch, s + 18 * WIDTH, v[3])
                    at = corner + c
                    for k in range(4):
                        s = 6 * k * WIDTH
                        v = _tile(
                            load(scratch, s),
                            load(scratch, s + WIDTH),
                            load(scratch, s + 2 * WIDTH),
                            load(scratch, s + 3 * WIDTH),
                            load(scratch, s + 4 * WIDTH),
                            load(scratch, s + 5 * WIDTH),
                        )
                        store(padded, at, v[0])
                        store(padded, at + channels, v[1])
                        store(padded, at + 2 * channels, v[2])
                        store(padded, at + 3 * channels, v[3])
                        at += row
                start += channels
        size = width * channels
        _move_rows(padded, 0, flat, image * height * size, height, size, row, size)


@compiled()
def products_of_tiles(grad, products):
    """`products` [36, N * tiles, C] = A g Aᵀ of the 4×4 tiles of grad [N, H, W, C]."""
    images, height, width, channels = grad.shape
    flat, out = grad.reshape(-1), products.reshape(-1)
    down, across = (height + 3) // 4, (width + 3) // 4
    row = 4 * across * channels
    padded = np.zeros(4 * down * row, grad.dtype)
    scratch = np.empty(24 * WIDTH, grad.dtype)
    place = products.shape[1] * channels
    to = 0
    for image in range(images):
        size = width * channels
        _move_rows(flat, image * height * size, padded, 0, height, size, size, row)
        for top in range(down):
            for left in range(across):
                corner = 4 * top * row + 4 * left * channels
                for c in range(0, channels, WIDTH):
                    at = corner + c
                    for k in range(4):
                        v = _tile_back(
                            load(padded, at),
                            load(padded, at + channels),
                            load(padded, at + 2 * channels),
                            load(padded, at + 3 * channels),
                        )
                        s = 6 * k * WIDTH
                        store(scratch, s, v[0])
                        store(scratch, s + WIDTH, v[1])
                        store(scratch, s + 2 * WIDTH, v[2])
                        store(scratch, s + 3 * WIDTH, v[3])
                        store(scratch, s + 4 * WIDTH, v[4])
                        store(scratch, s + 5 * WIDTH, v[5])
                        at += row
                    for k in range(6):
                        s = k * WIDTH
                        v = _tile_back(
                            load(scratch, s),
                            load(scratch, s + 6 * WIDTH),
                            load(scratch, s + 12 * WIDTH),
                            load(scratch, s + 18 * WIDTH),
                        )
                        at = to + k * place + c
                        store(out, at, v[0])
                        store(out, at + 6 * place, v[1])
                        store(out, at + 12 * place, v[2])
                        store(out, at + 18 * place, v[3])
                        store(out, at + 24 * place, v[4])
                        store(out, at + 30 * place, v[5])
                to += channels
