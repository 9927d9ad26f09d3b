"""Every Pillow-expressible operation, magnitude and sign: not one byte differs from Pillow.

The operation is asked for through PolicyTransform, which draws the sign itself: each result must
equal Pillow's for one of the two signs, and both signs must turn up.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import autoaugment as torchvision_v1

from policies import CONVENTIONS, PolicyTransform, TrivialAugmentWide
from policies.ops import RANDAUGMENT_OPS
from tests.policies import images, oracle
from tests.policies.on_torch import with_kernels

COPIES = 8  # draws of each case; a sign is missed with probability 2 ** -7, seeds are fixed
CASES = [(name, index) for name in oracle.PILLOW_OPS for index in range(10)]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """torch's threads only wait for each other on images this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def wanted(image: bytes, shape: tuple, name: str, index: int) -> tuple[np.ndarray, ...]:
    """What Pillow makes of the image, without and with the sign."""
    picture = oracle.to_pil(np.frombuffer(image, np.uint8).reshape(shape))
    signs = (False, True) if name in oracle.SIGNED else (False,)
    return tuple(oracle.to_chw(oracle.apply(picture, name, index, sign)) for sign in signs)


def transform(name: str, index: int, seed: int, kernels: str) -> PolicyTransform:
    generator = torch.Generator().manual_seed(seed)
    result = PolicyTransform([[(name, 1.0, index)]], generator=generator)
    return with_kernels(result, kernels)


def check(image: np.ndarray, results: list[np.ndarray], name: str, index: int) -> None:
    want = wanted(image.tobytes(), image.shape, name, index)
    seen = [0] * len(want)
    for result in results:
        matches = [k for k, w in enumerate(want) if np.array_equal(result, w)]
        assert matches, f"{name} {index} on {image.shape}: differs from Pillow"
        seen[matches[-1]] += 1
    if len(want) == 2 and len(results) >= COPIES and not np.array_equal(*want):
        assert all(seen), f"{name} {index}: only one sign was drawn"


LARGE = pytest.param((224, 224), marks=pytest.mark.long)
SIZES = [LARGE if size == (224, 224) else size for size in images.SIZES]


def run_batch(pictures: tuple[np.ndarray, ...], kernels: str) -> None:
    batch = torch.from_numpy(np.concatenate([np.stack([p] * COPIES) for p in pictures]))
    before = batch.clone()
    for name, index in CASES:
        results = transform(name, index, index, kernels)(batch).numpy()
        for i, picture in enumerate(pictures):
            check(picture, list(results[i * COPIES : (i + 1) * COPIES]), name, index)
    assert torch.equal(batch, before), "the input was written"


def run_single(pictures: tuple[np.ndarray, ...], kernels: str, copies: int) -> None:
    for name, index in CASES:
        for picture in pictures:
            as_tensor = torch.from_numpy(picture)
            as_pil = oracle.to_pil(picture)
            moved = transform(name, index, 1, kernels)
            tensors = [moved(as_tensor).numpy() for _ in range(copies)]
            pils = [oracle.to_chw(moved(as_pil)) for _ in range(copies)]
            check(picture, tensors, name, index)
            check(picture, pils, name, index)


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
class TestAgainstPillow:
    def test_batches(self, size, channels, kernels):
        run_batch(images.synthetic(channels, *size), kernels)

    def test_photographs_in_batches(self, size, channels, kernels, test_data):
        run_batch(images.photographs(test_data, channels, *size), kernels)

    @pytest.mark.long
    def test_single_images_and_pil(self, size, channels, kernels):
        pictures = images.synthetic(channels, *size)
        if kernels == "torch" or size == (224, 224):
            pictures = pictures[:1]  # the batch test has them all
        slow = kernels == "torch" and size == (224, 224)
        run_single(pictures, kernels, 3 if slow else COPIES)


def space(convention: str, height: int, width: int) -> dict:
    """torchvision's own table of magnitudes, for one of its three transforms."""
    if convention == "paper":
        return torchvision_v1.AutoAugment()._augmentation_space(10, (height, width))
    if convention == "randaugment":
        return torchvision_v1.RandAugment()._augmentation_space(31, (height, width))
    return torchvision_v1.TrivialAugmentWide()._augmentation_space(31)


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
@pytest.mark.parametrize("convention", ["paper", "randaugment", "trivialaugment"])
def test_every_entry_equals_torchvision_on_pil(convention, size):
    """The second oracle: torchvision v1 on PIL images, all its bins, right angles included."""
    picture = images.synthetic(3, *size)[0]
    batch = torch.from_numpy(np.stack([picture] * COPIES))
    pil = oracle.to_pil(picture)
    for name, (magnitudes, signed) in space(convention, *size).items():
        assert CONVENTIONS[convention].signed(name) == signed
        for index in range(CONVENTIONS[convention].bins if magnitudes.ndim else 1):
            magnitude = float(magnitudes[index]) if magnitudes.ndim else 0.0
            want = [
                oracle.to_chw(
                    torchvision_v1._apply_op(
                        pil, name, sign * magnitude, InterpolationMode.NEAREST, None
                    )
                )
                for sign in ((1, -1) if signed else (1,))
            ]
            policy = [[(name, 1.0, index)]]
            generator = torch.Generator().manual_seed(index)
            results = PolicyTransform(policy, convention, generator=generator)(batch).numpy()
            for result in results:
                assert any(np.array_equal(result, w) for w in want), (name, index)
            seen = {result.tobytes() for result in results}
            assert seen == {w.tobytes() for w in want}, (name, index)


