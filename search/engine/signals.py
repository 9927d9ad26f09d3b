"""The first SIGINT or SIGTERM as a flag, so that a run can end between two evaluations."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any


class Signals:
    """Turns the first SIGINT or SIGTERM into a flag; a second one acts as ever.

    A context manager. Only the main thread can do that; elsewhere it does nothing.

    That it came is said at once: Ray may be starting, or evaluations have to be ended first.

    Attributes:
        number: of the signal that came, else None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self.install()
        return self

    def install(self) -> None:
        """Take the signals over; again after Ray has started, which takes SIGTERM for itself."""
        if self.number is None and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup or a shell wants it
                    previous = signal.signal(number, self._note)
                    self._previous.setdefault(number, previous)

    def _note(self, number: int, frame: Any) -> None:
        self.number = number
        self._restore()
        name = signal.Signals(number).name
        # Not through stderr's buffer or the log, in the midst of which the signal may have come.
        with contextlib.suppress(OSError):  # a terminal that is gone reads nothing
            os.write(2, f"\n{name}: ending after what is under way; again to stop now\n".encode())

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def __exit__(self, *_: object) -> None:
        self._restore()
