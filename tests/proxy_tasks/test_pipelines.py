"""Ready pipelines: their order, their sizes, and that evaluation is without chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from policies import IMAGENET, DecodedImages, OwnPipeline, Policy, Schedule, ScheduleTransform
from policies.errors import InputError
from proxy_tasks.pipelines import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    autoaugment,
    baseline,
    pipelines,
    randaugment,
    trivialaugment,
)

ALWAYS_INVERT = Policy([[("Invert", 1.0, None)]])
READY = [baseline, autoaugment, randaugment, trivialaugment]


def flat(value: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    return Image.new("RGB", size, (value,) * 3)


def noise(width: int = 90, height: int = 70) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def normalised(value: int) -> torch.Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return ((value / 255 - mean) / std)[:, None, None].expand(3, 32, 32)


@pytest.mark.parametrize("make", READY, ids=lambda make: make.__name__)
def test_shapes_types_and_no_chance_in_evaluation(make):
    train, evaluate = make(32)
    for image in (noise(), noise(40, 200), torch.from_numpy(np.array(noise())).permute(2, 0, 1)):
        for pipeline in (train, evaluate):
            out = pipeline(image)
            assert out.shape == (3, 32, 32) and out.dtype == torch.float32
        assert torch.equal(evaluate(image), evaluate(image))
    assert not torch.equal(train(noise()), train(noise()))


@pytest.mark.parametrize("make", READY, ids=lambda make: make.__name__)
def test_evaluation_is_the_centre_without_the_policy(make):
    # 7/8 of the shorter side are the crop; the policies would change a flat image sooner or later.
    for _ in range(10):
        assert torch.allclose(make(32).evaluate(flat(77)), normalised(77), atol=1e-6)
    image = np.zeros((64, 64, 3), np.uint8)
    image[:3], image[-3:], image[:, :3], image[:, -3:] = 255, 255, 255, 255  # 3 of 64 < 1/16
    assert make(32).evaluate(Image.fromarray(image))[0].unique().numel() == 1


def test_order_crop_then_policy_then_erase():
    seen = []

    def policy(image):
        seen.append((tuple(image.shape), image.dtype))
        return 255 - image

    out = pipelines(policy, 32, erase=1.0).train(flat(10))
    assert seen == [((3, 32, 32), torch.uint8)], "the policy sees the crop, as bytes"
    hole = (out == 0).all(0)
    assert 0 < hole.sum() < 32 * 32, "erased after normalisation: exactly 0"
    assert torch.allclose(out[:, ~hole], normalised(245)[:, ~hole], atol=1e-6)


def test_a_found_policy_and_no_flip():
    assert torch.allclose(pipelines(ALWAYS_INVERT, 32).train(flat(10)), normalised(245), atol=1e-6)

    def turned(train) -> bool:
        return turned_round(train(halves()))

    torch.manual_seed(0)
    assert not any(turned(pipelines(None, 32, flip=False).train) for _ in range(40))
    count = sum(turned(pipelines(None, 32).train) for _ in range(200))
    assert 60 < count < 140  # crops within one half count as not turned; 5 sd of 100 are 35


def test_grey_images_with_their_own_statistics():
    train, evaluate = pipelines(None, 32, mean=(0.5,), std=(0.25,))
    image = Image.new("L", (40, 40), 255)
    for pipeline in (train, evaluate):
        assert torch.allclose(pipeline(image), torch.full((1, 32, 32), 2.0))


def test_a_batch_goes_the_same_way(tmp_path):
    """Constant images: crops change nothing, so every step can be read off."""
    ready = pipelines(ALWAYS_INVERT, 32, erase=1.0)
    samples = DecodedImages([(flat(v), v) for v in (10, 60, 200)], 48, tmp_path / "cache",
                            progress=False)  # fmt: skip
    loader = DataLoader(samples, 3, collate_fn=ready.collate())
    ((images, labels),) = loader
    assert images.shape == (3, 3, 32, 32) and labels.tolist() == [10, 60, 200]
    holes = (images == 0).all(1)
    assert len({tuple(hole.flatten().tolist()) for hole in holes}) == 3, "each for itself"
    for image, hole, value in zip(images, holes, (10, 60, 200), strict=True):
        assert 0 < hole.sum() < 32 * 32
        assert torch.allclose(image[:, ~hole], normalised(255 - value)[:, ~hole], atol=1e-6)
    assert ready.collate()([flat(9)]).shape == (1, 3, 32, 32), "without labels"


def test_batches_and_images_are_distributed_alike():
    """Crop, flip and policy: mean and spread of 400 images, to five standard errors."""
    ready = pipelines(IMAGENET, 16)
    torch.manual_seed(0)
    one = torch.stack([ready.train(noise()) for _ in range(400)]).mean((1, 2, 3))
    many = ready.collate()([noise()] * 400).mean((1, 2, 3))
    assert abs(one.mean() - many.mean()) < 5 * (one.var() / 400 + many.var() / 400).sqrt()
    assert 0.8 < one.std() / many.std() < 1.25
    torch.manual_seed(0)
    left = pipelines(None, 16, flip=False).collate()([halves()] * 60)
    assert not any(turned_round(image) for image in left)
    mirrored = sum(turned_round(image) for image in pipelines(None, 16).collate()([halves()] * 200))
    assert 60 < mirrored < 140


def halves() -> Image.Image:
    """Left half dark, right half bright: only a flip turns that round."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    return Image.fromarray(image)


def turned_round(image: torch.Tensor) -> bool:
    row = image[0].mean(0)
    return bool(row[0] > row[-1])


def test_what_no_batch_can_do_is_refused_when_a_batch_is_asked_for():
    for augmentation in (lambda image: image, OwnPipeline("my_parts:pipeline")):
        ready = pipelines(augmentation, 32)
        with pytest.raises(InputError, match="must be a Policy, a Transform of operations, or No"):
            ready.collate()


def test_mistakes():
    schedule = ScheduleTransform(Schedule([(0, ALWAYS_INVERT)], 3))
    with pytest.raises(InputError, match="schedule.at_epoch"):
        pipelines(schedule, 32)
    with pytest.raises(InputError, match="erase: must be a probability"):
        baseline(erase=2)
    with pytest.raises(InputError, match="augmentation: must be a Policy.*policies.Policy.rows"):
        autoaugment(16, policy=[[("Rotate", 0.5, 3)]])


@pytest.mark.parametrize("mode", ["P", "RGBA", "I;16"])
def test_numbers_that_are_no_colours_are_refused_everywhere(mode):
    """Of a palette training would see the numbers, as a grey image."""
    ready = baseline(16)
    image = Image.new(mode, (20, 20))
    batch = ready.collate()
    for see in (ready.train, ready.evaluate, lambda image: batch([(image, 0)])):
        with pytest.raises(InputError, match="L or RGB"):
            see(image)
    with pytest.raises(InputError, match="size: "):
        baseline(0)
