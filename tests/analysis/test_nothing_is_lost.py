"""What has no number, or is not as it was, is said, and counts as elsewhere."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from analysis import analyse_fidelity, board, compare_arms, load_run, report_of
from analysis.drawing import told
from analysis.plots import arms as drawn_arms
from analysis.plots import differences
from analysis.progress import progress
from analysis.randaugment import analyse_grid
from analysis.watch import view
from policies import InputError
from tests.analysis.journals import journal_line
from tests.analysis.test_board import scalars
from tests.analysis.test_fidelity import lines
from tests.golden.runs import copy

LOST = {"status": "failed", "evaluation": None, "error": "RuntimeError: planted"}


def arm(seed, slot, name, accuracy, *, diverged=False):
    line = journal_line(seed, slot, accuracy, label=name, seed=seed, part="test")
    if diverged:
        line["evaluation"]["diverged"] = True
    return line


def cell(seed, slot, m, accuracy, *, diverged=False):
    line = arm(seed, slot, f"N=1 M={m}", accuracy, diverged=diverged)
    transform = {"transform": "RandAugment", "n": 1, "m": m}
    return {**line, "part": "validation", "augmentation": transform}


def compared(write_run, lines, names, **more):
    arms = [{"name": name, "text": name, "members": [None]} for name in names]
    settings = {"policy": list(names), "seeds": 4, "arms": arms}
    return write_run(lines, {"kind": "compare", "settings": settings, **more})


def grid(write_run, lines, ms, **settings):
    config = {"kind": "randaugment", "evaluator": {"reward": "accuracy"}}
    return write_run(lines, {**config, "settings": {"n": [1], "m": ms, "seeds": 2, **settings}})


def watched(directory) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(view(progress(directory), 300.0))
    return console.file.getvalue().splitlines()


def words(directory) -> str:
    return report_of(directory).text


@pytest.mark.parametrize("all_failed", [True, False])
def test_the_first_arm_stays_the_first_without_results(write_run, all_failed):
    lines = [arm(seed, 1, "imagenet", 0.5 + seed / 100) for seed in range(4)]
    lines += [arm(seed, 2, "uniform", 0.6 + seed / 50) for seed in range(4)]
    lines += [arm(seed, 0, "none", None) for seed in range(4) if all_failed]
    comparison = compare_arms(load_run(compared(write_run, lines, ("none", "imagenet", "uniform"))))
    said = " ".join(comparison.sentences)
    assert list(comparison.table["arm"]) == ["none", "imagenet", "uniform"]
    assert "Without a result: none." in said and "Nothing is compared with none" in said
    assert " against none" not in said and "uniform against imagenet" in said
    assert ("4 evaluations failed" in said) == all_failed


def test_a_report_without_the_first_arm_is_written(write_run):
    lines = [arm(seed, 1, "imagenet", 0.5 + seed / 100) for seed in range(3)]
    said = words(compared(write_run, lines, ("none", "imagenet")))
    assert "Nothing is compared with none" in said


def test_watch_counts_a_diverged_child_as_the_report_does(write_run):
    lines = [arm(seed, 0, "none", 0.5) for seed in range(4)]
    lines += [arm(seed, 1, "mine", 0.6 if seed else 0.2, diverged=not seed) for seed in range(4)]
    directory = compared(write_run, lines, ("none", "mine"))
    assert any("mine" in line and "0.5000" in line for line in watched(directory))
    assert compare_arms(load_run(directory)).table["mean"].tolist() == pytest.approx([50, 50])


def test_watch_ranks_cells_as_the_report_does(write_run):
    """Of a halving those with more seeds come first; one with a diverged child comes last."""
    lines = [cell(0, 0, 5, 0.5), cell(1, 0, 5, 0.5), cell(0, 1, 10, 0.7), cell(0, 2, 15, 0.9),
             cell(1, 2, 15, 0.9, diverged=True)]  # fmt: skip
    directory = grid(write_run, lines, [5, 10, 15], halving=True)
    order = [line.split("M=")[1][:2].strip() for line in watched(directory) if "M=" in line]
    assert order == ["5", "10", "15"]


def test_edges_of_a_grid_are_those_of_all_that_was_tried(write_run):
    lines = [cell(seed, slot, m, 0.5 + slot / 10 + seed / 100, diverged=m == 25)
             for seed in range(2) for slot, m in enumerate((5, 15, 25))]  # fmt: skip
    said = words(grid(write_run, lines, [5, 15, 25]))
    assert "Best cell: N = 1, M = 15" in said and "(1, 25) diverged" in said
    assert "the largest M tried" not in said


def test_a_diverged_child_without_a_reward_is_there(write_run):
    lost = cell(1, 0, 5, 0.1, diverged=True)
    lost["evaluation"] |= {"reward": None, "metrics": {}}
    directory = grid(write_run, [cell(0, 0, 5, 0.9), lost, cell(0, 1, 10, 0.5),
                                 cell(1, 1, 10, 0.5)], [5, 10])  # fmt: skip
    said = words(directory)
    assert "Best cell: N = 1, M = 10" in said and "(1, 5) diverged" in said
    none = arm(1, 1, "mine", 0.1, diverged=True)
    none["evaluation"] |= {"reward": None, "metrics": {}}
    lines = [arm(0, 0, "none", 0.5), arm(1, 0, "none", 0.5), arm(0, 1, "mine", 0.6), none]
    (directory / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    comparison = compare_arms(load_run(directory))
    said = " ".join(comparison.sentences)
    assert "1 diverged without an accuracy" in said and "at chance" not in said


def test_evaluations_may_cost_nothing(write_run):
    lines = [arm(seed, slot, name, 0.5 + slot / 10)
             for seed in range(2) for slot, name in enumerate(("none", "mine"))]  # fmt: skip
    for line in lines:
        line["evaluation"]["image_passes"] = 0
    assert "mine against none: +10.00" in words(compared(write_run, lines, ("none", "mine")))


def test_what_was_evaluated_again_is_told_anew(write_run, tmp_path):
    failed = journal_line(0, 1, None)
    lines = [journal_line(0, 0, 0.5), failed, journal_line(0, 2, 0.7)]
    directory = write_run(lines)
    with board.Events(tmp_path / "board") as events:
        events.tell(progress(directory))
        again = journal_line(0, 1, 0.6, finished=110.0)
        journal = [json.dumps(line) for line in (lines[0], lines[2], again)]
        (directory / "trials.jsonl").write_text("\n".join(journal) + "\n")
        events.tell(progress(directory))
    found = scalars(tmp_path / "board")["reward"]
    assert [value for _, value in found] == pytest.approx([0.5, 0.7, 0.6])


def test_a_training_that_its_loss_ended_is_complete(write_run):
    row = {"epoch": 1, "lr": 0.5, "loss": None, "accuracy": 0.25, "log_likelihood": -1.5}
    directory = write_run([], {"kind": "train", "evaluator": {"epochs": 9}})
    (directory / "epochs.jsonl").write_text(json.dumps({**row, "divergence": "nan"}) + "\n")
    assert not progress(directory).complete
    (directory / "result.json").write_text("{}")
    assert progress(directory).complete


def test_pictures_say_what_they_show(write_run, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("analysis.plots.told", lambda texts: said.extend(texts) or told([]))
    monkeypatch.setattr("analysis.plots.save", lambda figure, path: figure)
    lines = [arm(seed, slot, name, 0.5 + slot / 10 + seed / 100)
             for seed in range(2) for slot, name in enumerate(("none", "mine"))]  # fmt: skip
    kind = {"evaluator": {"kind": "weight-sharing"}}
    comparison = compare_arms(load_run(compared(write_run, lines, ("none", "mine"), **kind)))
    table, runs = comparison.table, comparison.runs
    assert "by weight-sharing" in drawn_arms(table, runs, "x", comparison.judge).axes[0].get_title()
    assert said[0] == "none, seed 0: 50.00 %"
    said.clear()
    differences({"own": (table, runs)}, "x")
    assert said[0] == "none, draw 0: +50.00 points" and "mean +50.50 points [" in said[2]


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [("replicate", "plan.json", "[]"), ("select", "searched.json", "[]")],
)
def test_files_of_other_content_are_named(tmp_path, name, file, content):
    run = copy(name, tmp_path / name)
    (run / file).write_text(content)
    with pytest.raises(InputError, match=file.replace(".", r"\.")):
        words(run)


def test_a_journal_of_something_else_is_no_grid(write_run):
    directory = grid(write_run, [arm(0, 0, "none", 0.5)], [5])
    with pytest.raises(InputError, match="must have cells of a grid in its journal"):
        words(directory)


def test_an_arm_without_results_is_compared_with_nothing(write_run):
    lines = [arm(seed, 0, "none", 0.5 + seed / 100) for seed in range(3)]
    lines += [arm(seed, 1, "lost", None) for seed in range(3)]
    said = compare_arms(load_run(compared(write_run, lines, ("none", "lost")))).sentences
    assert "Without a result: lost." in said and "3 evaluations failed" in " ".join(said)
    assert not any("none" in sentence for sentence in said)


def test_what_a_fidelity_study_leaves_out_is_said(write_run):
    """A child of one policy failed, and all but 7 evaluations of another evaluator."""
    rows = lines()
    for row in [row for row in rows if row["scorer"] == "cheap"]:
        few = {**row, "scorer": "few", "batch": row["batch"] + 10}
        rows.append(few if row["slot"] < 7 else {**few, **LOST})
    child = next(n for n, row in enumerate(rows) if row["scorer"] == "from-scratch")
    rows[child] |= LOST
    found = analyse_fidelity(load_run(write_run(rows)))
    assert (found.few, found.lost) == (("few",), 1)
    said = " ".join(found.sentences)
    assert "1 policies that lack a child are left out." in said and "the table: few." in said


def test_a_cell_beyond_one_that_was_left_out_is_no_neighbour(write_run):
    lines = [cell(seed, slot, m, 0.7 - slot / 10 + seed / 100, diverged=m == 15)
             for seed in range(2) for slot, m in enumerate((5, 15, 25))]  # fmt: skip
    found = analyse_grid(load_run(grid(write_run, lines, [5, 15, 25])))
    assert found.best == (1, 5) and found.neighbours().empty
