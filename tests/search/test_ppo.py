"""The controller: the published architecture, exact likelihoods, PPO's gradient, and learning."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from policies import OPS, InputError
from proxy_tasks import EvaluatorConfig
from proxy_tasks.evaluators.planted import PlantedLandscape
from search import PPO_PRESETS, PolicySpace, PPOConfig, PPOSearcher, RandomSearcher, make_searcher
from search.searchers.additive import LEAST_RIDGE, AdditiveModel
from search.searchers.ppo import Controller
from search.testing import drive, evaluation, reward_of, stream

CPU = PPO_PRESETS["cpu"]
SMALL = PolicySpace(2, 1, ("Rotate", "Invert", "Color"), 3, 3)


def controller(sizes=(3, 2, 4), seed=0, scale=1.0):
    made = Controller(sizes, 8, 0.1, torch.Generator().manual_seed(seed))
    with torch.no_grad():  # far from uniform, so that mistakes show
        for parameter in made.parameters():
            parameter.mul_(scale)
    return made


# As published --------------------------------------------------------------------------------


def test_architecture_and_constants_of_the_paper():
    searcher = PPOSearcher(PolicySpace())
    made = searcher.controller
    assert made.lstm.hidden_size == 100
    assert made.lstm.num_layers == 1
    finite = torch.isfinite(made.mask).sum(1).tolist()
    assert finite == [16, 11, 10] * 10  # 30 softmaxes
    assert all(p.abs().max() <= 0.1 for p in made.parameters())
    every = torch.cat([p.flatten() for p in made.parameters()])
    # Uniform on (-0.1, 0.1): sd 0.2 / sqrt(12); 200,000 weights, 6 sd of its estimate.
    assert every.std().item() == pytest.approx(0.2 / 12**0.5, rel=6 * 0.45 / len(every) ** 0.5)
    config = searcher.config
    assert (config.learning_rate, config.entropy_weight, config.baseline_weight) == (
        0.00035, 0.00001, 0.95,
    )  # fmt: skip
    assert config == PPO_PRESETS["paper"] == PPOConfig()
    assert searcher._optimizer.param_groups[0]["lr"] == 0.00035


def test_baseline_is_an_exponential_moving_average_of_earlier_rewards():
    searcher = PPOSearcher(SMALL, config=PPOConfig(batch_size=2, hidden=4))
    assert searcher._advantages(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]
    after = 0.95 * (0.95 * 2.0 + 0.05 * 1.0) + 0.05 * 3.0
    assert searcher._baseline == pytest.approx(after)
    assert searcher._advantages(np.array([5.0])).tolist() == [5.0 - after]


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (CPU, [5, 5, 5, 7, 11, 16, 24, 36, 54, 81, 122, 183, 274, 411, 500, 500]),
        (dataclasses.replace(CPU, batch_size=4), [4] * 16),
        (PPOConfig(), [20] * 16),
    ],
    ids=["cpu", "of a size", "paper"],
)
def test_batches_grow_with_the_search_unless_they_have_a_size(config, sizes):
    """To half of what was drawn before; in the paper and where the user says so they do not."""
    searcher = PPOSearcher(PolicySpace(1, 1), config=config)
    drawn = [len(searcher._draw(batch)[0]) for batch in range(16)]
    assert drawn == sizes
    assert PPOSearcher(PolicySpace(1, 1), config=config).most_open == 2 * sizes[0]


# Likelihoods ---------------------------------------------------------------------------------


def test_probabilities_of_all_sequences_sum_to_one_and_sampling_follows_them():
    made = controller(scale=15.0)
    every = torch.tensor(list(itertools.product(range(3), range(2), range(4))))
    log_probs, entropy = made.log_probs(every)
    expected = log_probs.detach().sum(1).exp().double().numpy()
    assert expected.sum() == pytest.approx(1.0, abs=1e-5)
    assert expected.max() > 4 / 24  # the scale did make it uneven
    drawn = made.sample(20_000, torch.Generator().manual_seed(1))
    counts = np.bincount(drawn[:, 0] * 8 + drawn[:, 1] * 4 + drawn[:, 2], minlength=24)
    rare = expected * 20_000 < 5
    observed = np.append(counts[~rare], counts[rare].sum() + 1e-9)
    wanted = np.append(expected[~rare], expected[rare].sum() + 1e-12)
    result = stats.chisquare(observed, wanted / wanted.sum() * observed.sum())
    assert result.pvalue > 1e-3
    # Entropy of the first softmax, from the marginal probabilities.
    first = expected.reshape(3, 8).sum(1)
    assert entropy[0, 0].item() == pytest.approx(-(first * np.log(first)).sum(), abs=1e-4)


@pytest.mark.parametrize("config", [PPOConfig(), CPU], ids=["paper", "cpu"])
def test_log_probs_are_of_what_was_sampled_not_of_what_it_means(config):
    """Operations without magnitude did choose one; the policy hides it, the update must not."""
    searcher = PPOSearcher(PolicySpace(), config=config)
    candidates = [searcher.ask() for _ in range(searcher.batch_size)]
    opened = searcher._batches[0]
    drawn = torch.tensor(opened.decisions)
    normalised = torch.tensor([searcher.space.encode(c.augmentation) for c in candidates])
    assert not torch.equal(drawn, normalised)
    length = len(searcher.controller.mask)
    again, _ = searcher.controller.log_probs(drawn.reshape(-1, length))
    torch.testing.assert_close(again.reshape(searcher.batch_size, -1), opened.notes["log_probs"])
    for row, candidate in zip(opened.decisions, candidates, strict=True):
        operations = [operation for row in candidate.augmentation for operation in row]
        for i, (name, probability, magnitude) in enumerate(operations):
            assert name == searcher.space.ops[row[3 * i]]
            assert probability == row[3 * i + 1] / 10
            assert magnitude == (row[3 * i + 2] if OPS[name].has_magnitude else None)


def test_stale_batches_keep_the_log_probs_of_the_controller_that_drew_them():
    """With lag 1 the controller has changed by the time the batch is used: the ratio is not 1."""
    searcher = PPOSearcher(PolicySpace(), config=dataclasses.replace(CPU, batch_size=5))
    for _ in range(10):
        searcher.tell(searcher.ask(), evaluation(float(np.random.default_rng(_).random())))
    before = searcher._batches[1].notes["log_probs"].clone()
    searcher.ask()  # draws batch 2, after the update by batch 0
    drawn = torch.tensor(searcher._batches[1].decisions).reshape(25, -1)
    now, _ = searcher.controller.log_probs(drawn)
    assert torch.equal(searcher._batches[1].notes["log_probs"], before)
    assert (now.reshape(5, -1) - before).abs().max() > 1e-3


@pytest.mark.parametrize("config", [PPOConfig(batch_size=6), CPU], ids=["paper", "cpu"])
def test_the_update_uses_what_was_sampled(config, monkeypatch):
    config = dataclasses.replace(config, batch_size=6, imagined=0)
    searcher = PPOSearcher(PolicySpace(), config=config, lag=0)
    seen = []
    monkeypatch.setattr(searcher, "_ascend", lambda drawn, old, credits: seen.append((drawn, old)))
    candidates = [searcher.ask() for _ in range(6)]
    opened = searcher._batches[0]
    for candidate in candidates:
        searcher.tell(candidate, None if candidate.slot == 2 else evaluation(candidate.slot / 9))
    searcher.ask()
    told = [0, 1, 3, 4, 5]
    drawn, old = seen[0]
    np.testing.assert_array_equal(drawn, np.array(opened.decisions)[told])
    assert torch.equal(old, opened.notes["log_probs"][told])


# The update ----------------------------------------------------------------------------------


def gradient_after(searcher, drawn, old, credits):
    """The gradient of the last of PPO's steps, the only one."""
    kept = {}
    searcher._optimizer.step = lambda: kept.update(
        {name: p.grad.clone() for name, p in searcher.controller.named_parameters()}
    )
    searcher._ascend(drawn, old, credits)
    return kept


