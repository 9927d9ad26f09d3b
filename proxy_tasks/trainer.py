"""Training one child epoch by epoch, so that it can be left after any of them and gone on with.

    trainer = Trainer(EvaluatorConfig(), task, preset, policy, seed=0)
    while not trainer.finished:
        print(trainer.train_epoch())
        kept = trainer.state_dict()

What an epoch draws (order, crops, augmentation, mixing, dropout) follows from seed, epoch and
process alone. So a trainer that has loaded the state of another goes on as that one would have,
with the same floats.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from policies.augmentations import Augmentation, as_transform
from policies.errors import InputError
from policies.schedule import augmentation_for_epoch

from .data import ProxyTask
from .evaluators.children import Children
from .evaluators.config import EvaluatorConfig
from .evaluators.evaluation import Evaluation
from .learner import Learner
from .models import own_randomness, threads
from .presets import Preset
from .processes import ALONE, Processes
from .training import EVALUATED_PASS, Trained, seeded_augment, trained_passes

# What is drawn from (seed, stream, epoch[, process]).
ORDER, AUGMENTATION, NETWORK = 1, 2, 3


class Trainer(Children):
    """One child of a task in training under an augmentation.

    Args:
        config: preset, device, precision, threads, kernels and epochs; the rest is not read.
        preset: the recipe, in place of the one that `config` names.
        seed: decides weights and every draw.
        processes: those that train together; the network is then the same in each.

    Attributes:
        rows: one dict per epoch done, see `train_epoch`.
        best: weights after the best epoch so far, by name; empty before the first (and in
            processes other than 0).

    Raises:
        InputError: a model, loss or optimiser that cannot be used.
    """

    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask,
        preset: Preset,
        augmentation: Augmentation,
        seed: int,
        processes: Processes = ALONE,
    ) -> None:
        if config.kernels == "graphs":
            raise InputError(
                "kernels", "must be plain or fused for a training that can be gone on with",
                "graphs", "leave it out",
            )  # fmt: skip
        super().__init__(config, task)
        self.preset, self.seed, self.processes = preset, seed, processes
        self.epochs = config.epochs or preset.epochs
        self._augment = as_transform(augmentation)
        self._training = self.scratch_config(self.epochs)
        self._check_model()
        with threads(config.threads):
            self._learner = self._make_learner()
        self._check_loss(self._learner)
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    def _make_learner(self) -> Learner:
        child = self.new_child(self.seed)
        if self.processes.count == 1:
            return self.arena.learner(child, self._training)
        if self.config.kernels != "plain":
            raise InputError(
                "kernels", "must be plain where several processes train together",
                self.config.kernels, "leave it out",
            )  # fmt: skip
        device = self.arena.device
        return Learner(
            child, self.preset, self.task.num_classes, device, self.arena.precision,
            DistributedDataParallel(child),
        )  # fmt: skip

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the training loss was NaN or infinite."""
        return len(self.rows) == self.epochs or (bool(self.rows) and self.rows[-1]["loss"] is None)

    @property
    def best_row(self) -> dict[str, Any] | None:
        """The best epoch: highest accuracy, then log-likelihood, on the validation part, the
        earlier of equals. None while all have diverged."""
        sound = [row for row in self.rows if not row["divergence"]]
        return max(sound, key=_merit) if sound else None

    def train_epoch(self) -> dict[str, Any]:
        """Train for one epoch and judge the network on the validation part.

        Returns:
            `epoch` (1 is the first), `lr` at its first step, mean training `loss` in nats an image
            (None: NaN or infinite), `accuracy` and `log_likelihood` on the validation part,
            `divergence` (why the child counts as diverged, "": it does not), and the `seconds` and
            `augmentation_seconds` that it took. The judgement is that of process 0; in others its
            entries are None.
        """
        started, epoch, mine = time.perf_counter(), len(self.rows), self.processes
        rng = np.random.default_rng([self.seed, ORDER, epoch])
        drawn = seeded_augment(self._augment, self._number(AUGMENTATION, epoch))
        augment = augmentation_for_epoch(drawn, epoch, self.epochs)
        with (
            threads(self.config.threads),
            own_randomness(self._number(NETWORK, epoch), self.arena.device),
        ):
            if epoch:
                # What a sample-aware transform asks must know of the same statistics everywhere,
                # as a training that goes on from a checkpoint does.
                mine.share(self._learner.network.buffers())
                [augment] = self.arena.told([augment], [self._learner.network])
            trained = self.arena.train_epoch(
                self._learner, augment, self._training, epoch, rng, mine.rank, mine.count
            )
        loss = mine.total(trained.loss) / mine.count
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "lr": self._training.schedule.rate(epoch / self.epochs),
            "loss": loss if math.isfinite(loss) else None,
            "accuracy": None,
            "log_likelihood": None,
            "divergence": "",
        }
        if mine.rank == 0:
            with threads(self.config.threads):
                scores, row["divergence"] = self.validation_scores(self._learner.evaluated, loss)
            row["accuracy"] = scores.metrics["accuracy"]
            row["log_likelihood"] = scores.metrics["log_likelihood"]
        row["seconds"] = time.perf_counter() - started
        row["augmentation_seconds"] = trained.augment_seconds
        self.rows.append(row)
        if mine.rank == 0 and self.best_row is row:
            self.best = self.weights()
        return row

    def _number(self, stream: int, epoch: int) -> int:
        """A seed of 32 bits (of which torch's CPU generator takes no more)."""
        words = [self.seed, stream, epoch, self.processes.rank]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def weights(self) -> dict[str, Tensor]:
        """Copies of the weights as they are judged (the average where there is one), on the CPU."""
        state = self._learner.evaluated.state_dict()
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in state.items()
        }

    def judge(self) -> Evaluation:
        """The best weights on the test part; those of a child that never trained count as chance.

        `seconds` and `image_passes` are those of the whole training.
        """
        started = time.perf_counter()
        child: nn.Module = self.new_child(self.seed)
        best = self.best_row
        details: dict[str, Any] = {"best_epoch": None if best is None else best["epoch"]}
        if best is not None:
            child.load_state_dict(self.best)
        seconds = sum(row["seconds"] for row in self.rows)
        passes = trained_passes(len(self.rows), len(self.arena.labels), self._augment)
        passes += round(len(self.rows) * len(self.task.validation) * EVALUATED_PASS)
        about = Trained(
            len(self.rows), passes, math.nan if best is None else best["loss"],
            sum(row["augmentation_seconds"] for row in self.rows), seconds,
        )  # fmt: skip
        with threads(self.config.threads):
            evaluation = self.result(child, about, "test", started - seconds, details)
        if best is None:
            why = {"divergence": self.rows[-1]["divergence"]}
            evaluation = replace(evaluation, details={**evaluation.details, **why})
        return evaluation

    # The state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that going on needs: tensors, numbers and text, for torch.load(weights_only=True)."""
        return {
            "processes": self.processes.count,
            "learner": self._learner.state_dict(),
            "rows": self.rows,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave for the same arguments.

        Raises InputError when the state is of another training or number of processes.
        """
        try:
            if state["processes"] != self.processes.count:
                raise InputError(
                    "processes", "must be as many as the training was begun with, "
                    f"{state['processes']}", self.processes.count,
                    f"start {state['processes']}: the batches are divided among them",
                )  # fmt: skip
            self._learner.load_state_dict(state["learner"])
            self.rows, self.best = list(state["rows"]), dict(state["best"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                "checkpoint", "must be of this training", f"{type(error).__name__}: {error}",
                "restore it from a copy, or start a new run",
            ) from error  # fmt: skip


def _merit(row: dict[str, Any]) -> tuple[float, float]:
    return row["accuracy"], row["log_likelihood"]
