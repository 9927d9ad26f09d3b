"""One contract for every evaluator, and what each does beyond it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import torch

from policies import InputError, Policy, RandAugment, UniformAugment
from policies.schedule import Schedule, ScheduleTransform
from proxy_tasks import REWARDS, Evaluation, EvaluatorConfig, ImageSet, make_evaluator
from tests.proxy_tasks.trees import striped_images, striped_task

POLICY = Policy([[("Rotate", 0.5, 3), ("Brightness", 0.7, 6)], [("Cutout", 1.0, 8)]])
CONFIGS = {
    "from-scratch": EvaluatorConfig(epochs=2),
    "weight-sharing": EvaluatorConfig(
        "weight-sharing", options={"shared_epochs": 2, "finetune_epochs": 1}
    ),
    "density-matching": EvaluatorConfig(
        "density-matching", options={"shared_epochs": 2, "images_per_subpolicy": 50}
    ),
    "synthetic": EvaluatorConfig("synthetic"),
    "repeat": EvaluatorConfig("weight-sharing", repeats=2, options={"shared_epochs": 1}, epochs=1),
}


def prepared(config, directory, task=None):
    """The evaluator, ready; shared children are trained once and kept in `directory`."""
    task = task or striped_task()
    evaluator = make_evaluator(config, task)
    if evaluator.needs_preparation:
        kept = directory / hashlib.sha256(f"{config} {task.manifest_hash}".encode()).hexdigest()
        if kept.exists():
            evaluator.load(kept.read_bytes())
        else:
            kept.write_bytes(evaluator.prepare())
    return evaluator


def outcome(evaluation):
    """Everything that must repeat: all but the clock."""
    data = evaluation.to_json()
    for name in [n for n in data["details"] if "seconds" in n]:
        del data["details"][name]
    return {k: v for k, v in data.items() if k != "seconds"}


class Trap:
    """Stands for test images: any touch is an error."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test part was touched: {name}")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.mark.parametrize("name", CONFIGS)
class TestContract:
    def test_evaluation_is_complete(self, name, run_folder):
        result = prepared(CONFIGS[name], run_folder).evaluate(POLICY, 1)
        assert isinstance(result, Evaluation) and result.part == "validation"
        assert set(result.metrics) == {*REWARDS, "temperature"}
        assert all(math.isfinite(v) for v in result.metrics.values())
        assert 0 <= result.metrics["accuracy"] <= 1 and result.metrics["log_likelihood"] <= 0
        assert result.reward == pytest.approx(result.metrics["accuracy"])
        assert result.stderr >= 0 and result.seconds > 0 and not result.diverged
        assert isinstance(result.image_passes, int) and result.image_passes > 0
        assert Evaluation.from_json(json.loads(json.dumps(result.to_json()))) == result

    @pytest.mark.parametrize("augmentation", [None, POLICY, RandAugment(1, 5), UniformAugment()])
    def test_takes_every_augmentation(self, name, augmentation, run_folder):
        result = prepared(CONFIGS[name], run_folder).evaluate(augmentation, 0)
        assert math.isfinite(result.reward)

    @pytest.mark.parametrize("reward", REWARDS)
    def test_reward_is_the_metric_asked_for(self, name, reward, run_folder):
        config = dataclasses.replace(CONFIGS[name], reward=reward)
        result = prepared(config, run_folder).evaluate(POLICY, 0)
        assert result.reward == pytest.approx(result.metrics[reward])

    def test_repeats_exactly(self, name, run_folder):
        evaluator = prepared(CONFIGS[name], run_folder)
        first = outcome(evaluator.evaluate(POLICY, 5))
        evaluator.evaluate(None, 6)
        assert outcome(evaluator.evaluate(POLICY, 5)) == first
        assert outcome(prepared(CONFIGS[name], run_folder).evaluate(POLICY, 5)) == first
        assert outcome(evaluator.evaluate(POLICY, 6)) != first

    def test_is_independent_of_global_random_state(self, name, run_folder):
        evaluator = prepared(CONFIGS[name], run_folder)
        torch.manual_seed(0)
        np.random.seed(0)
        first = outcome(evaluator.evaluate(POLICY, 5))
        torch.manual_seed(1)
        state = torch.get_rng_state()
        assert outcome(evaluator.evaluate(POLICY, 5)) == first
        assert torch.equal(torch.get_rng_state(), state)

    def test_the_augmentation_matters(self, name, run_folder):
        evaluator = prepared(CONFIGS[name], run_folder)
        metrics = [evaluator.evaluate(a, 0).metrics["log_likelihood"] for a in (None, POLICY)]
        assert metrics[0] != metrics[1]

    def test_validation_never_touches_the_test_part(self, name, run_folder):
        task = striped_task(test=Trap())
        assert math.isfinite(prepared(CONFIGS[name], run_folder, task).evaluate(POLICY, 0).reward)

    def test_config_pickles(self, name, run_folder):
        assert pickle.loads(pickle.dumps(CONFIGS[name])) == CONFIGS[name]

    @pytest.mark.parametrize("call", [{"seed": -1}, {"seed": 0, "part": "train"}])
    def test_wrong_calls(self, name, call, run_folder):
        with pytest.raises(InputError):
            prepared(CONFIGS[name], run_folder).evaluate(POLICY, **call)


