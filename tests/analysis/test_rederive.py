from __future__ import annotations

import numpy as np

from analysis import histogram_overlap, policy_statistics, write_rederivation
from analysis.rederive import chance_overlap
from policies import IMAGENET, PAPER_OPS, Policy, save_policy
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


def test_an_unfinished_search_is_reported_as_such(write_run, tmp_path):
    write_run([], {"kind": "rederive", "settings": {"evaluations": 9}}, name="run")
    write_run([journal_line(0, slot) for slot in range(6)], name="run/search")
    text = write_rederivation(tmp_path / "run").read_text()
    assert "Unfinished: 6 of 9 evaluations" in text and "not exported a policy yet" in text


def test_a_finished_one_sets_the_policies_side_by_side(write_run, tmp_path):
    write_run([], {"kind": "rederive", "settings": {"evaluations": 1}}, name="run")
    searched = write_run([journal_line(0, 0)], name="run/search")
    save_policy(searched / "policy.json", IMAGENET)
    noise = (-0.002, 0.002, -0.001, 0.001)
    arms = {"none": 0.50, "imagenet": 0.55, "search/policy.json": 0.551}
    rows = [
        journal_line(
            seed, slot, value + (slot == 2) * noise[seed], label=arm, part="test", seed=seed
        )
        for slot, (arm, value) in enumerate(arms.items())
        for seed in range(4)
    ]
    write_run(rows, {"kind": "compare"}, name="run/compare")
    text = write_rederivation(tmp_path / "run").read_text()
    assert "share 100 %" in text and "agree more than chance" in text
    assert "that for CIFAR10 49 %" in text and "that for SVHN 41 %" in text
    assert "search/policy.json against imagenet: +0.10 points" in text
    assert "equal within the margin" in text
    assert (searched / "report.md").is_file() and (tmp_path / "run/compare/compare.md").is_file()
