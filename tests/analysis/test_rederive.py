from __future__ import annotations

import numpy as np
import pytest

from analysis import histogram_overlap, policy_statistics, write_rederivation
from analysis.rederive import chance_overlap
from policies import IMAGENET, PAPER_OPS, InputError, Policy
from tests.analysis.journals import journal_line


def test_random_policies_overlap_as_chance_says():
    """Policies drawn operation by operation fall into the 95 % range 95 % of the time."""
    low, high = chance_overlap(25)
    published = policy_statistics([IMAGENET]).operations
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        names = rng.choice(PAPER_OPS, size=(25, 2))
        policy = Policy(
            [[(str(name), int(rng.integers(11)) / 10, 0) for name in row] for row in names]
        )
        overlap = histogram_overlap(policy_statistics([policy]).operations, published)
        inside += low <= overlap <= high
    # Binomial(300, 0.95): mean 285, five standard deviations 19; ties at the ends add a little.
    assert inside >= 266


def test_the_published_policy_itself_is_beyond_chance():
    assert chance_overlap(25)[1] < 1


def test_a_search_without_a_policy_yet_is_unfinished_not_a_crash(write_run, tmp_path):
    write_run([journal_line(0, slot) for slot in range(6)], name="search")
    with pytest.raises(InputError, match="a finished search.*6 results"):
        write_rederivation(tmp_path)
