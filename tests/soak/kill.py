"""Kill runs of every kind at random moments, resume them, and compare with undisturbed ones.

    python -m tests.soak.kill [--command NAME ...] [--kills 10]

Every trial is a run of its own that is hit once (every third one again while it resumes), by
turns: the driver, a worker, Ray's node process, the whole process group, SIGTERM, SIGINT. A trial
passes when what the command leaves (`commands.COMMANDS`) is byte for byte that of the undisturbed
run, its journals hold the same results, and no more evaluations were repeated than can have been
in flight.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.golden.runs import tree
from tests.soak.commands import BEFORE, COMMANDS, IMAGES, RUN, WORKERS, Command

# Exit codes that a victim's end may have: 0 when the run was complete all the same, negative ones
# where the signal came before or after the time in which the run minds it.
CODES = {
    "driver": (0, -signal.SIGKILL),
    "worker": (0,),
    "node": (0, 1),
    "group": (0, -signal.SIGKILL),
    "SIGTERM": (0, 128 + signal.SIGTERM, -signal.SIGTERM),
    "SIGINT": (0, 128 + signal.SIGINT, -signal.SIGINT),
}
# The section of a report that tells of times.
COST = re.compile(rb"^## Cost\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
# A worker may hold two short evaluations, and each may have started before it died.
IN_FLIGHT = 2 * WORKERS
# On a busy machine Ray alone may take minutes to start.
PATIENCE = 900.0


@dataclass(frozen=True)
class Ending:
    """What a finished run left.

    files: the results, by name. trials: what was evaluated and what came out, by journal and place.
    started: how often each evaluation was begun.
    """

    files: dict[str, bytes]
    trials: dict[tuple, dict[str, Any]]
    started: Counter

    @property
    def repeated(self) -> int:
        return sum(self.started.values()) - len(self.started)

    def difference(self, other: Ending) -> str | None:
        """What the other one has that is not as here, or nothing: first where it came from."""
        for name, here, there in (
            ("trials", self.trials, other.trials),
            ("files", self.files, other.files),
        ):
            if here.keys() != there.keys():
                return f"other {name}: {sorted(here.keys() ^ there.keys())}"
            for key in sorted(here):
                if here[key] != there[key]:
                    return f"{key}: {_around(repr(here[key]), repr(there[key]))}"
        return None


def _around(here: str, there: str) -> str:
    """The first place in which two texts differ."""
    place = len(os.path.commonprefix([here, there]))
    part = slice(max(0, place - 100), place + 100)
    return f"...{here[part]}... against ...{there[part]}..."


class Trial:
    """One run in a folder of its own, in which it is started as often as it takes."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.out = folder / RUN
        self.folder = folder
        self.command = command
        folder.mkdir(parents=True)

    def words(self) -> list[str]:
        """As a user would: `augsearch resume` as soon as the folder holds a run."""
        if (self.out / "config.json").exists():
            return ["resume", RUN, "--quiet"]
        return [*shlex.split(self.command.words), "--quiet", "--out", RUN]

    def start(self) -> subprocess.Popen:
        root = str(Path(__file__).parents[2])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            "AUGSEARCH_SOAK_STARTED": str(self.folder / "started"),
            "AUGSEARCH_SOAK_SLEEP": str(self.command.sleep),
        }
        with open(self.folder / "output", "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.soak.child", *self.words()],
                cwd=self.folder, env=environment, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def finish(self) -> float:
        """Start it and let it run to its end; returns how long that took, in seconds."""
        begun = time.monotonic()
        process = self.start()
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after {PATIENCE} s:\n{self.output()}") from error
        finally:
            reap(process)
        if code != 0:
            raise AssertionError(f"exit code {code}:\n{self.output()}")
        return time.monotonic() - begun

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-4000:]

    def journal_size(self) -> int:
        """Bytes of all journals of the run."""
        return sum(path.stat().st_size for path in self.out.rglob(self.command.log))

    def lines(self) -> int:
        return sum(path.read_bytes().count(b"\n") for path in self.out.rglob(self.command.log))

    def ending(self) -> Ending:
        trials = {}
        for path in sorted(self.out.rglob(self.command.log)):
            *rows, rest = path.read_text().split("\n")
            assert rest == "", "a half-written line"
            for row in map(json.loads, rows):
                place = [row[name] for name in ("batch", "slot", "epoch") if name in row]
                key = (str(path.relative_to(self.out)), *place)
                assert key not in trials, "a key twice in the journal"
                trials[key] = timeless(row)
        files = {
            str(path.relative_to(self.out)): result(path)
            for pattern in self.command.results
            for path in self.out.glob(pattern)
        }
        marks = self.folder / "started"
        started = Counter(marks.read_text().split() if marks.exists() else ())
        return Ending(files, trials, started)


def timeless(row: Any) -> Any:
    """What a line says, without what tells of times and of who made it."""
    if isinstance(row, dict):
        return {
            name: timeless(value)
            for name, value in row.items()
            if name not in ("started", "finished", "worker", "attempts") and "seconds" not in name
        }
    return row


def result(path: Path) -> bytes:
    """A file's content, without what tells of times."""
    content = path.read_bytes()
    if path.suffix != ".csv":
        return COST.sub(b"", content)
    rows = list(csv.reader(content.decode().splitlines()))
    kept = [place for place, name in enumerate(rows[0]) if "seconds" not in name]
    return "\n".join(repr([row[place] for place in kept]) for row in rows).encode()


