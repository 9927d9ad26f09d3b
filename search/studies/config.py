"""One configuration for every kind of run: what decides it, and where and how fast it runs.

    config = Config.of("search", task="folder", data="flowers", evaluations=500, workers=8)
    run_search(config, "runs/flowers")

A configuration has sections: the task, the evaluator, the searcher, the settings of its kind, and
the pool (which decides nothing but speed). An option is declared once, on the field that it fills;
`Config.of`, the command line and configuration files use the same names. A run folder's
config.json is such a file; `[task]`, `[evaluator]`, ... are its tables in TOML.

Kinds are data (`KINDS`): a new kind of run is a class of settings and one entry.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from policies.errors import InputError, check_choice
from policies.files import read_json
from policies.options import Configuration, Declared, Option, options_of, to_json, unknown_option
from proxy_tasks.evaluators.config import EvaluatorConfig, resolve
from search.engine.resources import PoolConfig
from search.studies.seeds import LARGEST_SEED

FORMAT = "augsearch-run"
VERSION = 2
CONFIG_NAME = "config.json"

TASKS = (
    "reduced-fashion", "reduced-cifar10", "reduced-svhn", "reduced-imagenet", "folder",
    "synthetic",
)  # fmt: skip
ARMS = (
    "FILE, none, imagenet, cifar10, svhn, randaugment:N,M, trivialaugment, uniform, random:K or "
    "NAME=FILE,FILE"
)


# What of a run that goes on may change, beside the pool: the manifest proves the images.
MOVABLE = "data"


def _images(what: str, unset: str) -> Option:
    return Option(f"{what} images, over all classes", unit="N", unset=unset, least=1, example=1000)


def _seed(what: str) -> Option:
    return Option(what, unit="N", least=0, most=LARGEST_SEED)


# Sections that kinds share ---------------------------------------------------------------------


@dataclass(frozen=True)
class TaskConfig(Configuration):
    """Which images: the arguments of `proxy_tasks.get_task`, with the preset's sizes as default."""

    name: Annotated[str, Option(f"proxy task: {', '.join(TASKS)}", name="task", unit="NAME")] = (
        "reduced-fashion"
    )
    data: Annotated[
        str | None,
        Option(
            "where the images are: an ImageNet tree, a torchvision root, a folder "
            "train/<class>/ [val|test]/<class>/ or <class>/, or an .npz file as MedMNIST has it",
            unit="PATH",
            unset="none, reduced-fashion needs none",
        ),
    ] = None
    seed: Annotated[
        int, Option("seed of the draw of images", name="task_seed", unit="N", least=0)
    ] = 0
    train_images: Annotated[int | None, _images("training", "the preset's, else the task's")] = None
    validation_images: Annotated[
        int | None, _images("validation", "the preset's, else the task's")
    ] = None
    test_images: Annotated[int | None, _images("test", "the task's")] = None
    resolution: Annotated[
        int | None,
        Option("side of the images", unit="PIXELS", unset="the task's, 32 or 28", least=1,
               example=32),
    ] = None  # fmt: skip
    shares: Annotated[
        Literal["equal", "proportional", "capped"],
        Option(
            "images of each class: as many of each, as many as the data have, or as many of each "
            "and of smaller classes all that can be spared",
            unit="HOW",
        ),
    ] = "equal"


