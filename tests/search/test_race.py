"""Races between searchers: at the same cost, repeatable, and told what they really found."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from policies import InputError
from proxy_tasks import EvaluatorConfig
from proxy_tasks.tables import encode_table
from search import Config, PolicySpace, RandomSearcher, make_searcher, run_race
from search.studies import race as study
from search.studies.race import checkpoints, compete, course_of, read_race
from search.studies.settings import check_no_twins
from search.testing import ahead, drive, race
from tests.planted import landscape, planted_table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("race") / "planted.parquet"
    path.write_bytes(encode_table(planted_table()))
    return str(path)


def config(**values):
    given = {"table": "planted", "searcher": ("random", "evolution"), "budget": 40, "seeds": 3,
             "workers": 1}  # fmt: skip
    return Config.of("race", **{**given, **values})


PLANTED = EvaluatorConfig(kind="synthetic", reward="accuracy")


def test_checkpoints_end_at_the_budget():
    assert checkpoints(120) == tuple(range(6, 121, 6))
    assert checkpoints(10) == tuple(range(1, 11))
    assert len(checkpoints(501)) == 20 and checkpoints(501)[-1] == 501


def test_what_a_lap_says_is_what_a_search_exports():
    """Against the contract's own driver and a plain selection."""
    lap = compete(make_searcher("ppo", PolicySpace(), 3), course_of(PLANTED), 3, 40, top=2)
    truth = landscape(3)
    rewards = {}
    told = drive(
        make_searcher("ppo", PolicySpace(), 3), 40,
        judge=lambda c: rewards.setdefault(c.key, truth.evaluate(c.augmentation, c.seed)),
    )  # fmt: skip
    for count, value in zip(lap.evaluations, lap.values, strict=True):
        first = sorted(told)[:count]
        best = sorted(first, key=lambda key: -rewards[key].reward)[:2]
        rows = [row for key in best for row in told[key].augmentation]
        assert value == truth.value(type(told[0, 0].augmentation)(rows))
    assert lap.image_passes == 40 and lap.duplicates == 0


class Stubborn(RandomSearcher):
    """Asks for the same candidate again and again."""

    def _draw(self, batch):
        rows, notes = super()._draw(0)
        return [rows[0]] * self.batch_size, notes


def test_a_candidate_asked_for_again_is_not_evaluated_again():
    lap = compete(Stubborn(PolicySpace(), 0), course_of(PLANTED), 0, 40)
    assert lap.duplicates == 39 and lap.image_passes == 1
    assert len(set(lap.values)) == 1


def test_searches_in_which_nothing_trains_have_no_value():
    class Hopeless:
        def start(self, seed):
            return self, lambda policies: [0.5 for _ in policies]

        def evaluate(self, augmentation, seed):
            return dataclasses.replace(landscape().evaluate(augmentation, seed), diverged=True)

    lap = compete(RandomSearcher(PolicySpace(), 0), Hopeless(), 0, 20)
    assert set(lap.values) == {None}


@pytest.mark.long
def test_a_race_is_repeatable_resumed_and_extended(tmp_path):
    run_race(config(), tmp_path / "one", progress=False)
    first = (tmp_path / "one/race.json").read_bytes()
    whole = read_race(tmp_path / "one")
    assert {name: sorted(some) for name, some in whole.items()} == {
        "random": [0, 1, 2], "evolution": [0, 1, 2],
    }  # fmt: skip
    run_race(config(workers=2), tmp_path / "two", progress=False)
    assert without_seconds(tmp_path / "two") == without_seconds(tmp_path / "one")
    # Resumed: what is there is not run again.
    run_race(config(), tmp_path / "one", resume=True, progress=False)
    assert (tmp_path / "one/race.json").read_bytes() == first
    grown = config(seeds=4, searcher=("random", "evolution", "thompson"))
    run_race(grown, tmp_path / "one", resume=True, progress=False)
    after = read_race(tmp_path / "one")
    assert after["random"][1] == whole["random"][1] and sorted(after["thompson"]) == [0, 1, 2, 3]
    run_race(grown, tmp_path / "three", progress=False)
    assert without_seconds(tmp_path / "three") == without_seconds(tmp_path / "one")


def without_seconds(folder):
    """The planted landscape tells how long it really took; a table tells what it saves."""
    laps = json.loads((folder / "race.json").read_text())["laps"]
    key = lambda lap: (lap["searcher"], lap["seed"])  # noqa: E731
    return sorted(({**lap, "seconds": 0} for lap in laps), key=key)


