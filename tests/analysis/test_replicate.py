"""Methods over draws: simulations whose truth is known, and what reports say of run folders."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from analysis import Draws, analyse_replication, load_run, report_of
from analysis.draws import OTHER, OWN, compare_methods
from analysis.replicate import (
    _shared,
    _stand_ins,
    judged,
    replication_of,
    replication_report,
)
from analysis.statistics import (
    holm_levels,
    minimum_detectable_difference,
    paired_difference,
    seeds_needed,
    share_interval,
)
from analysis.tables import p_clause
from policies import InputError
from proxy_tasks.run_format import STAND_IN, pairs_of
from tests.analysis.journals import reported
from tests.golden.runs import copy

pytestmark = pytest.mark.long


def simulated(rng, methods, draws=6, seeds=3, truth=0.0, search_sd=1.0, child_sd=0.9):
    """Accuracies [draws, seeds, methods]: images and seeds shift all methods alike, every search
    ends elsewhere (`search_sd`), every child has its own noise."""
    shared = rng.normal(0, 3, (draws, 1, 1)) + rng.normal(0, 1, (draws, seeds, 1))
    searches = rng.normal(0, search_sd, (draws, 1, methods))
    noise = rng.normal(0, child_sd, (draws, seeds, methods))
    return 50 + truth + shared + searches + noise


def draws_of(accuracy, diverged=0):
    count = accuracy.shape[2]
    return Draws(
        tuple("abcdefgh"[:count]), tuple(range(len(accuracy))), accuracy, diverged, np.zeros(count)
    )


def paired(draws, method="b"):
    return paired_difference(draws.differences(method, "a"), np.zeros(len(draws.numbers)))


def most(share, trials):
    """What five standard deviations of a binomial share allow: chance fails once in 3 million."""
    return share + 5 * np.sqrt(share * (1 - share) / trials)


@pytest.mark.parametrize("search_sd", [0.0, 1.0])
def test_equal_methods_are_told_apart_in_one_of_twenty_families(search_sd):
    """Verdicts of four comparisons each, of methods whose searches differ by luck alone."""
    rng, trials, wrong = np.random.default_rng(0), 500, 0
    for _ in range(trials):
        draws = draws_of(simulated(rng, 5, search_sd=search_sd))
        tests = [paired(draws, name) for name in "bcde"]
        levels = holm_levels([test.p for test in tests])
        ends = [test.interval(1 - level) for test, level in zip(tests, levels, strict=True)]
        wrong += any(low > 0 or high < 0 for low, high in ends)
    assert 0.01 < wrong / trials < most(0.05, trials)


def test_children_counted_as_units_would_be_wrong():
    """What the unit is for: a search's luck is common to all of its children."""
    rng, trials = np.random.default_rng(1), 500
    right = wrong = 0
    for _ in range(trials):
        draws = draws_of(simulated(rng, 2))
        gap = draws.tested[:, :, 1] - draws.tested[:, :, 0]
        right += paired(draws).p < 0.05
        wrong += scipy.stats.ttest_1samp(gap.ravel(), 0).pvalue < 0.05
    assert right / trials < most(0.05, trials) and wrong / trials > 0.12


def test_a_family_by_hand():
    accuracy = simulated(np.random.default_rng(2), 3, truth=np.array([0.0, 4.0, 0.0]))
    table = compare_methods(draws_of(accuracy), [("b", "a"), ("c", "a")], 0.5).set_index("method")
    means = accuracy.mean(axis=1)
    tests = {n: scipy.stats.ttest_rel(means[:, i], means[:, 0]) for i, n in ((1, "b"), (2, "c"))}
    for place, (name, test) in enumerate(tests.items(), 1):
        row = table.loc[name]
        assert row["difference"] == pytest.approx(np.mean(means[:, place] - means[:, 0]))
        assert row["p"] == pytest.approx(test.pvalue)
        expected = tuple(test.confidence_interval(row["level"]))
        assert (row["low"], row["high"]) == pytest.approx(expected)
        assert (row["low"] > 0) == (row["p_holm"] < 0.05) == (row["verdict"] == "better")
        assert row["ahead"] == np.mean(means[:, place] > means[:, 0])
        # Two comparisons: each must be found at half the level.
        sd = np.std(means[:, place] - means[:, 0], ddof=1)
        expected = minimum_detectable_difference(sd, 6, alpha=0.025)
        assert row["detectable"] == pytest.approx(expected)
        assert row["draws_needed"] == seeds_needed(sd, 0.5, alpha=0.025)
    assert tests["b"].pvalue < 0.025 and table.loc["b", "level"] == pytest.approx(0.975)
    assert table.loc["b", "p_holm"] == pytest.approx(2 * tests["b"].pvalue)
    assert list(table["verdict"]) == ["better", "undecided"]


