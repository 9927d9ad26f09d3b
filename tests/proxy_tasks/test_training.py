"""Children learn, diverge visibly, and leave no trace in global random state."""

from __future__ import annotations

import math
import weakref

import numpy as np
import pytest
import torch

from proxy_tasks import ImageSet
from proxy_tasks.models import MODELS, average, make_child, threads
from proxy_tasks.presets import PRESETS, Preset, get_preset
from proxy_tasks.training import Arena, LearningRate, TrainConfig, augment_all
from tests.proxy_tasks.trees import striped_task

CPU = torch.device("cpu")


def config(epochs=3, batch=32, lr=0.05, **recipe):
    preset = Preset("test", "convnet", epochs, batch, lr, 5e-4, "cosine", pad=2, **recipe)
    return TrainConfig(preset, LearningRate("cosine", epochs, lr), True, 2)


def train(task, augment=None, seed=0, precision=torch.float32, **options):
    with threads(1):
        arena = Arena(task.train, CPU, precision)
        child = make_child("convnet", 1, 2, seed, CPU)
        trained = arena.train_child(child, augment, config(**options), seed)
        return child, trained, arena.logits(child, task.validation.images)


class TestModels:
    @pytest.mark.parametrize("model", MODELS)
    @pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 64)])
    def test_shapes(self, model, channels, side):
        child = make_child(model, channels, 7, 0, CPU).eval()
        with torch.no_grad():
            assert child(torch.zeros(2, channels, side, side)).shape == (2, 7)

    def test_wide_resnet_has_the_published_size(self):
        # Wide-ResNet-40-2 has 2.2 M parameters (arXiv 1605.07146).
        child = make_child("wrn-40-2", 3, 10, 0, CPU)
        assert sum(p.numel() for p in child.parameters()) / 1e6 == pytest.approx(2.2, abs=0.05)
        convolutions = [m for m in child.modules() if isinstance(m, torch.nn.Conv2d)]
        assert sum(m.kernel_size == (3, 3) for m in convolutions) == 1 + 36

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("side", [1, 4, 7, 28])
    def test_average_pooling_has_the_floats_of_mean_and_keeps_the_layout(self, dtype, side):
        x = torch.randn(5, 48, side, side, generator=torch.Generator().manual_seed(0))
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        ours, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
        first, second = average(ours), plain.mean((2, 3))
        weights = torch.arange(first.numel()).reshape(first.shape).to(dtype)
        (first * weights).sum().backward()
        (second * weights).sum().backward()
        assert torch.equal(first, second) and torch.equal(ours.grad, plain.grad)
        # What the line is there for: the gradient that reaches the layers before it.
        (inner,) = torch.autograd.grad(average(x.requires_grad_()).sum(), x)
        assert inner.is_contiguous(memory_format=torch.channels_last)

    def test_weights_follow_the_seed_and_nothing_else(self):
        state = torch.get_rng_state()
        first = make_child("convnet", 3, 10, 5, CPU).state_dict()
        torch.manual_seed(123)
        second = make_child("convnet", 3, 10, 5, CPU).state_dict()
        other = make_child("convnet", 3, 10, 6, CPU).state_dict()
        torch.set_rng_state(state)
        assert all(torch.equal(first[k], second[k]) for k in first)
        assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


class TestSchedule:
    def test_cosine(self):
        s = LearningRate("cosine", 10, 0.1, 0.02)
        assert s.rate(0.0) == pytest.approx(0.1) and s.rate(1.0) == pytest.approx(0.02)
        assert s.rate(0.5) == pytest.approx(0.06)

    def test_one_cycle(self):
        s = LearningRate("one-cycle", 10, 0.1, warmup=0.25)
        rates = [s.rate(t / 100) for t in range(100)]
        assert rates[0] > 0 and max(rates) == pytest.approx(0.1) and np.argmax(rates) == 25
        assert rates == sorted(rates[:26]) + sorted(rates[26:], reverse=True)

    @pytest.mark.parametrize("name", PRESETS)
    def test_presets_give_rates(self, name):
        for task in ("reduced-imagenet", "reduced-cifar10", "folder"):
            p = get_preset(name, task)
            assert LearningRate(p.schedule, p.epochs, p.lr, warmup=p.warmup).rate(0.5) > 0


