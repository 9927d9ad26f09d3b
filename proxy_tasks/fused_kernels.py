"""Batch norm with what surrounds it in one pass, and a convolution of few channels, for a CPU.

Maps are C-contiguous arrays [N, H, W, C]; bfloat16 comes as uint16 (policies/lanes.py). C is a
multiple of 16, an image's own channels excepted. All work goes image by image, so that a map is
still in the first-level cache when it is read again; sums run in the type of the parameters over
one image, in float64 over the batch. One thread, no GIL, and an order of summation that depends on
the shapes alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from policies.compiled import compiled
from policies.lane_arithmetic import choose, equals, exceeds, multiply_add
from policies.lanes import WIDTH, accumulate, fill, load, load_bits, load_one, move, spread, store


@njit(nogil=True)
def _pool(x, first, height, width, channels, pooled, index, to):
    """2×2 maxima of one image, and which of the four each was: the first of equals, or a NaN."""
    row = width * channels
    one, two, three = spread(np.uint8(1)), spread(np.uint8(2)), spread(np.uint8(3))
    for top in range(0, height - 1, 2):
        for left in range(0, width - 1, 2):
            corner = first + top * row + left * channels
            for c in range(corner, corner + channels, WIDTH):
                best, place = load(x, c), spread(np.uint8(0))
                other = load(x, c + channels)
                better = exceeds(other, best)
                best, place = choose(better, other, best), choose(better, one, place)
                other = load(x, c + row)
                better = exceeds(other, best)
                best, place = choose(better, other, best), choose(better, two, place)
                other = load(x, c + row + channels)
                better = exceeds(other, best)
                best, place = choose(better, other, best), choose(better, three, place)
                store(pooled, to, best)
                store(index, to, place)
                to += WIDTH


@njit(nogil=True)
def _add_sums(x, first, pixels, channels, pivot, total, squares):
    """Adds one image's sums of x - pivot and of its square, by channel."""
    for c in range(0, channels, WIDTH):
        middle = load(pivot, c)
        zero = fill(middle, 0.0)
        even, odd, even2, odd2 = zero, zero, zero, zero  # two chains: one would wait for itself
        at = first + c
        for _ in range(pixels // 2):
            v, w = load(x, at) - middle, load(x, at + channels) - middle
            even, odd = even + v, odd + w
            even2, odd2 = multiply_add(v, v, even2), multiply_add(w, w, odd2)
            at += 2 * channels
        if pixels % 2:
            v = load(x, at) - middle
            even, even2 = even + v, multiply_add(v, v, even2)
        accumulate(total, c, even + odd)
        accumulate(squares, c, even2 + odd2)


@njit(nogil=True)
def _normalise(x, first, pixels, channels, mean, scale, shift, y):
    for c in range(0, channels, WIDTH):
        middle, factor, offset = load(mean, c), load(scale, c), load(shift, c)
        zero = fill(middle, 0.0)
        at = first + c
        for _ in range(pixels):
            v = multiply_add(load(x, at) - middle, factor, offset)
            store(y, at, choose(v < zero, zero, v))
            at += channels


@njit(nogil=True)
def _normalise_average(x, first, pixels, channels, mean, scale, shift, y, to):
    for c in range(0, channels, WIDTH):
        middle, factor, offset = load(mean, c), load(scale, c), load(shift, c)
        zero = fill(middle, 0.0)
        total = zero
        at = first + c
        for _ in range(pixels):
            v = multiply_add(load(x, at) - middle, factor, offset)
            total = total + choose(v < zero, zero, v)
            at += channels
        store(y, to + c, total * fill(middle, 1.0 / pixels))


@compiled()
def forward(
    x,
    pool,
    average,
    scale,
    shift,
    running_mean,
    running_variance,
    momentum,
    epsilon,
    pooled,
    index,
    y,
    saved,
):
    """y = ReLU(batch norm(x)), after 2×2 max-pooling with `pool`, averaged over the map with
    `average` (then [N, 1, 1, C]).

    `scale`, `shift` [C] are the layer's; the running statistics move towards mean and (unbiased)
    variance of the batch. For `backward`, `pooled` receives what is normalised and uint8 `index`
    where it came from (with `pool`, else they are not looked at), and `saved` [3, C] mean, 1/sd
    and scale/sd.
    """
    images, height, width, channels = x.shape
    size = height * width * channels
    if pool:
        small = (height // 2) * (width // 2) * channels
    else:
        small = size
        pooled = x
    pixels = small // channels
    total, squares = np.zeros(channels, np.float64), np.zeros(channels, np.float64)
    pivot = np.zeros_like(scale)
    for image in range(images):
        if pool:
            _pool(x, image * size, height, width, channels, pooled, index, image * small)
        if image == 0:
            # The mean of one image lies within sqrt(N) standard deviations of the batch's mean:
            # sums of squares about it lose no more than log2(N) bits.
            _add_sums(pooled, 0, pixels, channels, pivot, total, squares)
            for c in range(channels):
                pivot[c] = total[c] / pixels
            total[:] = 0.0
            squares[:] = 0.0
        _add_sums(pooled, image * small, pixels, channels, pivot, total, squares)
    count = images * pixels
    for c in range(channels):
        mean = total[c] / count
        variance = max(squares[c] / count - mean * mean, 0.0)
        mean += pivot[c]
        saved[0, c] = mean
        saved[1, c] = 1.0 / np.sqrt(variance + epsilon)
        saved[2, c] = scale[c] * saved[1, c]
        running_mean[c] += momentum * (mean - running_mean[c])
        unbiased = variance * count / (count - 1)
        running_variance[c] += momentum * (unbiased - running_variance[c])
    for image in range(images):
        if average:
            _normalise_average(
                pooled,
                image * small,
                pixels,
                channels,
                saved[0],
                saved[2],
                shift,
                y,
                image * channels,
            )
        else:
            _normalise(pooled, image * small, pixels, channels, saved[0], saved[2], shift, y)


@njit(nogil=True)
def _add_gradient_sums(
    grad, at_grad, step, weight, x, first, pixels, channels, mean, scale, shift, total, products
):
    """Adds one image's sums of g and g * (x - mean), g being the gradient before the ReLU.

    `step` is how far the gradients of neighbouring pixels are apart: 0 after an average.
    """
    for c in range(0, channels, WIDTH):
        middle, factor, offset = load(mean, c), load(scale, c), load(shift, c)
        zero, share = fill(middle, 0.0), fill(middle, weight)
        even, odd, even2, odd2 = zero, zero, zero, zero
        at, there = first + c, at_grad + c
        for _ in range(pixels // 2):
            v, w = load(x, at) - middle, load(x, at + channels) - middle
            g, h = load(grad, there) * share, load(grad, there + step) * share
            g = choose(multiply_add(v, factor, offset) > zero, g, zero)
            h = choose(multiply_add(w, factor, offset) > zero, h, zero)
            even, odd = even + g, odd + h
            even2, odd2 = multiply_add(g, v, even2), multiply_add(h, w, odd2)
            at += 2 * channels
            there += 2 * step
        if pixels % 2:
            v = load(x, at) - middle
            g = choose(multiply_add(v, factor, offset) > zero, load(grad, there) * share, zero)
            even, even2 = even + g, multiply_add(g, v, even2)
        accumulate(total, c, even + odd)
        accumulate(products, c, even2 + odd2)


@njit(nogil=True)
def _spread_gradient(
    grad,
    at_grad,
    step,
    weight,
    x,
    first,
    pixels,
    channels,
    mean,
    scale,
    shift,
    slope,
    level,
    out,
    to,
):
    """The gradient of one image's x: scale * g + slope * (x - mean) + level."""
    for c in range(0, channels, WIDTH):
        middle, factor, offset = load(mean, c), load(scale, c), load(shift, c)
        zero, share = fill(middle, 0.0), fill(middle, weight)
        tilt, lift = load(slope, c), load(level, c)
        at, there, where = first + c, at_grad + c, to + c
        for _ in range(pixels):
            v = load(x, at) - middle
            g = choose(multiply_add(v, factor, offset) > zero, load(grad, there) * share, zero)
            store(out, where, multiply_add(g, factor, multiply_add(v, tilt, lift)))
            at += channels
            where += channels
            there += step


@njit(nogil=True)
def _unpool(small, height, width, channels, index, at, out, first):
    """One image's gradients of maxima, put where the maxima came from; 0 elsewhere."""
    row = width * channels
    zero = load_bits(np.zeros(WIDTH, small.dtype), 0)
    one, two, three = spread(np.uint8(1)), spread(np.uint8(2)), spread(np.uint8(3))
    nought = spread(np.uint8(0))
    if height % 2:
        for to in range(first + (height - 1) * row, first + height * row, WIDTH):
            store(out, to, zero)
    start = at
    for top in range(0, height - 1, 2):
        for left in range(0, width - 1, 2):
            corner = first + top * row + left * channels
            for c in range(corner, corner + channels, WIDTH):
                v, place = load_bits(small, at - start), load(index, at)
                store(out, c, choose(equals(place, nought), v, zero))
                store(out, c + channels, choose(equals(place, one), v, zero))
                store(out, c + row, choose(equals(place, two), v, zero))
                store(out, c + row + channels, choose(equals(place, three), v, zero))
                at += WIDTH
        if width % 2:
            last = first + (top + 1) * row - channels
            for c in range(last, last + channels, WIDTH):
                store(out, c, zero)
                store(out, c + row, zero)


@compiled()
def backward(grad, x, pool, average, scale, shift, saved, index, grad_x, grads):
    """The gradients of `forward`: of its input into `grad_x`, of scale and shift into `grads`
    [2, C].

    `grad` is that of y; `x` what was normalised: the input, or with `pool` the pooled input.
    """
    images, height, width, channels = grad_x.shape
    size = height * width * channels
    small = (height // 2) * (width // 2) * channels if pool else size
    pixels = small // channels
    count = images * pixels
    if average:
        step, per_image, weight = 0, channels, 1.0 / pixels
    else:
        step, per_image, weight = channels, small, 1.0
    mean, factor = saved[0], saved[2]
    total, products = np.zeros(channels, np.float64), np.zeros(channels, np.float64)
    for image in range(images):
        _add_gradient_sums(
            grad,
            image * per_image,
            step,
            weight,
            x,
            image * small,
            pixels,
            channels,
            mean,
            factor,
            shift,
            total,
            products,
        )
    slope, level = np.empty_like(scale), np.empty_like(scale)
    for c in range(channels):
        grads[0, c] = products[c] * saved[1, c]
        grads[1, c] = total[c]
        slope[c] = -factor[c] * saved[1, c] * saved[1, c] * products[c] / count
        level[c] = -factor[c] * total[c] / count
    scratch = np.empty(small if pool else 0, x.dtype)
    for image in range(images):
        if pool:
            _spread_gradient(
                grad,
                image * per_image,
                step,
                weight,
                x,
                image * small,
                pixels,
                channels,
                mean,
                factor,
                shift,
                slope,
                level,
                scratch,
                0,
            )
            _unpool(scratch, height, width, channels, index, image * small, grad_x, image * size)
        else:
            _spread_gradient(
                grad,
                image * per_image,
                step,
                weight,
                x,
                image * small,
                pixels,
                channels,
                mean,
                factor,
                shift,
                slope,
                level,
                grad_x,
                image * small,
            )


@njit(nogil=True)
def _offsets(out_height, out_width, stride, row, channels, tail):
    """Where the 3×3 window of each output pixel starts in a padded image; `tail` for what fills
    up the last group of 8."""
    pixels = out_height * out_width
    at = np.full((pixels + 7) // 8 * 8, tail, np.int64)
    for y in range(out_height):
        for x in range(out_width):
            at[y * out_width + x] = y * stride * row + x * stride * channels
    return at


@njit(nogil=True)
def _inside(row, channels):
    """The offsets of a 3×3 window's numbers from its start."""
    span = 3 * channels
    at = np.empty(3 * span, np.int64)
    for k in range(at.size):
        at[k] = k // span * row + k % span
    return at


@njit(nogil=True)
def _pad(x, image, padded):
    _, height, width, channels = x.shape
    row, flat = (width + 2) * channels, x.reshape(-1)
    for y in range(height):
        source = (image * height + y) * width * channels
        target = (y + 1) * row + channels
        whole = width * channels // WIDTH * WIDTH
        for k in range(0, whole, WIDTH):  # a slice would cost more than its copy
            move(x, source + k, padded, target + k)
        for k in range(whole, width * channels):
            padded[target + k] = flat[source + k]


@compiled()
def convolve_stem(x, stride, weight, out):
    """3×3 convolution with a border of 1 of few channels, in float32 (or float64) arithmetic.

    `weight` is [3, 3, C, outputs]. The weights of a window position serve eight pixels at a time,
    whose sums stay in registers.
    """
    images, height, width, channels = x.shape
    outputs = weight.shape[3]
    row = (width + 2) * channels
    inside = _inside(row, channels)
    out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
    pixels = out_height * out_width
    at = _offsets(out_height, out_width, stride, row, channels, 0)
    padded = np.zeros((height + 2) * row, x.dtype)
    for image in range(images):
        _pad(x, image, padded)
        for p in range(0, at.size, 8):
            at0, at1, at2, at3 = at[p], at[p + 1], at[p + 2], at[p + 3]
            at4, at5, at6, at7 = at[p + 4], at[p + 5], at[p + 6], at[p + 7]
            for o in range(0, outputs, WIDTH):
                s0 = fill(load(weight, 0), 0.0)
                s1, s2, s3, s4, s5, s6, s7 = s0, s0, s0, s0, s0, s0, s0
                for k in range(inside.size):
                    factor, j = load(weight, k * outputs + o), inside[k]
                    s0 = multiply_add(factor, load_one(padded, at0 + j), s0)
                    s1 = multiply_add(factor, load_one(padded, at1 + j), s1)
                    s2 = multiply_add(factor, load_one(padded, at2 + j), s2)
                    s3 = multiply_add(factor, load_one(padded, at3 + j), s3)
                    s4 = multiply_add(factor, load_one(padded, at4 + j), s4)
                    s5 = multiply_add(factor, load_one(padded, at5 + j), s5)
                    s6 = multiply_add(factor, load_one(padded, at6 + j), s6)
                    s7 = multiply_add(factor, load_one(padded, at7 + j), s7)
                to = (image * pixels + p) * outputs + o
                left = pixels - p
                store(out, to, s0)
                if left > 1:
                    store(out, to + outputs, s1)
                if left > 2:
                    store(out, to + 2 * outputs, s2)
                if left > 3:
                    store(out, to + 3 * outputs, s3)
                if left > 4:
                    store(out, to + 4 * outputs, s4)
                if left > 5:
                    store(out, to + 5 * outputs, s5)
                if left > 6:
                    store(out, to + 6 * outputs, s6)
                if left > 7:
                    store(out, to + 7 * outputs, s7)


@compiled()
def stem_weight_gradient(x, stride, grad, grad_weight):
    """The gradient of `convolve_stem`'s weights, added to float64 [3, 3, C, outputs]."""
    images, height, width, channels = x.shape
    outputs = grad_weight.shape[3]
    row = (width + 2) * channels
    inside = _inside(row, channels)
    out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
    pixels = out_height * out_width
    # What fills up the last group of 8 reads zeros behind the image, and gradients of a pixel
    # that is there.
    at = _offsets(out_height, out_width, stride, row, channels, (height + 2) * row)
    padded = np.zeros((height + 2) * row + 2 * row + 3 * channels, x.dtype)
    sums = np.empty(grad_weight.size, x.dtype)
    for image in range(images):
        _pad(x, image, padded)
        sums[:] = 0
        for p in range(0, at.size, 8):
            at0, at1, at2, at3 = at[p], at[p + 1], at[p + 2], at[p + 3]
            at4, at5, at6, at7 = at[p + 4], at[p + 5], at[p + 6], at[p + 7]
            left = pixels - 1 - p
            for o in range(0, outputs, WIDTH):
                to = (image * pixels + p) * outputs + o
                g0 = load(grad, to)
                g1 = load(grad, to + min(1, left) * outputs)
                g2 = load(grad, to + min(2, left) * outputs)
                g3 = load(grad, to + min(3, left) * outputs)
                g4 = load(grad, to + min(4, left) * outputs)
                g5 = load(grad, to + min(5, left) * outputs)
                g6 = load(grad, to + min(6, left) * outputs)
                g7 = load(grad, to + min(7, left) * outputs)
                for k in range(inside.size):
                    j, w = inside[k], k * outputs + o
                    s = load(sums, w)
                    s = multiply_add(g0, load_one(padded, at0 + j), s)
                    s = multiply_add(g1, load_one(padded, at1 + j), s)
                    s = multiply_add(g2, load_one(padded, at2 + j), s)
                    s = multiply_add(g3, load_one(padded, at3 + j), s)
                    s = multiply_add(g4, load_one(padded, at4 + j), s)
                    s = multiply_add(g5, load_one(padded, at5 + j), s)
                    s = multiply_add(g6, load_one(padded, at6 + j), s)
                    s = multiply_add(g7, load_one(padded, at7 + j), s)
                    store(sums, w, s)
        for w in range(0, sums.size, WIDTH):
            accumulate(grad_weight, w, load(sums, w))


@compiled()
def columns(x, out):
    """The 3×3 windows of x (with a border of zeros) as rows of `out` [N * H * W, 9 * C]."""
    images, height, width, channels = x.shape
    flat = out.reshape(-1)
    to = 0
    for image in range(images):
        for top in range(-1, height - 1):
            for left in range(-1, width - 1):
                for y in range(top, top + 3):
                    for x_ in range(left, left + 3):
                        if 0 <= y < height and 0 <= x_ < width:
                            at = ((image * height + y) * width + x_) * channels
                            for c in range(0, channels, WIDTH):
                                move(x, at + c, flat, to + c)
                        else:
                            flat[to : to + channels] = 0
                        to += channels
