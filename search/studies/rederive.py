"""`augsearch rederive`: AutoAugment's ImageNet search again, and the comparison with its policy.

What the paper (arXiv 1805.09501) did, what is done here and why is a table (`rederive_recipe.py`),
printed when a run begins. Several searches, and random ones of the same cost beside them, tell what
agreement between independent searches is. What was found is compared by children from scratch on
the images that were searched and, as that favours it, on another draw, and there with another
child, beside the published policy, random ones, the best cell of a RandAugment grid and others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from policies.files import write_json
from proxy_tasks.evaluators.config import OF_CHILDREN, EvaluatorConfig
from proxy_tasks.evaluators.costs import child_of
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.run_format import (
    COMPARE,
    COMPARE_CHILD,
    COMPARE_OTHER,
    CONTROLLER,
    GRID,
    POLICY_NAME,
    RANDOM,
    RECIPE_NAME,
    STAGED,
    numbered,
)
from search.engine import cluster
from search.engine.loop import RunResult
from search.searchers.ppo import PPO_PRESETS

from .arms import Arm, parse_arm
from .compare import run_compare
from .config import Config, cheap_of
from .fixed import forget_followers
from .grid_settings import RandAugmentSettings
from .randaugment import run_randaugment
from .rederive_recipe import recipe_of, recipe_text
from .rederive_settings import CELLS, NO_CHILD
from .search import check_budget, run_search
from .search_settings import SearchSettings
from .seeds import MOST_SEEDS
from .settings import CompareSettings, SearcherConfig
from .study import OpenRun, open_run

BESIDE = ("none", "imagenet", "random:25", "trivialaugment")
PAPER_TOP = 5


def run_rederive(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> tuple[RunResult, ...]:
    """Search into `out`/search, then compare what was found in `out`/compare and compare-other.

    Further searches are in `out`/search-2, ..., random ones in `out`/random, `out`/random-2, ...,
    RandAugment's grid in `out`/randaugment, children of another model in `out`/compare-child.

    Args:
        config: `Config.of("rederive", data="/data/imagenet", searches=3, random_searches=2)`;
            seeds may grow (0 leaves the comparisons and the grid out).
        resume, retry_failed, progress: as for `run_search`.

    retry_failed also makes the comparisons anew when something of a search or of the grid had
    failed: another policy may be found.

    Returns:
        How the searches went and, where there are some, the grid and the comparisons.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
    """
    search_configs(config)
    for compared in compare_configs(config, []).values():
        check_config(compared.evaluator)
    with open_run(config, out, resume) as run, cluster.keep_ray():
        _tell_recipe(run)
        searches = search_configs(run.config)
        for name, made in searches.items():
            check_budget(made, run.task, name, "raise --budget or --epochs")
        stages = {**searches, **grid_config(run.config)}
        comparisons = [run.path / name for name in (COMPARE_CHILD, COMPARE_OTHER, COMPARE)]
        if retry_failed:
            for place in (run.path / name for name in stages):
                for journalled in (place, *sorted(place.glob("*/"))):
                    forget_followers(place, journalled, *comparisons)
        how: dict[str, Any] = {"retry_failed": retry_failed, "progress": progress, "resume": True}
        kinds = {"search": run_search, "randaugment": run_randaugment}
        done = [kinds[made.kind](made, run.path / name, **how) for name, made in stages.items()]
        found = [run.path / name / POLICY_NAME for name in stages]
        if not all(policy.is_file() for policy in found):
            return tuple(done)  # a grid with failed evaluations, which are to be made again
        for name, compared in compare_configs(run.config, found).items():
            done.append(run_compare(compared, run.path / name, **how))
        return tuple(done)


def _tell_recipe(run: OpenRun) -> None:
    """Print what the paper did and what is done here, and keep it for the report."""
    rows = recipe_of(run.config)
    for line in [] if run.resumed else recipe_text(rows):
        run.log.info(line)
    write_json(run.path / RECIPE_NAME, [row._asdict() for row in rows])


# Stages ----------------------------------------------------------------------------------------


def search_configs(config: Config) -> dict[str, Config]:
    """The searches that a re-derivation makes, by the name of their folder.

    Of a number of evaluations the controller alone, as in the paper, and the best 5 are joined; of
    a budget the controller in a staged search, and a share of it chooses the final policy.
    """
    own, evaluator = config.settings, config.evaluator
    found = {}
    for folder, searcher, count in (
        (CONTROLLER, controller(config), own.searches),
        (RANDOM, SearcherConfig("random"), own.random_searches),
    ):
        staged = searcher.name == STAGED
        cheap = cheap_of(evaluator.kind, evaluator.preset, config.task.name) if staged else {}
        for number, name in enumerate(numbered(folder, count)):
            settings = SearchSettings(
                own.subpolicies, own.operations, own.ops, evaluations=own.evaluations,
                budget=own.budget, seed=own.seed + number, cheap=cheap,
                top=min(PAPER_TOP, own.evaluations or PAPER_TOP),
            )  # fmt: skip
            found[name] = replace(config, kind="search", settings=settings, searcher=searcher)
    return found


def controller(config: Config) -> SearcherConfig:
    """Who searches: the LSTM trained by PPO; its settings go with the child's preset."""
    if config.settings.budget is not None:
        return SearcherConfig(STAGED, {"proposer": "ppo"})
    preset = config.evaluator.preset
    return SearcherConfig("ppo", {"preset": preset if preset in PPO_PRESETS else "cpu"})


def grid_config(config: Config) -> dict[str, Config]:
    """RandAugment's grid, by the name of its folder; none without comparisons or a grid."""
    own = config.settings
    if not own.grid or not own.seeds:
        return {}
    settings = RandAugmentSettings(seeds=own.grid // CELLS, halving=True)
    child = child_of(config.evaluator)
    return {GRID: replace(config, kind="randaugment", settings=settings, evaluator=child)}


def compare_configs(config: Config, found: Sequence[Path]) -> dict[str, Config]:
    """The comparisons of what was found, by the name of their folder; {} for no seeds."""
    own = config.settings
    if not own.seeds:
        return {}
    arms = [*map(parse_arm, BESIDE), *map(_found, found)]
    here = replace(
        config,
        kind="compare",
        evaluator=judge(config.evaluator),
        settings=CompareSettings(
            tuple(arm.text for arm in arms), own.seeds, arms=tuple(arm.to_json() for arm in arms)
        ),
    )
    other = replace(here, task=replace(here.task, seed=here.task.seed + 1))
    made = {COMPARE: here, COMPARE_OTHER: other}
    if own.other_child != NO_CHILD:
        options = {**other.evaluator.options, "model": own.other_child}
        made[COMPARE_CHILD] = replace(other, evaluator=replace(other.evaluator, options=options))
    # Seeds of its own for each: else `random:25` would be the same policies in all.
    return {
        name: replace(each, settings=replace(each.settings, seed=place * MOST_SEEDS))
        for place, (name, each) in enumerate(made.items())
    }


def judge(evaluator: EvaluatorConfig) -> EvaluatorConfig:
    """Children from scratch, by accuracy, whatever the searches went by."""
    kept = {name: evaluator.options[name] for name in OF_CHILDREN if name in evaluator.options}
    if evaluator.kind not in ("synthetic", "from-scratch"):
        evaluator = replace(evaluator, kind="from-scratch", epochs=None)
    return replace(evaluator, reward="accuracy", options=kept)


def _found(path: Path) -> Arm:
    """The arm of a policy found, named as seen from the folder, which may be moved."""
    place = f"{path.parent.name}/{path.name}"
    return replace(parse_arm(str(path)), text=place)
