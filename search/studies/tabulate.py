"""`augsearch tabulate`: many policies measured at several fidelities, for a table to search on.

A table says what real evaluations of its policies gave, so that searchers can be compared with
hundreds of repeats in seconds, as NAS-Bench-101 (arXiv 1902.09635) does for architectures. Every
policy is trained from scratch, with the test accuracy of the same children, and scored by cheaper
evaluators. `analysis.write_report` makes table.parquet of the journal.

Most of the space is dull, and the region where searches end is where cheap rewards go wrong:
finished searches (`policies_from`) supply the policies of that region.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies import (
    OPS,
    PUBLISHED,
    Augmentation,
    Policy,
    RandAugment,
    TrivialAugmentWide,
    UniformAugment,
)
from policies.augmentations import decode_augmentation, encode_augmentation
from policies.errors import InputError, check_choice
from policies.ops import PAPER_OPS
from policies.policy_files import load_policy_file
from proxy_tasks import get_preset
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.run_format import FINAL, POLICY_NAME
from proxy_tasks.tables import OPTIMISED, TESTED
from search.engine.loop import RunResult
from search.trial import JOURNAL_NAME, MAIN, Candidate, Trial, read_journal

from .arms import random_policy
from .config import Config, read_config
from .fixed import run_fixed
from .seeds import training_seed

# Keeps the order of the finite families apart from everything else drawn from the same seed.
STREAM_ORDER = 103
# Room for the candidates of one family or search in the numbers of slots.
ROOM = 1_000_000


# Which policies --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Policies of one kind. weight: its share among the families that have some left."""

    name: str
    weight: float
    members: Iterable[Augmentation]


@dataclass(frozen=True)
class Entry:
    """A policy of the study. slot: its number, which stays when a study grows."""

    slot: int
    label: str
    augmentation: Augmentation


def families(seed: int) -> tuple[Family, ...]:
    """All but `optimised`, each in an order in which its beginning is a fair sample of it.

    The order of this tuple is part of the format of journals: add at the end, never reorder.
    """
    return (
        Family("none", 1, (None,)),
        Family("published", 1, PUBLISHED.values()),
        Family("trivialaugment", 1, (TrivialAugmentWide(),)),
        Family("uniformaugment", 1, (UniformAugment(),)),
        Family("randaugment", 2, _randaugments(seed)),
        Family("single", 3, _singles(seed)),
        Family("random-5x2", 8, _random(5, seed)),
        Family("random-25", 2, _random(25, seed)),
    )


def _random(subpolicies: int, seed: int) -> Iterator[Policy]:
    return (random_policy(subpolicies, seed * 100_003 + index) for index in itertools.count())


def _randaugments(seed: int) -> list[Augmentation]:
    cells = [RandAugment(n, m) for n in (1, 2, 3) for m in range(0, 31, 3)]
    order = np.random.default_rng([STREAM_ORDER, seed, 0]).permutation(len(cells))
    return [cells[index] for index in order]


def _singles(seed: int) -> list[Augmentation]:
    """Every operation alone, always applied, at each magnitude: round by round over operations."""
    rng = np.random.default_rng([STREAM_ORDER, seed, 1])
    columns = [
        [(name, m) for m in (rng.permutation(10).tolist() if OPS[name].has_magnitude else [None])]
        for name in PAPER_OPS
    ]
    rounds = itertools.zip_longest(*columns)
    return [Policy([[(each[0], 1.0, each[1])]]) for row in rounds for each in row if each]


def study_entries(config: Config) -> list[Entry]:
    """What the study measures, in an order in which every beginning is a fair sample of it all.

    `policies` of the families in proportion to their weights, whose beginnings are those of a
    larger number; spread among them, those of searches. Slots depend neither on `policies` nor on
    what other searches gave, so that a study grows in any of these.
    """
    settings = config.settings
    known = families(settings.seed)
    designed = _by_turns(
        [
            (family.weight, _entries(number, family.name, family.members))
            for number, family in enumerate(known)
        ]
    )
    groups = [list(itertools.islice(designed, settings.policies))]
    for number, run in enumerate(settings.optimised, len(known)):
        policies = map(decode_augmentation, run["policies"][: 1 + settings.late])
        groups.append(list(_entries(number, f"{OPTIMISED}: {run['source']}", policies)))
    return list(_by_turns([(len(group), group) for group in groups]))


def _entries(number: int, label: str, members: Iterable[Augmentation]) -> Iterator[Entry]:
    return (Entry(number * ROOM + index, label, each) for index, each in enumerate(members))


def _by_turns(groups: Iterable[tuple[float, Iterable[Entry]]]) -> Iterator[Entry]:
    """Entries of (weight, entries), at every point in proportion to the weights (Sainte-Laguë)."""
    left = {number: (weight, iter(each)) for number, (weight, each) in enumerate(groups)}
    taken = dict.fromkeys(left, 0)
    while left:
        number = max(left, key=lambda number: left[number][0] / (2 * taken[number] + 1))
        entry = next(left[number][1], None)
        if entry is None:
            del left[number]
        else:
            taken[number] += 1
            yield entry


# What is filled in -----------------------------------------------------------------------------


def filled_in(config: Config) -> Config:
    """With searches read in and fidelities decided, so that the run folder holds both.

    Raises InputError for what is no finished search, and for an evaluator that is no reference.
    """
    settings = config.settings
    known = {run["run"]: run for run in settings.optimised}
    runs = tuple(dict.fromkeys(settings.policies_from))
    optimised = tuple(known.get(run) or _searched(run) for run in runs)
    decided = settings.fidelities or _fidelities(config)
    settings = replace(settings, policies_from=runs, optimised=optimised, fidelities=decided)
    return replace(config, settings=settings)


