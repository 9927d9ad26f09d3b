"""What an evaluation costs, known before it is made: the same on any machine.

In image passes, as `Evaluation.image_passes` counts them: images trained on, and a third of those
that were only looked at. A search's budget is counted so, in *children*: the passes of one child
from scratch on the same task.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from policies.errors import InputError, as_written, check_choice
from policies.options import keywords_of
from proxy_tasks.data import ProxyTask
from proxy_tasks.presets import get_preset
from proxy_tasks.tables import TESTED, load_table
from proxy_tasks.training import EVALUATED_PASS

from .config import SHARING, EvaluatorConfig, companion
from .registry import KINDS, maker
from .table import CHEAPEST


def child_of(config: EvaluatorConfig) -> EvaluatorConfig:
    """The evaluator that trains a child for every candidate on the same task, the reference.

    It is the configured one unless that shares a child or, of a table, names another fidelity.
    """
    if config.kind in SHARING:
        return companion(config, {"kind": "from-scratch"})
    if config.kind == "table" and config.options.get("fidelity", CHEAPEST) != TESTED:
        options = {**config.options, "fidelity": TESTED}
        return replace(config, reward="calibrated_log_likelihood", repeats=1, options=options)
    return replace(config, repeats=1)


def evaluation_passes(config: EvaluatorConfig, task: ProxyTask, subpolicies: int = 5) -> int:
    """Image passes of one evaluation of a policy of so many sub-policies, on the validation part.

    Of an evaluator of a user's own that is not known: its evaluations count as 1 each, and a
    budget as their number. Raises InputError for one that ships and is not known either.
    """
    if config.kind not in KINDS:
        return config.repeats
    options = _options(config)
    preset = get_preset(config.preset, task.name)
    train, validation = len(task.train), len(task.validation)
    if config.kind == "density-matching":
        looked_at = subpolicies * min(options["images_per_subpolicy"], validation)
        if options["best_of"] > 1:
            looked_at = options["best_of"] * validation
        passes = round(looked_at * EVALUATED_PASS)
    elif config.kind in ("from-scratch", "weight-sharing"):
        own = preset.epochs if config.kind == "from-scratch" else options["finetune_epochs"]
        passes = (config.epochs or own) * train + round(validation * EVALUATED_PASS)
    elif config.kind == "synthetic":
        passes = options["passes"]
    elif config.kind == "table":
        passes = tabulated_passes(options["table"], options["fidelity"])
    else:
        raise InputError(
            "budget", "needs an evaluator whose cost is known beforehand", config.kind,
            "pass evaluations instead",
        )  # fmt: skip
    return passes * config.repeats


def preparation_passes(config: EvaluatorConfig, task: ProxyTask) -> int:
    """Image passes of the one-off work before the first evaluation: training a shared child."""
    if config.kind == "table":
        return tabulated_preparation(config)
    return _shared(config, task.name, len(task.train))


def tabulated_preparation(config: EvaluatorConfig) -> int:
    """Of an evaluator of the kind `table`: what the one that it stands for prepares."""
    options = _options(config)
    table = load_table(options["table"])
    check_choice("fidelity", options["fidelity"], tuple(table.fidelities))
    where = f"table {options['table']}"
    with as_written(where, "must tell its task and evaluators", "make it again, or restore it"):
        told = EvaluatorConfig(**table.fidelities[options["fidelity"]]["evaluator"])
        return _shared(told, table.task["name"], table.task["images"]["train"])


def _shared(config: EvaluatorConfig, task: str, images: int) -> int:
    if config.kind not in SHARING:
        return 0
    epochs = _options(config)["shared_epochs"] or config.epochs
    return (epochs or get_preset(config.preset, task).epochs) * images


def rewards_hold(config: EvaluatorConfig) -> bool:
    """Whether rewards of this evaluator rank policies where a search ends: those of copies of a
    shared child do not, nor of a table's fidelities but the one from scratch."""
    if config.kind == "table":
        return _options(config)["fidelity"] == TESTED
    return config.kind not in SHARING


def _options(config: EvaluatorConfig) -> dict[str, Any]:
    """What the evaluator is called with, its defaults filled in."""
    declared = {each.name: each.default for each in keywords_of(maker(config.kind))}
    return declared | config.options


def tabulated_passes(table: str, fidelity: str) -> int:
    """Image passes of an evaluation of a table: the median of its rows that trained."""
    frame = load_table(table).frame
    rows = frame[(frame["fidelity"] == fidelity) & ~frame["diverged"]]
    if rows.empty:
        check_choice("fidelity", fidelity, tuple(frame["fidelity"].unique()))
        raise InputError(
            "table", "must have evaluations that trained", f"{table}, {fidelity}", "collect more"
        )
    return round(rows["image_passes"].median())
