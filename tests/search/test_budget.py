"""Searches with a budget: what is spent on whom, how they are resumed, extended, and end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policies import InputError, load_policy
from proxy_tasks import EvaluatorConfig, make_evaluator
from search import Config, FixedSearcher, read_journal, run_search
from search.engine import loop
from search.engine.budget import Budget
from search.engine.jobs import Outcome
from search.studies import choice, randaugment, select, selection
from search.studies import search as study
from search.studies.choice import FINAL, ORDER
from search.studies.config import read_config
from search.studies.randaugment import run_randaugment
from search.studies.search import budget_of, cheap_cost, kept_of
from search.studies.select import run_select
from search.trial import CHEAP, MAIN, Candidate, image_passes
from tests.proxy_tasks.trees import striped_task
from tests.search.fakes import FakePool, Killed, bad
from tests.search.running import run

pytestmark = pytest.mark.long

CHEAP_OPTIONS = {"kind": "synthetic", "options": {"cheap_bias": 1.0, "passes": 1}}
DEAR = {"evaluator": "synthetic", "evaluator_options": {"passes": 10}}
STAGED = {**DEAR, "task": "synthetic", "cheap": CHEAP_OPTIONS,
          "searcher_options": {"prior": 4.0, "batch_size": 3}}  # fmt: skip
JUDGES = {
    CHEAP: make_evaluator(EvaluatorConfig(**CHEAP_OPTIONS), None),
    MAIN: make_evaluator(EvaluatorConfig("synthetic", options={"passes": 10}), None),
}


def answer(job):
    asked = job.candidate
    found = JUDGES[asked.scorer].evaluate(asked.augmentation, asked.seed, asked.part)
    return Outcome(job, "ok", found.to_json(), None, "", 1.0, 2.0, "host:1")


@pytest.fixture
def pool(monkeypatch):
    """Evaluates by the planted landscapes, in this process; fewer sub-policies are looked at."""
    monkeypatch.setattr(selection, "NEW", 500)

    def use(**options):
        monkeypatch.setattr(loop, "WorkerPool", FakePool(**{"answer": answer, **options}))

    use()
    return use


def searched(out, budget=30, resume=False, **values):
    config = Config.of("search", **{**STAGED, "budget": budget, **values})
    return run_search(config, out, resume=resume, progress=False)


def spent(folder: Path) -> dict[str, int]:
    """Image passes by scorer; of the final choice as "final"."""
    found = {CHEAP: 0, MAIN: 0}
    for trial in read_journal(folder / "trials.jsonl"):
        found[trial.scorer] += trial.result.image_passes
    if (folder / FINAL).exists():
        trials = read_journal(folder / FINAL / "trials.jsonl")
        found["final"] = sum(trial.result.image_passes for trial in trials)
    return found


def content(folder: Path) -> dict[str, object]:
    found = {name: (folder / name).read_bytes() for name in ("policy.txt", "policy.json")}
    for journal in ("trials.jsonl", f"{FINAL}/trials.jsonl"):
        trials = sorted(read_journal(folder / journal), key=lambda trial: trial.key)
        found[journal] = [(t.key, t.scorer, t.seed, t.augmentation, t.reward) for t in trials]
    return found


def test_the_budget_is_spent_and_not_exceeded(pool, tmp_path):
    result = searched(tmp_path / "run")
    cost = spent(tmp_path / "run")
    assert cost[CHEAP] + cost[MAIN] <= 10 * 24  # 30 children of 10, less the reserve of a fifth
    assert cost[CHEAP] + cost[MAIN] > 10 * 24 - 10  # another child did not fit
    assert 40 <= cost[CHEAP] <= 40 + 24  # at first 4 children; then a quarter in batches of 12
    assert cost["final"] == 60
    labels = [trial.label for trial in read_journal(tmp_path / "run" / FINAL / "trials.jsonl")]
    few = [name for name in ORDER if not name.startswith("together")]  # children for a surface
    assert set(labels) == set(few[:3]) and len(labels) == 6
    assert result.policy == load_policy(tmp_path / "run/policy.json")
    assert {trial.scorer for trial in result.best} == {MAIN}
    about = json.loads((tmp_path / "run/policy.json").read_text())["provenance"]
    assert about["cost"]["image_passes"] == sum(cost.values()) <= 300
    made = [read_journal(path) for path in (tmp_path / "run").rglob("trials.jsonl")]
    assert about["evaluations"]["finished"] == result.finished == sum(map(len, made))
    ranked = dict(about["ranking"])
    assert about["selection"].startswith(next(iter(ranked)))
    best = max(t.reward for t in read_journal(tmp_path / "run/trials.jsonl") if t.scorer == MAIN)
    assert about["best_candidate"] == {"reward": best, "measured_again": ranked["best-1"]}


def test_what_evaluations_share_is_part_of_what_a_policy_has_cost(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "preparation_passes", lambda evaluator, task: 7)
    searched(tmp_path / "run")
    about = json.loads((tmp_path / "run/policy.json").read_text())["provenance"]
    prepared = 2 * 7  # of the cheap evaluator and the other
    assert about["cost"]["image_passes"] == sum(spent(tmp_path / "run").values()) + prepared
    assert json.loads((tmp_path / "run/costs.json").read_text())["prepared"] == prepared


def test_so_it_is_of_what_a_selection_and_a_grid_have_cost(pool, tmp_path, monkeypatch):
    for module in (study, select, randaugment):
        monkeypatch.setattr(module, "preparation_passes", lambda evaluator, task: 7)
    searched(tmp_path / "run")
    run_select(Config.of("select", run=str(tmp_path / "run")), tmp_path / "chosen")
    grid = {"task": "synthetic", "n": [1], "m": [3, 9], "seeds": 2, **DEAR}
    run_randaugment(Config.of("randaugment", **grid), tmp_path / "grid")
    prepared = {"chosen": 3 * 7, "grid": 7}  # the search's two evaluators, and the deciding one
    for name, shared in prepared.items():
        journals = [p for p in (tmp_path / name).rglob("*.jsonl") if p.parent.name != "again"]
        trials = [trial for path in journals for trial in read_journal(path)]
        about = json.loads((tmp_path / name / "policy.json").read_text())["provenance"]
        assert about["cost"]["image_passes"] == image_passes(trials) + shared


def test_the_searchs_seed_decides_what_is_new_in_its_final_choice(pool, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        choice, "proposals", lambda *given: told.append(given[-1]) or selection.proposals(*given)
    )
    searched(tmp_path / "run", seed=3)
    run_select(Config.of("select", run=str(tmp_path / "run")), tmp_path / "chosen")
    assert told == [3, 3]


def test_a_run_that_grows_is_not_complete_until_it_has_grown(pool, tmp_path):
    searched(tmp_path / "run")
    pool(killed_after=1)
    with pytest.raises(Killed):
        searched(tmp_path / "run", 60, resume=True)
    assert not (tmp_path / "run/policy.json").exists()
    pool()
    searched(tmp_path / "run", 60, resume=True)
    searched(tmp_path / "whole", 60)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_without_prices_cheap_rewards_are_no_measure_either(pool, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        loop.Progress, "update", lambda self, done, new, best, *other: shown.append(best)
    )
    result = searched(tmp_path / "run", budget=None, evaluations=60, top=2, searcher="staged")
    trials = read_journal(tmp_path / "run/trials.jsonl")
    assert {trial.scorer for trial in trials} == {CHEAP, MAIN}
    assert {trial.scorer for trial in result.best} == {MAIN}
    # Nor while it runs: there is no best before the first of the search's own.
    assert shown[0] is None
    assert shown[-1] == max(trial.reward for trial in trials if trial.scorer == MAIN)


def test_a_share_that_rounding_takes_from_is_whole():
    assert [kept_of(100, reserve) for reserve in (0.29, 0.57, 0.2, 0.299)] == [29, 57, 20, 29]


def test_what_does_not_fit_ends_it_and_what_was_spent_before_counts(monkeypatch, tmp_path):
    kinds = (MAIN, MAIN, CHEAP)  # the last would fit
    asked = [Candidate(0, slot, None, slot, scorer=kind) for slot, kind in enumerate(kinds)]
    budget = Budget(25, {MAIN: 10, CHEAP: 1}, spent=10, unit=10)
    run(monkeypatch, tmp_path / "run", FixedSearcher(asked), evaluations=None, budget=budget)
    assert [trial.slot for trial in read_journal(tmp_path / "run/trials.jsonl")] == [0]
    assert (budget.shown(25), budget.words) == (2.5, ("child", "children"))
    with pytest.raises(KeyError):
        budget.price("nobody")


def test_the_final_policy_is_the_best_of_the_new_children(pool, tmp_path):
    result = searched(tmp_path / "run", 60)
    trials = read_journal(tmp_path / "run" / FINAL / "trials.jsonl")
    means = {}
    for trial in trials:
        means.setdefault(trial.label, []).append(trial.reward)
    assert {len(rewards) for rewards in means.values()} == {2}
    best = max(means, key=lambda name: sum(means[name]))
    [chosen] = {repr(t.augmentation) for t in trials if t.label == best}
    assert repr([[list(op) for op in row] for row in result.policy]) == chosen
    seeds = {trial.seed for trial in trials}
    assert not seeds & {trial.seed for trial in read_journal(tmp_path / "run/trials.jsonl")}


def test_workers_and_kills_change_nothing(pool, tmp_path):
    searched(tmp_path / "whole")
    kills = 0
    for order in range(100):
        pool(order=order, killed_after=15)
        try:
            searched(tmp_path / "killed", resume=True, workers=1 + order % 7)
            break
        except Killed:
            kills += 1
    assert kills >= 3
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_larger_budget_goes_on_and_ends_as_if_it_had_been_asked_for(pool, tmp_path):
    searched(tmp_path / "grown", 20)
    small = content(tmp_path / "grown")
    searched(tmp_path / "grown", 45, resume=True)
    searched(tmp_path / "whole", 45)
    whole = content(tmp_path / "whole")
    assert content(tmp_path / "grown") == whole
    assert small["trials.jsonl"] == whole["trials.jsonl"][: len(small["trials.jsonl"])]
    with pytest.raises(InputError, match="budget was 45 and is 44"):
        searched(tmp_path / "grown", 44, resume=True)
    config = read_config(tmp_path / "grown")
    with pytest.raises(InputError, match="must not be given with evaluations"):
        config.changed(evaluations=500)


def test_killed_between_the_stages_it_goes_on(pool, tmp_path):
    """Whatever lies there of an earlier, smaller budget."""
    searched(tmp_path / "grown", 20)
    pool(killed_after=sum(spent(tmp_path / "grown").values()) // 40)
    with pytest.raises(Killed):
        searched(tmp_path / "grown", 45, resume=True)
    pool()
    searched(tmp_path / "grown", 45, resume=True)
    searched(tmp_path / "whole", 45)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["trials.jsonl", f"{FINAL}/trials.jsonl"])
def test_a_lost_journal_is_not_begun_again(pool, tmp_path, lost):
    searched(tmp_path / "run")
    (tmp_path / "run" / lost).unlink()
    with pytest.raises(InputError, match="must be there"):
        searched(tmp_path / "run", resume=True)


def test_a_plain_searcher_has_the_same_cost_and_the_same_choice(pool, tmp_path):
    searched(tmp_path / "run", searcher="random", cheap={}, searcher_options={})
    cost = spent(tmp_path / "run")
    assert (cost[CHEAP], cost[MAIN], cost["final"]) == (0, 240, 60)


@pytest.mark.parametrize("where", [(3, 1), FINAL])
def test_what_failed_is_made_again_and_the_final_policy_chosen_anew(pool, tmp_path, where):
    searched(tmp_path / "whole")

    def fails(job):
        final = job.candidate.label != ""
        hit = (0, 1) if where == FINAL else where
        failing = final == (where == FINAL) and job.candidate.key == hit
        return bad(job) if failing else answer(job)

    pool(answer=fails)
    result = searched(tmp_path / "run", retries=0)
    assert result.failed == 1
    config = read_config(tmp_path / "run")
    # Gone on with, and tried again in vain: both leave more behind than the first run.
    for retry in (False, True):
        again = run_search(
            config, tmp_path / "run", resume=True, progress=False, retry_failed=retry
        )
        assert again.failed == 1
    pool()
    assert run_search(config, tmp_path / "run", resume=True, progress=False, retry_failed=True)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_an_own_searcher_may_ask_the_cheap_evaluator_too(pool, tmp_path):
    searched(tmp_path / "named", searcher="search.searchers.staged:StagedSearcher")
    searched(tmp_path / "staged")
    assert (
        content(tmp_path / "named")["trials.jsonl"] == content(tmp_path / "staged")["trials.jsonl"]
    )


def test_a_budget_without_a_reserve_joins_the_best(pool, tmp_path):
    result = searched(tmp_path / "run", reserve=0.0)
    assert not (tmp_path / "run" / FINAL).exists() and len(result.policy) == 25
    trials = [t for t in read_journal(tmp_path / "run/trials.jsonl") if t.scorer == MAIN]
    best = max(trials, key=lambda trial: trial.reward)
    assert [[list(op) for op in row] for row in result.policy[:5]] == best.augmentation


def test_what_a_cheap_evaluation_costs_follows_from_the_configuration():
    """Weight sharing: 8 epochs instead of 80, and the shared child once."""
    config = Config.of("search", task="folder", data=".", budget=100)
    assert config.settings.cheap == {"kind": "weight-sharing"}
    task = striped_task()
    train, looked_at = len(task.train), round(len(task.validation) / 3)
    budget = budget_of(config, task)
    child, copy = 80 * train + looked_at, 8 * train + looked_at
    assert budget.prices == {MAIN: child, CHEAP: copy}
    assert (budget.spent, budget.unit, budget.limit) == (80 * train, child, 80 * child)
    assert cheap_cost(config, task) == copy / child
    alone = Config.of("search", task="folder", data=".", searcher="ppo")
    budget = budget_of(alone, task)
    assert alone.evaluator.kind == "weight-sharing" and alone.settings.cheap == {}
    assert budget.prices == {MAIN: copy} and (budget.spent, budget.unit) == (80 * train, child)


@pytest.mark.parametrize(
    ("given", "searcher", "cheap"),
    [
        ({}, "staged", {}),  # on reduced-fashion nothing cheap ranks policies
        ({"evaluations": 9}, "ppo", {}),
        ({"budget": 9, "task": "folder"}, "staged", {"kind": "weight-sharing"}),
        ({"task": "folder", "evaluator": "from-scratch"}, "staged", {"kind": "weight-sharing"}),
        ({"task": "folder", "evaluator": "weight-sharing"}, "staged", {}),
        ({"task": "folder", "preset": "paper"}, "staged", {}),
        ({"task": "folder", "cheap": {}}, "staged", {}),
        ({"task": "folder", "searcher": "random"}, "random", {}),
    ],
)
def test_staged_is_the_default(given, searcher, cheap):
    config = Config.of("search", **given)
    assert (config.searcher.name, config.settings.cheap) == (searcher, cheap)
    assert (config.settings.budget is None) == ("evaluations" in given)
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(("budget", "said"), [(4, False), (9, True), (10, False)])
def test_a_budget_that_is_too_small_for_a_choice_says_so(pool, tmp_path, caplog, budget, said):
    searched(tmp_path / "run", budget, cheap={})
    assert ("needs 2" in caplog.text) == said == (caplog.text.count("WARNING") == 1)
    assert (tmp_path / "run" / FINAL).exists() == (budget == 10)


def test_a_budget_that_cheap_evaluations_would_use_up_is_refused(pool, tmp_path):
    """4 children's cost comes first, in batches of 12 tenths of one; the next that fits is 4.8."""
    with pytest.raises(InputError, match="budget: must be at least 7: 0 children for what cheap"):
        searched(tmp_path / "run", 5)  # of which 1 is kept
    searched(tmp_path / "run", 7)  # 6 pay for 4.8 and a child
    trials = read_journal(tmp_path / "run/trials.jsonl")
    assert [trial.scorer for trial in trials] == [CHEAP] * 48 + [MAIN]


