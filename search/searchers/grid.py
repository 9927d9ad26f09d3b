"""The RandAugment grid as an Optuna study in a SQLite file, for optuna-dashboard and the like.

Optuna's own GridSampler neither ends by itself nor survives a crash (it loses cells and repeats
others). Here the grid is an ordinary fixed list whose truth is the journal, as for every search;
the study is kept in step with it: one trial per cell and seed, RUNNING from when it is asked to
when it is told, whatever happens in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from policies.errors import InputError
from proxy_tasks.evaluators.evaluation import Evaluation
from search.spaces import RandAugmentSpace
from search.trial import Candidate, Key, usable_reward

from .fixed import FixedSearcher
from .tpe import quiet

STUDY_NAME = "randaugment"


class GridSearcher(FixedSearcher):
    """Every cell of the grid with every seed, once.

    space: the cells. seeds: evaluation seeds, the same for all cells, so that cells are compared
    on equal draws; batch = index of the seed, slot = index of the cell in `space.cells`.
    database: SQLite file, created if missing; an existing one must be of the same grid.

    In the study, parameters are n, m and repeat (index of the seed); the seed, key and standard
    error are user attributes. A trial left RUNNING by a crash is taken up again when its cell is
    asked again. Results loaded from a state or told again on resuming do not add trials.
    """

    name = "grid"

    def __init__(
        self,
        space: RandAugmentSpace,
        seeds: Sequence[int],
        database: Path | str,
        *,
        scorer: str = "main",
        part: str = "validation",
    ) -> None:
        if not seeds or len(set(seeds)) != len(seeds):
            raise InputError(
                "seeds", "must be one or more different seeds", list(seeds), "pass for example 0 1"
            )
        self.space = space
        super().__init__(
            Candidate(batch, slot, space.decode(space_index), seed, scorer, part, f"N={n} M={m}")
            for batch, seed in enumerate(seeds)
            for slot, (n, m) in enumerate(space.cells)
            for space_index in [(space.ns.index(n), space.ms.index(m))]
        )
        self._distributions = {
            "n": IntDistribution(min(space.ns), max(space.ns)),
            "m": IntDistribution(min(space.ms), max(space.ms)),
            "repeat": IntDistribution(0, len(seeds) - 1),
        }
        self.study = _open_study(Path(database), {
            "ns": list(space.ns), "ms": list(space.ms), "seeds": list(seeds),
            "scorer": scorer, "part": part,
        })  # fmt: skip
        self._numbers: dict[Key, int] = {}
        self._rows = 0
        for trial in self.study.get_trials(deepcopy=False):
            self._rows += 1
            key = tuple(trial.user_attrs.get("key", ()))
            if key in self._by_key and key not in self._numbers:
                self._numbers[key] = trial.number
            elif not trial.state.is_finished():  # not ours, or a second row of a cell
                self.study.tell(trial.number, state=TrialState.FAIL)

    def ask(self) -> Candidate | None:
        candidate = super().ask()
        if candidate is not None:
            self._ensure_row(candidate)
        return candidate

    def tell(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        super().tell(candidate, evaluation)
        self._record(candidate, evaluation)

    def _ensure_row(self, candidate: Candidate) -> None:
        if candidate.key in self._numbers:
            return
        augmentation = candidate.augmentation
        trial = create_trial(
            state=TrialState.RUNNING,
            params={"n": augmentation.n, "m": augmentation.m, "repeat": candidate.batch},
            distributions=self._distributions,
            user_attrs={"key": list(candidate.key), "seed": candidate.seed},
        )
        self.study.add_trial(trial)  # one transaction: the row has its key or does not exist
        self._numbers[candidate.key] = self._rows
        self._rows += 1

    def _record(self, candidate: Candidate, evaluation: Evaluation | None) -> None:
        reward = usable_reward(evaluation)
        number = self._numbers[candidate.key]
        before = self.study.get_trials(deepcopy=False)[number]
        if before.state.is_finished():
            if before.value != reward:
                raise InputError(
                    "study",
                    f"{candidate.label}, seed {candidate.seed} was told {before.value}",
                    reward,
                    "the study belongs to another run; move it away",
                )
            return
        with quiet():
            if reward is None:
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, reward)


def _open_study(path: Path, grid: dict[str, Any]) -> optuna.Study:
    url = sqlalchemy.URL.create("sqlite", database=str(path.absolute()))
    try:
        with quiet():
            study = optuna.create_study(
                storage=optuna.storages.RDBStorage(url.render_as_string()),
                study_name=STUDY_NAME,
                direction="maximize",
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(seed=0),
            )
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
        raise InputError(
            "study",
            "must be a SQLite file of an Optuna study that can be written",
            str(path),
            f"move it away or check the folder ({str(error).splitlines()[0]})",
        ) from error
    saved = study.user_attrs.get("grid")
    if saved is None and not study.get_trials(deepcopy=False):
        study.set_user_attr("grid", grid)
    elif saved != grid:
        raise InputError(
            "study", f"must be of the grid {grid}", saved, f"move {path} away or ask for its grid"
        )
    return study
