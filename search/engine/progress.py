"""What a running search shows: a bar in terminals and notebooks, a line now and then elsewhere.

Lines go to the log where one listens, so that they stand among a program's others, and to stderr
where none does. How a program logs is its own affair: no handler or level is set here. And the log
file of a run.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from tqdm.notebook import tqdm_notebook

from policies.bars import tqdm
from policies.files import append_text
from proxy_tasks.run_format import LOG_NAME

log = logging.getLogger("search")

SECONDS_BETWEEN_LINES = 30.0


def _takes_bars() -> bool:
    """A terminal, or a notebook that can draw them: then tqdm chooses its bar for notebooks."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal or issubclass(tqdm, tqdm_notebook)


def show(text: str) -> None:
    """A line for whoever asked for progress, wherever the program runs."""
    if log.isEnabledFor(logging.INFO) and log.hasHandlers():
        log.info("%s", text)
    elif sys.stderr is not None:
        with contextlib.suppress(OSError):  # nobody reads it: no reason to end the run
            print(text, file=sys.stderr, flush=True)


class RunLog:
    """run.log in the run folder: every warning, and every failure with the detail (tracebacks) that
    is left off elsewhere."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOG_NAME
        self._broken = False

    def info(self, text: str) -> None:
        log.info("%s", text)
        self._write("INFO", text)

    def warning(self, text: str) -> None:
        """What bears on the results; reports repeat it."""
        log.warning("%s", text)
        self._write("WARNING", text)

    def failure(self, text: str, detail: str = "") -> None:
        """What went wrong with an evaluation: one line on the terminal, all of it in the file."""
        log.warning("%s", f"{text}; traceback in {self.path}" if detail else text)
        self.note(text, detail)

    def note(self, text: str, detail: str = "") -> None:
        """Of a failure, in the file alone."""
        self._write("ERROR", text, detail)

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
    units, score: what is counted, one and many, and by what the best is known.
    """

    def __init__(
        self,
        total: float | None,
        done: float,
        enabled: bool,
        unit: str = "evaluation",
        units: str = "evaluations",
        score: str = "reward",
    ) -> None:
        self._unit, self._units, self._score = unit, units, score
        self._total = total
        self._done = done
        self._new = 0.0
        self._enabled = enabled
        self._started = self._last_line = time.monotonic()
        self._bar: tqdm | None = None

    def __enter__(self) -> Progress:
        if self._enabled and _takes_bars():
            with self._harmless():
                self._bar = tqdm(
                    total=self._total, initial=self._done, unit=self._unit, smoothing=0.1,
                    dynamic_ncols=True,
                )  # fmt: skip
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
        if self._bar is not None:
            with self._harmless():
                self._bar.close()

    def update(
        self,
        done: float,
        new: float,
        best: float | None,
        failed: int | None = None,
        arms: Callable[[], str] = str,
    ) -> None:
        """done, failed: of the whole run; new: made since the last call. Without `failed` nothing
        is said of failures. arms: asked when something is shown how they stand, where nothing is
        searched and the best of them is no news."""
        if not self._enabled:
            return
        self._new += new
        best_known = f"best {self._score} " + ("-" if best is None else f"{best:.4g}")
        if self._bar is not None:
            with self._harmless():
                standing = arms() or best_known
                failures = "" if failed is None else f", {failed} failed"
                self._bar.set_postfix_str(standing + failures, refresh=False)
                self._bar.update(done - self._done)
            self._done = done
            return
        self._done = done
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            standing = arms() or best_known
            lost = "" if failed is None else f"{failed} failed, "
            show(
                f"{done} of {self._total or '?'} {self._units}, {standing}, "
                f"{lost}{self._left(now)} left"
            )

    def _left(self, now: float) -> str:
        if not self._total or not self._new:
            return "unknown time"
        seconds = int((now - self._started) / self._new * (self._total - self._done))
        hours, rest = divmod(seconds, 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
