"""An evaluator of a user's own, by import path: shell, file and Python, made in the workers."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from policies import Policy
from policies.errors import InputError
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.registry import check_config, make_evaluator
from proxy_tasks.evaluators.repeat import Repeat
from search import Config, run_search
from search.cli.main import main
from search.engine.worker import Worker
from search.runs.journal import Journal
from search.studies.config import read_config
from tests.search.own_evaluators import Counting

PLACE = "tests.search.own_evaluators"


def worker(kind: str, **options) -> tuple[Worker, dict]:
    made = Worker()
    config = EvaluatorConfig(kind=f"{PLACE}:{kind}", options=options)
    return made, made.setup({"main": config}, None, {}, 1, None, 1)


def test_a_callable_becomes_its_import_path():
    assert EvaluatorConfig(kind=Counting).kind == f"{PLACE}:Counting"
    config = Config.of("search", task="synthetic", evaluator=Counting)
    assert config.evaluator.kind == f"{PLACE}:Counting"
    assert config.evaluator.reward == "accuracy"
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(InputError, match="must be defined at the top level"):
        EvaluatorConfig(kind=lambda config, task: None)


@pytest.mark.parametrize("kind", ["Counting", "function"])
def test_a_worker_builds_it_with_its_options(kind):
    made, info = worker(kind, operation="Color")
    assert "error" not in info
    policy = Policy([[("Color", 1.0, 3), ("Rotate", 1.0, 3)]])
    (answer,) = made.evaluate("main", "test", [(policy, 0, None)])
    assert answer["evaluation"]["reward"] == 0.5
    repeated = EvaluatorConfig(kind=f"{PLACE}:{kind}", repeats=2)
    assert isinstance(make_evaluator(repeated, None), Repeat)


@pytest.mark.parametrize("kind, options, words", [
    ("Countin", {}, "did you mean 'Counting'"),
    ("Foreign", {}, "must make a proxy_tasks.Evaluator, but got .*Foreign"),
    ("Unfinished", {}, "must define every method .* without evaluate"),
    ("NoArguments", {}, "must take the configuration and the task"),
    ("three", {}, "must take the configuration and the task, .*three.*seed"),
    ("Counting", {"operatio": "Color"}, "did you mean 'operation'"),
    ("Counting", {"operation": 3}, "option operation of .*must be text"),
    ("Counting", {"recipe": {}}, "option of .*Counting"),
])  # fmt: skip
def test_mistakes_are_refused_before_work_starts(tmp_path, kind, options, words):
    config = EvaluatorConfig(kind=f"{PLACE}:{kind}", options=options)
    with pytest.raises(InputError, match=words):
        check_config(config)
    asked = Config.of("search", task="synthetic", evaluator=f"{PLACE}:{kind}",
                      evaluator_options=options)  # fmt: skip
    with pytest.raises(InputError, match=words):
        run_search(asked, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["weight-sharin", "no path", "a.b:", ":c"])
def test_what_is_neither_a_name_nor_a_path_is_refused(kind):
    with pytest.raises(InputError, match="evaluator: must be one of from-scratch, .*module:name"):
        EvaluatorConfig(kind=kind)


def test_what_only_a_worker_can_see_is_a_mistake_of_the_user_too():
    _, info = worker("returns_another")
    assert "must make a proxy_tasks.Evaluator" in str(info["mistake"])
    made, info = worker("Careless")
    (answer,) = made.evaluate("main", "validation", [(None, 0, None)])
    assert "must return an Evaluation, but got 0.5" in str(answer["mistake"])


@pytest.mark.parametrize(("kind", "words"), [
    ("AlwaysValidation", "must evaluate on the part asked for, test, but got 'validation'"),
    ("WithoutAccuracy", "must give the metric accuracy on the test part, but got 'no metric'"),
])  # fmt: skip
def test_what_a_comparison_could_not_use_is_refused(kind, words):
    """Results on other images, or without what is compared, would be counted or lost unseen."""
    made, _ = worker(kind)
    (answer,) = made.evaluate("main", "validation", [(None, 0, None)])
    assert answer["evaluation"]["part"] == "validation"
    (answer,) = made.evaluate("main", "test", [(None, 0, None)])
    assert words in str(answer["mistake"])


def test_a_child_that_diverged_needs_no_accuracy():
    made, _ = worker("Diverging")
    (answer,) = made.evaluate("main", "test", [(None, 0, None)])
    assert answer["evaluation"]["diverged"] and answer["evaluation"]["metrics"] == {}


@pytest.mark.ray
def test_a_search_with_it_from_the_shell_and_a_file(tmp_path, monkeypatch):
    """Made in the workers' processes; resumed from the folder alone."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd(), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(
        f'kind = "search"\n[task]\nname = "synthetic"\n[evaluator]\nkind = "{PLACE}:Counting"\n'
        'options = {operation = "Invert"}\n[searcher]\nname = "random"\n'
    )
    words = "search --config own.toml --evaluations 6 --workers 2 --top 1 --out run --quiet"
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 0, result.output
    config = read_config(tmp_path / "run")
    assert config.evaluator.kind == f"{PLACE}:Counting"
    with Journal(tmp_path / "run" / "trials.jsonl") as journal:
        trials = list(journal.trials())
    assert len(trials) >= 6
    assert {trial.evaluation.details["process"] for trial in trials} - {os.getpid()}
    assert all(trial.evaluation.reward is not None for trial in trials)
