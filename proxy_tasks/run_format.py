"""What says that a folder holds a run, and in which version: `config.json`, read in one place.

And the names in a run folder that both who writes and who reports it must know.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from policies.errors import InputError
from policies.files import read_json

CONFIG_NAME = "config.json"
ENVIRONMENT_NAME = "environment.json"
LOG_NAME = "run.log"
MANIFEST_NAME = "manifest.json"
POLICY_NAME = "policy.json"
POLICY_TEXT_NAME = "policy.txt"
PREPARED_NAME, PREPARED_RECORD = "prepared", "prepared.json"
SCHEDULE_NAME = "schedule.json"
COSTS_NAME = "costs.json"
EPOCHS_NAME = "epochs.jsonl"  # of a training, a line an epoch with these numbers, and others
EPOCH_NUMBERS = ("lr", "loss", "accuracy", "log_likelihood")
EVENTS = "events.out.tfevents.*"  # what TensorBoard reads
RESULT_NAME = "result.json"  # of a training
RACE_NAME = "race.json"
SEARCHED_CONFIG, SEARCHED_JOURNAL = "searched.json", "searched.jsonl"  # of what is selected from
RECIPE_NAME = "recipe.json"  # of a re-derivation: what the paper did, and what was done
PLAN_NAME = "plan.json"  # of a replication
STAND_IN = "stand-in.json"  # of a method that found nothing on a draw: why, and what counts

# Folders of stages: new seeds for the best cells of a grid, or the best candidates of a search;
# the children that choose the final policy.
AGAIN, RESCORE, FINAL = "again", "rescore", "final"
PROPOSALS = "proposals"  # folder of a selection: the final policies that were made
BEST = "best-1"  # what such a choice calls the best candidate alone
# Of a re-derivation: searches (see `numbered`), a grid, and children on the images that were
# searched, on others, and there another model's.
CONTROLLER, RANDOM, GRID = "search", "random", "randaugment"
COMPARE, COMPARE_OTHER, COMPARE_CHILD = "compare", "compare-other", "compare-child"
# Of a replication: each draw's, and in it children on its images, and on others.
DRAW, OWN, OTHER = "draw-", "own", "other"

PLANTED = "planted"  # what a race has for a table where it has none
STAGED = "staged"  # the searcher that is told of two fidelities
SIZED = "@"  # NAME@K: the searcher NAME by candidates of K sub-policies
CHEAP_COST = "cheap_cost"  # its option: what a cheap evaluation costs, in dear ones
FROM_SCRATCH = "from-scratch"  # scorer of the children of a fidelity study
# What its labels begin with: random policies of 5 sub-policies, those of searches.
RANDOM_LABEL, FOUND_LABEL = "random 5 #", "found: "
RUN_FORMAT = "augsearch-run"
RUN_VERSION = 2

# Of version 1: pba had a format of its own, and these kinds kept no config.json beside such files.
_PBA_1 = "augsearch-pba"
_WITHOUT_CONFIG_1 = ("rescore/config.json", "search/config.json", "child.pt")


def entrant_names(searcher: str, fidelity: str, dear: str | None) -> list[str]:
    """What a race calls those who race by a searcher: at equal cost (with a dear fidelity) one on
    either fidelity, but of a staged one that has both."""
    if dear is None or searcher.partition(SIZED)[0] == STAGED:
        return [searcher]
    return [f"{searcher}, {fidelity}", f"{searcher}, {dear}"]


def numbered(folder: str, count: int) -> list[str]:
    """Names of `count` folders of one kind: `folder`, `folder`-2, ..."""
    return [f"{folder}-{number + 1}" if number else folder for number in range(count)]


def pairs_of(
    methods: Sequence[str], against: Sequence[str], arms: Collection[str] = ()
) -> list[tuple[str, str]]:
    """What a replication compares: (method, the one it is compared with), every two once.

    Methods that search are compared with each of `against`; `arms`, which search for nothing, only
    by being among these, so that they do not cost the others power. Where that would leave no
    comparison, every method is compared.
    """
    searching = [name for name in methods if name not in arms]
    pairs = [(name, other) for other in against for name in searching if name != other]
    pairs = pairs or [(name, other) for other in against for name in methods if name != other]
    return [pair for place, pair in enumerate(pairs) if pair[::-1] not in pairs[:place]]


def read_run_config(folder: Path) -> dict[str, Any]:
    """The content of a run's config.json, its format and version checked, nothing else.

    Raises:
        InputError: there is no run, or one of another version.
    """
    path = folder / CONFIG_NAME
    if os.path.lexists(path):
        return check_run_format(read_json(path), str(path))
    if any((folder / name).is_file() for name in _WITHOUT_CONFIG_1):
        raise _other_version(str(folder), 1)
    raise InputError(
        "run", f"must be a run folder, with {CONFIG_NAME} in it", str(folder),
        "give the --out folder of a run",
    )  # fmt: skip


def check_run_format(data: Any, where: str) -> dict[str, Any]:
    """`data` when it says that it is the configuration of a run of this version.

    Raises:
        InputError: naming `where`.
    """
    found = data.get("format", "no format") if isinstance(data, dict) else type(data).__name__
    if found == _PBA_1:
        raise _other_version(where, 1)
    if found != RUN_FORMAT:
        raise InputError(
            where, "must be the configuration of a run", found, "restore it from a copy"
        )
    if data.get("version") != RUN_VERSION:
        raise _other_version(where, data.get("version"))
    return data


def _other_version(where: str, version: Any) -> InputError:
    return InputError(
        where,
        f"must be a run folder of version {RUN_VERSION}",
        f"version {version}",
        "use the version of augsearch that wrote it, or start a new run",
    )
