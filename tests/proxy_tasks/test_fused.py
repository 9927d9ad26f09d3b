"""The fused child against torch's own layers, in float64 where that is the truth."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from policies import CIFAR10, PolicyTransform
from proxy_tasks import fused_kernels as kernels
from proxy_tasks import winograd
from proxy_tasks.fused import _array, _tensor, fused
from proxy_tasks.models import ConvNet, make_child, threads
from proxy_tasks.presets import CPU as PRESET
from proxy_tasks.training import Arena, LearningRate, TrainConfig
from tests.proxy_tasks.trees import striped_task

CPU = torch.device("cpu")
BF16 = torch.bfloat16
# Rounding of one stored result; sums are of float32 or float64.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, BF16: 2**-8}
HELD = {torch.float64: np.float64, torch.float32: np.float32, BF16: np.uint16}
PARAMETERS = {torch.float64: torch.float64, torch.float32: torch.float32, BF16: torch.float32}
TYPES = pytest.mark.parametrize("dtype", HELD, ids=lambda d: str(d).removeprefix("torch."))


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def close(found: np.ndarray | torch.Tensor, true: torch.Tensor, dtype: torch.dtype) -> bool:
    """Within the type's tolerance of the largest true value."""
    found = found if isinstance(found, torch.Tensor) else torch.from_numpy(found)
    error = (found.double() - true.double()).abs().max()
    return bool(error <= 4 * TOLERANCE[dtype] * true.abs().max())


def layers(x, scale, shift, running, pool, average):
    """The plain modules, in float64."""
    x = F.max_pool2d(x, 2) if pool else x
    y = F.relu(F.batch_norm(x, *running, scale, shift, True, 0.1, 1e-5))
    return y.mean((2, 3), keepdim=True) if average else y


CASES = [
    # channels, height, width, pool, average
    (16, 5, 4, False, False),
    (32, 6, 6, True, False),
    (48, 7, 5, True, False),  # odd sides: the last row and column are not looked at
    (16, 4, 4, False, True),
    (32, 3, 3, False, True),
]


