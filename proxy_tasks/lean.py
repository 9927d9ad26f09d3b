"""What makes processes of the toolkit start sooner."""

from __future__ import annotations

import sys

import torch

# Of torch.optim.Optimizer: they import torch's compiler at their first call, to be exempt from it.
_EXEMPT = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def without_compiler() -> None:
    """Let torch's optimisers be used without importing torch's compiler.

    That import takes a second of processor time. For processes of our own, workers and the command
    line, which compile nothing; without effect where the compiler is imported already, or where
    this torch exempts methods in another way.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in _EXEMPT:
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dynamo_disable = method