def test_what_costs_more_than_a_child_is_not_cheap():
    """With few epochs a child is cheap itself, and copies of a shared one are not."""
    config = Config.of("search", task="folder", data=".", budget=800, epochs=2)
    with pytest.raises(InputError, match="cheap: must cost less than .*3.22 times.* pass --cheap"):
        budget_of(config, striped_task())


def test_as_many_evaluations_as_are_cheap_at_first_are_refused(pool, tmp_path):
    """None would be left for the search's own evaluator, after all of them were made."""
    with pytest.raises(InputError, match="evaluations: must be more than the 48 cheap ones"):
        searched(tmp_path / "run", None, evaluations=48, searcher="staged")
    searched(tmp_path / "run", None, evaluations=50, searcher="staged")
    trials = read_journal(tmp_path / "run/trials.jsonl")
    assert [trial.scorer for trial in trials] == [CHEAP] * 48 + [MAIN] * 2


@pytest.mark.parametrize("limit", [{"budget": 30}, {"evaluations": 24}])
@pytest.mark.parametrize("kind", ["Ragged", "Mixed"])
def test_searchers_of_a_users_own_may_propose_policies_of_any_form(pool, tmp_path, kind, limit):
    """What is no policy has a reward, and takes no part in the final one."""
    own = {**DEAR, "task": "synthetic", "searcher": f"tests.search.own_searchers:{kind}", **limit}
    result = run_search(Config.of("search", **own), tmp_path / "run", progress=False)
    rows = {
        tuple(tuple(op) for op in row)
        for trial in read_journal(tmp_path / "run/trials.jsonl")
        if isinstance(trial.augmentation, list)
        for row in trial.augmentation
    }
    assert load_policy(tmp_path / "run/policy.json") == result.policy
    if "evaluations" in limit:
        assert {tuple(tuple(op) for op in row) for row in result.policy} <= rows
    if kind == "Ragged":
        assert {len(row) for row in rows} == {1, 2}
    run_select(Config.of("select", run=str(tmp_path / "run")), tmp_path / "chosen")


