"""Compiled CPU kernels: one loop over the batch applies each image's chain of operations.

Bit-exact with Pillow 13 on uint8 images with 1 or 3 channels. What makes it fast:

* Operations that map each value of a channel to another (Invert, Solarize, Posterize, Brightness,
  AutoContrast, Equalize, and Contrast once the mean is known) are not carried out but composed
  into one look-up table a channel; the table is applied together with the next operation that
  has to touch the pixels, or at the end.
* The histogram after a look-up table follows from the histogram before it.
* Nearest-neighbour affine maps walk, row by row, exactly the span of pixels that comes from inside
  the image: no test a pixel. Shears and translations are copies of runs.

The arithmetic is Pillow's (Blend.c, Geometry.c, Filter.c, Convert.c, ImageOps): blends in float32
and truncated, grey as 16-bit integer weights, affine coordinates in 16.16 fixed point. Compiled
code is cached on disk (one compiled signature an entry point); this module is imported at the
first use, since importing numba takes a while. All functions release the GIL.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from .program import CODE

(
    _IDENTITY, _INVERT, _SOLARIZE, _POSTERIZE, _BRIGHTNESS, _AUTOCONTRAST, _EQUALIZE,
    _CONTRAST, _COLOR, _SHARPNESS, _AFFINE, _CUTOUT, _PAIRING,
) = CODE.values()  # fmt: skip
# The codes are ordered: up to _BRIGHTNESS a table without looking at the image, up to _EQUALIZE
# one from the histogram of a channel, _CONTRAST one from the mean grey.
_GREY = 128  # Cutout's filling
_ONE = 1 << 16


@njit(nogil=True)
def _blend(a, b, factor):
    """Image.blend of two values: float32 arithmetic, clipped, truncated."""
    x = np.float32(a)
    t = x + factor * (np.float32(b) - x)
    t = t if t > np.float32(0) else np.float32(0)
    t = t if t < np.float32(255) else np.float32(255)
    return np.uint8(np.int32(t))


@njit(nogil=True)
def _blend_with(out, partner, factor):
    # In place through one name: with two names for one array the compiler could not vectorise.
    for i in range(out.size):
        out[i] = _blend(out[i], partner[i], factor)


@njit(nogil=True)
def _grey(r, g, b):
    return (
        np.uint32(r) * np.uint32(19595) + np.uint32(g) * np.uint32(38470)
        + np.uint32(b) * np.uint32(7471) + np.uint32(32768)
    ) >> np.uint32(16)  # fmt: skip


@njit(nogil=True)
def _histogram(values, table, spare):
    """Counts of each value; four tables side by side, since repeats would wait for each other."""
    spare[:] = 0
    n = values.size
    for i in range(n // 4):
        j = 4 * i
        spare[0, values[j]] += np.uint32(1)
        spare[1, values[j + 1]] += np.uint32(1)
        spare[2, values[j + 2]] += np.uint32(1)
        spare[3, values[j + 3]] += np.uint32(1)
    for j in range(n - n % 4, n):
        spare[0, values[j]] += np.uint32(1)
    for v in range(256):
        table[v] = np.int64(spare[0, v]) + spare[1, v] + spare[2, v] + spare[3, v]


@njit(nogil=True)
def _histogram_after(before, lut, after):
    after[:] = 0
    for v in range(256):
        after[lut[v]] += before[v]


@njit(nogil=True)
def _autocontrast_lut(counts, lut):
    low = 0
    while low < 255 and counts[low] == 0:
        low += 1
    high = 255
    while high > 0 and counts[high] == 0:
        high -= 1
    if high <= low:
        for v in range(256):
            lut[v] = v
        return
    scale = 255.0 / (high - low)
    offset = -low * scale
    for v in range(256):
        t = np.int64(v * scale + offset)
        lut[v] = np.uint8(min(max(t, 0), 255))


@njit(nogil=True)
def _equalize_lut(counts, lut):
    occupied = 0
    last = 0
    total = 0
    for v in range(256):
        if counts[v]:
            occupied += 1
            last = counts[v]
            total += counts[v]
    step = (total - last) // 255
    if occupied <= 1 or step == 0:
        for v in range(256):
            lut[v] = v
        return
    n = step // 2
    wide, divisor = np.uint32(n), np.uint32(step)  # unsigned 32-bit division is the quick one
    for v in range(256):
        lut[v] = np.uint8(min(wide // divisor, np.uint32(255)))
        wide += np.uint32(counts[v])


@njit(nogil=True)
def _value_lut(code, value, lut):
    """Tables that do not depend on the image."""
    for v in range(256):
        if code == _INVERT:
            lut[v] = 255 - v
        elif code == _SOLARIZE:
            lut[v] = v if v < value else 255 - v
        elif code == _POSTERIZE:
            lut[v] = v & (256 - (1 << (8 - np.int64(value))))
        else:
            lut[v] = _blend(0, v, np.float32(value))


@njit(nogil=True)
def _mean_grey(pixels, lut, use_lut):
    """int(mean + 0.5) of the grey image, the table being applied first."""
    total = 0
    n = pixels.shape[1]
    if pixels.shape[0] == 1:
        if use_lut:
            for i in range(n):
                total += np.int64(lut[0, pixels[0, i]])
        else:
            for i in range(n):
                total += np.int64(pixels[0, i])
    else:
        r, g, b = pixels[0], pixels[1], pixels[2]
        if use_lut:
            lr, lg, lb = lut[0], lut[1], lut[2]
            for i in range(n):
                total += np.int64(_grey(lr[r[i]], lg[g[i]], lb[b[i]]))
        else:
            for i in range(n):
                total += np.int64(_grey(r[i], g[i], b[i]))
    return np.int64(total / n + 0.5)


@njit(nogil=True)
def _look_up(pixels, lut, out):
    for c in range(pixels.shape[0]):
        a, b, table = pixels[c], out[c], lut[c]
        for i in range(a.size):
            b[i] = table[a[i]]


@njit(nogil=True)
def _copy(pixels, out):
    for c in range(pixels.shape[0]):
        a, b = pixels[c], out[c]
        for i in range(a.size):
            b[i] = a[i]


@njit(nogil=True)
def _settle(pixels, lut, use_lut, out):
    """Bring ``out`` to what ``pixels`` and the pending table stand for."""
    if use_lut:
        _look_up(pixels, lut, out)
    elif pixels.ctypes.data != out.ctypes.data:
        _copy(pixels, out)


@njit(nogil=True)
def _color(out, factor):
    r, g, b = out[0], out[1], out[2]
    for i in range(r.size):
        grey = _grey(r[i], g[i], b[i])
        r[i] = _blend(grey, r[i], factor)
        g[i] = _blend(grey, g[i], factor)
        b[i] = _blend(grey, b[i], factor)


@njit(nogil=True)
def _sharpness(pixels, height, width, factor, out):
    """Blend with the SMOOTH filter, (2 s + 13) // 26; the outer pixels stay as they are."""
    _copy(pixels, out)
    for c in range(pixels.shape[0]):
        for y in range(1, height - 1):
            above = pixels[c, (y - 1) * width : y * width]
            row = pixels[c, y * width : (y + 1) * width]
            below = pixels[c, (y + 1) * width : (y + 2) * width]
            target = out[c, y * width : (y + 1) * width]
            for x in range(1, width - 1):
                s = (
                    np.uint32(above[x - 1]) + np.uint32(above[x]) + np.uint32(above[x + 1])
                    + np.uint32(row[x - 1]) + np.uint32(row[x + 1]) + np.uint32(below[x - 1])
                    + np.uint32(below[x]) + np.uint32(below[x + 1])
                    + np.uint32(5) * np.uint32(row[x])
                )  # fmt: skip
                smooth = (np.uint32(2) * s + np.uint32(13)) // np.uint32(26)
                target[x] = _blend(smooth, row[x], factor)


