"""Random behaviour: every image draws for itself, with the frequencies the policy states.

Seen from outside: one-pixel-exact outcomes of identical images are counted and compared with the
expected counts by a chi-square test. A correct transform fails a test with probability
``ALARM``; seeds are fixed, so it does not fail at random.
"""

from __future__ import annotations

import collections
import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from policies import (
    IMAGENET,
    PolicyTransform,
    RandAugment,
    Schedule,
    ScheduleTransform,
    TrivialAugmentWide,
    UniformAugment,
)
from policies.generators import _Travelling
from policies.ops import RANDAUGMENT_OPS, UNIFORMAUGMENT_OPS
from tests.policies import oracle
from tests.policies.on_torch import with_kernels

N = 20_000
ALARM = 1e-4
# Coloured, and changed by every operation: neither full range nor equalised.
RAMP = np.stack([(np.arange(256) ** 2 // k + 5).astype(np.uint8) for k in (300, 400, 500)])
RAMP = RAMP.reshape(3, 16, 16)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outcomes(policy: list, seed: int = 0, n: int = N) -> collections.Counter:
    """How often each result comes out of ``n`` copies of one image, in one batch."""
    batch = torch.from_numpy(np.stack([RAMP] * n))
    results = PolicyTransform(policy, generator=seeded(seed))(batch).numpy()
    return collections.Counter(result.tobytes() for result in results)


def chain(*steps: tuple) -> bytes:
    image = oracle.to_pil(RAMP)
    for name, index, negative in steps:
        image = oracle.apply(image, name, index, negative)
    return oracle.to_chw(image).tobytes()


def assert_frequencies(counts: list[int], probabilities: list[float]) -> None:
    if len(counts) == 1:
        return  # one outcome possible, and the caller has checked that no other occurred
    expected = np.array(probabilities) * sum(counts)
    assert math.isclose(sum(probabilities), 1.0) and expected.min() >= 5
    assert stats.chisquare(counts, expected).pvalue > ALARM, (counts, expected)


class TestFrequencies:
    def test_sub_policies_are_drawn_uniformly(self):
        indices = [*range(1, 10), 5]  # row 5 is there twice: drawn twice as often
        counts = outcomes([[("Solarize", 1.0, i)] for i in indices])
        keys = {i: chain(("Solarize", i, False)) for i in range(1, 10)}
        assert set(counts) == set(keys.values())
        weights = [0.2 if i == 5 else 0.1 for i in keys]
        assert_frequencies([counts[k] for k in keys.values()], weights)

    def test_probability_tests_are_independent(self):
        a, b = ("Invert", None, False), ("Posterize", 9, False)
        counts = outcomes([[("Invert", 0.3, None), ("Posterize", 0.6, 9)]])
        keys = [chain(), chain(a), chain(b), chain(a, b)]
        assert set(counts) <= set(keys)
        assert_frequencies([counts[k] for k in keys], [0.28, 0.12, 0.42, 0.18])

    def test_signs_are_independent(self):
        counts = outcomes([[("TranslateX", 1.0, 5), ("Brightness", 1.0, 4)]])
        keys = [
            chain(("TranslateX", 5, s), ("Brightness", 4, t))
            for s in (False, True)
            for t in (False, True)
        ]
        assert set(counts) == set(keys)
        assert_frequencies([counts[k] for k in keys], [0.25] * 4)

    @pytest.mark.parametrize("row", range(25))
    def test_each_published_sub_policy(self, row):
        """Both probabilities and signs of every row of the ImageNet policy."""
        wanted: collections.Counter = collections.Counter()
        branches = [((), 1.0)]
        for op in IMAGENET[row]:
            signs = (False, True) if op.name in oracle.SIGNED else (False,)
            branches = [
                branch
                for steps, p in branches
                for branch in [
                    (steps, p * (1 - op.probability)),
                    *(
                        ((*steps, (op.name, op.magnitude, s)), p * op.probability / len(signs))
                        for s in signs
                    ),
                ]
            ]
        for steps, p in branches:
            if p > 0:
                wanted[chain(*steps)] += p
        counts = outcomes([IMAGENET[row]], seed=row, n=4000)
        assert set(counts) <= set(wanted)
        assert_frequencies([counts[k] for k in wanted], list(wanted.values()))

    def test_probability_zero_never_and_one_always(self):
        assert set(outcomes([[("Invert", 0.0, None)]])) == {chain()}
        assert set(outcomes([[("Invert", 1.0, None)]])) == {chain(("Invert", None, False))}

    def test_rows_of_unequal_length(self):
        counts = outcomes([[("Invert", 1.0, None)], [("Invert", 1.0, None)] * 2])
        assert_frequencies([counts[chain()], counts[chain(("Invert", None, False))]], [0.5, 0.5])

    def test_same_frequencies_one_image_at_a_time(self):
        moved = PolicyTransform([[("Invert", 0.3, None)]], generator=seeded(5))
        image = torch.from_numpy(RAMP)
        changed = sum(not torch.equal(moved(image), image) for _ in range(3000))
        assert_frequencies([changed, 3000 - changed], [0.3, 0.7])


def drawn(transform, n: int) -> tuple:
    program = transform._draw(n, 3, 32, 32)
    return program.table, program.steps


class TestOtherTransforms:
    def test_randaugment_draws_operations_and_signs_uniformly(self):
        _, steps = drawn(RandAugment(2, 9, generator=seeded(0)), N)
        for slot in range(2):
            counts = np.bincount(steps[:, slot], minlength=28)
            assert_frequencies(list(counts), [1 / 28] * 28)
        pairs = np.bincount(steps[:, 0] // 2 * 14 + steps[:, 1] // 2, minlength=196)
        assert_frequencies(list(pairs), [1 / 196] * 196)  # with replacement, independent

    def test_trivialaugment_draws_operation_magnitude_and_sign_uniformly(self):
        """Jointly: one count for each of 14 operations x 31 magnitudes x 2 signs."""
        _, steps = drawn(TrivialAugmentWide(generator=seeded(1)), N)
        cells = 14 * 31 * 2
        assert_frequencies(list(np.bincount(steps[:, 0], minlength=cells)), [1 / cells] * cells)

    def test_uniformaugment_applies_half_of_its_operations(self):
        table, steps = drawn(UniformAugment(generator=seeded(2)), N)
        codes = table.codes[steps]
        # p ~ U[0, 1], applied with p: one half. Shears, translations and rotation may round to
        # nothing, so the count is taken over operations that cannot: Invert, 1 of 15.
        inverted = int((codes == 1).sum())
        expected = 2 * N / 15 / 2
        assert abs(inverted - expected) < stats.norm.isf(ALARM / 2) * math.sqrt(expected)
        applied = int((codes != 0).sum()) / (2 * N)
        assert 0.45 < applied <= 0.5 + 4 * 0.5 / math.sqrt(2 * N)

    def test_uniformaugment_magnitudes_fill_the_range(self):
        table, _ = drawn(UniformAugment(generator=seeded(3)), N)
        factors = table.values[table.codes == 8]  # Color: 1 +- 0.9
        assert stats.kstest(factors, stats.uniform(0.1, 1.8).cdf).pvalue > ALARM
        assert "SamplePairing" not in UNIFORMAUGMENT_OPS and len(UNIFORMAUGMENT_OPS) == 15

    def test_as_policy_is_the_same_distribution(self):
        policy = RandAugment(2, 9).as_policy()
        assert len(policy) == len(set(policy)) == 14**2 and policy.bins == 31
        assert {op.name for row in policy for op in row} == set(RANDAUGMENT_OPS)
        assert all(op.magnitude in (9, None) and op.probability == 1 for r in policy for op in r)
        wide = TrivialAugmentWide().as_policy()
        assert len(wide) == 14 * 31 and wide.bins == 31
        # As distributions over outcomes: two-sample chi-square on one small image.
        batch = torch.from_numpy(np.stack([RAMP] * N))
        ours = PolicyTransform(policy, "randaugment", generator=seeded(4))(batch).numpy()
        theirs = RandAugment(2, 9, generator=seeded(5))(batch).numpy()
        a, b = (collections.Counter(r.tobytes() for r in rs) for rs in (ours, theirs))
        keys = [k for k in a | b if a[k] + b[k] >= 20]
        table = [[a[k] for k in keys], [b[k] for k in keys]]
        assert stats.chi2_contingency(table).pvalue > ALARM

    def test_randaugment_of_nothing(self):
        image = torch.from_numpy(RAMP)
        assert torch.equal(RandAugment(0, 9)(image), image)


class TestBatch:
    @pytest.mark.parametrize(
        "transform", [PolicyTransform(IMAGENET), RandAugment(), TrivialAugmentWide(),
                      UniformAugment()], ids=lambda t: type(t).__name__,
    )  # fmt: skip
    def test_identical_images_come_out_differently(self, transform):
        noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
        batch = torch.from_numpy(np.stack([noise] * 64))
        results = transform.with_generator(seeded(0))(batch).numpy()
        assert len({r.tobytes() for r in results}) > 10

    def test_neighbours_are_independent(self):
        batch = torch.from_numpy(np.stack([RAMP] * N))
        results = PolicyTransform([[("Invert", 0.5, None)]], generator=seeded(6))(batch).numpy()
        changed = results[:, 0, 0, 0] == 250
        pairs = np.bincount(2 * changed[0::2] + changed[1::2], minlength=4)
        assert_frequencies(list(pairs), [0.25] * 4)


class TestGenerator:
    def test_same_state_same_bytes(self):
        batch = torch.randint(0, 256, (40, 3, 20, 20), dtype=torch.uint8)
        for make in (RandAugment, TrivialAugmentWide, UniformAugment):
            a, b = (make(generator=seeded(7))(batch) for _ in range(2))
            assert torch.equal(a, b)
            assert not torch.equal(a, make(generator=seeded(8))(batch))

    def test_threads_and_kernels_do_not_change_the_bytes(self):
        batch = torch.randint(0, 256, (37, 3, 20, 31), dtype=torch.uint8)
        policy = [
            [("Cutout", 0.7, 9), ("SamplePairing", 0.7, 9)],
            [("Rotate", 1.0, 9), ("Equalize", 0.5, None)],
        ]
        alone = PolicyTransform(policy, generator=seeded(9))
        torch_kernels = with_kernels(PolicyTransform(policy, generator=seeded(9)), "torch")
        want = alone(batch)
        assert torch.equal(want, torch_kernels(batch))
        for threads in (2, 3, 64):
            moved = PolicyTransform(policy, generator=seeded(9), threads=threads)
            assert torch.equal(want, moved(batch))

    def test_explicit_generator_leaves_the_global_one_alone(self):
        before = torch.get_rng_state()
        RandAugment(generator=seeded(0))(torch.from_numpy(RAMP))
        assert torch.equal(before, torch.get_rng_state())

    def test_global_generator_without_one(self):
        batch = torch.from_numpy(np.stack([RAMP] * 10))
        results = []
        for _ in range(2):
            torch.manual_seed(11)
            results.append(RandAugment()(batch))
        assert torch.equal(*results)

    def test_with_generator_is_a_copy(self):
        first = PolicyTransform(IMAGENET, generator=seeded(1))
        second = first.with_generator(seeded(2))
        assert first.generator.initial_seed() == 1 and second.generator.initial_seed() == 2
        assert first.with_generator(None).generator is None

    def test_pickle_carries_the_state(self):
        moved = PolicyTransform(IMAGENET, generator=seeded(3))
        batch = torch.from_numpy(np.stack([RAMP] * 10))
        moved(batch)  # not in the initial state any more
        again = pickle.loads(pickle.dumps(moved))
        assert again == moved and torch.equal(again(batch), moved(batch))

    @pytest.mark.parametrize("through", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_transforms_that_share_a_generator_share_one_in_their_copies(self, through):
        """Else both would draw the same, in the copies alone: in a spawned worker, say."""
        generator = seeded(3)
        pair = [PolicyTransform(IMAGENET, generator=generator) for _ in range(2)]
        copies = through(pair)
        batch = torch.from_numpy(np.stack([RAMP] * 10))
        for one, other in (copies, pair):
            assert not torch.equal(one(batch), other(batch))
        assert copies == pair and copies[0].generator is copies[1].generator is not generator

    @pytest.mark.parametrize("through", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_copies_of_a_schedule_draw_as_it_does(self, through):
        schedule = ScheduleTransform(Schedule([(0, IMAGENET)], 2), seeded(3))
        again, batch = through(schedule), torch.from_numpy(np.stack([RAMP] * 10))
        assert again == schedule and hash(again) == hash(schedule)
        assert torch.equal(again.at_epoch(0)(batch), schedule.at_epoch(0)(batch))
        again.at_epoch(1)(batch)
        assert again != schedule != ScheduleTransform(schedule.schedule)
        # Torch's own way to send a generator is shared memory, which spawned workers cannot open.
        assert isinstance(schedule.__getstate__()["generator"], _Travelling)

    def test_equality_and_repr(self):
        assert PolicyTransform(IMAGENET) == PolicyTransform(tuple(IMAGENET))
        assert hash(PolicyTransform(IMAGENET)) == hash(PolicyTransform(IMAGENET))
        assert PolicyTransform(IMAGENET) != PolicyTransform(IMAGENET, "tf")
        assert PolicyTransform(IMAGENET) != PolicyTransform(IMAGENET, fill=3)
        assert PolicyTransform(IMAGENET) != PolicyTransform(IMAGENET, generator=seeded(0))
        assert RandAugment(2, 9) == RandAugment() != RandAugment(2, 8)
        assert RandAugment() != TrivialAugmentWide() and RandAugment() != "RandAugment"
        assert repr(RandAugment(3, 5, fill=(1, 2, 3), generator=seeded(4), threads=2)) == (
            "RandAugment(n=3, m=5, fill=(1, 2, 3), generator=<seed 4>, threads=2)"
        )
        assert repr(PolicyTransform([[("Invert", 0.5, None)]])) == (
            "PolicyTransform(policy=Policy(((('Invert', 0.5, None),),)), convention='paper')"
        )
