"""Runs of every kind that grow, or have failed evaluations made again, end as those that did not.

The commands themselves, on planted rewards and without Ray. What a search does: test_run.py.
"""

from __future__ import annotations

import json
import shutil

import pytest

from policies import CIFAR10, IMAGENET, save_policy
from policies.augmentations import encode_augmentation
from search.trial import JOURNAL_NAME, read_journal
from tests.search.commands import FIDELITY, PLANTED, REDERIVE, SELECT, answer, ending, invoke
from tests.search.fakes import FakePool, Killed, bad

pytestmark = pytest.mark.long

# Words, what grows, the words of the whole, and the files that tell the result.
GROWING = {
    "cells and seeds": (
        f"randaugment {PLANTED} --n 2 --m 0 10 --seeds 2 --again 0",
        "--n 1 --m 5 --seeds 3",
        f"randaugment {PLANTED} --n 2 1 --m 0 10 5 --seeds 3 --again 0",
        ("policy.json", "grid.png"),
    ),
    "arms and seeds": (
        f"compare {PLANTED} --policy none imagenet --seeds 2",
        "--policy random:3 randaugment:2,9 --seeds 4",
        f"compare {PLANTED} --policy none imagenet random:3 randaugment:2,9 --seeds 4",
        ("compare.md", "compare.csv", "pairs.csv"),
    ),
    "policies and both seeds": (
        f"{FIDELITY} --policies 8 --seeds 2 --evaluation-seeds 1",
        "--policies 10 --seeds 3 --evaluation-seeds 3",
        f"{FIDELITY} --policies 10 --seeds 3 --evaluation-seeds 3",
        ("fidelity.md", "fidelity.csv", "reference.csv"),
    ),
    "policies of a table": (
        f"tabulate {PLANTED} --policies 6 --late 2",
        "--policies 9 --policies-from ../before/run --late 3",
        f"tabulate {PLANTED} --policies 9 --policies-from ../before/run --late 3",
        ("table.parquet", "table.json", "*.csv"),
    ),
    "seeds of the final choice": (
        f"{SELECT} --seeds 2",
        "--seeds 5",
        f"{SELECT} --seeds 5",
        ("policy.json", "policy.txt", "proposals/*.json"),
    ),
    "draws of a replication": (
        f"replicate {PLANTED} --method randaugment-grid random:3 none --draws 2 --budget 24",
        "--draws 3",
        f"replicate {PLANTED} --method randaugment-grid random:3 none --draws 3 --budget 24",
        ("*.csv", "draw-*/*/*/policy.json", "draw-*/*/*.csv"),  # the plan tells that it has grown
    ),
    "seeds of a re-derivation": (
        f"{REDERIVE} --evaluations 8 --seeds 1",
        "--seeds 3",
        f"{REDERIVE} --evaluations 8 --seeds 3",
        ("rederive.md", "search/policy.json", "compare*/compare.md", "compare*/*.csv"),
    ),
    "a comparison where there was none": (
        f"{REDERIVE} --evaluations 8 --seeds 0",
        "--seeds 2",
        f"{REDERIVE} --evaluations 8 --seeds 2",
        ("rederive.md", "search/policy.json", "compare*/compare.md", "compare*/*.csv"),
    ),
}


@pytest.mark.parametrize("case", GROWING)
def test_a_finished_run_that_grows_ends_as_if_it_had_been_so_from_the_start(place, case):
    small, more, whole, results = GROWING[case]
    invoke(small, place("grown"))
    before = read_all(place("grown"))
    invoke(f"resume run {more} --quiet", place("grown"))
    invoke(whole, place("whole"))
    assert ending(place("grown") / "run", results) == ending(place("whole") / "run", results)
    # What was there is kept as it is: nothing was made twice.
    after = read_all(place("grown"))
    assert before.items() <= after.items() and len(before) < len(after)


def read_all(folder):
    return {
        (path, trial.key): trial.to_line()
        for path in folder.rglob(JOURNAL_NAME)
        for trial in read_journal(path)
    }


