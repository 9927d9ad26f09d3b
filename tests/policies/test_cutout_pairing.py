"""Cutout and SamplePairing: the two operations Pillow has no function for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from policies import CONVENTIONS, PolicyTransform
from tests.policies import images, oracle
from tests.policies.on_torch import with_kernels

ALARM = 1e-4


def transform(rows: list, seed: int, kernels: str) -> PolicyTransform:
    result = PolicyTransform(rows, generator=torch.Generator().manual_seed(seed))
    return with_kernels(result, kernels)


def centre_of(mask: np.ndarray, side: int) -> tuple[range, range]:
    """Centres that explain a mask: the square may have been clipped at the borders."""

    def axis(occupied: np.ndarray) -> range:
        size, (first, last) = len(occupied), np.flatnonzero(occupied)[[0, -1]]
        low = first + side // 2 if first > 0 else last + 1 - side + side // 2
        high = last + 1 - side + side // 2 if last < size - 1 else first + side // 2
        return range(max(min(low, high), 0), min(max(low, high), size - 1) + 1)

    return axis(mask.any(axis=1)), axis(mask.any(axis=0))


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
class TestCutout:
    @pytest.mark.parametrize("size", [(28, 28), (33, 47), (1, 7), (64, 16)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_is_a_grey_square_about_some_pixel(self, size, channels, kernels):
        picture = images.synthetic(channels, *size)[0].copy()
        picture[picture == 128] = 127
        batch = torch.from_numpy(np.stack([picture] * 30))
        for index in range(10):
            side = int(60 / 331 * min(size) * index / 9 + 1e-6)
            assert CONVENTIONS["paper"].parameter("Cutout", index, False, *size) == side
            for result in transform([[("Cutout", 1.0, index)]], index, kernels)(batch).numpy():
                changed = (result != picture).any(axis=0)
                if not changed.any():
                    assert side == 0
                    continue
                rows, columns = centre_of(changed, side)
                pil = oracle.to_pil(picture)
                assert np.array_equal(
                    result, oracle.to_chw(oracle.cutout(pil, side, rows[0], columns[0]))
                )

    def test_centre_is_uniform_over_the_pixels(self, kernels):
        """A pixel well inside is covered by side**2 of the height * width centres."""
        height, width, n = 40, 30, 20_000
        batch = torch.zeros(n, 1, height, width, dtype=torch.uint8)
        side = int(60 / 331 * width)
        covered = transform([[("Cutout", 1.0, 9)]], 0, kernels)(batch).numpy()[:, 0] == 128
        p = side**2 / (height * width)
        for y, x in ((10, 8), (20, 15), (30, 22)):
            hits = int(covered[:, y, x].sum())
            assert stats.binomtest(hits, n, p).pvalue > ALARM
        # A corner pixel is covered by the centres of one quadrant only.
        before, after = side // 2, side - side // 2
        hits = int(covered[:, 0, 0].sum())
        assert stats.binomtest(hits, n, (before + 1) ** 2 / (height * width)).pvalue > ALARM
        hits = int(covered[:, -1, -1].sum())
        assert stats.binomtest(hits, n, after**2 / (height * width)).pvalue > ALARM

    def test_two_cutouts_lie_in_different_places(self, kernels):
        batch = torch.zeros(50, 1, 33, 33, dtype=torch.uint8)
        one = transform([[("Cutout", 1.0, 9)]], 1, kernels)(batch)
        two = transform([[("Cutout", 1.0, 9)] * 2], 1, kernels)(batch)
        assert (two == 128).sum() > 1.5 * (one == 128).sum()


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
class TestSamplePairing:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_blends_with_another_image_of_the_batch(self, channels, kernels):
        batch = np.concatenate([images.synthetic(channels, 12, 17), images.synthetic(
            channels, 12, 17)[:1]])  # fmt: skip
        batch[-1] = 255 - batch[-1]
        pils = [oracle.to_pil(picture) for picture in batch]
        for index in range(10):
            weight = oracle.linspace(0, 0.4, index)
            results = transform([[("SamplePairing", 1.0, index)]], index, kernels)(
                torch.from_numpy(batch)
            ).numpy()
            for i, result in enumerate(results):
                wants = [
                    oracle.to_chw(Image.blend(pils[i], other, weight))
                    for j, other in enumerate(pils)
                    if j != i
                ]
                assert any(np.array_equal(result, want) for want in wants), (index, i)

    def test_partner_is_uniform_among_the_others(self, kernels):
        n, repeats = 6, 4000
        batch = torch.from_numpy(
            np.arange(n, dtype=np.uint8)[:, None, None, None] * 50 * np.ones((1, 1, 2, 2), np.uint8)
        )
        moved = transform([[("SamplePairing", 1.0, 9)]], 3, kernels)
        counts = np.zeros((n, 256), int)
        for _ in range(repeats if kernels == "auto" else repeats // 4):
            values = moved(batch).numpy()[:, 0, 0, 0]
            counts[np.arange(n), values] += 1
        weight = np.float32(oracle.linspace(0, 0.4, 9))
        for i in range(n):
            a = np.float32(50 * i)
            wants = [int(a + weight * (np.float32(50 * j) - a)) for j in range(n) if j != i]
            assert counts[i].sum() == counts[i][wants].sum(), "paired with itself"
            assert stats.chisquare(counts[i][wants]).pvalue > ALARM

    @pytest.mark.long
    def test_two_pairings_draw_their_partners_independently(self, kernels):
        """Of 4 others, the second partner is the first one again in a quarter of the cases."""
        n, batch = 2000, torch.tensor([0, 60, 120, 180, 240], dtype=torch.uint8).view(5, 1, 1, 1)
        moved = transform([[("SamplePairing", 1.0, 9)] * 2], 2, kernels)
        weight = np.float32(oracle.linspace(0, 0.4, 9))

        def blend(a: int, b: int) -> int:
            return int(np.float32(a) + weight * np.float32(b - a))

        others = (60, 120, 180, 240)
        same = {blend(blend(0, b), b) for b in others}
        different = {blend(blend(0, b), c) for b in others for c in others if b != c}
        assert not same & different
        results = [int(moved(batch)[0]) for _ in range(n)]
        assert set(results) <= same | different
        assert stats.binomtest(sum(r in same for r in results), n, 0.25).pvalue > ALARM

    def test_partner_is_taken_as_given(self, kernels):
        """Not as augmented so far: inverting first does not invert the partner."""
        batch = torch.tensor([0, 200], dtype=torch.uint8).view(2, 1, 1, 1)
        row = [("Invert", 1.0, None), ("SamplePairing", 1.0, 9)]
        result = transform([row], 0, kernels)(batch).flatten().tolist()
        weight = np.float32(oracle.linspace(0, 0.4, 9))
        assert result == [
            int(np.float32(255) + weight * np.float32(200 - 255)),
            int(np.float32(55) + weight * np.float32(0 - 55)),
        ]

    def test_alone_it_stays_as_it_is(self, kernels):
        picture = torch.from_numpy(images.synthetic(3, 9, 9)[0])
        moved = transform([[("SamplePairing", 1.0, 9)]], 0, kernels)
        assert torch.equal(moved(picture), picture)
        assert torch.equal(moved(picture[None])[0], picture)
