"""The fused crop-flip-normalise kernel against plain torch and plain loops."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from proxy_tasks.batches import (
    Jitter,
    channel_statistics,
    draw_jitter,
    no_jitter,
    normalisation,
    prepare_batch,
    prepare_batch_torch,
    upload,
)

CPU = torch.device("cpu")


def example(n, c, h, w, pad, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, c, h, w), np.uint8)
    return images, draw_jitter(n, pad, True, rng), normalisation(images)


def plain(images, table):
    count = len(images)
    return prepared(images, np.arange(count), no_jitter(count, 0), 0, table)


def prepared(images, order, jitter, pad, table, function=prepare_batch, device=CPU):
    draws = upload([order, *jitter], device)
    return function(
        torch.from_numpy(images).to(device), draws, pad, torch.from_numpy(table).to(device)
    )


def by_hand(images, order, jitter, pad, table):
    """One image at a time with numpy's own pad, slice and reverse."""
    _, c, h, w = images.shape
    out = np.empty((len(order), c, h, w), np.float32)
    for i, image in enumerate(order):
        padded = np.pad(images[image], ((0, 0), (pad, pad), (pad, pad)))
        crop = padded[:, jitter.top[i] : jitter.top[i] + h, jitter.left[i] : jitter.left[i] + w]
        if jitter.flip[i]:
            crop = crop[:, :, ::-1]
        for k in range(c):
            out[i, k] = table[k][crop[k]]
    return out


@given(
    n=st.integers(1, 5), extra=st.integers(0, 3), c=st.sampled_from([1, 3]),
    h=st.integers(1, 9), w=st.integers(1, 9),
    pad=st.integers(0, 4), seed=st.integers(0, 999),
)  # fmt: skip
def test_both_paths_equal_plain_numpy(n, extra, c, h, w, pad, seed):
    images, jitter, table = example(n + extra, c, h, w, pad, seed)
    order = np.random.default_rng(seed).permutation(n + extra)[:n]
    jitter = Jitter(*(values[:n] for values in jitter))
    expected = by_hand(images, order, jitter, pad, table)
    for function in (prepare_batch, prepare_batch_torch):
        got = prepared(images, order, jitter, pad, table, function)
        assert got.dtype == torch.float32 and np.array_equal(got.numpy(), expected)


def test_memory_is_channels_last():
    images, jitter, table = example(2, 3, 8, 8, 4, 0)
    got = prepared(images, np.arange(2), jitter, 4, table)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_no_jitter_is_the_identity():
    images, _, table = example(3, 3, 6, 5, 0, 1)
    got = plain(images, table)
    again = np.rint(got.numpy() * images.std((0, 2, 3))[:, None, None]
                    + images.mean((0, 2, 3))[:, None, None])  # fmt: skip
    assert np.array_equal(again, images)


def test_normalised_training_images_have_mean_0_and_sd_1():
    images, _, table = example(50, 3, 8, 8, 0, 2)
    got = plain(images, table)
    assert torch.allclose(got.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(got.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_constant_channel_is_only_centred():
    images = np.full((2, 1, 4, 4), 7, np.uint8)
    assert normalisation(images)[0, 7] == 0 and np.isfinite(normalisation(images)).all()


def test_draws_are_uniform():
    jitter = draw_jitter(9000, 4, True, np.random.default_rng(0))
    for offsets in (jitter.top, jitter.left):
        assert chisquare(np.bincount(offsets, minlength=9)).pvalue > 0.01
    assert chisquare(np.bincount(jitter.flip, minlength=2)).pvalue > 0.01


def test_no_flip_keeps_the_other_draws():
    first = draw_jitter(50, 4, True, np.random.default_rng(3))
    second = draw_jitter(50, 4, False, np.random.default_rng(3))
    assert not second.flip.any() and first.flip.any()
    assert np.array_equal(first.top, second.top) and np.array_equal(first.left, second.left)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_equals_cpu():
    images, jitter, table = example(5, 3, 9, 9, 4, 0)
    there = prepared(images, np.arange(5), jitter, 4, table, device=torch.device("cuda"))
    assert torch.equal(there.cpu(), prepared(images, np.arange(5), jitter, 4, table))


def test_statistics_are_those_of_all_images_in_little_memory():
    images = np.random.default_rng(0).integers(0, 200, (600, 3, 32, 32), np.uint8)
    images[:, 2] = 7
    tracemalloc.start()
    means, deviations = channel_statistics(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert means == pytest.approx(images.mean((0, 2, 3)))
    assert deviations == pytest.approx([*images.std((0, 2, 3))[:2], 1.0])
    # numpy counts in 8 bytes each: of all images of a channel that would be 2.7 times the images.
    assert peak < 1.5 * images.nbytes