@njit(nogil=True)
def _span(start, step, size, low, high):
    """The part [low, high) of 0..size-1 where 0 <= (start + step * i) >> 16 < size_of_source.

    ``size`` is the source size in 16.16 fixed point, exclusive."""
    if step == 0:
        if start < 0 or start >= size:
            return 0, 0
        return low, high
    if step > 0:
        first = -(start // step)  # ceil(-start / step)
        last = (size - 1 - start) // step
    else:
        first = -((size - 1 - start) // -step)  # ceil((size - 1 - start) / step)
        last = start // -step
    low = max(low, first)
    high = min(high, last + 1)
    return (low, high) if low < high else (0, 0)


@njit(nogil=True)
def _affine(pixels, lut, use_lut, height, width, m, fill, offsets, out):
    """Row by row: fill, the span that comes from inside the image, fill."""
    channels = pixels.shape[0]
    runs = m[0] == _ONE and m[3] == 0  # a row of the source, shifted
    m0, m3 = np.int32(m[0]), np.int32(m[3])
    for y in range(height):
        sx = m[1] * y + m[2]
        sy = m[4] * y + m[5]
        low, high = _span(sx, m[0], width * _ONE, 0, width)
        low, high = _span(sy, m[3], height * _ONE, low, high)
        n = high - low
        if not runs:
            row, column = np.int32(sy + m[3] * low), np.int32(sx + m[0] * low)
            for x in range(n):
                i = np.int32(x)
                at = ((row + m3 * i) >> 16) * np.int32(width) + ((column + m0 * i) >> 16)
                offsets[x] = np.uint32(at)
        start = (sy >> 16) * width + (sx >> 16) + low
        for c in range(channels):
            source, table, target = pixels[c], lut[c], out[c, y * width : (y + 1) * width]
            for x in range(low):
                target[x] = fill[c]
            for x in range(high, width):
                target[x] = fill[c]
            target = target[low:high]
            if runs:
                part = source[start : start + n]
                if use_lut:
                    for x in range(n):
                        target[x] = table[part[x]]
                else:
                    for x in range(n):
                        target[x] = part[x]
            elif use_lut:
                for x in range(n):
                    target[x] = table[source[offsets[x]]]
            else:
                for x in range(n):
                    target[x] = source[offsets[x]]


@njit(nogil=True)
def _cutout(side, row, column, height, width, out):
    top, left = row - side // 2, column - side // 2
    for c in range(out.shape[0]):
        for y in range(max(top, 0), min(top + side, height)):
            out[c, y * width + max(left, 0) : y * width + min(left + side, width)] = _GREY


_U8 = types.uint8
_I64 = types.int64
_SOURCE = types.Array(_U8, 3, "C", readonly=True)


@njit(
    types.void(
        _SOURCE, types.Array(_U8, 3, "C"), _I64, _I64, types.Array(_I64, 2, "C"),
        types.Array(_I64, 3, "C"), types.Array(_I64, 1, "C"), types.Array(types.float64, 1, "C"),
        types.Array(_I64, 2, "C"), types.Array(_U8, 1, "C"), _I64, _I64,
    ),
    nogil=True, cache=True,
)  # fmt: skip
def run(
    images, result, height, width, steps, extra, codes, values, matrices, fill, start, stop
):
    """Write what becomes of images [N, C, H*W] number start..stop-1 to ``result``."""
    channels, size = images.shape[1], images.shape[2]
    scratch = np.empty((channels, size), np.uint8)
    lut = np.empty((channels, 256), np.uint8)
    step_lut = np.empty(256, np.uint8)
    counts = np.empty((channels, 256), np.int64)
    counts_after = np.empty(256, np.int64)
    spare = np.empty((4, 256), np.uint32)
    offsets = np.empty(width, np.uint32)
    for i in range(start, stop):
        current = images[i]
        current = scratch  # unify the types: read-only from here on
        current = images[i]
        target = result[i]
        moves = 0  # operations that cannot work in place: these alternate between the buffers
        for k in range(steps.shape[1]):
            code = codes[steps[i, k]]
            if code == _AFFINE or code == _SHARPNESS:
                moves += 1
        target = result[i] if moves % 2 == 0 else scratch
        use_lut = False
        counted = False
        for k in range(steps.shape[1]):
            entry = steps[i, k]
            code, value = codes[entry], values[entry]
            if code == _IDENTITY:
                continue
            if code <= _CONTRAST:
                if (code == _AUTOCONTRAST or code == _EQUALIZE) and not counted:
                    for c in range(channels):
                        _histogram(current[c], counts[c], spare)
                    counted = True
                mean = 0
                if code == _CONTRAST:
                    mean = _mean_grey(current, lut, use_lut)
                if code <= _BRIGHTNESS:
                    _value_lut(code, value, step_lut)
                for c in range(channels):
                    if code == _CONTRAST:
                        for v in range(256):
                            step_lut[v] = _blend(mean, v, np.float32(value))
                    elif code > _BRIGHTNESS:
                        if use_lut:
                            _histogram_after(counts[c], lut[c], counts_after)
                        else:
                            counts_after[:] = counts[c]
                        if code == _AUTOCONTRAST:
                            _autocontrast_lut(counts_after, step_lut)
                        else:
                            _equalize_lut(counts_after, step_lut)
                    if use_lut:
                        for v in range(256):
                            lut[c, v] = step_lut[lut[c, v]]
                    else:
                        lut[c] = step_lut
                use_lut = True
                continue
            if code == _COLOR and channels == 1:
                continue
            counted = False
            if code == _AFFINE or code == _SHARPNESS:
                moves -= 1
            if code == _AFFINE:
                target = result[i] if moves % 2 == 0 else scratch
                _affine(
                    current, lut, use_lut, height, width, matrices[entry], fill, offsets, target
                )
            else:
                if use_lut or code != _SHARPNESS:
                    _settle(current, lut, use_lut, target)
                    current = target
                if code == _SHARPNESS:
                    target = result[i] if moves % 2 == 0 else scratch
                    _sharpness(current, height, width, np.float32(value), target)
                elif code == _COLOR:
                    _color(target, np.float32(value))
                elif code == _CUTOUT:
                    _cutout(
                        np.int64(value), extra[i, k, 0], extra[i, k, 1], height, width, target
                    )
                elif code == _PAIRING:
                    partner = images[extra[i, k, 0]]
                    for c in range(channels):
                        _blend_with(target[c], partner[c], np.float32(value))
            current = target
            use_lut = False
        _settle(current, lut, use_lut, target)


@njit(
    types.void(types.Array(_U8, 1, "C", readonly=True), types.Array(_U8, 3, "C")),
    nogil=True, cache=True,
)  # fmt: skip
def split_channels(pixels, planes):
    """Interleaved RGB, flat, to planes [1, 3, H*W]."""
    r, g, b = planes[0, 0], planes[0, 1], planes[0, 2]
    for i in range(r.size):
        r[i] = pixels[3 * i]
        g[i] = pixels[3 * i + 1]
        b[i] = pixels[3 * i + 2]


@njit(
    types.void(types.Array(_U8, 3, "C"), types.Array(_U8, 1, "C")), nogil=True, cache=True
)
def join_channels(planes, pixels):
    """Planes [1, 3, H*W] to interleaved RGB, flat."""
    r, g, b = planes[0, 0], planes[0, 1], planes[0, 2]
    for i in range(r.size):
        pixels[3 * i] = r[i]
        pixels[3 * i + 1] = g[i]
        pixels[3 * i + 2] = b[i]
