"""Child models of users: trained as their authors initialise them, and refused in clear words."""

from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from policies import InputError, Policy
from proxy_tasks import EvaluatorConfig, make_evaluator
from proxy_tasks.models import MODELS, make_child
from tests.proxy_tasks.trees import striped_task

CPU = torch.device("cpu")
HERE = "tests.proxy_tasks.test_models"
PRETRAINED = torch.linspace(-1, 1, 8 * 9).reshape(8, 1, 3, 3)


class Own(nn.Module):
    """Everything that is not Conv2d, BatchNorm2d or Linear, and a convolution with its own say."""

    def __init__(self, num_classes: int, channels: int):
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        with torch.no_grad():
            self.stem.weight.copy_(PRETRAINED.expand(8, channels, 3, 3))
        self.group, self.layer = nn.GroupNorm(2, 8), nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.full((8,), 0.5))
        self.prompt = nn.Parameter(torch.randn(8))
        self.register_buffer("offset", torch.arange(8.0))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        x = self.group(self.stem(x)).amax((2, 3)) * self.scale + self.prompt + self.offset
        return self.head(self.dropout(self.layer(x)))


def too_few(num_classes: int, channels: int) -> nn.Module:
    return Own(num_classes - 1, channels)


def no_module(num_classes: int, channels: int) -> str:
    return "a module"


def no_channels(num_classes: int) -> nn.Module:
    return Own(num_classes, 1)


class TestOwnModel:
    @pytest.mark.parametrize("model", [Own, f"{HERE}:Own"])
    def test_is_left_as_its_author_initialised_it(self, model):
        child = make_child(model, 1, 7, 3, CPU)
        assert torch.equal(child.stem.weight, PRETRAINED)
        assert (child.group.weight == 1).all() and (child.layer.bias == 0).all()
        assert (child.scale == 0.5).all() and torch.equal(child.offset, torch.arange(8.0))
        torch.manual_seed(3)
        expected = Own(7, 1)
        state = child.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in expected.state_dict().items())

    def test_one_that_is_registered_is_too(self, monkeypatch):
        monkeypatch.setitem(MODELS, "own", Own)
        assert torch.equal(make_child("own", 1, 7, 0, CPU).stem.weight, PRETRAINED)

    def test_the_seed_decides_and_global_random_state_is_left_alone(self):
        torch.manual_seed(11)
        before = torch.get_rng_state()
        first, again, other = (make_child(Own, 1, 2, s, CPU).prompt for s in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("kind", ["from-scratch", "weight-sharing", "density-matching"])
    def test_is_trained_by_every_evaluator(self, kind):
        """Dropout draws too: the same seed gives the same floats, whatever was drawn before."""
        options = {"model": f"{HERE}:Own"}
        if kind != "from-scratch":
            options["shared_epochs"] = 1
        config = EvaluatorConfig(kind, epochs=2, options=options)
        results = []
        for noise in (0, 1):
            torch.manual_seed(noise)
            evaluator = make_evaluator(config, striped_task())
            if evaluator.needs_preparation:
                evaluator.prepare()
            results.append(evaluator.evaluate(Policy([[("Invert", 0.5, None)]]), 0).metrics)
        assert results[0] == results[1] and np.isfinite(results[0]["log_likelihood"])

    @pytest.mark.long
    def test_it_learns(self):
        config = EvaluatorConfig(epochs=20, options={"model": f"{HERE}:Own"})
        # Guessing on 200 images scatters by 0.035; 8 of these are 0.28.
        assert make_evaluator(config, striped_task(train=768)).evaluate(None, 0).reward > 0.78

    def test_another_model_is_another_shared_child(self):
        config = EvaluatorConfig("weight-sharing")
        own = dataclasses.replace(config, options={"model": f"{HERE}:Own"})
        names = {make_evaluator(c, striped_task())._facts() for c in (config, own)}
        assert len(names) == 2

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ("convnett", "did you mean 'convnet'"),
            ("resnet18", "torchvision:NAME, timm:NAME, package.module:name"),
            ("no.such.module:Net", "model: must name a module"),
            (f"{HERE}:Missing", "model: must name something in"),
            (f"{HERE}:PRETRAINED", "model: must name a class or a function"),
            (f"{HERE}:no_channels", "model: must take num_classes and channels"),
            (f"{HERE}:no_module", "model: must return a torch.nn.Module"),
            (f"{HERE}:too_few", r"model: must turn 2 images into logits \[2, 2\]"),
        ],
    )
    def test_mistakes_are_named_before_anything_is_trained(self, model, message):
        with pytest.raises(InputError, match=message):
            make_evaluator(EvaluatorConfig(options={"model": model}), striped_task())


class TestLibraries:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_torchvision_by_name_with_its_own_names_of_weights(self, channels):
        from torchvision.models import resnet18

        child = make_child("torchvision:resnet18", channels, 7, 0, CPU)
        assert child(torch.rand(2, channels, 32, 32)).shape == (2, 7)
        resnet18(num_classes=7).load_state_dict(child.state_dict())
        again = make_child("torchvision:resnet18", channels, 7, 0, CPU)
        assert torch.equal(child.fc.weight, again.fc.weight)

    def test_an_image_of_one_channel_is_one_of_three_equal_ones(self):
        child = make_child("torchvision:resnet18", 1, 7, 0, CPU).eval()
        colour = make_child("torchvision:resnet18", 3, 7, 0, CPU).eval()
        grey = torch.rand(2, 1, 32, 32)
        assert torch.equal(child(grey), colour(grey.expand(-1, 3, -1, -1)))

    def test_a_name_that_torchvision_lacks(self):
        with pytest.raises(InputError, match="did you mean 'torchvision:resnet18'"):
            make_child("torchvision:resnet81", 3, 7, 0, CPU)

    def test_timm_is_asked_for_when_it_is_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(InputError, match="needs timm.*pip install timm"):
            make_child("timm:resnet18", 3, 7, 0, CPU)

    def test_timm_makes_a_model_of_the_tasks_classes_and_channels(self, monkeypatch):
        timm = types.ModuleType("timm")
        timm.is_model = lambda name: name == "own"
        timm.create_model = lambda name, pretrained, num_classes, in_chans: Own(
            num_classes, in_chans
        )
        monkeypatch.setitem(sys.modules, "timm", timm)
        assert make_child("timm:own", 1, 7, 0, CPU)(torch.rand(2, 1, 8, 8)).shape == (2, 7)
        with pytest.raises(InputError, match="must be a model that timm has"):
            make_child("timm:other", 1, 7, 0, CPU)
