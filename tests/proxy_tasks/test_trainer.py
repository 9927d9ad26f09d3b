"""Training epoch by epoch: what every epoch draws, which weights are the best, what is told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import distributed
from torch.nn import functional

from policies import IMAGENET, InputError, PolicyTransform
from proxy_tasks import EvaluatorConfig, get_preset, make_child
from proxy_tasks import trainer as module
from proxy_tasks.learner import Learner
from proxy_tasks.processes import ALONE, Processes, processes
from proxy_tasks.recipe import Recipe
from proxy_tasks.trainer import Trainer
from proxy_tasks.training import Arena, Epoch
from tests.proxy_tasks.trees import striped_task

IMAGES, HELD, EPOCHS = 40, 24, 3


@pytest.fixture(scope="module")
def task():
    return striped_task(train=IMAGES, held=HELD)


def trainer(task, seed=0, processes=ALONE, **recipe):
    preset = dataclasses.replace(get_preset("cpu", "folder"), model="convnet")
    given = {"batch_size": 20, "lr": 0.05, "ema": 0.0, **recipe}
    config = EvaluatorConfig(epochs=EPOCHS, precision="float32", device="cpu")
    return Trainer(
        config, task, Recipe.of(given).applied(preset), PolicyTransform(IMAGENET), seed, processes
    )


class Beside(Processes):
    """One of several processes of which the others do as it does; none of them is there."""

    def _reduced(self, value, operation):
        return value * self.count if operation == "SUM" else value

    shared = []

    def share(self, tensors):
        self.shared.append(len([*tensors]))


@pytest.fixture
def drawn(task, monkeypatch):
    """drawn(seed, processes) -> [(order, augmentation, network)] of the epochs, as numbers."""
    images = torch.from_numpy(task.train.images.copy())
    seen = []

    def watched(self, learner, augment, config, epoch, rng, rank, count):
        augmented = augment(images).double().mul(torch.arange(images[0].numel()).view(1, 1, 16, 16))
        seen.append((rng.random(), augmented.sum().item(), torch.rand(()).item()))
        return Epoch(1.5, 0.0)

    monkeypatch.setattr(Arena, "train_epoch", watched)
    monkeypatch.setattr(module, "DistributedDataParallel", lambda network: network)

    def epochs(seed=0, processes=ALONE):
        seen.clear()
        made = trainer(task, seed, processes)
        while not made.finished:
            made.train_epoch()
        assert [row["loss"] for row in made.rows] == [1.5] * EPOCHS  # a mean, also over processes
        return list(zip(*seen, strict=True))

    return epochs


def test_every_epoch_and_seed_draws_anew(drawn):
    first = drawn()
    assert drawn() == first
    for one, other in zip(first, drawn(seed=1), strict=True):
        assert len({*one, *other}) == 2 * EPOCHS


def test_processes_share_the_order_and_nothing_else(drawn):
    """Else the images of a batch would be augmented alike in all of them."""
    Beside.shared.clear()
    here, there = (drawn(processes=Beside(rank, 2)) for rank in (0, 1))
    assert here[0] == there[0]
    # Statistics of batch norm, before every epoch but the first.
    assert len(Beside.shared) == 2 * (EPOCHS - 1) and min(Beside.shared) > 0
    for one, other in zip(here[1:], there[1:], strict=True):
        assert len({*one, *other}) == 2 * EPOCHS


def row(epoch, accuracy, log_likelihood, divergence=""):
    return {"epoch": epoch, "loss": 1.0, "accuracy": accuracy, "log_likelihood": log_likelihood,
            "divergence": divergence}  # fmt: skip


def test_the_best_epoch_has_the_highest_accuracy_then_likelihood(task):
    made = trainer(task)
    assert made.best_row is None
    made.rows = [
        row(1, 0.5, -1.5), row(2, 0.4, -0.5), row(3, 0.5, -1.0), row(4, 0.5, -1.0),
        row(5, 0.9, -0.1, "it is constant"),
    ]  # fmt: skip
    assert made.best_row["epoch"] == 3
    made.rows = made.rows[-1:]
    assert made.best_row is None


def test_the_best_weights_are_judged_and_the_whole_training_is_counted(task, monkeypatch):
    made = trainer(task)
    accuracies = iter([0.9, 0.1, 0.2])
    real = Trainer.validation_scores

    def scores(self, child, loss=0.0):
        found, why = real(self, child, loss)
        accuracy = next(accuracies, found.metrics["accuracy"])
        return dataclasses.replace(found, metrics={**found.metrics, "accuracy": accuracy}), why

    monkeypatch.setattr(Trainer, "validation_scores", scores)
    made.train_epoch()
    first = made.weights()
    while not made.finished:
        made.train_epoch()
    found = made.judge()
    assert found.details["best_epoch"] == 1
    # Training passes count whole, those of validation and test part a third: the former's after
    # every epoch, and once more for the best weights.
    assert found.image_passes == EPOCHS * IMAGES + round(EPOCHS * HELD / 3) + round(2 * HELD / 3)

    child = make_child("convnet", 1, 2, 0, torch.device("cpu"))
    expected = []
    for weights in (first, made.weights()):
        child.load_state_dict(weights)
        logits = torch.from_numpy(made.arena.logits(child, task.test.images))
        expected.append(-functional.cross_entropy(logits, torch.tensor(task.test.labels)).item())
    assert found.metrics["log_likelihood"] == pytest.approx(expected[0])
    assert abs(expected[0] - expected[1]) > 1e-3


def test_the_rate_of_a_row_is_that_of_the_epochs_first_step(task, monkeypatch):
    rates = []
    step = Learner.step

    def watched(self, batch, labels, rate, share=1.0):
        rates.append(rate)
        return step(self, batch, labels, rate, share)

    monkeypatch.setattr(Learner, "step", watched)
    made = trainer(task, schedule="cosine", warmup=0.0)
    while not made.finished:
        made.train_epoch()
    assert [each["lr"] for each in made.rows] == rates[:: len(rates) // EPOCHS]
    assert len(set(np.round(rates, 9))) == len(rates) == 2 * EPOCHS


def test_more_processes_than_there_are_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="must be at most the 1 GPUs that a process sees"):
        with processes():
            pass


def test_a_state_that_the_optimiser_refuses_is_of_another_training(task, monkeypatch):
    def other(self, state):
        raise ValueError("loaded state dict has a different number of parameter groups")

    made = trainer(task)
    state = made.state_dict()
    monkeypatch.setattr(Learner, "load_state_dict", other)
    with pytest.raises(InputError, match="checkpoint: must be of this training.*ValueError"):
        made.load_state_dict(state)
