"""Any searcher of this package as a `ray.tune.search.Searcher`, for stacks built on Ray Tune.

    tuner = tune.Tuner(
        trainable,                       # reads config["augmentation"], config["seed"]
        tune_config=tune.TuneConfig(
            search_alg=TuneSearcher(PPOSearcher(PolicySpace()), "reward", evaluations=1000),
            num_samples=-1, max_concurrent_trials=4, reuse_actors=True,
        ),
    )

Set `max_concurrent_trials`: without it Tune runs one trial at a time. Put retries into
`tune.FailureConfig(max_failures=...)`: what fails for good is told to the searcher as a failure.
Search with `run_search` instead when its journal and resuming byte for byte matter: Tune's
snapshots lag behind by ten seconds or more.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from ray.tune.search import Searcher as RaySearcher

from policies.errors import InputError
from proxy_tasks.evaluators.evaluation import Evaluation

from .base import Candidate, Key, Searcher


class TuneSearcher(RaySearcher):
    """Ray Tune asks and tells `searcher`.

    searcher: new; it must maximise, as ours do.
    metric: key of the reward in what the trainable reports.
    evaluations: trials to make; None leaves the end to the searcher (`finished`).

    A trial's config is {"augmentation": Policy, Transform or None, "seed": int, "batch": int,
    "slot": int, "part": str}. The last report of a trial counts. After `Tuner.restore`, trials that
    were running are asked again by the searcher unless Tune still runs them itself.
    """

    def __init__(
        self, searcher: Searcher, metric: str = "reward", *, evaluations: int | None = None
    ) -> None:
        if evaluations is not None and evaluations < 1:
            raise InputError("evaluations", "must be at least 1", evaluations, "use 100")
        super().__init__(metric=metric, mode="max")
        self._inner = searcher  # not `searcher`: Ray would take it for one of its own wrappers
        self.evaluations = evaluations
        self._asked = 0
        self._running: dict[str, Candidate] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config; None while the searcher waits; FINISHED at the end."""
        if self.evaluations is not None and self._asked >= self.evaluations:
            return RaySearcher.FINISHED
        candidate = self._inner.ask()
        if candidate is None:
            return RaySearcher.FINISHED if self._inner.finished else None
        self._asked += 1
        self._running[trial_id] = candidate
        return {
            "augmentation": candidate.augmentation,
            "seed": candidate.seed,
            "batch": candidate.batch,
            "slot": candidate.slot,
            "part": candidate.part,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        candidate = self._running.pop(trial_id, None)
        if candidate is None:  # a trial of somebody else, or told before a restore
            return
        reward = None if error or result is None else result.get(self.metric)
        evaluation = None
        if reward is not None:
            seconds = float(result.get("time_total_s", 0.0))
            evaluation = Evaluation(float(reward), None, {}, seconds, 0, part=candidate.part)
        self._inner.tell(candidate, evaluation)

    def get_state(self) -> dict[str, Any]:
        """The searcher's state and which trial runs which candidate."""
        return {
            "asked": self._asked,
            "running": {trial: list(candidate.key) for trial, candidate in self._running.items()},
            "searcher": self._inner.state_dict(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state`. Trials that Tune still holds keep their candidates."""
        self._inner.load_state_dict(state["searcher"])
        self._asked = state["asked"]
        running: dict[Key, str] = {tuple(key): trial for trial, key in state["running"].items()}
        # What was asked and not told is asked again, first of all: hand it to the trials that Tune
        # restores with the same configuration.
        self._running = {}
        for _ in range(len(running)):
            candidate = self._inner.ask()
            self._running[running[candidate.key]] = candidate

    def save(self, checkpoint_path: str) -> None:
        """Write the state; the file appears whole or not at all."""
        temporary = f"{checkpoint_path}.{os.getpid()}.tmp"
        torch.save(self.get_state(), temporary)
        os.replace(temporary, checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Go on from `save`; only data is read from the file."""
        self.set_state(torch.load(checkpoint_path, weights_only=True))
