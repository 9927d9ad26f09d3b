"""Every searcher keeps the contract; what BatchSearcher and FixedSearcher promise beyond it."""

from __future__ import annotations

import dataclasses
import math
from itertools import product

import numpy as np
import pytest

from policies import IMAGENET, RandAugment, TrivialAugmentWide
from policies.errors import InputError
from proxy_tasks import Evaluation
from search import (
    PPO_PRESETS,
    SEARCHERS,
    BatchSearcher,
    EvolutionSearcher,
    FixedSearcher,
    OptunaSearcher,
    PolicySpace,
    PPOConfig,
    PPOSearcher,
    RandAugmentSpace,
    RandomSearcher,
    ThompsonSearcher,
    fixed_candidates,
    make_searcher,
)
from search.searchers import tpe
from search.searchers.base import derive_seed
from search.searchers.grid import grid_candidates
from search.searchers.registry import searcher_options
from search.studies.config import read_config
from search.testing import (
    SearcherContract,
    check_fresh_process,
    drive,
    evaluation,
    mixed,
    reward_of,
    stream,
)
from search.trial import Candidate


class TestRandom(SearcherContract):
    def make(self, seed):
        return RandomSearcher(PolicySpace(), seed, batch_size=7)


class TestRandomGrid(SearcherContract):
    def make(self, seed):
        return RandomSearcher(RandAugmentSpace(), seed)


class TestPaperPPO(SearcherContract):
    count = 40

    def make(self, seed):
        return PPOSearcher(PolicySpace(), seed, PPOConfig(batch_size=8))


class TestPPOWithoutLag(SearcherContract):
    count = 40

    def make(self, seed):
        return PPOSearcher(PolicySpace(3, 1), seed, PPOConfig(batch_size=6, hidden=16), lag=0)


class TestFastPPO(SearcherContract):
    count = 45

    def make(self, seed):
        return PPOSearcher(PolicySpace(), seed, PPO_PRESETS["cpu"], lag=2)


class TestPPOOnGrid(SearcherContract):
    count = 30

    def make(self, seed):
        return PPOSearcher(RandAugmentSpace(), seed, PPOConfig(batch_size=5, hidden=8))


class TestTPE(SearcherContract):
    count = 36

    def make(self, seed):
        return OptunaSearcher(PolicySpace(2, 1), seed, startup=8, batch_size=4, history=20)


class TestUnivariateTPE(SearcherContract):
    count = 30

    def make(self, seed):
        return OptunaSearcher(
            RandAugmentSpace(), seed, startup=10, batch_size=5, multivariate=False
        )


class TestFixed(SearcherContract):
    count = 36
    seeded = False

    def make(self, seed):
        return FixedSearcher(
            fixed_candidates(
                {"a": RandAugment(1, 3), "b": RandAugment(2, 9), "none": None, "p": IMAGENET},
                range(9),
            )
        )

    def space_contains(self, searcher, candidate):
        return candidate in searcher.candidates


@pytest.mark.long
def test_fresh_process_gives_the_same():
    contracts = SearcherContract.__subclasses__()
    assert len(contracts) >= 9
    check_fresh_process(contracts)


# Bounded staleness ---------------------------------------------------------------------------


class Recording(BatchSearcher):
    """Draws the batch number and the number of updates seen so far; keeps what it was told."""

    def __init__(self, **options):
        super().__init__(RandAugmentSpace((1,), tuple(range(31))), 0, **options)
        self.updates = []
        self.seen_at = {}

    def _draw(self, batch):
        self.seen_at[batch] = [number for number, _ in self.updates]
        return [(0, slot) for slot in range(self.batch_size)], {}

    def _update(self, batch, decisions, rewards, notes):
        self.updates.append((batch, list(rewards)))


@pytest.mark.parametrize("lag", [0, 1, 2, 3])
@pytest.mark.parametrize("window", [1, 3, 11])
def test_a_batch_sees_exactly_the_updates_its_number_allows(lag, window):
    searcher = Recording(batch_size=4, lag=lag)
    drive(searcher, 60, window=window, order=7)
    assert len(searcher.seen_at) >= 14
    for batch, seen in searcher.seen_at.items():
        assert seen == list(range(max(0, batch - lag)))