def test_a_mixed_model_says_the_same_of_balanced_draws():
    """The interaction of methods and draws is the error term: F of the two-way layout."""
    accuracy = simulated(np.random.default_rng(3), 2, draws=8)
    cells, seeds = accuracy.mean(axis=1), accuracy.shape[1]
    grand = cells.mean()
    method = seeds * 8 * ((cells.mean(axis=0) - grand) ** 2).sum()
    interaction = cells - cells.mean(axis=0) - cells.mean(axis=1, keepdims=True) + grand
    error = seeds * (interaction**2).sum() / 7
    expected = scipy.stats.f.sf(method / error, 1, 7)
    assert paired(draws_of(accuracy)).p == pytest.approx(expected)


def test_the_power_that_is_stated_is_the_power_there_is():
    rng, trials = np.random.default_rng(4), 500
    stated = [
        compare_methods(draws_of(simulated(rng, 2)), [("b", "a")], 0.5)["detectable"].iloc[0]
        for _ in range(40)
    ]
    # A standard deviation of 6 draws comes out as 0.952 of the true one on average (c4).
    truth = np.array([0.0, np.mean(stated) / 0.952])
    found = [paired(draws_of(simulated(rng, 2, truth=truth))).p < 0.05 for _ in range(trials)]
    # The mean of 40 sizes scatters by 5 %, which moves the power by 0.04; two of them, and noise.
    assert np.mean(found) == pytest.approx(0.8, abs=0.12)


def test_the_share_of_the_children_in_the_noise_is_found():
    wide = simulated(np.random.default_rng(8), 2, draws=2000, search_sd=1.0, child_sd=1.0)
    table = compare_methods(draws_of(wide), [("b", "a")], 0.5)
    assert table["child_share"].iloc[0] == pytest.approx((2 / 3) / (2 + 2 / 3), abs=0.04)
    rng, shares = np.random.default_rng(9), []
    for _ in range(20):  # children are all the noise there is, and seem to be more than that
        few = draws_of(simulated(rng, 2, search_sd=0.0))
        shares.append(compare_methods(few, [("b", "a")], 0.5)["child_share"].iloc[0])
    assert max(shares) == 1


def test_share_intervals_cover_even_where_all_draws_agree():
    n, counts = 6, np.arange(7)
    ends = np.array([share_interval(count / n, n) for count in counts])
    for share in (0.5, 0.7, 0.9):
        inside = (ends[:, 0] <= share) & (share <= ends[:, 1])
        assert scipy.stats.binom.pmf(counts, n, share)[inside].sum() > 0.88
    for count, interval in zip(counts, ends, strict=True):
        expected = scipy.stats.binomtest(int(count), n).proportion_ci(method="wilson")
        assert tuple(interval) == pytest.approx(tuple(expected), abs=1e-12)


def test_pairs_are_those_with_the_ones_asked_for_each_once():
    assert pairs_of("abc", "a") == [("b", "a"), ("c", "a")]
    assert pairs_of("abc", "ab") == [("b", "a"), ("c", "a"), ("c", "b")]


def test_what_searches_for_nothing_is_compared_by_being_asked_for_alone():
    assert pairs_of("abxyz", "ax", "xyz") == [("b", "a"), ("a", "x"), ("b", "x")]
    assert pairs_of("xyab", "x", "xy") == [("a", "x"), ("b", "x")]
    # Without a second method that searches, or any, nothing else could be compared.
    assert pairs_of("axy", "a", "xy") == [("x", "a"), ("y", "a")]
    assert pairs_of("xyz", "x", "xyz") == [("y", "x"), ("z", "x")]
    draws = draws_of(simulated(np.random.default_rng(10), 4))
    found = analyse_replication({OWN: draws, OTHER: draws}, ["a"], 0.5, {"c", "d"})
    assert list(found.table["method"]) == list("abcd")
    assert list(found.pairs["method"]) == ["b", "b"]
    assert "correction for 1 comparison." in " ".join(found.sentences)


def test_what_failed_is_left_out_of_its_pairs():
    accuracy = simulated(np.random.default_rng(5), 3, draws=4)
    accuracy[0, 1, 1] = np.nan  # one child of b
    accuracy[2, :, 2] = np.nan  # all children of c on one draw
    draws = draws_of(accuracy)
    gap = accuracy[:, :, 1] - accuracy[:, :, 0]
    assert draws.differences("b", "a")[0] == pytest.approx(np.mean(gap[0, [0, 2]]))
    assert np.isnan(draws.means("c")[2])
    found = analyse_replication({OWN: draws, OTHER: draws}, ["a"], 0.5)
    assert list(found.pairs[found.pairs["images"] == OWN]["n"]) == [4, 3]
    assert found.pairs["child_share"].notna().all()
    assert "8 children failed" in " ".join(found.sentences)


