"""Compiled CPU kernels: one loop over the batch applies each image's chain of operations.

Bit-exact with Pillow 13 on uint8 images with 1 or 3 channels. What makes it fast:

* Operations that map each value of a channel to another (Invert, Solarize, Posterize, Brightness,
  AutoContrast, Equalize, and Contrast once the mean is known) are not carried out but composed
  into one look-up table a channel; the table is applied together with the next operation that
  has to touch the pixels, or at the end.
* Where the processor looks up 64 bytes at once (AVX512-VBMI), a table costs as much as a copy;
  elsewhere one operation alone is computed, which vectorises where a look-up does not.
* The histogram after a look-up table follows from the histogram before it. AutoContrast asks only
  for the extremes.
* Nearest-neighbour affine maps walk, row by row, exactly the span of pixels that comes from inside
  the image: no test a pixel. Horizontal shears and translations are copies of runs; in all others
  the bytes of a pixel travel together.

The arithmetic is Pillow's (Blend.c, Geometry.c, Filter.c, Convert.c, ImageOps): blends in float32
and truncated, grey as 16-bit integer weights, affine coordinates in 16.16 fixed point. Compiled
code is cached on disk (one compiled signature an entry point); this module is imported at the
first use, since importing numba takes a while. All functions release the GIL.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from .compiled import compiled
from .lane_arithmetic import (
    HAS_LOOK_UP,
    clipped,
    floats,
    highest,
    least,
    look_up,
    low_bytes,
    lowest,
    most,
    multiply_add,
    shift_left,
    shift_right,
    sum_of,
    whole,
)
from .lanes import LINE, WIDTH, fill, load, load_line, spread, store
from .program import BY_GREY, BY_VALUE, CODE

_IDENTITY = CODE["identity"]
_INVERT = CODE["invert"]
_SOLARIZE = CODE["solarize"]
_POSTERIZE = CODE["posterize"]
_BRIGHTNESS = CODE["brightness"]
_AUTOCONTRAST = CODE["autocontrast"]
_CONTRAST = CODE["contrast"]
_COLOR = CODE["color"]
_SHARPNESS = CODE["sharpness"]
_AFFINE = CODE["affine"]
_CUTOUT = CODE["cutout"]
_PAIRING = CODE["pairing"]
_LAST_BY_VALUE = CODE[BY_VALUE[-1]]  # up to here, tables that do not depend on the image
_LAST_TABLE = CODE[BY_GREY[-1]]  # up to here, tables
_GREY = 128  # Cutout's filling
# What is pending for an image: no table, a table of several operations or of a histogram, or the
# code of one operation that a table stands for.
_NOTHING, _COMPOSED = -1, -2
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
def _blend_lanes(a, b, factor):
    """_blend of floats that are whole numbers, as bytes; not fused, each step is rounded."""
    return clipped(a + factor * (b - a))


@njit(nogil=True)
def _blend_with(out, partner, factor):
    factors, rest = spread(factor), out.size % WIDTH
    for i in range(0, out.size - rest, WIDTH):
        store(out, i, _blend_lanes(floats(load(out, i)), floats(load(partner, i)), factors))
    for i in range(out.size - rest, out.size):
        out[i] = _blend(out[i], partner[i], factor)


@njit(nogil=True)
def _grey(r, g, b):
    return (
        np.uint32(r) * np.uint32(19595) + np.uint32(g) * np.uint32(38470)
        + np.uint32(b) * np.uint32(7471) + np.uint32(32768)
    ) >> np.uint32(16)  # fmt: skip


@njit(nogil=True)
def _grey_lanes(r, g, b):
    """_grey of floats, as int32. No rounding: in units of 2**-16 all is whole and below 2**24."""
    total = multiply_add(r, fill(r, 19595 / 65536), fill(r, 0.5))
    total = multiply_add(g, fill(r, 38470 / 65536), total)
    return whole(multiply_add(b, fill(r, 7471 / 65536), total))


@njit(nogil=True)
def _histogram(values, table, spare):
    """Counts of each value. Four tables side by side, since repeats would wait for each other; read
    eight bytes at once: the processor has enough to do with writing."""
    spare[:] = 0
    n = values.size
    for eight in values[: n - n % 8].view(np.uint64):
        spare[0, np.uint8(eight)] += np.uint32(1)
        spare[1, np.uint8(eight >> np.uint64(8))] += np.uint32(1)
        spare[2, np.uint8(eight >> np.uint64(16))] += np.uint32(1)
        spare[3, np.uint8(eight >> np.uint64(24))] += np.uint32(1)
        spare[0, np.uint8(eight >> np.uint64(32))] += np.uint32(1)
        spare[1, np.uint8(eight >> np.uint64(40))] += np.uint32(1)
        spare[2, np.uint8(eight >> np.uint64(48))] += np.uint32(1)
        spare[3, np.uint8(eight >> np.uint64(56))] += np.uint32(1)
    for j in range(n - n % 8, n):
        spare[0, values[j]] += np.uint32(1)
    for v in range(256):
        table[v] = np.int64(spare[0, v]) + spare[1, v] + spare[2, v] + spare[3, v]


@njit(nogil=True)
def _histogram_after(before, lut, after):
    after[:] = 0
    for v in range(256):
        after[lut[v]] += before[v]


@njit(nogil=True)
def _ends(counts):
    """The least and greatest value that occurs."""
    low = 0
    while low < 255 and counts[low] == 0:
        low += 1
    high = 255
    while high > 0 and counts[high] == 0:
        high -= 1
    return low, high


@njit(nogil=True)
def _extremes(values, table, use_lut):
    """_ends without a histogram; the table applied first, which takes HAS_LOOK_UP."""
    low, high, rest = 255, 0, values.size % LINE
    if values.size >= LINE:
        first, second = load_line(table, 0), load_line(table, 64)
        third, fourth = load_line(table, 128), load_line(table, 192)
        line = load_line(values, 0)
        if HAS_LOOK_UP and use_lut:
            line = look_up(line, first, second, third, fourth)
        small, great = line, line
        for i in range(LINE, values.size - rest, LINE):
            line = load_line(values, i)
            if HAS_LOOK_UP and use_lut:
                line = look_up(line, first, second, third, fourth)
            small, great = least(small, line), most(great, line)
        low, high = np.int64(lowest(small)), np.int64(highest(great))
    for i in range(values.size - rest, values.size):
        v = np.int64(table[values[i]]) if use_lut else np.int64(values[i])
        low, high = min(low, v), max(high, v)
    return low, high


@njit(nogil=True)
def _autocontrast_lut(low, high, lut):
    if high <= low:
        for v in range(256):
            lut[v] = v
        return
    scale = 255.0 / (high - low)
    offset = -low * scale
    for v in range(256):
        t = np.int64(v * scale + offset)
        lut[v] = np.uint8(min(max(t, 0), 255))


@njit(nogil=True, error_model="numpy")  # a test for a division by 0 would not vectorise
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
    sums = np.empty(256, np.float64)
    n = step // 2
    for v in range(256):
        sums[v] = n
        n += counts[v]
    divisor = np.float64(step)
    for v in range(256):  # whole numbers below 2**52: the quotient's whole part is exact
        lut[v] = np.uint8(np.int64(min(sums[v] / divisor, 255.0)))


@njit(nogil=True)
def _value_lut(code, value, constant, lut):
    """Tables of operations that do not depend on a histogram."""
    for v in range(256):
        if code == _INVERT:
            lut[v] = 255 - v
        elif code == _SOLARIZE:
            lut[v] = v if v < value else 255 - v
        elif code == _POSTERIZE:
            lut[v] = v & (256 - (1 << (8 - np.int64(value))))
        else:
            lut[v] = _blend(constant, v, np.float32(value))


@njit(nogil=True)
def _look_up(a, table, b):
    done = 0
    if HAS_LOOK_UP:
        done = a.size - a.size % LINE
        first, second = load_line(table, 0), load_line(table, 64)
        third, fourth = load_line(table, 128), load_line(table, 192)
        for i in range(0, done, LINE):
            store(b, i, look_up(load_line(a, i), first, second, third, fourth))
    for i in range(done, a.size):
        b[i] = table[a[i]]


@njit(nogil=True)
def _copy(a, b):
    for i in range(a.size):
        b[i] = a[i]


@njit(nogil=True)
def _sum_of_grey(planes, low, high):
    total = 0
    if planes.shape[0] == 1:
        for i in range(low, high):
            total += np.int64(planes[0, i])
        return total
    r, g, b = planes[0], planes[1], planes[2]
    done = high - (high - low) % WIDTH
    lanes = whole(fill(spread(np.float32(0)), 0.0))
    for i in range(low, done, WIDTH):
        lanes = lanes + _grey_lanes(floats(load(r, i)), floats(load(g, i)), floats(load(b, i)))
    total = np.int64(sum_of(lanes))
    for i in range(done, high):
        total += np.int64(_grey(r[i], g[i], b[i]))
    return total


@njit(nogil=True)
def _mean_grey(pixels, lut, use_lut, part):
    """int(mean + 0.5) of the grey image, the table being applied first, in parts of that size."""
    total = 0
    n, size = pixels.shape[1], part.shape[1]
    for low in range(0, n, size):
        high = min(low + size, n)
        if use_lut:
            for c in range(pixels.shape[0]):
                _look_up(pixels[c, low:high], lut[c], part[c])
            total += _sum_of_grey(part, 0, high - low)
        else:
            total += _sum_of_grey(pixels, low, high)
    return np.int64(total / n + 0.5)


@njit(nogil=True)
def _compute(a, code, value, constant, b):
    """What a table of one single operation does, in arithmetic: vectorises, a look-up does not."""
    if code == _INVERT:
        for i in range(a.size):
            b[i] = np.uint8(255) - a[i]
    elif code == _SOLARIZE:
        limit = np.int16(np.ceil(value))  # v < value and v < ceil(value) are the same for integers
        for i in range(a.size):
            b[i] = a[i] if np.int16(a[i]) < limit else np.uint8(255) - a[i]
    elif code == _POSTERIZE:
        mask = np.uint8(256 - (1 << (8 - np.int64(value))))
        for i in range(a.size):
            b[i] = a[i] & mask
    else:
        factor = np.float32(value)
        for i in range(a.size):
            b[i] = _blend(constant, a[i], factor)


@njit(nogil=True)
def _settle(pixels, lut, pending, value, constant, out):
    """Bring ``out`` to what ``pixels`` and the pending table stand for."""
    for c in range(pixels.shape[0]):
        if pending == _COMPOSED or (pending != _NOTHING and HAS_LOOK_UP):
            _look_up(pixels[c], lut[c], out[c])
        elif pending != _NOTHING:
            _compute(pixels[c], pending, value, constant, out[c])
        elif pixels.ctypes.data != out.ctypes.data:
            _copy(pixels[c], out[c])


@njit(nogil=True)
def _color(out, factor):
    r, g, b = out[0], out[1], out[2]
    factors, rest = spread(factor), r.size % WIDTH
    for i in range(0, r.size - rest, WIDTH):
        x, y, z = floats(load(r, i)), floats(load(g, i)), floats(load(b, i))
        grey = floats(_grey_lanes(x, y, z))
        store(r, i, _blend_lanes(grey, x, factors))
        store(g, i, _blend_lanes(grey, y, factors))
        store(b, i, _blend_lanes(grey, z, factors))
    for i in range(r.size - rest, r.size):
        mean = _grey(r[i], g[i], b[i])
        r[i] = _blend(mean, r[i], factor)
        g[i] = _blend(mean, g[i], factor)
        b[i] = _blend(mean, b[i], factor)


@njit(nogil=True)
def _sharpness(pixels, height, width, factor, out):
    """Blend with the SMOOTH filter, (2 s + 13) // 26; the outer pixels stay as they are."""
    factors = spread(factor)
    for c in range(pixels.shape[0]):
        source, target = pixels[c], out[c]
        _copy(source, target)
        for y in range(1, height - 1):
            at, end = y * width + 1, (y + 1) * width - 1
            if end - at >= WIDTH:
                while at < end:
                    at = min(at, end - WIDTH)  # the last ones of a row overlap those before
                    store(target, at, _sharpness_lanes(source, at, width, factors))
                    at += WIDTH
            for i in range(at, end):
                s = (
                    np.uint32(source[i - width - 1]) + np.uint32(source[i - width])
                    + np.uint32(source[i - width + 1]) + np.uint32(source[i - 1])
                    + np.uint32(source[i + 1]) + np.uint32(source[i + width - 1])
                    + np.uint32(source[i + width]) + np.uint32(source[i + width + 1])
                    + np.uint32(5) * np.uint32(source[i])
                )  # fmt: skip
                smooth = (np.uint32(2) * s + np.uint32(13)) // np.uint32(26)
                target[i] = _blend(smooth, source[i], factor)


