"""`augsearch train`: one child of the task, trained under a policy, with its weights."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path

import torch

from policies.errors import InputError
from policies.files import write_atomically, write_json
from proxy_tasks import Evaluation, EvaluatorConfig, FromScratch
from search.runs.environment import environment

from .arms import parse_arm
from .study import TaskConfig


def train_child(
    policy: str, out: str, *, task: TaskConfig, evaluator: EvaluatorConfig, seed: int = 0
) -> Evaluation:
    """Train, write child.pt (state_dict) and result.json into the new folder `out`.

    policy: see `arms.FORMS`. Returns the evaluation on the test part. Raises InputError.
    """
    folder = Path(out)
    if folder.exists():
        raise InputError("out", "must be a new folder", out, "choose another name")
    arm = parse_arm(policy, [seed])
    drawn = task.build()
    child, evaluation = FromScratch(evaluator, drawn).train(arm.augmentations[0], seed, "test")
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in child.state_dict().items()}, buffer)
    write_atomically(folder / "child.pt", buffer.getvalue())
    write_json(
        folder / "result.json",
        {
            "arm": arm.to_json(),
            "seed": seed,
            "task": asdict(task),
            "manifest_hash": drawn.manifest_hash,
            "evaluator": asdict(evaluator),
            "evaluation": evaluation.to_json(),
            "environment": environment(),
        },
    )
    return evaluation
