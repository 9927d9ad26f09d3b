"""What makes processes of the toolkit start sooner."""

from __future__ import annotations

import sys

import torch

# Of torch.optim.Optimizer: they import torch's compiler at their first call, to be exempt from it.
_EXEMPT = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def without_compiler() -> None:
    """Let torch's optimisers be made without importing torch's compiler.

    That import takes a second of processor time, and a controller that has learnt nothing yet can
    do without; the first step of an optimiser imports it all the same. For processes that compile
    nothing: the command line. Without effect where the compiler is imported already, or where this
    torch exempts methods in another way.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in _EXEMPT:
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dynamo_disable = method
