"""`augsearch tabulate`: which policies, at which fidelities, and that a study may stop and grow."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.runs import load_run
from analysis.tabulate import table_of
from policies import IMAGENET, Policy, RandAugment, save_policy
from policies.augmentations import encode_augmentation
from policies.errors import InputError
from proxy_tasks.evaluators.registry import make_evaluator
from proxy_tasks.tables import FAMILIES, OPTIMISED, policy_text
from search import Config, run_search, run_tabulate
from search.engine import loop as engine
from search.engine.jobs import Outcome
from search.studies import tabulate as study
from search.studies.search import evaluators_of
from search.studies.tabulate import (
    evaluators,
    families,
    filled_in,
    study_entries,
    tabulate_candidates,
)
from search.trial import CHEAP, MAIN, read_journal
from tests.search.fakes import FakePool, Killed

PLANTED = {"task": "synthetic", "evaluator": "synthetic", "precision": "float32", "workers": 3}


def config(**values):
    return Config.of("tabulate", **{**PLANTED, "policies": 12, **values})


@pytest.fixture
def searches(fake, tmp_path):
    """Two finished searches of 12 candidates."""
    found = []
    for seed in (1, 2):
        out = tmp_path / f"search-{seed}"
        fake(
            Config.of(
                "search", task="synthetic", evaluator="synthetic", searcher="random", seed=seed,
                evaluations=12, precision="float32", workers=3,
            ),
            out=out,
        )  # fmt: skip
        found.append(str(out))
    return found


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """Measure in this process with the planted evaluators of the study."""

    def start(config, out="table", killed_after=None, **options):
        made = {n: make_evaluator(c, None) for n, c in evaluators(filled_in(config)).items()}

        def answer(job):
            asked = job.candidate
            evaluation = made[asked.scorer].evaluate(asked.augmentation, asked.seed, asked.part)
            line = {**evaluation.to_json(), "seconds": 0.5}
            return Outcome(job, "ok", line, None, "", 1.0, 2.0, "host:1")

        monkeypatch.setattr(engine, "WorkerPool", FakePool(3, answer, killed_after))
        run_tabulate(config, tmp_path / out, progress=False, **options)
        return rows(tmp_path / out)

    return start


def rows(folder):
    frame = table_of(load_run(folder)).frame
    return frame.sort_values(["policy", "fidelity", "seed"], ignore_index=True)


# --- which policies ------------------------------------------------------------------------------


def texts(entries):
    return [policy_text(entry.augmentation) for entry in entries]


def test_every_beginning_is_a_fair_sample():
    many = study_entries(config(policies=320))
    weights = {family.name: family.weight for family in families(0)}
    counts = Counter(entry.label for entry in many)
    assert set(counts) == set(FAMILIES) - {OPTIMISED}
    for end in (40, 80, 160):
        here = Counter(entry.label for entry in many[:end])
        # The small families end soon; the others keep their shares to within one policy.
        big = ("single", "random-5x2", "random-25")
        rest = sum(here[name] for name in big)
        for name in big:
            share = weights[name] / sum(weights[big_one] for big_one in big)
            assert abs(here[name] - rest * share) < 1.5, (end, name)


def test_more_policies_begin_as_fewer_do():
    assert study_entries(config(policies=500))[:90] == study_entries(config(policies=90))


def test_policies_are_distinct_and_follow_from_the_seed():
    entries = study_entries(config(policies=400))
    assert len(set(texts(entries))) == len({entry.slot for entry in entries}) == 400
    assert study_entries(config(policies=400)) == entries
    other = study_entries(config(policies=400, seed=1))
    assert len(set(texts(other)) & set(texts(entries))) < 250  # finite families are the same


def test_finite_families_are_whole():
    members = {family.name: family.members for family in families(0)}
    assert {(each.n, each.m) for each in members["randaugment"]} == {
        (n, m) for n in (1, 2, 3) for m in range(0, 31, 3)
    }
    singles = [each[0][0] for each in members["single"]]
    assert all(len(each) == len(each[0]) == 1 for each in members["single"])
    assert {operation.probability for operation in singles} == {1.0}
    assert len({operation.name for operation in singles[:16]}) == len(singles[:16]) == 16
    assert {o.magnitude for o in singles if o.name == "Rotate"} == set(range(10))
    assert [o.magnitude for o in singles if o.name == "Equalize"] == [None]
    assert IMAGENET in members["published"] and RandAugment(3, 30) in members["randaugment"]


# --- policies of searches ------------------------------------------------------------------------


def test_of_a_staged_search_what_its_end_proposed_is_taken_and_nothing_drawn_at_random(
    monkeypatch, tmp_path
):
    out = tmp_path / "staged"
    cheap = {"kind": "synthetic", "options": {"cheap_bias": 1.0, "passes": 1}}
    asked = Config.of(
        "search", **PLANTED, evaluator_options={"passes": 10}, budget=40, cheap=cheap,
        searcher_options={"prior": 4.0, "batch_size": 3},
    )  # fmt: skip
    judges = {name: make_evaluator(each, None) for name, each in evaluators_of(asked).items()}

    def answer(job):
        each = job.candidate
        told = judges[each.scorer].evaluate(each.augmentation, each.seed, each.part)
        return Outcome(job, "ok", told.to_json(), None, "", 1.0, 2.0, "host:1")

    monkeypatch.setattr(engine, "WorkerPool", FakePool(3, answer))
    run_search(asked, out, progress=False)
    trials = sorted(read_journal(out / "trials.jsonl"), key=lambda trial: trial.key)
    dear = [trial.augmentation for trial in trials if trial.scorer == MAIN]
    cheap_ones = [trial.augmentation for trial in trials if trial.scorer == CHEAP]
    judged = sorted(read_journal(out / "final" / "trials.jsonl"), key=lambda trial: trial.key)
    finals = [trial.augmentation for trial in judged]
    assert cheap_ones and finals
    (run,) = filled_in(config(policies_from=[str(out)])).settings.optimised
    late = list(reversed(dear[len(dear) - len(dear) // 3 :]))
    exported = encode_augmentation(load_run(out).policy)
    assert run["policies"] == list_of_distinct([exported, *finals, *late])
    # Whatever order its evaluations arrived in.
    for journal in (out / "trials.jsonl", out / "final" / "trials.jsonl"):
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(reversed(lines)))
    assert filled_in(config(policies_from=[str(out)])).settings.optimised == (run,)


def list_of_distinct(policies):
    return [each for index, each in enumerate(policies) if each not in policies[:index]]


def test_searches_give_their_exported_policy_and_their_last_third(searches):
    settings = filled_in(config(policies_from=searches)).settings
    for name, run in zip(searches, settings.optimised, strict=True):
        trials = load_run(name).trials
        late = trials.sort_values(["batch", "slot"])["policy"].iloc[-4:]
        assert run["source"] == "random, synthetic"
        exported = load_run(name).policy
        wanted = [exported, *map(Policy, reversed(list(late)))]
        assert run["policies"] == [encode_augmentation(policy) for policy in wanted]


def test_late_policies_are_those_that_trained_each_once(searches, monkeypatch):
    def journal(path):
        """Of the last four trials: the first diverged, the second failed, the others are twins."""
        trials = sorted(read_journal(path), key=lambda trial: trial.key)
        diverged = replace(trials[-4].evaluation, diverged=True)
        return [
            *trials[:-4],
            replace(trials[-4], evaluation=diverged),
            replace(trials[-3], evaluation=None, status="failed", error="no"),
            trials[-2],
            replace(trials[-1], augmentation=trials[-2].augmentation),
        ]

    twins = [journal(Path(run) / "trials.jsonl")[-1].augmentation for run in searches]
    monkeypatch.setattr(study, "read_journal", journal)
    settings = filled_in(config(policies_from=searches)).settings
    assert [run["policies"][1:] for run in settings.optimised] == [[twin] for twin in twins]


def test_policies_of_searches_are_spread_and_limited(searches):
    entries = study_entries(filled_in(config(policies=30, policies_from=searches, late=2)))
    places = [i for i, entry in enumerate(entries) if entry.label.startswith(OPTIMISED)]
    assert len(places) == 2 * 3 and len(entries) == 36
    assert {place // 12 for place in places} == {0, 1, 2}


@pytest.mark.long
def test_an_unfinished_search_and_another_kind_are_refused(searches, tmp_path, measure):
    (tmp_path / "search-1" / "policy.json").unlink()
    with pytest.raises(InputError, match="must be finished searches"):
        run_tabulate(config(policies_from=searches), tmp_path / "table")
    measure(config(policies=1))
    with pytest.raises(InputError, match="must be the folders of searches"):
        run_tabulate(config(policies_from=[str(tmp_path / "table")]), tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- fidelities ----------------------------------------------------------------------------------


def test_the_fidelities_of_real_children():
    made = evaluators(filled_in(Config.of("tabulate", task="folder", kernels="fused")))
    assert {name: (c.kind, c.epochs) for name, c in made.items()} == {
        "scratch": ("from-scratch", 80),
        "sharing-80": ("weight-sharing", None),
        "sharing-20": ("weight-sharing", None),
        "quarter": ("from-scratch", 20),
    }
    assert made["sharing-20"].options == {"shared_epochs": 20, "finetune_epochs": 20}
    assert {c.kernels for c in made.values()} == {"fused"}


def test_shorter_children_are_shorter_at_every_fidelity():
    made = evaluators(filled_in(Config.of("tabulate", task="folder", epochs=6)))
    assert {name: c.epochs for name, c in made.items() if c.kind == "from-scratch"} == {
        "scratch": 6, "quarter": 2,
    }  # fmt: skip
    assert evaluators(filled_in(Config.of("tabulate", epochs=1)))["quarter"].epochs == 1


def test_a_policy_is_measured_whole_before_the_next():
    candidates = tabulate_candidates(filled_in(config(policies=5)))
    for start in range(0, 35, 7):
        policy = candidates[start : start + 7]
        assert len({c.slot for c in policy}) == 1
        assert Counter((c.scorer, c.part) for c in policy) == {
            ("scratch", "test"): 2, ("sharing-80", "validation"): 2,
            ("sharing-20", "validation"): 2, ("quarter", "validation"): 1,
        }  # fmt: skip
    cheap = {c.seed for c in candidates if c.scorer != "scratch"}
    assert not cheap & {c.seed for c in candidates if c.scorer == "scratch"}


# --- stopping and growing ------------------------------------------------------------------------


@pytest.mark.parametrize("killed_after", [1, 40])
@pytest.mark.long
def test_a_killed_study_ends_in_the_same_rows(measure, searches, tmp_path, killed_after):
    asked = config(policies_from=searches, late=2)
    whole = measure(asked)
    with pytest.raises(Killed):
        measure(asked, "killed", killed_after)
    assert measure(asked, "killed", resume=True).equals(whole)


@pytest.mark.long
def test_a_grown_study_has_the_rows_of_one_begun_so(measure, searches, tmp_path):
    small = config(policies=7, policies_from=searches[:1], late=1)
    large = config(policies=20, policies_from=searches, late=3)
    first = measure(small, "grown")
    assert measure(large, "grown", resume=True).equals(measure(large, "whole"))
    assert set(first["policy"]) < set(rows(tmp_path / "grown")["policy"])


@pytest.mark.long
def test_a_search_that_went_on_meanwhile_is_refused(measure, searches, tmp_path):
    asked = config(policies=3, policies_from=searches)
    measure(asked)
    save_policy(tmp_path / "search-1" / "policy.json", IMAGENET)
    with pytest.raises(InputError, match="policies_from: must be what it was"):
        measure(asked, resume=True)


@pytest.mark.long
def test_tested_children_tell_both_parts(measure):
    frame = measure(config(policies=10))
    tested = frame[frame["fidelity"] == "scratch"]
    assert len(tested) == 20 and tested["test_accuracy"].notna().all()
    assert (tested["test_accuracy"] != tested["accuracy"]).all()
    assert frame[frame["fidelity"] != "scratch"]["test_accuracy"].isna().all()
