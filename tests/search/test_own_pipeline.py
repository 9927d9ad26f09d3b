"""A pipeline of a user's own: as a transform, as data, and as an arm of a comparison."""

from __future__ import annotations

import json
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from policies import InputError, OwnPipeline, decode_augmentation, encode_augmentation
from proxy_tasks import EvaluatorConfig, get_task
from proxy_tasks.evaluators.registry import make_evaluator
from search import Config, run_compare, run_train
from search.studies.arms import parse_arm
from tests.search import own_pipelines
from tests.search.commands import ending, invoke
from tests.search.fakes import FakePool

PLACE = "tests.search.own_pipelines"
COMPARE = "compare --task synthetic --evaluator synthetic --workers 3 --retries 0 --quiet --seeds 2"


def seeded(name: str, seed: int = 0) -> OwnPipeline:
    return OwnPipeline(f"{PLACE}:{name}", torch.Generator().manual_seed(seed))


def images(n: int = 6, channels: int = 3) -> torch.Tensor:
    drawn = np.random.default_rng(0).integers(0, 256, (n, channels, 9, 11), dtype=np.uint8)
    return torch.from_numpy(drawn)


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_another_mode_are_refused(mode):
    """A palette's indices are no grey values."""
    with pytest.raises(InputError, match="must have mode L or RGB"):
        seeded("drawing")(Image.new(mode, (9, 11)))


def test_masks_are_refused_since_nobody_knows_whether_it_moves_pixels():
    mask = tv_tensors.Mask(torch.zeros(9, 11, dtype=torch.uint8))
    with pytest.raises(InputError, match="Mask"):
        seeded("drawing")((images()[0], mask))


def test_another_default_device_of_torch_is_no_obstacle():
    wanted, given = seeded("brighten")(images()), images()
    with torch.device("meta"):
        assert torch.equal(seeded("brighten")(given), wanted)


def test_every_image_draws_for_itself_and_the_same_again():
    made = seeded("drawing")(images())
    assert torch.equal(made, seeded("drawing")(images()))
    assert not torch.equal(made, seeded("drawing", 1)(images()))
    for place in range(3):  # torch, numpy, random: 6 equal numbers of 256 never happen
        assert len(set(made[:, 0, 0, place].tolist())) > 1
    assert torch.equal(made[:, 1:], images()[:, 1:])


def test_global_generators_are_as_they_were():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    seeded("drawing")(images())
    assert torch.equal(before[0], torch.get_rng_state()) and before[2] == random.getstate()
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_every_form_of_an_image_comes_back_in_that_form(channels):
    batch = images(1, channels)
    expected = own_pipelines.brighten(batch)
    transform = seeded("brighten")
    assert torch.equal(transform(batch), expected)
    assert torch.equal(transform(batch[0]), expected[0])
    assert np.array_equal(transform(batch.numpy()), expected.numpy())
    picture = Image.fromarray(batch[0].permute(1, 2, 0).numpy().squeeze())
    made = np.asarray(transform(picture)).reshape(9, 11, -1)
    assert np.array_equal(made, expected[0].permute(1, 2, 0).numpy())
    assert transform((batch, 3))[1] == 3


def test_frames_of_a_video_share_a_draw():
    batch = images(6).reshape(2, 3, 3, 9, 11)
    made = seeded("drawing")(tv_tensors.Video(batch))
    first, second = made[:, :, 0, 0, :3]
    assert (first == first[0]).all() and (second == second[0]).all()
    assert not torch.equal(first[0], second[0])


def test_it_is_data_and_reading_it_imports_nothing():
    transform = OwnPipeline(own_pipelines.drawing)
    assert transform.path == f"{PLACE}:drawing"
    data = json.loads(json.dumps(encode_augmentation(transform)))
    assert data == {"transform": "OwnPipeline", "pipeline": f"{PLACE}:drawing"}
    assert decode_augmentation(data) == transform == pickle.loads(pickle.dumps(transform))
    assert decode_augmentation({**data, "pipeline": "no.such:thing"}) != transform
    for wrong in (3, None, "os.system", ["a:b"]):
        with pytest.raises(InputError, match="pipeline"):
            decode_augmentation({**data, "pipeline": wrong})


