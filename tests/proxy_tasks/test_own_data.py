"""Tasks of a user's own torch Datasets: given themselves, or made by a callable by import path."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from policies.errors import InputError
from proxy_tasks import get_task
from search.studies.config import Config
from search.studies.study import build_task

CALLS: list[str | None] = []


class Noise(Dataset):
    """Images of noise of 3 classes, all different."""

    def __init__(self, count: int, seed: int, side: tuple[int, int] = (20, 24), channels: int = 3):
        shape = (count, channels, *side)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        self.images = torch.from_numpy(pixels)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 3


class Named(Noise):
    classes = ("a", "b", "c")


class Others(Noise):
    classes = ("b", "a", "c")


def three():
    CALLS.append(None)
    return Noise(90, 0), Noise(30, 1), Noise(30, 2)


def one(data=None):
    CALLS.append(data)
    return Noise(90, 0)


def without_validation(data=None):
    return Noise(90, 0), None, Noise(30, 2)


def nothing():
    return ()


HERE = "tests.proxy_tasks.test_own_data"


def counts(task):
    return len(task.train), len(task.validation), len(task.test)


class TestFromDatasets:
    def test_the_images_are_the_data_sets_own(self):
        train, validation, test = three()
        task = get_task.from_datasets(train, validation, test, resolution=20)
        assert counts(task) == (90, 30, 30) and task.class_names == ("0", "1", "2")
        square = Noise(90, 0, (20, 20))
        exact = get_task.from_datasets(square, validation, test, resolution=20).train
        assert np.array_equal(exact.images, square.images.numpy())
        assert np.array_equal(exact.labels, np.arange(90) % 3)

    def test_parts_that_are_missing_are_cut_from_train(self):
        # A fifth each.
        assert counts(get_task.from_datasets(Noise(90, 0))) == (54, 18, 18)
        assert counts(get_task.from_datasets(Noise(90, 0), test=Noise(30, 2))) == (72, 18, 30)
        task = get_task.from_datasets(Noise(90, 0), train_images=30, test_images=9, seed=3)
        assert (len(task.train), len(task.test)) == (30, 9)
        assert task.manifest_hash != get_task.from_datasets(Noise(90, 0), seed=4).manifest_hash

    def test_grey_images_flip_and_names(self):
        grey = Noise(90, 0, channels=1)
        task = get_task.from_datasets(grey, class_names=("x", "y", "z"), flip=False)
        assert task.train.images.shape[1:] == (1, 32, 32)
        assert task.class_names == ("x", "y", "z") and not task.flip

    @pytest.mark.parametrize(
        ("parts", "options", "words"),
        [
            ((Named(9, 0), None, Others(9, 1)), {}, "test: must have the classes of train, a, b"),
            ((Noise(9, 0),), {"class_names": ("x", "y")}, r"labels must be in 0\.\.1"),
            ((Noise(9, 0),), {"resolution": 4}, "resolution"),
            ((iter([1]),), {}, "must be a map-style torch Dataset"),
            ((Noise(9, 0),), {"train_images": 0}, "train_images: must be at least 1"),
        ],
    )
    def test_mistakes(self, parts, options, words):
        with pytest.raises(InputError, match=words):
            get_task.from_datasets(*parts, **options)


class TestByImportPath:
    def test_callable_and_path_are_the_same_task(self):
        task = get_task(f"{HERE}:three")
        assert task.name == f"{HERE}:three" and counts(task) == (90, 30, 30)
        assert get_task(three).manifest_hash == task.manifest_hash
        direct = get_task.from_datasets(*three())
        assert np.array_equal(direct.train.images, task.train.images)
        assert counts(get_task(without_validation)) == (72, 18, 30)

    def test_data_is_handed_over_when_given(self):
        CALLS.clear()
        get_task(one), get_task(one, "some/place")
        assert CALLS == [None, "some/place"]

    def test_a_configuration_holds_the_path(self):
        config = Config.of("search", task=three, train_images=30)
        saved = Config.from_json(json.loads(json.dumps(config.to_json())))
        assert saved.task.name == f"{HERE}:three"
        assert len(build_task(saved.task, "cpu").train) == 30

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            (f"{HERE}:thre", "task: must name something in .* did you mean 'three'"),
            (f"{HERE}:nothing", r"task: must make a Dataset, or a tuple"),
            ("operator:add", "task: must take no argument, .*operator:add .missing"),
            ("no_such_module:data", "task: must name a module that Python finds"),
            ("foldr", "did you mean 'folder'"),
            (lambda: None, "task: must be defined at the top level of a module"),
        ],
    )
    def test_mistakes(self, name, words):
        with pytest.raises(InputError, match=words):
            get_task(name)


def test_the_function_is_still_one():
    assert "name" in inspect.signature(get_task).parameters
    assert get_task.__doc__.startswith("Draw a proxy task.") and get_task.__name__ == "get_task"