@pytest.fixture(scope="module")
def test_task():
    """A task whose test labels are all wrong: the parts cannot be mistaken for each other."""
    right = striped_images(200, 3)
    return striped_task(test=ImageSet(right.images, 1 - right.labels))


class TestTestPart:
    @pytest.mark.parametrize("name", ["from-scratch", "weight-sharing", "repeat"])
    @pytest.mark.long
    def test_reward_comes_from_the_test_images(self, name, run_folder, test_task):
        config = dataclasses.replace(CONFIGS[name], epochs=20)
        evaluator = prepared(config, run_folder, test_task)
        validation, test = (evaluator.evaluate(None, 0, part) for part in ("validation", "test"))
        assert validation.reward > 0.7 and test.reward < 0.3 and test.part == "test"

    def test_temperature_comes_from_the_validation_images(self, run_folder, test_task):
        evaluator = prepared(CONFIGS["from-scratch"], run_folder, test_task)
        validation, test = (evaluator.evaluate(None, 0, part) for part in ("validation", "test"))
        assert test.metrics["temperature"] == validation.metrics["temperature"]

    def test_density_matching_refuses(self, run_folder):
        evaluator = prepared(CONFIGS["density-matching"], run_folder)
        with pytest.raises(InputError, match="must be validation"):
            evaluator.evaluate(POLICY, 0, "test")


class TestCost:
    """96 training and 200 validation images; a forward pass counts a third."""

    def test_from_scratch(self, run_folder):
        result = prepared(CONFIGS["from-scratch"], run_folder).evaluate(None, 0)
        assert result.image_passes == 2 * 96 + round(200 / 3)

    def test_on_the_test_part_validation_is_evaluated_too(self, run_folder):
        result = prepared(CONFIGS["from-scratch"], run_folder).evaluate(None, 0, "test")
        assert result.image_passes == 2 * 96 + round(400 / 3)

    def test_weight_sharing_does_not_count_the_shared_child(self, run_folder):
        result = prepared(CONFIGS["weight-sharing"], run_folder).evaluate(None, 0)
        assert result.image_passes == 96 + round(200 / 3)

    def test_density_matching(self, run_folder):
        evaluator = prepared(CONFIGS["density-matching"], run_folder)
        assert evaluator.evaluate(POLICY, 0).image_passes == round(2 * 50 / 3)
        assert evaluator.evaluate(None, 0).image_passes == round(200 / 3)

    def test_repeat_adds_up(self, run_folder):
        result = prepared(CONFIGS["repeat"], run_folder).evaluate(None, 0)
        assert result.image_passes == 2 * (96 + round(200 / 3))