@njit(nogil=True)
def _sharpness_lanes(source, at, width, factors):
    above = _three(source, at - width) + whole(load(source, at - width))
    below = _three(source, at + width) + whole(load(source, at + width))
    middle = whole(load(source, at))
    twice = middle + middle
    s = floats(above + below + _three(source, at) + twice + twice + middle)
    # Half of 1 / 26 more: then the whole part is that of the exact quotient, however it is rounded.
    smooth = whole(multiply_add(s, fill(s, 2 / 26), fill(s, 13.5 / 26)))
    return _blend_lanes(floats(smooth), floats(middle), factors)


@njit(nogil=True)
def _three(source, at):
    """The sum of left and right neighbour."""
    return whole(load(source, at - 1)) + whole(load(source, at + 1))


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
def _paint(out, low, high, value):
    """out[low:high] = value, without a slice for a few bytes."""
    if high - low >= WIDTH:
        lanes = spread(value)
        for i in range(low, high - WIDTH, WIDTH):
            store(out, i, lanes)
        store(out, high - WIDTH, lanes)
    else:
        for i in range(low, high):
            out[np.uint64(i)] = value


@njit(nogil=True)
def _affine(pixels, lut, use_lut, height, width, m, fill, offsets, packed, spans, out):
    """Nearest-neighbour map. ``spans`` receives the part of each row that has a source."""
    channels = pixels.shape[0]
    for y in range(height):
        low, high = _span(m[1] * y + m[2], m[0], width * _ONE, 0, width)
        spans[y, 0], spans[y, 1] = _span(m[4] * y + m[5], m[3], height * _ONE, low, high)
    if m[0] == _ONE and m[3] == 0:  # every row is a row of the source, shifted
        for c in range(channels):  # outermost: one plane fits the first-level cache
            _shift(pixels[c], lut[c], use_lut, height, width, m, out[c])
    else:
        if channels == 3:
            _gather_colours(pixels, height, width, m, offsets, packed, spans, out)
        else:
            _gather_grey(pixels[0], height, width, m, offsets, spans, out[0])
        if use_lut:
            for c in range(channels):
                _look_up(out[c], lut[c], out[c])
    for c in range(channels):
        plane = out[c]
        for y in range(height):
            start = y * width
            _paint(plane, start, start + spans[y, 0], fill[c])
            _paint(plane, start + spans[y, 1], start + width, fill[c])


