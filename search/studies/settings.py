"""The sections of a configuration, and the settings that only one kind of run has.

Every option is declared here once, on the field that it fills: help, unit, default and rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal, get_args

from policies.errors import InputError, check_choice
from policies.imports import is_import_path
from policies.options import Configuration, Option
from proxy_tasks.run_format import CHEAP_COST, SIZED, STAGED
from search.studies.seeds import LARGEST_SEED

TASKS = (
    "reduced-fashion", "reduced-cifar10", "reduced-svhn", "reduced-imagenet", "folder",
    "synthetic",
)  # fmt: skip
Shipped = Literal["staged", "random", "ppo", "tpe", "thompson", "evolution"]
SEARCHERS: Final[tuple[Shipped, ...]] = get_args(Shipped)
POLICIES = (
    "FILE, imagenet, cifar10, svhn, randaugment:N,M (M 0 to 30), trivialaugment, uniform, "
    "sample-aware"
)
_PIECES = "; with pieces of a recipe as in none+cutmix:1.0+erase:0.25"
_ARM = f"none, {POLICIES}, random:K"
ARM = f"{_ARM} or package.module:name (a pipeline of your own){_PIECES}"
ARMS = f"{_ARM}, package.module:name (a pipeline of your own) or NAME=FILE,FILE{_PIECES}"


def _images(what: str, unset: str) -> Option:
    return Option(f"{what} images, over all classes", unit="N", unset=unset, least=1, example=1000)


def seed_option(what: str) -> Option:
    return Option(what, unit="N", least=0, most=LARGEST_SEED)


# Sections that kinds share ---------------------------------------------------------------------


@dataclass(frozen=True)
class TaskConfig(Configuration):
    """Which images: the arguments of `get_task`; the preset says how many are trained on."""

    name: Annotated[
        str,
        Option(
            f"proxy task: {', '.join(TASKS)}, or data sets of your own as package.module:name, a "
            "callable that makes them",
            name="task",
            unit="NAME",
        ),
    ] = "reduced-fashion"
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
    train_images: Annotated[
        int | None,
        _images("training", "the preset's (cpu: 1000), else the task's; to train a model, all"),
    ] = None
    validation_images: Annotated[int | None, _images("validation", "the task's")] = None
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
    flip: Annotated[
        Literal["yes", "no"] | None,
        Option(
            "whether children train on images mirrored at random, left and right; not for letters, "
            "digits or sides of a body",
            unit="HOW",
            unset="the task's: yes, but for SVHN",
        ),
    ] = None


@dataclass(frozen=True)
class SearcherConfig(Configuration):
    """Who proposes candidates."""

    name: Annotated[
        str,
        Option(
            f"search algorithm: {', '.join(SEARCHERS)}, or one of your own as package.module:name, "
            "called with the space and the seed",
            name="searcher",
            unit="NAME",
            unset="staged; of a number of evaluations ppo",
        ),
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_searcher_options(self.options)


def check_searcher_options(options: dict[str, Any]) -> None:
    """InputError for what is no user's to say."""
    if CHEAP_COST in options:
        raise InputError(
            "searcher_options", f"must not hold {CHEAP_COST}, which follows from the evaluators",
            options[CHEAP_COST], "leave it out",
        )  # fmt: skip


def check_options_by_searcher(options: Mapping[str, Any], names: Sequence[str]) -> None:
    """InputError unless these are objects by searchers: those of `names`, NAME or NAME@K, or NAME
    for all of its sizes."""
    known = dict.fromkeys((*names, *(searcher_of(name)[0] for name in names)))
    for name, each in options.items():
        check_choice("searcher_options", name, tuple(known))
        searcher, _ = searcher_of(name)
        searches = searcher in SEARCHERS or is_import_path(searcher)
        if not searches or not isinstance(each, dict):
            raise InputError(
                "searcher_options", "must hold an object for a searcher", {name: each},
                'pass for example {"ppo": {"batch_size": 10}}',
            )  # fmt: skip
        check_searcher_options(each)


def check_no_twins(argument: str, names: Sequence[str], settings: Any, cheap: bool) -> None:
    """InputError where two names mean one searcher, as NAME and NAME@K may.

    settings: of a race or a replication. cheap: whether staged search is told cheap rewards; where
    it is not, it asks what thompson asks with the same arguments.
    """
    known: dict[str, str] = {}
    for name in names:
        searcher, size = searcher_of(name, argument)
        options = arguments_of(name, settings.searcher_options)
        alone = searcher == STAGED and not cheap
        meant = repr(
            ("thompson" if alone else searcher, size or settings.subpolicies,
             sorted(options.items()))
        )  # fmt: skip
        twin = known.setdefault(meant, name)
        if twin != name:
            why = "" if searcher_of(twin)[0] == searcher else " without a cheap evaluator"
            raise InputError(
                argument, f"must name no searcher twice: {twin} is the same{why}", name,
                "leave one of them out, in another folder where a run has begun with both",
            )  # fmt: skip


def searcher_of(text: str, argument: str = "method") -> tuple[str, int | None]:
    """(searcher, sub-policies of its candidates) of NAME or NAME@K; no size: --subpolicies says it.

    For what is no searcher it is the text itself. Raises InputError for NAME@K without a K.
    """
    name, mark, size = text.rpartition(SIZED)
    if not mark or "/" in size or not (name in SEARCHERS or is_import_path(name)):
        return text, None
    if not size.isascii() or not size.isdecimal():
        raise InputError(
            argument, f"must have a number of sub-policies behind {SIZED}", text,
            f"pass for example {name}{SIZED}25",
        )  # fmt: skip
    return name, int(size)