def test_complete_later_batches_do_not_help():
    """With lag 1, batch 2 needs batch 0, however complete batch 1 is."""
    searcher = Recording(batch_size=2, lag=1)
    first, second, third, fourth = (searcher.ask() for _ in range(4))
    assert [c.batch for c in (first, second, third, fourth)] == [0, 0, 1, 1]
    searcher.tell(third, evaluation(1.0))
    searcher.tell(fourth, evaluation(1.0))
    searcher.tell(second, evaluation(1.0))
    assert searcher.ask() is None
    assert not searcher.finished
    searcher.tell(first, None)
    assert searcher.ask().key == (2, 0)
    assert searcher.updates == [(0, [None, 1.0])]


def test_updates_get_rewards_by_slot_and_none_for_failures():
    searcher = Recording(batch_size=8, lag=0)
    told = drive(searcher, 17, window=8, order=3)
    for batch, rewards in searcher.updates:
        for slot, reward in enumerate(rewards):
            result = mixed(told[batch, slot])
            usable = result is not None and result.reward == result.reward
            assert reward == (result.reward if usable else None)


def diverged(reward):
    return dataclasses.replace(evaluation(reward), diverged=True)


def test_a_diverged_child_is_told_below_all_that_trained_so_far():
    searcher = Recording(batch_size=3, lag=0)
    batches = [
        [diverged(0.9), None, diverged(0.8)],  # nothing to compare with
        [evaluation(-2.5), diverged(-2.3), evaluation(-2.9)],
        [evaluation(-2.4), evaluation(-2.6), diverged(None)],
    ]
    for results in batches:
        for result in results:
            searcher.tell(searcher.ask(), result)
    searcher.ask()
    assert searcher.updates == [
        (0, [None, None, None]),
        (1, [-2.5, pytest.approx(-2.9 - 0.4 / 4), -2.9]),
        (2, [-2.4, -2.6, pytest.approx(-2.9 - 0.5 / 4)]),
    ]
    constant = Recording(batch_size=2, lag=0)
    for result in (evaluation(0.25), diverged(0.25)):
        constant.tell(constant.ask(), result)
    constant.ask()
    [(_, [trained, not_trained])] = constant.updates
    assert not_trained < trained


@pytest.mark.parametrize(
    ("make", "evaluations"),
    [
        (lambda space: PPOSearcher(space, 1, PPO_PRESETS["cpu"]), 400),
        (lambda space: OptunaSearcher(space, 1, startup=20), 150),
        (lambda space: ThompsonSearcher(space, 1), 150),
        (lambda space: EvolutionSearcher(space, 1), 150),
    ],
    ids=["ppo", "tpe", "thompson", "evolution"],
)
def test_searchers_learn_to_avoid_what_diverges(make, evaluations):
    """The diverged children's log-likelihood is that of guessing: better than what trains here."""
    space = PolicySpace(1, 1, ops=("Rotate", "Color", "Invert", "Solarize"))
    shares = []

    def judge(candidate):
        bad = candidate.augmentation[0][0].name == "Rotate"
        shares.append(bad)
        return diverged(-2.303) if bad else evaluation(-2.7 + reward_of(candidate) / 10)

    drive(make(space), evaluations, judge=judge)
    # Uniform: 0.25, in 100 candidates with sd 0.043.
    assert np.mean(shares[-100:]) < 0.25 - 3 * 0.043


def test_memory_is_that_of_the_open_batches():
    searcher = Recording(batch_size=4, lag=1)
    drive(searcher, 4 * 400, window=4)
    assert len(searcher._batches) <= 3


def test_seeds():
    per_slot = [c.seed for c in drive(RandomSearcher(PolicySpace(), 1), 500).values()]
    assert len(set(per_slot)) == 500
    # Golden: journals of earlier runs stay resumable.
    assert derive_seed(0, 0, 3, 4) == 21527904
    assert derive_seed(0, 0, 3, 4) != derive_seed(0, 0, 4, 3) != derive_seed(0, 1, 4, 3)


def test_bad_arguments():
    space = PolicySpace()
    for options, text in [
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"batch_size": 0}, "batch_size"),
    ]:
        with pytest.raises(InputError, match=text):
            RandomSearcher(space, **options)
    with pytest.raises(InputError, match="lag"):
        Recording(lag=-1)