@njit(nogil=True)
def _shift(source, table, use_lut, height, width, m, out):
    """Copies rows that move alike in one go; what comes from beyond a row's end is filled later."""
    y = 0
    while y < height:
        move = ((m[4] * y + m[5]) >> 16) * width + ((m[1] * y + m[2]) >> 16) - y * width
        end = y + 1
        while end < height and move == (
            ((m[4] * end + m[5]) >> 16) * width + ((m[1] * end + m[2]) >> 16) - end * width
        ):
            end += 1
        low = max(y * width, -move)
        high = min(end * width, source.size - move)
        if low < high:
            if use_lut:
                _look_up(source[low + move : high + move], table, out[low:high])
            else:
                _copy(source[low + move : high + move], out[low:high])
        y = end


@njit(nogil=True)
def _sources(y, width, m, spans, offsets):
    """Where in the plane the pixels of a row come from; returns the first pixel and how many."""
    low, n = spans[y, 0], spans[y, 1] - spans[y, 0]
    m0, m3, wide = np.int32(m[0]), np.int32(m[3]), np.int32(width)
    row = np.int32(m[4] * y + m[5] + m[3] * low)
    column = np.int32(m[1] * y + m[2] + m[0] * low)
    for x in range(n):
        i = np.int32(x)
        offsets[x] = ((row + m3 * i) >> 16) * wide + ((column + m0 * i) >> 16)
    return y * width + low, n


