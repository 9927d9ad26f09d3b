"""PolicyCollate against the pipeline of one torchvision transform after another."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from policies import (
    CIFAR10,
    IMAGENET,
    InputError,
    Policy,
    PolicyCollate,
    PolicyTransform,
    RandAugment,
)
from policies.collate import GROUP, IMAGENET_MEAN, IMAGENET_STD, crops
from policies.kernels_batch import normalise, resize

BILINEAR = Image.Resampling.BILINEAR
WHOLE = {"scale": (1.0, 1.0), "flip": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def normalised(images: torch.Tensor, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> torch.Tensor:
    """torchvision's way."""
    return v2.Normalize(mean, std)(v2.ToDtype(torch.float32, scale=True)(images))


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Within float32's rounding of numbers up to 3."""
    return found.shape == wanted.shape and bool((found - wanted).abs().max() < 2e-6)


class TestKernels:
    @pytest.mark.long
    @given(
        st.integers(1, 70), st.integers(1, 70), st.integers(1, 60), st.integers(1, 60), st.data()
    )
    @settings(max_examples=300)
    def test_resize_has_pillows_bytes(self, height, width, out_height, out_width, data):
        """Rows first; recent releases of Pillow begin with columns where that is cheaper."""
        h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
        top, left = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
        image = noise(height, width, 3, seed=height * width)
        found = np.full((3, out_height, out_width), 77, np.uint8)
        resize(image, top, left, h, w, found)
        part = Image.fromarray(image).crop((left, top, left + w, top + h))
        wanted = part.resize((out_width, h), BILINEAR).resize((out_width, out_height), BILINEAR)
        assert np.array_equal(found, np.asarray(wanted).transpose(2, 0, 1))

    @pytest.mark.parametrize("width", [1, 5, 15, 16, 17, 40])
    @pytest.mark.parametrize("interleave", [False, True])
    def test_normalise_is_the_formula(self, width, interleave):
        images, flip = noise(3, 3, 4, width), np.array([True, False, True])
        scale, shift = np.float32([0.1, 0.2, 0.3]), np.float32([-1, 0, 7])
        out = np.full((3, 4, width, 3) if interleave else images.shape, np.nan, np.float32)
        normalise(images, flip, scale, shift, out, interleave)
        wanted = images * scale[:, None, None] + shift[:, None, None]
        wanted[flip] = wanted[flip][..., ::-1]
        found = out.transpose(0, 3, 1, 2) if interleave else out
        assert np.allclose(found, wanted, atol=1e-5)