class TestWeightSharing:
    def test_the_seed_decides_the_augmentation_alone(self, run_folder):
        """Order and crops are common to all evaluations, whatever their seeds."""
        evaluator = prepared(CONFIGS["weight-sharing"], run_folder)
        assert outcome(evaluator.evaluate(None, 0)) == outcome(evaluator.evaluate(None, 1))
        assert outcome(evaluator.evaluate(POLICY, 0)) != outcome(evaluator.evaluate(POLICY, 1))


class TestBestOf:
    """Fast AutoAugment's criterion: of several versions of an image the best counts."""

    CONFIG = dataclasses.replace(
        CONFIGS["density-matching"], options={"shared_epochs": 2, "best_of": 5}
    )

    def test_is_each_images_best_by_hand(self, run_folder):
        evaluator = prepared(self.CONFIG, run_folder)
        told = []
        logits = evaluator.arena.logits
        evaluator.arena.logits = lambda *given: told.append(logits(*given)) or told[-1]
        found = evaluator.evaluate(POLICY, 3)
        labels = evaluator.task.validation.labels
        assert len(told) == 5 and len({version.tobytes() for version in told}) == 5
        likelihoods = scipy.special.log_softmax(np.stack(told), axis=2)
        best = likelihoods[:, np.arange(len(labels)), labels].max(axis=0).mean()
        right = (np.stack(told).argmax(axis=2) == labels).any(axis=0).mean()
        assert found.metrics["log_likelihood"] == pytest.approx(best, rel=1e-9)
        assert found.metrics["accuracy"] == found.reward == right
        assert found.image_passes == round(5 * len(labels) / 3)

    def test_one_version_is_the_policy_as_a_whole_and_flattered_by_more(self, run_folder):
        fewer = dataclasses.replace(self.CONFIG, options={"shared_epochs": 2, "best_of": 2})
        many, few = (prepared(c, run_folder).evaluate(POLICY, 3) for c in (self.CONFIG, fewer))
        assert many.metrics["log_likelihood"] > few.metrics["log_likelihood"]
        assert many.details.get("subpolicies") is None


class TestDivergence:
    def test_is_a_result_at_chance(self, run_folder):
        config = EvaluatorConfig(
            "weight-sharing", reward="log_likelihood",
            options={"shared_epochs": 1, "finetune_epochs": 3, "lr": 1e12},
        )  # fmt: skip
        result = prepared(config, run_folder).evaluate(POLICY, 0)
        assert result.diverged and result.reward == pytest.approx(-math.log(2))
        assert result.metrics["accuracy"] == 0.5
        assert json.loads(json.dumps(result.to_json(), allow_nan=False))


CODE = """
import json, sys
from tests.proxy_tasks.test_evaluators import CONFIGS, POLICY, outcome, prepared
from pathlib import Path
names = ("from-scratch", "weight-sharing", "density-matching", "synthetic")
print(json.dumps([outcome(prepared(CONFIGS[n], Path(sys.argv[1])).evaluate(POLICY, 9))
                  for n in names]))
"""


@pytest.mark.long
def test_a_fresh_process_gives_the_same_floats(run_folder, tmp_path):
    """Also without the checkpoint of this one: it trains its shared children itself."""
    there = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    names = ("from-scratch", "weight-sharing", "density-matching", "synthetic")
    here = [outcome(prepared(CONFIGS[n], run_folder).evaluate(POLICY, 9)) for n in names]
    assert json.loads(there.stdout) == json.loads(json.dumps(here))


