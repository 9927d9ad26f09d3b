"""The accelerator's path: bounded launches, nothing read back; and on CUDA where there is one."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from policies import IMAGENET, OPS, PolicyTransform, RandAugment
from tests.policies import images

ALL_OPS = [
    [(name, 1.0, 7 if op.has_magnitude else None), ("Cutout", 0.5, 9)] for name, op in OPS.items()
]
# What would make the host wait for the device: reading a value, sizes that depend on data.
SYNCHRONISING = ("_local_scalar_dense", "nonzero", "item", "masked_select", "unique", "bincount")


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: collections.Counter = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[function.__name__] += 1
        return function(*args, **(kwargs or {}))


def record(transform, n: int) -> collections.Counter:
    batch = torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8)
    transform = transform.with_generator(torch.Generator().manual_seed(0))
    program = transform._draw(n, 3, 16, 16)
    from policies.kernels_torch import run

    with Recorder() as recorder:
        run(batch, program)
    return recorder.calls


@pytest.mark.parametrize(
    "transform", [PolicyTransform(ALL_OPS), PolicyTransform(IMAGENET), RandAugment(2, 9)],
    ids=["every operation", "imagenet", "randaugment"],
)  # fmt: skip
def test_launches_do_not_grow_with_the_batch(transform):
    small, large = record(transform, 300), record(transform, 3000)
    assert sum(large.values()) == sum(small.values())
    # 12 kernels, at most about 60 launches each, a step.
    assert sum(large.values()) < 2 * 12 * 60


def test_nothing_is_read_back():
    calls = record(PolicyTransform(ALL_OPS), 300)
    assert not [name for name in calls if name.split(".")[0] in SYNCHRONISING]
    # One upload of indices and parameters, one of the fill (none on the CPU itself).
    assert sum(count for name, count in calls.items() if name.startswith("_to_copy")) < 100


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("size", images.SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_cuda_gives_the_same_bytes_without_synchronising(size, channels):
    pictures = images.synthetic(channels, *size)
    batch = torch.from_numpy(np.concatenate([np.stack(pictures)] * 40))
    transform = PolicyTransform(ALL_OPS)
    want = transform.with_generator(torch.Generator().manual_seed(1))(batch)
    on_device = batch.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = transform.with_generator(torch.Generator().manual_seed(1))(on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got.is_cuda and torch.equal(got.cpu(), want)
