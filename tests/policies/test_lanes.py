"""Sixteen lanes against numpy and torch, on every kind of number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from policies.lane_arithmetic import choose, equals, exceeds, multiply_add
from policies.lanes import WIDTH, accumulate, fill, load, load_bits, load_one, move, spread, store

ODD = np.array([0x0000, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0xFFC1, 0x0001, 0x7F7F], np.uint32) << 16


def bits(seed: int) -> np.ndarray:
    """uint32 [64]: random bits, among them NaN, infinities, zeros, denormals, and halfway cases."""
    drawn = np.random.default_rng(seed).integers(0, 2**32, 64, np.uint32)
    drawn[:8], drawn[8:16] = ODD, ODD | 0x8000
    drawn[16:24] &= 0xFFFF8000
    return drawn


@njit
def narrow(wide, low):
    for i in range(0, wide.size, WIDTH):
        store(low, i, load(wide, i))


@given(st.integers(0, 10**6))
def test_bfloat16_is_rounded_and_widened_as_torch_does(seed):
    wide = bits(seed).view(np.float32)
    low, again = np.empty(64, np.uint16), np.empty(64, np.float32)
    narrow(wide, low)
    narrow(low, again)
    expected = torch.from_numpy(wide).to(torch.bfloat16)
    # Any NaN is as good as another.
    assert torch.equal(torch.from_numpy(low).view(torch.bfloat16).isnan(), expected.isnan())
    known = ~expected.isnan()
    assert np.array_equal(low[known], expected.view(torch.uint16).numpy()[known])
    assert np.array_equal(again, expected.float().numpy(), equal_nan=True)


@njit
def arithmetic(a, b, out):
    one = fill(load(a, 0), 1.0)
    for i in range(0, a.size, WIDTH):
        v, w = load(a, i), load(b, i)
        where = v < w
        store(out, i, choose(where, (v + one) * w - v, multiply_add(v, w, load_one(b, i + 3))))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arithmetic_is_lane_by_lane(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 64)).astype(dtype)
    out = np.empty_like(a)
    arithmetic(a, b, out)
    third = np.repeat(b[3::WIDTH], WIDTH)
    expected = np.where(a < b, (a + 1) * b - a, a * b + third)
    assert np.allclose(out, expected, rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@njit
def larger(a, b, index):
    place = choose(exceeds(load(a, 0), load(b, 0)), spread(np.uint8(3)), spread(np.uint8(7)))
    store(index, 0, place)


def test_a_nan_exceeds_everything_and_is_exceeded_by_nan_only():
    a, b = np.zeros(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    a[:6] = [1, 0, -1, np.nan, 1, np.nan]
    b[:6] = [0, 0, 0, 0, np.nan, np.nan]
    index = np.empty(WIDTH, np.uint8)
    larger(a, b, index)
    assert index[:6].tolist() == [3, 7, 7, 3, 7, 3]


@njit
def pick(values, index, wanted, out, sums):
    zero = load_bits(np.zeros(WIDTH, values.dtype), 0)
    there = load_bits(values, 0)
    store(out, 0, choose(equals(load(index, 0), spread(wanted)), there, zero))
    move(values, 1, out, WIDTH)
    accumulate(sums, 0, load(values, 0))
    accumulate(sums, 0, load(values, 0))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
@pytest.mark.long
def test_bits_pass_unchanged_and_sums_are_double(dtype):
    given = bits(1)
    if dtype != np.uint16:
        values = np.random.default_rng(2).normal(size=20).astype(dtype)
        wide = values[:WIDTH].astype(np.float64)
    else:
        values = ((given[24:44] & 0x3FFFFFFF) >> 16).astype(np.uint16)  # finite
        wide = (values[:WIDTH].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    index, sums = np.arange(WIDTH, dtype=np.uint8) % 3, np.ones(WIDTH)
    out = np.empty(2 * WIDTH, dtype)
    pick(values, index, np.uint8(1), out, sums)
    assert np.array_equal(out[:WIDTH], np.where(index == 1, values[:WIDTH], 0))
    assert np.array_equal(out[WIDTH:], values[1 : WIDTH + 1])
    assert np.array_equal(sums, 1 + wide + wide)
