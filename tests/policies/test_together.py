"""Several transforms' copies of a batch in one program, against each transform alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policies import (
    IMAGENET,
    OwnPipeline,
    Policy,
    PolicyTransform,
    RandAugment,
    TrivialAugmentWide,
    UniformAugment,
)
from policies.kernels_torch import run
from policies.together import join, joined, transform_copies

SHORT = Policy([[("Invert", 1.0, None)]])
PAIRS = Policy([[("SamplePairing", 1.0, 7), ("Rotate", 0.7, 8)], [("Cutout", 1.0, 9)]])


def seeded(transform, seed):
    return transform.with_generator(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_copies_are_what_each_makes_alone(channels):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (20, channels, 12, 9), np.uint8))
    makers = [
        PolicyTransform(PAIRS), None, PolicyTransform(SHORT), RandAugment(3, 9),
        TrivialAugmentWide(), PolicyTransform(IMAGENET), PolicyTransform(PAIRS), UniformAugment(),
    ]  # fmt: skip
    alone = [images if t is None else seeded(t, k)(images) for k, t in enumerate(makers)]
    again = [None if t is None else seeded(t, k) for k, t in enumerate(makers)]
    together = transform_copies(again, images)
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(alone[0], alone[6])  # another seed, so other draws


def test_what_is_left_as_it_is_has_no_fill_to_give():
    images = torch.full((4, 1, 8, 8), 200, dtype=torch.uint8)
    filled = PolicyTransform([[("Rotate", 1.0, 9)]], fill=7)
    together = transform_copies([None, seeded(filled, 0)], images)
    assert torch.equal(together, torch.cat([images, seeded(filled, 0)(images)]))
    assert (together[4:] == 7).any()


def test_nothing_at_all_is_left_as_it_is():
    images = torch.arange(2 * 9, dtype=torch.uint8).reshape(2, 1, 3, 3)
    assert torch.equal(transform_copies([None, None], images), torch.cat([images, images]))


def test_groups_are_shared():
    """What a launch is for: one group an operation and step, not one a transform."""
    transforms = [seeded(PolicyTransform(SHORT), k) for k in range(8)]
    program = joined([t._draw(5, 3, 8, 8) for t in transforms])
    assert program.steps.shape == (40, 1)
    assert set(program.table.codes[program.steps].ravel()) == {1}  # invert, and all of it
    images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    assert (run(images, program) == 255).all()


def test_what_has_no_common_program_is_told():
    plain = PolicyTransform(SHORT)
    assert join([plain, None, RandAugment(1, 3)]) and join([None, None])
    assert not join([plain, PolicyTransform(SHORT, fill=128)])
    assert not join([plain, OwnPipeline("tests.search.own_pipelines:pipeline")])
    assert not join([plain, lambda images: images])
