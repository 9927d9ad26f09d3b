"""An augmentation that follows the child: strong where it finds an image easy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policies import (
    CIFAR10,
    IMAGENET,
    InputError,
    SampleAware,
    Schedule,
    ScheduleTransform,
    TrivialAugmentWide,
    decode_augmentation,
    encode_augmentation,
    get_convention,
)
from proxy_tasks import EvaluatorConfig, get_preset, make_evaluator
from proxy_tasks.trainer import Trainer
from proxy_tasks.training import Arena
from search.studies.arms import parse_arm
from tests.proxy_tasks.trees import striped_task


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def batch(count=60):
    return np.random.default_rng(0).integers(0, 256, (count, 3, 16, 16), np.uint8)


def test_not_told_it_is_trivialaugment():
    aware, trivial = (kind(generator=seeded()) for kind in (SampleAware, TrivialAugmentWide))
    assert (aware(batch()) == trivial(batch())).all()
    assert aware != trivial  # not of one kind, though


@pytest.mark.parametrize("ease", [0.0, 0.5, 0.999])
def test_told_it_has_the_magnitude_of_the_ease(ease):
    told = SampleAware(generator=seeded()).aware_of(np.full(60, ease)).explained(batch())[1]
    drawn = TrivialAugmentWide(generator=seeded()).explained(batch())[1]
    parameter = get_convention("trivialaugment").parameter
    for ((name, value),), ((same, uniform),) in zip(told, drawn, strict=True):
        assert name == same
        nothing = parameter(name, 0, False, 16, 16)
        signs = (False, True) if uniform == nothing else (uniform < nothing,)  # as it was drawn
        assert value in [parameter(name, int(31 * ease), sign, 16, 16) for sign in signs]


def test_ease_is_of_the_images_in_turn():
    ease = np.linspace(0, 0.99, 60)
    whole = SampleAware(generator=seeded()).aware_of(ease)(batch())
    parts = SampleAware(generator=seeded()).aware_of(ease)
    assert (np.concatenate([parts(batch()[:25]), parts(batch()[25:])]) == whole).all()
    with pytest.raises(InputError, match="as many as their ease was told of"):
        parts(batch()[:1])
    assert len(parts.aware_of(ease)(batch())) == 60  # told anew, it begins anew
    some = np.array([7, 3, 7, 50])
    of_some = SampleAware(generator=seeded()).aware_of(ease).of(some)(batch()[some])
    expected = SampleAware(generator=seeded()).aware_of(ease[some])(batch()[some])
    assert (of_some == expected).all()


def test_it_is_an_arm_and_data():
    [made] = parse_arm("sample-aware").members
    assert made == SampleAware() == decode_augmentation(encode_augmentation(SampleAware()))


def test_ease_is_the_rank_of_the_loss(monkeypatch):
    task = striped_task()
    arena = Arena(task.train, torch.device("cpu"), torch.float32)
    # Logit of the right class: the larger, the easier; of equals the earlier image comes first.
    right = np.linspace(-1, 1, len(task.train) // 3).repeat(3)
    logits = np.zeros((len(right), task.num_classes))
    logits[np.arange(len(right)), task.train.labels] = right
    monkeypatch.setattr(arena, "logits", lambda child, images: logits)
    assert arena.ease(torch.nn.Identity()) == pytest.approx(np.arange(len(right)) / len(right))


def test_a_child_is_told_before_every_epoch_but_the_first(monkeypatch):
    told = []
    inner = SampleAware.aware_of
    monkeypatch.setattr(
        SampleAware, "aware_of", lambda self, ease: told.append(ease) or inner(self, ease)
    )
    task = striped_task()
    evaluator = make_evaluator(EvaluatorConfig(epochs=4, precision="float32"), task)
    found = evaluator.evaluate(SampleAware(), 1)
    assert len(told) == 3 and all(sorted(e) == sorted(told[0]) for e in told)
    assert len({e.tobytes() for e in told}) > 1  # the child learns
    looked_at = 3 * len(task.train) + len(task.validation)
    assert found.image_passes == pytest.approx(4 * len(task.train) + looked_at / 3, abs=1)
    assert found.reward == evaluator.evaluate(SampleAware(), 1).reward
    copies = EvaluatorConfig(epochs=3, precision="float32", options={"recipe": {"copies": 2}})
    make_evaluator(copies, task).evaluate(SampleAware(), 1)
    assert len(told) == 3 + 3 + 2 + 2 and len(told[-1]) == len(task.train)
    assert len(set(told[-1])) == len(task.train) // 2  # of the samples: every image twice


@pytest.mark.parametrize("recipe", [{}, {"ema": 0.9}, {"copies": 2}])
def test_children_at_once_are_each_told_of_their_own(recipe):
    task = striped_task()
    config = EvaluatorConfig(epochs=3, precision="float32", options={"recipe": recipe})
    evaluator = make_evaluator(config, task)
    schedule = ScheduleTransform(Schedule([(0, IMAGENET), (1, CIFAR10)], 3))
    arms, seeds = [SampleAware(), None, schedule, SampleAware()], [1, 2, 4, 3]
    together = evaluator.evaluate_together(arms, seeds)
    for found, arm, seed in zip(together, arms, seeds, strict=True):
        alone = evaluator.evaluate(arm, seed)
        assert found.image_passes == alone.image_passes
        assert found.metrics["log_likelihood"] == pytest.approx(
            alone.metrics["log_likelihood"], abs=1e-3
        )


def test_a_training_epoch_by_epoch_tells_it_too(monkeypatch):
    task, asked = striped_task(train=40, held=24), []
    monkeypatch.setattr(Arena, "ease", lambda _, child: asked.append(child) or np.zeros(40))
    config = EvaluatorConfig(epochs=3, precision="float32", device="cpu")
    trainer = Trainer(config, task, get_preset("cpu", "folder"), SampleAware(), 0)
    while not trainer.finished:
        trainer.train_epoch()
    assert asked == [trainer._learner.network] * 2
    looked_at = 2 * 40 + (3 + 2) * 24  # validation images after every epoch, and in the end again
    assert trainer.judge().image_passes == pytest.approx(3 * 40 + looked_at / 3, abs=1)


def test_it_is_no_policy():
    with pytest.raises(InputError, match="follow a child's losses"):
        SampleAware().as_policy()
