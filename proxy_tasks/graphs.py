"""A training step recorded once for each size of batch, then replayed: as a CUDA graph.

A small child's step is some hundred launches that take the host longer than the GPU. Replaying them
is one. What a step reads has to lie where it lay when the step was recorded, so images and draws
are copied there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

# Images and draws -> losses: everything that a step does, on one device, at a learning rate that
# is a tensor.
Step = Callable[[Tensor, Tensor], Tensor]
# Steps that run as they are before one is recorded: what is made at first use (momentum, cuDNN's
# choice of algorithms) is then there.
FIRST = 2


def record_cuda(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A CUDA graph of `work`, which is not run meanwhile: how to run it, and where its result is.

    Raises RuntimeError for what cannot be recorded, such as waiting for the device.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


class _Recorded(NamedTuple):
    draws: Tensor
    replay: Callable[[], None]
    losses: Tensor


class Replayed:
    """`step`, recorded at its third batch of each size.

    The losses that it returns are overwritten by the next step of the same size.
    """

    def __init__(self, step: Step, record: Callable = record_cuda) -> None:
        self._step, self._record = step, record
        self._given: Tensor | None = None
        self._images: Tensor | None = None
        self._run: Counter[int] = Counter()
        self._recorded: dict[int, _Recorded] = {}

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images: uint8 [M, C, H, W], of the same shape every time. draws: int64 [5, N, ...]."""
        if self._images is None:
            self._images = images.clone()
        elif images is not self._given:
            self._images.copy_(images)
        self._given = images
        held, size = self._images, draws.shape[1]
        if self._run[size] < FIRST:
            self._run[size] += 1
            return self._step(held, draws)
        if size not in self._recorded:
            own = draws.clone()
            with torch.cuda.device(held.device) if held.is_cuda else nullcontext():
                replay, losses = self._record(lambda: self._step(held, own))
            self._recorded[size] = _Recorded(own, replay, losses)
        recorded = self._recorded[size]
        recorded.draws.copy_(draws)
        recorded.replay()
        return recorded.losses