def test_an_interrupted_race_goes_on_where_it_was_saved(tmp_path, monkeypatch):
    class Interrupt(Exception):
        pass

    run = study.compete
    count = []

    def limited(*arguments):
        count.append(1)
        if len(count) == 5:
            raise Interrupt
        return run(*arguments)

    monkeypatch.setattr(study, "compete", limited)
    with pytest.raises(Interrupt):
        run_race(config(), tmp_path / "cut", progress=False)
    assert list(read_race(tmp_path / "cut")) == ["random"]
    run_race(config(), tmp_path / "cut", resume=True, progress=False)
    monkeypatch.setattr(study, "compete", run)
    run_race(config(), tmp_path / "whole", progress=False)
    assert without_seconds(tmp_path / "cut") == without_seconds(tmp_path / "whole")


def test_a_race_does_not_go_on_by_a_searcher_that_has_changed(tmp_path):
    asked = config(searcher=("random", "ppo@3"), budget=10, seeds=2)
    run_race(asked, tmp_path, progress=False)
    assert run_race(asked, tmp_path, resume=True, progress=False).keys() == {"random", "ppo@3"}
    path = tmp_path / "race.json"
    raced = json.loads(path.read_text())
    del raced["revisions"]  # as it was before PPO's batches grew
    path.write_text(json.dumps(raced))
    before = path.read_bytes(), (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match="ask for what it did .* but got 'ppo@3'"):
        run_race(asked.changed(seeds=3), tmp_path, resume=True, progress=False)
    assert (path.read_bytes(), (tmp_path / "config.json").read_bytes()) == before
    raced["laps"] = [lap for lap in raced["laps"] if lap["searcher"] == "random"]
    path.write_text(json.dumps(raced))
    laps = run_race(asked.changed(seeds=3), tmp_path, resume=True, progress=False)
    assert sorted(laps["random"]) == [0, 1, 2]


def test_one_searcher_with_other_options_is_another():
    names = ("ppo", "ppo@5", "staged", "thompson")
    options = {"ppo@5": {"batch_size": 9}, "staged": {"prior": 1.0}}
    given = config(searcher=names, searcher_options=options)
    check_no_twins("searcher", names, given.settings, cheap=False)
    check_no_twins("searcher", ("staged@9", "thompson@9"), config().settings, cheap=True)
    with pytest.raises(InputError, match="against: must name no searcher twice"):
        race({}, "planted", against=["random", "random@5"])


def test_the_seeds_of_a_race_begin_where_it_is_told(tmp_path):
    asked = config(searcher=("random",), budget=10, seeds=2)
    from_0 = run_race(asked, tmp_path / "0", progress=False)["random"]
    from_1 = run_race(asked.changed(seed=1), tmp_path / "1", progress=False)["random"]
    assert (sorted(from_0), sorted(from_1)) == ([0, 1], [1, 2])
    assert from_0[1].values == from_1[1].values != from_1[2].values


def test_a_process_keeps_courses_apart():
    other = dataclasses.replace(PLANTED, reward="log_likelihood")
    assert study._course(PLANTED) is study._course(dataclasses.replace(PLANTED))
    assert study._course(PLANTED) is not study._course(other)


def test_the_truth_is_the_test_accuracy_from_scratch(tmp_path):
    """No searcher is told it; here it is half of what they are told."""
    whole = planted_table(random=30, late=0)
    frame = whole.frame.copy()
    frame.loc[frame["fidelity"] == "scratch", "test_accuracy"] = frame["accuracy"] / 2
    path = tmp_path / "shifted.parquet"
    path.write_bytes(encode_table(dataclasses.replace(whole, frame=frame)))
    options = {"table": str(path), "fidelity": "scratch"}
    course = course_of(EvaluatorConfig(kind="table", options=options))
    rng = np.random.default_rng(0)
    policies = [PolicySpace().sample(rng) for _ in range(5)]
    (even, worth), (odd, other) = course.start(0), course.start(1)
    # Each is judged by the half of which the other is told.
    for judge, told in ((worth, odd), (other, even)):
        expected = told.surrogate.of("scratch").mean(policies)["accuracy"]
        assert judge(policies) == pytest.approx(expected / 2)
    halves = [set(each.surrogate.frame["policy"]) for each in (even, odd)]
    assert not halves[0] & halves[1] and sum(map(len, halves)) == frame["policy"].nunique()
    assert course.start(2)[0] is even