def test_gradient_is_reinforce_at_ratio_one_and_zero_where_clipped():
    config = PPOConfig(batch_size=4, hidden=6, epochs=1, entropy_weight=0.0, clip=0.2)
    searcher = PPOSearcher(SMALL, config=config)
    drawn = np.array([[0, 1, 2, 1, 0, 0], [2, 2, 1, 0, 1, 2]])
    decisions = torch.from_numpy(drawn)
    made = searcher.controller
    credits = np.array([[2.0], [-1.0]])
    old = made.log_probs(decisions)[0].detach()
    got = gradient_after(searcher, drawn, old, credits)
    wanted = -(made.log_probs(decisions)[0] * torch.tensor(credits).float()).mean()
    for (name, _), grad in zip(
        made.named_parameters(), torch.autograd.grad(wanted, list(made.parameters())), strict=True
    ):
        torch.testing.assert_close(got[name], grad, atol=1e-7, rtol=1e-4)
    # Far above the behaviour policy where that pays, far below where it does not: clipped.
    shift = torch.tensor([[1.0], [-1.0]])
    got = gradient_after(searcher, drawn, old - shift, credits)
    assert all(grad.abs().max() == 0 for grad in got.values())
    # On the other side the pull back is never clipped.
    got = gradient_after(searcher, drawn, old + shift, credits)
    assert max(grad.abs().max() for grad in got.values()) > 0