# Words, the stage in which something fails, and the files that tell the result.
FAILING = {
    "rescoring": (f"{SELECT} --seeds 2", "rescore", GROWING["seeds of the final choice"][3]),
    "the final choice": (f"{SELECT} --seeds 2", "final", GROWING["seeds of the final choice"][3]),
    "the final choice of a search": (
        f"search {PLANTED} --budget 24 --retries 0",
        "final",
        ("policy.json", "policy.txt"),
    ),
    "the search of a re-derivation": (
        f"{REDERIVE} --evaluations 8 --seeds 2",
        "search",
        GROWING["seeds of a re-derivation"][3],
    ),
}


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("case", FAILING)
def test_what_failed_is_made_again_and_what_followed_from_it(place, case, killed):
    words, stage, results = FAILING[case]
    invoke(words, place("whole"))
    whole, run = place("whole") / "run", place("run") / "run"
    best = max(read_journal(whole / stage / JOURNAL_NAME), key=lambda trial: trial.reward)

    def failing(job):
        """What wins in the end has failed, so that something else has won."""
        asked = job.candidate
        fails = (encode_augmentation(asked.augmentation), asked.seed) == (
            best.augmentation,
            best.seed,
        )
        return bad(job) if fails else answer(job)

    said = invoke(words, place("run"), FakePool(answer=failing), code=1)
    assert "failed after all retries" in said and "augsearch resume run --retry-failed" in said
    policy = "search/policy.json" if stage == "search" else "policy.json"
    assert (run / policy).read_bytes() != (whole / policy).read_bytes()
    retry = "resume run --retry-failed --quiet"
    if killed:
        with pytest.raises(Killed):
            invoke(retry, place("run"), FakePool(answer=answer, killed_after=0))
        assert not (run / policy).exists()  # which would say that the run is complete
        retry = "resume run --quiet"
    invoke(retry, place("run"))
    assert ending(run, results) == ending(whole, results)


@pytest.mark.parametrize("command", ["compare", "train"])
def test_a_run_is_made_again_from_its_config_with_the_policies_it_had(place, command):
    """Wherever their files are by now; another one under the same name is not taken."""
    folder = place("original")
    folder.mkdir()
    save_policy(folder / "mine.json", IMAGENET)
    words = {
        "compare": f"compare {PLANTED} --policy none mine.json --seeds 2",
        "train": "train --policy mine.json --epochs 1 --train-images 20 --validation-images 20 "
                 "--test-images 20 --quiet",
    }[command]  # fmt: skip
    invoke(words, folder)
    save_policy(folder / "mine.json", CIFAR10)
    (folder / "run").rename(folder / "published")
    invoke(f"{command} --config published/config.json", folder)
    settings = [
        json.loads((folder / name / "config.json").read_text())["settings"]
        for name in ("published", "run")
    ]
    before, after = ({name: each.get(name) for name in ("arms", "arm")} for each in settings)
    assert before == after and "Posterize" in json.dumps(after)
    (folder / "run").rename(folder / "again")
    (folder / "mine.json").unlink()
    invoke(f"{command} --config published/config.json", folder)


def test_a_selection_goes_on_when_what_it_was_made_from_is_gone(place, ground):
    """It holds a copy; in the folder it was told of there may be another run by now."""
    shutil.copytree(ground / "before", place("source"))
    words = SELECT.replace("../before/run", str(place("source") / "run")) + " --seeds 2"
    with pytest.raises(Killed):
        invoke(words, place("cut"), FakePool(answer=answer, killed_after=5))
    (place("source") / "run" / JOURNAL_NAME).write_bytes(b"")
    invoke("resume run --quiet", place("cut"))
    invoke(f"{SELECT} --seeds 2", place("whole"))
    results = ("policy.txt", "proposals/*.json")
    assert ending(place("cut") / "run", results) == ending(place("whole") / "run", results)
