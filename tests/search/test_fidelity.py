"""What a fidelity study evaluates: policies of searches beside the others, without renumbering."""

from __future__ import annotations

import dataclasses

import pytest

from policies import IMAGENET, InputError, Policy, save_policy
from proxy_tasks.run_format import FOUND_LABEL, RANDOM_LABEL
from search import Config
from search.studies.fidelity import FIRST_FOUND, cheap_evaluators, fidelity_candidates, with_arms

MINE = Policy([[("Rotate", 0.5, 3)]])


def asked(*files, policies=9, **values):
    config = Config.of("fidelity", policies=policies, seeds=2, policy=tuple(files), **values)
    return with_arms(config)


def test_random_candidates_bear_the_label_that_reports_look_for():
    told = {c.label: c.augmentation for c in fidelity_candidates(asked(policies=20))}
    labelled = {label for label in told if label.startswith(RANDOM_LABEL)}
    fives = {label for label in told if label.startswith("random ") and len(told[label]) == 5}
    assert labelled == fives and len(labelled) >= 10


def test_policies_of_searches_are_judged_by_everyone(tmp_path):
    save_policy(tmp_path / "mine.json", MINE)
    config = asked(str(tmp_path / "mine.json"), "imagenet")
    found = [c for c in fidelity_candidates(config) if c.label.startswith(FOUND_LABEL)]
    assert {c.augmentation for c in found if c.slot == FIRST_FOUND} == {MINE}
    assert {c.augmentation for c in found if c.slot == FIRST_FOUND + 1} == {IMAGENET}
    others = [c for c in fidelity_candidates(config) if c.slot == 0]
    assert [(c.batch, c.scorer, c.seed) for c in others] == [
        (c.batch, c.scorer, c.seed) for c in found if c.slot == FIRST_FOUND
    ]
    (tmp_path / "mine.json").unlink()  # the folder holds what it was
    assert fidelity_candidates(config) == fidelity_candidates(Config.from_json(config.to_json()))


def test_more_of_everything_renumbers_nothing():
    few = {c.key: c for c in fidelity_candidates(asked("imagenet"))}
    many = {c.key: c for c in fidelity_candidates(asked("imagenet", "svhn", policies=12))}
    assert all(many[key] == candidate for key, candidate in few.items())
    assert len(many) > len(few)


@pytest.mark.parametrize("arm", ["none+cutmix:1.0", "random:5"])
def test_what_is_no_single_policy_is_refused(arm):
    with pytest.raises(InputError, match="single policies"):
        fidelity_candidates(asked(arm))


def test_evaluators_whose_names_become_one_are_refused():
    wanted = {"a b": {"kind": "synthetic"}, "a-b": {"kind": "synthetic"}}
    with pytest.raises(InputError, match="evaluators, a-b: must differ from the other names"):
        cheap_evaluators(asked("imagenet", evaluators=wanted))


def test_grown_by_a_policy_the_first_stay_what_they_were():
    one, two = asked("imagenet").settings, asked("svhn", "imagenet").settings
    grown = two.grown_from(one)
    assert grown.policy == ("imagenet", "svhn")
    changed = dataclasses.replace(one, arms=({**one.arms[0], "members": []},))
    with pytest.raises(InputError, match="must be what it was"):
        two.grown_from(changed)
