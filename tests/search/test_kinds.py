"""What help and documentation say of the options of a kind is what `Config.of` makes."""

from __future__ import annotations

import pytest

from policies import InputError
from search import Config
from search.studies.kinds import default_text, options_of_kind
from tests.golden.runs import FOLDER


@pytest.mark.parametrize(("kind", "name", "words"), [
    ("select", "evaluator", "the search's; from-scratch"), ("select", "workers", "the search's"),
    ("search", "evaluator", "of a staged search from-scratch; else as measured"),
    ("search", "workers", "the number of CPU cores"),
    ("rederive", "kernels", "plain of paper, fused of cpu"),
    ("rederive", "train_images", "6000 of paper, 1200 of cpu"),
    ("rederive", "reward", "accuracy of paper, calibrated_log_likelihood of cpu"),
])  # fmt: skip
def test_defaults_that_a_kind_decides_are_told(kind, name, words):
    (said,) = [default_text(each) for _, each in options_of_kind(kind) if each.name == name]
    assert words in said


@pytest.mark.parametrize(("preset", "kernels", "reward", "images"), [
    ("paper", "plain", "accuracy", None),  # None: the task's 6,000
    ("cpu", "fused", "calibrated_log_likelihood", 1200),
])  # fmt: skip
def test_of_a_re_derivation_they_are_so(preset, kernels, reward, images):
    config = Config.of("rederive", data="imagenet", preset=preset)
    found = config.evaluator.kernels, config.evaluator.reward, config.task.train_images
    assert found == (kernels, reward, images)


def test_of_searches_and_selections_they_are_so():
    assert Config.of("search", task="folder", data="x").evaluator.kind == "from-scratch"
    plain = Config.of("search", task="folder", data="x", searcher="ppo", evaluations=9)
    assert plain.evaluator.kind == "weight-sharing"
    assert Config.of("select", run=str(FOLDER / "search-ppo")).evaluator.kind == "synthetic"


def test_a_race_has_no_children_to_train_at_once():
    with pytest.raises(InputError, match="option of race"):
        Config.of("race", table="planted", children_per_gpu=4)
