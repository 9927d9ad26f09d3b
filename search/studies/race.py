"""`augsearch race`: searchers against each other on a table, in seconds, without Ray.

    run_race(Config.of("race", table="fashion-200", seeds=100), "runs/race")

Every searcher has the same number of evaluations of the same fidelity, so the same cost, and the
same final selection as a search exports (the sub-policies of its best candidates). What is compared
is that policy's true worth, which no searcher is told: the test accuracy that a surrogate expects
of it, without noise, fitted on those policies of the table that the searcher was told nothing of.
race.json holds what was reached, `analysis.race` compares it.

`compete` is the same for searchers that are not (yet) registered, see `search.testing.race`.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import pandas as pd

from policies.augmentations import encode_augmentation
from policies.errors import InputError, as_written, check_choice
from policies.files import digest, read_json, write_json
from policies.policy import Policy
from proxy_tasks.evaluators.base import Evaluator
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.costs import tabulated_passes, tabulated_preparation
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.evaluators.planted import PlantedLandscape
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.evaluators.table import CHEAPEST, TableEvaluator
from proxy_tasks.run_format import PLANTED, RACE_NAME, entrant_names
from proxy_tasks.surrogate import TEST
from proxy_tasks.tables import TESTED, load_table, packaged_tables
from search.engine.progress import show
from search.searchers.base import Searcher
from search.searchers.registry import make_searcher
from search.trial import CHEAP, MAIN, Candidate, Key

from .config import Config
from .costed import Entrant, search_at_cost, two_fidelities
from .race_settings import RaceSettings
from .search import policy_space
from .selection import concatenate_best, evaluated_policies
from .settings import arguments_of, check_no_twins, searcher_of
from .study import open_run

# How often a searcher has changed what it asks for, where it has; kept with the laps.
REVISIONS = {"ppo": 1}
CHECKPOINTS = 20
SAVED_EVERY = 20  # laps; the others would be run again


class Course(Protocol):
    """What searchers race on."""

    def start(self, seed: int) -> tuple[Evaluator, Callable[[Sequence[Policy]], list[float]]]:
        """For the race with this seed: what judges candidates, and the true worth of policies."""
        ...


class TableCourse:
    """A table: evaluations of one fidelity, and the test accuracy from scratch as the truth.

    What searchers are told and the truth are of two halves of the table's policies, by turns: else
    whoever finds where the surrogate errs upwards would be found right by the same error.

    Raises InputError for what `TableEvaluator` refuses, and for a table without test accuracies.
    """

    def __init__(self, config: EvaluatorConfig) -> None:
        self._halves = [TableEvaluator(config, half=half, **config.options) for half in (0, 1)]
        self._halves[0].surrogate.check(TESTED)

    def start(self, seed: int) -> tuple[Evaluator, Callable[[Sequence[Policy]], list[float]]]:
        told, judge = self._halves[seed % 2], self._halves[1 - seed % 2].surrogate
        return told, lambda policies: judge.of(TESTED).mean(policies)[TEST].tolist()


class PlantedCourse:
    """Planted landscapes, another one for every seed: no table has as many data sets."""

    def __init__(self, config: EvaluatorConfig) -> None:
        # All searchers race on the same ones, and making one takes as long as many a lap.
        self._landscape = functools.lru_cache(1000)(
            lambda seed: PlantedLandscape(config, landscape=seed, **config.options)
        )

    def start(self, seed: int) -> tuple[Evaluator, Callable[[Sequence[Policy]], list[float]]]:
        evaluator = self._landscape(seed)
        return evaluator, lambda policies: [evaluator.value(policy) for policy in policies]


@dataclass(frozen=True)
class Lap:
    """One search of a race.

    Attributes:
        evaluations: numbers of evaluations at which the race is looked at, ascending.
        values: true worth of the final policy after so many; None while nothing has trained.
        seconds: that the evaluations would have taken, on one worker.
        image_passes: likewise.
        duplicates: candidates that were asked for again. They are told what they were told before,
            at no cost; in a search they would be trained again under their new seeds, and at equal
            cost they are evaluated again.
    """

    evaluations: tuple[int, ...]
    values: tuple[float | None, ...]
    seconds: float
    image_passes: int
    duplicates: int


def compete(searcher: Searcher, course: Course, seed: int, budget: int, top: int = 5) -> Lap:
    """One search of `budget` evaluations, one after the other.

    A searcher does the same with any number of workers (`search.testing`), so no more is needed.
    """
    evaluator, worth = course.start(seed)
    told: dict[Key, tuple[Candidate, Evaluation | None]] = {}
    known: dict[str, Evaluation] = {}
    seconds, passes = 0.0, 0
    while len(told) < budget and (candidate := searcher.ask()) is not None:
        mark = repr(encode_augmentation(candidate.augmentation))
        if mark not in known:
            known[mark] = evaluator.evaluate(candidate.augmentation, candidate.seed)
            seconds += known[mark].seconds
            passes += known[mark].image_passes
        told[candidate.key] = candidate, known[mark]
        searcher.tell(candidate, known[mark])
    marks = checkpoints(budget)
    found: dict[int, Policy] = {}
    for count in marks:
        # In order of arrival, which is that of the keys here.
        evaluated = evaluated_policies(itertools.islice(told.values(), count))
        if evaluated:
            found[count] = concatenate_best(evaluated, top)
    values = dict(zip(found, worth(list(found.values())), strict=True)) if found else {}
    return Lap(
        marks, tuple(values.get(count) for count in marks), seconds, passes, len(told) - len(known)
    )


def checkpoints(budget: int) -> tuple[int, ...]:
    """Numbers of evaluations at which a race is looked at; the last is the budget."""
    steps = min(budget, CHECKPOINTS)
    return tuple(budget * step // steps for step in range(1, steps + 1))


def race(
    makers: Mapping[str, Callable[[int], Searcher]],
    table: str = PLANTED,
    *,
    against: Sequence[str] = ("random",),
    fidelity: str = CHEAPEST,
    reward: str = "log_likelihood",
    budget: int = 120,
    seeds: int = 30,
    top: int = 5,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Race searchers of one's own in this process, for example in a test.

    Args:
        makers: name -> function of a seed that makes the searcher, over 10-bin policies.
        table: as the option --table has it.
        against: searchers that ship, with their defaults, on the paper's space; as NAME@K by
            candidates of K sub-policies.
        fidelity, reward: what they are told. budget: evaluations. seeds: 0, 1, ...
        top: best candidates whose sub-policies form the final policy.
        options: further arguments of those that ship, by name, e.g. {"ppo": {"batch_size": 5}}:
            whoever asks in smaller batches learns more often.

    Returns:
        What `analysis.analyse_race` takes: one row per searcher, seed and checkpoint with the
        columns searcher, seed, evaluations, value (true worth of the final policy), image_passes,
        seconds, duplicates.

    Raises InputError for an unknown table, fidelity or searcher, or two names of one.
    """
    given: dict[str, Any] = {"searcher": tuple(against), "fidelity": fidelity, "budget": budget,
                             "top": top}  # fmt: skip
    given["searcher_options"] = {name: dict(each) for name, each in (options or {}).items()}
    settings = RaceSettings(table=table, **given)
    check_no_twins("against", against, settings, cheap=False)
    told: Any = reward  # checked in the constructor
    course = course_of(_evaluator_of(settings, EvaluatorConfig(kind="table", reward=told)))
    entrants: dict[str, Callable[[int], Searcher]] = {
        name: functools.partial(build, settings, name) for name in against
    }
    return pd.DataFrame(
        [
            {"searcher": name, "seed": seed, "evaluations": count, "value": value,
             "image_passes": lap.image_passes, "seconds": lap.seconds, "duplicates": lap.duplicates}
            for name, make in (entrants | dict(makers)).items()
            for seed in range(seeds)
            for lap in [compete(make(seed), course, seed, budget, top)]
            for count, value in zip(lap.evaluations, lap.values, strict=True)
        ]
    )  # fmt: skip


