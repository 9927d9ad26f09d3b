"""Trials: what is written can be read, and nothing else can; what was best, and what it cost."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import InputError
from proxy_tasks import trials
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.trials import _FIELDS, Trial, best_trials, image_passes, read_journal


def evaluation(reward: float | None = 0.5, **changes) -> Evaluation:
    return dataclasses.replace(Evaluation(reward, 0.01, {"accuracy": 0.5}, 0.1, 10), **changes)


def trial(batch: int, slot: int, reward: float = 0.5, **changes) -> Trial:
    made = Trial(
        batch, slot, "", "main", "validation", 7, [[["Rotate", 0.5, slot]]], "ok", 1,
        evaluation(reward), None, None, 1.0, 2.0, "host:1",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_every_field_has_a_type():
    assert list(_FIELDS) == [field.name for field in dataclasses.fields(Trial)]


TRIALS = {
    "ok": trial(3, 4),
    "failed": trial(0, 1, status="failed", evaluation=None, error="no", attempts=3),
    "duplicate": trial(0, 1, status="duplicate", duplicate_of=(0, 0), attempts=0, worker=None),
    "duplicate of a failure": trial(
        0, 1, status="duplicate", duplicate_of=(0, 0), evaluation=None, error="no"
    ),
    "no augmentation": trial(0, 0, augmentation=None),
    "a child": trial(2, 0, parent=(1, 3), artifact="0a" * 32),
    "diverged without reward": trial(0, 0, evaluation=evaluation(None, diverged=True)),
    "surrogate": trial(0, 0, label="b\udce9b\u00e9 \u2603"),
}


@pytest.mark.parametrize("made", TRIALS.values(), ids=TRIALS.keys())
def test_what_is_written_is_read(made):
    assert Trial.from_line(made.to_line()) == made
    assert made.to_line().endswith(b"\n") and made.to_line().count(b"\n") == 1


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**63 - 1))
def test_numbers_survive_exactly(reward, seed):
    made = trial(0, 0, reward, seed=seed)
    assert Trial.from_line(made.to_line()) == made


def changed(**changes) -> dict:
    return {**trial(0, 1).to_json(), **changes}


def result(**changes) -> dict:
    return changed(evaluation={**evaluation().to_json(), **changes})


def without(name: str) -> dict:
    return {key: value for key, value in changed().items() if key != name}


REFUSED = {
    "no object": [1, 2],
    "missing field": without("seed"),
    "unknown field": changed(code="x"),
    "a line of version 1": {**without("scorer"), "evaluator": "main"},
    "text for a number": changed(seed="7"),
    "true for a number": changed(seed=True),
    "a fraction for a number": changed(batch=0.0),
    "negative slot": changed(slot=-1),
    "huge seed": changed(seed=2**63),
    "negative attempts": changed(attempts=-1),
    "unknown part": changed(part="train"),
    "unknown status": changed(status="fine"),
    "ok without result": changed(evaluation=None),
    "ok with error": changed(error="no"),
    "ok that failed": changed(evaluation=None, error="no"),
    "failed that is ok": changed(status="failed"),
    "unknown status of a failure": changed(status="fine", evaluation=None, error="no"),
    "failed with result": changed(status="failed", error="no"),
    "failed without error": changed(status="failed", evaluation=None),
    "duplicate of nothing": changed(status="duplicate"),
    "original of no duplicate": changed(duplicate_of=[0, 0]),
    "duplicate of nonsense": changed(status="duplicate", duplicate_of=[0, "a"]),
    "duplicate of three": changed(status="duplicate", duplicate_of=[0, 0, 0]),
    "duplicate of a negative": changed(status="duplicate", duplicate_of=[0, -1]),
    "duplicate of true": changed(status="duplicate", duplicate_of=[0, True]),
    "artifact of nonsense": changed(artifact="weights"),
    "artifact that is too long": changed(artifact=65 * "a"),
    "artifact in capitals": changed(artifact=64 * "A"),
    "unknown augmentation": changed(augmentation={"transform": "Sharper"}),
    "no reward": result(reward=None),
    "reward of text": result(reward="0.5"),
    "reward true": result(reward=True),
    "diverged of a number": result(diverged=0),
    "metric of text": result(metrics={"accuracy": "0.5"}),
    "metric missing": result(metrics={"accuracy": None}),
    "unknown result": result(score=1.0),
    "passes of a fraction": result(image_passes=0.5),
    "negative passes": result(image_passes=-1),
    "details of a list": result(details=[]),
    "evaluation of version 0": changed(evaluation={"score": 1.0}),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_is_refused(data, tmp_path):
    with pytest.raises(ValueError):
        Trial.from_json(data)
    journal = tmp_path / "trials.jsonl"
    journal.write_bytes(trial(0, 0).to_line() + json.dumps(data).encode() + b"\n")
    with pytest.raises(InputError, match="line 2"):
        read_journal(journal)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 5000])
@pytest.mark.parametrize("place", ['"reward": 0.5', '"started": 1.0', '"finished": 2.0'])
def test_numbers_beyond_floats_are_refused(tmp_path, place, number):
    text = json.dumps(trial(0, 0).to_json())
    assert place in text
    journal = tmp_path / "trials.jsonl"
    journal.write_text(text.replace(place, f"{place.split(':')[0]}: {number}") + "\n")
    with pytest.raises(InputError, match="line 1"):
        read_journal(journal)


def test_a_field_given_twice_is_refused(tmp_path):
    text = json.dumps(trial(0, 0).to_json())
    (tmp_path / "trials.jsonl").write_text(text.replace('"seed": 7', '"seed": 7, "seed": 8') + "\n")
    with pytest.raises(InputError, match="line 1.*twice"):
        read_journal(tmp_path / "trials.jsonl")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 2}, {"a": {2.5}}])
def test_what_could_not_be_read_is_not_written(value):
    made = trial(0, 0, evaluation=evaluation(details={"a": value}))
    with pytest.raises((ValueError, TypeError)):
        made.to_line()


def test_a_line_that_is_too_long_to_be_read_is_not_written(monkeypatch):
    length = len(trial(0, 0).to_line())
    monkeypatch.setattr(trials, "MAX_LINE_BYTES", length)
    trial(0, 0).to_line()
    monkeypatch.setattr(trials, "MAX_LINE_BYTES", length - 1)
    with pytest.raises(ValueError, match="must be at most"):
        trial(0, 0).to_line()


def test_a_last_line_without_its_end_is_left_out_and_a_repeated_key_is_not(tmp_path):
    journal = tmp_path / "trials.jsonl"
    whole = trial(0, 1).to_line() + trial(0, 0).to_line()
    journal.write_bytes(whole + trial(0, 2).to_line()[:-1])
    assert [t.key for t in read_journal(journal)] == [(0, 1), (0, 0)]
    journal.write_bytes(whole + trial(0, 1, 99.0).to_line())
    with pytest.raises(InputError, match="line 3.*batch 0, slot 1 again"):
        read_journal(journal)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(InputError, match="must be an existing file"):
            read_journal(tmp_path / name)


def test_best_are_distinct_and_ties_go_to_the_earlier():
    rewards = [0.5, 0.9, 0.9, 0.7, 0.1]
    trials = [trial(1, slot, reward) for slot, reward in enumerate(rewards)]
    # The same augmentation as slot 3, once better and once worse.
    trials += [trial(0, 3, 0.95), trial(2, 3, 0.6), trial(0, 9, 0.9)]
    trials += [trial(3, 8, status="failed", evaluation=None, error="no")]
    expected = [(0, 3), (0, 9), (1, 1), (1, 2), (1, 0), (1, 4)]
    for order in (trials, trials[::-1], trials[3:] + trials[:3]):
        for k in range(1, 8):
            assert [t.key for t in best_trials(order, k)] == expected[:k]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12), st.integers(1, 5))
def test_best_are_those_of_a_full_sort(found, k):
    trials = [
        trial(0, slot, reward / 4, augmentation=[[["Rotate", 0.5, magnitude]]])
        for slot, (reward, magnitude) in enumerate(found)
    ]
    expected: dict = {}
    for made in sorted(trials, key=lambda t: (-t.evaluation.reward, t.slot)):
        expected.setdefault(repr(made.augmentation), made)
    assert best_trials(trials, k) == list(expected.values())[:k]


def test_a_diverged_child_is_never_among_the_best():
    diverged = evaluation(99.0, diverged=True)
    trials = [trial(0, 0, evaluation=diverged), trial(0, 1, -5.0)]
    assert [t.key for t in best_trials(trials, 5)] == [(0, 1)]
    assert best_trials(trials[:1], 5) == []


def test_image_passes_leave_out_what_was_not_made():
    trials = [
        trial(0, 0),
        trial(0, 1, status="duplicate", duplicate_of=(0, 0), attempts=0),
        trial(0, 2, status="failed", evaluation=None, error="no"),
        trial(0, 3, evaluation=evaluation(image_passes=5)),
    ]
    assert image_passes(trials) == 15