class TestNormalisation:
    def run(self, x, dtype, pool, average, gradient=None):
        """forward and backward of the kernels; `x` is rounded to `dtype` already."""
        held, own = HELD[dtype], PARAMETERS[dtype]
        n, c, h, w = x.shape
        scale = torch.linspace(0.5, 2, c, dtype=own).numpy()
        shift = torch.linspace(-1, 1, c, dtype=own).numpy()
        mean, variance = np.zeros(c, scale.dtype), np.ones(c, scale.dtype)
        given = _array(x)
        pooled = np.empty((n, h // 2, w // 2, c), held) if pool else given
        index = np.empty(pooled.shape if pool else (0, 0, 0, 0), np.uint8)
        y = np.empty((n, 1, 1, c), scale.dtype) if average else np.empty_like(pooled)
        saved = np.empty((3, c), scale.dtype)
        kernels.forward(
            given, pool, average, scale, shift, mean, variance, 0.1, 1e-5, pooled, index, y, saved
        )
        if gradient is None:
            return _tensor(y), mean, variance
        back, grads = np.empty_like(given), np.empty((2, c), scale.dtype)
        grad = _array(gradient.to(own if average else dtype))
        kernels.backward(grad, pooled, pool, average, scale, shift, saved, index, back, grads)
        return _tensor(y), mean, variance, _tensor(back), grads

    @TYPES
    @pytest.mark.parametrize(("channels", "h", "w", "pool", "average"), CASES)
    @pytest.mark.long
    def test_equals_the_plain_layers(self, dtype, channels, h, w, pool, average):
        # Far from 0, as maps before a batch norm may be; sd 1 about a mean of 3.
        x = (drawn(6, channels, h, w) + 3).to(dtype)
        true = x.double().clone().requires_grad_()
        scale = torch.linspace(0.5, 2, channels, dtype=torch.float64).requires_grad_()
        shift = torch.linspace(-1, 1, channels, dtype=torch.float64).requires_grad_()
        running = [torch.zeros(channels, dtype=torch.float64), torch.ones(channels).double()]
        expected = layers(true, scale, shift, running, pool, average)
        gradient = drawn(*expected.shape, seed=1).to(dtype)
        expected.backward(gradient.double())
        y, mean, variance, back, grads = self.run(x, dtype, pool, average, gradient)
        assert close(y, expected, dtype)
        # What rounding may flip: a value within a rounding of 0 at the ReLU; none in these draws.
        assert close(back, true.grad, dtype)
        own = torch.float32 if dtype is BF16 else dtype
        for found, wanted in zip(
            (mean, variance, *grads), (*running, scale.grad, shift.grad), strict=True
        ):
            assert close(found, wanted, own)

    @pytest.mark.long
    @TYPES
    def test_a_large_mean_costs_few_digits(self, dtype):
        # sums of squares about 0 would lose all of them: 1000² / 1² is 2**20.
        x = drawn(16, 16, 8, 8)
        x = (x + 1000 if dtype is not BF16 else x * 2 + 200).to(dtype)
        y, _, variance = self.run(x, dtype, False, False)
        true = x.double()
        expected = 0.9 + 0.1 * true.transpose(0, 1).flatten(1).var(1)
        assert np.allclose(variance, expected, rtol=1e-12 if dtype is torch.float64 else 1e-5)

    @TYPES
    @pytest.mark.parametrize("place", range(4))
    def test_a_nan_gets_through_pooling(self, dtype, place):
        x = drawn(2, 16, 4, 4)
        x[1, 5, 2 + place // 2, 2 + place % 2] = torch.nan
        y, mean, _ = self.run(x.to(dtype), dtype, True, False)
        assert y[:, 5].isnan().all() and np.isnan(mean[5])
        assert not y[:, :5].isnan().any() and np.isfinite(np.delete(mean, 5)).all()

    @pytest.mark.long
    @TYPES
    def test_of_equal_maxima_the_first_has_the_gradient(self, dtype):
        x = drawn(3, 16, 2, 2, dtype=dtype).contiguous(memory_format=torch.channels_last)
        x[0] = 3.0
        back = self.run(x, dtype, True, False, drawn(3, 16, 1, 1, dtype=dtype, seed=2) + 1)[3]
        assert not back[0, :, [0, 1, 1], [1, 0, 1]].any()


class TestStem:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize(("channels", "h", "w", "stride"), [
        (1, 28, 28, 2), (3, 9, 7, 2), (3, 5, 6, 1), (4, 1, 1, 2), (2, 2, 3, 2),
    ])  # fmt: skip
    @pytest.mark.parametrize("outputs", [16, 48])
    @pytest.mark.long
    def test_equals_a_convolution(self, dtype, channels, h, w, stride, outputs):
        x, weight = drawn(3, channels, h, w), drawn(outputs, channels, 3, 3, seed=1)
        weight.requires_grad_()
        expected = F.conv2d(x, weight, None, stride, 1)
        gradient = drawn(*expected.shape, seed=2)
        expected.backward(gradient)
        given = _array(x.to(dtype))
        by_position = weight.detach().permute(2, 3, 1, 0).to(dtype).contiguous().numpy()
        out = np.empty((3, *expected.shape[2:], outputs), given.dtype)
        kernels.convolve_stem(given, stride, by_position, out)
        assert close(_tensor(out), expected.detach(), dtype)
        back = np.zeros(by_position.shape)
        kernels.stem_weight_gradient(given, stride, _array(gradient.to(dtype)), back)
        assert close(back, weight.grad.permute(2, 3, 1, 0), dtype)


@pytest.mark.long
@TYPES
def test_windows_are_those_of_unfold(dtype):
    x = drawn(2, 16, 3, 5, dtype=dtype)
    rows = np.full((2 * 15, 9 * 16), 77, HELD[dtype])
    kernels.columns(_array(x), rows)
    expected = F.unfold(x.double(), 3, padding=1).view(2, 16, 9, 15).permute(0, 3, 2, 1)
    found = torch.from_numpy(rows)
    found = found.view(BF16) if dtype is BF16 else found
    assert torch.equal(found.double(), expected.reshape(30, -1))


class TestWinograd:
    SHAPES = [
        # images, height, width, channels, outputs: whole tiles, parts of tiles, less than one
        (3, 8, 8, 16, 32), (2, 7, 5, 32, 16), (5, 3, 3, 16, 48), (1, 1, 1, 16, 16),
        (2, 4, 9, 48, 16),
    ]  # fmt: skip

    @pytest.mark.long
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("at_once", [1, 2**12, 2**19])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_equals_a_convolution(self, dtype, at_once, shape, monkeypatch):
        monkeypatch.setattr(winograd, "_AT_ONCE", at_once)  # image by image, some, all
        n, h, w, channels, outputs = shape
        x = drawn(n, channels, h, w).to(dtype).double().requires_grad_()
        weight = drawn(outputs, channels, 3, 3, seed=1).to(dtype).double().requires_grad_()
        expected = F.conv2d(x, weight, None, 1, 1)
        gradient = drawn(*expected.shape, seed=2).to(dtype)
        expected.backward(gradient.double())
        given = _array(x.detach().to(dtype))
        factors = winograd.transformed(weight.detach().to(dtype))
        assert close(_tensor(winograd.convolve(given, factors)), expected.detach(), dtype)
        of_x, of_weight = winograd.gradients(_array(gradient), given, factors)
        assert close(_tensor(of_x), x.grad, dtype) and close(of_weight, weight.grad, dtype)

    def test_a_nan_reaches_what_a_convolution_lets_it_reach(self):
        x, weight = drawn(2, 16, 6, 6).float(), drawn(16, 16, 3, 3, seed=1).float()
        x[1, 3, 2, 4] = torch.nan
        lost = _tensor(winograd.convolve(_array(x), winograd.transformed(weight))).isnan()
        assert lost[F.conv2d(x, weight, None, 1, 1).isnan()].all() and not lost[0].any()


def children(count: int, channels: int = 3) -> list[nn.Module]:
    return [make_child("convnet", channels, 5, 0, CPU).train() for _ in range(count)]


class TestChild:
    @pytest.mark.long
    def test_gradients_are_derivatives(self):
        # Small, in float64; at 1e-6 no value of these draws crosses a ReLU's 0 or another maximum.
        child = ConvNet(1, 3, (16, 16, 16, 16)).double().train()
        nn.utils.convert_conv2d_weight_memory_format(child, torch.channels_last)
        x = drawn(4, 1, 16, 16)
        step, names = fused(child, torch.float32), [n for n, _ in child.named_parameters()]
        parameters = [p.detach().clone().requires_grad_() for p in child.parameters()]

        def logits(*given):
            for name, value in zip(names, given, strict=True):
                owner, _, last = name.rpartition(".")
                module = child.get_submodule(owner)
                module._parameters[last] = value
            return step(x)

        assert torch.autograd.gradcheck(logits, parameters, fast_mode=True)

    @pytest.mark.long
    @pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 41)])
    def test_float32_is_as_close_to_float64_as_the_plain_child(self, channels, side):
        plain, ours, truth = children(3, channels)
        truth.double()
        x, labels = drawn(20, channels, side, side), torch.arange(20) % 5
        self.step(plain, x.float(), labels)
        self.step(fused(ours, torch.float32), x.float(), labels)
        self.step(truth, x, labels)
        for a, b, t in zip(plain.parameters(), ours.parameters(), truth.parameters(), strict=True):
            ours_off = (b.grad.double() - t.grad).norm() / t.grad.norm()
            plain_off = (a.grad.double() - t.grad).norm() / t.grad.norm()
            assert ours_off <= 1.5 * plain_off + 1e-6 and ours_off < 1e-4
            assert b.grad.stride() == a.grad.stride()

    @pytest.mark.long
    def test_bfloat16_is_as_close_to_float64_as_the_plain_child(self):
        # Over many draws: of one, either may be the luckier by a factor.
        off = {"plain": [], "ours": []}
        for seed in range(5):
            x, labels = drawn(40, 3, 32, 32, seed=seed), torch.arange(40) % 5
            plain, ours, truth = children(3)
            truth.double()
            with torch.autocast("cpu", BF16):
                self.step(plain, x.float(), labels)
                self.step(fused(ours, BF16), x.float(), labels)
            self.step(truth, x, labels)
            wanted = torch.cat([p.grad.flatten() for p in truth.parameters()])
            for name, child in (("plain", plain), ("ours", ours)):
                found = torch.cat([p.grad.flatten() for p in child.parameters()]).double()
                off[name].append(float((found - wanted).norm() / wanted.norm()))
        assert np.mean(off["ours"]) < 1.1 * np.mean(off["plain"]) < 0.2

    @pytest.mark.long
    @pytest.mark.parametrize("precision", [torch.float32, BF16])
    def test_running_statistics_are_kept(self, precision):
        plain, ours = children(2)
        for layer in (*plain.features, *ours.features):
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum, layer.eps = 0.3, 0.5  # not the usual ones
        for seed in range(3):
            x, labels = drawn(12, 3, 32, 32, seed=seed).float(), torch.arange(12) % 5
            with torch.autocast("cpu", BF16, enabled=precision is BF16):
                self.step(plain, x, labels)
                self.step(fused(ours, precision), x, labels)
        for (name, a), b in zip(plain.named_buffers(), ours.buffers(), strict=True):
            if name.endswith("tracked"):
                assert a == b == 3
            else:
                assert torch.allclose(a, b, rtol=0.02 if precision is BF16 else 1e-4, atol=1e-2)

    def step(self, forward, x, labels):
        F.cross_entropy(forward(x), labels).backward()

    def test_evaluation_and_gradients_of_images_are_the_childs_own(self):
        (child,) = children(1)
        step, x = fused(child, torch.float32), drawn(4, 3, 16, 16).float()
        child.eval()
        assert torch.equal(step(x), child(x))
        child.train()
        images = x.clone().requires_grad_()
        step(images).sum().backward()
        assert images.grad.abs().sum() > 0

    def test_one_value_a_channel_is_refused_as_torch_refuses_it(self):
        (child,) = children(1)
        for forward in (child, fused(child, torch.float32)):
            with pytest.raises(ValueError, match="more than (1|one) value"):
                forward(torch.zeros(1, 3, 8, 8))

    def test_what_it_does_not_apply_to(self):
        class Own(ConvNet):
            """A child that may do anything."""

        assert fused(make_child("wrn-40-2", 3, 5, 0, CPU), torch.float32) is None
        assert fused(ConvNet(3, 5, (8, 16, 16, 16)), torch.float32) is None
        assert fused(Own(3, 5), torch.float32) is None
        assert fused(ConvNet(3, 5), torch.float16) is None
        with torch.device("meta"):
            assert fused(ConvNet(3, 5), torch.float32) is None


