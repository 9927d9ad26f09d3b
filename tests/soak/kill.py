"""Kill a running search at random moments, resume it, and compare with an undisturbed one.

    python -m tests.soak.kill --kills 30

Every trial is a search of its own that is hit once (every third one again while it resumes), by
turns: the driver, a worker, Ray's node process, the whole process group, SIGTERM, SIGINT. A trial
passes when policy.txt is byte for byte that of the undisturbed run, the journal holds the same
results, and no more evaluations were repeated than can have been in flight.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

VICTIMS = ("driver", "worker", "node", "group", "SIGTERM", "SIGINT")
WORKERS = 2
# A worker may hold two short evaluations, and each may have started before it died.
IN_FLIGHT = 2 * WORKERS
PATIENCE = 300.0


@dataclass(frozen=True)
class Ending:
    """What a finished search left. started: how often each evaluation was begun, by seed."""

    policy: bytes
    keys: frozenset
    started: Counter

    @property
    def repeated(self) -> int:
        return sum(self.started.values()) - len(self.started)


class Trial:
    """One search in one folder, started as often as it takes."""

    def __init__(self, folder: Path, evaluations: int, sleep: float) -> None:
        self.out = folder / "run"
        self.folder = folder
        self.evaluations = evaluations
        self.sleep = sleep
        folder.mkdir(parents=True)

    def start(self) -> subprocess.Popen:
        """As a user would: with --resume as soon as there is a run folder."""
        command = [
            sys.executable,
            "-m",
            "tests.soak.searching",
            "--out",
            str(self.out),
            "--started",
            str(self.folder / "started"),
            "--evaluations",
            str(self.evaluations),
            "--sleep",
            str(self.sleep),
            "--workers",
            str(WORKERS),
        ]
        if self.out.exists():
            command.append("--resume")
        with open(self.folder / "output", "ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def finish(self) -> None:
        """Start it and let it run to its end."""
        process = self.start()
        try:
            code = process.wait(PATIENCE)
        finally:
            reap(process)
        if code != 0:
            raise AssertionError(f"exit code {code}:\n{self.output()}")

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-4000:]

    def journal_size(self) -> int:
        try:
            return (self.out / "trials.jsonl").stat().st_size
        except FileNotFoundError:
            return 0

    def rows(self, whole: bool = True) -> list[dict]:
        """The journal's lines; without `whole` those that are complete, if there are any."""
        if not whole and not self.journal_size():
            return []
        rows = (self.out / "trials.jsonl").read_text().split("\n")
        assert not whole or rows[-1] == "", "a half-written line"
        return [json.loads(row) for row in rows[:-1]]

    def results(self) -> dict[tuple[int, int], tuple]:
        """What was evaluated and what came out, by key."""
        return {
            (row["batch"], row["slot"]): (
                row["augmentation"],
                row["seed"],
                row["status"],
                row["evaluation"] and row["evaluation"]["reward"],
            )
            for row in self.rows()
        }

    def ending(self) -> Ending:
        rows = self.rows()
        keys = [(row["batch"], row["slot"]) for row in rows]
        assert len(keys) == len(set(keys)), "a key twice in the journal"
        started = Counter(
            row.split()[0] for row in (self.folder / "started").read_text().splitlines()
        )
        return Ending((self.out / "policy.txt").read_bytes(), frozenset(keys), started)


def first_difference(one: Trial, other: Trial) -> str | None:
    """The earliest candidate that the two searches drew or rewarded differently."""
    first, second = one.results(), other.results()
    for key in sorted(first):
        if first[key] != second[key]:
            return f"candidate {key}: {first[key]} against {second[key]}"
    return None


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
    """seconds after the journal has `size` bytes; with size 0 after the start."""

    size: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s after {f'byte {self.size}' if self.size else 'start'}"


def draw_moment(rng: random.Random, size: int, duration: float) -> Moment:
    """One in four anywhere in the run's time, start and export included; the others while it
    evaluates and journals, anywhere in the journal's bytes."""
    if rng.random() < 0.25:
        return Moment(0, rng.uniform(0.0, duration))
    return Moment(rng.randint(1, size), rng.uniform(0.0, 0.1))


def disturb(trial: Trial, victim: str, moment: Moment, rng: random.Random) -> str:
    """Start the search and hit it at the moment (or as soon as the victim has appeared).

    Returns what happened, in a few words. Afterwards the search is not running.
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
        lines = len(trial.rows(whole=False))
        code = process.wait(PATIENCE)
    finally:
        # Workers of a killed driver end by themselves within a second; what is left is ended here.
        time.sleep(0.5)
        reap(process, [m for m in members if m.is_running()])
    # An exit code of 0 says that the search is complete, whatever hit it.
    if code == 0 and not (trial.out / "policy.json").exists():
        raise AssertionError(f"{victim}: exit code 0 without a policy:\n{trial.output()}")
    if victim == "worker" and code != 0:
        raise AssertionError(f"a search died of its worker, exit code {code}:\n{trial.output()}")
    return f"{victim} {'hit' if hit else 'missed'} {moment}, {lines} lines, exit {code}"


def soak(
    kills: int,
    folder: Path,
    *,
    evaluations: int,
    sleep: float,
    seed: int,
    victims: tuple[str, ...] = VICTIMS,
) -> list[str]:
    """Run all trials; returns one line per trial. Raises AssertionError at the first difference."""
    rng = random.Random(seed)
    reference = Trial(folder / "undisturbed", evaluations, sleep)
    begun = time.monotonic()
    reference.finish()
    duration = time.monotonic() - begun
    expected, size = reference.ending(), reference.journal_size()
    assert expected.repeated == 0 and len(expected.keys) == evaluations
    report = []
    for number in range(kills):
        trial = Trial(folder / f"trial-{number}", evaluations, sleep)
        victim = victims[number % len(victims)]
        happened = [disturb(trial, victim, draw_moment(rng, size, duration), rng)]
        if number % 3 == 2:
            again = rng.choice(victims)
            happened.append(disturb(trial, again, draw_moment(rng, size, duration), rng))
        trial.finish()
        ending = trial.ending()
        text = "; ".join(happened)
        assert ending.keys == expected.keys, f"other journal keys after {text}"
        different = first_difference(reference, trial)
        assert different is None, f"{different} after {text}"
        assert ending.policy == expected.policy, f"another policy after {text}"
        assert ending.repeated <= IN_FLIGHT * len(happened), (
            f"{ending.repeated} evaluations repeated after {text}"
        )
        report.append(f"{number + 1:3d}  {text}; {ending.repeated} repeated")
        print(report[-1], flush=True)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="trials, each killed at least once")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--sleep", type=float, default=0.04, help="seconds per evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victims", nargs="*", choices=VICTIMS, default=VICTIMS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="augsearch-soak-") as folder:
        report = soak(
            options.kills,
            Path(folder),
            evaluations=options.evaluations,
            sleep=options.sleep,
            seed=options.seed,
            victims=tuple(options.victims),
        )
    print(f"{len(report)} of {options.kills} ended as the undisturbed run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