def chain(picture: np.ndarray, row: tuple, signs: tuple[bool, ...]) -> bytes:
    pil = oracle.to_pil(picture)
    for (name, _, index), sign in zip(row, signs, strict=True):
        pil = oracle.apply(pil, name, index, sign)
    return oracle.to_chw(pil).tobytes()


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.long
def test_every_pair_of_operations(channels, kernels):
    """Composed tables, carried-over histograms and alternating buffers: all 14 x 14 pairs."""
    pictures = images.synthetic(channels, 21, 18)
    batch = torch.from_numpy(np.concatenate([np.stack([p] * 4) for p in pictures]))
    for first in oracle.PILLOW_OPS:
        for second in oracle.PILLOW_OPS:
            row = ((first, 1.0, 7), (second, 1.0, 4))
            generator = torch.Generator().manual_seed(3)
            moved = PolicyTransform([row], fill=0, generator=generator)
            moved = with_kernels(moved, kernels)
            results = moved(batch).numpy()
            for i, picture in enumerate(pictures):
                want = {chain(picture, row, (a, b)) for a in (False, True) for b in (False, True)}
                for result in results[4 * i : 4 * i + 4]:
                    assert result.tobytes() in want, row


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@pytest.mark.parametrize("seed", range(4))
def test_long_chains(seed, kernels):
    """Five operations in a row, drawn at random; unsigned ones, so that one answer is right."""
    rng = np.random.default_rng(seed)
    names = [n for n in oracle.PILLOW_OPS if n not in oracle.SIGNED]
    pictures = images.synthetic(3, 30, 41)
    batch = torch.from_numpy(np.stack(pictures))
    for _ in range(25):
        row = tuple((str(rng.choice(names)), 1.0, int(rng.integers(10))) for _ in range(5))
        # One signed operation in the middle, at index 0: the identity, whatever the sign...
        row = (*row[:2], (str(rng.choice(oracle.SIGNED)), 1.0, 0), *row[2:])
        moved = PolicyTransform([row])
        moved = with_kernels(moved, kernels)
        for picture, result in zip(pictures, moved(batch).numpy(), strict=True):
            assert result.tobytes() == chain(picture, row, (False,) * 6), row


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@pytest.mark.parametrize("fill", [200, (10, 20, 30)])
@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"])
def test_fill(name, fill, kernels):
    """Vacated pixels get the fill, and a table drawn before is not applied to it."""
    picture = images.synthetic(3, 33, 47)[0]
    pil = Image.fromarray(255 - np.ascontiguousarray(picture.transpose(1, 2, 0)))
    colour = fill if isinstance(fill, tuple) else (fill,) * 3
    generator = torch.Generator().manual_seed(0)
    moved = PolicyTransform(
        [[("Invert", 1.0, None), (name, 1.0, 9)]], fill=fill, generator=generator
    )
    moved = with_kernels(moved, kernels)
    result = moved(torch.from_numpy(picture)).numpy()
    whole = Image.new("L", pil.size, 255)
    wants = []
    for sign in (False, True):
        out, mask = oracle.apply(pil, name, 9, sign), oracle.apply(whole, name, 9, sign)
        background = Image.new("RGB", pil.size, colour)
        background.paste(out, mask=mask)
        wants.append(oracle.to_chw(background).tobytes())
    assert result.tobytes() in wants


def test_trivialaugment_reaches_right_angles():
    """Index 20 of 31 is exactly 90 degrees, which Pillow turns by transposing."""
    assert CONVENTIONS["trivialaugment"].parameter("Rotate", 20, False, 8, 8) == 90.0
    picture = images.synthetic(3, 16, 16)[0]
    want = {np.rot90(picture, k, axes=(1, 2)).tobytes() for k in (1, 3)}
    moved = PolicyTransform([[("Rotate", 1.0, 20)]], "trivialaugment")
    got = {moved(torch.from_numpy(picture)).numpy().tobytes() for _ in range(20)}
    assert got == want
    assert set(TrivialAugmentWide()._names) == set(RANDAUGMENT_OPS)


@pytest.mark.slow
def test_a_processor_without_vector_tables_gives_the_same_bytes():
    """All of the above with what every x86-64 or ARM processor has."""
    plain = dict(os.environ, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    program = "from policies.lane_arithmetic import HAS_LOOK_UP; import sys; sys.exit(HAS_LOOK_UP)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], env=plain, cwd=root, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-k", "not torch", __file__],
        env=plain, cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