@njit(nogil=True)
def _gather_grey(source, height, width, m, offsets, spans, out):
    # Read the plane once, line by line: then it is in the cache before it is read in an order that
    # no prefetcher foresees. (The sum is kept so that the compiler keeps the reads.)
    total = np.uint32(0)
    for i in range(0, source.size, 64):
        total += np.uint32(source[i])
    offsets[0] = np.int32(total & np.uint32(1))
    for y in range(height):
        first, n = _sources(y, width, m, spans, offsets)
        target = out[first : first + n]
        for x in range(n):
            target[x] = source[np.uint32(offsets[x])]


@njit(nogil=True)
def _gather_colours(pixels, height, width, m, offsets, packed, spans, out):
    """A pixel's three bytes travel as one number: a third of the reads in no foreseeable order."""
    r, g, b = pixels[0], pixels[1], pixels[2]
    rest = r.size % WIDTH
    for i in range(0, r.size - rest, WIDTH):
        upper = shift_left(whole(load(b, i)), 16) + shift_left(whole(load(g, i)), 8)
        store(packed, i, upper + whole(load(r, i)))
    for i in range(r.size - rest, r.size):
        packed[i] = np.int32(r[i]) | np.int32(g[i]) << 8 | np.int32(b[i]) << 16
    r, g, b = out[0], out[1], out[2]
    for y in range(height):
        first, n = _sources(y, width, m, spans, offsets)
        for x in range(n):
            offsets[x] = packed[np.uint32(offsets[x])]
        rest = n % WIDTH
        for x in range(0, n - rest, WIDTH):
            pixel = load(offsets, x)
            store(r, first + x, low_bytes(pixel))
            store(g, first + x, low_bytes(shift_right(pixel, 8)))
            store(b, first + x, low_bytes(shift_right(pixel, 16)))
        for x in range(n - rest, n):
            pixel = offsets[x]
            r[first + x] = pixel & 255
            g[first + x] = pixel >> 8 & 255
            b[first + x] = pixel >> 16


