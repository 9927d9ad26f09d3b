"""An evaluator that trains nothing: it looks policies up in a table that others have measured."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from policies.augmentations import Augmentation
from policies.errors import InputError
from policies.options import Option
from proxy_tasks.surrogate import TEST, Surrogate
from proxy_tasks.tables import METRICS, load_table, policy_text

from .base import Evaluator, check_call
from .config import EvaluatorConfig
from .evaluation import Evaluation

if TYPE_CHECKING:
    from proxy_tasks.data import ProxyTask

CHEAPEST = "sharing-80"


class TableEvaluator(Evaluator):
    """Evaluations of one fidelity of a table (`tables.load_table`), with what they have cost.

    A policy that is tabulated has the row of its seed; another seed takes one of its rows by
    turns. Any other policy has the value that the surrogate expects of it plus the scatter of one
    evaluation, drawn from seed and policy (`proxy_tasks.surrogate`); it never diverges.
    details["tabulated"] says which of both. Seconds and image passes are those of the evaluation
    that the table saves, not of the look-up.

    With `half` it knows every second policy alone, in its surrogate too: an evaluator of the other
    half then judges what was found without sharing its errors.

    The part "test" has nothing but the accuracy, at fidelities where that was measured. The task's
    images are not used.
    """

    def __init__(
        self,
        config: EvaluatorConfig,
        task: ProxyTask | None = None,
        *,
        table: Annotated[str, Option("name of a packaged table, or a .parquet file")],
        fidelity: Annotated[str, Option("which of the table's evaluations")] = CHEAPEST,
        half: Annotated[
            int | None, Option("of the policies, 0 or 1: know of no others", least=0, most=1)
        ] = None,
    ) -> None:
        self.config, self.fidelity = config, fidelity
        self.surrogate = surrogate_of(table, fidelity, half)
        frame = self.surrogate.frame
        rows = frame[frame["fidelity"] == fidelity].sort_values(["policy", "seed"])
        self._rows: dict[str, list[dict[str, Any]]] = {
            str(text): group.to_dict("records") for text, group in rows.groupby("policy")
        }
        self._tested = bool(rows[TEST].notna().any())

    def evaluate(
        self, augmentation: Augmentation, seed: int, part: str = "validation"
    ) -> Evaluation:
        check_call(seed, part)
        self._check_part(part)
        text = policy_text(augmentation)
        rows = self._rows.get(text)
        if rows:
            row = next((r for r in rows if r["seed"] == seed), rows[seed % len(rows)])
        else:
            model = self.surrogate.of(self.fidelity)
            rng = np.random.default_rng([seed, zlib.crc32(text.encode())])
            cost = {"seconds": model.seconds, "image_passes": model.image_passes}
            row = {**model.draw(augmentation, rng), **cost, "diverged": False}
        names = {"accuracy": TEST} if part == "test" else {name: name for name in METRICS}
        metrics = {name: float(row[column]) for name, column in names.items()}
        return Evaluation(
            reward=metrics[self.config.reward],
            stderr=None,  # a table has no images to tell it from
            metrics=metrics,
            seconds=float(row["seconds"]),
            image_passes=int(row["image_passes"]),
            diverged=bool(row["diverged"]),
            part=part,
            details={"tabulated": bool(rows)},
        )

    def _check_part(self, part: str) -> None:
        if part != "test":
            return
        if not self._tested:
            raise InputError(
                "part", f"must be validation: {self.fidelity} has no test accuracy", part,
                "take the fidelity scratch",
            )  # fmt: skip
        if self.config.reward != "accuracy":
            raise InputError(
                "reward", "must be accuracy on the test part of a table", self.config.reward,
                "nothing else was measured there",
            )  # fmt: skip


def surrogate_of(table: str, fidelity: str, half: int | None = None) -> Surrogate:
    """The surrogate of a table by name or file; InputError for a fidelity that it does not have.

    half: of its policies, by their texts; None: of all.
    """
    frame = load_table(table).frame
    if half is not None:
        numbers = frame["policy"].map(lambda text: zlib.crc32(text.encode()) % 2)
        frame = frame[numbers == half]
    surrogate = Surrogate(frame)
    surrogate.check(fidelity)
    return surrogate
