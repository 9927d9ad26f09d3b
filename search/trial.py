"""One evaluation: asked for as a `Candidate`, ended as a `Trial`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policies.augmentations import Augmentation
from policies.errors import check_integer
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.trials import (
    CHEAP,
    JOURNAL_NAME,
    MAIN,
    Key,
    Trial,
    best_trials,
    image_passes,
    read_journal,
)

__all__ = [
    "CHEAP",
    "JOURNAL_NAME",
    "MAIN",
    "Candidate",
    "Key",
    "Trial",
    "best_trials",
    "image_passes",
    "read_journal",
    "usable_reward",
]


@dataclass(frozen=True)
class Candidate:
    """One evaluation to be made.

    Attributes:
        batch: >= 0, with `slot` its place in the search.
        slot: >= 0; (batch, slot) is unique within a run.
        augmentation: a Policy, a transform, or None for no augmentation.
        seed: of the evaluation, 0 <= seed < 2**32, given to `Evaluator.evaluate`.
        scorer: name of the configured evaluator that shall do it, one of the run's.
        part: "validation" in a search; "test" only in a comparison.
        label: free text for reports, for example the name of an arm.
        parent: key of the evaluation in this run whose artifact (weights, say) this one goes on
            from; None to begin anew.
    """

    batch: int
    slot: int
    augmentation: Augmentation
    seed: int
    scorer: str = MAIN
    part: str = "validation"
    label: str = ""
    parent: Key | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "slot", "seed"):  # the journal takes no numpy integers
            if type(getattr(self, name)) is not int:
                number = check_integer(name, getattr(self, name), 0)
                object.__setattr__(self, name, number)

    @property
    def key(self) -> Key:
        """(batch, slot), unique within a run."""
        return (self.batch, self.slot)


def usable_reward(evaluation: Evaluation | None) -> float | None:
    """The reward; None for a failed evaluation, a diverged child or a reward that is no number."""
    if evaluation is None or evaluation.diverged or evaluation.reward is None:
        return None
    return float(evaluation.reward) if math.isfinite(evaluation.reward) else None
