"""One step of training, and an epoch's plan, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from policies.errors import InputError
from proxy_tasks.learner import Learner
from proxy_tasks.mixing import make_loss
from proxy_tasks.presets import Preset
from proxy_tasks.samplers import batches_of, plan_epoch
from proxy_tasks.training import Arena, LearningRate, TrainConfig
from tests.proxy_tasks.trees import striped_task

CPU = torch.device("cpu")
SEEN: list[tuple[torch.Tensor, torch.Tensor]] = []


def preset(**recipe) -> Preset:
    return Preset("test", "convnet", 3, 32, 0.1, 1e-2, "cosine", **recipe)


def remembering_loss(logits, targets):
    """An own loss; keeps what it was given."""
    SEEN.append((logits, targets))
    return nn.functional.cross_entropy(logits, targets)


class Weighted(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__(weight=torch.tensor([1.0, 5.0, 1.0]))


class Spy(nn.Module):
    """A linear network that keeps the batches it is given."""

    def __init__(self, side: int = 8, classes: int = 3):
        super().__init__()
        self.layer, self.batches = nn.Linear(side * side, classes), []

    def forward(self, x):
        self.batches.append(x.detach().clone())
        return self.layer(x.flatten(1))


@pytest.fixture(autouse=True)
def own_state():
    SEEN.clear()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def learner(network: nn.Module, **recipe) -> Learner:
    return Learner(network, preset(**recipe), 3, CPU, torch.float32)


def batch(count: int = 6, side: int = 8):
    return torch.randn(count, 1, side, side), torch.arange(count) % 3


class TestStep:
    def test_sgd_with_nesterov_momentum_and_weight_decay(self):
        network = Spy()
        weight = network.layer.weight.detach().clone().double()
        taught, velocity = learner(network), torch.zeros_like(weight)
        for number, rate in enumerate((0.3, 0.2, 0.1)):
            images, labels = batch()
            # Softmax regression by hand: gradient (p - onehot)ᵀ x / N, in double precision.
            x = images.flatten(1).double()
            bias = network.layer.bias.detach().double()
            p = torch.softmax(x @ weight.T + bias, 1)
            gradient = (p - nn.functional.one_hot(labels, 3)).T @ x / len(x) + 1e-2 * weight
            velocity = gradient.clone() if number == 0 else 0.9 * velocity + gradient
            weight = weight - rate * (gradient + 0.9 * velocity)
            taught.step(images, labels, rate)
            assert torch.allclose(network.layer.weight.double(), weight, atol=1e-5)

    def test_average_of_weights_and_of_batch_norms_statistics(self):
        network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
        taught, decay = learner(network, ema=0.8), 0.8
        expected = None
        for _ in range(5):
            taught.step(*batch(), 0.5)
            now = {k: v.double().clone() for k, v in network.state_dict().items()}
            expected = expected or now
            expected = {k: decay * expected[k] + (1 - decay) * now[k] for k in now}
        found = taught.evaluated.state_dict()
        for name in ("1.running_mean", "1.running_var", "2.weight", "2.bias"):
            assert torch.allclose(found[name].double(), expected[name], atol=1e-6), name
            assert not torch.allclose(found[name].double(), now[name], atol=1e-4), name
        assert learner(network).evaluated is network

    def test_own_loss_gets_float32_whatever_the_network_computes_in(self):
        """By operations that autocast leaves in bfloat16, 1 - sigmoid(7) would be 0."""
        own = "tests.proxy_tasks.test_learner:remembering_loss"
        taught = Learner(Spy(), preset(loss=own), 3, CPU, torch.bfloat16)
        taught.step(*batch(), 0.1)
        logits, _ = _seen()[0]
        assert logits.dtype == torch.float32

    def test_own_loss_is_put_where_the_network_is(self):
        moved = make_loss("tests.proxy_tasks.test_learner:Weighted", device=torch.device("meta"))
        assert moved.weight.device.type == "meta"

    def test_own_loss_gets_labels_or_shares(self):
        own = "tests.proxy_tasks.test_learner:remembering_loss"
        images, labels = batch()
        learner(Spy(), loss=own).step(images, labels, 0.1)
        learner(Spy(), loss=own, mixup=1.0).step(images.clone(), labels, 0.1)
        seen = _seen()
        assert torch.equal(seen[0][1], labels)
        assert seen[1][1].shape == (6, 3) and torch.allclose(seen[1][1].sum(1), torch.ones(6))

    def test_erasing_comes_before_mixing(self):
        # Images of ones: erased first, a mixed pixel is one of 0, s, 1 - s, 1; mixed first, it
        # would be 0 or 1.
        network = Spy(32)
        taught = learner(network, erase=1.0, mixup=1.0)
        taught.step(torch.ones(6, 1, 32, 32), torch.arange(6) % 3, 0.0)
        values = network.batches[0].unique()
        assert len(values) == 4 and torch.allclose(values[1] + values[2], torch.tensor(1.0))

    def test_a_share_scales_the_gradient_and_not_the_loss(self):
        images, labels = batch()
        whole, half = Spy(), Spy()
        half.load_state_dict(whole.state_dict())
        before = whole.layer.weight.detach().clone()
        losses = [
            learner(network, momentum=0.0).step(images, labels, rate, share)
            for network, rate, share in ((whole, 0.1, 1.0), (half, 0.2, 0.5))
        ]
        assert losses[0] == losses[1]
        # Without the decay (1e-2 x rate) both moved equally.
        moves = [n.layer.weight - before * (1 - 1e-2 * r) for n, r in ((whole, 0.1), (half, 0.2))]
        assert torch.allclose(*moves, atol=1e-6)

    def test_state_goes_on_exactly(self, tmp_path):
        def steps(taught, count):
            for number in range(count):
                torch.manual_seed(number)
                taught.step(*batch(), 0.1)

        recipe = {"ema": 0.5, "optimizer": "adamw"}
        one, other = learner(Spy(), **recipe), learner(Spy(), **recipe)
        steps(one, 2)
        torch.save(one.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        steps(one, 3), steps(other, 3)
        for ours, theirs in zip(_tensors(one), _tensors(other), strict=True):
            assert torch.equal(ours, theirs)

    def test_optimisers_by_name_and_import_path(self):
        assert isinstance(learner(Spy(), optimizer="adamw").optimizer, torch.optim.AdamW)
        options = {"alpha": 0.5}
        own = learner(Spy(), optimizer="torch.optim:RMSprop", optimizer_options=options)
        assert type(own.optimizer) is torch.optim.RMSprop and own.optimizer.defaults["alpha"] == 0.5
        assert own.optimizer.defaults["weight_decay"] == 1e-2

    @pytest.mark.parametrize(
        ("recipe", "words"),
        [
            ({"optimizer": "adam"}, "did you mean 'adamw'"),
            ({"optimizer": "torch.optim:Adamm"}, "did you mean 'Adam'"),
            ({"optimizer": "torch.nn:Linear"}, "optimizer"),
            ({"optimizer_options": {"betas": (0.9, 0.99)}}, "unexpected keyword argument 'betas'"),
            ({"optimizer": "adamw", "optimizer_options": {"eps": -1}}, "Invalid epsilon"),
            ({"optimizer_options": {"foreach": True}}, "foreach"),
            ({"optimizer_options": {"lr": 0.01}}, "say it as lr"),
        ],
    )
    def test_mistakes(self, recipe, words):
        with pytest.raises(InputError, match=words):
            learner(Spy(), **recipe)


def _seen():
    # The import path may name another instance of this module than pytest has loaded.
    import importlib

    return importlib.import_module("tests.proxy_tasks.test_learner").SEEN or SEEN


def _tensors(taught: Learner):
    state = taught.state_dict()
    return [*state["network"].values(), *state["average"].values()]


class TestPlan:
    @given(
        count=st.integers(8, 60), batch_size=st.integers(8, 20), copies=st.integers(1, 3),
        world=st.integers(1, 4), seed=st.integers(0, 5),
    )  # fmt: skip
    def test_processes_together_see_the_batches_of_one(
        self, count, batch_size, copies, world, seed
    ):
        def plan(rank, of):
            rng = np.random.default_rng(seed)
            return plan_epoch(count, batch_size, copies, 2, True, rng, rank, of)

        whole, parts = plan(0, 1), [plan(rank, world) for rank in range(world)]
        assert whole.shares == [1.0] * len(whole.batches)
        for number, rows in enumerate(whole.batches):
            size = rows.stop - rows.start
            assert 0 < size <= batch_size
            expected = np.stack([whole.order, *whole.jitter])[:, rows]
            found = np.empty_like(expected)
            for rank, part in enumerate(parts):
                own = np.stack([part.order, *part.jitter])[:, part.batches[number]]
                found[:, rank::world] = own
                # A mean over the whole is the mean over processes of share x own mean.
                assert part.shares[number] / world == pytest.approx(own.shape[1] / size)
            assert np.array_equal(found, expected)
        assert whole.batches[-1].stop == count

    def test_too_many_processes_for_a_batch(self):
        rng = np.random.default_rng(0)
        with pytest.raises(InputError, match="an image for each of the 3 processes"):
            plan_epoch(10, 2, 1, 0, True, rng, 0, 3)

    @pytest.mark.parametrize(
        ("count", "size", "sizes"),
        [(5, 2, [3, 2]), (1, 2, [1]), (3, 1, [1, 1, 1]), (9, 4, [3, 3, 3]), (4, 2, [2, 2])],
    )
    def test_no_batch_has_a_single_image_unless_that_is_asked_for(self, count, size, sizes):
        plan = plan_epoch(count, size, 1, 0, True, np.random.default_rng(0))
        assert [part.stop - part.start for part in plan.batches] == sizes
        assert batches_of(count, size) == len(sizes)


def test_copies_of_an_image_are_augmented_each_for_itself():
    task = striped_task(train=60)
    config = TrainConfig(preset(copies=3), LearningRate("cosine", 3, 0.1), True, 2)
    arena, given_images = Arena(task.train, CPU, torch.float32), []

    def augment(images):
        given_images.append(images.clone())
        return images

    from proxy_tasks.models import make_child

    child = make_child("convnet", 1, 2, 0, CPU)
    arena.train_child(child, augment, config, 0)
    for images in given_images:
        assert len(images) == 60, "one call an epoch, every copy is an image of its own"
        rows, counts = np.unique(images.flatten(1).numpy(), axis=0, return_counts=True)
        assert len(rows) == 20 and (counts == 3).all()


class TestLearningRate:
    def test_step_falls_to_a_tenth_at_one_half_and_three_quarters(self):
        s = LearningRate("step", 10, 0.4)
        assert [s.rate(t) for t in (0.0, 0.49, 0.5, 0.74, 0.75, 0.99)] == pytest.approx(
            [0.4, 0.4, 0.04, 0.04, 0.004, 0.004]
        )

    @pytest.mark.parametrize("kind", ["cosine", "one-cycle", "step"])
    def test_warm_up_is_a_line_and_the_rest_follows_it(self, kind):
        plain, warm = LearningRate(kind, 10, 0.1), LearningRate(kind, 10, 0.1, warmup=0.2)
        rates = [warm.rate(t / 100) for t in range(20)]
        assert np.allclose(np.diff(rates, 2), 0, atol=1e-9) and 0 < rates[0] < 0.001
        for t in (0.0, 0.3, 0.6, 0.9):
            assert warm.rate(0.2 + 0.8 * t) == pytest.approx(plain.rate(t), abs=1e-6)