@dataclass(frozen=True)
class SearcherConfig(Configuration):
    """Who proposes candidates."""

    name: Annotated[
        Literal["random", "ppo", "tpe"], Option("search algorithm", name="searcher", unit="NAME")
    ] = "ppo"
    options: Annotated[
        dict,
        Option(
            "further arguments of the searcher as JSON",
            name="searcher_options",
            unit="JSON",
            rule='an object, e.g. {"batch_size": 10}',
        ),
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings(Configuration):
    """Base of what only one kind of run has."""

    def grown_from(self, saved: Any) -> Any:
        """These settings for a run that was begun with `saved`, which they have grown from."""
        return self


@dataclass(frozen=True)
class Space(Settings):
    """What is searched. After construction `ops` names every operation and `without` is empty."""

    subpolicies: Annotated[
        int, Option("sub-policies of a candidate", unit="N", least=1, most=1000)
    ] = 5
    operations: Annotated[int, Option("operations of a sub-policy", unit="N", least=1, most=64)] = 2
    ops: Annotated[
        tuple[str, ...],
        Option("operations that may be used", unit="NAME...", unset="the paper's 16",
               example="Rotate Color"),
    ] = ()  # fmt: skip
    without: Annotated[
        tuple[str, ...],
        Option("operations that may not be used, e.g. Cutout SamplePairing", unit="NAME...",
               unset="none", example="Cutout"),
    ] = ()  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        ops, _ = narrowed(self.ops, self.without)
        object.__setattr__(self, "ops", ops)
        object.__setattr__(self, "without", ())
        self.check_size(1)

    def check_size(self, candidates: int) -> None:
        """InputError unless the sub-policies of so many candidates fit into a policy file."""
        from policies.policy import MAX_SUBPOLICIES, MAX_TEXT_BYTES

        rows = candidates * self.subpolicies
        # The longest operation's name, a probability, a magnitude; half is left to provenance.
        written = rows * self.operations * (20 + max(map(len, self.ops)))
        if rows > MAX_SUBPOLICIES or written > MAX_TEXT_BYTES // 2:
            times = f"top {candidates} x " if candidates > 1 else ""
            raise InputError(
                "subpolicies",
                f"must give a policy of at most {MAX_SUBPOLICIES} sub-policies and "
                f"{MAX_TEXT_BYTES // 2} bytes",
                f"{times}{self.subpolicies} sub-policies of {self.operations} operations",
                "ask for fewer",
            )


def narrowed(ops: tuple[str, ...], without: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """(operations to be used, how many were left out); InputError for unknown names."""
    from policies.ops import OPS, PAPER_OPS

    for argument, names in (("ops", ops), ("without", without)):
        for name in names:
            check_choice(argument, name, tuple(OPS))
        if len(set(names)) != len(names):
            raise InputError(argument, "must not repeat an operation", names, "drop the repeats")
    every = ops or PAPER_OPS
    left = tuple(name for name in every if name not in without)
    if not left:
        raise InputError("without", "must leave at least one operation", without, "name fewer")
    return left, len(every) - len(left)


# Settings of each kind -------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchSettings(Space):
    evaluations: Annotated[int, Option("candidate policies to evaluate", unit="N", least=1)] = 200
    seed: Annotated[int, _seed("seed of the search")] = 0
    top: Annotated[
        int,
        Option("best candidates whose sub-policies form the exported policy", unit="N", least=1),
    ] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top > self.evaluations:
            raise InputError(
                "top", f"must be at most the {self.evaluations} evaluations", self.top,
                f"pass at most {self.evaluations}, or evaluate more candidates",
            )  # fmt: skip
        self.check_size(self.top)


@dataclass(frozen=True)
class SelectSettings(Settings):
    run: Annotated[str, Option("folder of the search", unit="RUN", shell=False)]
    rescore: Annotated[
        int,
        Option(
            "candidates to evaluate again: the best, and as many of the rest; 0: none",
            unit="N",
            least=0,
        ),
    ] = 60
    rescore_seeds: Annotated[
        int, Option("new seeds of each of them", unit="N", least=1, most=10_000)
    ] = 1
    seeds: Annotated[
        int,
        Option("seeds by which the final policies are told apart", unit="N", least=1, most=10_000),
    ] = 5
    ops: Annotated[
        tuple[str, ...],
        Option("operations that the final policy may use; others are dropped and counted",
               unit="NAME...", unset="those of the search", example="Rotate Color"),
    ] = ()  # fmt: skip
    without: Annotated[
        tuple[str, ...],
        Option("operations that it may not use, e.g. Cutout SamplePairing", unit="NAME...",
               unset="none", example="Cutout"),
    ] = ()  # fmt: skip


@dataclass(frozen=True)
class RandAugmentSettings(Settings):
    n: Annotated[
        tuple[int, ...], Option("values of N (operations)", unit="N...", least=1, most=16)
    ] = (1, 2, 3)
    m: Annotated[
        tuple[int, ...], Option("values of M (magnitudes, 0 to 30)", unit="M...", least=0, most=30)
    ] = (0, 4, 8, 12, 16, 20, 24, 28)
    seeds: Annotated[
        int, Option("training seeds of every cell", unit="N", least=1, most=10_000)
    ] = 2
    seed: Annotated[int, _seed("the first of them")] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n", "m"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))


@dataclass(frozen=True)
class CompareSettings(Settings):
    """arms: what `policy` means, filled in before the first evaluation (`arms.Arm.to_json`)."""

    policy: Annotated[
        tuple[str, ...],
        Option(
            f"arms, the first is the one to beat: {ARMS} (K random sub-policies, new ones for "
            "every seed; several files of one method by turns)",
            unit="ARM...",
            example="none imagenet",
        ),
    ]
    seeds: Annotated[
        int, Option("children per arm, each with its own seed", unit="N", least=1, most=10_000)
    ] = 5
    seed: Annotated[int, _seed("the first of these seeds")] = 0
    arms: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "arms", tuple(self.arms))

    def grown_from(self, saved: CompareSettings) -> CompareSettings:
        """With the arms that were there first in front; they must be what they were."""
        before = {arm["text"]: arm for arm in saved.arms}
        after = {arm["text"]: arm for arm in self.arms}
        for text, arm in before.items():
            if after[text] != arm:
                raise InputError(
                    "policy", "must be what it was when the run was started", text,
                    "restore the file, or start a new run in another folder",
                )  # fmt: skip
        texts = (*before, *(text for text in after if text not in before))
        return replace(self, policy=texts, arms=tuple((after | before)[text] for text in texts))


@dataclass(frozen=True)
class FidelitySettings(Settings):
    policies: Annotated[
        int,
        Option("policies to rank, at least 24 for a useful interval", unit="N", least=8,
               most=10_000),
    ] = 29  # fmt: skip
    seeds: Annotated[
        int, Option("from-scratch children per policy", unit="N", least=2, most=10_000)
    ] = 4
    evaluation_seeds: Annotated[
        int,
        Option("evaluations of a policy by each cheap evaluator", unit="N", least=1, most=10_000),
    ] = 2
    seed: Annotated[int, _seed("seed of the random policies and first of the training seeds")] = 0
    evaluators: Annotated[
        dict | None,
        Option(
            'cheap evaluators by name, e.g. \'{"ws-40-8": {"kind": "weight-sharing"}}\' with the '
            "fields of EvaluatorConfig",
            unit="JSON",
            unset="a selection",
        ),
    ] = None


@dataclass(frozen=True)
class RederiveSettings(Space):
    evaluations: Annotated[
        int, Option("candidate policies to evaluate; the paper's number", unit="N", least=1)
    ] = 15_000
    seed: Annotated[int, _seed("seed of the search")] = 0
    seeds: Annotated[
        int,
        Option("training seeds of the comparison; 0 leaves it out", unit="N", least=0, most=10_000),
    ] = 5


@dataclass(frozen=True)
class PBASettings(Settings):
    population: Annotated[int, Option("children trained side by side", unit="N", least=4)] = 8
    interval: Annotated[
        int, Option("epochs between replacements of the worse children", unit="N", least=1)
    ] = 3
    seed: Annotated[int, _seed("seed of the search")] = 0


@dataclass(frozen=True)
class TrainSettings(Settings):
    policy: Annotated[str, Option(ARMS, unit="ARM", example="imagenet")]
    seed: Annotated[int, _seed("seed of the child's weights, image order and augmentation")] = 0


@dataclass(frozen=True)
class EstimateSettings(Space):
    evaluations: Annotated[int, Option("candidate policies of the search", unit="N", least=1)] = 200
    price: Annotated[
        float | None,
        Option("price of a core-hour", unit="MONEY", unset="no price", least=0, example=0.05),
    ] = None
    samples: Annotated[int, Option("evaluations measured per worker", unit="N", least=1)] = 2


# Kinds -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What a kind of run takes.

    Attributes:
        settings: class of its own settings. sections: which others it lets users set.
        hidden: options of those sections that it does not offer.
        defaults: defaults that differ from the fields'; None leaves the choice to `resolve`.
        grows: options that may grow once a run has begun: numbers rise, lists are added to.
        like: a setting that names another run, whose task and evaluator are taken.
    """

    settings: type
    sections: tuple[str, ...] = ("task", "evaluator", "pool")
    hidden: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    grows: tuple[str, ...] = ()
    like: str = ""


_MEASURED = {"evaluator": None, "reward": None}
_CHILD = {"evaluator": "from-scratch", "reward": "accuracy"}
_NOT_OF_A_CHILD = ("reward", "repeats", "evaluator_options")

KINDS: dict[str, Kind] = {
    "search": Kind(
        SearchSettings,
        ("task", "searcher", "evaluator", "pool"),
        hidden=("test_images",),
        defaults=_MEASURED,
        grows=("evaluations",),
    ),
    "select": Kind(
        SelectSettings,
        ("evaluator", "pool"),
        hidden=("preset", "epochs", "threads", "device", "precision", "kernels", "repeats",
                "evaluator_options"),
        defaults=_MEASURED,
        grows=("seeds",),
        like="run",
    ),
    "randaugment": Kind(
        RandAugmentSettings,
        hidden=("test_images",),
        defaults=_MEASURED,
        grows=("n", "m", "seeds"),
    ),
    "rederive": Kind(
        RederiveSettings,
        hidden=("task", "repeats"),
        defaults={**_CHILD, "task": "reduced-imagenet", "preset": "paper", "resolution": 32},
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
        grows=("policies", "seeds", "evaluation_seeds"),
    ),
    "train": Kind(
        TrainSettings,
        ("task", "evaluator"),
        hidden=("evaluator", *_NOT_OF_A_CHILD),
        defaults=_CHILD,
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
            yield section, declared


# The configuration -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, and `pool`, which decides where and how fast."""

    kind: str
    task: TaskConfig
    evaluator: EvaluatorConfig
    settings: Any
    searcher: SearcherConfig | None = None
    pool: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        for name, cls in section_classes(self.kind).items():
            value = getattr(self, name)
            if not isinstance(value, cls) and not (name == "searcher" and value is None):
                raise InputError(
                    name, f"must be {cls.__name__} for the kind {self.kind}", value,
                    f"build it with Config.of({self.kind!r}, ...)",
                )  # fmt: skip

    @classmethod
    def of(cls, kind: str, **values: Any) -> Config:
        """The configuration of a run from the options that differ from their defaults.

        Args:
            kind: one of `KINDS`, the name of the command.
            values: options by the names of the command line, with underscores.

        Raises:
            InputError: for an unknown option or a value that breaks its rule.
        """
        check_choice("kind", kind, tuple(KINDS))
        about = KINDS[kind]
        known = {declared.name for _, declared in options_of_kind(kind)} | {about.like} - {""}
        for name in values:
            if name not in known:
                raise unknown_option(name, known, f"option of {kind}")
        nested: dict[str, dict[str, Any]] = {}
        given = {**about.defaults, **values}
        sections = section_classes(kind)
        for section, part in sections.items():
            for declared in options_of(part):
                if declared.name in given:
                    nested.setdefault(section, {})[declared.field] = given[declared.name]
        if about.like:
            return _like(kind, values, nested)
        _resolve(nested)
        if "searcher" in about.sections:
            nested.setdefault("searcher", {})
        return cls._build(kind, nested)

    @classmethod
    def _build(cls, kind: str, nested: Mapping[str, Any]) -> Config:
        parts: dict[str, Any] = {}
        for section, part in section_classes(kind).items():
            values = nested.get(section)
            if values is None and section == "searcher":
                continue
            for declared in options_of(part):
                if declared.required and declared.field not in (values or {}):
                    raise InputError(
                        declared.name, "must be given", None, f"it is: {declared.option.help}"
                    )
            parts[section] = part(**(values or {}))
        return cls(kind=kind, **parts)

    def to_json(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {"format": FORMAT, "version": VERSION, **to_json(self)}

    @classmethod
    def from_json(cls, data: Any, where: str = CONFIG_NAME) -> Config:
        """The configuration that `to_json` wrote; what it lacks takes the fields' defaults.

        Raises:
            InputError: naming `where`, for another kind of file, another version or unknown fields.
        """
        fix = "restore it from a copy"
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format", "no format") if isinstance(data, dict) else type(data)
            raise InputError(where, "must be the configuration of a run", found, fix)
        if data.get("version") != VERSION:
            raise InputError(
                where,
                f"must be a run folder of version {VERSION}",
                data.get("version"),
                "use the version of augsearch that wrote it, or start a new run",
            )
        return cls._build(*_nested(data, where))

    def changed(self, **values: Any) -> Config:
        """This configuration with other values, named as in `of`; InputError for unknown names."""
        parts: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            for section, declared in options_of_kind(self.kind, hidden=True):
                if declared.name == name:
                    parts.setdefault(section, {})[declared.field] = value
                    break
            else:
                known = {declared.name for _, declared in options_of_kind(self.kind)}
                raise unknown_option(name, known, f"option of {self.kind}")
        new = {section: replace(getattr(self, section), **part) for section, part in parts.items()}
        return replace(self, **new)


def _resolve(nested: dict[str, dict[str, Any]]) -> None:
    """Evaluator and reward that suit the task, where they are left open."""
    evaluator = nested.setdefault("evaluator", {})
    task = nested.get("task", {}).get("name", TaskConfig.name)
    preset = evaluator.get("preset", EvaluatorConfig.preset)
    kind, reward = resolve(evaluator.get("kind"), evaluator.get("reward"), preset, task)
    evaluator |= {"kind": kind, "reward": reward}


def _like(kind: str, values: Mapping[str, Any], nested: dict[str, dict[str, Any]]) -> Config:
    """A configuration with the task and the evaluator of another run."""
    name = KINDS[kind].like
    if name not in values:
        raise InputError(name, "must name the folder of a run", None, f"see --help of {kind}")
    searched = read_config(Path(nested["settings"][name]))
    wanted = {k: v for k, v in nested.get("evaluator", {}).items() if v is not None}
    child = to_json(searched.evaluator)
    if wanted.get("kind", child["kind"]) != child["kind"]:
        # Epochs, options and the reward that suits belong to a kind.
        child |= {"epochs": None, "options": {}}
        wanted.setdefault("reward", resolve(wanted["kind"], None, child["preset"], "")[1])
    return Config._build(
        kind,
        {**nested, "task": to_json(searched.task), "evaluator": {**child, **wanted}},
    )


# Files -----------------------------------------------------------------------------------------


def _nested(data: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """(kind, sections) of a configuration file, with known names only."""
    kind = data.get("kind")
    try:
        sections = section_classes(kind)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{where}, kind", error.rule, kind, error.fix) from None
    nested = {}
    for name, values in data.items():
        if name in ("format", "version", "kind"):
            continue
        if name not in sections:
            raise unknown_option(name, sections, f"{where}, section")
        if values is None and name == "searcher":
            continue
        if not isinstance(values, dict):
            raise InputError(f"{where}, {name}", "must be an object", values, "see the docs")
        known = [f.name for f in fields(sections[name])]
        for each in values:
            if each not in known:
                raise unknown_option(each, known, f"{where}, {name}")
        nested[name] = values
    return kind, nested  # type: ignore[return-value]


def read_config(folder: Path) -> Config:
    """The configuration of the run in `folder`. Raises InputError naming the file."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise InputError(
            "run", f"must be a run folder, with {CONFIG_NAME} in it", str(folder), "check the path"
        )
    return Config.from_json(read_json(path), str(path))


def read_options(path: str | Path, kind: str) -> dict[str, Any]:
    """Options by name from a configuration file (TOML, or JSON such as a run's config.json)."""
    path = Path(path)
    if path.suffix == ".toml":
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError("config", "must be a readable file", str(path), "check it") from error
        except ValueError as error:
            raise InputError(str(path), "must be TOML", str(error), "mend it") from error
    else:
        data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(str(path), "must hold the options of a run", data, "see the docs")
    data.setdefault("kind", kind)
    if data["kind"] != kind:
        raise InputError(
            f"{path}, kind", f"must be {kind}, as the command is", data["kind"],
            f"use `augsearch {data['kind']}`",
        )  # fmt: skip
    _, nested = _nested(data, str(path))
    return {
        declared.name: nested[section][declared.field]
        for section, declared in options_of_kind(kind)
        if declared.field in nested.get(section, {})
    }


def reference(kind: str) -> list[dict[str, str]]:
    """Rows of the reference table of a command's options, for the documentation."""
    return [
        {
            "option": "--" + declared.name.replace("_", "-"),
            "section": section,
            "help": declared.option.help,
            "unit": declared.option.unit,
            "default": default_text(declared),
            "rule": declared.rule,
        }
        for section, declared in options_of_kind(kind)
    ]


def default_text(declared: Declared) -> str:
    """The default in words."""
    value = declared.default
    if declared.name == "workers":
        return "the number of CPU cores"
    if value in (None, (), {}) and declared.type is not bool:
        return declared.option.unset or "none"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
