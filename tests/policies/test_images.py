"""What goes in and what comes out: kinds, shapes, layouts, errors; the input is never written."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from policies import (
    CIFAR10,
    IMAGENET,
    OPS,
    PUBLISHED,
    InputError,
    PolicyTransform,
    RandAugment,
    TrivialAugmentWide,
    UniformAugment,
)
from policies import images as decoding
from tests.policies import oracle
from tests.policies.golden import golden
from tests.policies.on_torch import with_kernels

ALL_OPS = [[(name, 1.0, 9 if op.has_magnitude else None)] for name, op in OPS.items()]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def batches(draw):
    n, channels = draw(st.integers(0, 3)), draw(st.sampled_from((1, 3)))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    low, high = sorted(draw(st.tuples(st.integers(0, 255), st.integers(0, 255))))
    return rng.integers(low, high + 1, (n, channels, height, width), dtype=np.uint8)


LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "channels last": lambda x: x.clone(memory_format=torch.preserve_format)
    .permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "every second pixel": lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)[
        ..., ::2, ::2
    ],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "slice of a larger one": lambda x: torch.nn.functional.pad(x, (1, 2, 3, 4))[
        ..., 3 : 3 + x.shape[2], 1 : 1 + x.shape[3]
    ],
}  # fmt: skip


class TestProperties:
    @given(batches(), st.sampled_from(oracle.PILLOW_OPS), st.integers(0, 9), st.booleans())
    @settings(max_examples=300)
    def test_exact_at_any_size(self, batch, name, index, torch_kernels):
        moved = PolicyTransform([[(name, 1.0, index)]], generator=seeded(index))
        moved = with_kernels(moved, "torch" if torch_kernels else "compiled")
        results = moved(torch.from_numpy(batch.copy())).numpy()
        assert results.shape == batch.shape and results.dtype == np.uint8
        for picture, result in zip(batch, results, strict=True):
            pil = oracle.to_pil(picture)
            wants = [oracle.to_chw(oracle.apply(pil, name, index, s)) for s in (False, True)]
            assert any(np.array_equal(result, w) for w in wants)

    @given(
        batches(),
        st.lists(st.sampled_from(oracle.PILLOW_OPS), min_size=1, max_size=5),
        st.integers(0, 99),
        st.integers(1, 3),
    )
    @settings(max_examples=150)
    def test_both_kernels_agree_on_any_chain(self, batch, names, seed, threads):
        row = [(name, 0.8, 7) for name in [*names, "Cutout", "SamplePairing"]]
        images = torch.from_numpy(batch.copy())
        compiled = PolicyTransform([row], fill=9, generator=seeded(seed), threads=threads)
        launched = PolicyTransform([row], fill=9, generator=seeded(seed))
        launched = with_kernels(launched, "torch")
        assert torch.equal(compiled(images), launched(images))

    @given(batches(), st.sampled_from(sorted(LAYOUTS)), st.integers(0, 9), st.booleans())
    @settings(max_examples=200)
    def test_layout_does_not_matter(self, batch, layout, seed, torch_kernels):
        images = torch.from_numpy(batch.copy())
        given_images = LAYOUTS[layout](images)
        moved = PolicyTransform(ALL_OPS)
        moved = with_kernels(moved, "torch" if torch_kernels else "compiled")
        want = moved.with_generator(seeded(seed))(images)
        got = moved.with_generator(seeded(seed))(given_images)
        assert torch.equal(got, want) and got.is_contiguous()
        assert torch.equal(given_images, images), "the input was written"
        assert torch.equal(images, torch.from_numpy(batch)), "the input was written"

    @given(batches(), st.integers(0, 9))
    def test_kinds_agree(self, batch, seed):
        """An image gives the same as PIL, numpy, [C, H, W] and a batch of one."""
        for picture in batch:
            moved = PolicyTransform(CIFAR10)
            draw = lambda x, m=moved: m.with_generator(seeded(seed))(x)  # noqa: E731
            want = draw(torch.from_numpy(picture.copy()))
            assert want.shape == picture.shape
            assert torch.equal(draw(torch.from_numpy(picture.copy())[None])[0], want)
            assert np.array_equal(draw(picture), want.numpy())
            pil = oracle.to_pil(picture)
            result = draw(pil)
            assert type(result) is Image.Image and result.mode == pil.mode
            assert np.array_equal(oracle.to_chw(result), want.numpy())
            assert np.array_equal(oracle.to_chw(pil), picture), "the input was written"

    @given(batches())
    def test_probability_zero_is_the_identity(self, batch):
        rows = [[(name, 0.0, 9 if op.has_magnitude else None)] for name, op in OPS.items()]
        images = torch.from_numpy(batch.copy())
        result = PolicyTransform(rows)(images)
        assert torch.equal(result, images)
        assert result.numel() == 0 or result.data_ptr() != images.data_ptr(), "not a new tensor"


class TestKinds:
    @pytest.mark.parametrize(
        "transform", [PolicyTransform(ALL_OPS), RandAugment(), TrivialAugmentWide(),
                      UniformAugment()], ids=lambda t: type(t).__name__,
    )  # fmt: skip
    @pytest.mark.parametrize("shape", [(0, 3, 8, 8), (0, 1, 5, 4), (3, 0, 4), (2, 1, 3, 0)])
    def test_empty(self, transform, shape):
        for kernels in ("compiled", "torch"):
            transform = with_kernels(transform, kernels)
            result = transform(torch.zeros(shape, dtype=torch.uint8))
            assert result.shape == shape and result.dtype == torch.uint8
        assert transform(np.zeros(shape, np.uint8)).shape == shape

    def test_read_only_arrays(self):
        images = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
        images.flags.writeable = False
        result = PolicyTransform(ALL_OPS, generator=seeded())(images)
        assert isinstance(result, np.ndarray) and result.flags.writeable
        want = PolicyTransform(ALL_OPS, generator=seeded())(torch.from_numpy(images.copy()))
        assert np.array_equal(result, want.numpy())

    def test_numpy_layouts(self):
        images = np.random.default_rng(0).integers(0, 256, (9, 16, 12, 3), dtype=np.uint8)
        view = images.transpose(0, 3, 1, 2)[::-1, :, ::-1]
        moved = PolicyTransform(ALL_OPS)
        want = moved.with_generator(seeded())(np.ascontiguousarray(view))
        assert np.array_equal(moved.with_generator(seeded())(view), want)

    def test_torchvision_v2_pipelines(self):
        image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
        pipeline = v2.Compose([
            v2.RandomCrop(32), PolicyTransform(IMAGENET), v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
        ])  # fmt: skip
        assert pipeline(image).shape == (3, 32, 32)
        kept = pipeline(tv_tensors.Image(image))
        assert type(kept) is tv_tensors.Image and kept.dtype == torch.float32
        assert type(PolicyTransform(IMAGENET)(tv_tensors.Image(image))) is tv_tensors.Image

    def test_sizes_that_come_and_go(self):
        """Numbers are computed for few images of a new size, then remembered: same results."""
        rng = np.random.default_rng(0)
        sizes = [(h, w) for h in (5, 6, 7, 8, 9, 10) for w in (8, 9, 10, 11, 12, 13)]
        many = PolicyTransform(IMAGENET)
        for size in [*sizes, *sizes[::-1]]:
            picture = torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))
            for seed in range(3):
                fresh = PolicyTransform(IMAGENET, generator=seeded(seed))(picture)
                assert torch.equal(many.with_generator(seeded(seed))(picture), fresh)
                many.generator = seeded(seed)
                assert torch.equal(many(picture), fresh)

    def test_lazily_loaded_pil_files(self, tmp_path):
        picture = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
        oracle.to_pil(picture).save(tmp_path / "a.png")
        opened = Image.open(tmp_path / "a.png")
        result = PolicyTransform([[("Invert", 1.0, None)]])(opened)
        assert np.array_equal(oracle.to_chw(result), 255 - picture)

    def test_empty_pil_image(self):
        assert RandAugment()(Image.new("RGB", (0, 5))).size == (0, 5)


class TestErrors:
    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.zeros(3, 8, 8), "images: must have dtype uint8.* 'torch.float32'; augment"),
            (torch.zeros(3, 8, 8, dtype=torch.int64), "must have dtype uint8"),
            (np.zeros((3, 8, 8)), "must have dtype uint8.* 'float64'"),
            (torch.zeros(2, 8, 8, dtype=torch.uint8), r"must have 1 or 3 channels.*\(2, 8, 8\)"),
            (torch.zeros(5, 4, 8, 8, dtype=torch.uint8), "must have 1 or 3 channels.*alpha"),
            (torch.zeros(8, 8, 3, dtype=torch.uint8), "must have 1 or 3 channels.*permute"),
            (torch.zeros(8, 8, dtype=torch.uint8), r"must have shape \[C, H, W\].*\(8, 8\)"),
            (torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8), "must have shape"),
            (torch.zeros(1, 1, 20_000, dtype=torch.uint8), "must be at most 16384 pixels"),
            ([[1, 2]], "must be a PIL image or a uint8 tensor.*'list'"),
            (None, "must be a PIL image"),
            (Image.new("RGBA", (4, 4)), "must have mode L or RGB, but got 'RGBA'; convert it"),
            (Image.new("P", (4, 4)), "must have mode L or RGB"),
            (Image.new("1", (4, 4)), "must have mode L or RGB"),
            (Image.new("I;16", (4, 4)), "must have mode L or RGB.*; scale it to 8 bits"),
            (Image.new("CMYK", (4, 4)), "must have mode L or RGB"),
        ],
        ids=lambda value: str(value)[:25].replace("\n", " "),
    )
    def test_images(self, images, message):
        with pytest.raises(InputError, match=message):
            PolicyTransform(IMAGENET)(images)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: PolicyTransform(IMAGENET, "papr"), "convention: must be one of"),
            (lambda: PolicyTransform(IMAGENET, "randaugment"), "policy.bins: must be 31"),
            (lambda: PolicyTransform("imagenet"), "policy: must be a sequence"),
            (lambda: PolicyTransform([[("Rotat", 1, 1)]]), "did you mean 'Rotate'"),
            (lambda: RandAugment(2, 31), r"m: must be an integer in 0\.\.30, but got 31"),
            (lambda: RandAugment(-1, 9), r"n: must be an integer in 0\.\.16, but got -1"),
            (lambda: RandAugment(2.0, 9), "n: must be an integer"),
            (lambda: RandAugment(fill=256), r"fill: must be an integer in 0\.\.255"),
            (lambda: RandAugment(fill=(1, 2)), "fill: "),
            (lambda: RandAugment(fill=0.5), "fill: "),
            (lambda: RandAugment(generator=7), "generator: must be a CPU torch.Generator"),
            (lambda: RandAugment(threads=0), "threads: must be an integer"),
            (lambda: RandAugment(0, 9).as_policy(), r"n: must be in 1\.\.3"),
            (lambda: RandAugment(4, 9).as_policy(), r"n: must be in 1\.\.3"),
            (lambda: RandAugment().with_generator(3), "generator: "),
        ],
    )
    def test_arguments(self, make, message):
        with pytest.raises(InputError, match=message):
            make()

    def test_fill_of_three_on_grey(self):
        with pytest.raises(InputError, match="fill: must have one value for each of the 1"):
            RandAugment(fill=(1, 2, 3))(torch.zeros(1, 4, 4, dtype=torch.uint8))


def test_seeded_results_stay():
    """A seed means the same bytes in every version: a run can be repeated later."""
    values = torch.arange(24 * 3 * 16 * 16, dtype=torch.int64) * 2654435761 >> 16
    images = values.to(torch.uint8).view(24, 3, 16, 16)
    transforms = {name: PolicyTransform(policy) for name, policy in PUBLISHED.items()}
    transforms["every operation"] = PolicyTransform(ALL_OPS)
    transforms |= {
        "randaugment": RandAugment(2, 9),
        "trivialaugment": TrivialAugmentWide(),
        "uniformaugment": UniformAugment(),
    }
    lines = []
    for name, transform in transforms.items():
        result = transform.with_generator(seeded(2))(images).numpy().tobytes()
        lines.append(f"{name}: {hashlib.sha256(result).hexdigest()}\n")
    golden("policies/seeded.txt", "".join(lines))


def test_a_forked_process_does_not_wait_for_a_thread_that_it_lacks():
    """As a DataLoader's worker would, while a thread decodes a large image."""
    with decoding.one_at_a_time(True):
        child = os.fork()
        if not child:
            os._exit(0 if decoding.one_at_a_time(True).acquire(timeout=5) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