def _searched(run: str) -> dict[str, Any]:
    """Where a search came from, its exported policy, those it was chosen from, and late candidates.

    Late: of the last third of what the evaluator of the search itself judged; a staged search's
    cheap evaluations are of candidates drawn at random.
    """
    folder = Path(run)
    config = read_config(folder)
    if config.kind != "search" or config.searcher is None:
        raise InputError(
            "policies_from", "must be the folders of searches", f"{run}, a {config.kind}",
            "name folders that `augsearch search` made",
        )  # fmt: skip
    if not (folder / POLICY_NAME).is_file():
        raise InputError(
            "policies_from", "must be finished searches", f"{run} without {POLICY_NAME}",
            f"finish it with `augsearch resume {run}`",
        )  # fmt: skip
    exported = encode_augmentation(load_policy_file(folder / POLICY_NAME).augmentation)
    by_key = operator.attrgetter("key")  # journals are in order of arrival
    trials = sorted(read_journal(folder / JOURNAL_NAME), key=by_key)
    judged = [trial for trial in trials if trial.scorer == MAIN]
    late = judged[len(judged) - len(judged) // 3 :]
    final = folder / FINAL / JOURNAL_NAME
    proposed = sorted(read_journal(final), key=by_key) if final.is_file() else []
    policies: list[Any] = [exported]
    for trial in (*proposed, *reversed(late)):
        if _trained(trial) and trial.augmentation not in policies:
            policies.append(trial.augmentation)
    source = f"{config.searcher.name}, {config.evaluator.kind}"
    return {"run": run, "source": source, "policies": policies}


def _trained(trial: Trial) -> bool:
    return trial.evaluation is not None and not trial.evaluation.diverged


@dataclass(frozen=True)
class Fidelity:
    """A way to measure.

    Attributes:
        seeds: how many of each policy. part: whose images give the reward.
        kind: of evaluator. options: its further arguments.
        epochs: share of the preset's epochs, of a child from scratch.
    """

    seeds: int
    part: str = "validation"
    kind: str = "from-scratch"
    epochs: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


# By the evaluator that is the reference. The order is part of the format of journals.
FIDELITIES: dict[str, dict[str, Fidelity]] = {
    "from-scratch": {
        TESTED: Fidelity(2, "test"),
        "sharing-80": Fidelity(2, kind="weight-sharing"),
        "sharing-20": Fidelity(
            2, kind="weight-sharing", options={"shared_epochs": 20, "finetune_epochs": 20}
        ),
        "quarter": Fidelity(1, epochs=0.25),
    },
    # Planted rewards: a table in seconds, to try out what reads tables.
    "synthetic": {
        TESTED: Fidelity(2, "test", "synthetic"),
        "sharing-80": Fidelity(2, kind="synthetic", options={"cheap_bias": 1.0}),
        "sharing-20": Fidelity(2, kind="synthetic", options={"cheap_bias": 0.7}),
        "quarter": Fidelity(1, kind="synthetic", options={"noise": 0.016}),
    },
}


def _fidelities(config: Config) -> dict[str, dict[str, Any]]:
    """As `settings.fidelities` has them; the config's own epochs stand for the preset's."""
    child = config.evaluator
    check_choice("evaluator", child.kind, tuple(FIDELITIES))
    epochs = child.epochs or get_preset(child.preset, config.task.name).epochs
    found = {}
    for name, fidelity in FIDELITIES[child.kind].items():
        scratch = fidelity.kind == "from-scratch"
        count = max(1, round(epochs * fidelity.epochs)) if scratch else None
        found[name] = {**asdict(fidelity), "epochs": count}
    return found


def evaluators(config: Config) -> dict[str, EvaluatorConfig]:
    """Of every fidelity; what the run's evaluator says of the child besides holds for all."""
    return {
        name: replace(
            config.evaluator, **{part: about[part] for part in ("kind", "epochs", "options")}
        )
        for name, about in config.settings.fidelities.items()
    }


# The run ---------------------------------------------------------------------------------------


def run_tabulate(config: Config, out: Path | str, **how: Any) -> RunResult:
    """Measure policies in the run folder `out`; `analysis.write_report(analysis.report_of(out))`
    writes the table.

    Args:
        config: `Config.of("tabulate", policies=600, policies_from=["runs/first"])`. Policies,
            searches and late candidates of each may grow.
        how: `resume`, `retry_failed`, `progress`, as for `run_search`.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
    """
    return run_fixed(
        filled_in(config),
        out,
        tabulate_candidates,
        evaluators=lambda run: evaluators(run.config),
        **how,
    )


def tabulate_candidates(config: Config) -> list[Candidate]:
    """All evaluations, policy by policy, so that what there is of a table is whole.

    Batch = 100 x number of the fidelity + index of the seed. Children from scratch are tested;
    the validation metrics of the same children are kept beside.
    """
    seed = config.settings.seed
    return [
        Candidate(
            100 * number + index,
            entry.slot,
            entry.augmentation,
            training_seed("tabulate" if name == TESTED else "tabulate cheap", seed, index),
            name,
            about["part"],
            entry.label,
        )
        for entry in study_entries(config)
        for number, (name, about) in enumerate(config.settings.fidelities.items())
        for index in range(about["seeds"])
    ]
