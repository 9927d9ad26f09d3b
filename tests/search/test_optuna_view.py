"""The Optuna study of a run: it follows from the journal, whatever happens to it."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from analysis import write_reports
from policies import Policy, RandAugment, TrivialAugmentWide, load_policy_file
from policies.augmentations import encode_augmentation
from policies.errors import InputError
from search.runs.folder import OPTUNA_NAME
from search.runs.journal import Journal
from search.runs.optuna_view import ViewError, catch_up, write_optuna
from tests.golden.runs import FOLDER
from tests.search.commands import PLANTED, answer, invoke
from tests.search.fakes import FakePool, evaluation, trial

CELLS = [(1, 0), (1, 30), (2, 10)]


def grid(cells=CELLS, seeds=2):
    return [
        trial(
            batch,
            31 * n + m,
            augmentation=encode_augmentation(RandAugment(n, m)),
            label=f"N={n} M={m}",
            seed=100 + batch,
            evaluation=evaluation(n + m / 100 + batch / 1000),
        )
        for batch in range(seeds)
        for n, m in cells
    ]


def journal(folder, trials, kind="randaugment"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"kind": kind}))
    (folder / "trials.jsonl").unlink(missing_ok=True)
    with Journal(folder / "trials.jsonl") as written:
        written.append(*trials)
    return folder


def study_in(path, name="randaugment"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}")


def ours(path, name="randaugment"):
    """Rows by key: (state, value, parameters)."""
    rows = [row for row in study_in(path, name).trials if "augsearch_key" in row.user_attrs]
    found = {tuple(row.user_attrs["augsearch_key"]): row for row in rows}
    assert len(found) == len(rows)
    return {key: (row.state.name, row.value, row.params) for key, row in found.items()}


def expected(trials):
    return {
        made.key: (
            "COMPLETE",
            made.evaluation.reward,
            {"n": made.slot // 31, "m": made.slot % 31, "seed_index": made.batch},
        )
        for made in trials
    }


@pytest.mark.long
def test_a_grid_has_n_and_m_and_the_seed(tmp_path):
    run = journal(tmp_path / "run", grid())
    assert write_optuna(run) == run / OPTUNA_NAME
    assert ours(run / OPTUNA_NAME) == expected(grid())
    study = study_in(run / OPTUNA_NAME)
    assert study.best_params == {"n": 2, "m": 10, "seed_index": 1}
    # The seed hardly matters to the values; Optuna sees that too.
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == {"n", "m", "seed_index"}
    assert min(importances, key=importances.get) == "seed_index"
    row = study.trials[0]
    assert row.user_attrs["trial"]["seed"] == 100 and row.user_attrs["accuracy"] == row.value
    assert (row.datetime_complete - row.datetime_start).total_seconds() == 1.0


def test_failed_and_diverged_trials_have_no_value(tmp_path):
    trials = grid()
    trials[0] = replace(trials[0], status="failed", evaluation=None, error="no")
    trials[1] = replace(trials[1], evaluation=replace(evaluation(99.0), diverged=True))
    run = journal(tmp_path / "run", trials)
    write_optuna(run)
    states = [row.state for row in study_in(run / OPTUNA_NAME).trials]
    assert states[:3] == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert study_in(run / OPTUNA_NAME).best_value < 99


@pytest.mark.long
def test_the_cheap_rewards_of_a_staged_search_are_no_values(tmp_path):
    trials = grid()
    trials[0] = replace(trials[0], scorer="cheap", evaluation=evaluation(99.0))
    run = journal(tmp_path / "run", trials)
    write_optuna(run)
    study = study_in(run / OPTUNA_NAME)
    assert study.best_value < 99
    assert (study.trials[0].state, study.trials[1].state) == (
        TrialState.PRUNED, TrialState.COMPLETE,
    )  # fmt: skip
    assert study.trials[0].user_attrs["cheap_reward"] == 99.0


def test_policies_are_described_by_their_operations(tmp_path):
    one = Policy([[("Rotate", 0.5, 9), ("Invert", 0.2, None)], [("Rotate", 1.0, 3)]])
    other = Policy([[("Color", 0.4, 0), ("Color", 0.0, 5)], [("Invert", 0.0, None)]])
    trials = [
        trial(0, slot, augmentation=policy.to_json()) for slot, policy in enumerate((one, other))
    ]
    run = journal(tmp_path / "run", trials, "search")
    write_optuna(run)
    first, second = (params for _, _, params in ours(run / OPTUNA_NAME, "search").values())
    assert first == pytest.approx({
        "operations": 1.7 / 2, "different_operations": 2,
        "use_Rotate": 1.5 / 2, "strength_Rotate": (0.5 * 9 + 1.0 * 3) / 9 / 2,
        "magnitude_Rotate": (0.5 * 9 + 1.0 * 3) / 1.5,
        "use_Invert": 0.2 / 2, "use_Color": 0.0, "strength_Color": 0.0,
    })  # fmt: skip
    assert second == pytest.approx({
        "operations": 0.4 / 2, "different_operations": 1,
        "use_Rotate": 0.0, "strength_Rotate": 0.0, "use_Invert": 0.0,
        "use_Color": 0.4 / 2, "strength_Color": 0.0, "magnitude_Color": 0.0,
    })  # fmt: skip


def test_arms_of_a_comparison_are_told_apart_by_label(tmp_path):
    arms = {"none": None, "trivial": TrivialAugmentWide()}
    trials = [
        trial(b, s, label=name, seed=b, part="test", augmentation=encode_augmentation(arm))
        for b in range(2)
        for s, (name, arm) in enumerate(arms.items())
    ]
    run = journal(tmp_path / "run", trials, "compare")
    write_optuna(run)
    params = [params for _, _, params in ours(run / OPTUNA_NAME, "compare").values()]
    assert params == [{"arm": a, "seed_index": b} for b in range(2) for a in arms]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "reference"), [("fidelity", "from-scratch"), ("tabulate", "scratch")]
)
def test_of_several_evaluators_the_reference_alone_has_values(tmp_path, kind, reference):
    """Their rewards are on several scales: the best of all would be whoever counts highest."""
    write_optuna(FOLDER / kind, tmp_path / "view.db")
    rows = study_in(tmp_path / "view.db", kind).trials
    scorers = {state: set() for state in ("COMPLETE", "PRUNED")}
    for row in rows:
        scorers[row.state.name].add(row.user_attrs["trial"]["scorer"])
        assert row.state == TrialState.COMPLETE or row.user_attrs["cheap_reward"] is not None
    assert scorers["COMPLETE"] == {reference} and reference not in scorers["PRUNED"] != set()


# Whatever happens to it ----------------------------------------------------------------------


@pytest.mark.long
def test_written_again_it_is_the_same_and_deleted_it_comes_back(tmp_path):
    run = journal(tmp_path / "run", grid())
    write_optuna(run)
    numbers = [row.number for row in study_in(run / OPTUNA_NAME).trials]
    write_optuna(run)
    assert [row.number for row in study_in(run / OPTUNA_NAME).trials] == numbers
    (run / OPTUNA_NAME).unlink()
    write_optuna(run)
    assert ours(run / OPTUNA_NAME) == expected(grid())
    elsewhere = write_optuna(run, tmp_path / "a view.db")
    assert ours(elsewhere) == expected(grid())


def test_rows_of_others_neither_shift_ours_nor_are_lost(tmp_path):
    """Another process asks and tells in the study, before, while and after we write."""
    run = journal(tmp_path / "run", grid(seeds=1))
    write_optuna(run)
    study = study_in(run / OPTUNA_NAME)
    open_row = study.ask()
    study.tell(study.ask(), 12345.0)
    journal(run, grid(seeds=2))
    write_optuna(run)
    assert ours(run / OPTUNA_NAME) == expected(grid())
    foreign = [r for r in study_in(run / OPTUNA_NAME).trials if "augsearch_key" not in r.user_attrs]
    assert [(row.state.name, row.value) for row in foreign] == [
        ("RUNNING", None), ("COMPLETE", 12345.0),
    ]  # fmt: skip
    assert open_row.number == 3


@pytest.mark.long
def test_a_run_that_has_grown_is_written_with_its_new_ranges(tmp_path):
    run = journal(tmp_path / "run", grid())
    write_optuna(run)
    more = grid([*CELLS, (3, 5), (2, 31 - 1)], seeds=3)
    journal(run, more)
    write_optuna(run)
    assert ours(run / OPTUNA_NAME) == expected(more)
    [ranges] = {repr(row.distributions["n"]) for row in study_in(run / OPTUNA_NAME).trials}
    assert "high=3" in ranges


@pytest.mark.long
def test_the_journal_wins_over_what_somebody_wrote(tmp_path):
    run = journal(tmp_path / "run", grid())
    path = write_optuna(run)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE trial_values SET value = 99 WHERE trial_id = 2")
    write_optuna(run)
    assert ours(path) == expected(grid())


def test_rows_of_others_that_fit_no_longer_cost_none_of_ours(tmp_path, caplog):
    """Categories are other ones when an arm is added, and Optuna takes no study of both."""
    arms = [
        trial(0, slot, label=name, augmentation=None, evaluation=evaluation(0.5))
        for slot, name in enumerate("abc")
    ]
    run = journal(tmp_path / "run", arms[:2], "compare")
    study = study_in(write_optuna(run), "compare")
    [kinds] = {repr(row.distributions["arm"]): row.distributions for row in study.trials}.values()
    study.tell(study.ask(kinds), 0.5)
    journal(run, arms, "compare")
    write_optuna(run)
    assert sorted(ours(run / OPTUNA_NAME, "compare")) == [(0, 0), (0, 1), (0, 2)]
    assert "1 trials of others no longer fit the study compare" in caplog.text
    write_optuna(run)


def test_a_key_that_is_none_of_ours_is_a_row_of_others(tmp_path):
    run = journal(tmp_path / "run", grid())
    study = study_in(write_optuna(run))
    for key in (5, [1], ["a", "b"]):
        row = study.ask()
        row.set_user_attr("augsearch_key", key)
        study.tell(row, 1.0)
    journal(run, grid(seeds=3))
    write_optuna(run)
    rows = [row.user_attrs.get("augsearch_key") for row in study_in(run / OPTUNA_NAME).trials]
    assert sum(isinstance(key, list) and len(key) == 2 and key[0] != "a" for key in rows) == 9


def test_a_study_of_several_objectives_is_told(tmp_path):
    run = journal(tmp_path / "run", grid())
    optuna.create_study(
        storage=f"sqlite:///{run / OPTUNA_NAME}", study_name="randaugment",
        directions=["maximize", "minimize"],
    )  # fmt: skip
    with pytest.raises(ViewError, match="cannot write"):
        write_optuna(run)


def test_nobody_waits_for_a_locked_view(tmp_path, caplog):
    run = journal(tmp_path / "run", grid(seeds=1))
    path = write_optuna(run)
    journal(run, grid())
    locked, done = threading.Event(), threading.Event()

    def hold():
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("BEGIN EXCLUSIVE")
        locked.set()
        done.wait(60)
        database.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        locked.wait(10)
        started = time.monotonic()
        with pytest.raises(ViewError, match="database is locked.*`augsearch optuna"):
            write_optuna(run)
        catch_up(run)
        assert time.monotonic() - started < 25
    finally:
        done.set()
        holder.join()
    assert [r.levelno for r in caplog.records if r.name == "search"] == [logging.WARNING]
    write_optuna(run)
    assert ours(path) == expected(grid())


def test_a_file_that_is_no_study_is_left_as_it_is(tmp_path):
    run = journal(tmp_path / "run", grid())
    (run / OPTUNA_NAME).write_text("my notes\n" * 500)
    with pytest.raises(ViewError, match="not a database"):
        write_optuna(run)
    assert (run / OPTUNA_NAME).read_text() == "my notes\n" * 500
    (run / OPTUNA_NAME).unlink()
    (run / OPTUNA_NAME).mkdir()
    with pytest.raises(ViewError, match="not an ordinary file"):
        write_optuna(run)


def test_a_folder_without_a_journal_is_refused(tmp_path):
    with pytest.raises(InputError, match="journal: must be an existing file"):
        write_optuna(tmp_path)


# The run itself ------------------------------------------------------------------------------

GRID = "randaugment --n 1 --m 0 10 --seeds 2 " + PLANTED


@pytest.mark.long
def test_a_grid_ends_well_whatever_became_of_its_view(place):
    """Nobody's notes in its place keep the best cell from being exported; later it catches up."""
    folder = place("view")
    path = folder / "run" / OPTUNA_NAME

    def spoiling(job):
        path.write_text("my notes\n" * 500)
        return answer(job)

    said = invoke(GRID, folder, FakePool(answer=spoiling))
    assert f"cannot write run/{OPTUNA_NAME}" in said and "`augsearch optuna run`" in said
    assert "Best cell" in said and load_policy_file(folder / "run" / "policy.json")
    path.unlink()
    invoke("resume run", folder, pytest.fail)
    assert len(study_in(path).trials) == 4