# The study -------------------------------------------------------------------------------------


def run_race(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    progress: bool = True,
) -> dict[str, dict[int, Lap]]:
    """Race in the folder `out`, and write race.json there.

    Args:
        config: `Config.of("race", table=..., ...)`.
        resume: go on with the race in `out`; seeds and searchers may have been added.

    Returns:
        Searcher -> seed -> lap.

    Raises:
        InputError: a user's mistake; nothing is left behind.
    """
    config = replace(config, evaluator=_evaluator_of(config.settings, config.evaluator))
    table, policies = _fingerprint(config.settings.table)
    cheap = config.settings.dear is not None
    check_no_twins("searcher", config.settings.searcher, config.settings, cheap)
    for name in config.settings.searcher:
        build(config.settings, name, 0)  # a wrong option is told before anything runs
    if config.settings.dear is not None:
        fidelities = two_fidelities(config.evaluator, config.settings.dear)
        for each in fidelities.values():
            check_config(each)
        _check_prices(fidelities)
    with open_run(config, out, resume) as run:
        settings = run.config.settings
        laps = _resumed(run.path, table, settings)
        seeds = range(settings.seed, settings.seed + settings.seeds)
        wanted = [
            (name, seed)
            for name in entrants_of(settings)
            for seed in seeds
            if seed not in laps.get(name, {})
        ]
        for done, (name, seed, lap) in enumerate(_run(run.config, wanted), 1):
            laps.setdefault(name, {})[seed] = lap
            last = seed == seeds[-1]
            if last or done % SAVED_EVERY == 0:
                _save(run.path, laps, table, policies)
            if last and progress:
                _tell(name, laps[name])
        return laps


