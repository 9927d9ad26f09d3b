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
from policies.imports import check_call, resolve
from policies.options import checked_options, keywords_of
from proxy_tasks.data import ProxyTask
from proxy_tasks.presets import get_preset
from proxy_tasks.recipe import Recipe

from .base import Evaluator
from .config import EvaluatorConfig
from .repeat import Repeat

# What ships, imported when it is used: a worker of planted rewards does not wait for torch.
KINDS = {
    name: f"{__package__}.{place}"
    for name, place in {
        "from-scratch": "from_scratch:FromScratch",
        "weight-sharing": "shared_child:WeightSharing",
        "density-matching": "density_matching:DensityMatching",
        "population": "population:Population",
        "synthetic": "planted:PlantedLandscape",
        "table": "table:TableEvaluator",
    }.items()
}


def make_evaluator(config: EvaluatorConfig, task: ProxyTask) -> Evaluator:
    """Build the evaluator that a config describes, wherever this is called: in a worker.

    A user's own, a class or a function, is called as those of KINDS are: with the config, the task
    and the options by name. Raises InputError for what is not known, and for what is no Evaluator.
    """
    made = maker(config.kind)(config, task, **_check_options(config))
    if not isinstance(made, Evaluator):
        raise _no_evaluator(config.kind, type(made))
    return Repeat(made, config.repeats) if config.repeats > 1 else made


def check_config(config: EvaluatorConfig) -> None:
    """InputError for what the kind of evaluator cannot be made with; nothing is built.

    A user's own is imported for it, so that a mistake is told before the workers start.
    """
    options = _check_options(config)
    if config.kind == "table":
        if config.repeats > 1:  # the same row may come again, which says nothing of its scatter
            raise InputError(
                "repeats", "must be 1 for a table, which holds what was measured once",
                config.repeats, "leave it out",
            )  # fmt: skip
        from .table import CHEAPEST, surrogate_of

        surrogate_of(options["table"], options.get("fidelity", CHEAPEST))
    if config.kind in KINDS and options.get("model") is not None:
        from proxy_tasks.models import model_maker

        model_maker(options["model"])


def maker(kind: str) -> Callable[..., Evaluator]:
    """What makes evaluators of a kind: a name in KINDS, or an import path. Raises InputError."""
    if kind in KINDS:
        return resolve("evaluator", KINDS[kind])
    make = resolve("evaluator", kind)
    if isinstance(make, type) and not issubclass(make, Evaluator):
        raise _no_evaluator(kind, make)
    check_call(
        "evaluator", kind, make, None, None, **{each.name: None for each in keywords_of(make)},
        rule="must take the configuration and the task, then options by name",
        fix="e.g. def __init__(self, config, task, *, alpha=1)",
    )  # fmt: skip
    lacking = sorted(getattr(make, "__abstractmethods__", ()))
    if lacking:
        raise InputError(
            "evaluator", "must define every method of the interface",
            f"{kind} without {', '.join(lacking)}",
            "define it; see Evaluator in proxy_tasks/evaluators/base.py",
        )  # fmt: skip
    return make


def _no_evaluator(kind: str, found: type) -> InputError:
    return InputError(
        "evaluator", "must make a proxy_tasks.Evaluator", f"{kind}, a {found.__name__}",
        "derive the class from that one and define evaluate",
    )  # fmt: skip


def _check_options(config: EvaluatorConfig) -> dict[str, Any]:
    """The options as declared; what a table's name stands for is left to whoever reads it."""
    known = keywords_of(maker(config.kind))
    options = checked_options(config.options, known, config.kind)
    if config.kind in KINDS:
        recipe = Recipe.of(options.get("recipe") or {}, config.kind)
        recipe.applied(get_preset(config.preset, "*"))
    return options
