"""RandAugment's grid: halved at the same cost, and its winner evaluated again."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies import load_policy_file
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.trials import rank_by_mean
from search.searchers.grid import FINALISTS, HalvingSearcher, rounds
from search.trial import JOURNAL_NAME, read_journal
from tests.search.commands import PLANTED, answer, ending, invoke
from tests.search.fakes import FakePool, Killed, bad

pytestmark = pytest.mark.long

CELLS = [(n, m) for n in (1, 2, 3) for m in range(0, 31, 5)]
GRID = f"randaugment {PLANTED} --n 1 2 3 --m 0 10 20 30 --seeds 2"
RESULTS = ("policy.json", "grid.csv", "grid.md")


def evaluation(reward, diverged=False):
    return Evaluation(reward, 0.01, {"accuracy": reward}, 0.1, 10, diverged=diverged)


def race(searcher, reward, order=None):
    """Rewards by cell; told one by one, or all that are open in an order of its own."""
    told = {}
    while True:
        open_ = []
        while (candidate := searcher.ask()) is not None:
            open_.append(candidate)
        if order:
            order.shuffle(open_)
        if not open_:
            assert searcher.finished
            return told
        for candidate in open_:
            cell = divmod(candidate.slot, 31)
            found = reward(cell, candidate.seed)
            searcher.tell(candidate, found if isinstance(found, Evaluation) or found is None
                          else evaluation(found))  # fmt: skip
            told.setdefault(cell, {})[candidate.seed] = found


@given(st.integers(1, 500), st.integers(1, 20))
@example(81, 2)  # two evaluations are left, and the next round would have three cells
def test_rounds_spend_what_there_is_on_ever_fewer_cells(cells, seeds):
    made = rounds(cells, cells * seeds)
    spent = sum(size * count for size, count in made)
    assert made[0][0] == cells and made[0][1] >= 1
    last = made[-1][0]
    another = -(-last // 2) if last > FINALISTS else last  # cells of one more round, or seed
    assert 0 <= cells * seeds - spent < another
    sizes = [size for size, _ in made]
    assert sizes == sorted(set(sizes), reverse=True)
    for (before, few), (size, more) in zip(made, made[1:], strict=False):
        assert size == -(-before // 2) and few <= more


def test_rounds_by_hand():
    assert rounds(24, 120) == [(24, 1), (12, 2), (6, 4), (3, 8), (2, 12)]
    assert rounds(21, 42) == [(21, 1), (11, 1), (6, 1), (3, 1)]
    assert rounds(24, 24) == [(24, 1)] and rounds(1, 5) == [(1, 5)]


def test_the_better_half_goes_on_and_keeps_what_it_had():
    worth = {cell: index for index, cell in enumerate(CELLS)}
    told = race(HalvingSearcher(CELLS, range(100, 160), 42), lambda cell, seed: worth[cell])
    by_seeds = {}
    for cell, had in told.items():
        assert sorted(had) == list(range(100, 100 + len(had)))  # the same seeds for all
        by_seeds.setdefault(len(had), []).append(worth[cell])
    assert {count: sorted(cells) for count, cells in by_seeds.items()} == {
        1: list(range(10)), 2: list(range(10, 15)), 3: [15, 16, 17], 4: [18, 19, 20]
    }  # fmt: skip


def test_it_is_not_finished_while_a_result_is_awaited():
    searcher = HalvingSearcher([(1, 5)], range(2), 1)
    candidate = searcher.ask()
    assert searcher.ask() is None and not searcher.finished
    searcher.tell(candidate, evaluation(0.5))
    assert searcher.ask() is None and searcher.finished


def test_the_order_of_results_changes_nothing():
    def reward(cell, seed):
        return random.Random(repr((cell, seed))).random()

    expected = race(HalvingSearcher(CELLS, range(99), 84), reward)
    for order in range(3):
        found = race(HalvingSearcher(CELLS, range(99), 84), reward, random.Random(order))
        assert found == expected


def test_a_cell_whose_child_diverged_or_failed_goes_no_further():
    def reward(cell, seed):
        if cell == (3, 30):
            return evaluation(9.0, diverged=True)
        return None if cell == (3, 25) else sum(cell) / 100

    told = race(HalvingSearcher(CELLS, range(60), 42), reward)
    assert len(told[3, 30]) == len(told[3, 25]) == 1 and len(told[2, 30]) == 4


def test_a_grid_in_which_all_diverged_ends():
    told = race(HalvingSearcher(CELLS, range(60), 42), lambda *_: evaluation(1.0, diverged=True))
    assert {len(had) for had in told.values()} == {1}


def test_halving_finds_better_cells_at_the_same_cost():
    """What it is for: regret on smooth landscapes, 21 cells and 42 evaluations of each kind."""
    rng, trials = np.random.default_rng(0), 400
    regret = np.zeros((trials, 2))
    n, m = np.array(CELLS).T
    for trial in range(trials):
        peak = rng.normal(0, 1, 3)
        worth = -0.5 * (n - 2 - 0.7 * peak[0]) ** 2 * abs(peak[1])
        worth = worth - 0.8 * ((m - 15 - 6 * peak[2]) / 10) ** 2 + rng.normal(0, 0.25, len(CELLS))
        noise = rng.normal(0, 0.8, (len(CELLS), 60)) + rng.normal(0, 1, 60)
        place = {cell: index for index, cell in enumerate(CELLS)}
        told = race(
            HalvingSearcher(CELLS, range(60), 42),
            lambda cell, seed, w=worth, e=noise, p=place: w[p[cell]] + e[p[cell], seed],
        )
        halved = rank_by_mean({cell: list(had.values()) for cell, had in told.items()})[0]
        equal = int(np.argmax(worth + noise[:, :2].mean(axis=1)))
        regret[trial] = worth.max() - worth[[place[halved], equal]]
    gap = regret[:, 1] - regret[:, 0]
    assert gap.mean() > 3 * gap.std() / np.sqrt(trials) and regret[:, 0].mean() < 0.23


def test_ranks_by_seeds_then_mean_then_gentleness():
    rewards = {(1, 5): [9.0], (2, 5): [1.0, 3.0], (1, 9): [1.0, 3.0], (3, 0): [5.0, 5.0]}
    assert rank_by_mean(rewards) == [(3, 0), (1, 9), (2, 5), (1, 5)]


# Runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(place, words) of finished grids by name; copy them before changing anything in them."""
    folder = tmp_path_factory.mktemp("grids")
    words = {"equal": GRID, "halved": f"{GRID} --halving --seeds 4"}
    for name in words:
        invoke(words[name], folder / name)
    return folder, words