def arguments_of(text: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The further arguments of NAME or NAME@K among those by searcher: its own, else NAME's."""
    return dict(options.get(text, options.get(searcher_of(text)[0], {})))


@dataclass(frozen=True)
class Settings(Configuration):
    """Base of what only one kind of run has."""

    def grown_from(self, saved: Any) -> Any:
        """These settings for a run that was begun with `saved`, which they have grown from."""
        return self


@dataclass(frozen=True)
class SpaceSettings(Settings):
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


def grown_entries(
    argument: str, name: str, before: tuple[dict[str, Any], ...], after: tuple[dict[str, Any], ...]
) -> tuple[dict[str, Any], ...]:
    """The entries of `after`, those of `before` in front; InputError where one of them changed."""
    old = {entry[name]: entry for entry in before}
    new = {entry[name]: entry for entry in after}
    for text, entry in old.items():
        if new[text] != entry:
            raise InputError(
                argument, "must be what it was when the run was started", text,
                "restore the file, or start a new run in another folder",
            )  # fmt: skip
    return tuple((old | new).values())


def check_entries(argument: str, name: str, entries: Any) -> tuple[dict[str, Any], ...]:
    """The entries as a tuple; InputError unless each is an object with this name, a text.

    Only a run's config.json holds such, and one that was edited may hold anything.
    """
    listed = isinstance(entries, list | tuple)
    if not listed or not all(isinstance(e, dict) and isinstance(e.get(name), str) for e in entries):
        raise InputError(
            argument, f"must be objects with a {name!r}, as a run writes them", entries,
            "leave them out, or restore config.json from a copy",
        )  # fmt: skip
    return tuple(entries)


# Settings of each kind -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Armed(Settings):
    """Of a kind with the option `policy`.

    arms: what it means, filled in before the first evaluation (`arms.Arm.to_json`).
    """

    arms: tuple[dict[str, Any], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "arms", check_entries("arms", "text", self.arms))

    def grown_from(self, saved: Any) -> Any:
        """With the arms that were there first in front; they must be what they were."""
        kept = grown_entries("policy", "text", saved.arms, self.arms)
        changes: dict[str, Any] = {"policy": tuple(arm["text"] for arm in kept), "arms": kept}
        return replace(self, **changes)


@dataclass(frozen=True)
class CompareSettings(_Armed):
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
    seed: Annotated[
        int,
        seed_option(
            "the first of these seeds, which count up: other children than those of "
            "--seeds N are trained from a --seed N higher"
        ),
    ] = 0


@dataclass(frozen=True)
class FidelitySettings(_Armed):
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
    seed: Annotated[
        int, seed_option("seed of the random policies and first of the training seeds")
    ] = 0
    policy: Annotated[
        tuple[str, ...],
        Option(
            "policy files of searches, ranked beside the others and among themselves: where a "
            "search ends a cheap evaluator may rank otherwise than among random policies",
            unit="FILE...",
            unset="none",
            example="runs/first/policy.json",
        ),
    ] = ()
    evaluators: Annotated[
        dict | None,
        Option(
            'cheap evaluators by name, e.g. \'{"sharing-80": {"kind": "weight-sharing"}}\', each '
            "with the fields of EvaluatorConfig",
            unit="JSON",
            unset="a selection",
        ),
    ] = None


@dataclass(frozen=True)
class TabulateSettings(Settings):
    """What `policies_from` means (`optimised`) and how policies are measured (`fidelities`) is
    filled in before the first evaluation (`tabulate.filled_in`)."""

    policies: Annotated[
        int,
        Option("policies to measure beside those of searches", unit="N", least=1, most=100_000),
    ] = 600  # fmt: skip
    policies_from: Annotated[
        tuple[str, ...],
        Option(
            "folders of finished searches: the exported policy of each, what it was chosen from, "
            "and its late candidates",
            unit="RUN...",
            unset="none: a table without the region where searches end misleads",
            example="runs/first",
        ),
    ] = ()
    late: Annotated[
        int,
        Option(
            "policies of each of these searches beside the exported one: what it was chosen from, "
            "then late candidates, the last first, all from its last third",
            unit="N",
            least=0,
            most=100_000,
        ),
    ] = 50
    seed: Annotated[int, seed_option("seed of the policies and first of the training seeds")] = 0
    optimised: tuple[dict[str, Any], ...] = ()
    fidelities: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "optimised", check_entries("optimised", "run", self.optimised))

    def grown_from(self, saved: TabulateSettings) -> TabulateSettings:
        """With the searches that were there first in front; they must be what they were."""
        kept = grown_entries("policies_from", "run", saved.optimised, self.optimised)
        return replace(self, policies_from=tuple(run["run"] for run in kept), optimised=kept)


@dataclass(frozen=True)
class PBASettings(Settings):
    population: Annotated[int, Option("children trained side by side", unit="N", least=4)] = 8
    interval: Annotated[
        int, Option("epochs between replacements of the worse children", unit="N", least=1)
    ] = 3
    seed: Annotated[int, seed_option("seed of the search")] = 0


@dataclass(frozen=True)
class Prices(Settings):
    """How an estimate is made, and what an hour costs."""

    price: Annotated[
        float | None,
        Option("price of a core-hour", unit="MONEY", unset="no price", least=0, example=0.05),
    ] = None
    gpu_price: Annotated[
        float | None,
        Option("price of a GPU-hour", unit="MONEY", unset="no price", least=0, example=2.0),
    ] = None
    samples: Annotated[int, Option("evaluations measured per worker", unit="N", least=1)] = 2
