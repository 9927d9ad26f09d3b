"""`augsearch train`: one child of the task, trained under a policy, with its weights."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from policies.files import read_json, write_atomically, write_json
from proxy_tasks import Evaluation, FromScratch

from .arms import parse_arm
from .config import Config
from .seeds import training_seed
from .study import open_run

RESULT_NAME, CHILD_NAME = "result.json", "child.pt"


def run_train(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Train, write child.pt (state_dict) and result.json into the folder `out`.

    Args:
        config: `Config.of("train", policy="imagenet")`; see `arms.FORMS` for the policy.

    Returns:
        The evaluation on the test part.

    Raises:
        InputError: a user's mistake; nothing is left behind.
    """
    settings = config.settings
    arm = parse_arm(settings.policy)
    augmentation = arm.augmentation(settings.seed, 0)
    with open_run(config, out, resume) as run:
        if (run.path / RESULT_NAME).exists():
            return Evaluation.from_json(read_json(run.path / RESULT_NAME)["evaluation"])
        evaluator = FromScratch(run.config.evaluator, run.task)
        seed = training_seed("train", settings.seed)
        child, evaluation = evaluator.train(augmentation, seed, "test")
        buffer = io.BytesIO()
        torch.save({name: value.cpu() for name, value in child.state_dict().items()}, buffer)
        write_atomically(run.path / CHILD_NAME, buffer.getvalue())
        write_json(
            run.path / RESULT_NAME,
            {
                "arm": arm.to_json(),
                "seed": seed,
                "manifest_hash": run.task.manifest_hash,
                "evaluation": evaluation.to_json(),
            },
        )
    return evaluation
