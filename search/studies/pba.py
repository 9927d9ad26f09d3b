"""Population Based Augmentation (arXiv 1905.05393): a schedule of policies, by Ray Tune's PBT.

A population of children is trained side by side. Every `interval` epochs the worst quarter goes on
from a copy of one of the best quarter (weights and all), with its policy explored a little. The
history of the best child at the end is the schedule: which policy in which epochs.

As in the paper: 15 operations (without SamplePairing), each twice, with 11 probabilities and 10
magnitudes; all of them 0 at the start; exploring draws a value anew with probability 0.2 and
otherwise moves it 0 to 3 steps up or down. Different from the paper: there, an image gets up to
two of the 30 operations, in random order; here the 30 are paired into the 15 sub-policies of a
`Policy`, of which an image draws one, so that a schedule is made of ordinary policies. The partner
of an operation is drawn once from the seed.

Tune decides who copies whom partly by the order in which results arrive: with the same seed a run
is similar, not equal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policies import PAPER_OPS, Policy, PolicyTransform
from policies.options import to_json
from policies.policy_files import load_schedule, save_schedule
from policies.schedule import Schedule
from proxy_tasks.data import ProxyTask
from proxy_tasks.evaluators.children import Children
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.presets import get_preset
from proxy_tasks.training import (
    own_randomness,
    seeded_augment,
    threads,
)
from search.engine.cluster import connect, disconnect
from search.engine.resources import PoolConfig
from search.errors import WorkerError
from search.spaces import PolicySpace

from .config import Config
from .seeds import training_seed
from .settings import PBASettings
from .study import OpenRun, open_run

OPS = PAPER_OPS[:15]
SPACE = PolicySpace(num_subpolicies=len(OPS), num_operations=2, ops=OPS)
QUANTILE = 0.25
# The reward of a diverged child: Tune compares numbers, and any child that trained is better.
DIVERGED = -1e30
RESAMPLE = 0.2
SCHEDULE_NAME = "schedule.json"

# A member's choice: per operation (30 of them) the index of its probability and its magnitude.
Levels = list[int]


def start_levels() -> Levels:
    """No augmentation: every probability and magnitude 0."""
    return [0] * (4 * len(OPS))


def levels_to_policy(levels: Sequence[int], seed: int) -> Policy:
    """The policy of 2 x 30 levels (probability, magnitude of each operation, twice over)."""
    partners = np.random.default_rng([seed, 5]).permutation(len(OPS)).tolist()
    decisions: list[int] = []
    for first, second in enumerate(partners):
        for copy, operation in enumerate((first, second)):
            place = 2 * (copy * len(OPS) + operation)
            decisions += (operation, levels[place], levels[place + 1])
    return SPACE.decode(decisions)


def explore(levels: Sequence[int], rng: np.random.Generator) -> Levels:
    """The paper's algorithm 1 for all levels."""
    explored = []
    for place, level in enumerate(levels):
        choices = SPACE.bins if place % 2 else SPACE.probability_bins
        if rng.random() < RESAMPLE:
            explored.append(int(rng.integers(choices)))
        else:
            step = int(rng.integers(4)) * (1 if rng.random() < 0.5 else -1)
            explored.append(min(choices - 1, max(0, level + step)))
    return explored


class Member(Children):
    """One child, trained a few epochs at a time under a policy that may change in between."""

    def __init__(self, config: EvaluatorConfig, task: ProxyTask, seed: int) -> None:
        super().__init__(config, task)
        self.seed = seed
        self.epochs = config.epochs or self.preset.epochs
        self.training = self.scratch_config(self.epochs)
        self.learner = self.arena.learner(self.new_child(seed), self.training)
        self.epoch, self.loss = 0, 0.0

    def train(self, policy: Policy, epochs: int) -> None:
        """Train until `epochs` more, or all, are done; a diverged child is left as it is."""
        with threads(self.config.threads):
            for epoch in range(self.epoch, min(self.epochs, self.epoch + epochs)):
                # Seeded by the epoch, so that a member goes on from a checkpoint as if never left.
                rng = np.random.default_rng([self.seed, 1, epoch])
                augment = seeded_augment(PolicyTransform(policy), int(rng.integers(2**31)))
                with own_randomness(self.seed + epoch, self.arena.device):
                    self.loss = self.arena.train_epoch(
                        self.learner, augment, self.training, epoch, rng
                    ).loss
                self.epoch = epoch + 1

    def reward(self) -> float:
        """The configured reward on the validation part, or `DIVERGED`."""
        with threads(self.config.threads):
            scores, reason = self.validation_scores(self.learner.evaluated, self.loss)
        return DIVERGED if reason else scores.metrics[self.config.reward]

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "epoch": self.epoch,
            "loss": self.loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.epoch, self.loss = state["epoch"], state["loss"]


