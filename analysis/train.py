"""The report of `augsearch train`: one child, how it learnt and what it reached."""

from __future__ import annotations

from typing import Any

import pandas as pd

from policies import Policy, PolicyTransform, decode_augmentation
from policies.files import read_json
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.run_format import RESULT_NAME

from . import plots, sections, tables
from .document import Block, Gallery, Picture, Report, Section, Sentences, Table, Text, section
from .runs import Run, read_epochs


def train_report(run: Run) -> Report:
    """The report of one training, finished or not."""
    path = run.directory / RESULT_NAME
    if path.exists():
        result = read_json(path)
        found = section("", *_blocks(Evaluation.from_json(result["evaluation"])))
        augmentation = section("Augmentation", *_augmentation(result["arm"]))
    else:
        found = section("", Text("Unfinished: the child is not trained yet. --resume goes on."))
        augmentation = section("Augmentation", Text(f"{run.option('settings', 'policy')}"))
    return Report(
        title=f"A child trained on {run.task}",
        run=run,
        name="train.md",
        sections=(found, *_epochs(run), augmentation, *sections.closing(run)),
    )


def _epochs(run: Run) -> list[Section]:
    epochs = read_epochs(run)
    if epochs.empty:
        return []
    blocks: list[Block] = [
        Picture(
            "epochs",
            "training loss, validation accuracy and learning rate after every epoch",
            lambda path: plots.training_curve(epochs, path),
        )
    ]
    reasons = epochs[epochs["divergence"] != ""]
    if len(reasons):
        last = reasons.iloc[-1]
        blocks.append(
            Text(f"Diverged in {len(reasons)} epochs, last in {last.epoch}: {last.divergence}.")
        )
    return [section("Epochs", *blocks)]


def _blocks(evaluation: Evaluation) -> list[Block]:
    accuracy = evaluation.metrics["accuracy"]
    stderr = evaluation.details.get("stderrs", {}).get("accuracy")
    error = f" ± {100 * stderr:.2f} (standard error over the images)" if stderr else ""
    lines = [
        f"Test accuracy {100 * accuracy:.2f} %{error}. One child: another seed would differ; "
        "`augsearch compare` says by how much.",
    ]
    if evaluation.diverged:
        lines.append("The child diverged: these are the metrics of guessing.")
    parts = {"test": evaluation.metrics, "validation": evaluation.details.get("validation", {})}
    table = pd.DataFrame(
        {
            "part": list(parts),
            "accuracy (%)": [_metric(m, "accuracy", 100, 2) for m in parts.values()],
            "log likelihood": [_metric(m, "log_likelihood", 1, 4) for m in parts.values()],
            "calibrated": [_metric(m, "calibrated_log_likelihood", 1, 4) for m in parts.values()],
            "temperature": [_metric(m, "temperature", 1, 2) for m in parts.values()],
        }
    )
    cost = [
        ("time", tables.duration(evaluation.seconds)),
        ("image passes", f"{evaluation.image_passes:,}"),
        ("epochs", str(evaluation.details.get("epochs", ""))),
        ("best epoch, by the validation part", str(evaluation.details.get("best_epoch", "–"))),
    ]
    return [Sentences(tuple(lines)), Table(table), sections.facts(cost)]


def _metric(metrics: dict[str, float], name: str, factor: float, digits: int) -> str:
    return tables.number(factor * metrics[name], digits) if name in metrics else "–"


def _augmentation(arm: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = [Text(f"{arm['name']}")]
    for member in arm["members"]:
        augmentation = decode_augmentation(member)
        if isinstance(augmentation, Policy | PolicyTransform):
            blocks += sections.shown(augmentation)
        elif augmentation is not None:
            blocks.append(Gallery(augmentation))
    return blocks
