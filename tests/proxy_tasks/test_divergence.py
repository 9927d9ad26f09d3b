"""Divergence: what counts as it, what never does, and who says so."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies import InputError, Policy
from proxy_tasks import EvaluatorConfig, ImageSet, make_evaluator
from proxy_tasks.evaluators.children import Children
from proxy_tasks.evaluators.evaluation import judge
from tests.proxy_tasks.trees import striped_images, striped_task

POLICY = Policy([[("Rotate", 0.5, 3)]])
IMAGES = np.random.default_rng(0).integers(0, 256, (200, 1, 8, 8), np.uint8)


def labels(classes: int, count: int = 200) -> np.ndarray:
    return np.random.default_rng(1).integers(0, classes, count)


def logits(classes: int, scale: float, count: int = 200) -> np.ndarray:
    return scale * np.random.default_rng(2).standard_normal((count, classes))


class TestJudge:
    @pytest.mark.long
    @given(
        classes=st.integers(2, 100),
        span=st.floats(0.01, 99),
        right=st.floats(0.5, 1),
        seed=st.integers(0, 99),
    )
    def test_a_child_that_learnt_something_is_safe(self, classes, span, right, seed):
        """Every wrong answer is given with all the span there is: no real child is as certain."""
        rng = np.random.default_rng(seed)
        truth = rng.permutation(np.arange(classes * 20) % classes)
        answers = np.where(rng.random(len(truth)) < right, truth, rng.permutation(truth))
        certain = span * np.eye(classes)[answers]
        assert judge(certain, IMAGES[np.arange(len(truth)) % 200], truth)[1] == ""

    @pytest.mark.parametrize("classes", [2, 10, 120])
    @pytest.mark.parametrize("span", [1, 10, 30, 60])
    def test_a_child_that_learnt_random_labels_is_safe(self, classes, span):
        """No better than guessing and sure of it, with all the span that children were seen with;
        trained ones were up to 7 nats below guessing."""
        z = logits(classes, 1.0)
        z *= span / np.ptp(z)
        assert judge(z, IMAGES, labels(classes))[1] == ""

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            (lambda z: np.where(np.arange(10) == 3, np.nan, z), "NaN or infinite"),
            (lambda z: np.where(np.arange(10) == 3, np.inf, z), "NaN or infinite"),
            (lambda z: z * 30, "nats below guessing"),
            (lambda z: z * 1e13, "nats below guessing"),
            (lambda z: z * 1e37, "nats below guessing"),
            (lambda z: z[:1].repeat(len(z), 0), "alike"),
            (lambda z: 0 * z, "alike"),
        ],
    )
    def test_what_diverged_children_answer(self, wrong, reason):
        assert reason in judge(wrong(logits(10, 1.0)), IMAGES, labels(10))[1]

    def test_equal_answers_to_equal_images_are_right(self):
        same = np.zeros_like(IMAGES)
        assert judge(np.zeros((200, 10)), same, labels(10))[1] == ""
        assert judge(np.zeros((1, 10)), IMAGES[:1], labels(10, 1))[1] == ""

    def test_naming_the_most_frequent_class_is_no_merit(self):
        """A long tail: 90 % right by one answer to everything, absurdly sure of it."""
        truth = np.where(np.arange(200) < 180, 0, 1)
        answer = np.tile([1000.0, 0.0], (200, 1)) + logits(2, 0.1)
        assert "nats below guessing" in judge(answer, IMAGES, truth)[1]


def sharing(**options):
    return EvaluatorConfig(
        "weight-sharing", options={"shared_epochs": 2, "finetune_epochs": 3, **options}
    )


class TestTrainedChildren:
    @pytest.mark.parametrize("lr", [3.0, 10.0, 30.0, 100.0, 1e4, 1e9])
    @pytest.mark.parametrize("part", ["validation", "test"])
    def test_a_rate_that_is_far_too_high_is_flagged(self, lr, part):
        """Finite or not: rewards of -30 to -1e16 are no rewards."""
        evaluator = make_evaluator(sharing(lr=lr), striped_task())
        evaluator.prepare()
        result = evaluator.evaluate(POLICY, 0, part)
        assert result.diverged and result.details["divergence"]
        assert result.metrics["log_likelihood"] == pytest.approx(-math.log(2))

    @pytest.mark.long
    @pytest.mark.parametrize("random_labels", [False, True])
    def test_overfitted_children_are_not(self, random_labels):
        """By heart: 16 images for 150 epochs, and labels that mean nothing."""
        task = striped_task()
        images, given_labels = task.train.images[:16], task.train.labels[:16]
        if random_labels:
            given_labels = np.random.default_rng(0).permutation(given_labels)
        task = dataclasses.replace(task, train=ImageSet(images, given_labels))
        result = make_evaluator(EvaluatorConfig(epochs=150), task).evaluate(None, 0)
        assert not result.diverged and "divergence" not in result.details

    @pytest.mark.long
    def test_the_test_part_does_not_decide(self):
        """Test images of other labels make a child wrong and certain of it, not diverged."""
        right = striped_images(200, 3)
        task = striped_task(test=ImageSet(right.images, 1 - right.labels))
        result = make_evaluator(EvaluatorConfig(epochs=150), task).evaluate(None, 0, "test")
        assert not result.diverged and result.metrics["accuracy"] < 0.3


class TestSharedChild:
    @pytest.mark.parametrize("kind", ["weight-sharing", "density-matching"])
    def test_one_that_diverges_is_refused_at_once(self, kind):
        config = EvaluatorConfig(kind, options={"shared_epochs": 2})
        evaluator = make_evaluator(config, striped_task())
        evaluator.preset = dataclasses.replace(evaluator.preset, lr=1e9)
        with pytest.raises(InputError, match="one that diverged"):
            evaluator.prepare()
        assert evaluator.needs_preparation

    def test_saved_weights_that_are_not_numbers_are_refused(self):
        saved = torch.load(
            io.BytesIO(make_evaluator(sharing(), striped_task()).prepare()), weights_only=True
        )
        saved["state"]["classifier.weight"].fill_(math.nan)
        stream = io.BytesIO()
        torch.save(saved, stream)
        with pytest.raises(InputError, match="one that diverged"):
            make_evaluator(sharing(), striped_task()).load(stream.getvalue())


def test_children_of_every_kind_ask_the_same_judge(monkeypatch):
    """One definition: from-scratch, weight sharing and the shared children all go through it."""
    asked = []
    original = Children.validation_scores

    def spy(self, child, loss=0.0):
        asked.append(type(self).__name__)
        return original(self, child, loss)

    monkeypatch.setattr(Children, "validation_scores", spy)
    for config in (
        EvaluatorConfig(epochs=1),
        sharing(),
        EvaluatorConfig("density-matching", options={"shared_epochs": 1}),
    ):
        evaluator = make_evaluator(config, striped_task())
        if evaluator.needs_preparation:
            evaluator.prepare()
        evaluator.evaluate(POLICY, 0)
    assert asked == ["FromScratch", "WeightSharing", "WeightSharing", "DensityMatching"]


@pytest.mark.parametrize("count, said", [
    (1, "device: must have the memory that one child needs"),
    (2, "children_per_gpu: must be no more than fit the GPU's memory, but got 2"),
])  # fmt: skip
def test_a_gpu_that_is_too_small_is_said_so(count, said, monkeypatch):
    evaluator = make_evaluator(EvaluatorConfig(epochs=1), striped_task())

    def full(*_):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(evaluator.arena, "train_children", full)
    with pytest.raises(InputError, match=said):
        evaluator.evaluate_together([POLICY] * count, range(count))
