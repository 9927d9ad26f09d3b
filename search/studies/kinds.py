"""The kinds of runs, as data: a new kind is a class of settings and one entry here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.errors import check_choice
from policies.options import Declared, options_of
from proxy_tasks.evaluators.config import SUITS, EvaluatorConfig
from search.engine.resources import PoolConfig

from .grid_settings import AGAIN, RandAugmentSettings
from .race_settings import RaceSettings
from .rederive_settings import REDERIVE_PRESETS, REDERIVE_TOLD, RederiveSettings
from .replicate_settings import ReplicateSettings
from .search_settings import EstimateSettings, SearchSettings, SelectSettings
from .settings import (
    CompareSettings,
    FidelitySettings,
    PBASettings,
    SearcherConfig,
    TabulateSettings,
    TaskConfig,
)
from .train_settings import TrainSettings

# What of a run that goes on may change, beside the pool: the manifest proves the images.
MOVABLE = "data"
# Options that say how long a search is, of which one stands for the other.
COUNTED = frozenset({"evaluations", "budget"})


@dataclass(frozen=True)
class Kind:
    """What a kind of run takes.

    Attributes:
        settings: class of its own settings. sections: which others it lets users set.
        hidden: options of those sections that it does not offer.
        defaults: defaults that differ from the fields'; None leaves the choice to `resolve`.
        told: defaults in words, where the kind decides them otherwise than a field can say.
        presets: by the preset of the evaluator, defaults that go with it.
        grows: options that may grow once a run has begun: numbers rise, lists are added to.
        like: a setting that names another run, whose task and evaluator are taken.
        whole: whether it trains on all images of train that the held-out parts leave, where no
            number is asked for, instead of the preset's.
        journal: whether it keeps one of single evaluations (trials.jsonl).
    """

    settings: type
    sections: tuple[str, ...] = ("task", "evaluator", "pool")
    hidden: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grows: tuple[str, ...] = ()
    like: str = ""
    whole: bool = False
    journal: bool = True


_MEASURED = {"evaluator": None, "reward": None}
_CHILD = {"evaluator": "from-scratch", "reward": "accuracy"}
_NOT_OF_A_CHILD = ("reward", "repeats", "evaluator_options")

KINDS: dict[str, Kind] = {
    "search": Kind(
        SearchSettings,
        ("task", "searcher", "evaluator", "pool"),
        hidden=("test_images",),
        defaults={**_MEASURED, "searcher": None, "cheap": None},
        told={"evaluator": f"of a staged search from-scratch; else {SUITS}"},
        grows=("evaluations", "budget"),
    ),
    "select": Kind(
        SelectSettings,
        ("evaluator", "pool"),
        hidden=("preset", "epochs", "threads", "device", "precision", "kernels", "repeats",
                "evaluator_options"),
        defaults=_MEASURED,
        told={"evaluator": "the search's; from-scratch where that shares a child",
              "reward": "the search's; of another evaluator what suits it",
              **dict.fromkeys((each.name for each in options_of(PoolConfig)), "the search's")},
        grows=("seeds",),
        like="run",
    ),
    "randaugment": Kind(
        RandAugmentSettings,
        hidden=("test_images",),
        defaults={**_MEASURED, "again": AGAIN},
        grows=("n", "m", "seeds", "again"),
    ),
    "rederive": Kind(
        RederiveSettings,
        hidden=("task", "repeats"),
        defaults={**_CHILD, "task": "reduced-imagenet", "preset": "paper", "resolution": 32,
                  "other_child": "wrn-16-1",
                  **dict.fromkeys(("searches", "random_searches", "grid"))},
        told=REDERIVE_TOLD,
        presets=REDERIVE_PRESETS,
        grows=("seeds",),
    ),
    "pba": Kind(
        PBASettings,
        hidden=("test_images", "evaluator", "repeats", "evaluator_options"),
        defaults=_CHILD,
    ),
    "compare": Kind(
        CompareSettings,
        hidden=_NOT_OF_A_CHILD,
        defaults=_CHILD,
        grows=("policy", "seeds"),
    ),
    "fidelity": Kind(
        FidelitySettings,
        hidden=("evaluator", *_NOT_OF_A_CHILD),
        defaults=_CHILD,
        grows=("policies", "seeds", "evaluation_seeds", "policy"),
    ),
    "tabulate": Kind(
        TabulateSettings,
        hidden=_NOT_OF_A_CHILD,
        defaults=_CHILD,
        grows=("policies", "policies_from", "late"),
    ),
    "train": Kind(
        TrainSettings,
        ("task", "evaluator"),
        hidden=("evaluator", *_NOT_OF_A_CHILD),
        defaults=_CHILD,
        whole=True,
        journal=False,
    ),
    "race": Kind(
        RaceSettings,
        ("evaluator", "pool"),
        hidden=("evaluator", "preset", "epochs", "threads", "device", "precision", "kernels",
                "repeats", "evaluator_options", "cpus", "gpus", "children_per_gpu", "address",
                "time_limit", "retries"),
        defaults={"task": "synthetic", "evaluator": "table", "reward": None},
        grows=("seeds", "searcher"),
        journal=False,
    ),
    "replicate": Kind(
        ReplicateSettings,
        hidden=("repeats",),
        defaults={"evaluator": "from-scratch", "reward": None},
        grows=("draws",),
    ),
    "estimate": Kind(EstimateSettings, hidden=("test_images",), defaults=_MEASURED),
}  # fmt: skip
_SECTIONS: dict[str, type] = {
    "task": TaskConfig,
    "searcher": SearcherConfig,
    "evaluator": EvaluatorConfig,
    "pool": PoolConfig,
}


def section_classes(kind: str) -> dict[str, type]:
    """Section -> class, in the order in which a command shows them."""
    check_choice("kind", kind, tuple(KINDS))
    return {"settings": KINDS[kind].settings, **_SECTIONS}


def options_of_kind(kind: str, hidden: bool = False) -> Iterator[tuple[str, Declared]]:
    """(section, option) of what users set for this kind, with the kind's defaults; or of all."""
    about = KINDS[kind]
    for section, cls in section_classes(kind).items():
        if not (hidden or section == "settings" or section in about.sections):
            continue
        for declared in options_of(cls):
            if not hidden and (declared.name in about.hidden or not declared.option.shell):
                continue
            if declared.name in about.defaults:
                declared = replace(declared, default=about.defaults[declared.name])
            if declared.name in about.told:
                told = replace(declared.option, unset=about.told[declared.name])
                declared = replace(declared, default=None, option=told)
            yield section, declared


def described(declared: Declared) -> str:
    """What an option is, and what it may be where that is one of a few."""
    choices = f": {', '.join(declared.choices)}" if declared.choices else ""
    return declared.option.help + choices


def default_text(declared: Declared) -> str:
    """The default in words."""
    value = declared.default
    if declared.name == "workers" and not declared.option.unset:
        return "the number of CPU cores"
    if value in (None, (), {}) and declared.type is not bool:
        return declared.option.unset or "none"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
