"""The accelerator's path on CPU tensors: torch kernels where compiled ones would run."""

from __future__ import annotations

import torch

from policies import Transform


def with_kernels(transform: Transform, kernels: str) -> Transform:
    """A copy whose tensors go through the kernels named: "compiled" (its own way) or "torch"."""
    moved = transform.with_generator(transform.generator)
    if kernels == "torch":

        def through_torch(self, batch, frames=1):
            return self._call_torch(torch.from_numpy(batch), frames).numpy()

        moved.__class__ = type("OnTorch", (type(transform),), {"_call_numpy": through_torch})
    return moved