@njit(nogil=True)
def _cutout(side, row, column, height, width, out):
    top, left = row - side // 2, column - side // 2
    for c in range(out.shape[0]):
        for y in range(max(top, 0), min(top + side, height)):
            start = y * width
            _paint(out[c], start + max(left, 0), start + min(left + side, width), np.uint8(_GREY))


_U8 = types.uint8
_I64 = types.int64
_SOURCE = types.Array(_U8, 3, "C", readonly=True)


@compiled(
    types.void(
        _SOURCE, types.Array(_U8, 3, "C"), _I64, _I64, types.Array(_I64, 2, "C"),
        types.Array(_I64, 3, "C"), types.Array(_I64, 1, "C"), types.Array(types.float64, 1, "C"),
        types.Array(_I64, 2, "C"), types.Array(_U8, 1, "C"), _I64, _I64,
    )
)  # fmt: skip
def run(images, result, height, width, steps, extra, codes, values, matrices, fill, start, stop):
    """Write what becomes of images [N, C, H*W] number start..stop-1 to ``result``."""
    channels, size = images.shape[1], images.shape[2]
    scratch = np.empty((channels, size), np.uint8)
    lut = np.empty((channels, 256), np.uint8)
    step_lut = np.empty(256, np.uint8)
    counts = np.empty((channels, 256), np.int64)
    counts_after = np.empty(256, np.int64)
    part = np.empty((channels, 1024), np.uint8)
    spare = np.empty((4, 256), np.uint32)
    offsets = np.empty(width, np.int32)
    packed = np.empty(size if channels == 3 else 0, np.int32)
    spans = np.empty((height, 2), np.int64)
    for i in range(start, stop):
        current = scratch
        current = images[i]  # read-only: of both assignments the compiler takes the common type
        moves = 0  # operations that cannot work in place: these alternate between two buffers
        for k in range(steps.shape[1]):
            code = codes[steps[i, k]]
            if code == _AFFINE or code == _SHARPNESS:
                moves += 1
        target = result[i] if moves % 2 == 0 else scratch
        pending, pending_value, constant = _NOTHING, 0.0, 0
        counted = False  # whether ``counts`` are those of ``current``
        for k in range(steps.shape[1]):
            entry = steps[i, k]
            code, value = codes[entry], values[entry]
            if code == _IDENTITY or (code == _COLOR and channels == 1):
                continue
            if code <= _LAST_TABLE:
                use_lut = pending != _NOTHING
                if code == _CONTRAST:
                    constant = _mean_grey(current, lut, use_lut, part)
                elif (
                    code > _LAST_BY_VALUE
                    and not counted
                    and (code != _AUTOCONTRAST or (use_lut and not HAS_LOOK_UP))
                ):
                    for c in range(channels):
                        _histogram(current[c], counts[c], spare)
                    counted = True
                if code <= _LAST_BY_VALUE or code == _CONTRAST:
                    if code == _BRIGHTNESS:
                        constant = 0
                    _value_lut(code, value, constant, step_lut)
                for c in range(channels):
                    if code > _LAST_BY_VALUE and code != _CONTRAST:
                        if counted and use_lut:
                            _histogram_after(counts[c], lut[c], counts_after)
                        elif counted:
                            counts_after[:] = counts[c]
                        if code != _AUTOCONTRAST:
                            _equalize_lut(counts_after, step_lut)
                        elif counted:
                            low, high = _ends(counts_after)
                            _autocontrast_lut(low, high, step_lut)
                        else:
                            low, high = _extremes(current[c], lut[c], use_lut)
                            _autocontrast_lut(low, high, step_lut)
                    if use_lut:
                        _look_up(lut[c], step_lut, lut[c])
                    else:
                        lut[c] = step_lut
                single = pending == _NOTHING and (code <= _LAST_BY_VALUE or code == _CONTRAST)
                pending = code if single else _COMPOSED
                pending_value = value
                continue
            counted = False
            if code == _AFFINE:
                moves -= 1
                target = result[i] if moves % 2 == 0 else scratch
                _affine(
                    current, lut, pending != _NOTHING, height, width, matrices[entry], fill,
                    offsets, packed, spans, target,
                )  # fmt: skip
            else:
                if pending != _NOTHING or code != _SHARPNESS:
                    _settle(current, lut, pending, pending_value, constant, target)
                    current = target
                if code == _SHARPNESS:
                    moves -= 1
                    target = result[i] if moves % 2 == 0 else scratch
                    _sharpness(current, height, width, np.float32(value), target)
                elif code == _COLOR:
                    _color(target, np.float32(value))
                elif code == _CUTOUT:
                    _cutout(np.int64(value), extra[i, k, 0], extra[i, k, 1], height, width, target)
                elif code == _PAIRING:
                    partner = images[extra[i, k, 0]]
                    for c in range(channels):
                        _blend_with(target[c], partner[c], np.float32(value))
            current = target
            pending = _NOTHING
        _settle(current, lut, pending, pending_value, constant, target)


@njit(nogil=True)
def _split(pixels, r, g, b):  # apart: inside the loop over images it would not vectorise
    for i in range(r.size):
        r[i] = pixels[3 * i]
        g[i] = pixels[3 * i + 1]
        b[i] = pixels[3 * i + 2]


@compiled(types.void(types.Array(_U8, 2, "C", readonly=True), types.Array(_U8, 3, "C")))
def split_channels(pixels, planes):
    """Interleaved RGB [N, H*W*3] to planes [N, 3, H*W]."""
    for n in range(len(planes)):
        _split(pixels[n], planes[n, 0], planes[n, 1], planes[n, 2])


@compiled(types.void(types.Array(_U8, 3, "C"), types.Array(_U8, 1, "C")))
def join_channels(planes, pixels):
    """Planes [1, 3, H*W] to interleaved RGB, flat."""
    r, g, b = planes[0, 0], planes[0, 1], planes[0, 2]
    for i in range(r.size):
        pixels[3 * i] = r[i]
        pixels[3 * i + 1] = g[i]
        pixels[3 * i + 2] = b[i]