def _evaluator_of(settings: RaceSettings, evaluator: EvaluatorConfig) -> EvaluatorConfig:
    if settings.table == PLANTED:
        if settings.dear is not None:
            check_choice("dear", settings.dear, (TESTED,))
        check_choice("fidelity", settings.fidelity, (CHEAPEST,))  # as it is where nothing is said
        return replace(evaluator, kind="synthetic", options={})
    options = {"table": settings.table, "fidelity": settings.fidelity}
    return replace(evaluator, kind="table", options=options)


def _check_prices(fidelities: Mapping[str, EvaluatorConfig]) -> None:
    """InputError unless the dear evaluations of a table cost more than the cheap ones."""
    if fidelities[MAIN].kind != "table":
        return
    cheap, dear = (fidelities[name].options for name in (CHEAP, MAIN))
    share = tabulated_passes(**cheap) / tabulated_passes(**dear)
    if share >= 1:
        rule, got = f"cost more than the fidelity {cheap['fidelity']}", f"{1 / share:.3g} times"
        raise InputError("dear", f"must {rule}", f"{dear['fidelity']}, {got}", "name a dearer one")


def build(settings: RaceSettings, name: str, seed: int) -> Searcher:
    """The searcher `name` of a race, new. Raises InputError for options that it does not take."""
    entrant = _entrant(settings, name, MAIN)
    return make_searcher(entrant.searcher, entrant.space, seed, entrant.options)


def _entrant(settings: RaceSettings, name: str, told: str) -> Entrant:
    space, options = policy_space(settings.space_of(name)), settings.searcher_options
    return Entrant(searcher_of(name)[0], space, told, arguments_of(name, options))


def course_of(evaluator: EvaluatorConfig) -> Course:
    """The course that a race's evaluator means."""
    return PlantedCourse(evaluator) if evaluator.kind == "synthetic" else TableCourse(evaluator)