# TPE -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("multivariate", [True, False])
@pytest.mark.parametrize(
    "space", [PolicySpace(2, 1), RandAugmentSpace((2,), (0, 5, 10, 20))], ids=["policies", "grid"]
)
@pytest.mark.long
def test_tpe_draws_what_optuna_itself_draws(monkeypatch, space, multivariate):
    """Shortcuts (a known space, results that are not copied) change no draw."""
    options = {"startup": 12, "batch_size": 4, "multivariate": multivariate, "history": 20}
    ours = stream(OptunaSearcher(space, 3, **options), 40)
    monkeypatch.delattr(tpe._Sampler, "infer_relative_search_space")
    monkeypatch.delattr(tpe._Told, "__deepcopy__")
    assert stream(OptunaSearcher(space, 3, **options), 40) == ours


# Fixed lists ---------------------------------------------------------------------------------


def test_fixed_list_asks_all_once_and_finishes():
    arms = {"none": None, "imagenet": IMAGENET, "trivial": TrivialAugmentWide()}
    searcher = FixedSearcher(fixed_candidates(arms, [11, 12], scorer="child", part="test"))
    asked = [searcher.ask() for _ in range(6)]
    assert [(c.batch, c.slot, c.label, c.seed) for c in asked] == [
        (0, 0, "none", 11), (0, 1, "imagenet", 11), (0, 2, "trivial", 11),
        (1, 0, "none", 12), (1, 1, "imagenet", 12), (1, 2, "trivial", 12),
    ]  # fmt: skip
    assert {(c.scorer, c.part) for c in asked} == {("child", "test")}
    assert searcher.ask() is None
    for candidate in asked:
        assert not searcher.finished
        searcher.tell(candidate, None if candidate.slot else evaluation(0.3))
    assert searcher.finished
    assert searcher.results[1, 1] is None
    assert searcher.results[1, 0] == evaluation(0.3)


def test_a_fixed_list_tells_how_its_arms_stand():
    arms = {"none": None, "imagenet": IMAGENET}
    searcher = FixedSearcher(fixed_candidates(arms, [11, 12]))
    assert searcher.arms() == "none (0/2), imagenet (0/2)"
    for reward in (0.2, None, 0.4):
        candidate = searcher.ask()
        searcher.tell(candidate, None if reward is None else evaluation(reward))
    assert searcher.arms() == "none 0.3 (2/2), imagenet (1/2)"
    # Rewards of several evaluators have no common mean; and many arms are counted.
    both = [dataclasses.replace(c, batch=7, scorer="cheap") for c in searcher.candidates[:2]]
    searcher = FixedSearcher([*searcher.candidates, *both])
    searcher.tell(searcher.ask(), evaluation(0.2))
    assert searcher.arms() == "main (1/4), cheap (0/2)"
    searcher = FixedSearcher(fixed_candidates({f"arm {i}": None for i in range(5)}, [11]))
    searcher.tell(searcher.ask(), evaluation(0.2))
    assert searcher.arms() == "1 of 5 arms"


def test_tested_children_that_diverged_count_in_progress_as_in_reports():
    searcher = FixedSearcher(fixed_candidates({"wild": None}, [1, 2, 3], part="test"))
    for reward, diverged in ((0.61, False), (0.1, True), (0.1, True)):
        found = dataclasses.replace(evaluation(reward), part="test", diverged=diverged)
        searcher.tell(searcher.ask(), found)
    assert searcher.arms() == "wild 0.27 (3/3)"


def test_fixed_list_refuses_equal_keys_and_plain_rows():
    candidates = fixed_candidates({"a": None}, [1])
    with pytest.raises(InputError, match="unique"):
        FixedSearcher(candidates * 2)
    with pytest.raises(InputError, match="Policy"):
        fixed_candidates({"a": ((("Rotate", 0.5, 3),),)}, [1])


# Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_registry_builds_each(name):
    searcher = make_searcher(name, PolicySpace(), 3, {"batch_size": 4})
    candidate = searcher.ask()
    assert candidate.scorer == "main"
    searcher.tell(candidate, Evaluation(0.5, None, {}, 0.0, 0))


@pytest.mark.parametrize(("name", "options", "text"), [
    ("annealing", {}, "searcher: must be one of"),
    ("ppo", {"preset": "gpu"}, "preset of the searcher ppo: must be one of cpu, paper"),
    ("ppo", {"learning_rat": 1.0}, "did you mean 'learning_rate'"),
    ("ppo", {"clip": 2.0}, "clip of the searcher ppo: must be a number, above 0, below 1"),
    ("ppo", {"preset": "paper", "imagined": 5}, "imagined: needs"),
    ("random", {"lag": 1}, "option of the searcher random"),
    ("random", {"evaluator": "x"}, "option of the searcher random"),
    ("tpe", {"startup": 0}, "startup"),
])  # fmt: skip
def test_registry_refuses(name, options, text):
    with pytest.raises(InputError, match=text):
        make_searcher(name, PolicySpace(), 0, options)


