"""`augsearch rederive`: AutoAugment's ImageNet search again, and the comparison with its policy.

The paper (arXiv 1805.09501, section 4) searches on reduced ImageNet, 120 classes and 6,000 images,
by training Wide-ResNet-40-2 for 200 epochs per candidate, 15,000 candidates, and concatenates the
best 5. The defaults here are those; smaller settings are options.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from search.engine.loop import RunResult
from search.runs.folder import POLICY_NAME
from search.searchers.ppo import PPO_PRESETS

from .arms import parse_arm
from .compare import run_compare
from .config import Config
from .fixed import forget_followers
from .search import run_search
from .settings import CompareSettings, SearcherConfig, SearchSettings
from .study import open_run

SEARCH, COMPARE = "search", "compare"
PAPER_TOP = 5


def run_rederive(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> tuple[RunResult, ...]:
    """Search into `out`/search, then compare none, imagenet and the found policy in `out`/compare.

    Args:
        config: `Config.of("rederive", data="/data/imagenet")`; seeds may grow (0 leaves the
            comparison out).
        resume, retry_failed, progress: as for `run_search`.

    retry_failed also makes the comparison anew when something of the search had failed: another
    policy may be found.

    Returns:
        How the search went and, where there is one, the comparison.

    Raises:
        InputError: a user's mistake; nothing is left behind if nothing was finished.
    """
    search_config(config)
    with open_run(config, out, resume) as run:
        if retry_failed:
            forget_followers(run.path / SEARCH, run.path / COMPARE)
        how: dict[str, Any] = {"retry_failed": retry_failed, "progress": progress, "resume": True}
        searched = run_search(search_config(run.config), run.path / SEARCH, **how)
        if run.config.settings.seeds == 0:
            return (searched,)
        found = run.path / SEARCH / POLICY_NAME
        compared = run_compare(compare_config(run.config, found), run.path / COMPARE, **how)
        return searched, compared


def search_config(config: Config) -> Config:
    """The search that a re-derivation makes."""
    own = config.settings
    # The controller's settings go with the child's: "paper" means both.
    preset = config.evaluator.preset
    return replace(
        config,
        kind="search",
        settings=SearchSettings(
            own.subpolicies, own.operations, own.ops, (), own.evaluations, own.seed,
            min(PAPER_TOP, own.evaluations),
        ),
        searcher=SearcherConfig("ppo", {"preset": preset if preset in PPO_PRESETS else "cpu"}),
    )  # fmt: skip


def compare_config(config: Config, found: Path) -> Config:
    """The comparison of what was found, by training from scratch whatever the search went by."""
    # Named as seen from the folder, which may be moved.
    place = f"{found.parent.name}/{found.name}"
    arms = [parse_arm("none"), parse_arm("imagenet"), replace(parse_arm(str(found)), text=place)]
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
