"""The controller of AutoAugment (arXiv 1805.09501): an LSTM trained by PPO (arXiv 1707.06347).

Published: one-layer LSTM with 100 hidden units, one softmax per decision (30 for 5 x 2
operations), the previous decision embedded as the next input, PPO with learning rate 0.00035,
entropy weight 0.00001, an exponential moving average of rewards as baseline with weight 0.95,
all weights initialised from U(-0.1, 0.1). The reward is the child's validation accuracy as a
fraction. Not published, hence chosen here and configurable: the PPO clip (0.2, the default of
the PPO paper), epochs per batch (4), policies per batch (20, as in NASNet, arXiv 1707.07012,
from where the recipe is taken), the optimiser (Adam), and whether the ratio is taken per
decision (yes) or per policy.

With 15,000 evaluations that learns; with hundreds it hardly does. The preset "cpu" differs in five
things, all of them fields of `PPOConfig`, measured one after the other by
tests/benchmarks/controller.py, the last also in docs/results.md, "Races on it":

- A policy's sub-policies are exchangeable, so the controller writes one sub-policy at a time,
  independently, and learns from five times as many of them.
- Each sub-policy gets its own credit from a ridge regression over all results so far
  (`additive.AdditiveModel`) instead of the reward of the whole policy.
- Between batches it also practises on sub-policies valued by that regression, optimistically.
- A larger learning rate and entropy weight, for advantages of unit variance, and half as many
  gradient steps a batch.
- Batches that grow with the search. Small ones all along converge on what few rewards say, large
  ones teach nothing in a short search (as growing batches instead of falling learning rates do in
  training, arXiv 1711.00489).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from policies.errors import InputError
from policies.options import Configuration, Option
from proxy_tasks.models import threads
from search.spaces import PolicySpace, Space

from .additive import AdditiveModel, CorrectedModel, Ridge
from .base import STREAM_DRAW, STREAM_IMAGINE, STREAM_INITIALISE, derive_seed
from .batches import BatchSearcher, Decisions

FIRST_BATCH, LARGEST_BATCH = 5, 500  # of batches that grow


@dataclasses.dataclass(frozen=True)
class PPOConfig(Configuration):
    """Settings of the controller. The defaults are the preset "paper"."""

    learning_rate: Annotated[float, Option("learning rate of Adam", above=0)] = 0.00035
    clip: Annotated[
        float,
        Option(
            "ratio of new to old probability of a decision is clipped to 1 - clip .. 1 + clip",
            above=0,
            below=1,
        ),
    ] = 0.2
    epochs: Annotated[
        int, Option("gradient steps per batch, each over the whole batch", least=1, most=10_000)
    ] = 4
    batch_size: Annotated[
        int | None,
        Option(
            "candidates per batch and per update",
            unset=f"{FIRST_BATCH} to begin with, then half as many as were drawn before, "
            f"at most {LARGEST_BATCH}",
            least=1,
            most=10_000,
            example=20,
        ),
    ] = 20
    entropy_weight: Annotated[
        float,
        Option("times the mean entropy of a decision in nats, added to the objective", least=0),
    ] = 0.00001
    baseline_weight: Annotated[
        float, Option("weight of the old baseline for each new reward", least=0, below=1)
    ] = 0.95
    hidden: Annotated[
        int, Option("units of the LSTM, and size of the embeddings", least=1, most=10_000)
    ] = 100
    init: Annotated[float, Option("weights start in U(-init, init)", above=0)] = 0.1
    normalise_advantages: Annotated[
        bool, Option("divide a batch's advantages by their root mean square")
    ] = False
    subpolicies: Annotated[
        Literal["joint", "independent"],
        Option(
            "joint: all decisions of a policy in one sequence (the paper); independent: every "
            "sub-policy as a sequence of its own, from the same weights"
        ),
    ] = "joint"
    credit: Annotated[
        Literal["policy", "additive"],
        Option(
            "policy: every decision has the advantage of its policy (the paper); additive: a "
            "sub-policy has an equal share of it, and what the additive model thinks it is worth "
            "above the policy's average; the credits of a policy add up to its advantage"
        ),
    ] = "policy"
    imagined: Annotated[
        int,
        Option(
            "sub-policies per update drawn from the controller and valued by the additive model "
            "alone; 0 for none; they train it like a second batch",
            least=0,
            most=100_000,
        ),
    ] = 0
    optimism: Annotated[
        float,
        Option("standard deviations of uncertainty added to imagined values", least=0),
    ] = 0.0
    ridge: Ridge = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.imagined and self.subpolicies != "independent":
            raise InputError(
                "imagined",
                "needs subpolicies='independent'",
                self.imagined,
                "pass imagined=0 or subpolicies='independent'",
            )


PPO_PRESETS = {
    "paper": PPOConfig(),
    "cpu": PPOConfig(
        learning_rate=0.003,
        epochs=2,
        batch_size=None,
        entropy_weight=0.2,
        normalise_advantages=True,
        subpolicies="independent",
        credit="additive",
        imagined=100,
        optimism=1.0,
    ),
}


class Controller(nn.Module):
    """Autoregressive distribution over decision sequences.

    sizes: choices of each decision; T decisions, at most K choices.
    """

    mask: Tensor

    def __init__(
        self, sizes: Sequence[int], hidden: int, init: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        steps, choices = len(sizes), max(sizes)
        self.start = nn.Parameter(torch.empty(hidden))
        self.embedding = nn.Parameter(torch.empty(steps, choices, hidden))
        with torch.random.fork_rng(devices=[]):  # its own initialisation is overwritten below
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Parameter(torch.empty(steps, choices, hidden))
        self.bias = nn.Parameter(torch.empty(steps, choices))
        # All softmaxes are computed as one of K choices; those a decision does not have get -inf.
        absent = torch.arange(choices) >= torch.tensor(sizes)[:, None]
        mask = torch.zeros(steps, choices).masked_fill(absent, -torch.inf)
        self.register_buffer("mask", mask, persistent=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-init, init, generator=generator)

    def log_probs(self, decisions: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [B, T] -> log-probability of each decision and entropy of its softmax, [B, T]."""
        count, steps = decisions.shape
        previous = self.embedding[torch.arange(steps - 1), decisions[:, :-1]]
        inputs = torch.cat([self.start.expand(count, 1, -1), previous], dim=1)
        hidden, _ = self.lstm(inputs)
        logits = torch.einsum("bth,tkh->btk", hidden, self.head) + self.bias + self.mask
        log_p = logits.log_softmax(dim=-1)
        entropy = -(log_p.exp() * log_p.masked_fill(self.mask.isinf(), 0.0)).sum(dim=-1)
        return log_p.gather(-1, decisions[..., None])[..., 0], entropy

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw int64 [count, T] decisions, one step for all at a time (Gumbel-max)."""
        steps, choices = self.mask.shape
        gumbel = -torch.empty(steps, count, choices).exponential_(generator=generator).log()
        weight_ih, weight_hh, bias_ih, bias_hh = (
            self.lstm.get_parameter(f"{name}_l0")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        inputs = self.start.expand(count, -1)
        state = (torch.zeros_like(inputs), torch.zeros_like(inputs))
        decisions = []
        for step in range(steps):
            state = torch.lstm_cell(inputs, state, weight_ih, weight_hh, bias_ih, bias_hh)
            logits = torch.addmm(self.bias[step], state[0], self.head[step].T) + self.mask[step]
            decisions.append((logits + gumbel[step]).argmax(dim=1))
            inputs = self.embedding[step, decisions[-1]]
        return torch.stack(decisions, dim=1)


class PPOSearcher(BatchSearcher):
    """Policy search by the controller described above.

    space: a PolicySpace, or with subpolicies="joint" and credit="policy" any space.
    config: for example `PPO_PRESETS["cpu"]`; default the paper's.
    lag: see `BatchSearcher`. With lag 1 a batch is drawn by a
    controller that has not seen the batch before it; the ratio of PPO uses the log-probabilities
    under the controller that drew, so the update accounts for it.

    model: the additive model, where the configuration uses one; a staged search puts its own here.

    Failed evaluations are left out of an update. Same arguments, same results: same policies, in
    any process on the same machine (maths runs on one thread, since threads change sums).
    """

    def __init__(
        self, space: Space, seed: int = 0, config: PPOConfig | None = None, **options: Any
    ) -> None:
        self.config = config = PPOConfig() if config is None else config
        super().__init__(space, seed, batch_size=config.batch_size or FIRST_BATCH, **options)
        self._drawn = 0
        modelled = config.credit == "additive" or config.imagined > 0
        if not isinstance(space, PolicySpace) and (modelled or config.subpolicies != "joint"):
            raise InputError(
                "ppo",
                "sub-policy options need a PolicySpace",
                type(space).__name__,
                "use the preset 'paper' for other spaces",
            )
        sizes = space.decisions
        self._subpolicies = space.num_subpolicies if isinstance(space, PolicySpace) else 1
        self._sequences = self._subpolicies if config.subpolicies == "independent" else 1
        generator = torch.Generator().manual_seed(derive_seed(seed, STREAM_INITIALISE))
        self.controller = Controller(
            sizes[: len(sizes) // self._sequences], config.hidden, config.init, generator
        )
        self._baseline: float | None = None
        self.model: AdditiveModel | CorrectedModel | None = None
        if isinstance(space, PolicySpace) and modelled:
            self.model = AdditiveModel(space, config.ridge)

    @functools.cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        """Made when something is learnt: the first one imports torch's compiler, for a second."""
        return torch.optim.Adam(
            self.controller.parameters(), lr=self.config.learning_rate, fused=True
        )

    def _draw(self, batch: int) -> tuple[list[Decisions], dict[str, Any]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, STREAM_DRAW, batch))
        count = self.batch_size
        if self.config.batch_size is None:
            count = min(max(count, self._drawn // 2), LARGEST_BATCH)
        self._drawn += count
        with threads(1), torch.no_grad():
            decisions = self.controller.sample(count * self._sequences, generator)
            log_probs, _ = self.controller.log_probs(decisions)
        rows = decisions.reshape(count, -1).tolist()
        return [tuple(row) for row in rows], {"log_probs": log_probs.reshape(count, -1)}

    def _update(
        self,
        batch: int,
        decisions: Sequence[Decisions],
        rewards: Sequence[float | None],
        notes: dict[str, Any],
    ) -> None:
        told = [slot for slot, reward in enumerate(rewards) if reward is not None]
        if not told:
            return
        values = np.array([rewards[slot] for slot in told], dtype=np.float64)
        advantages = self._advantages(values)
        # The decisions as they were sampled: an operation without magnitude did choose one, and
        # leaving that choice out, or taking the normalised 0, would make the ratio wrong.
        drawn = np.array([decisions[slot] for slot in told])
        by_subpolicy = drawn.reshape(len(told), self._subpolicies, -1)
        with threads(1):
            model = self.model
            if model is not None:
                features = model.features(by_subpolicy)
                model.add(features.mean(axis=1), values)
                model.fit()
            if model is not None and self.config.credit == "additive":
                worth = model.worth(features) / self._subpolicies
                shares = advantages[:, None] / self._subpolicies
                credits = worth - worth.mean(axis=1, keepdims=True) + shares
            else:
                credits = np.repeat(advantages[:, None], self._subpolicies, axis=1)
            self._ascend(drawn, notes["log_probs"][told], self._scaled(credits))
        self.practise(batch)

    def _advantages(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards above the baseline of earlier batches; then moves the baseline, slot by slot."""
        if self._baseline is None:
            self._baseline = float(rewards.mean())
        advantages = rewards - self._baseline
        weight = self.config.baseline_weight
        for reward in rewards.tolist():
            self._baseline = weight * self._baseline + (1 - weight) * reward
        return advantages

    def _scaled(self, credits: np.ndarray) -> np.ndarray:
        if not self.config.normalise_advantages:
            return credits
        # The small term keeps rounding errors of constant rewards from being blown up to 1.
        rounding = 1e-7 * abs(self._baseline or 0.0) + 1e-12
        return credits / (np.sqrt(np.mean(credits**2)) + rounding)

    def practise(self, batch: int) -> None:
        """Practise on sub-policies that nobody evaluates, valued by the additive model."""
        model = self.model
        if model is None or not self.config.imagined:
            return
        generator = torch.Generator().manual_seed(derive_seed(self.seed, STREAM_IMAGINE, batch))
        with threads(1):
            with torch.no_grad():
                decisions = self.controller.sample(self.config.imagined, generator)
                log_probs, _ = self.controller.log_probs(decisions)
            features = model.features(decisions.numpy())
            worth = model.worth(features) + self.config.optimism * model.uncertainty(features)
            self._ascend(decisions.numpy(), log_probs, self._scaled(worth - worth.mean())[:, None])

    def _ascend(self, drawn: np.ndarray, log_probs: Tensor, credits: np.ndarray) -> None:
        """PPO's gradient steps.

        drawn: [n, D] decisions; log_probs: [n, D] when drawn; credits: [n, S], one per sub-policy,
        for D / S decisions each.
        """
        sequence = len(self.controller.mask)
        per_credit = drawn.shape[1] // credits.shape[1]
        advantages = torch.from_numpy(np.repeat(credits, per_credit, axis=1)).float()
        advantages = advantages.reshape(-1, sequence)
        decisions = torch.from_numpy(np.ascontiguousarray(drawn)).long().reshape(-1, sequence)
        old = log_probs.reshape(-1, sequence)
        clip = self.config.clip
        for _ in range(self.config.epochs):
            new, entropy = self.controller.log_probs(decisions)
            ratio = (new - old).exp()
            gain = torch.minimum(
                ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
            ).mean()
            loss = -gain - self.config.entropy_weight * entropy.mean()
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
