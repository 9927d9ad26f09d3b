"""How far a run is, by its journals: nothing is locked, a line being written is left out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pandas as pd

from proxy_tasks.run_format import CONFIG_NAME, EPOCHS_NAME, FINAL, RESULT_NAME
from proxy_tasks.trials import JOURNAL_NAME

from . import sections
from .asked import epochs, evaluations
from .runs import Run, dear, load_run, read_epochs, sound
from .spending import state

# Kinds of which the journals alone do not say whether all is done: stages may still follow.
OPEN_ENDED = ("race", "replicate", "rederive")
RECENT = 50  # results by which the speed is judged
SECONDS = 2.0  # between looks

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A journal of a run and how far it is.

    Attributes:
        name: folder of the journal inside the run's, "" for the run's own.
        trials: as in `Run`.
        asked: evaluations that it will have; 0 where that is not known beforehand.
        reward: what is maximised, in words.
        budget: what of it is spent, in words; None without one.
    """

    name: str
    trials: pd.DataFrame
    asked: int
    reward: str
    budget: str | None = None

    @property
    def done(self) -> int:
        return len(self.trials)

    @property
    def failed(self) -> int:
        return int((self.trials["status"] == "failed").sum())

    @property
    def diverged(self) -> int:
        return int(self.trials["diverged"].sum())

    @property
    def tested(self) -> bool:
        """Whether arms are compared on the test part, so that none of them is "the best so far"."""
        return bool((self.trials["part"] == "test").any())

    @property
    def sound(self) -> pd.DataFrame:
        """The rows of children that trained, in the order in which they ended, without a staged
        search's cheap ones."""
        return sound(dear(self.trials)).sort_values("finished", kind="stable")

    @property
    def seconds_left(self) -> float:
        """At the speed of the latest results; NaN where it cannot be known."""
        ends = self.trials.loc[self.trials["status"] != "duplicate", "finished"].nlargest(RECENT)
        pace = (ends.max() - ends.min()) / (len(ends) - 1) if len(ends) > 1 else math.nan
        return pace * (self.asked - self.done) if self.asked else math.nan


@dataclass(frozen=True)
class Progress:
    """A run and its stages. `epochs`: of a training, done and asked."""

    run: Run
    stages: tuple[Stage, ...]
    epochs: tuple[int, int] | None = None

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is done; never where that is not known."""
        if self.run.kind in OPEN_ENDED:
            return False
        if self.epochs:
            ended = (self.run.directory / RESULT_NAME).exists()  # by its loss, before the last
            return ended or self.epochs[0] >= self.epochs[1] > 0
        known = [stage for stage in self.stages if stage.asked]
        # A grid ends when its best cells have been evaluated again.
        others = len(known) < len(self.stages) or self.run.number("settings", "again") > 0
        return (
            bool(self.stages)
            and all(stage.done >= stage.asked for stage in known)
            and (self.run.chosen is not None or not others)
        )


def progress(directory: str | Path) -> Progress:
    """How far the run in a folder is. Raises InputError for a folder that is no run."""
    run = load_run(directory)
    if run.kind == "train":
        return Progress(run, (), (len(read_epochs(run)), epochs(run)))
    stages = [_stage(run, path.parent) for path in journals(run.directory)]
    # In the order in which they began.
    stages.sort(key=lambda stage: float(stage.trials["started"].min()) if stage.done else math.inf)
    return Progress(run, tuple(stages))


def follow(directory: str | Path) -> Iterator[Progress]:
    """How far a run is at every look, until it is complete; the same object where nothing is new.

    Raises:
        InputError: at once for a folder that is no run, at a look for one that no longer is.
    """
    latest = Latest(Path(directory), progress)

    def looks() -> Iterator[Progress]:
        while True:
            began = time.monotonic()
            yield (now := latest())
            if now.complete:
                return
            # A long journal must not keep a core busy beside the search.
            time.sleep(max(SECONDS, 5 * (time.monotonic() - began)))

    return looks()


class Latest(Generic[T]):
    """What `make` makes of a run's folder, made anew when there are new results."""

    def __init__(self, directory: Path, make: Callable[[Path], T]) -> None:
        self._directory, self._make = directory, make
        self._lock = threading.Lock()  # browsers ask for more than one page at a time
        self._seen = stamp(directory)
        self._made = make(directory)

    def __call__(self) -> T:
        with self._lock:
            seen = stamp(self._directory)
            if seen != self._seen:
                self._made = self._make(self._directory)
                self._seen = seen
            return self._made


def journals(directory: Path) -> list[Path]:
    """The journals in a run's folder: its own, or those of its stages."""
    return sorted(directory.rglob(JOURNAL_NAME))


def stamp(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Differs whenever a run has new results; asks the file system alone."""
    found = []
    for pattern in (JOURNAL_NAME, EPOCHS_NAME, "*.json"):
        for path in sorted(directory.rglob(pattern)):
            try:
                about = path.stat()
            except FileNotFoundError:  # replaced meanwhile: the next look sees it
                continue
            found.append((str(path), about.st_size, about.st_mtime_ns))
    return tuple(found)


def _stage(run: Run, folder: Path) -> Stage:
    """A stage in a folder; one with a configuration of its own is a run like any other."""
    name = folder.relative_to(run.directory).as_posix().removeprefix(".")
    alone = not name or (folder / CONFIG_NAME).exists()
    own = load_run(folder) if name and alone else run.stage(name)
    # How long a stage without a configuration of its own is, follows from what came before it.
    asked = evaluations(own) if alone else 0
    budget = state(own) if own.kind == "search" and name != FINAL else None
    return Stage(name, own.trials, asked, sections.reward_name(own), budget)