def trained(kernels: str, precision: torch.dtype, lr: float = 0.1, epochs: int = 6):
    task = striped_task()
    with threads(1):
        arena = Arena(task.train, CPU, precision, kernels)
        child = make_child("convnet", 1, 2, 0, CPU)
        config = TrainConfig(PRESET, LearningRate("cosine", epochs, lr), True, 2)
        policy = PolicyTransform(CIFAR10, generator=torch.Generator().manual_seed(0))
        how = arena.train_child(child, policy, config, 0)
        return how, arena.logits(child, task.validation.images), task.validation.labels


class TestTraining:
    @pytest.mark.long
    @pytest.mark.parametrize("precision", [torch.float32, BF16])
    def test_a_child_learns_as_the_plain_one_does(self, precision):
        accuracies = []
        for kernels_ in ("plain", "fused"):
            how, logits, labels = trained(kernels_, precision, epochs=20)
            accuracies.append((logits.argmax(1) == labels).mean())
        # 200 images: the standard error of a difference is at most 0.05.
        assert min(accuracies) > 0.78 and abs(accuracies[0] - accuracies[1]) < 0.2

    def test_divergence_shows(self):
        assert not np.isfinite(trained("fused", BF16, lr=1e12)[0].loss)

    @pytest.mark.long
    def test_same_arguments_give_the_same_floats_in_another_process(self):
        code = (
            "import hashlib, torch; from tests.proxy_tasks.test_fused import trained; "
            "[print(hashlib.sha256(trained('fused', p, epochs=2)[1].tobytes()).hexdigest()) "
            "for p in (torch.float32, torch.bfloat16)]"
        )
        there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        here = [
            hashlib.sha256(trained("fused", p, epochs=2)[1].tobytes()).hexdigest()
            for p in (torch.float32, BF16)
        ]
        assert there.stdout.split() == here, there.stderr