class TestSharedChild:
    config = CONFIGS["weight-sharing"]

    def test_evaluating_before_prepare_is_an_error(self):
        with pytest.raises(RuntimeError, match="call prepare"):
            make_evaluator(self.config, striped_task()).evaluate(None, 0)

    def test_what_one_prepares_serves_another(self):
        first, second = (make_evaluator(self.config, striped_task()) for _ in range(2))
        second.load(first.prepare())
        assert not first.needs_preparation and not second.needs_preparation
        assert outcome(first.evaluate(POLICY, 0)) == outcome(second.evaluate(POLICY, 0))

    @pytest.mark.parametrize(
        ("name", "step"), [("weight-sharing", "train_children"), ("density-matching", "logits")]
    )
    def test_every_evaluation_starts_from_the_saved_weights(self, name, step):
        evaluator = make_evaluator(CONFIGS[name], striped_task())
        saved = torch.load(io.BytesIO(evaluator.prepare()), weights_only=True)["state"]
        original, seen = getattr(evaluator.arena, step), []

        def spy(trained, *rest):
            child = trained[0] if isinstance(trained, list) else trained
            seen.append({k: v.clone() for k, v in child.state_dict().items()})
            return original(trained, *rest)

        setattr(evaluator.arena, step, spy)
        for seed in (0, 1):
            seen.clear()
            evaluator.evaluate(POLICY, seed)
            assert saved.keys() == seen[0].keys()
            assert all(torch.equal(saved[k], seen[0][k]) for k in saved)

    def test_evaluations_do_not_change_the_shared_child(self, tmp_path):
        evaluator = prepared(self.config, tmp_path)
        before = {k: v.clone() for k, v in evaluator._shared_state.items()}
        evaluator.evaluate(POLICY, 0)
        assert all(torch.equal(before[k], v) for k, v in evaluator._shared_state.items())

    @pytest.mark.parametrize("change", [{"shared_epochs": 1}, {"shared_seed": 1}])
    def test_another_shared_child_is_refused(self, change):
        content = make_evaluator(self.config, striped_task()).prepare()
        options = {**self.config.options, **change}
        other = make_evaluator(dataclasses.replace(self.config, options=options), striped_task())
        with pytest.raises(InputError, match="of other settings"):
            other.load(content)
        assert other.needs_preparation

    def test_a_shared_child_of_another_model_is_of_other_settings(self):
        content = make_evaluator(self.config, striped_task()).prepare()
        options = {**self.config.options, "model": "wrn-16-1"}
        other = make_evaluator(dataclasses.replace(self.config, options=options), striped_task())
        with pytest.raises(InputError, match="of other settings"):
            other.load(content)

    def test_hostile_pickle_is_not_run(self, tmp_path):
        class Hostile:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "owned"),)

        evaluator = make_evaluator(self.config, striped_task())
        for content in (pickle.dumps(Hostile()), torch_bytes({"facts": Hostile()})):
            with pytest.raises(InputError, match="prepared"):
                evaluator.load(content)
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
    def test_broken_content_is_refused(self, content):
        with pytest.raises(InputError, match="must be the weights"):
            make_evaluator(self.config, striped_task()).load(content)

    @pytest.mark.parametrize("state", [{"weight": torch.zeros(3)}, {}, None, 7])
    def test_weights_of_another_child_are_refused(self, state):
        evaluator = make_evaluator(self.config, striped_task())
        with pytest.raises(InputError, match="must be the weights"):
            evaluator.load(torch_bytes({"facts": evaluator._facts(), "state": state}))

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_weights_that_are_no_numbers_are_refused(self, value):
        evaluator = make_evaluator(self.config, striped_task())
        state = evaluator.new_child(0).state_dict()
        name = next(name for name in reversed(state) if state[name].is_floating_point())
        state[name] = torch.full_like(state[name], value)
        with pytest.raises(InputError, match="must have a shared child that trains"):
            evaluator.load(torch_bytes({"facts": evaluator._facts(), "state": state}))
        assert evaluator.needs_preparation

    def test_what_needs_no_preparation_says_so(self):
        evaluator = make_evaluator(CONFIGS["from-scratch"], striped_task())
        assert not evaluator.needs_preparation
        for call in (evaluator.prepare, lambda: evaluator.load(b"")):
            with pytest.raises(TypeError, match="nothing to prepare"):
                call()


