from __future__ import annotations

import pytest

from analysis import load_run
from policies import InputError, Policy, save_policy
from tests.analysis.journals import journal_line


def test_rows_are_ordered_by_batch_and_slot_not_by_arrival(write_run):
    lines = [journal_line(b, s, 0.1 * b + 0.01 * s) for b, s in [(1, 0), (0, 1), (1, 1), (0, 0)]]
    table = load_run(write_run(lines)).trials
    assert list(zip(table["batch"], table["slot"], strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(table["reward"]) == pytest.approx([0.0, 0.01, 0.1, 0.11])
    assert Policy(table["policy"][0]) == ((("Rotate", 0.5, 3), ("Invert", 0.2, None)),)


def test_failed_lines_have_no_reward(write_run):
    run = load_run(write_run([journal_line(0, 0), journal_line(0, 1, None)]))
    assert len(run.trials) == 2 and len(run.evaluated) == 1
    assert run.trials["error"][1] == "RuntimeError: planted"


def test_a_duplicate_has_the_result_but_not_the_cost(write_run):
    first = journal_line(0, 0, 0.6)
    repeat = journal_line(0, 1, 0.6, status="duplicate", duplicate_of=[0, 0])
    table = load_run(write_run([first, repeat])).trials
    assert table["reward"][1] == 0.6 and table["accuracy"][1] == 0.6
    assert list(table["seconds"]) == [2.0, 0.0] and list(table["image_passes"]) == [1000, 0]


def test_a_half_written_last_line_is_left_out(write_run):
    directory = write_run([journal_line(0, 0), journal_line(0, 1)])
    journal = directory / "trials.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert len(load_run(directory).trials) == 1


def test_a_broken_line_in_the_middle_is_named(write_run):
    directory = write_run([journal_line(0, 0), journal_line(0, 1)])
    journal = directory / "trials.jsonl"
    journal.write_text("{broken\n" + journal.read_text())
    with pytest.raises(InputError, match="line 1"):
        load_run(directory)


def test_an_empty_journal_is_a_run_without_rows(write_run):
    run = load_run(write_run([]))
    assert run.trials.empty and run.evaluated.empty and run.policy is None


def test_the_exported_policy_comes_along(write_run):
    directory = write_run([journal_line(0, 0)])
    policy = Policy([[("Rotate", 0.5, 3)]])
    save_policy(directory / "policy.json", policy)
    assert load_run(directory).policy == policy


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        load_run(tmp_path)
    with pytest.raises(InputError, match="run folder"):
        load_run(tmp_path / "missing")


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_another_version_is_refused_in_one_line_that_names_it(write_run, version):
    directory = write_run([journal_line(0, 0)], {"version": version})
    with pytest.raises(InputError) as caught:
        load_run(directory)
    assert f"version {version}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_without_a_journal_has_no_trials(write_run):
    directory = write_run([])
    (directory / "trials.jsonl").unlink()
    assert load_run(directory).trials.empty


@pytest.mark.parametrize("text", ["{", '{"kind": "search", "kind": "search"}', '{"a": NaN}', "[]"])
def test_a_config_that_is_not_as_written_is_refused(write_run, text):
    directory = write_run([journal_line(0, 0)])
    (directory / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_run(directory)


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": {**journal_line(0, 1)["evaluation"], "reward": float("nan")}},
        {"evaluation": {**journal_line(0, 1)["evaluation"], "reward": "99"}},
        {"slot": 0},  # the key of the line before it
        {"seed": "1"},
        {"status": "fine"},
    ],
)
def test_a_journal_that_is_not_as_written_is_refused(write_run, changes):
    directory = write_run([journal_line(0, 0), {**journal_line(0, 1), **changes}])
    with pytest.raises(InputError, match="line 2"):
        load_run(directory)


def test_arms_that_were_tampered_with_are_refused(write_run):
    arms = [{"name": "x", "members": [[[["No", 1, 1]]]]}]
    run = load_run(write_run([], {"settings": {"arms": arms}}))
    with pytest.raises(InputError, match="arms as the engine wrote them"):
        assert run.arms
