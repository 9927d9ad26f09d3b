"""Races: the figures, against others' and by hand, and the report."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis import analyse_race, report_of
from analysis.statistics import bootstrap, interquartile_mean, paired_superiority
from policies import InputError
from tests.analysis.journals import reported


def laps(finals: dict[str, list[float | None]], marks=(5, 10)) -> pd.DataFrame:
    """Searcher -> final values in percent by seed; half way, each is a point worse."""
    return pd.DataFrame(
        [
            {"searcher": name, "seed": seed, "evaluations": count,
             "value": None if value is None else value / 100 - 0.01 * (count < marks[-1]),
             "image_passes": 100, "seconds": 7200.0, "duplicates": 1}
            for name, values in finals.items()
            for seed, value in enumerate(values)
            for count in marks
        ]
    )  # fmt: skip


def test_the_statistics_by_hand():
    assert interquartile_mean(np.array([100.0, 1, 2, 3, -50, 2, 4, 9])) == pytest.approx(2.75)
    assert paired_superiority(np.array([1.0, 0, -1, 2])) == pytest.approx(0.625)
    found = bootstrap(lambda v: v.mean(axis=-1), np.arange(40.0))
    assert found.value == 19.5 and found.n == 40
    # The mean's standard error, without the factor of n / (n - 1).
    half = 1.96 * np.arange(40.0).std() / np.sqrt(40)
    assert (found.low, found.high) == pytest.approx((19.5 - half, 19.5 + half), abs=0.4)
    with pytest.raises(ValueError, match="finite"):
        bootstrap(paired_superiority, [1.0, np.nan])


def test_a_clear_race():
    rng = np.random.default_rng(0)
    base = rng.normal(57, 1, 40)
    finals = {
        "slow": base.tolist(),
        "quick": (base + 1 + rng.normal(0, 0.5, 40)).tolist(),
        "same": (base + rng.normal(0, 0.01, 40)).tolist(),
    }
    race = analyse_race(laps(finals))
    assert list(race.table["searcher"])[0] == "quick"
    pairs = race.pairs.set_index(["first", "second"])
    quick = pairs.loc[("quick", "slow")]
    gap = np.array(finals["quick"]) - base
    assert quick["difference"] == pytest.approx(gap.mean())
    assert quick["p"] == pytest.approx(scipy.stats.ttest_1samp(gap, 0).pvalue)
    assert quick["superiority"] == (gap > 0).mean()
    assert quick["verdict"] == "better"
    [other] = [row for names, row in pairs.iterrows() if "quick" not in names]
    assert other["verdict"] == "equal" and abs(other["difference"]) < 0.01
    assert "quick against slow: better" in race.text
    assert list(race.anytime["n"]) == [40] * 6
    first = race.anytime.set_index(["searcher", "evaluations"])["iqm"]
    assert first["quick", 10] - first["quick", 5] == pytest.approx(1)


@pytest.mark.long
def test_searchers_of_which_none_is_better_are_seldom_told_apart():
    rng = np.random.default_rng(1)
    verdicts = []
    for _ in range(100):
        finals = {name: rng.normal(57, 1, 15).tolist() for name in ("a", "b", "c", "d")}
        verdicts.append((analyse_race(laps(finals)).pairs["verdict"] != "undecided").any())
    # At 5 % in the family of six pairs, 12 of 100 and more have a probability below 0.01.
    assert sum(verdicts) <= 11


def test_a_search_that_found_nothing_is_left_out_and_told():
    race = analyse_race(laps({"a": [57.0, 58.0, None, 59.0], "b": [56.0, 56.5, 57.0, 57.5]}))
    assert race.pairs["n"].tolist() == [3]
    assert race.table.set_index("searcher").loc["a", "empty"] == 1
    assert "In 1 searches nothing trained" in race.text


def test_searchers_are_ranked_over_the_seeds_that_all_have():
    """The later seeds are easier, and only one searcher has reached them."""
    finals = {"a": [50.0, 51.0, 52.0, 70.0, 71.0], "b": [51.0, 52.0, 53.5]}
    race = analyse_race(laps(finals))
    assert list(race.table["searcher"]) == ["b", "a"] and list(race.table["n"]) == [3, 3]
    assert race.table["mean"].iloc[1] == pytest.approx(51) and set(race.anytime["n"]) == {3}
    assert "over the 3 of 5 seeds with which every searcher found something" in race.sentences[-1]
    whole = analyse_race(laps({name: values[:3] for name, values in finals.items()}))
    assert "every searcher" not in " ".join(whole.sentences)
    apart = analyse_race(laps({"a": [50.0, 51.0, None], "b": [None, 52.0, 53.5]}))
    assert list(apart.table["n"]) == [2, 2]
    assert "Means of different seeds" in apart.sentences[-2]


def test_few_searches_have_no_bootstrap_interval():
    """Nor have those that all end alike."""
    few, enough = (analyse_race(laps(three(count))) for count in (7, 8))
    for race, has in ((few, False), (enough, True)):
        assert (race.table["iqm_low"] < race.table["iqm_high"]).all() == has
        assert race.anytime["low"].notna().all() == has
    same = analyse_race(laps({"a": [50.0] * 9, "b": [51.0] * 9})).table
    assert same["iqm_low"].isna().all()


def test_too_little_of_a_race_is_refused():
    with pytest.raises(InputError, match="two searches of each"):
        analyse_race(laps({"a": [57.0], "b": [56.0]}))


def test_the_report_of_a_race(write_run):
    finals = {"a": [57.0, 58.0, 58.5], "b": [56.0, 56.5, 57.0]}
    settings = {"table": "planted", "fidelity": "sharing-80", "searcher": ["a", "b"], "seeds": 4,
                "budget": 10}  # fmt: skip
    directory = write_run([], {"kind": "race", "settings": settings})
    lines = [
        {"searcher": name, "seed": seed, "evaluations": [5, 10], "values": [None, value / 100],
         "seconds": 10.0, "image_passes": 100, "duplicates": 0}
        for name, values in finals.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    (directory / "race.json").write_text(json.dumps({"laps": lines}))
    assert reported(directory) == directory / "race.md"
    text = (directory / "race.md").read_text()
    assert "Unfinished: 6 of 8 searches" in text and "planted landscape" in text
    assert "| a          |          3 |" in text and "![" in text
    row = next(line for line in text.splitlines() if line.startswith("| a ") and " b |" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "+1.33" and cells[5:7] == ["1.00", "[0.44, 1.00]"]  # Wilson: all of three
    for name in ("race.png", "race.csv", "pairs.csv", "anytime.csv"):
        assert (directory / name).stat().st_size > 0
    # Half way nothing had trained: no point of the curve.
    assert list(report_of(directory).data["anytime.csv"]["evaluations"]) == [10, 10]


def test_a_race_that_was_tampered_with_is_refused(write_run):
    directory = write_run([], {"kind": "race"})
    (directory / "race.json").write_text('{"laps": [{"searcher": "a"}]}')
    with pytest.raises(InputError, match="laps of a race"):
        report_of(directory)


def three(count: int = 6) -> dict[str, list[float | None]]:
    """A pair that is clear, one that is not, and one in between, which Holm's procedure decides."""
    rng = np.random.default_rng(4)
    base = rng.normal(57, 1, count)
    return {
        "a": base.tolist(),
        "b": (base - 1 + rng.normal(0, 0.2, count)).tolist(),
        "c": (base - 0.2 + rng.normal(0, 0.4, count)).tolist(),
    }


