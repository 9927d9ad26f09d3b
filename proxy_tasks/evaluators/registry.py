"""Evaluators: augmentation -> reward, on one proxy task. All share one small interface.

FromScratch      trains a child from scratch under the policy (AutoAugment). The reference; slow.
WeightSharing    fine-tunes a copy of one shared child for a few epochs: about a tenth of the cost.
DensityMatching  trains nothing per policy: how well does a child that never saw the policy
                 classify *augmented* validation images? Cheap, and biased (see the class).
Population       trains a child a few epochs at a time, from whichever weights it is given.
TableEvaluator   looks up what others have measured, and models the rest.
Repeat           the mean of any evaluator over several seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policies.errors import InputError
from policies.options import checked_options, keywords_of
from proxy_tasks.data import ProxyTask
from proxy_tasks.presets import get_preset
from proxy_tasks.recipe import Recipe

from .base import Evaluator
from .config import EvaluatorConfig
from .density_matching import DensityMatching
from .from_scratch import FromScratch
from .planted import PlantedLandscape
from .population import Population
from .repeat import Repeat
from .shared_child import WeightSharing
from .table import CHEAPEST, TableEvaluator, surrogate_of

# What ships.
KINDS: dict[str, Callable[..., Evaluator]] = {
    "from-scratch": FromScratch,
    "weight-sharing": WeightSharing,
    "density-matching": DensityMatching,
    "population": Population,
    "synthetic": PlantedLandscape,
    "table": TableEvaluator,
}


def make_evaluator(config: EvaluatorConfig, task: ProxyTask) -> Evaluator:
    """Build the evaluator a config describes. Raises InputError for what it does not know."""
    _check_options(config)
    evaluator = KINDS[config.kind](config, task, **config.options)
    return Repeat(evaluator, config.repeats) if config.repeats > 1 else evaluator


def check_config(config: EvaluatorConfig) -> None:
    """InputError for options that the kind of evaluator does not take; nothing is built."""
    options = _check_options(config)
    if config.kind == "table":
        surrogate_of(options["table"], options.get("fidelity", CHEAPEST))


def _check_options(config: EvaluatorConfig) -> dict[str, Any]:
    """The options as declared; what a table's name stands for is left to whoever reads it."""
    known = keywords_of(KINDS[config.kind])
    options = checked_options(config.options, known, config.kind)
    for declared in known:
        if declared.required and declared.name not in options:
            raise InputError(
                f"option {declared.name} of {config.kind}", "must be given", None,
                f"it is: {declared.option.help}",
            )  # fmt: skip
    recipe = Recipe.of(options.get("recipe") or {}, config.kind)
    recipe.applied(get_preset(config.preset, "*"))
    return options