class TestTraining:
    def test_a_child_learns(self):
        # Guessing on 200 balanced images scatters by 0.035; 8 of these are 0.28.
        task = striped_task()
        _, trained, logits = train(task, epochs=20)
        accuracy = (logits.argmax(1) == task.validation.labels).mean()
        assert math.isfinite(trained.loss) and accuracy > 0.5 + 8 * math.sqrt(0.25 / 200)

    def test_wrong_labels_teach_nothing(self):
        # The counter-check of the test above: with random labels it must not pass.
        task = striped_task()
        labels = np.random.default_rng(0).permutation(task.train.labels)
        noise = ImageSet(task.train.images, labels)
        _, _, logits = train(striped_like(task, noise), epochs=20)
        accuracy = (logits.argmax(1) == task.validation.labels).mean()
        assert accuracy < 0.5 + 8 * math.sqrt(0.25 / 200)

    def test_same_seed_same_floats_and_other_seed_others(self):
        task = striped_task()
        first, again, other = (train(task, seed=s)[2] for s in (3, 3, 4))
        assert np.array_equal(first, again) and not np.array_equal(first, other)

    def test_global_random_state_is_untouched(self):
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
        train(striped_task(), epochs=1)
        assert torch.equal(torch_state, torch.get_rng_state())
        assert np.array_equal(numpy_state, np.random.get_state()[1])

    @pytest.mark.parametrize("count", [1, 2, 33, 65])
    def test_any_number_of_images(self, count):
        # 33 = one batch of 32 and one image: batches are made equal instead.
        task = striped_task(train=count)
        _, trained, logits = train(task, epochs=2)
        assert trained.image_passes == 2 * count and np.isfinite(logits).all()

    def test_every_image_is_seen_once_an_epoch_in_a_new_order(self, monkeypatch):
        from proxy_tasks import training

        original, seen = training.prepare_batch, []

        def spy(images, draws, *rest):
            seen.append(draws[0].numpy())
            return original(images, draws, *rest)

        monkeypatch.setattr(training, "prepare_batch", spy)
        train(striped_task(train=50, held=1), epochs=3, batch=32)
        # Two batches an epoch, then the one held-out image.
        assert [len(order) for order in seen] == [25] * 6 + [1]
        epochs = [np.concatenate(seen[i : i + 2]) for i in (0, 2, 4)]
        assert all(sorted(order) == list(range(50)) for order in epochs)
        assert not np.array_equal(epochs[0], epochs[1])

    def test_an_epoch_is_augmented_in_one_call(self):
        sizes = []
        train(striped_task(train=50), lambda images: sizes.append(len(images)) or images)
        assert sizes == [50] * 3

    def test_the_augmentation_is_what_the_child_sees(self):
        task = striped_task()
        _, _, plain = train(task, None)
        _, _, same = train(task, lambda images: images)
        _, _, inverted = train(task, lambda images: 255 - images)
        assert np.array_equal(plain, same) and not np.array_equal(plain, inverted)

    def test_divergence_is_reported(self):
        _, trained, _ = train(striped_task(), epochs=5, lr=1e12)
        assert not math.isfinite(trained.loss) and trained.epochs < 5
        assert trained.image_passes == trained.epochs * 96

    def test_bfloat16_learns_too(self):
        task = striped_task()
        _, _, logits = train(task, epochs=20, precision=torch.bfloat16)
        accuracy = (logits.argmax(1) == task.validation.labels).mean()
        assert accuracy > 0.5 + 8 * math.sqrt(0.25 / 200)

    def test_threads_are_put_back(self):
        before = torch.get_num_threads()
        with threads(before + 1):
            assert torch.get_num_threads() == before + 1
        assert torch.get_num_threads() == before

    def test_large_epochs_are_augmented_in_pieces(self, monkeypatch):
        monkeypatch.setattr("proxy_tasks.training.AUGMENT_BYTES", 16 * 16 * 10)
        images, sizes = torch.arange(25 * 256).to(torch.uint8).reshape(25, 1, 16, 16), []
        out = augment_all(images, lambda part: sizes.append(len(part)) or part + 1)
        assert sizes == [10, 10, 5] and torch.equal(out, images + 1)

    def test_pieces_are_not_kept_beside_the_whole(self, monkeypatch):
        monkeypatch.setattr("proxy_tasks.training.AUGMENT_BYTES", 16 * 16 * 10)
        pieces = []

        def augment(part):
            assert sum(piece() is not None for piece in pieces) <= 1
            made = part + 1
            pieces.append(weakref.ref(made))
            return made

        augment_all(torch.zeros(40, 1, 16, 16, dtype=torch.uint8), augment)
        assert len(pieces) == 4


def striped_like(task, train_set):
    import dataclasses

    return dataclasses.replace(task, train=train_set)