def test_p_interval_and_verdict_of_a_pair_are_holms():
    pairs = analyse_race(laps(three())).pairs
    order = np.sort(pairs["p"])
    corrected = np.minimum(np.maximum.accumulate(order * (3, 2, 1)), 1)
    assert np.sort(pairs["p_holm"]) == pytest.approx(corrected)
    smallest = pairs.loc[pairs["p"].idxmin()]
    gap = np.subtract(*(three()[smallest[name]] for name in ("first", "second")))
    whole = scipy.stats.ttest_1samp(gap, 0).confidence_interval(1 - 0.05 / 3)
    assert (smallest["low"], smallest["high"]) == pytest.approx(tuple(whole))
    excluded = (pairs["low"] > 0) | (pairs["high"] < 0)
    assert list(excluded) == list(pairs["p_holm"] < 0.05)


def test_what_was_not_told_apart_counts_in_p_as_in_the_interval():
    """Two searchers that ask for the same: their pair has no p, and is one of three pairs."""
    gap = np.array([0.9, 1.4, 0.1, 1.9, 0.6])
    pairs = analyse_race(laps({"a": (57 + gap).tolist(), "b": (57 + gap).tolist(),
                               "c": [57.0] * 5})).pairs  # fmt: skip
    tested = pairs[pairs["p"].notna()]
    assert len(tested) == 2 and 0.01 < tested["p"].iloc[0] < 0.05
    assert list(tested["p_holm"]) == pytest.approx([min(1, 3 * p) for p in tested["p"]])
    excluded = (tested["low"] > 0) | (tested["high"] < 0)
    assert list(excluded) == list(tested["p_holm"] < 0.05)


@pytest.mark.parametrize("dear", [None, "scratch"])
def test_a_race_tells_how_its_searches_ended_and_who_is_left_out(write_run, dear):
    settings = {"table": "planted", "fidelity": "sharing-80", "searcher": ["a", "b", "c"],
                "seeds": 3, "budget": 10, "dear": dear}  # fmt: skip
    directory = write_run([], {"kind": "race", "settings": settings})
    finals = {"a": [0.5, 0.6, 0.7], "b": [0.5, 0.7, 0.6], "c": [None, 0.9, None]}
    lines = [
        {"searcher": name, "seed": seed, "evaluations": [10], "values": [value], "seconds": 1.0,
         "image_passes": 9, "duplicates": 0}
        for name, values in finals.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    (directory / "race.json").write_text(json.dumps({"laps": lines}))
    assert list(report_of(directory).data["race.csv"]["searcher"]) == ["a", "b"]
    text = reported(directory).read_text()
    assert "Left out, as fewer than two searches found something: c." in text
    assert ("Every search has the same cost" in text) == (dear is not None)
    # At equal cost everybody races twice, told the one fidelity or the other.
    assert ("Unfinished: 9 of 18 searches." in text) == (dear is not None)
    assert ("same number of evaluations" in text) == (dear is None)


def test_a_race_on_a_table_tells_how_large_that_is(write_run):
    settings = {"table": "mine.parquet", "fidelity": "sharing-80", "searcher": ["a", "b"],
                "seeds": 2, "budget": 10}  # fmt: skip
    directory = write_run([], {"kind": "race", "settings": settings})
    lines = [
        {"searcher": name, "seed": seed, "evaluations": [10], "values": [value], "seconds": 1.0,
         "image_passes": 9, "duplicates": 0}
        for name, values in {"a": [0.5, 0.6], "b": [0.5, 0.7]}.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    (directory / "race.json").write_text(json.dumps({"laps": lines, "policies": 211}))
    text = reported(directory).read_text()
    assert "The table has 211 policies." in text and "planted" not in text


def test_the_cost_of_a_search_is_in_hours():
    assert set(analyse_race(laps(three())).table["hours"]) == {2.0}
