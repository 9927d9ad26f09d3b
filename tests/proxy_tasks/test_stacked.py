"""Children at once equal the same children alone, and do not touch each other."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from policies import InputError, Policy, RandAugment, UniformAugment
from proxy_tasks import EvaluatorConfig, make_evaluator
from proxy_tasks.learner import Learner
from proxy_tasks.models import ConvNet, WideResNet, make_child
from proxy_tasks.presets import Preset
from proxy_tasks.stacked import each, keeps_apart, side_by_side, stack, unstack
from proxy_tasks.training import Arena, LearningRate, TrainConfig
from tests.proxy_tasks.trees import striped_task

CPU = torch.device("cpu")
POLICY = Policy([[("Rotate", 0.5, 3), ("Brightness", 0.7, 6)], [("Cutout", 1.0, 8)]])


def small_wide(num_classes, channels):
    return WideResNet(channels, num_classes, depth=10, width=1)


def biased(num_classes, channels):
    """Groups, biases, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(1), nn.Linear(32, 16), nn.ReLU(),
        nn.Linear(16, num_classes, bias=False),
    )  # fmt: skip


def narrow(num_classes, channels):
    return ConvNet(channels, num_classes, (4, 4, 8, 8))


def preset(**changes):
    return Preset("test", "convnet", 2, 32, 0.05, 5e-4, "cosine", pad=2, **changes)


# Recipes, and by how much four steps in float64 may differ. Rounding is 1e-16, which AdamW enlarges
# where gradients are tiny, and the logistic loss is float32; any mixing of children, or a wrong
# scale, shows in the first digits.
RECIPES = [
    ({"optimizer": "sgd", "smoothing": 0.1}, 1e-9),
    ({"optimizer": "adamw", "ema": 0.9}, 1e-6),
    ({"optimizer": "sgd", "loss": "binary-cross-entropy", "threshold": 0.2}, 1e-4),
]


@pytest.mark.parametrize("model", [narrow, small_wide, biased])
@pytest.mark.parametrize("recipe, tolerance", RECIPES)
def test_steps_of_a_stack_are_those_of_its_children(model, recipe, tolerance):
    count, classes = 3, 5
    children = [make_child(model, 3, classes, seed, CPU).double() for seed in range(count)]
    alone = copy.deepcopy(children)
    learners = [Learner(child, preset(**recipe), classes, CPU, torch.float32) for child in alone]
    together = Learner(stack(children), preset(**recipe), classes, CPU, torch.float32, None, count)
    generator = torch.Generator().manual_seed(0)
    for rate in (0.1, 0.2, 0.1, 0.05):
        batch = torch.randn(count, 6, 3, 12, 12, dtype=torch.float64, generator=generator)
        labels = torch.randint(0, classes, (6, count), generator=generator)
        losses = together.step(
            side_by_side(batch.transpose(0, 1).reshape(-1, 3, 12, 12), count), labels, rate
        )
        expected = [
            learner.step(batch[k], labels[:, k].contiguous(), rate)
            for k, learner in enumerate(learners)
        ]
        torch.testing.assert_close(losses, torch.stack(expected), rtol=0, atol=tolerance)
    unstack(together.evaluated, children)
    for child, learner in zip(children, learners, strict=True):
        expected = learner.evaluated.state_dict()
        assert child.state_dict().keys() == expected.keys()
        for name, value in child.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance)


# Nats an image. Rounding of float32 (bfloat16) grows by training. These children, which differ in
# seed and augmentation, lie further apart than that, as the test asks.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("kind", ["from-scratch", "weight-sharing"])
def test_evaluations_at_once_are_those_of_each_alone(kind, precision):
    options = {"shared_epochs": 2} if kind == "weight-sharing" else {}
    made = make_evaluator(
        EvaluatorConfig(kind, epochs=3, precision=precision, device="cpu", options=options),
        striped_task(),
    )
    if made.needs_preparation:
        made.prepare()
    augmentations, seeds = [POLICY, None, RandAugment(1, 5), UniformAugment()], [3, 4, 3, 5]
    together = made.evaluate_together(augmentations, seeds, "test")
    alone = [made.evaluate(a, s, "test") for a, s in zip(augmentations, seeds, strict=True)]
    tolerance = TOLERANCE[precision]
    for one, other in zip(together, alone, strict=True):
        for name in ("log_likelihood", "calibrated_log_likelihood"):
            assert one.metrics[name] == pytest.approx(other.metrics[name], abs=tolerance)
        validation = one.details["validation"]["log_likelihood"]
        assert validation == pytest.approx(
            other.details["validation"]["log_likelihood"], abs=tolerance
        )
        assert (one.image_passes, one.part) == (other.image_passes, "test")
        assert one.details["epochs"] == 3 and not one.diverged
    found = [each.metrics["log_likelihood"] for each in alone]
    assert max(found) - min(found) > 2 * tolerance, found


def test_one_that_diverges_is_reported_alone():
    task = striped_task()
    arena = Arena(task.train, CPU, torch.float32)
    config = TrainConfig(preset(), LearningRate("cosine", 2, 0.05), True, 2)

    def children():
        made = [make_child("convnet", 1, 2, seed, CPU) for seed in range(3)]
        made[1].classifier.bias.data.fill_(math.inf)
        return made

    together, alone = children(), children()
    started = time.perf_counter()
    trained = arena.train_children(together, [None] * 3, config, [0, 1, 2])
    most = time.perf_counter() - started
    assert (
        0 < sum(each.augment_seconds for each in trained) < sum(e.seconds for e in trained) < most
    )
    expected = [arena.train_child(c, None, config, seed) for seed, c in enumerate(alone)]
    assert [each.epochs for each in trained] == [2, 1, 2] == [each.epochs for each in expected]
    assert [each.image_passes for each in trained] == [192, 96, 192]
    assert [math.isfinite(each.loss) for each in trained] == [True, False, True]
    for k in (0, 2):
        assert trained[k].loss == pytest.approx(expected[k].loss, abs=1e-4)
        logits = [arena.logits(c, task.validation.images) for c in (together[k], alone[k])]
        assert np.abs(logits[0] - logits[1]).max() < 1e-3


