"""Our searchers behind Ray Tune's interface: without Ray first, then PPO through a Tuner."""

from __future__ import annotations

import copy
import pickle

import pytest

from policies import IMAGENET
from policies.errors import InputError
from search import (
    FixedSearcher,
    PolicySpace,
    PPOConfig,
    PPOSearcher,
    RandomSearcher,
    fixed_candidates,
    make_searcher,
)
from search.searchers.population import PopulationSearcher
from search.searchers.ray_tune import TuneSearcher
from search.testing import drive, evaluation, reward_of
from search.trial import CHEAP

SMALL = PPOConfig(batch_size=4, hidden=8)


def ppo() -> PPOSearcher:
    return PPOSearcher(PolicySpace(), 3, SMALL)


def judge(candidate):
    """Every fourth slot of an odd batch fails."""
    failed = candidate.batch % 2 == 1 and candidate.slot == 3
    return None if failed else evaluation(reward_of(candidate))


def play(adapter: TuneSearcher, count: int, first: int = 0, running=None) -> dict:
    """Be Tune with 3 trials at a time; returns the configs by key. `running`: trials under way."""
    configs, running = {}, {} if running is None else running
    trial = first
    while True:
        while len(running) < 3 and len(configs) + len(running) < count:
            config = adapter.suggest(f"trial{trial}")
            if config is None or config == TuneSearcher.FINISHED:
                break
            running[f"trial{trial}"] = config
            trial += 1
        if not running:
            return configs
        name = max(running)  # the latest first: out of order
        config = running.pop(name)
        configs[config["batch"], config["slot"]] = config
        if config["batch"] % 2 == 1 and config["slot"] == 3:
            adapter.on_trial_complete(name, result=None, error=True)
        else:
            candidate = adapter._running[name]
            adapter.on_trial_complete(name, {"reward": reward_of(candidate), "time_total_s": 2.0})


def test_asks_and_tells_as_the_engine_would():
    configs = play(TuneSearcher(ppo(), evaluations=30), 100)
    assert len(configs) == 30
    told = drive(ppo(), 28, judge=judge)
    for key in told.keys() & configs.keys():
        config, candidate = configs[key], told[key]
        assert config["augmentation"] == candidate.augmentation
        assert (config["seed"], config["part"]) == (candidate.seed, candidate.part)
        assert (config["scorer"], config["parent"]) == (candidate.scorer, candidate.parent)


def test_a_trial_is_told_who_shall_judge_and_from_whom_it_goes_on():
    staged = make_searcher("staged", PolicySpace(), 0, {"cheap_cost": 0.1})
    assert TuneSearcher(staged).suggest("0")["scorer"] == CHEAP
    population = PopulationSearcher(4, 2, 0, [1, 2, 3, 4])
    adapter = TuneSearcher(population)
    trials = [str(each) for each in range(8)]
    for trial in trials[:4]:
        adapter.suggest(trial)
    for trial in trials[:4]:
        adapter.on_trial_complete(trial, {"reward": float(trial)})
    assert {adapter.suggest(trial)["parent"][0] for trial in trials[4:]} == {0}


@pytest.mark.parametrize("reward", [None, float("nan"), 0.9])
def test_a_diverged_trial_is_told_as_one_with_or_without_a_reward(reward):
    searcher = FixedSearcher(fixed_candidates({"a": IMAGENET}, [1]))
    adapter = TuneSearcher(searcher)
    adapter.suggest("0")
    adapter.on_trial_complete("0", {"reward": reward, "diverged": True})
    [(_, told)] = adapter._told
    assert told is not None and told.diverged and told.reward == (0.9 if reward == 0.9 else None)


def test_waits_and_finishes():
    adapter = TuneSearcher(ppo(), evaluations=50)
    asked = [adapter.suggest(str(i)) for i in range(9)]
    assert all(isinstance(config, dict) for config in asked[:8])
    assert asked[8] is None  # lag 1: the third batch needs the first
    adapter.on_trial_complete("strange", {"reward": 1.0})
    listed = TuneSearcher(FixedSearcher(fixed_candidates({"a": IMAGENET}, [1, 2])))
    assert listed.suggest("0")["augmentation"] == IMAGENET
    listed.suggest("1")
    assert listed.suggest("2") is None
    for trial in "01":
        listed.on_trial_complete(trial, {"reward": 0.5})
    assert listed.suggest("2") == TuneSearcher.FINISHED
    with pytest.raises(InputError, match="evaluations"):
        TuneSearcher(ppo(), evaluations=0)


@pytest.mark.parametrize("told", [0, 5, 11])
def test_saved_and_restored_goes_on_the_same(tmp_path, told):
    straight = play(TuneSearcher(ppo(), evaluations=24), 100)
    adapter = TuneSearcher(ppo(), evaluations=24)
    first = play(adapter, told)
    under_way = {f"late{i}": adapter.suggest(f"late{i}") for i in range(2)}
    adapter.save(str(tmp_path / "searcher.pt"))
    other = TuneSearcher(ppo(), evaluations=24)
    other.restore(str(tmp_path / "searcher.pt"))
    rest = play(other, 100, first=50, running=dict(under_way))
    assert first | rest == straight


@pytest.mark.parametrize("through", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_independently(through):
    """Tune pickles and copies searchers; an open batch must not take `pending` for a result."""
    adapter = TuneSearcher(ppo(), evaluations=24)
    first = play(adapter, 6)
    twin = through(adapter)
    assert play(adapter, 100, first=50) == play(twin, 100, first=50)
    assert len(first) == 6


def evaluate_planted(config):
    """A Tune function trainable; every slot 3 of an odd batch dies."""
    from ray import tune

    from proxy_tasks import EvaluatorConfig
    from proxy_tasks.evaluators.planted import PlantedLandscape

    if config["batch"] % 2 == 1 and config["slot"] == 3:
        raise RuntimeError("planted")
    landscape = PlantedLandscape(EvaluatorConfig(kind="synthetic"))
    tune.report({"reward": landscape.evaluate(config["augmentation"], config["seed"]).reward})


def test_ppo_through_a_tuner(ray, tmp_path, monkeypatch):
    from ray import tune

    from proxy_tasks import EvaluatorConfig
    from proxy_tasks.evaluators.planted import PlantedLandscape

    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    results = tune.Tuner(
        evaluate_planted,
        tune_config=tune.TuneConfig(
            search_alg=TuneSearcher(ppo(), evaluations=12),
            num_samples=-1,
            max_concurrent_trials=2,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="run", verbose=0),
    ).fit()
    assert len(results) == 12
    assert results.num_errors == 1
    landscape = PlantedLandscape(EvaluatorConfig(kind="synthetic"))

    def planted(candidate):
        if candidate.batch % 2 == 1 and candidate.slot == 3:
            return None
        return landscape.evaluate(candidate.augmentation, candidate.seed)

    straight = drive(ppo(), 12, judge=planted)
    rewards = {
        (r.config["batch"], r.config["slot"]): r.metrics["reward"] for r in results if not r.error
    }
    assert rewards == {
        key: planted(c).reward for key, c in straight.items() if planted(c) is not None
    }


def test_random_searchers_fit_too():
    assert len(play(TuneSearcher(RandomSearcher(PolicySpace()), evaluations=7), 100)) == 7
