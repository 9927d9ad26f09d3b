"""What a running search shows: a bar on a terminal, a line now and then elsewhere, a log file."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from policies.files import append_text

log = logging.getLogger("search")

LOG_NAME = "run.log"
SECONDS_BETWEEN_LINES = 30.0


class RunLog:
    """run.log in the run folder: every warning, with the detail (tracebacks) left off elsewhere."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOG_NAME
        self._broken = False

    def info(self, text: str) -> None:
        log.info("%s", text)
        self._write("INFO", text)

    def warning(self, text: str, detail: str = "") -> None:
        """One line on the terminal, all of it in the file."""
        log.warning("%s", f"{text}; traceback in {self.path}" if detail else text)
        self._write("WARNING", text, detail)

    def note(self, text: str, detail: str = "") -> None:
        """In the file alone."""
        self._write("WARNING", text, detail)

    def _write(self, level: str, text: str, detail: str = "") -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        indented = "".join(f"    {line}\n" for line in detail.splitlines())
        try:
            append_text(self.path, f"{stamp} {level} {text}\n{indented}")
        except OSError as error:
            # The search does not depend on its log; say so once and go on.
            if not self._broken:
                log.warning("cannot write %s: %s", self.path, error.strerror)
            self._broken = True


class Progress:
    """Evaluations done, best reward, failures and time left; a context manager.

    total: None when unknown. done: from an earlier run, left out of the time estimate. unit,
    score: what is counted, and by what the best is known.
    """

    def __init__(
        self,
        total: int | None,
        done: int,
        enabled: bool,
        unit: str = "evaluation",
        score: str = "reward",
    ) -> None:
        self._unit, self._score = unit, score
        self._total = total
        self._done = done
        self._new = 0
        self._enabled = enabled
        self._started = self._last_line = time.monotonic()
        self._bar: tqdm | None = None
        self._redirect = contextlib.ExitStack()

    def __enter__(self) -> Progress:
        if self._enabled and sys.stderr.isatty():
            with self._harmless():
                self._bar = tqdm(
                    total=self._total, initial=self._done, unit=self._unit, smoothing=0.1,
                    dynamic_ncols=True,
                )  # fmt: skip
                self._redirect.enter_context(logging_redirect_tqdm())
        return self

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        """A terminal that is gone, or takes no more, ends the bar and not the search."""
        try:
            yield
        except OSError:
            self._enabled = False
            if self._bar is not None:
                self._bar.disable = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._redirect.close()
        if self._bar is not None:
            with self._harmless():
                self._bar.close()

    def update(self, done: int, new: int, best: float | None, failed: int | None = None) -> None:
        """done, failed: of the whole run; new: made since the last call. Without `failed` nothing
        is said of failures."""
        if not self._enabled:
            return
        self._new += new
        shown = "-" if best is None else f"{best:.4g}"
        if self._bar is not None:
            with self._harmless():
                failures = {} if failed is None else {"failed": failed}
                self._bar.set_postfix(best=shown, **failures, refresh=False)
                self._bar.update(done - self._done)
            self._done = done
            return
        self._done = done
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            log.info(
                "%d of %s %ss, best %s %s, %s%s left",
                done,
                self._total or "?",
                self._unit,
                self._score,
                shown,
                "" if failed is None else f"{failed} failed, ",
                self._left(now),
            )

    def _left(self, now: float) -> str:
        if not self._total or not self._new:
            return "unknown time"
        seconds = int((now - self._started) / self._new * (self._total - self._done))
        hours, rest = divmod(seconds, 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
