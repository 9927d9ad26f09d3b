"""Measure a slice of a packaged table anew, and compare.

    python -m tests.benchmarks.table cifar10-1k --data CIFAR --policies 3

On the machine and with the versions that made the table every figure is the same. Elsewhere
rounding makes other children of the same kind: then means must agree within the scatter of runs.
"""

from __future__ import annotations

import argparse
import math

import pandas as pd

from analysis import analyse_tabulation
from policies.augmentations import decode_augmentation
from policies.files import parse_json
from policies.options import options_of
from proxy_tasks import EvaluatorConfig, ProxyTask, Table, load_table, make_evaluator
from search import TaskConfig
from search.studies.study import build_task

FAR = 4.0  # standard errors that means may differ by


def drawn(table: Table, data: str | None) -> ProxyTask:
    """The task of a table. Ends the program unless its images are the same."""
    fields = {declared.field for declared in options_of(TaskConfig)}
    asked = {name: value for name, value in table.task.items() if name in fields}
    child = next(iter(table.fidelities.values()))["evaluator"]
    task = build_task(TaskConfig(**asked, data=data), child["preset"])
    if task.manifest_hash != table.manifest_hash:
        raise SystemExit("table: these are other images than the table was made with")
    return task


def measured(table: Table, task: ProxyTask, policies: int) -> pd.DataFrame:
    """Accuracies of the table and anew, one row per evaluation of so many policies."""
    texts = table.frame["policy"].unique()
    chosen = set(texts[:: math.ceil(len(texts) / policies)])
    rows = []
    for fidelity, about in table.fidelities.items():
        evaluator = make_evaluator(EvaluatorConfig(**about["evaluator"]), task)
        if evaluator.needs_preparation:
            evaluator.prepare()
        frame = table.frame[table.frame["fidelity"] == fidelity]
        for row in frame[frame["policy"].isin(chosen)].to_dict("records"):
            policy = decode_augmentation(parse_json(row["policy"]))
            anew = evaluator.evaluate(policy, row["seed"], about["part"])
            column = "test_accuracy" if about["part"] == "test" else "accuracy"
            rows.append((fidelity, row["family"], row[column], anew.metrics["accuracy"]))
            print("table: {:12} {:16} was {:.4f}, is {:.4f}".format(*rows[-1]), flush=True)
    return pd.DataFrame(rows, columns=["fidelity", "family", "was", "now"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--data", help="where its images are; none for an embedded task")
    parser.add_argument("--policies", type=int, default=3)
    words = parser.parse_args()
    table = load_table(words.table)
    found = measured(table, drawn(table, words.data), words.policies)
    noise = analyse_tabulation(table).noise
    accuracy = noise[(noise["among"] == "all") & noise["measure"].str.endswith("accuracy")]
    scatter = accuracy.groupby("fidelity")["run_sd"].max() / 100
    far = []
    for fidelity, rows in found.groupby("fidelity", sort=False):
        gap = (rows["now"] - rows["was"]).mean()
        # A quarter has one seed, and so no scatter of its own: at least that of whole children.
        error = scatter.get(fidelity, scatter.max()) * math.sqrt(2 / len(rows))
        same = int((rows["now"] == rows["was"]).sum())
        print(
            f"table: {fidelity}: {same} of {len(rows)} the same, mean gap {gap:+.4f} ± {error:.4f}"
        )
        far += [fidelity] if abs(gap) > FAR * error else []
    if far:
        raise SystemExit(f"table: {', '.join(far)} are not what the table says")


if __name__ == "__main__":
    main()