def test_credits_of_a_policy_add_up_to_its_advantage(monkeypatch):
    config = dataclasses.replace(CPU, normalise_advantages=False, imagined=0, batch_size=8)
    searcher = PPOSearcher(PolicySpace(), config=config, lag=0)
    seen = []
    monkeypatch.setattr(searcher, "_ascend", lambda drawn, old, credits: seen.append(credits))
    told = drive(searcher, 8, judge=lambda c: evaluation(reward_of(c)))
    searcher.ask()
    rewards = np.array([reward_of(told[0, slot]) for slot in range(8)])
    assert seen[0].shape == (8, 5)
    np.testing.assert_allclose(seen[0].sum(1), rewards - rewards.mean(), atol=1e-12)
    assert np.abs(np.diff(seen[0], axis=1)).max() > 1e-6


@pytest.mark.parametrize("config", [PPOConfig(entropy_weight=0.0), CPU], ids=["paper", "cpu"])
def test_constant_rewards_teach_nothing(config):
    """What is left is the entropy term, which pulls towards uniform."""
    searcher = PPOSearcher(PolicySpace(), config=config)
    start = [p.detach().clone() for p in searcher.controller.parameters()]
    drive(searcher, 200, judge=lambda c: evaluation(0.1))
    decisions = searcher.controller.sample(400, torch.Generator().manual_seed(0))
    _, entropy = searcher.controller.log_probs(decisions)
    uniform = np.log([16, 11, 10]).mean()
    assert entropy.mean().item() == pytest.approx(uniform, abs=0.01)
    if config.entropy_weight == 0:
        for before, now in zip(start, searcher.controller.parameters(), strict=True):
            torch.testing.assert_close(before, now)


@pytest.mark.long
def test_threads_change_nothing_and_are_given_back():
    threads = torch.get_num_threads()
    config = dataclasses.replace(CPU, batch_size=6)
    try:
        torch.set_num_threads(1)
        one = stream(PPOSearcher(PolicySpace(), 3, config), 30)
        torch.set_num_threads(3)
        assert stream(PPOSearcher(PolicySpace(), 3, config), 30) == one
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.long
def test_global_random_state_is_neither_used_nor_changed():
    config = dataclasses.replace(CPU, batch_size=6)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    one = stream(PPOSearcher(PolicySpace(), 3, config), 30)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert stream(PPOSearcher(PolicySpace(), 3, config), 30) == one
    assert torch.equal(before, torch.get_rng_state())


# The additive model --------------------------------------------------------------------------