def test_the_winner_and_the_middle_cell_are_evaluated_again_on_new_seeds(whole):
    run = whole[0] / "equal" / "run"
    grid, again = read_journal(run / JOURNAL_NAME), read_journal(run / "again" / JOURNAL_NAME)
    ranked = json.loads((run / "policy.json").read_text())["provenance"]["cell"]
    assert len(again) == 6 and len({trial.label for trial in again}) == 2
    assert f"N={ranked['n']} M={ranked['m']}" in {trial.label for trial in again}
    assert not {trial.seed for trial in grid} & {trial.seed for trial in again}
    assert "on 3 new seeds, which had no part in the choice" in (run / "grid.md").read_text()


def test_a_halved_grid_costs_no_more_and_exports_a_finalist(whole):
    run = whole[0] / "halved" / "run"
    trials = read_journal(run / JOURNAL_NAME)
    count = {}
    for trial in trials:
        count[trial.label] = count.get(trial.label, 0) + 1
    assert 44 < len(trials) <= 48 and len(count) == 12
    best = load_policy_file(run / "policy.json").augmentation
    assert count[f"N={best.n} M={best.m}"] == max(count.values()) > 4
    assert "Successive halving: 2 of 12 cells" in (run / "grid.md").read_text()


@pytest.mark.parametrize("name", ["equal", "halved"])
@pytest.mark.parametrize("after", [5, 20, 25, 50])
def test_a_grid_that_was_killed_ends_as_the_undisturbed_one(whole, tmp_path, name, after):
    folder, words = whole
    try:
        invoke(words[name], tmp_path, FakePool(answer=answer, killed_after=after))
    except Killed:
        invoke("resume run --quiet", tmp_path)
    assert ending(tmp_path / "run", RESULTS) == ending(folder / name / "run", RESULTS)


@pytest.mark.parametrize("name", ["equal", "halved"])
def test_what_failed_is_made_again_and_what_followed_from_it(whole, tmp_path, name):
    folder, words = whole
    failed = min(read_journal(folder / name / "run" / JOURNAL_NAME), key=lambda t: t.key)

    def failing(job):
        return bad(job) if job.candidate.key == failed.key else answer(job)

    invoke(words[name], tmp_path, FakePool(answer=failing), code=1)
    assert not (tmp_path / "run" / "policy.json").exists()
    invoke("resume run --retry-failed --quiet", tmp_path)
    assert ending(tmp_path / "run", RESULTS) == ending(folder / name / "run", RESULTS)


def test_a_grown_grid_forgets_how_another_winner_did(whole, tmp_path):
    run = shutil.copytree(whole[0] / "equal" / "run", tmp_path / "grown" / "run")
    invoke("resume run --m 5 12 --seeds 5 --quiet", run.parent)
    words = GRID.replace("--m 0 10 20 30 --seeds 2", "--m 0 10 20 30 5 12 --seeds 5")
    invoke(words, tmp_path / "new")
    before = load_policy_file(whole[0] / "equal" / "run" / "policy.json").augmentation
    assert load_policy_file(run / "policy.json").augmentation != before
    assert ending(run, RESULTS[:2]) == ending(tmp_path / "new" / "run", RESULTS[:2])


def test_a_halved_grid_does_not_grow(whole):
    for more in ("--seeds 5", "--m 5"):
        said = invoke(f"resume run {more} --quiet", whole[0] / "halved", code=2)
        assert "halving: must be off for a grid that grows" in said


@pytest.mark.parametrize("lost", ["run", "run/again"])
def test_without_a_journal_it_does_not_start_from_zero(whole, tmp_path, lost):
    shutil.copytree(whole[0] / "equal" / "run", tmp_path / "run")
    (tmp_path / lost / JOURNAL_NAME).unlink()
    assert "trials.jsonl: must be there" in invoke("resume run --quiet", tmp_path, code=2)


def test_none_again_where_none_is_asked_for(tmp_path):
    invoke(f"{GRID} --again 0", tmp_path)
    assert not (tmp_path / "run" / "again").exists()
    invoke("resume run --again 2 --quiet", tmp_path)
    assert len(read_journal(tmp_path / "run" / "again" / JOURNAL_NAME)) == 4