def _end_with_parent() -> None:
    """A pool's process would wait for ever for work of a parent that was killed."""
    parent = cast(multiprocessing.process.BaseProcess, multiprocessing.parent_process())

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _run(config: Config, wanted: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, Lap]]:
    """Laps in the order of `wanted`, from as many processes as there are workers."""
    workers = min(config.pool.workers, max(1, len(wanted)))
    lap = functools.partial(_lap, config)
    if workers == 1:
        results: Iterable[Lap] = map(lap, wanted)
        yield from ((*pair, found) for pair, found in zip(wanted, results, strict=True))
        return
    # Spawned, not forked: torch has threads by now.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        results = pool.map(lap, wanted, chunksize=max(1, min(10, len(wanted) // workers)))
        try:
            yield from ((*pair, found) for pair, found in zip(wanted, results, strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def entrants_of(settings: RaceSettings) -> dict[str, Entrant]:
    """Who races: the searchers, or at equal cost each on either fidelity, a staged one on both."""
    found: dict[str, Entrant] = {}
    for name in settings.searcher:
        names = entrant_names(name, settings.fidelity, settings.dear)
        for label, told in zip(names, (CHEAP, MAIN) if len(names) > 1 else (MAIN,), strict=True):
            found[label] = _entrant(settings, name, told)
    return found


def _lap(config: Config, which: tuple[str, int]) -> Lap:
    name, seed = which
    settings = config.settings
    if settings.dear is not None:
        started = {
            fidelity: _course(evaluator).start(seed)
            for fidelity, evaluator in two_fidelities(config.evaluator, settings.dear).items()
        }
        spent = search_at_cost(
            entrants_of(settings)[name],
            {fidelity: evaluator for fidelity, (evaluator, _) in started.items()},
            started[MAIN][1], seed, settings.budget, _prepared(config.evaluator),
        )  # fmt: skip
        at = (settings.budget,), (spent.value,)
        return Lap(*at, spent.seconds, spent.image_passes, spent.duplicates)
    searcher = build(settings, name, seed)
    return compete(searcher, _course(config.evaluator), seed, settings.budget, settings.top)


def _prepared(evaluator: EvaluatorConfig) -> int:
    """What the cheap evaluations of a race share, in image passes."""
    return tabulated_preparation(evaluator) if evaluator.kind == "table" else 0


_courses: dict[tuple[str, int], Course] = {}


def _course(evaluator: EvaluatorConfig) -> Course:
    """Fitted once in a process to what its table holds: a file may grow."""
    table = Path(evaluator.options.get("table", ""))
    mark = repr(evaluator), table.stat().st_mtime_ns if table.is_file() else 0
    if mark not in _courses:
        _courses[mark] = course_of(evaluator)
    return _courses[mark]


def _fingerprint(table: str) -> tuple[str, int]:
    """Of the rows of a table, and how many policies it has; "" and 0 for planted landscapes."""
    if not table.endswith(".parquet"):
        check_choice("table", table, (PLANTED, *packaged_tables(), "FILE.parquet"))
    if table == PLANTED:
        return "", 0
    frame = load_table(table).frame
    rows = pd.util.hash_pandas_object(frame, index=False)
    return digest(rows.to_numpy().tobytes()), frame["policy"].nunique()


def _resumed(path: Path, table: str, settings: RaceSettings) -> dict[str, dict[int, Lap]]:
    """The laps so far. Raises InputError if they were run on another table (a file may grow), or by
    a searcher that asked for something else."""
    if not (path / RACE_NAME).exists():
        return {}
    laps, raced = read_race(path), read_json(path / RACE_NAME)
    if raced.get("table") != table:
        raise InputError(
            "table", "must be as it was when the race was begun", "other rows",
            "start a new race in another folder",
        )  # fmt: skip
    entrants, then = entrants_of(settings), raced.get("revisions", {})
    for name in laps:
        searcher = entrants[name].searcher
        if then.get(searcher) != REVISIONS.get(searcher):
            raise InputError(
                "searcher", "must ask for what it did when the race was begun", name,
                "go on with the version that began it, or start a new race in another folder",
            )  # fmt: skip
    return laps


def _save(path: Path, laps: Mapping[str, Mapping[int, Lap]], table: str, policies: int) -> None:
    write_json(
        path / RACE_NAME,
        {
            "revisions": REVISIONS,
            "table": table,
            "policies": policies,
            "laps": [
                {"searcher": name, "seed": seed, **asdict(lap)}
                for name, some in laps.items()
                for seed, lap in sorted(some.items())
            ],
        },
    )


def read_race(path: Path) -> dict[str, dict[int, Lap]]:
    """Searcher -> seed -> lap of a race's folder. Raises InputError for a file of other content."""
    laps: dict[str, dict[int, Lap]] = {}
    path /= RACE_NAME
    raced = read_json(path)
    with as_written(str(path), "must hold the laps of a race", "restore it from a copy"):
        for line in raced["laps"]:
            lap = Lap(
                tuple(line["evaluations"]),
                tuple(line["values"]),
                line["seconds"],
                line["image_passes"],
                line["duplicates"],
            )
            laps.setdefault(line["searcher"], {})[line["seed"]] = lap
    return laps


def _tell(name: str, laps: Mapping[int, Lap]) -> None:
    final = [lap.values[-1] for lap in laps.values() if lap.values[-1] is not None]
    mean = f"mean {100 * sum(final) / len(final):.2f} %" if final else "nothing trained"
    show(f"{name}: {len(laps)} searches, {mean}")