def test_of_a_run_of_stages_each_stage_is_a_study(tmp_path):
    (tmp_path / "run").mkdir()
    for stage in ("final", "rescore"):
        journal(tmp_path / "run" / stage, grid())
    with pytest.raises(InputError, match="name a stage: .*run/final, .*run/rescore") as caught:
        write_optuna(tmp_path / "run")
    assert write_optuna(caught.value.fix.split()[-1]).is_file()


def test_runs_without_a_journal_of_their_own_say_where_one_is(tmp_path):
    with pytest.raises(InputError, match="name a stage: .*draw-0/.*, .*, .*, .*, ...$"):
        write_optuna(FOLDER / "replicate")
    (tmp_path / "config.json").write_text('{"kind": "train"}')
    for run in (FOLDER / "race", tmp_path):
        with pytest.raises(InputError, match="races and trainings keep none"):
            write_optuna(run)


def test_a_grid_of_diverged_children_exports_nothing(place):
    """In one line, and the exit code is not 0."""

    def diverging(job):
        outcome = answer(job)
        return replace(outcome, evaluation={**outcome.evaluation, "diverged": True})

    folder = place("diverged")
    said = invoke(GRID, folder, FakePool(answer=diverging), code=1)
    assert said.startswith("Error: in each of 2 cells a child diverged") and said.count("\n") == 1
    assert "lower the learning rate" in said and "resume" not in said
    assert not (folder / "run" / "policy.json").exists()
    write_reports([folder / "run"])
    report = (folder / "run" / "grid.md").read_text(encoding="utf-8")
    assert "A child diverged in every cell so far." in report
