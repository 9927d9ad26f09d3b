"""Where ``torch.compile`` stops; a module of its own since the decorator takes torch's compiler,
and that takes seconds, to import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable
def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)``, outside of any compiled graph."""
    return function(*arguments)