def test_differences_that_are_all_the_same_are_undecided():
    accuracy = np.full((3, 2, 2), 50.0)
    accuracy[:, :, 1] = 51.0
    draws = draws_of(accuracy, diverged=1)
    found = analyse_replication({OWN: draws, OTHER: draws}, ["a"], 0.5)
    assert set(found.pairs["verdict"]) == {"undecided"} and found.pairs["p_holm"].isna().all()
    said = " ".join(found.sentences)
    assert "3 draws give no spread" in said and "2 children diverged" in said


def test_ties_are_ties_whatever_their_children_add_up_to():
    """In every draw the methods have the same accuracies, by other seeds."""
    right = np.random.default_rng(0).integers(2000, 2400, (2, 20, 3))  # of 4,000 images
    right[1, :, 0] += (right[0] - right[1]).sum(axis=1)
    draws = draws_of(100 * (np.moveaxis(right, 0, 2) / 4000))
    assert np.any(draws.gaps("b", "a").mean(axis=1) != 0)
    [row] = compare_methods(draws, [("b", "a")], 0.5).itertuples()
    assert (row.difference, row.ahead, row.verdict) == (0, 0.5, "undecided")


def test_what_gives_no_spread_is_a_comparison_too():
    accuracy = simulated(np.random.default_rng(7), 3)
    accuracy[:, :, 1] = accuracy[:, :, 0] + 1
    table = compare_methods(draws_of(accuracy), [("b", "a"), ("c", "a")], 0.5)
    assert table["p_holm"].iloc[1] == pytest.approx(min(1, 2 * table["p"].iloc[1]))


def test_words_follow_the_numbers():
    rng = np.random.default_rng(6)
    accuracy = simulated(rng, 3, truth=np.array([0, 4.0, 0.0]))
    accuracy[:, :, 2] = accuracy[:, :, 0] + rng.normal(0, 0.1, (6, 3))
    draws = draws_of(accuracy)
    costly = dataclasses.replace(draws, cost=np.array([3.0, 0.0, 7.0]))
    found = analyse_replication({OWN: costly, OTHER: draws}, ["a"], 0.5)
    assert list(found.table["search_children"]) == [3, 0, 7]
    better, equal, power, *_ = found.sentences
    row = found.pairs.iloc[0]
    assert better.startswith("b against a: on its own draw better, ")
    assert f"(p {p_clause(row['p_holm'])})" in better and row["p_holm"] == 2 * row["p"] > 0.001
    assert f"{row['difference']:+.2f} points [{row['low']:+.2f}, {row['high']:+.2f}]" in better
    assert "ahead in 100 % of 6 draws [61, 100]" in better
    assert "c against a: on its own draw equal within 0.5 points" in equal
    own = found.pairs[found.pairs["images"] == OWN]["detectable"]
    assert "What 6 draws can resolve" in power and "correction for 2 comparisons" in power
    assert f"{own.min():.1f} (c) to {own.max():.1f} points (b)" in power
    assert max(map(len, found.text.splitlines())) <= 80


# Run folders -----------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    return copy("replicate", tmp_path / "run")


def test_the_recorded_run_has_its_report(recorded):
    text = reported(recorded).read_text()
    table = report_of(recorded).data["methods.csv"]
    assert "Complete: 2 draws" in text and "a draw that nobody searched" in text
    assert json.loads((recorded / "plan.json").read_text())[0]["sha256"] in text
    assert list(table["method"]) == ["random", "randaugment-grid", "random:3", "none"]
    # Search and selection, no more than was allowed; what searches for nothing costs nothing.
    cost = table["search_children"].tolist()
    assert 20 <= cost[0] <= 24 and cost[1:] == [24, 0, 0]
    own = load_run(recorded / "draw-1" / "own").trials
    mean = 100 * own[own["label"] == "none"]["accuracy"].mean()
    run = load_run(recorded)
    found = replication_of(run, judged(run))
    assert found.draws[OWN].means("none")[1] == pytest.approx(mean)
    assert set(report_of(recorded).data["pairs.csv"]["method"]) == {"randaugment-grid"}
    assert (recorded / "replicate.png").read_bytes()[:4] == b"\x89PNG"
    assert (recorded / "draw-1" / "other" / "compare.csv").exists()


