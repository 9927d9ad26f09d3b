"""numba's compiler as the toolkit uses it: no GIL, compiled code cached on disk.

Kept apart because importing numba takes a while; only modules with kernels import this one.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from numba import njit


class UncachedKernels(UserWarning):
    """Compiled kernels cannot be kept on disk: every process compiles them again."""


def compiled(*signature: Any) -> Callable[[Callable], Callable]:
    """Decorator of an entry point: ``njit`` of the signature, or at the first call without one.

    numba keeps compiled code beside the source file, else in the user's cache folder. Where it can
    write to neither (a read-only installation without a home), it refuses to compile at all; we
    compile without a cache and warn, rather than unpickle code from a shared temporary folder.
    """

    compile_with: Callable[..., Callable] = njit  # numba's overloads know no optional signature

    def decorate(function: Callable) -> Callable:
        try:
            return compile_with(*signature, nogil=True, cache=True)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            _warn()
            return compile_with(*signature, nogil=True)(function)

    return decorate


@functools.cache  # once a process: compiling resets Python's own memory of warnings
def _warn() -> None:
    warnings.warn(
        "numba cannot cache compiled kernels, so that every process spends many seconds on "
        "compiling them: neither the folder of the package nor the user's cache folder can be "
        "written; set NUMBA_CACHE_DIR to a folder of yours",
        UncachedKernels, stacklevel=3,
    )  # fmt: skip
