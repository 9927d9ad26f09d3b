"""No moment is a bad one to be killed at, for runs of any kind.

While a command runs, its folder is copied at every fsync: as a kill would leave it, and as a power
cut would. From copies all over the run's life it is gone on, and must end as the undisturbed run.
What the death of Ray's processes adds to this is for tests/soak.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from tests.search.commands import FIDELITY, PLANTED, REDERIVE, SELECT, answer, ending, invoke
from tests.search.fakes import FakePool
from tests.search.power import Disk

pytestmark = pytest.mark.long

# Words, and the files that tell the result.
KILLED = {
    "search": (f"search {PLANTED} --searcher ppo --evaluations 20", ("policy.*",)),
    "randaugment": (f"randaugment {PLANTED} --n 2 --m 0 10 --seeds 2", ("policy.json", "grid.png")),
    "compare": (
        f"compare {PLANTED} --policy none imagenet random:3 --seeds 2",
        ("compare.md", "compare.csv", "pairs.csv"),
    ),
    "fidelity": (
        f"{FIDELITY} --policies 8 --seeds 2 --evaluation-seeds 1",
        ("fidelity.md", "fidelity.csv", "reference.csv"),
    ),
    "select": (f"{SELECT} --seeds 2", ("policy.*", "proposals/*.json", "searched.*")),
    "rederive": (
        f"{REDERIVE} --evaluations 8 --seeds 2",
        ("rederive.md", "search/policy.*", "compare*/compare.md", "compare*/*.csv"),
    ),
    "replicate": (
        f"replicate {PLANTED} --method random none --draws 2 --budget 24 --seeds 1",
        ("replicate.md", "*.csv", "plan.json", "draw-*/*/*/policy.json", "draw-*/*/*.csv"),
    ),
    "tabulate": (
        f"tabulate {PLANTED} --policies 6 --policies-from ../before/run --late 2",
        ("table.parquet", "table.json", "*.csv"),
    ),
    "pba": (
        """pba --population 4 --interval 1 --epochs 3 --task reduced-fashion --train-images 20
        --validation-images 20 --workers 3 --retries 0 --quiet""",
        ("schedule.json",),
    ),
}
# So many of the copies are gone on from, evenly spread; the last ones too, where files follow fast.
SPREAD, LAST = 5, 3


def leaving(job):
    """With what a member of a population leaves: what it inherited, and its own key."""
    outcome = answer(job)
    return replace(outcome, artifact=(job.artifact or b"") + repr(job.candidate.key).encode())


def pool(kind):
    return FakePool(answer=leaving if kind == "pba" else answer)


@pytest.mark.parametrize("kind", KILLED)
def test_a_run_killed_at_any_moment_ends_as_the_undisturbed_one(place, kind):
    words, results = KILLED[kind]
    whole = place("whole")
    whole.mkdir()
    left = []

    def copy():
        number = len(left) // 2
        left.append(shutil.copytree(whole, place(f"killed-{number}")))
        left.append(disk.after_power_cut(place(f"cut-{number}")))

    with Disk(whole, copy) as disk:
        invoke(words, whole, pool(kind))
    expected = ending(whole / "run", results)
    chosen = {round(index * (len(left) - 1) / (SPREAD - 1)) for index in range(SPREAD)}
    chosen |= set(range(len(left) - LAST, len(left)))
    for number in sorted(chosen):
        folder = left[number]
        begun = (folder / "run" / "config.json").exists()
        invoke("resume run --quiet" if begun else words, folder, pool(kind))
        assert ending(folder / "run", results) == expected, folder.name
