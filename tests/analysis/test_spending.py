"""What a report says of a search with a budget: two evaluators' rewards are never mixed."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from analysis.document import markdown
from analysis.progress import progress
from analysis.runs import dear, load_run
from analysis.search import search_report
from analysis.spending import spent, state
from policies import InputError
from proxy_tasks.trials import read_journal
from tests.golden.runs import FOLDER


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(FOLDER / "search-staged", tmp_path / "run")


def words(folder) -> str:
    return markdown(search_report(load_run(folder)))


def test_the_budget_is_accounted_for(run):
    table = spent(load_run(run))
    trials = read_journal(run / "trials.jsonl")
    final = read_journal(run / "final" / "trials.jsonl")
    assert table["evaluations"].to_dict() == {
        "cheap": sum(t.scorer == "cheap" for t in trials),
        "main": sum(t.scorer == "main" for t in trials),
        "final": len(final),
    }
    passes = sum(trial.result.image_passes for trial in [*trials, *final])
    assert table["children"].sum() == pytest.approx(passes / 10) and passes <= 200
    assert state(load_run(run)) == f"{passes / 10:.1f} of 20 children are spent"
    report = words(run)
    assert f"Complete: {len(trials)} evaluations, {passes / 10:.1f} of 20 children" in report
    assert "new children for the final policy" in report
    computed = sum(trial.status == "ok" for trial in [*trials, *final])
    assert re.search(rf"evaluations that were computed\s*\|\s*{computed}\s", report)


def test_the_best_is_that_of_the_searchs_own_evaluator(run):
    """Though every cheap reward is made larger than all of its own."""
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    own = []
    for line in lines:
        if line["scorer"] == "cheap":
            line["evaluation"]["reward"] = 7.25
        else:
            own.append(line["evaluation"]["reward"])
    (run / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = words(run)
    assert f"Best reward {max(own):.4f}" in report and "7.25" not in report
    assert sorted(dear(load_run(run).trials)["reward"]) == sorted(own)
    [search, _] = progress(run).stages
    assert search.sound["reward"].max() == max(own) and search.budget == state(load_run(run))


def test_how_the_final_policy_was_chosen_is_told(run):
    about = json.loads((run / "policy.json").read_text())["provenance"]
    report = words(run)
    for name, mean in about["ranking"]:
        assert name in report and f"{mean:.4f}" in report
    best = about["best_candidate"]
    assert f"{best['reward']:.4f} when it was found, and has {best['measured_again']:.4f}" in report


@pytest.mark.parametrize(("found", "lucky"), [(0.53, True), (0.51, False), (0.4, False)])
def test_what_the_best_candidate_lost_is_luck_where_its_new_children_show_it(run, found, lucky):
    """0.50 and 0.502 of two new children: Student's interval ends at 0.5137."""
    lines = [json.loads(line) for line in (run / "final" / "trials.jsonl").read_text().splitlines()]
    for line in lines:
        line["evaluation"]["reward"] = 0.5 + 0.002 * line["batch"]
    (run / "final" / "trials.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    policy = json.loads((run / "policy.json").read_text())
    policy["provenance"]["best_candidate"] = {"reward": found, "measured_again": 0.501}
    (run / "policy.json").write_text(json.dumps(policy))
    said = f"had the reward {found:.4f} when it was found, and has 0.5010 [0.4883, 0.5137]"
    assert f"{said} with new seeds{': what it lost was luck' if lucky else ''}." in words(run)


def test_final_policies_are_ranked_over_the_seeds_that_all_have(run):
    path = run / "final" / "trials.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = list(dict.fromkeys(line["label"] for line in lines))
    for line in lines:
        line["evaluation"]["reward"] = 0.5 - 0.1 * names.index(line["label"]) + line["batch"]
    lines = [line for line in lines if line["batch"] == 0 or line["label"] == names[-1]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chosen = words(run).split("How the final policy was chosen")[1]
    assert chosen.index(f"| {names[0]} ") < chosen.index(f"| {names[-1]} ")


def test_unfinished_and_without_its_costs_it_still_has_a_report(run):
    shutil.rmtree(run / "final")
    for name in ("policy.json", "policy.txt", "costs.json"):
        (run / name).unlink()
    assert "Unfinished: what is spent of 20 children is not known" in words(run)
    assert not progress(run).complete


@pytest.mark.parametrize("content", ["{}", "[]", '{"child": 0, "prepared": 1}'])
def test_costs_of_other_content_are_refused(run, content):
    (run / "costs.json").write_text(content)
    with pytest.raises(InputError, match="costs.json"):
        spent(load_run(run))