def test_methods_are_compared_by_what_rewarded_their_searches_too(recorded):
    """That is another question: a search may find what it was asked for, and no accuracy."""
    for journal in recorded.glob("draw-*/own/trials.jsonl"):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        for line in lines:
            metrics, grid = line["evaluation"]["metrics"], line["label"] == "randaugment-grid"
            metrics["calibrated_log_likelihood"] = -1.5 + 0.1 * grid + 0.01 * line["batch"]
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = report_of(recorded)
    (row,) = found.data["rewarded.csv"].itertuples()
    assert (row.method, row.against, row.images, row.n) == ("randaugment-grid", "random", OWN, 2)
    assert row.difference == pytest.approx(0.1)
    part = next(part for part in replication_report(load_run(recorded)).sections
                if part.title == "By the reward")  # fmt: skip
    assert list(part.blocks[0].frame["difference"]) == ["+0.100"]
    # Where accuracy rewards, or the measure was not kept, there is nothing more to say.
    config = json.loads((recorded / "config.json").read_text())
    for reward in ("accuracy", "none of them"):
        config["evaluator"]["reward"] = reward
        (recorded / "config.json").write_text(json.dumps(config))
        assert "rewarded.csv" not in report_of(recorded).data


def test_a_search_costs_as_many_children_as_have_its_image_passes(recorded):
    for journal in recorded.glob("draw-*/own/trials.jsonl"):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        for line in lines:
            line["evaluation"]["image_passes"] *= 10
        lines[0]["evaluation"]["diverged"] = True
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = load_run(recorded)
    draws = replication_of(run, judged(run)).draws
    assert draws[OWN].cost == pytest.approx(draws[OTHER].cost / 10) and draws[OWN].diverged == 2


def test_a_draw_counts_once_all_its_children_are_there(recorded):
    journal = recorded / "draw-1" / "other" / "trials.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    found = report_of(recorded)
    assert set(found.data["methods.csv"]["draws"]) == {1}
    assert set(found.data["pairs.csv"]["verdict"]) == {"undecided"}
    assert "Unfinished: 1 of 2 draws" in found.found[0]


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        (["ab", "cd", "ef", "gh"], []),
        (["ab", "ab", "ab", "ab"], ["Two draws share 100 %"]),
        # Of the first other draw one of two images was trained on, of the second one gave rewards.
        (["ab", "tc", "de", "vf"], ["50 % of the test images of the other draws"]),
        (["ab", "cd", "bc", "gh"], ["Two draws share 50 %"]),
        # Of one other draw two of four images are trained on that the search had seen.
        (["ab", "cd/tvwx", "ef", "gh"], ["25 % of the training images of the other draws"]),
    ],
)
def test_images_that_draws_share_are_counted(tested, said):
    def judgement(tested, train):
        test, _, other = tested.partition("/")
        parts = {"train": other or train, "validation": "v", "test": test}
        listed = {part: SimpleNamespace(contents=[*names]) for part, names in parts.items()}
        return SimpleNamespace(manifest=SimpleNamespace(parts=listed))

    own, away, second, other = map(judgement, tested, ("t", "wxyz") * 2)
    found = _shared({OWN: [own, second], OTHER: [away, other]})
    assert len(found) == len(said)
    assert all(line.startswith(words) for line, words in zip(found, said, strict=True))


def test_where_a_method_found_nothing_is_said(recorded):
    note = recorded / "draw-1" / "random" / STAND_IN
    note.write_text(json.dumps({"why": "all alike"}))
    assert _stand_ins(load_run(recorded)) == [
        "On draw 1 random found nothing, and counts there with no augmentation: all alike."
    ]
    for content in ("{}", "[]"):
        note.write_text(content)
        with pytest.raises(InputError, match="must hold what the run wrote"):
            _stand_ins(load_run(recorded))


def test_without_a_finished_draw_there_is_nothing_to_compare(recorded):
    for journal in recorded.glob("draw-*/own/trials.jsonl"):
        journal.write_bytes(b"")
    found = report_of(recorded)
    assert found.found[-1] == "No draw is judged yet." and not found.data and not found.text


def test_a_plan_that_has_grown_is_said(recorded):
    def plan():
        parts = replication_report(load_run(recorded)).sections
        return next(part for part in parts if part.title == "Plan").blocks[0].text

    assert "It has grown" not in plan()
    written = json.loads((recorded / "plan.json").read_text())
    assert written[0]["primary"] == OWN and "Primary: accuracy on its own draw" in plan()
    early = {
        name: written[0][name] for name in written[0] if name not in ("primary", "comparisons")
    }
    (recorded / "plan.json").write_text(json.dumps([early]))
    assert "It names neither comparisons nor what decides" in plan()
    (recorded / "plan.json").write_text(json.dumps([*written, *written]))
    assert "It has grown" in plan()
    (recorded / "plan.json").write_text("[1]")
    with pytest.raises(InputError, match="plan.json"):
        plan()


def test_draws_of_a_method_are_those_in_which_it_has_a_result():
    accuracy = simulated(np.random.default_rng(0), 3)
    accuracy[1, :, 2] = np.nan
    draws = draws_of(accuracy)
    found = analyse_replication({OWN: draws, OTHER: draws}, ["a"], 0.5)
    assert found.table["draws"].tolist() == [6, 6, 5]
