"""`augsearch rederive`: AutoAugment's ImageNet search again, and the comparison with its policy.

The paper (arXiv 1805.09501, section 4) searches on reduced ImageNet, 120 classes and 6,000 images,
by training Wide-ResNet-40-2 for 200 epochs per candidate, 15,000 candidates, and concatenates the
best 5. The defaults here are those; smaller settings are options. Several searches, and random ones
beside them, tell what agreement between independent searches is; what was found is compared on the
images that were searched and, as that favours it, on another draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.engine.loop import RunResult
from search.runs.folder import POLICY_NAME
from search.searchers.ppo import PPO_PRESETS

from .arms import Arm, parse_arm
from .compare import run_compare
from .config import Config
from .fixed import forget_followers
from .search import run_search
from .search_settings import SearchSettings
from .settings import CompareSettings, SearcherConfig
from .study import open_run

# The last one on images that no search saw.
COMPARE, OTHER = "compare", "compare-other"
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

    Further searches are in `out`/search-2, ..., random ones in `out`/random, `out`/random-2, ...

    Args:
        config: `Config.of("rederive", data="/data/imagenet", searches=3, random_searches=2)`;
            seeds may grow (0 leaves the comparisons out).
        resume, retry_failed, progress: as for `run_search`.

    retry_failed also makes the comparisons anew when something of a search had failed: another
    policy may be found.

    Returns:
        How the searches went and, where there are some, the comparisons.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
    """
    search_configs(config)
    with open_run(config, out, resume) as run:
        searches = search_configs(run.config)
        comparisons = [run.path / name for name in (OTHER, COMPARE)]
        if retry_failed:
            for name in searches:
                forget_followers(run.path / name, *comparisons)
        how: dict[str, Any] = {"retry_failed": retry_failed, "progress": progress, "resume": True}
        done = [run_search(searched, run.path / name, **how) for name, searched in searches.items()]
        if run.config.settings.seeds:
            found = [run.path / name / POLICY_NAME for name in searches]
            compared = compare_config(run.config, found)
            task = replace(compared.task, seed=compared.task.seed + 1)
            done.append(run_compare(compared, run.path / COMPARE, **how))
            done.append(run_compare(replace(compared, task=task), run.path / OTHER, **how))
        return tuple(done)


def search_configs(config: Config) -> dict[str, Config]:
    """The searches that a re-derivation makes, by the name of their folder."""
    own = config.settings
    # The controller's settings go with the child's: "paper" means both.
    preset = config.evaluator.preset
    controller = SearcherConfig("ppo", {"preset": preset if preset in PPO_PRESETS else "cpu"})
    found = {}
    for folder, searcher, count in (
        ("search", controller, own.searches),
        ("random", SearcherConfig("random"), own.random_searches),
    ):
        for number in range(count):
            settings = SearchSettings(
                own.subpolicies, own.operations, own.ops, (), own.evaluations, own.seed + number,
                min(PAPER_TOP, own.evaluations),
            )  # fmt: skip
            name = f"{folder}-{number + 1}" if number else folder
            found[name] = replace(config, kind="search", settings=settings, searcher=searcher)
    return found


def compare_config(config: Config, found: Sequence[Path]) -> Config:
    """The comparison of what was found, by training from scratch whatever the searches went by."""
    arms = [*map(parse_arm, BESIDE), *map(_found, found)]
    evaluator = config.evaluator
    if evaluator.kind not in ("synthetic", "from-scratch"):
        evaluator = replace(evaluator, kind="from-scratch", epochs=None)
    return replace(
        config,
        kind="compare",
        evaluator=replace(evaluator, reward="accuracy", options={}),
        settings=CompareSettings(
            tuple(arm.text for arm in arms),
            config.settings.seeds,
            arms=tuple(arm.to_json() for arm in arms),
        ),
    )


def _found(path: Path) -> Arm:
    """The arm of a policy found, named as seen from the folder, which may be moved."""
    place = f"{path.parent.name}/{path.name}"
    return replace(parse_arm(str(path)), text=place)
