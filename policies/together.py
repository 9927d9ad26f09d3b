"""Copies of one batch under several transforms, in as few launches as under one.

For children that are trained at once: on an accelerator a policy is some 300 launches whatever the
size of the batch, so what all of them are to undergo is run as one program.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .base import Transform
from .program import CODE, Program, Table


def join(transforms: Sequence[object]) -> bool:
    """Whether `transform_copies` can run them as one: no pipelines of a user's own, one `fill`."""
    given = [each for each in transforms if each is not None]
    drawn = [
        each
        for each in given
        if isinstance(each, Transform) and type(each)._call_torch is Transform._call_torch
    ]
    return len(drawn) == len(given) and len({each.fill for each in drawn}) <= 1


def transform_copies(transforms: Sequence[Transform | None], images: torch.Tensor) -> torch.Tensor:
    """uint8 [K * N, C, H, W]: images [N, C, H, W] under each of the K transforms, one after the
    other; None leaves them as they are.

    The same bytes, from the same draws, as K calls. Of transforms that `join`.
    """
    from .kernels_torch import run

    n, channels, height, width = images.shape
    programs = [
        Program.nothing(n, channels) if each is None else each._draw(n, channels, height, width)
        for each in transforms
    ]
    return run(images.repeat(len(transforms), 1, 1, 1), joined(programs))


def joined(programs: Sequence[Program]) -> Program:
    """What batches undergo that lie one after the other in one; their fill is the same."""
    tables = [program.table for program in programs]
    slots = max(program.steps.shape[1] for program in programs)
    # Entry 0 is the identity, which fills up shorter programs.
    table = Table(
        np.concatenate([[CODE["identity"]], *(t.codes for t in tables)]),
        np.concatenate([[0.0], *(t.values for t in tables)]),
        np.concatenate([np.zeros((1, 6), np.int64), *(t.matrices for t in tables)]),
        (("Identity", 0.0), *(entry for t in tables for entry in t.operations)),
    )
    steps, extras, entry, start = [], [], 1, 0
    for program in programs:
        rows, own = program.steps.shape
        more = ((0, 0), (0, slots - own))
        steps.append(np.pad(program.steps + entry, more))
        extra = np.pad(program.extra, (*more, (0, 0)))
        blended = table.codes[steps[-1]] == CODE["pairing"]
        extra[..., 0] += np.where(blended, start, 0)  # a partner in its own batch
        extras.append(extra)
        entry += len(program.table.codes)
        start += rows
    fill = next((p.fill for p in programs if len(p.table.codes)), programs[0].fill)
    return Program(table, np.concatenate(steps), np.concatenate(extras), fill)
