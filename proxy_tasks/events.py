"""Events for TensorBoard, written at once.

tensorboardX's `SummaryWriter` writes from a thread: on a full disk that one dies, and whoever has
something to tell waits for ever. Here whoever writes hears of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from policies.errors import InputError


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """InputError where what is done within cannot write in the folder."""
    try:
        yield
    except OSError as error:
        raise InputError(
            "tensorboard", "must be a folder that can be written in",
            f"{folder}: {error.strerror}", "make room, or name another",
        ) from error  # fmt: skip


class EventFile:
    """One file of scalars in `folder`, which is made where it is missing.

    Everything raises InputError where it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))

    def add(self, name: str, value: float, step: int, clock: float | None = None) -> None:
        """A value at a step. clock: seconds since 1970; None: now."""
        when = time.time() if clock is None else clock
        event = Event(wall_time=when, step=int(step), summary=scalar(name, value))
        with writing(self.folder):
            self._writer.write_event(event)

    def flush(self) -> None:
        with writing(self.folder):
            self._writer.flush()

    def close(self) -> None:
        with writing(self.folder):
            self._writer.close()
