"""Compiled kernels of an input pipeline: crop and resize, flip and normalise. See collate.py.

`resize` is Pillow's: of an image that is cropped first and then resized with the bilinear filter,
antialiased (libImaging/Resample.c: 22-bit weights, rounded in between). It takes rows first; where
a Pillow takes columns first, bytes differ by at most 1.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from .compiled import compiled
from .lane_arithmetic import floats, low_bytes, mirrored, multiply_add, shift_right, whole
from .lanes import WIDTH, load, load_pixels, move, spread, store, store_interleaved, store_pixels

_BITS = 22  # of a weight, behind the point
_HALF = np.int32(1 << (_BITS - 1))


@njit(nogil=True)
def _weights(size, out):
    """For each of ``out`` pixels: the first of ``size`` it takes, how many, and their weights."""
    scale = size / out
    reach = max(scale, 1.0)
    first, count = np.empty(out, np.int64), np.empty(out, np.int64)
    weights = np.empty((out, int(np.ceil(reach)) * 2 + 1), np.int32)
    exact = np.empty(weights.shape[1], np.float64)
    for i in range(out):
        centre = (i + 0.5) * scale
        low = max(int(centre - reach + 0.5), 0)
        n = min(int(centre + reach + 0.5), size) - low
        total = 0.0
        for k in range(n):
            exact[k] = max(1.0 - abs((k + low - centre + 0.5) * (1.0 / reach)), 0.0)
            total += exact[k]
        for k in range(n):
            weights[i, k] = int(0.5 + exact[k] / total * (1 << _BITS))
        first[i], count[i] = low, n
    return first, count, weights


@njit(nogil=True)
def _narrow(rows, step, at, taps, weights, out, to, stride):
    """Four rows of pixels of three bytes to resized ones of pixels of four."""
    half = spread(_HALF)
    for x in range(len(at)):
        total = half
        first = 3 * at[x]
        for k in range(taps[x]):
            pixels = whole(load_pixels(rows, first + 3 * k, step))
            total = total + pixels * spread(weights[x, k])
        store_pixels(out, to + 4 * x, stride, low_bytes(shift_right(total, _BITS)))


_U8, _I64 = types.uint8, types.int64
_F32 = types.float32
_IMAGE = types.Array(_U8, 3, "C", readonly=True)


@compiled(types.void(_IMAGE, _I64, _I64, _I64, _I64, types.Array(_U8, 3, "C")))
def resize(image, top, left, height, width, planes):
    """Crop a uint8 image [H, W, 3] to height x width and resize it to ``planes`` [3, h, w]."""
    out_height, out_width = planes.shape[1:]
    flat, full = image.reshape(-1), image.shape[1]
    at, taps, weights = _weights(width, out_width)
    step, stride = 3 * width + WIDTH, (4 * out_width + WIDTH - 1) // WIDTH * WIDTH
    rows = np.zeros(4 * step, np.uint8)  # of a row's last pixel four bytes are read, too
    narrow = np.zeros((height + 3) * stride, np.uint8)
    whole_vectors = 3 * width // WIDTH * WIDTH
    for y in range(0, height, 4):
        for k in range(min(4, height - y)):
            source, target = 3 * ((top + y + k) * full + left), k * step
            for i in range(0, whole_vectors, WIDTH):
                move(flat, source + i, rows, target + i)
            for i in range(whole_vectors, 3 * width):
                rows[target + i] = flat[source + i]
        _narrow(rows, step, at, taps, weights, narrow, y * stride, stride)
    at, taps, weights = _weights(height, out_height)
    line = np.empty(stride, np.uint8)
    pixels = line.view(np.int32)
    r, g, b = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    half = spread(_HALF)
    for y in range(out_height):
        for i in range(0, stride, WIDTH):
            total = half
            for k in range(taps[y]):
                values = whole(load(narrow, (at[y] + k) * stride + i))
                total = total + values * spread(weights[y, k])
            store(line, i, low_bytes(shift_right(total, _BITS)))
        x, start = 0, y * out_width
        if out_width >= WIDTH:
            while x < out_width:
                x = min(x, out_width - WIDTH)  # the last ones overlap those before
                lanes = load(pixels, x)
                store(r, start + x, low_bytes(lanes))
                store(g, start + x, low_bytes(shift_right(lanes, 8)))
                store(b, start + x, low_bytes(shift_right(lanes, 16)))
                x += WIDTH
        for z in range(x, out_width):
            r[start + z], g[start + z], b[start + z] = line[4 * z], line[4 * z + 1], line[4 * z + 2]


@njit(nogil=True)
def _normalise_row(source, at, width, flip, scale, shift, target, to):
    factor, offset = spread(scale), spread(shift)
    last, x = to + width - 1, 0
    if width >= WIDTH:
        while x < width:
            x = min(x, width - WIDTH)
            values = multiply_add(floats(load(source, at + x)), factor, offset)
            if flip:
                store(target, last - x - (WIDTH - 1), mirrored(values))
            else:
                store(target, to + x, values)
            x += WIDTH
    for i in range(x, width):
        value = np.float32(source[at + i]) * scale + shift
        target[last - i if flip else to + i] = value


@njit(nogil=True)
def _normalise_pixels(source, at, plane, width, flip, scale, shift, target, to):
    f0, f1, f2 = spread(scale[0]), spread(scale[1]), spread(scale[2])
    o0, o1, o2 = spread(shift[0]), spread(shift[1]), spread(shift[2])
    x = 0
    if width >= WIDTH:
        while x < width:
            x = min(x, width - WIDTH)
            r = multiply_add(floats(load(source, at + x)), f0, o0)
            g = multiply_add(floats(load(source, at + plane + x)), f1, o1)
            b = multiply_add(floats(load(source, at + 2 * plane + x)), f2, o2)
            if flip:
                first = to + 3 * (width - WIDTH - x)
                store_interleaved(target, first, mirrored(r), mirrored(g), mirrored(b))
            else:
                store_interleaved(target, to + 3 * x, r, g, b)
            x += WIDTH
    for i in range(x, width):
        place = to + 3 * (width - 1 - i if flip else i)
        for c in range(3):
            target[place + c] = np.float32(source[at + c * plane + i]) * scale[c] + shift[c]


@compiled(
    types.void(
        types.Array(_U8, 4, "C", readonly=True), types.Array(types.boolean, 1, "C", readonly=True),
        types.Array(_F32, 1, "C", readonly=True), types.Array(_F32, 1, "C", readonly=True),
        types.Array(_F32, 4, "C"), types.boolean,
    )
)  # fmt: skip
def normalise(images, flip, scale, shift, out, interleave):
    """``scale`` * value + ``shift`` by channel, of uint8 [N, C, H, W], mirrored where ``flip``.

    ``out`` is [N, C, H, W], or with ``interleave`` [N, H, W, C] for C = 3.
    """
    count, channels, height, width = images.shape
    size = height * width
    source, target = images.reshape(-1), out.reshape(-1)
    for n in range(count):
        if interleave:
            start = 3 * n * size
            for y in range(0, size, width):
                _normalise_pixels(
                    source, start + y, size, width, flip[n], scale, shift, target, start + 3 * y
                )
        else:
            for c in range(channels):
                start = (n * channels + c) * size
                for y in range(start, start + size, width):
                    _normalise_row(source, y, width, flip[n], scale[c], shift[c], target, y)