def test_candidates_of_another_size_race_beside(tmp_path):
    """As in a race of their own, with the options of their searcher unless they have others."""
    both = run_race(config(searcher=("random", "random@2")), tmp_path / "both", progress=False)
    alone = config(searcher=("random",), subpolicies=2)
    other = run_race(alone, tmp_path / "alone", progress=False)["random"]
    values = {name: [lap.values for lap in laps.values()] for name, laps in both.items()}
    assert values["random@2"] == [lap.values for lap in other.values()] != values["random"]
    options = {"ppo": {"batch_size": 5}, "ppo@9": {"batch_size": 10}}
    given = config(
        searcher=("staged@25", "ppo@25", "ppo@9"), dear="scratch", searcher_options=options
    )
    entrants = study.entrants_of(given.settings)
    assert {name: (each.searcher, each.space.num_subpolicies, each.options.get("batch_size"))
            for name, each in entrants.items()} == {
        "staged@25": ("staged", 25, None),
        "ppo@25, sharing-80": ("ppo", 25, 5), "ppo@25, scratch": ("ppo", 25, 5),
        "ppo@9, sharing-80": ("ppo", 9, 10), "ppo@9, scratch": ("ppo", 9, 10),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"table": "no-such-table"}, "table"),
        ({"searcher_options": {"ppo": {}}}, "searcher_options"),
        ({"searcher_options": {"random": {"batch": 5}}}, "batch"),
        ({"searcher_options": {"random": 5}}, "object for a searcher"),
        ({"searcher": ("random", "pp0")}, "ppo"),
        ({"searcher": ("random", "mine:Own")}, "race your own in Python"),
        ({"searcher": None}, "searcher: must be names"),
        ({"searcher": "mine:Own"}, "searcher: must be names"),
        ({"searcher": ("random", "mine:Own@25")}, "race your own in Python"),
        ({"searcher": ("random", "ppo@many")}, "searcher: must have a number of sub-policies"),
        ({"searcher": ("random", "ppo@9999")}, "subpolicies: .*at most 1000, but got 9999"),
        ({"searcher": ("random", "ppo@1000"), "top": 99}, "top 99 x 1000 sub-policies"),
        ({"searcher": ("ppo@25",), "searcher_options": {"ppo@5": {}}}, "searcher_options"),
        ({"searcher": ("random", "random@5")}, "no searcher twice: random is the same"),
        ({"searcher": ("ppo@9", "ppo@09")}, "no searcher twice: ppo@9 is the same"),
        ({"searcher": ("staged", "thompson@5")}, "staged is the same without a cheap evaluator"),
        # With one they are two, and the next mistake is told.
        (
            {
                "searcher": ("staged", "thompson", "random"),
                "dear": "scratch",
                "searcher_options": {"random": {"batch": 5}},
            },
            "batch",
        ),
        ({"budget": 5}, "budget"),
        ({"fidelity": "scratch"}, "fidelity: must be one of sharing-80"),
    ],
)
def test_a_mistake_leaves_nothing_behind(tmp_path, values, said):
    with pytest.raises(InputError, match=said):
        run_race(config(**values), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_race_does_not_go_on_with_another_table(tmp_path):
    whole = planted_table()
    path = tmp_path / "mine.parquet"
    path.write_bytes(encode_table(whole))
    given = config(table=str(path), budget=10, seeds=2)
    run_race(given, tmp_path / "run", progress=False)
    before = (tmp_path / "run/race.json").read_bytes()
    path.write_bytes(encode_table(dataclasses.replace(whole, frame=whole.frame.iloc[:-2])))
    os.utime(path, ns=(1, 1))  # however coarse the clock
    evaluator = EvaluatorConfig(kind="table", options={"table": str(path), "fidelity": "scratch"})
    course = study._course(evaluator)
    assert study._course(evaluator) is course
    os.utime(path, ns=(2, 2))
    assert study._course(evaluator) is not course
    with pytest.raises(InputError, match="as it was when the race was begun"):
        run_race(given, tmp_path / "run", resume=True, progress=False)
    assert (tmp_path / "run/race.json").read_bytes() == before


@pytest.mark.long
def test_a_race_on_a_table_tells_its_cost(table, tmp_path):
    laps = run_race(config(table=table, seeds=2), tmp_path / "run", progress=False)
    lap = laps["random"][0]
    assert (lap.image_passes, lap.seconds) == (40 * 100, 40 * 1.0)
    with pytest.raises(InputError, match="fidelity"):
        run_race(config(table=table, fidelity="nothing"), tmp_path / "other", progress=False)


# What the searchers are worth -------------------------------------------------------------------


def mean(laps, searcher):
    last = laps[(laps["searcher"] == searcher) & (laps["evaluations"] == laps["evaluations"].max())]
    return 100 * last["value"].mean()


def entrants(options):
    return {
        name: lambda seed, name=name: make_searcher(name, PolicySpace(), seed, options[name])
        for name in options
    }


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "budget", "top", "gains"),
    [
        ({"thompson": {}, "ppo": {}}, 120, 5, {"thompson": 0.8, "ppo": 0.1}),
        ({"thompson": {}, "ppo": {"batch_size": 20}}, 500, 5, {"thompson": 0.8, "ppo": 0.8}),
        pytest.param({"thompson": {}}, 500, 1, {"thompson": 1.0}, marks=pytest.mark.slow),
    ],
    ids=["120", "500", "500-best"],
)
def test_learning_searchers_are_ahead_of_random_search(options, budget, top, gains):
    """Paired over 30 planted landscapes, after the same selection: p below 0.01."""
    laps = race(entrants(options), against=["random"], budget=budget, seeds=30, top=top)
    for name, gain in gains.items():
        assert ahead(laps, name, "random") < 0.01
        assert mean(laps, name) > mean(laps, "random") + gain


