"""What the searches of a re-derivation are worth: accuracies, with a search as the unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from proxy_tasks.run_format import (
    COMPARE,
    COMPARE_CHILD,
    COMPARE_OTHER,
    CONTROLLER,
    GRID,
    POLICY_NAME,
    RANDOM,
)

from . import tables
from .compare import MARGIN, Comparison
from .document import Section, Sentences, Table, section
from .runs import Run, contents_of
from .statistics import Difference, holm_levels, unpaired_difference, verdict

CONTROLLERS = "the controller"
KINDS = {CONTROLLERS: CONTROLLER, "random search": RANDOM}
COMPARISONS = {
    COMPARE: "Children on the images that were searched",
    COMPARE_OTHER: "Children on another draw",
    COMPARE_CHILD: "Children of another model on that draw",
}


def accuracies(comparisons: Mapping[str, Comparison], found: Iterable[str]) -> Section:
    """Test accuracy under every arm, all comparisons side by side; means over a method's searches.

    The search is the unit there: their scatter is not that of children.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, comparison in comparisons.items():
        table = comparison.table.set_index("arm")
        cells = {
            arm: f"{tables.number(row['mean'])} {tables.interval(row['low'], row['high'])}"
            + ("" if row["n"] == table["n"].max() else f" (n {row['n']})")
            for arm, row in table.iterrows()
        }
        for method, values in _by_method(comparison, found).items():
            if len(values) > 1:
                spread = tables.number(values.std(ddof=1))
                cells[f"mean of {len(values)} searches by {method}"] = (
                    f"{tables.number(values.mean())} (sd {spread})"
                )
        for arm, cell in cells.items():
            rows.setdefault(str(arm), {})[COMPARISONS[name]] = cell
    if not rows:
        return section("Accuracy under every policy")
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    note = (
        "Test accuracy in %, with 95 % intervals over children (their number where it is smaller "
        "than others'); of several searches their mean and the standard deviation between them. "
        "What was searched favours what was found there."
    )
    shown = frame.rename_axis("policy").reset_index()
    return section("Accuracy under every policy", Table(shown, note))


def _by_method(comparison: Comparison, found: Iterable[str]) -> dict[str, pd.Series]:
    """Mean accuracy of each search's policy, by method."""
    means, names = comparison.table.set_index("arm")["mean"], list(found)
    return {
        method: means.reindex(
            [f"{each}/{POLICY_NAME}" for each in names if each.split("-")[0] == kind]
        ).dropna()
        for method, kind in KINDS.items()
    }


def gains(comparison: Comparison, found: Iterable[str]) -> dict[str, Difference]:
    """The controller's searches minus all else, by what that is; empty with fewer than two."""
    searched = _by_method(comparison, found)
    names = {arm for means in searched.values() for arm in means.index}
    ours = searched.pop(CONTROLLERS)
    if len(ours) < 2:
        return {}
    others = {_arm(arm): seeds for arm, seeds in comparison.runs.items() if arm not in names}
    rivals = {**searched, **others}
    return {
        name: unpaired_difference(ours, values) for name, values in rivals.items() if len(values)
    }


def _arm(name: str) -> str:
    return {f"{GRID}/{POLICY_NAME}": "RandAugment's best cell", "imagenet": "published"}.get(
        name, name
    )


def differences(won: Mapping[str, dict[str, Difference]]) -> Section:
    """The controller minus each rival, on all comparisons side by side."""
    rows: dict[str, dict[str, str]] = {}
    for name, rivals in won.items():
        for rival, difference, level in _corrected(rivals):
            cell = _told(difference, level)
            rows.setdefault(rival, {})[COMPARISONS[name]] = cell
    title = "What the controller's searches are worth"
    if not rows:
        return section(title)
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    note = (
        "Points of test accuracy, the controller minus each. The unit is a search: Welch's t "
        "between the means of its searches and those of the other's searches, or the children of "
        "what was not searched here. Intervals are at the level at which Holm's procedure over "
        "the rows of a column tests them; equal: within "
        f"{MARGIN:g} points. With so few searches only large differences can be told."
    )
    shown = frame.rename_axis("minus").reset_index()
    return section(title, Table(shown, note))


def _corrected(differences: Mapping[str, Difference]) -> list[tuple[str, Difference, float]]:
    """With the level of each; one without a spread counts, but can show nothing."""
    levels = holm_levels([each.p for each in differences.values()])
    return [
        (name, each, level) for (name, each), level in zip(differences.items(), levels, strict=True)
    ]


def _told(difference: Difference, level: float) -> str:
    within = difference.interval(1 - level)
    shown = tables.interval(*within, sign=True)
    return f"{difference.mean:+.2f} {shown} {verdict(within, MARGIN)}"


def worth(won: Mapping[str, dict[str, Difference]], stages: Mapping[str, Run]) -> Sentences:
    """The controller against the published policy and against luck, in words; which images."""
    lines = []
    for rival in ("published", "random search"):
        told = [
            f"{COMPARISONS[name][0].lower()}{COMPARISONS[name][1:]} {_told(each, level)}"
            for name, rivals in won.items()
            for name_of, each, level in _corrected(rivals)
            if name_of == rival
        ]
        if told:
            lines.append(f"The controller's policies minus {rival}, in points: {'; '.join(told)}.")
    if COMPARE in stages and COMPARE_OTHER in stages:
        lines += overlap(stages[COMPARE], stages[COMPARE_OTHER])
    return Sentences(tuple(lines))


def overlap(here: Run, there: Run) -> list[str]:
    """What another draw has in common with the one that was searched."""
    if here.manifest is None or there.manifest is None:
        return []
    own, other = contents_of(here), contents_of(there)
    seen = own["train"] | own["validation"]
    test, train = (
        100 * len(other[part] & known) / len(other[part])
        for part, known in (("test", own["test"]), ("train", seen))
    )
    return [
        f"The other draw is another choice of classes and images of the same data: {test:.0f} % "
        f"of its test images are those of the draw that was searched, and {train:.0f} % of its "
        "training images were trained on, or gave rewards, there. It rules out luck with training "
        "images more than luck with test images."
    ]