class TestCrops:
    SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)

    def boxes(self, height, width, count=4000, **other):
        uniform = torch.rand(count, 11, 2, generator=seeded(), dtype=torch.float64).numpy()
        sizes = np.tile((height, width), (count, 1))
        return crops(sizes, other.get("scale", self.SCALE), other.get("ratio", self.RATIO), uniform)

    @pytest.mark.parametrize(("height", "width"), [(300, 400), (224, 224), (80, 300)])
    def test_are_distributed_as_torchvisions(self, height, width):
        image = torch.zeros(3, height, width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            theirs = np.array([
                v2.RandomResizedCrop(224).make_params([image]).values() for _ in range(4000)
            ], dtype=object)  # fmt: skip
        theirs = np.array([list(row) for row in theirs.ravel()]).astype(int)
        for ours, wanted in zip(self.boxes(height, width).T, theirs.T, strict=True):
            # One in ten thousand of all seeds would fail.
            assert ks_2samp(ours, wanted).pvalue > 1e-4

    @given(st.integers(1, 200), st.integers(1, 200))
    def test_lie_inside(self, height, width):
        y, x, h, w = self.boxes(height, width, 50).T
        assert (h > 0).all() and (w > 0).all() and (y >= 0).all() and (x >= 0).all()
        assert (y + h <= height).all() and (x + w <= width).all()

    def test_what_never_fits_is_cropped_in_the_centre(self):
        assert {tuple(box) for box in self.boxes(10, 300, 20)} == {(0, 143, 10, 13)}
        assert {tuple(box) for box in self.boxes(300, 10, 20)} == {(143, 0, 13, 10)}
        wide = self.boxes(10, 300, 20, ratio=(30.0, 30.0), scale=(1.0, 1.0))
        assert {tuple(box) for box in wide} == {(0, 0, 10, 300)}


class TestBatches:
    def test_whole_images_are_resized_as_torchvision_does(self):
        images = [Image.fromarray(noise(n, n, 3, seed=n)) for n in (20, 32, 57)]
        found = PolicyCollate(None, 32, ratio=(1.0, 1.0), **WHOLE)(images)
        resized = [
            v2.functional.pil_to_tensor(image.resize((32, 32), BILINEAR)) for image in images
        ]
        assert close(found, normalised(torch.stack(resized)))

    @pytest.mark.parametrize("count", [1, GROUP, 2 * GROUP + 3])
    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize("policy", [
        CIFAR10,
        [[("SamplePairing", 1.0, 9), ("Cutout", 1.0, 9), ("Rotate", 0.5, 3)]],
    ], ids=["cifar10", "pairing"])  # fmt: skip
    def test_the_policy_is_the_transforms(self, policy, count, channels_last):
        images = torch.from_numpy(noise(count, 3, 18, 21))
        collate = PolicyCollate(
            PolicyTransform(policy), flip=0.0, channels_last=channels_last, generator=seeded(3)
        )
        found = collate(list(images))
        generator = seeded(3)
        torch.rand(count, generator=generator)  # whether to flip
        wanted = PolicyTransform(policy, generator=generator)(images)
        assert close(found, normalised(wanted))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert found.is_contiguous(memory_format=layout)

    @pytest.mark.parametrize("setting", ["dtype", "device"])
    @pytest.mark.parametrize("size", [None, 24])
    def test_settings_of_torch_do_not_reach_the_batch(self, setting, size):
        samples = [torch.from_numpy(noise(3, 30, 30, seed=s)) for s in range(5)]
        wanted = PolicyCollate(IMAGENET, size, generator=seeded())(samples)
        collate = PolicyCollate(IMAGENET, size, generator=seeded())
        try:
            if setting == "dtype":
                torch.set_default_dtype(torch.float64)
                found = collate(samples)
            else:
                with torch.device("meta"):
                    found = collate(samples)
        finally:
            torch.set_default_dtype(torch.float32)
        assert found.dtype == torch.float32 and torch.equal(found, wanted)

    def test_flips_come_after_the_policy_and_with_their_probability(self):
        images = list(torch.from_numpy(noise(3, 9, 12)).expand(2000, -1, -1, -1))
        found = PolicyCollate(None, generator=seeded())(images)
        plain = normalised(images[0])
        same, flipped = (
            (found - wanted).abs().flatten(1).amax(1) < 2e-6 for wanted in (plain, plain.flip(2))
        )
        assert same.logical_xor(flipped).all()
        # Five standard deviations of a fair coin.
        assert abs(int(flipped.sum()) - 1000) < 5 * 2000**0.5 / 2
        shift = PolicyTransform([[("TranslateX", 1.0, 9)]])
        always, never = (
            PolicyCollate(shift, flip=flip, generator=seeded(1))(images[:9]) for flip in (1.0, 0.0)
        )
        assert torch.equal(always, never.flip(3))

    def test_grey_images(self):
        images = [Image.fromarray(noise(28, 28, seed=n)) for n in range(3)]
        found = PolicyCollate(
            None, 14, mean=(0.1,), std=(0.3,), ratio=(1.0, 1.0), channels_last=True, **WHOLE
        )(images)
        small = [v2.functional.pil_to_tensor(image.resize((14, 14), BILINEAR)) for image in images]
        assert close(found, normalised(torch.stack(small), (0.1,), (0.3,)))

    def test_any_kind_and_layout_of_image_is_the_same_image(self):
        pixels = noise(20, 30, 3)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        kinds = [
            Image.fromarray(pixels),
            torch.from_numpy(planes),
            torch.from_numpy(pixels).permute(2, 0, 1),
            planes,
            pixels.transpose(2, 0, 1),
            torch.from_numpy(noise(3, 40, 60)).copy_(
                torch.from_numpy(planes).repeat_interleave(2, 1).repeat_interleave(2, 2)
            )[:, ::2, ::2],
        ]
        for size in (None, 16):
            batches = [PolicyCollate(IMAGENET, size, generator=seeded(2))([kind]) for kind in kinds]
            assert all(torch.equal(batches[0], batch) for batch in batches)

    def test_labels_and_whatever_else_come_along(self):
        image = torch.from_numpy(noise(3, 8, 8))
        batch, labels, weights = PolicyCollate(None)([(image, 3, 0.5), (image, 4, 1.5)])
        assert batch.shape == (2, 3, 8, 8)
        assert labels.tolist() == [3, 4] and weights.tolist() == [0.5, 1.5]
        assert isinstance(PolicyCollate(None)([image, image]), torch.Tensor)

    def test_inputs_are_not_written(self):
        image = torch.from_numpy(noise(3, 16, 16))
        before = image.clone()
        PolicyCollate(RandAugment(2, 9))([image] * 20)
        assert torch.equal(image, before)


class Photographs(Dataset):
    """Images of different sizes, with their number."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int):
        return Image.fromarray(noise(30 + index, 40, 3, seed=index)), index


class TestLoader:
    def epoch(self, workers: int, seed: int = 0, **options):
        collate = PolicyCollate(IMAGENET, 24, generator=seeded(7))
        loader = DataLoader(
            Photographs(), 8, collate_fn=collate, num_workers=workers, generator=seeded(seed),
            **options,
        )  # fmt: skip
        return list(loader)

    @pytest.mark.long
    @pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
    def test_workers_repeat_an_epoch_of_the_same_seed_and_no_other(self, method):
        first, again, other = (
            self.epoch(2, seed, multiprocessing_context=method) for seed in (0, 0, 1)
        )
        for (a, labels), (b, _), (c, _) in zip(first, again, other, strict=True):
            assert torch.equal(a, b) and not torch.equal(a, c)
            assert a.shape == (8, 3, 24, 24) and a.dtype == torch.float32
            assert a.isfinite().all() and len(labels) == 8
        assert torch.cat([labels for _, labels in first]).tolist() == list(range(24))

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_a_tensor_of_no_images(self, channels_last):
        none = torch.zeros(0, 3, 9, 8, dtype=torch.uint8)
        for size, sides in ((None, (9, 8)), (4, (4, 4))):
            made = PolicyCollate(IMAGENET, size, channels_last=channels_last)(none)
            assert made.shape == (0, 3, *sides) and made.dtype == torch.float32

    def test_pickles_with_its_generator(self):
        collate = PolicyCollate(IMAGENET, 24, generator=seeded(7))
        images = [Photographs()[i][0] for i in range(5)]
        copy = pickle.loads(pickle.dumps(collate))
        assert torch.equal(copy(images), collate(images))


class TestErrors:
    @pytest.mark.parametrize(("options", "message"), [
        ({"size": 0}, "size: must be"),
        ({"flip": 1.5}, "flip: must be a probability"),
        ({"scale": (0.5, 0.1)}, "scale: must be two shares"),
        ({"ratio": (0, 1)}, "ratio: must be two numbers"),
        ({"mean": (0.5, 0.5)}, "std: must have a positive number"),
        ({"std": (0.5, 0.5, 0)}, "std: must have a positive number"),
        ({"augmentation": [[("Invert", 1.0, None)]]},
         "augmentation: must be a Policy"),
    ])  # fmt: skip
    def test_arguments(self, options, message):
        with pytest.raises(InputError, match=message):
            PolicyCollate(**{"augmentation": None, **options})

    @pytest.mark.parametrize(("images", "message"), [
        ([torch.zeros(3, 8, 8)], "must be PIL images.*uint8"),
        ([torch.zeros(3, 8, 8, dtype=torch.bfloat16)], "must be PIL images.*uint8"),
        ([torch.zeros(3, 8, 8, dtype=torch.uint8, device="meta")], "must be ordinary tensors"),
        ([{"image": 1}], "must be PIL images.*dict"),
        ([Image.new("RGBA", (8, 8))], "must be PIL images.*RGBA"),
        ([Image.new("L", (8, 8))], "must have 3 channels"),
        ([Image.new("RGB", (8, 8)), Image.new("L", (8, 8))], "must have 3 channels"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (8, 9))], "must be of one size"),
        ([], "samples: must be at least one"),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "must have 3 channels"),
    ])  # fmt: skip
    def test_images(self, images, message):
        with pytest.raises(InputError, match=message):
            PolicyCollate(None)(images)


class TestWholeBatch:
    """A uint8 tensor [N, C, H, W] instead of a list of samples."""

    @pytest.mark.parametrize("augmentation", [IMAGENET, RandAugment(2, 9), None], ids=str)
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_the_same_on_every_device(self, augmentation, channels_last):
        """Off the CPU torch's kernels run; here they do on CPU tensors."""
        images = torch.from_numpy(noise(37, 3, 24, 31))
        before = images.clone()

        def made(how: str) -> tuple[torch.Tensor, torch.Tensor]:
            collate = PolicyCollate(augmentation, channels_last=channels_last, generator=seeded())
            call = collate._on_device if how == "device" else collate
            given = list(images) if how == "list" else images
            return call(given), call(given)  # the generator goes on

        for listed, whole, device in zip(made("list"), made("whole"), made("device"), strict=True):
            assert torch.equal(listed, whole) and close(device, listed)
            assert device.stride() == listed.stride() and device.dtype == torch.float32
        assert torch.equal(images, before), "what is given is not written"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_on_cuda(self):
        images = torch.from_numpy(noise(16, 3, 32, 32))
        first, other = (PolicyCollate(IMAGENET, generator=seeded()) for _ in range(2))
        found = first(images.cuda())
        assert found.is_cuda and close(found.cpu(), other(images))

    def test_grey_images(self):
        options = {"mean": (0.5,), "std": (0.25,), "flip": 0.0}
        images = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
        found = PolicyCollate(None, **options)._on_device(images)
        assert torch.equal(found, torch.full((2, 1, 8, 8), 2.0))

    def test_mistakes(self):
        images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        for options, batch, words in (
            ({"size": 8}, images, "size: must be None for images on cpu"),
            ({}, images[:, :1], "must have 3 channels"),
            ({}, images.float(), r"must be uint8 \[N, C, H, W\], but got 'torch.float32"),
            ({}, images[0], r"must be uint8 \[N, C, H, W\]"),
        ):
            with pytest.raises(InputError, match=words):
                PolicyCollate(IMAGENET, **options)._on_device(batch)


def test_what_lies_on_the_pixels_is_not_left_behind():
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    mask = tv_tensors.Mask(torch.zeros(8, 8, dtype=torch.uint8))
    colours = Policy([[("Invert", 1.0, None)]])
    for moving in ({"flip": 1.0}, {"size": 4, "flip": 0}, {"augmentation": IMAGENET, "flip": 0}):
        collate = PolicyCollate(**{"augmentation": colours, **moving})
        with pytest.raises(InputError, match="samples: must come without Mask"):
            collate([(image, mask)])
        with pytest.raises(InputError, match="samples: must come without Mask"):
            collate([mask])
    batch, masks = PolicyCollate(colours, flip=0)([(image, mask)])
    assert batch.shape == (1, 3, 8, 8) and masks.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flip": "a"}, "flip"), ({"flip": float("nan")}, "flip"), ({"scale": 0.5}, "scale"),
        ({"scale": (0.5, 0.6, 0.7)}, "scale"), ({"ratio": (1, float("inf"))}, "ratio"),
        ({"mean": 0.5}, "std"), ({"std": [float("nan")] * 3}, "std"),
        ({"augmentation": [[("Invert", 1.0, None)]]}, r"make a Policy of plain rows"),
    ],
)  # fmt: skip
def test_numbers_that_are_none(options, words):
    with pytest.raises(InputError, match=words):
        PolicyCollate(**{"augmentation": None, **options})


def test_images_without_pixels():
    for shape in ((3, 0, 40), (3, 40, 0)):
        with pytest.raises(InputError, match="must have pixels"):
            PolicyCollate(None, 16, flip=0)([torch.zeros(shape, dtype=torch.uint8)])
    assert PolicyCollate(None)(np.zeros((0, 3, 5, 5), np.uint8)).shape == (0, 3, 5, 5)