@pytest.mark.long
def test_a_race_on_a_table_agrees_with_the_landscape_it_was_measured_on(table):
    """In the verdict. What is found is judged by the half of the table that its searcher was told
    nothing of; by the same half it would flatter (by 0.9 points with these few hundred)."""
    truth = landscape()

    class Known:
        def start(self, seed):
            return truth, lambda policies: [truth.value(policy) for policy in policies]

    seeds = range(16)
    known = {
        name: 100 * np.mean([
            compete(make_searcher(name, PolicySpace(), s), Known(), s, 120).values[-1]
            for s in seeds
        ])
        for name in ("random", "thompson")
    }  # fmt: skip
    laps = race({}, table, against=["random", "thompson"], budget=120, seeds=len(seeds))
    assert mean(laps, "random") == pytest.approx(known["random"], abs=0.5)
    assert mean(laps, "thompson") == pytest.approx(known["thompson"], abs=0.7)
    assert known["thompson"] > known["random"] + 0.4
    assert ahead(laps, "thompson", "random") < 0.01


@pytest.mark.long
@pytest.mark.parametrize(
    ("budget", "seeds", "gains"),
    [
        (120, 60, {"ppo": 0.3, "thompson@25": 0.6}),
        (500, 100, {"ppo": 0.2}),
        (500, 30, {"thompson@25": 0.4}),
    ],
)
def test_on_the_packaged_table_learning_is_ahead_of_luck(budget, seeds, gains):
    """Told of children from scratch. Thompson sampling by candidates of 5 is behind random search,
    and of copies of a shared child nobody is told what pays (docs/results.md)."""
    laps = race(
        {}, "cifar10-1k", against=["random", *gains], fidelity="scratch",
        reward="calibrated_log_likelihood", budget=budget, seeds=seeds,
    )  # fmt: skip
    for name, least in gains.items():
        assert ahead(laps, name, "random") < 0.01
        assert mean(laps, name) > mean(laps, "random") + least


@pytest.mark.long
def test_those_that_ship_race_with_options_too():
    few = race(
        {}, against=["thompson"], budget=20, seeds=2, options={"thompson": {"batch_size": 2}}
    )
    assert not few.equals(race({}, against=["thompson"], budget=20, seeds=2))


def test_ahead_is_the_paired_test():
    laps = race({"worse": lambda seed: Stubborn(PolicySpace(), seed)}, seeds=12, budget=40)
    assert ahead(laps, "random", "worse") < 0.05 < ahead(laps, "worse", "random")
    assert ahead(laps, "random", "worse") + ahead(laps, "worse", "random") == pytest.approx(1)


def test_equal_gaps_are_no_proof():
    """Two seeds that differ by as much are no evidence of a spread of nothing."""
    laps = pd.DataFrame(
        [
            {"searcher": name, "seed": seed, "evaluations": 9, "value": value + seed / 10}
            for name, value in (("a", 0.52), ("b", 0.5))
            for seed in range(2)
        ]
    )
    assert np.isnan(ahead(laps, "a", "b")) and np.isnan(ahead(laps[:1].copy(), "a", "a"))


def command_of(process):
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # such as what told the versions, ended meanwhile
        return ""


@pytest.mark.long
def test_processes_end_when_the_race_is_killed(tmp_path):
    code = (
        "from tests.search.test_race import config; from search import run_race\n"
        "if __name__ == '__main__':\n"
        f"    run_race(config(budget=500, seeds=1000, workers=2), {str(tmp_path / 'race')!r})"
    )
    (tmp_path / "killed.py").write_text(code)
    here = {**os.environ, "PYTHONPATH": os.getcwd()}
    killed = subprocess.Popen([sys.executable, str(tmp_path / "killed.py")], env=here)
    try:
        workers = []
        while len(workers) < 2 or any(each.cpu_times().user < 1 for each in workers):
            assert killed.poll() is None
            time.sleep(0.1)
            children = psutil.Process(killed.pid).children()
            workers = [each for each in children if "spawn_main" in command_of(each)]
    finally:
        killed.kill()
        killed.wait()
    assert len(psutil.wait_procs(workers, timeout=60)[0]) == 2