def test_all_that_diverge_end_it(monkeypatch):
    epochs, inner = [], Arena.train_epochs
    monkeypatch.setattr(
        Arena, "train_epochs", lambda *given: epochs.append(given[4]) or inner(*given)
    )
    task = striped_task()
    arena = Arena(task.train, CPU, torch.float32)
    config = TrainConfig(preset(), LearningRate("cosine", 5, 1e12), True, 2)
    children = [make_child("convnet", 1, 2, seed, CPU) for seed in range(2)]
    trained = arena.train_children(children, [None, None], config, [0, 1])
    assert max(each.epochs for each in trained) == len(epochs) < 5


def with_dropout(num_classes, channels):
    return nn.Sequential(narrow(num_classes, channels), nn.Dropout(0.5))


def with_group_norm(num_classes, channels):
    return nn.Sequential(nn.GroupNorm(1, channels), narrow(num_classes, channels))


class Brightest(nn.Module):
    """A layer without weights that does not keep channels apart."""

    def forward(self, x):
        return x - x.amax(1, keepdim=True)


def mixing_at_once(num_classes, channels):
    """In front of all weights: of equal images its stack would look like each child alone."""
    return nn.Sequential(Brightest(), narrow(num_classes, channels))


def brightest_shares(logits, targets):
    """No loss that torch.vmap takes: it asks for the value of a tensor."""
    return nn.functional.cross_entropy(logits, targets) * (1 + float(logits.max() > 9))


def mixing(num_classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 4, 1), Brightest(), narrow(num_classes, 4))


class Four(nn.Module):
    def forward(self, x):
        return x.reshape(len(x), 4)


def of_a_fixed_size(num_classes, channels):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 1), nn.AdaptiveAvgPool2d(1), Four(), nn.Linear(4, num_classes)
    )


def without_linear(num_classes, channels):
    """Its stack would have logits [N, count * classes]."""
    return nn.Sequential(
        nn.Conv2d(channels, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
    )


@pytest.mark.parametrize("options, said", [
    ({"recipe": {"cutmix": 1.0}}, "children_per_gpu: needs a recipe without cutmix"),
    ({"recipe": {"optimizer": "torch.optim:Adam"}}, "treats every weight by itself"),
    ({"model": with_dropout}, "side by side.*logits differ"),
    ({"model": with_group_norm}, "side by side.*is a GroupNorm"),
    ({"model": mixing}, "side by side.*logits differ"),
    ({"model": mixing_at_once}, "side by side.*logits differ"),
    ({"recipe": {"loss": "tests.proxy_tasks.test_stacked:brightest_shares"}},
     "needs a loss that torch.vmap takes"),
    ({"model": of_a_fixed_size}, "side by side.*shape"),
    ({"model": without_linear}, r"side by side.*together they give \[\d+, 4\], not"),
    ({"model": narrow}, "children_per_gpu: needs a GPU"),
])  # fmt: skip
def test_what_cannot_be_trained_at_once_is_refused(options, said):
    made = make_evaluator(EvaluatorConfig(options=options, device="cpu"), striped_task())
    with pytest.raises(InputError, match=said):
        made.check_together()


def test_looking_whether_children_keep_apart_leaves_them_alone():
    children = [make_child(narrow, 3, 5, seed, CPU) for seed in range(2)]
    before = [copy.deepcopy(child.state_dict()) for child in children]
    assert keeps_apart(children, torch.randn(4, 3, 16, 16)) == ""
    for child, state in zip(children, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in child.state_dict().items())


def test_logits_that_are_no_numbers_are_not_taken_for_equal():
    children = [make_child(narrow, 3, 5, seed, CPU) for seed in range(2)]
    children[0].classifier.bias.data.fill_(math.nan)
    assert "differ by nan" in keeps_apart(children, torch.randn(4, 3, 16, 16))


def test_losses_of_a_stack_are_those_of_each():
    logits, targets = torch.randn(6, 2, 5), torch.randint(5, (6, 2))
    losses = each(nn.functional.cross_entropy)(logits, targets)
    alone = [nn.functional.cross_entropy(logits[:, k], targets[:, k]) for k in range(2)]
    torch.testing.assert_close(losses, torch.stack(alone))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kernels", ["plain", "graphs"])
def test_on_a_gpu_too(kernels):
    config = EvaluatorConfig(epochs=3, device="cuda", precision="float32", kernels=kernels)
    made = make_evaluator(config, striped_task())
    made.check_together()
    augmentations, seeds = [POLICY, None, RandAugment(1, 5)], [3, 4, 5]
    together = made.evaluate_together(augmentations, seeds)
    for one, augmentation, seed in zip(together, augmentations, seeds, strict=True):
        alone = made.evaluate(augmentation, seed)
        # TF32 products have three digits.
        assert one.metrics["log_likelihood"] == pytest.approx(
            alone.metrics["log_likelihood"], abs=0.02
        )