WRONG: dict[type, list] = {
    int: ["x", None, True, 1.5, [1], {}, -1, math.nan],
    float: ["x", None, True, [1], {}, -1, math.nan, 10**400],
    str: ["x", None, True, 1, [1], {}],
    bool: ["x", None, 1, 1.0, [True], {}],
}


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_no_option_takes_a_value_of_another_type(name):
    """A wrong type found later would be found after evaluations."""
    for declared in searcher_options(name):
        for value in WRONG[declared.type]:
            if value is None and declared.optional:
                continue
            with pytest.raises(InputError, match=declared.name):
                make_searcher(name, PolicySpace(), 0, {declared.name: value})


# The grid ------------------------------------------------------------------------------------


def test_a_cell_has_its_place_whatever_other_cells_there_are():
    small = grid_candidates(product((1, 2), (0, 10, 30)), [7])
    large = grid_candidates(product((1, 2, 3), (0, 5, 10, 30)), [7, 8])
    assert set(small) <= set(large)
    assert [c.key for c in small] == [(0, 31 * n + m) for n in (1, 2) for m in (0, 10, 30)]
    # All cells of one seed come before the next seed.
    assert [(c.batch, c.seed) for c in large] == [(0, 7)] * 12 + [(1, 8)] * 12
    assert large[1].augmentation == RandAugment(1, 5) and large[1].label == "N=1 M=5"


class Own(RandomSearcher):
    def __init__(self, space, seed=0, *, batch_size: int = 3, speed: float = 1.0):
        super().__init__(space, seed, batch_size=batch_size)
        self.speed = speed


def no_searcher(space, seed):
    return space


def of_depth(space, seed, *, depth):
    return Own(space, seed)


class TestOwnSearcher:
    PATH = "tests.search.test_searchers:Own"

    def test_is_built_from_its_import_path_with_checked_options(self):
        searcher = make_searcher(self.PATH, PolicySpace(), 7, {"speed": 2})
        assert (type(searcher).__name__, searcher.seed, searcher.batch_size) == ("Own", 7, 3)
        assert searcher.speed == 2.0

    @pytest.mark.parametrize(("name", "options", "text"), [
        (PATH, {"speed": "fast"}, "option speed of the searcher .*:Own: must be a number"),
        (PATH, {"sped": 1.0}, "did you mean 'speed'"),
        (PATH + "er", {}, "searcher: must name something in .*did you mean 'Own'"),
        ("tests.search.test_searchers:no_searcher", {}, "must make a search.Searcher"),
        ("math:sqrt", {}, r"searcher: must take the space and the seed, .*sqrt \(too many"),
        ("tests.search.test_searchers:of_depth", {}, "option depth of .*: must be given"),
    ])  # fmt: skip
    def test_mistakes(self, name, options, text):
        with pytest.raises(InputError, match=text):
            make_searcher(name, PolicySpace(), 0, options)

    def test_a_search_by_it_is_resumed_by_its_folder(self, config, fake, tmp_path):
        own = config.changed(searcher=self.PATH, searcher_options={"batch_size": 4})
        run = fake(own)
        assert run.finished == 20
        journal = (run.directory / "trials.jsonl").read_bytes()
        (run.directory / "trials.jsonl").write_bytes(journal[: len(journal) // 2])
        again = fake(read_config(run.directory), out=run.directory, resume=True)
        assert again.finished == 20 and again.policy == run.policy


def test_tpe_must_see_as_many_results_as_it_waits_for():
    """Optuna counts what it is given: with less it would draw uniformly for ever."""
    with pytest.raises(InputError, match="history: must be at least startup, 50"):
        OptunaSearcher(PolicySpace(), history=40)
    OptunaSearcher(PolicySpace(), history=40, startup=40)


def test_numbers_of_a_candidate_may_be_numpys_and_must_be_whole():
    found = Candidate(np.int64(1), np.int64(2), None, np.uint32(3))
    assert [type(number) for number in (*found.key, found.seed)] == [int] * 3
    with pytest.raises(InputError, match="seed: must be at least 0, an integer"):
        Candidate(0, 0, None, 0.5)