def _trainable() -> type:
    """The Tune class. Made in a function, so that Ray is imported when it is needed."""
    from ray import tune

    class PBAChild(tune.Trainable):
        def setup(
            self,
            config: dict[str, Any],
            task: ProxyTask,
            evaluator: EvaluatorConfig,
            interval: int,
            seed: int,
        ) -> None:
            self.interval, self.run_seed = interval, seed
            self.member = Member(evaluator, task, training_seed("pba", seed, config["member"]))
            self.history: list[list[Any]] = []

        def step(self) -> dict[str, Any]:
            levels = list(self.config["levels"])
            if not self.history or self.history[-1][1] != levels:
                self.history.append([self.member.epoch, levels])
            self.member.train(levels_to_policy(levels, self.run_seed), self.interval)
            return {
                "reward": self.member.reward(),
                "epochs": self.member.epoch,
                "history": json.dumps(self.history),
                "done": self.member.epoch >= self.member.epochs,
            }

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            torch.save(
                {"member": self.member.state_dict(), "history": self.history},
                os.path.join(checkpoint_dir, "member.pt"),
            )

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            path = os.path.join(checkpoint_dir, "member.pt")
            state = torch.load(path, weights_only=True)
            self.member.load_state_dict(state["member"])
            self.history = state["history"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            # A reused actor is given another member: weights follow by load_checkpoint.
            # `with_parameters` hands `setup` its other arguments.
            self.setup(new_config)
            return True

    return PBAChild


def run_pba(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> Schedule:
    """Search a schedule and write `out`/schedule.json (and Tune's own files to `out`/tune).

    Args:
        config: `Config.of("pba", population=16)`.
        out: folder to begin, or with `resume` to go on with; what Tune had not saved (at most the
            last ten seconds or so) is trained again.

    Raises:
        InputError: a user's mistake. WorkerError: when no child survives.
    """
    with open_run(config, Path(out).absolute(), resume) as run:
        if (run.path / SCHEDULE_NAME).exists():
            return load_schedule(run.path / SCHEDULE_NAME)
        return _search_schedule(run)


def _search_schedule(run: OpenRun) -> Schedule:
    settings, evaluator, pool = run.config.settings, run.config.evaluator, run.config.pool
    epochs = evaluator.epochs or get_preset(evaluator.preset, run.task.name).epochs
    mine = connect(pool)
    try:
        results = _tune(run.task, run.path, settings, evaluator, pool, epochs)
    finally:
        if mine:
            disconnect()
    finished = [r for r in results if r.metrics and r.metrics.get("epochs") == epochs]
    if len(finished) < settings.population:
        failed = next((r.error for r in results if r.error is not None), None)
        raise WorkerError(
            f"{len(finished)} of {settings.population} children were trained to the end: "
            f"{failed or 'interrupted; resume to go on'}"
        )
    if all(r.metrics["reward"] == DIVERGED for r in finished):
        raise WorkerError("all children diverged: no schedule can be told from another")
    # The earliest member of those with the best last reward.
    best = max(finished, key=lambda r: (r.metrics["reward"], -r.config["member"]))
    schedule = Schedule(
        [
            (first, levels_to_policy(levels, settings.seed))
            for first, levels in json.loads(best.metrics["history"])
        ],
        epochs,
    )
    about = {
        "pba": to_json(settings),
        "evaluator": to_json(evaluator),
        "manifest_hash": run.task.manifest_hash,
        "task": run.task.name,
        "reward": best.metrics["reward"],
        "cost": {"image_passes": settings.population * epochs * len(run.task.train)},
    }
    save_schedule(run.path / SCHEDULE_NAME, schedule, about)
    return schedule


def _tune(
    task: ProxyTask,
    out: Path,
    config: PBASettings,
    evaluator: EvaluatorConfig,
    pool: PoolConfig,
    epochs: int,
) -> Any:
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    rng = np.random.default_rng([config.seed, 6])

    def explored(values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "levels": explore(values["levels"], rng)}

    # The arrays travel once per node, through Ray's object store.
    trainable = tune.with_resources(
        tune.with_parameters(
            _trainable(),
            task=task,
            evaluator=evaluator,
            interval=config.interval,
            seed=config.seed,
        ),
        {"cpu": pool.cpus, "gpu": pool.gpus},
    )
    if (out / "tune").exists():
        return tune.Tuner.restore(
            str(out / "tune"), trainable=trainable, resume_unfinished=True
        ).fit()
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        quantile_fraction=QUANTILE,
        custom_explore_fn=explored,
        log_config=False,
        # Not in step: a member that fails for good would leave the others waiting for ever.
        synch=False,
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"member": tune.grid_search(list(range(config.population))),
                     "levels": start_levels()},
        tune_config=tune.TuneConfig(
            metric="reward", mode="max", scheduler=scheduler, reuse_actors=True,
            max_concurrent_trials=pool.workers,
            trial_dirname_creator=lambda trial: f"member_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(out), verbose=0,
            failure_config=tune.FailureConfig(max_failures=pool.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
        ),
    )  # fmt: skip
    return tuner.fit()
