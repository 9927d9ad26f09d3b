"""Torch's generators on their way into copies, in this process or in another."""

from __future__ import annotations

import weakref

import torch


def state_of(generator: torch.Generator | None) -> bytes | None:
    """The state, to compare by."""
    return None if generator is None else generator.get_state().numpy().tobytes()


class _Travelling:
    """Becomes a generator of the same state where it is unpickled or deep-copied.

    Transforms that share a generator give the same object, and so share one in their copies too.
    (Torch's own way sends the state as shared memory, which spawned workers cannot open yet.)
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __reduce__(self) -> tuple:
        return _arrived, (state_of(self.generator),)


_ON_THE_WAY: weakref.WeakValueDictionary[int, _Travelling] = weakref.WeakValueDictionary()


def travelling(generator: torch.Generator | None) -> _Travelling | None:
    """What stands for the generator in a state that is pickled or deep-copied."""
    if generator is None:
        return None
    found = _ON_THE_WAY.get(id(generator))  # it holds its generator: no other has this id
    if found is None:
        _ON_THE_WAY[id(generator)] = found = _Travelling(generator)
    return found


def _arrived(state: bytes) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return generator
