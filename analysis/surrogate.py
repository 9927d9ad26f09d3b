"""How well the surrogate of a table predicts policies that it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from policies.augmentations import decode_augmentation
from policies.files import parse_json
from proxy_tasks.surrogate import LEAST_POLICIES, Fidelity, Surrogate, fit_fidelity
from proxy_tasks.tables import OPTIMISED, Table

from .ranks import rank_ceiling, rank_correlation
from .statistics import FEWEST, noise_floor

FOLDS = 5
COVERED = 0.9
COLUMNS = (
    "fidelity", "metric", "left_out", "judged", "policies", "r2", "spearman", "low", "high",
    "ceiling_r2", "ceiling_spearman", "bias", "covered",
)  # fmt: skip


def surrogate_quality(table: Table, metrics: tuple[str, ...] = ()) -> pd.DataFrame:
    """Predictions of held-out policies against their measured means.

    Left out are a fifth of the policies at a time (judged: all, the random ones, the optimised
    ones), every family as a whole, and everything that one searcher has found. The kernel is that
    of the whole table; three numbers of it learn nothing of single policies.

    Args:
        table: of `proxy_tasks.tables.load_table`.
        metrics: which; default: all.

    Returns:
        One row per fidelity, metric and set of policies with the columns COLUMNS: `r2` (share of
        the variance of the means over seeds; below 0: worse than their mean), `spearman` with a
        bootstrap interval `low`, `high`; `ceiling_r2` and `ceiling_spearman`, what a perfect
        predictor would reach against the noise of the measured means (NaN with one seed); `bias`
        (predicted - measured, in the metric's unit); `covered`, the share of means within the 90 %
        predictive interval. Sets of fewer than 8 policies are left out.
    """
    surrogate = Surrogate(table.frame)
    rows = []
    for name in table.fidelities:
        measured = table.frame[(table.frame["fidelity"] == name) & ~table.frame["diverged"]]
        whole = surrogate.of(name)
        for left_out, held, judged in _splits(measured):
            predicted = pd.concat([_predictions(measured, texts, whole) for texts in held])
            for group, texts in judged.items():
                if len(texts) >= FEWEST:
                    rows += [
                        {"fidelity": name, "left_out": left_out, "judged": group,
                         **_figures(measured, predicted.loc[texts], metric)}
                        for metric in metrics or whole.metrics
                        if metric in whole.metrics
                    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _splits(measured: pd.DataFrame) -> Iterator[tuple[str, list[list[str]], dict[str, list[str]]]]:
    """(name, sets held out one after the other, sets judged) of policies by their text."""
    about = measured.groupby("policy", sort=True)[["family", "source"]].first()
    texts = list(about.index)
    order = np.random.default_rng(0).permutation(len(texts))
    folds = [[texts[i] for i in order[k::FOLDS]] for k in range(FOLDS)]
    families = {f: list(about.index[about["family"] == f]) for f in about["family"].unique()}
    random = [text for f, some in families.items() if f.startswith("random-") for text in some]
    regions = {"all": texts, "random": random, OPTIMISED: families.get(OPTIMISED, [])}
    yield f"{FOLDS} folds", folds, regions
    for family, some in families.items():
        if FEWEST <= len(some) <= len(texts) - LEAST_POLICIES:
            yield f"family {family}", [some], {family: some}
    # A source is "searcher, evaluator".
    searchers = about["source"].str.partition(",")[0]
    for searcher in searchers[searchers != ""].unique():
        some = list(about.index[searchers == searcher])
        if FEWEST <= len(some) <= len(texts) - LEAST_POLICIES:
            yield f"searcher {searcher}", [some], {searcher: some}


def _predictions(measured: pd.DataFrame, held: list[str], whole: Fidelity) -> pd.DataFrame:
    """Metric, "metric low" and "metric high" of the held-out policies."""
    fitted = fit_fidelity(measured[~measured["policy"].isin(held)], like=whole)
    augmentations = [decode_augmentation(parse_json(text)) for text in held]
    columns: dict[str, Any] = dict(fitted.mean(augmentations))
    for metric, (low, high) in fitted.intervals(augmentations, COVERED).items():
        columns |= {f"{metric} low": low, f"{metric} high": high}
    return pd.DataFrame(columns, index=held)


def _figures(measured: pd.DataFrame, predicted: pd.DataFrame, metric: str) -> dict[str, Any]:
    rows = measured[measured["policy"].isin(predicted.index)]
    seeds = rows.pivot(index="policy", columns="seed", values=metric).loc[predicted.index]
    truth, guess = seeds.mean(axis=1).to_numpy(), predicted[metric].to_numpy()
    spread = float(((truth - truth.mean()) ** 2).sum())
    rho = rank_correlation(guess[:, None], truth[:, None])
    complete = seeds.dropna(axis=0)
    several = complete.shape[1] >= 2 and len(complete) >= FEWEST
    table = complete.to_numpy()
    inside = (predicted[f"{metric} low"] <= truth) & (truth <= predicted[f"{metric} high"])
    return {
        "metric": metric,
        "policies": len(truth),
        "r2": 1 - float(((truth - guess) ** 2).sum()) / spread if spread > 0 else float("nan"),
        "spearman": rho.rho,
        "low": rho.low,
        "high": rho.high,
        "ceiling_r2": noise_floor(table).reliability if several else float("nan"),
        "ceiling_spearman": rank_ceiling(table) if several else float("nan"),
        "bias": float((guess - truth).mean()),
        "covered": float(inside.mean()),
    }