def test_the_additive_model_is_the_same_at_any_offset_of_the_rewards():
    space, rng = PolicySpace(), np.random.default_rng(0)
    features = rng.normal(size=(30, 48))
    rewards = rng.normal(size=30) * 0.01
    models = []
    for offset in (0.0, -1e6):
        models.append(AdditiveModel(space, ridge=0.1))
        models[-1].add(features[:3], rewards[:3] + offset)
        models[-1].add(features[3:], rewards[3:] + offset)
        models[-1].fit()
        assert np.isfinite(models[-1].sample(np.random.default_rng(1))).all()
    one, two = models
    np.testing.assert_allclose(two.weights, one.weights, atol=1e-6)
    assert two._energy == pytest.approx(one._energy, rel=1e-3, abs=1e-9)
    assert two.intercept + 1e6 == pytest.approx(one.intercept, abs=1e-6)


def test_the_least_ridge_there_may_be_can_be_computed_with():
    space, rng = PolicySpace(), np.random.default_rng(0)
    model = AdditiveModel(space, ridge=LEAST_RIDGE)
    decisions = rng.integers(0, space.decisions, size=(12, 30)).reshape(12, 5, 6)
    model.add(model.features(decisions).mean(axis=1), rng.normal(size=12))
    model.fit()
    assert np.isfinite(model.sample(rng)).all()
    with pytest.raises(InputError, match="ridge"):
        AdditiveModel(space, ridge=LEAST_RIDGE / 2)


def test_additive_model_is_ridge_regression():
    space = PolicySpace()
    model = AdditiveModel(space, ridge=0.7)
    rng = np.random.default_rng(0)
    decisions = rng.integers(0, space.decisions, size=(200, 30)).reshape(200, 5, 6)
    features = model.features(decisions).mean(axis=1)
    rewards = 0.5 + features @ rng.normal(size=48) * 0.01 + rng.normal(size=200) * 0.003
    for part in np.split(np.arange(200), [7, 100]):
        model.add(features[part], rewards[part])
    model.fit()
    # Oracle: ridge with a free intercept is ridge on centred data.
    x, y = features - features.mean(0), rewards - rewards.mean()
    wanted = np.linalg.solve(x.T @ x + 0.7 * np.eye(48), x.T @ y)
    np.testing.assert_allclose(model.weights, wanted, atol=1e-9)
    assert model.intercept == pytest.approx(rewards.mean() - features.mean(0) @ wanted, abs=1e-8)
    assert np.all(model.uncertainty(features) > 0)
    # A sub-policy of operations never seen is as uncertain as the prior.


def test_features_forget_magnitudes_that_mean_nothing():
    space = PolicySpace(1, 1)
    model = AdditiveModel(space)
    invert, rotate = space.ops.index("Invert"), space.ops.index("Rotate")
    np.testing.assert_array_equal(model.features([invert, 5, 0]), model.features([invert, 5, 9]))
    assert not np.array_equal(model.features([rotate, 5, 0]), model.features([rotate, 5, 9]))
    assert not model.features([rotate, 0, 9]).any()  # never applied


# Learning ------------------------------------------------------------------------------------


def last_rewards(searcher, landscape, evaluations=1000, last=200):
    """Mean true reward of the last candidates."""
    true = []
    for _ in range(evaluations):
        candidate = searcher.ask()
        true.append(landscape.value(candidate.augmentation))
        searcher.tell(candidate, landscape.evaluate(candidate.augmentation, candidate.seed))
    return float(np.mean(true[-last:]))


@pytest.mark.slow
def test_controller_beats_random_search_at_1000_evaluations():
    """Ten seeds of search and landscape, noise of half the policies' scatter; paired t-tests."""
    ends: dict[str, list[float]] = {"paper": [], "cpu": [], "random": []}
    for seed in range(10):
        landscape = PlantedLandscape(EvaluatorConfig(kind="synthetic"), landscape=seed)
        for name, values in ends.items():
            if name == "random":
                searcher = RandomSearcher(PolicySpace(), seed)
            else:
                searcher = make_searcher("ppo", PolicySpace(), seed, {"preset": name})
            values.append(last_rewards(searcher, landscape))
    for preset in ("paper", "cpu"):
        test = stats.ttest_rel(ends[preset], ends["random"], alternative="greater")
        assert test.pvalue < 0.01, ends
    # The preset for hundreds of evaluations ends at least 1.5 points above uniform policies.
    assert np.subtract(ends["cpu"], ends["random"]).mean() > 0.015