def torch_bytes(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


class TestDensityMatching:
    def test_its_error_is_over_images_and_not_over_their_copies(self, run_folder):
        evaluator = prepared(CONFIGS["density-matching"], run_folder)
        told = []
        logits = evaluator.arena.logits
        evaluator.arena.logits = lambda *given: told.append(logits(*given)) or told[-1]
        found = evaluator.evaluate(POLICY, 3)
        chosen = np.sort(np.random.default_rng([3, 2]).permutation(200)[:50])
        labels = evaluator.task.validation.labels[chosen]
        right = np.stack([version.argmax(axis=1) == labels for version in told])
        assert right.shape == (2, 50) and found.reward == right.mean()
        assert found.stderr == pytest.approx(right.mean(axis=0).std() / math.sqrt(50))
        likelihoods = scipy.special.log_softmax(np.stack(told), axis=2)
        each = likelihoods[:, np.arange(50), labels].mean(axis=0)
        errors = found.details["stderrs"]
        assert errors["log_likelihood"] == pytest.approx(each.std() / math.sqrt(50))

    def test_scores_each_subpolicy(self, run_folder):
        result = prepared(CONFIGS["density-matching"], run_folder).evaluate(POLICY, 0)
        each = result.details["subpolicies"]
        assert len(each) == len(POLICY)
        mean = np.mean([scores["log_likelihood"] for scores in each])
        assert result.metrics["log_likelihood"] == pytest.approx(mean)

    def test_augments_the_validation_images(self, run_folder):
        # The child was trained on stripes: blank images (Brightness down to black, Solarize of
        # nothing left) are worse than the images themselves.
        evaluator = prepared(
            dataclasses.replace(
                CONFIGS["density-matching"],
                options={"shared_epochs": 20, "images_per_subpolicy": 200},
            ),
            run_folder,
        )
        plain = evaluator.evaluate(None, 0)
        blurred = evaluator.evaluate(Policy([[("Posterize", 1.0, 9), ("Cutout", 1.0, 9)]] * 2), 0)
        assert plain.reward >= blurred.reward

    def test_the_seed_decides_which_images(self, run_folder):
        """Under a policy that does nothing, seeds differ by the images they score alone."""
        evaluator = prepared(CONFIGS["density-matching"], run_folder)
        nothing = Policy([[("Invert", 0.0, None)]])
        first, again, other = (
            evaluator.evaluate(nothing, seed).metrics["log_likelihood"] for seed in (0, 0, 1)
        )
        assert first == again != other

    def test_refuses_a_schedule(self, run_folder):
        schedule = ScheduleTransform(Schedule([(0, POLICY)], 4))
        with pytest.raises(InputError, match="must not be a schedule for density matching"):
            prepared(CONFIGS["density-matching"], run_folder).evaluate(schedule, 0)


def sharing(**options):
    return {"kind": "weight-sharing", "options": options}


def density(**options):
    return {"kind": "density-matching", "options": options}


class TestConfig:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kind": "from-scrach"}, "did you mean 'from-scratch'"),
            ({"reward": "acuracy"}, "did you mean 'accuracy'"),
            ({"preset": "gpu"}, "preset"),
            ({"precision": "fp16"}, "precision"),
            ({"threads": 0}, "threads"),
            ({"repeats": 0}, "repeats"),
            ({"epochs": 0}, "epochs"),
            ({"kind": "weight-sharing", "options": {"shared_epoch": 3}}, "'shared_epochs'"),
            ({"options": {"sleep": 3}}, "option of from-scratch"),
            ({"device": "cuda:99"}, "device: must be cpu or one of this machine's"),
            (sharing(shared_epochs=0), "option shared_epochs of weight-sharing: must be"),
            (sharing(finetune_epochs=0), "finetune_epochs"),
            (sharing(shared_seed=-1), "shared_seed"),
            (sharing(lr=-0.1), "option lr of weight-sharing: must be a number, above 0"),
            (sharing(lr=math.nan), "evaluator_options.lr: must be a finite number, but got nan"),
            (sharing(final_lr=-0.1), "final_lr"),
            (density(shared_epochs=0), "shared_epochs"),
            (density(images_per_subpolicy=0), "images_per_subpolicy"),
        ],
    )
    def test_wrong_values_are_named(self, change, message):
        with pytest.raises(InputError, match=message):
            make_evaluator(dataclasses.replace(EvaluatorConfig(), **change), striped_task())
