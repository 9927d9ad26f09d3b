"""MixUp, CutMix, erasing, losses and repeated augmentation, each against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policies.errors import InputError
from proxy_tasks.mixing import binary_cross_entropy, cross_entropy, erase, make_loss, make_mix
from proxy_tasks.samplers import RepeatedAugmentationSampler, repeated_order


@pytest.fixture(autouse=True)
def own_state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def constant_images(count: int, side: int = 16) -> torch.Tensor:
    """Image i has the value i in every pixel, so that each pixel tells where it comes from."""
    return torch.arange(count).float()[:, None, None, None].expand(count, 3, side, side).clone()


class TestMix:
    def test_nothing_asked_nothing_done(self):
        assert make_mix(0, 0, 5) is None

    @pytest.mark.parametrize("arguments", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
    def test_targets_are_the_shares_of_the_images_classes(self, arguments):
        # All labels differ, so column k of the targets is the share of image k.
        count = 6
        images, labels = constant_images(count), torch.arange(count)
        mix = make_mix(*arguments, count)
        for _ in range(50):
            mixed, targets = mix(images, labels)
            assert targets.shape == (count, count)
            assert torch.allclose(targets.sum(1), torch.ones(count))
            assert ((targets > 0).sum(1) <= 2).all()
            # A mean pixel is the sum of the images' values by their shares, for both kinds.
            values = torch.arange(count).float()
            assert torch.allclose(mixed.mean((1, 2, 3)), targets @ values, atol=1e-4)
        assert torch.equal(images, constant_images(count)), "the input must not be written"

    def test_mixup_is_the_same_line_at_every_pixel_and_cutmix_a_rectangle(self):
        images, labels = constant_images(4), torch.arange(4)
        mixed, targets = make_mix(0.4, 0, 4)(images, labels)
        assert torch.equal(mixed, mixed[:, :1, :1, :1].expand_as(mixed))
        # Shares are drawn until one is well inside the image.
        cut = make_mix(0, 1.0, 4)
        for _ in range(20):
            mixed, targets = cut(images, labels)
            foreign = mixed[1, 0] != 1
            rows, columns = foreign.any(1), foreign.any(0)
            assert torch.equal(foreign, rows[:, None] & columns[None, :])
            for line in (rows, columns):
                places = line.nonzero()[:, 0]
                assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)
            assert targets[1, 1].item() == pytest.approx(1 - foreign.float().mean().item())

    @pytest.mark.parametrize("alpha", [0.2, 1.0])
    def test_shares_of_mixup_follow_the_beta_distribution(self, alpha):
        mix, images = make_mix(alpha, 0, 2), torch.zeros(2, 1, 1, 1)
        shares = [mix(images, torch.tensor([0, 1]))[1][0, 0].item() for _ in range(2000)]
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-4

    @pytest.mark.long
    def test_cutmix_takes_the_square_root_of_the_share_as_side(self):
        # Definition: sides W sqrt(1 - l), H sqrt(1 - l), centre uniform, clipped at the border;
        # with l uniform (alpha = 1). Mean foreign area by quadrature, over pixels of a fine image.
        side = 64
        images, labels = constant_images(2, side), torch.tensor([0, 1])
        mix = make_mix(0, 1.0, 2)
        areas = np.array([1 - mix(images, labels)[1][0, 0].item() for _ in range(3000)])
        share = (np.arange(1000) + 0.5) / 1000
        half = (0.5 * np.sqrt(1 - share) * side).astype(int)
        centre = np.arange(side)[:, None]
        lengths = np.minimum(centre + half, side) - np.maximum(centre - half, 0)
        expected = (lengths.mean(0) ** 2 / side**2).mean()
        assert abs(areas.mean() - expected) < 5 * areas.std() / math.sqrt(len(areas))

    def test_both_are_drawn_equally_often(self):
        images, labels = constant_images(4), torch.arange(4)
        mix, n = make_mix(1.0, 1.0, 4), 400
        flat = 0
        for _ in range(n):
            mixed = mix(images, labels)[0]
            # CutMix keeps whole numbers; a MixUp share of exactly 0 or 1 has probability 0.
            flat += not torch.equal(mixed, mixed.round())
        assert abs(flat - n / 2) < 5 * math.sqrt(n / 4)


class TestErase:
    def test_share_of_images_and_size_and_shape_of_rectangles(self):
        n, side, p = 4000, 64, 0.3
        images = erase(torch.ones(n, 1, side, side), p)
        areas, ratios = [], []
        for hole in (images[:, 0] == 0).numpy():
            if not hole.any():
                continue
            rows, columns = hole.any(1), hole.any(0)
            assert (hole == rows[:, None] & columns[None, :]).all(), "one rectangle an image"
            areas.append(hole.mean())
            ratios.append(rows.sum() / columns.sum())
        assert abs(len(areas) - p * n) < 5 * math.sqrt(n * p * (1 - p))
        # Sides are rounded to pixels: half a pixel in the least side, 64 sqrt(0.02 * 0.3) = 5.
        assert 0.02 * 0.8 < min(areas) and max(areas) < 0.33 * 1.05
        assert 0.3 * 0.85 < min(ratios) and max(ratios) < 3.3 * 1.15
        # Nearly uniform area: rectangles that do not fit are drawn anew, which takes from the
        # largest only. Median of the uniform distribution 0.175.
        assert abs(np.median(areas) - 0.175) < 0.02
        assert abs(np.median(np.log(ratios))) < 0.1

    def test_every_image_draws_for_itself(self):
        holes = (erase(torch.ones(32, 1, 32, 32), 1.0) == 0).flatten(1)
        assert len({tuple(hole.tolist()) for hole in holes}) > 28

    def test_never_and_always(self):
        assert torch.equal(erase(torch.ones(50, 1, 8, 8), 0.0), torch.ones(50, 1, 8, 8))
        assert (erase(torch.ones(50, 1, 32, 32), 1.0) == 0).flatten(1).any(1).all()


class TestLosses:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    labels = torch.tensor([2, 1])
    shares = torch.tensor([[0.3, 0.0, 0.7], [0.0, 0.9, 0.1]])

    def softmax_sum(self, targets):
        z = self.logits.double().numpy()
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        return float(-(np.asarray(targets, float) * log_p).sum(1).mean())

    def logistic_sum(self, targets):
        p = 1 / (1 + np.exp(-self.logits.double().numpy()))
        t = np.asarray(targets, float)
        return float(-(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(1).mean())

    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
    def test_labels_and_shares_with_smoothing(self, smoothing):
        for targets, dense in ((self.labels, np.eye(3)[self.labels]), (self.shares, self.shares)):
            smooth = (1 - smoothing) * np.asarray(dense) + smoothing / 3
            found = cross_entropy(self.logits, targets, smoothing).item()
            assert found == pytest.approx(self.softmax_sum(smooth), rel=1e-5)
            found = binary_cross_entropy(self.logits, targets, smoothing).item()
            assert found == pytest.approx(self.logistic_sum(smooth), rel=1e-5)

    def test_threshold_makes_mixed_classes_wholly_present(self):
        found = binary_cross_entropy(self.logits, self.shares, 0.0, 0.2).item()
        assert found == pytest.approx(self.logistic_sum([[1, 0, 1], [0, 1, 0]]), rel=1e-5)
        labels = binary_cross_entropy(self.logits, self.labels, 0.0, 0.2).item()
        assert labels == pytest.approx(self.logistic_sum(np.eye(3)[self.labels]), rel=1e-5)

    def test_own_losses_by_import_path(self):
        function = make_loss("torch.nn.functional:cross_entropy")
        module = make_loss("torch.nn:CrossEntropyLoss")
        for own in (function, module, make_loss("cross-entropy")):
            assert own(self.logits, self.shares).item() == pytest.approx(
                self.softmax_sum(self.shares), rel=1e-5
            )

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("cross-entrpy",), "did you mean 'cross-entropy'"),
            (("torch.nn:NoSuchLoss",), "loss: must name something in torch.nn"),
            (
                ("torch.nn:TripletMarginWithDistanceLoss.forward",),
                "loss: must take logits and targets",
            ),
            (("collections:Counter",), "loss: must take logits"),
            (
                ("torch.nn:Linear",),
                r"loss: must be built without arguments, .*Linear \(missing .*in_features",
            ),
            (("torch.nn:CrossEntropyLoss", 0.1), "smooth its own labels"),
            (("cross-entropy", 0.0, 0.2), "threshold: is a setting of binary"),
        ],
    )
    def test_mistakes(self, arguments, words):
        with pytest.raises(InputError, match=words):
            make_loss(*arguments)


sizes = st.integers(1, 60)


class TestRepeatedAugmentation:
    @given(count=sizes, repeats=st.integers(1, 5), batch=sizes, seed=st.integers(0, 9))
    def test_copies_of_an_image_share_batches(self, count, repeats, batch, seed):
        batches = [batch] * (count // batch) + ([count % batch] if count % batch else [])
        order = repeated_order(count, repeats, batches, np.random.default_rng(seed))
        assert len(order) == count
        images, copies = np.unique(order, return_counts=True)
        assert len(images) == math.ceil(count / repeats)
        assert sorted(copies)[1:] == [repeats] * (len(images) - 1), "only one may be cut"
        place = np.repeat(np.arange(len(batches)), batches)
        spread = [np.ptp(place[order == image]) for image in images]
        if batch % repeats == 0:
            assert not any(spread)
        # Copies follow each other before a batch is shuffled, so they reach over edges at most.
        assert max(spread) <= math.ceil(repeats / batch)

    def test_without_repeats_it_is_a_permutation_and_draws_nothing_else(self):
        one, other = np.random.default_rng(5), np.random.default_rng(5)
        assert np.array_equal(repeated_order(20, 1, [7, 7, 6], one), other.permutation(20))
        assert one.random() == other.random()

    def test_neighbours_are_not_copies_more_often_than_shuffled(self):
        # Mixing pairs neighbours. 600 samples in batches of 60, 20 images with 3 copies each:
        # in a shuffled batch a neighbour is a copy with probability 2 / 59.
        order = repeated_order(600, 3, [60] * 10, np.random.default_rng(0)).reshape(10, 60)
        same = (order == np.roll(order, 1, axis=1)).sum()
        p = 2 / 59
        assert abs(same - 600 * p) < 6 * math.sqrt(600 * p * (1 - p))

    @given(
        world=st.integers(1, 4),
        per=st.integers(1, 8),
        repeats=st.integers(1, 4),
        size=st.integers(4, 99),
    )
    def test_processes_share_every_global_batch(self, world, per, repeats, size):
        batch = world * per

        def sampler(rank, of):
            return RepeatedAugmentationSampler(
                size, repeats, batch_size=batch, rank=rank, world_size=of, seed=3
            )

        total = size // world * world
        parts = [list(sampler(rank, world)) for rank in range(world)]
        assert [len(p) for p in parts] == [len(sampler(0, world))] * world
        together = [i for turn in zip(*parts, strict=True) for i in turn]
        images, copies = np.unique(together, return_counts=True)
        assert len(together) == total and len(images) == math.ceil(total / repeats)
        assert copies.max() <= repeats
        if total == size:
            assert together == list(sampler(0, 1)), "one order, whatever the number of processes"

    def test_epochs_and_seeds_differ_and_repeat(self):
        def order(epoch, seed):
            sampler = RepeatedAugmentationSampler(50, 2, batch_size=10, seed=seed)
            sampler.set_epoch(epoch)
            return list(sampler)

        assert order(1, 0) == order(1, 0)
        assert order(1, 0) != order(2, 0) and order(1, 0) != order(1, 1)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"batch_size": 9, "world_size": 2}, "must be a multiple of the 2 processes"),
            ({"batch_size": 8, "world_size": 2, "rank": 2}, r"rank: must be an integer in 0\.\.1"),
            ({"batch_size": 8, "repeats": 0}, "repeats: must be at least 1"),
        ],
    )
    def test_mistakes(self, options, words):
        with pytest.raises(InputError, match=words):
            RepeatedAugmentationSampler(10, **options)
