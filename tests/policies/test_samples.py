"""As torchvision's own transforms: samples, annotations, videos."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from policies import (
    IMAGENET,
    InputError,
    PolicyTransform,
    RandAugment,
    TrivialAugmentWide,
    UniformAugment,
)
from tests.policies.on_torch import with_kernels
from tests.policies.samples import COLOURS, MOVES, Pair, make, pil, same, seeded, tensor

IMAGES = {
    "PIL": pil,
    "tensor": tensor,
    "batch": lambda: tensor(4),
    "tv_tensors.Image": lambda: tv_tensors.Image(tensor()),
    "tv_tensors.Image batch": lambda: tv_tensors.Image(tensor(4)),
    "array": lambda: tensor().numpy(),
}


@pytest.mark.parametrize("kind", IMAGES)
class TestSamples:
    def check(self, kind, build, take):
        """The image is what it would be alone, everything else the same object."""
        image = IMAGES[kind]()
        sample, rest = build(image)
        moved = make()(sample)
        assert same(take(moved), make()(image)) and not same(take(moved), image)
        leaves = torch.utils._pytree.tree_leaves(moved)
        assert len(leaves) == len(torch.utils._pytree.tree_leaves(sample))
        for other in rest:
            assert any(other is leaf for leaf in leaves)
        assert type(moved) is type(sample)
        return moved

    def test_pairs(self, kind):
        label = 7 if kind == "array" else torch.tensor([7])
        self.check(kind, lambda image: ((image, label), [label]), lambda moved: moved[0])
        self.check(kind, lambda image: ((image, 3), []), lambda moved: moved[0])
        self.check(kind, lambda image: ([image, "cat"], []), lambda moved: moved[0])
        moved = self.check(kind, lambda image: (Pair(image, 3), []), lambda moved: moved.image)
        assert moved.label == 3

    def test_several_arguments_and_compose(self, kind):
        image, label = IMAGES[kind](), object()
        for call in (make(), v2.Compose([make()]), v2.Compose([v2.Identity(), make()])):
            moved, passed = call(image, label)
            assert same(moved, make()(image)) and passed is label
        assert same(v2.Compose([make()])(image), make()(image))

    def test_dicts_and_nesting(self, kind):
        names = ["a", "b"]
        moved = self.check(
            kind, lambda image: ({"id": 5, "image": image, "more": {"names": names}}, []),
            lambda moved: moved["image"],
        )  # fmt: skip
        assert list(moved) == ["id", "image", "more"] and moved["more"]["names"] == names
        self.check(
            kind, lambda image: (collections.OrderedDict(x=(1, [image, None]), y=2.5), []),
            lambda moved: moved["x"][1][0],
        )  # fmt: skip

    def test_torchvision_chooses_the_same_image(self, kind):
        """Against v2.RandomHorizontalFlip, for the kinds that it knows."""
        if kind == "array":
            return
        boxes = torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8)
        for sample in ((IMAGES[kind](), boxes), {"boxes": boxes[0], "image": IMAGES[kind]()}):
            if kind in ("tensor", "batch") and isinstance(sample, dict):
                continue  # v2 flips the boxes, the first plain tensor; see below
            flipped = v2.RandomHorizontalFlip(p=1)(sample)
            moved = PolicyTransform([[("Invert", 1.0, None)]])(sample)
            changed = [
                [not same(a, b) for a, b in zip(*map(torch.utils._pytree.tree_leaves, pair),
                                                strict=True)]
                for pair in ((sample, flipped), (sample, moved))
            ]  # fmt: skip
            assert changed[0] == changed[1] and sum(changed[0]) == 1


def test_the_first_plain_tensor_is_the_image():
    """As in v2; a label or a float image in its place is refused, not passed over."""
    first, second = tensor(), tensor(2)
    moved = make()(first, second)
    assert same(moved[0], make()(first)) and moved[1] is second
    with pytest.raises(InputError, match="must have dtype uint8.*int64"):
        make()(torch.tensor(3), tensor())
    with pytest.raises(InputError, match="must have dtype uint8.*float32"):
        make()({"image": tensor().float(), "mask": tensor()})
    with pytest.raises(InputError, match="must have dtype uint8"):
        make()(torch.rand(3, 8, 8, requires_grad=True))


def test_an_explicit_image_goes_before_plain_tensors():
    boxes = torch.zeros(1, 8, 8, dtype=torch.uint8)
    for image in (pil(), tv_tensors.Image(tensor())):
        passed, moved = make()(boxes, image)
        assert passed is boxes and same(moved, make()(image))


def test_arrays_are_images_only_where_there_is_no_tensor():
    numbers = np.arange(6.0)
    passed, moved = make()(numbers, tensor())
    assert passed is numbers and same(moved, make()(tensor()))


@pytest.mark.parametrize("sample", [
    (pil(), pil()), [pil(), pil(), pil()], {"a": pil(), "b": tv_tensors.Image(tensor())},
    (pil(), tv_tensors.Video(tensor(2))),
], ids=range(4))  # fmt: skip
def test_more_than_one_image_is_refused(sample):
    """A second PIL image may be a mask, or a second view: only the caller knows."""
    with pytest.raises(InputError, match="must be only one in a sample.*tv_tensors.Mask"):
        make(COLOURS)(sample)


@pytest.mark.parametrize("sample", [(), [], {}, "image.png", (1, 2), None, {"x": None}, object()])
def test_a_sample_without_an_image_is_refused(sample):
    with pytest.raises(InputError, match="or a sample with one in it"):
        make()(sample)


# ---------------------------------------------------------------------------------- annotations


def annotations() -> dict:
    mask = torch.arange(5, dtype=torch.uint8).repeat(20, 104)[:, :26].contiguous()
    size = (20, 26)
    found = {
        "Mask": tv_tensors.Mask(mask),
        "BoundingBoxes": tv_tensors.BoundingBoxes(
            torch.tensor([[1, 2, 5, 6]]), format="XYXY", canvas_size=size
        ),
    }
    if hasattr(tv_tensors, "KeyPoints"):  # torchvision 0.23
        found["KeyPoints"] = tv_tensors.KeyPoints(torch.tensor([[3, 4]]), canvas_size=size)
    return found


class TestAnnotations:
    @pytest.mark.parametrize("kind", annotations())
    def test_colours_leave_them_alone(self, kind):
        other = annotations()[kind]
        before = other.clone()
        moved, passed = make(COLOURS)(tv_tensors.Image(tensor()), other)
        assert passed is other and torch.equal(other, before)
        assert same(moved, make(COLOURS)(tv_tensors.Image(tensor())))
        assert make(COLOURS)(other) is other
        target = {"masks": other, "labels": torch.tensor([1])}
        moved, passed = v2.Compose([make(COLOURS)])(pil(), target)
        assert passed["masks"] is other and same(moved, make(COLOURS)(pil()))

    @pytest.mark.parametrize("kind", annotations())
    @pytest.mark.parametrize("transform", [
        PolicyTransform(MOVES), PolicyTransform([[("TranslateY", 0.1, 1)], *COLOURS]),
        RandAugment(), TrivialAugmentWide(), UniformAugment(),
    ], ids=lambda t: type(t).__name__)  # fmt: skip
    def test_moves_refuse_them(self, kind, transform):
        other = annotations()[kind]
        before = other.clone()
        for sample in ((pil(), other), {"image": tv_tensors.Image(tensor()), "x": [other]}, other):
            with pytest.raises(
                InputError, match=f"must come without {kind}, as .*(Rotate|TranslateY).* would move"
            ):
                transform(sample)
        assert torch.equal(other, before)

    def test_the_message_names_every_kind_and_operation(self):
        policy = [[("Rotate", 0.5, 1), ("ShearX", 0.5, 1), ("Color", 0.5, 3)]]
        with pytest.raises(InputError, match="without Mask and BoundingBoxes, as ShearX, Rotate"):
            v2.Compose([PolicyTransform(policy)])(pil(), dict(list(annotations().items())[:2]))


# ---------------------------------------------------------------------------------- video


class TestVideo:
    @pytest.mark.parametrize("kernels", ["compiled", "torch"])
    @pytest.mark.parametrize("policy", [IMAGENET, [[("Cutout", 1.0, 9), ("ShearX", 1.0, 5)]]])
    def test_frames_share_one_draw(self, policy, kernels):
        """A video of one picture stays one; a batch of videos draws for each of them."""
        for seed in range(30):
            transform = with_kernels(PolicyTransform(policy, generator=seeded(seed)), kernels)
            video = tv_tensors.Video(tensor(8))
            moved = transform(video)
            assert type(moved) is tv_tensors.Video and moved.shape == video.shape
            assert all(torch.equal(frame, moved[0]) for frame in moved)
            alone = with_kernels(PolicyTransform(policy, generator=seeded(seed)), kernels)(tensor())
            assert torch.equal(moved[0].as_subclass(torch.Tensor), alone)

    def test_a_batch_of_videos_draws_for_each(self):
        videos = tv_tensors.Video(torch.stack([tensor(5)] * 40))  # [40, 5, 3, H, W]
        moved = make(IMAGENET)(videos)
        assert moved.shape == videos.shape
        plain = make(IMAGENET)(tensor(40))
        assert torch.equal(moved[:, 3].as_subclass(torch.Tensor), plain)
        assert all((video == video[:1]).all() for video in moved)
        assert len({video.numpy().tobytes() for video in moved}) > 10

    @pytest.mark.parametrize("kernels", ["compiled", "torch"])
    def test_pairing_takes_the_same_frame_of_one_other_video(self, kernels):
        frames = torch.zeros(3, 4, 1, 2, 2, dtype=torch.uint8)
        for video in range(3):
            for frame in range(4):
                frames[video, frame] = 16 * video + 64 * frame
        transform = with_kernels(make([[("SamplePairing", 1.0, 9)]]), kernels)
        moved = transform(tv_tensors.Video(frames))[..., 0, 0, 0].as_subclass(torch.Tensor)
        values = frames[..., 0, 0, 0]
        weight = np.float32(0.4)
        for video in range(3):
            partners = [
                other for other in range(3) if other != video and all(
                    int(np.float32(a) + weight * (np.float32(b) - np.float32(a))) == int(m)
                    for a, b, m in zip(values[video], values[other], moved[video], strict=True))
            ]  # fmt: skip
            assert len(partners) == 1

    def test_alone_a_video_is_its_own_partner(self):
        video = tv_tensors.Video(torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8))
        assert torch.equal(make([[("SamplePairing", 1.0, 9)]])(video), video)

    @pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 3, 8, 8), (0, 4, 3, 8, 8)])
    def test_empty(self, shape):
        video = tv_tensors.Video(torch.zeros(shape, dtype=torch.uint8))
        assert make()(video).shape == shape

    def test_in_a_sample(self):
        video = tv_tensors.Video(tensor(3))
        moved, label = v2.Compose([make()])(video, 4)
        assert label == 4 and torch.equal(moved, make()(video))

    def test_a_plain_tensor_of_five_dimensions_is_no_video(self):
        with pytest.raises(InputError, match="must have shape"):
            make()(torch.stack([tensor(2)] * 2))