@pytest.mark.parametrize("name, words", [
    ("normalising", r"form that it was given, uint8 \[3, 9, 11\], but got 'float32 \[3, 9, 11\]"),
    ("cropping", r"but got 'uint8 \[3, 5, 5\] from tests"),
    ("to_picture", "but got 'Image from tests"),
    ("failing", "which raised ValueError: no such image"),
])  # fmt: skip
def test_anything_but_such_an_image_is_refused(name, words):
    with pytest.raises(InputError, match=words):
        seeded(name)(images())


@pytest.mark.parametrize("name, words", [
    ("normalising", "must return an image of the form"),
    ("failing", "must take images as tensors uint8"),
    ("pipelin", "did you mean 'pipeline'"),
    ("constant", "must name a class or a function"),
])  # fmt: skip
def test_a_comparison_refuses_it_before_work_starts(tmp_path, name, words):
    text = f"{PLACE}:{name}+cutmix:0.5"
    asked = Config.of("compare", policy=("none", text), train_images=20, seeds=2)
    with pytest.raises(InputError, match=words):
        run_compare(asked, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_arms_by_path_and_by_callable():
    arm = parse_arm(f"mine={PLACE}:pipeline")
    assert (arm.name, arm.members) == ("mine", (OwnPipeline(f"{PLACE}:pipeline"),))
    mixed = parse_arm(f"{PLACE}:pipeline+cutmix:0.5")
    assert mixed.recipe == {"cutmix": 0.5} and mixed.members == arm.members
    config = Config.of("compare", policy=["none", own_pipelines.brighten])
    assert config.settings.policy == ("none", f"{PLACE}:brighten")


def test_a_child_is_trained_under_it_and_the_same_again():
    task = get_task("reduced-fashion", train_images=40, validation_images=20, test_images=20)
    config = EvaluatorConfig(epochs=2, device="cpu")
    under = {
        name: make_evaluator(config, task).evaluate(augmentation, 3).metrics
        for name, augmentation in {
            "own": OwnPipeline(f"{PLACE}:pipeline"),
            "again": OwnPipeline(f"{PLACE}:pipeline"),
            "none": None,
        }.items()
    }
    assert under["own"] == under["again"] != under["none"]


def training(name: str) -> Config:
    return Config.of("train", policy=f"{PLACE}:{name}", train_images=20, validation_images=20,
                     test_images=20, epochs=2, device="cpu")  # fmt: skip


def test_a_training_under_it_is_checked_first_and_ends_in_the_same_weights(tmp_path):
    with pytest.raises(InputError, match="policy .*:cropping: pipeline: must return an image"):
        run_train(training("cropping"), tmp_path / "refused", progress=False)
    assert not (tmp_path / "refused").exists()
    for name in ("one", "two"):
        run_train(training("pipeline"), tmp_path / name, progress=False)
    assert (tmp_path / "one/last.pt").read_bytes() == (tmp_path / "two/last.pt").read_bytes()


def test_it_is_in_the_report_and_the_comparison_resumes(tmp_path):
    path = f"{PLACE}:pipeline"
    place, results = tmp_path / "one", ("compare.md", "compare.csv")
    invoke(f"{COMPARE} --policy none {path}", place)
    text = (place / "run/compare.md").read_text()
    assert f"{path}: the pipeline {path}" in text.replace("\\", "")
    other = tmp_path / "other"
    with pytest.raises(RuntimeError):
        invoke(f"{COMPARE} --policy none {path}", other, FakePool(answer=stopping()))
    invoke("resume run", other)
    assert ending(other / "run", results) == ending(place / "run", results)


def stopping():
    """Answers twice, then dies."""
    from tests.search.commands import answer

    count = iter(range(2))

    def some(job):
        if next(count, None) is None:
            raise RuntimeError("killed")
        return answer(job)

    return some


def test_what_an_image_says_of_itself_stays():
    image = Image.new("RGB", (8, 8))
    image.info = {"exif": b"mine"}
    assert seeded("pipeline")(image).info == {"exif": b"mine"}
