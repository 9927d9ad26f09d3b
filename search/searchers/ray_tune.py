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

import copy
import math
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher as RaySearcher

from policies.errors import InputError, check_integer
from policies.files import read_json, write_json
from proxy_tasks.evaluators.evaluation import Evaluation
from search.trial import Candidate, Key

from .base import Searcher


class TuneSearcher(RaySearcher):
    """Ray Tune asks and tells `searcher`.

    A trial's config is {"augmentation": Policy, Transform or None, "seed": int, "batch": int,
    "slot": int, "part": str}. The last report of a trial counts; if it says {"diverged": True}, so
    is the searcher told. After `Tuner.restore`, trials that were running keep their candidates.

    Args:
        searcher: new; it must maximise, as ours do.
        metric: key of the reward in what the trainable reports.
        evaluations: trials to make; None leaves the end to the searcher (`finished`).
    """

    def __init__(
        self, searcher: Searcher, metric: str = "reward", *, evaluations: int | None = None
    ) -> None:
        if evaluations is not None:
            check_integer("evaluations", evaluations, 1)
        super().__init__(metric=metric, mode="max")
        self.evaluations = evaluations
        self._new = copy.deepcopy(searcher)
        self._start()

    def _start(self) -> None:
        self._inner = copy.deepcopy(self._new)  # not `searcher`: Ray would take it for a wrapper
        self._asked = 0
        self._running: dict[str, Candidate] = {}
        self._told: list[tuple[Key, Evaluation | None]] = []

    # FINISHED is text, whatever Ray's annotation says.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial's config; None while the searcher waits; FINISHED at the end."""
        if self.evaluations is not None and self._asked >= self.evaluations:
            return RaySearcher.FINISHED
        candidate = self._ask()
        if candidate is None:
            return RaySearcher.FINISHED if self._inner.finished else None
        self._running[trial_id] = candidate
        return {
            "augmentation": candidate.augmentation,
            "seed": candidate.seed,
            "batch": candidate.batch,
            "slot": candidate.slot,
            "part": candidate.part,
            "scorer": candidate.scorer,
            "parent": candidate.parent,
        }

    def _ask(self) -> Candidate | None:
        candidate = self._inner.ask()
        self._asked += candidate is not None
        return candidate

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        candidate = self._running.pop(trial_id, None)
        if candidate is None:  # a trial of somebody else, or told before a restore
            return
        evaluation = None if error or result is None else self._evaluation(result, candidate.part)
        self._tell(candidate, evaluation)

    def _evaluation(self, result: dict[str, Any], part: str) -> Evaluation | None:
        told, diverged = result.get(self.metric), bool(result.get("diverged", False))
        reward = float(told) if told is not None and math.isfinite(told) else None
        if reward is None and not diverged:
            return None
        seconds = float(result.get("time_total_s", 0.0))
        return Evaluation(reward, None, {}, seconds, 0, diverged, part)

    def _tell(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        self._inner.tell(candidate, evaluation)
        self._told.append((candidate.key, evaluation))

    def get_state(self) -> dict[str, Any]:
        """What was told, and which trial runs which candidate, as JSON data."""
        return {
            "asked": self._asked,
            "told": [
                [*key, None if evaluation is None else evaluation.to_json()]
                for key, evaluation in self._told
            ],
            "running": {trial: list(candidate.key) for trial, candidate in self._running.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state`: a searcher is deterministic, so telling it again is enough.

        Raises InputError for the state of another searcher.
        """
        self._start()
        waiting: dict[Key, Candidate] = {}
        for batch, slot, data in state["told"]:
            self._ask_until((batch, slot), waiting)
            evaluation = None if data is None else Evaluation.from_json(data)
            self._tell(waiting.pop((batch, slot)), evaluation)
        for trial, key in state["running"].items():
            self._ask_until(tuple(key), waiting)
            self._running[trial] = waiting.pop(tuple(key))

    def _ask_until(self, key: Key, waiting: dict[Key, Candidate]) -> None:
        while key not in waiting:
            candidate = self._ask()
            if candidate is None:
                raise InputError(
                    "state", "must be what this searcher was told", f"a candidate {key}",
                    "build the searcher with the arguments of the saved one",
                )  # fmt: skip
            waiting[candidate.key] = candidate

    def save(self, checkpoint_path: str) -> None:
        """Write the state; the file appears whole or not at all."""
        write_json(Path(checkpoint_path), self.get_state())

    def restore(self, checkpoint_path: str) -> None:
        """Go on from `save`; only data is read from the file."""
        self.set_state(read_json(Path(checkpoint_path)))
