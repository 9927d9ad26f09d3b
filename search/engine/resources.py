"""Where evaluations run: the options of the pool of workers. Imports neither Ray nor torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated

from policies.errors import InputError
from policies.options import Configuration, Option


def cores() -> int:
    """That this process may use: a scheduler may have given it a few of many."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


LOCAL = "local"  # address of no cluster


@dataclass(frozen=True)
class PoolConfig(Configuration):
    """Where evaluations run: none of it changes a result, so a resumed run may change all of it.

    children_per_gpu does by rounding.
    """

    workers: Annotated[
        int,
        Option("evaluations at the same time; does not change results", unit="N", least=1,
               example=4),
    ] = field(default_factory=cores)  # fmt: skip
    cpus: Annotated[
        float,
        Option(
            "CPU cores reserved per worker, may be a fraction", unit="CORES", above=0, example=1
        ),
    ] = 1.0
    gpus: Annotated[
        float,
        Option(
            "GPUs reserved per worker, may be a fraction; with 0 all workers use the first",
            unit="GPUS",
            least=0,
            example=0.5,
        ),
    ] = 0.0
    children_per_gpu: Annotated[
        int,
        Option(
            "children that a worker trains at once on its GPU; changes results by rounding",
            unit="N",
            least=1,
            example=16,
        ),
    ] = 1
    address: Annotated[
        str | None,
        Option(
            "Ray cluster to run on",
            unit="HOST:PORT",
            unset="this machine only, as with local",
            pattern=r"\s*\S[\s\S]*",
            rule="HOST:PORT of a Ray cluster, or local",
        ),
    ] = None
    time_limit: Annotated[
        float | None,
        Option(
            "kill an evaluation, or children trained at once, after so many seconds",
            unit="SECONDS",
            unset="no limit",
            above=0,
            example=600,
        ),
    ] = None
    retries: Annotated[
        int, Option("further attempts after a failed evaluation", unit="N", least=0)
    ] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address == LOCAL:
            object.__setattr__(self, "address", None)
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise InputError("gpus", "must be whole above 1", self.gpus, "pass 1 or 2")
