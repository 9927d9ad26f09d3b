"""`augsearch watch --tensorboard`: a run as events for TensorBoard: a view, like the reports.

The run's folder is only read. The events lie under its name in the folder that is given, so that
one TensorBoard shows several runs, and every process that begins to watch writes them anew.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pandas as pd

from policies.errors import InputError
from policies.files import write_atomically
from proxy_tasks.evaluators.config import REWARDS
from proxy_tasks.events import EventFile, writing
from proxy_tasks.run_format import EPOCH_NUMBERS, EVENTS
from proxy_tasks.trials import MAIN

from .progress import Progress, follow
from .runs import read_epochs

MARKER = "of-run.txt"  # in a run's folder of events: where the run is


def watch_events(directory: str | Path, out: str | Path, once: bool = False) -> Path:
    """Write the events of a run, and go on until it is complete or the user interrupts.

    Args:
        directory: a run folder. It is only read, nothing is locked.
        out: folder for events, made where it is missing.
        once: write what there is and return.

    Returns:
        The folder of the run's events.

    Raises:
        InputError: for a folder that is no run, or no longer is, or events that cannot be there.
    """
    looks, told = follow(directory), None
    run = Path(directory).resolve()
    with (
        Events(_folder(run, Path(out) / run.name)) as events,
        suppress(KeyboardInterrupt),  # this is how a watcher leaves
    ):
        for now in looks:
            if now is not told:
                events.tell(now)
                told = now
            if once:
                break
    return events.folder


def _folder(run: Path, folder: Path) -> Path:
    """The folder of a run's events, marked as such; InputError where other things would suffer."""
    place, marker = folder.resolve(), folder / MARKER
    if place == run or run in place.parents or place in run.parents:
        raise InputError(
            "tensorboard", "must not be the run's folder, or lie in it or around it", str(folder),
            "name another folder",
        )  # fmt: skip
    whose = marker.read_text(encoding="utf-8").strip() if marker.is_file() else None
    if whose != str(run) and (whose is not None or any(folder.rglob(EVENTS))):
        raise InputError(
            "tensorboard", "must not have the events of another run of that name",
            f"{folder}, of {whose or 'an unknown one'}", "name another folder, or remove that one",
        )  # fmt: skip
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(marker, f"{run}\n")
    return folder


class Events:
    """Event files in `folder`, in place of those that are there; a folder in it for each stage.

    Scalars of evaluations are named METRIC, METRIC/EVALUATOR or METRIC/ARM, those of the test part
    with "test" before them; each counts its own steps from 1, in the order in which they ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, EventFile] = {}
        self._begin()

    def _begin(self) -> None:
        self.close()
        for old in self.folder.rglob(EVENTS):
            old.unlink()
        self._writers = {}
        self._told: dict[tuple, float] = {}
        self._steps: Counter[tuple[str, str]] = Counter()
        self._best: dict[tuple[str, str], float] = {}

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def tell(self, now: Progress) -> None:
        """Write what was not written yet; all anew where something was evaluated again."""
        epochs = read_epochs(now.run).to_dict("records") if now.epochs else []
        ends = {("", row["epoch"]): 0.0 for row in epochs} | {
            (stage.name, row.batch, row.slot): row.finished
            for stage in now.stages
            for row in stage.trials.itertuples()
        }
        if not self._told.items() <= ends.items():
            self._begin()
        for row in epochs:
            if ("", row["epoch"]) not in self._told:
                for name in EPOCH_NUMBERS:
                    self._scalar("", name, row[name], row["epoch"])
        for stage in now.stages:
            for _, row in stage.trials.sort_values("finished", kind="stable").iterrows():
                if (stage.name, row["batch"], row["slot"]) not in self._told:
                    self._trial(stage.name, row)
        self._told = ends
        for writer in self._writers.values():
            writer.flush()

    def _trial(self, stage: str, row: pd.Series) -> None:
        tested = row["part"] == "test"
        about = [str(row["scorer"])] * (row["scorer"] != MAIN) + [str(row["label"])]
        series = "/".join(part for part in about if part)

        def tag(name: str) -> str:
            return f"{'test ' * tested}{name}" + f"/{series}" * bool(series)

        step = self._steps[stage, tag("")] = self._steps[stage, tag("")] + 1
        for name in ("reward", *REWARDS, "seconds", "image_passes"):
            self._scalar(stage, tag(name), row[name], step, row["finished"])
        found = row["reward"] == row["reward"] and not row["diverged"]
        if found and not tested and not row["label"]:
            best = max(self._best.get((stage, series), -math.inf), row["reward"])
            self._best[stage, series] = best
            self._scalar(stage, tag("best reward so far"), best, step, row["finished"])

    def _scalar(
        self, stage: str, tag: str, value: float, step: int, clock: float | None = None
    ) -> None:
        if not math.isfinite(value):
            return
        if stage not in self._writers:
            self._writers[stage] = EventFile(self.folder / stage)
        self._writers[stage].add(tag, value, step, clock)
