"""A recipe: options over a preset, and what evaluators of children make of them."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from policies.errors import InputError
from proxy_tasks import EvaluatorConfig, FromScratch, Preset, get_preset, make_evaluator
from proxy_tasks.learner import Learner
from proxy_tasks.recipe import Recipe
from tests.proxy_tasks.trees import striped_task

CPU = get_preset("cpu", "folder")
# One value of every option that no preset has.
CHANGED = {
    "batch_size": 17, "lr": 0.3, "schedule": "step", "warmup": 0.11, "final_lr": 0.01,
    "optimizer": "torch.optim:RMSprop", "optimizer_options": {"alpha": 0.5}, "weight_decay": 0.03,
    "momentum": 0.5, "loss": "binary-cross-entropy", "smoothing": 0.1, "threshold": 0.2,
    "mixup": 0.4, "cutmix": 0.6, "erase": 0.3, "copies": 2, "ema": 0.9, "pad": 1,
}  # fmt: skip


def test_every_option_is_a_field_of_the_preset_and_changes_it_alone():
    assert {field.name for field in dataclasses.fields(Recipe)} == CHANGED.keys()
    assert Recipe().applied(CPU) == CPU
    for name, value in CHANGED.items():
        changed = Recipe.of({name: value}).applied(CPU)
        assert changed == dataclasses.replace(CPU, **{name: value}) != CPU, name
    off = dataclasses.replace(CPU, cutmix=1.0, copies=3)
    assert Recipe(cutmix=0, copies=1).applied(off) == CPU, "0 is not the same as None"


@pytest.mark.parametrize("kind", ["from-scratch", "weight-sharing", "density-matching"])
def test_children_are_trained_by_the_recipe(kind, monkeypatch):
    """Every step has the loss, the optimiser and the mixing that the recipe names."""
    seen: list[Learner] = []
    step = Learner.step

    def watched(self, *arguments):
        seen.append(self)
        return step(self, *arguments)

    monkeypatch.setattr(Learner, "step", watched)
    options = {} if kind == "from-scratch" else {"shared_epochs": 1}
    recipe = {
        "optimizer": "adamw", "lr": 0.01, "cutmix": 1.0, "erase": 0.5, "ema": 0.9, "batch_size": 20,
    }  # fmt: skip
    config = EvaluatorConfig(kind, epochs=1, options={**options, "recipe": recipe})
    evaluator = make_evaluator(config, striped_task(train=60))
    if evaluator.needs_preparation:
        evaluator.prepare()
    evaluator.evaluate(None, 0)
    assert len(seen) == 3 * (2 if kind == "weight-sharing" else 1), "60 images in batches of 20"
    for learner in seen:
        assert type(learner.optimizer) is torch.optim.AdamW
        assert learner.mix is not None and learner.erase == 0.5 and learner.average is not None


@pytest.mark.parametrize("recipe, options, rates", [
    ({}, {}, (0.1, 0.0005)),
    ({"optimizer": "adamw", "lr": 0.002}, {}, (0.001, 5e-6)),
    ({"optimizer": "adamw", "lr": 0.002}, {"lr": 0.003, "final_lr": 0}, (0.003, 0)),
])  # fmt: skip
def test_copies_of_a_shared_child_are_trained_by_rates_of_the_recipe(recipe, options, rates):
    """The preset's own is 0.2; AdamW does not learn at 0.1."""
    config = EvaluatorConfig("weight-sharing", options={"recipe": recipe, **options})
    schedule = make_evaluator(config, striped_task()).finetune.schedule
    assert (schedule.peak, schedule.final) == pytest.approx(rates)


def outcome(recipe, train=60):
    config = EvaluatorConfig(epochs=2, options={"recipe": recipe} if recipe is not None else {})
    return make_evaluator(config, striped_task(train=train)).evaluate(None, 0).metrics


@pytest.mark.long
def test_an_empty_recipe_is_the_preset_and_a_piece_changes_the_child():
    assert outcome(None) == outcome({})
    for piece in ({"cutmix": 1.0}, {"mixup": 1.0}, {"erase": 0.9}, {"copies": 3}, {"ema": 0.5}):
        assert outcome(piece) != outcome({}) and outcome(piece) == outcome(piece), piece


def test_own_network_loss_and_optimiser():
    recipe = {
        "loss": "torch.nn.functional:cross_entropy",
        "optimizer": "torch.optim:Adagrad",
        "optimizer_options": {"eps": 1e-7},
    }
    config = EvaluatorConfig(epochs=1)
    task = striped_task()
    task.train.labels.flags.writeable = False  # as of a task's that is drawn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluator = FromScratch(
            config, task, model="tests.proxy_tasks.test_recipe:Linear", recipe=recipe
        )
    assert type(evaluator.new_child(0)).__name__ == "Linear"
    assert not evaluator.evaluate(None, 0).diverged


class Linear(nn.Module):
    def __init__(self, num_classes: int, channels: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
        self.layers(torch.zeros(1, channels, 16, 16))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"cutmx": 1.0}, "option of from-scratch: must be one of .*did you mean 'cutmix'"),
        ({"cutmix": -1}, "option cutmix of from-scratch: must be a number, at least 0"),
        ({"copies": 1.5}, "option copies of from-scratch: must be a whole number"),
        ({"optimizer": "adamw", "momentum": 0.9}, "momentum: is a setting of sgd only"),
        ([1], "recipe of from-scratch: must be an object|option recipe of from-scratch: must be"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_made(recipe, words):
    with pytest.raises(InputError, match=words):
        make_evaluator(EvaluatorConfig(options={"recipe": recipe}), None)


@pytest.mark.parametrize("recipe", [{"schedule": "step", "final_lr": 1e-4}])
def test_a_final_rate_that_a_schedule_does_not_have_is_refused(recipe):
    with pytest.raises(InputError, match="no setting of the schedule step"):
        Recipe(**recipe).applied(CPU)
    Recipe(final_lr=1e-4).applied(CPU)


def test_a_loss_that_cannot_be_made_is_told_before_training():
    for recipe in ({"loss": "torch.nn:NoSuch"}, {"loss": "torch.nn:MSELoss", "smoothing": 0.1}):
        with pytest.raises(InputError, match="loss|smoothing"):
            make_evaluator(EvaluatorConfig(options={"recipe": recipe}), striped_task())


def unreduced(logits, targets):
    return F.cross_entropy(logits, targets, reduction="none")


def of_labels(logits, targets):
    return -logits.log_softmax(1)[torch.arange(len(logits)), targets].mean()


class Greedy(Linear):
    def forward(self, x, y):
        return self.layers(x) + y


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": {"loss": f"{__name__}:unreduced"}}, "loss: must make one number of logits"),
        ({"recipe": {"loss": f"{__name__}:of_labels", "cutmix": 1.0}}, "loss: must make .* shares"),
        ({"model": f"{__name__}:Greedy"}, "model: must take images"),
    ],
)  # fmt: skip
def test_own_parts_that_cannot_work_are_told_before_training(options, words):
    with pytest.raises(InputError, match=words):
        make_evaluator(EvaluatorConfig(options=options), striped_task())


def test_a_loss_of_labels_works_where_nothing_is_mixed():
    make_evaluator(
        EvaluatorConfig(options={"recipe": {"loss": f"{__name__}:of_labels"}}), striped_task()
    )


def test_presets_stay_as_they_are():
    assert isinstance(CPU, Preset) and CPU.cutmix == CPU.mixup == CPU.erase == 0