def test_a_searcher_that_proposes_no_policies_is_refused_before_it_costs(pool, tmp_path):
    own = {**DEAR, "task": "synthetic", "searcher": "tests.search.own_searchers:Cells"}
    with pytest.raises(InputError, match="searcher: must propose policies.*RandAugment"):
        run_search(Config.of("search", **own), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("limit", [{"budget": 30}, {"evaluations": 24}])
def test_an_operation_that_the_search_leaves_out_ends_it_where_it_is_asked(pool, tmp_path, limit):
    own = {**DEAR, "task": "synthetic", "searcher": "tests.search.own_searchers:Wild", **limit}
    config = Config.of("search", without=("Cutout",), workers=1, **own)
    with pytest.raises(InputError, match="searcher: must propose operations of the.*'Cutout'"):
        run_search(config, tmp_path / "run", progress=False)
    assert len(read_journal(tmp_path / "run" / "trials.jsonl")) == 9


def test_a_share_that_leaves_nothing_is_refused_at_once(pool, tmp_path):
    config = Config.of("search", budget=100, reserve=1 - 1e-10, **STAGED)
    with pytest.raises(InputError, match="reserve: must leave children for the search"):
        run_search(config, tmp_path / "run", progress=False)


def test_more_that_buys_nothing_warns_of_nothing(pool, tmp_path):
    config = Config.of("search", task="synthetic", searcher="random", budget=34, **DEAR)
    run_search(config, tmp_path / "run", progress=False)
    more = Config.of("search", task="synthetic", searcher="random", budget=35, **DEAR)
    run_search(more, tmp_path / "run", resume=True, progress=False)
    assert "WARNING" not in (tmp_path / "run" / "run.log").read_text()
