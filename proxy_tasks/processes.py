"""Processes that train one network together, as torchrun starts them.

    torchrun --nproc-per-node 2 -m search.cli.main train --policy imagenet --out runs/child

Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import distributed

from policies.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: this one, 0..count-1. Process 0 alone writes files. count: how many there are.
    """

    rank: int = 0
    count: int = 1

    def total(self, value: float) -> float:
        """The sum over all processes. Each must call it, and waits for the others."""
        return self._reduced(value, "SUM")

    def largest(self, value: float) -> float:
        """The largest over all processes. Each must call it, and waits for the others."""
        return self._reduced(value, "MAX")

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Make them those of process 0. Each must call it, with tensors of the same shapes."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def _reduced(self, value: float, operation: str) -> float:
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(tensor, getattr(distributed.ReduceOp, operation))
        return tensor.item()


ALONE = Processes()


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """The processes that torchrun started, connected meanwhile; else this one alone.

    On a machine with GPUs, each process gets the one of its local rank.
    """
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield ALONE
        return
    if torch.cuda.is_available():
        rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if rank >= gpus:
            raise InputError(
                "nproc-per-node", f"must be at most the {gpus} GPUs that a process sees", rank + 1,
                'start fewer, or on CPUs with CUDA_VISIBLE_DEVICES=""',
            )  # fmt: skip
        torch.cuda.set_device(rank)
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