def family(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def reap(process: subprocess.Popen, members: list[psutil.Process] | None = None) -> None:
    """End what this trial started and is still there."""
    for member in members if members is not None else family(process):
        if member.is_running() and member.pid != os.getpid():
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
    process.wait()


def strike(process: subprocess.Popen, victim: str, rng: random.Random) -> bool:
    """Hit the victim; True when it was there to be hit."""
    if process.poll() is not None:
        return False
    if victim == "driver":
        os.kill(process.pid, signal.SIGKILL)
    elif victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim.startswith("SIG"):
        os.kill(process.pid, getattr(signal, victim))
    else:
        name = "ray::Worker" if victim == "worker" else "raylet"
        found = [member for member in family(process) if _name(member).startswith(name)]
        if not found:
            return False
        try:
            rng.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
    return True


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


@dataclass(frozen=True)
class Moment:
    """seconds after the journals have `size` bytes; with size 0 after the start."""

    size: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s after {f'byte {self.size}' if self.size else 'start'}"


def draw_moments(rng: random.Random, count: int, size: int, duration: float) -> list[Moment]:
    """Spread over the whole life of a run, in random order.

    Every second one lies in the run's time, from the start of Python to the last file, the others
    in its journals' bytes: evaluations may take a small part of the time. Each half is stratified.
    """
    half = (count + 1) // 2
    places = [(number + rng.random()) / half for number in range(half)]
    moments = [Moment(0, place * duration) for place in places]
    moments += [
        Moment(1 + int((number + rng.random()) / half * (size - 1)), rng.uniform(0.0, 0.1))
        for number in range(count - half)
    ]
    rng.shuffle(moments)
    return moments


def disturb(trial: Trial, victim: str, moment: Moment, rng: random.Random) -> str:
    """Start the run and hit it at the moment (or as soon as the victim has appeared).

    Returns what happened, in a few words. Afterwards the run is not going on.
    """
    process = trial.start()
    members: list[psutil.Process] = []
    try:
        while trial.journal_size() < moment.size and process.poll() is None:
            time.sleep(0.005)
        end = time.monotonic() + moment.seconds
        while time.monotonic() < end and process.poll() is None:
            time.sleep(min(0.05, moment.seconds))
        members = family(process)
        while not (hit := strike(process, victim, rng)) and process.poll() is None:
            time.sleep(0.1)
            members = family(process) or members
        lines = trial.lines()
        code = process.wait(PATIENCE)
    finally:
        # Workers of a killed driver end by themselves within a second; what is left is ended here.
        time.sleep(0.5)
        reap(process, [m for m in members if m.is_running()])
    if code not in CODES[victim]:
        raise AssertionError(f"{victim} {moment}: exit code {code}:\n{trial.output()}")
    # An exit code of 0 says that the run is complete, whatever hit it.
    missing = [each for each in trial.command.results if not any(trial.out.glob(each))]
    if code == 0 and missing:
        raise AssertionError(f"{victim} {moment}: exit code 0 without {missing}")
    return f"{victim} {'hit' if hit else 'missed'} {moment}, {lines} lines, exit {code}"


def prepare(command: Command, folder: Path) -> None:
    """Make what the command's words name, beside the trials' folders."""
    tree(folder / IMAGES)
    if command.before:
        Trial(folder / BEFORE, Command(command.before, (), sleep=0.0)).finish()


def soak(
    command: Command,
    kills: int,
    folder: Path,
    *,
    seed: int = 0,
    victims: Sequence[str] = (),
) -> list[str]:
    """Run all trials; returns one line per trial. Raises AssertionError at the first difference."""
    rng = random.Random(seed)
    prepare(command, folder)
    reference = Trial(folder / "undisturbed", command)
    duration = reference.finish()
    expected = reference.ending()
    evaluated = [row for row in expected.trials.values() if row.get("status") == "ok"]
    assert expected.trials and expected.repeated == 0 and len(expected.started) == len(evaluated)
    assert all(any(reference.out.glob(pattern)) for pattern in command.results)
    victims = victims or command.victims
    moments = draw_moments(rng, kills, reference.journal_size(), duration)
    print(f"undisturbed: {len(expected.trials)} evaluations in {duration:.1f} s", flush=True)
    report = []
    for number, moment in enumerate(moments):
        trial = Trial(folder / f"trial-{number}", command)
        happened = [disturb(trial, victims[number % len(victims)], moment, rng)]
        if number % 3 == 2:
            happened.append(disturb(trial, rng.choice(victims), rng.choice(moments), rng))
        trial.finish()
        ending = trial.ending()
        text = "; ".join(happened)
        different = expected.difference(ending)
        assert different is None, f"{different} after {text}"
        assert ending.repeated <= IN_FLIGHT * len(happened), (
            f"{ending.repeated} evaluations repeated after {text}"
        )
        report.append(f"{number + 1:3d}  {text}; {ending.repeated} repeated")
        print(report[-1], flush=True)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", nargs="+", choices=COMMANDS, default=tuple(COMMANDS))
    parser.add_argument("--kills", type=int, help="trials, each killed at least once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--victims", nargs="+", choices=CODES, default=(), help="[default: by turns, all]"
    )
    options = parser.parse_args()
    for name in options.command:
        command = COMMANDS[name]
        kills = options.kills or command.kills
        print(f"{name}: {command.words}", flush=True)
        with tempfile.TemporaryDirectory(prefix="augsearch-soak-") as folder:
            report = soak(command, kills, Path(folder), seed=options.seed, victims=options.victims)
        hits = sum(line.count(" hit ") for line in report)  # a run may end before its moment comes
        print(f"{name}: {len(report)} of {kills} ended as the undisturbed run, {hits} hits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
