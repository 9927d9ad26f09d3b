"""`augsearch report`: report.md and its pictures, written into the run folder of a search."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from analysis import plots, tables
from policies import Policy

from .composition import batch_entropies, histogram_overlap, policy_statistics
from .runs import Run, load_run
from .statistics import mean_interval

TOP = 10
FEW = 5  # evaluations of which a mean is worth stating


def write_report(directory: str | Path) -> Path:
    """Write report.md and its pictures: reward.png, diversity.png, histograms.png.

    Returns the path of report.md. The run may be unfinished; the report says so.
    """
    run = load_run(directory)
    sections = [
        f"# Search on {run.option('task', 'name', 'a task')}",
        _summary(run),
        _curves(run),
        _final_policy(run),
        _top(run),
        _failures(run),
        _costs(run),
        _configuration(run),
    ]
    text = "\n\n".join(section for section in sections if section)
    return tables.write_text(run.directory / "report.md", text)


def _summary(run: Run) -> str:
    trials, done = run.trials, run.evaluated
    asked = run.option("settings", "evaluations")
    duplicates = int((trials["status"] == "duplicate").sum())
    failed = int((trials["status"] == "failed").sum())
    lines = [f"{len(trials)} evaluations" + (f" of {asked} asked for" if asked else "")]
    if duplicates:
        lines[0] += f", {duplicates} of them repeats taken from an earlier result"
    if failed:
        lines[0] += f", {failed} failed"
    lines[0] += "."
    if len(done):
        best = done.loc[done["reward"].idxmax()]
        lines.append(
            f"Best reward {best['reward']:.4f} (batch {best['batch']}, slot {best['slot']}). It is "
            "the largest of many noisy values and therefore optimistic; `augsearch compare` "
            "measures the policy on the test part."
        )
        tenth = max(FEW, len(done) // 10)
        if len(done) >= 2 * tenth:
            first = mean_interval(done["reward"].iloc[:tenth])
            last = mean_interval(done["reward"].iloc[-tenth:])
            lines.append(
                f"Mean reward of the first {tenth} evaluations {first.mean:.4f} "
                f"{tables.interval(first.low, first.high, 4)}, of the last {tenth} {last.mean:.4f} "
                f"{tables.interval(last.low, last.high, 4)}."
            )
        diverged = int(done["diverged"].sum())
        if diverged:
            lines.append(f"{diverged} children diverged and were given the reward of chance.")
    if run.policy is None:
        lines.append("The search has not exported a policy yet (unfinished: use --resume).")
    return "\n".join(f"- {line}" for line in lines)


def _curves(run: Run) -> str:
    name = run.option("evaluator", "reward") or "reward"
    plots.reward_curve(run.trials, run.directory / "reward.png", str(name).replace("_", " "))
    text = "## Reward\n\n![reward](reward.png)"
    entropies = batch_entropies(run.trials)
    if len(entropies) >= 3:
        plots.diversity_curve(entropies, run.directory / "diversity.png")
        text += (
            "\n\nHow far the searcher has settled: the entropy of what each batch drew, 1 for "
            "uniform draws.\n\n![diversity](diversity.png)"
        )
    return text


def _final_policy(run: Run) -> str:
    if run.policy is None:
        return ""
    candidates = [Policy(rows) for rows in run.trials["policy"] if isinstance(rows, tuple)]
    final = policy_statistics([run.policy], run.policy.bins)
    groups = {f"final policy ({len(run.policy)} sub-policies)": final}
    words = ""
    if candidates and run.policy.bins == 10:
        everyone = policy_statistics(candidates)
        groups[f"all {len(candidates)} candidates"] = everyone
        overlap = histogram_overlap(final.operations, everyone.operations)
        gained = (final.operations - everyone.operations).sort_values()
        words = (
            f"The operations of the final policy share {100 * overlap:.0f} % of their histogram "
            f"with all candidates. Most gained: {_names(gained.iloc[::-1])}; most lost: "
            f"{_names(gained)}.\n\n"
        )
    plots.policy_histograms(groups, run.directory / "histograms.png", run.policy.bins)
    return (
        f"## Final policy\n\n{words}![operations, probabilities and magnitudes](histograms.png)"
        f"\n\n```python\n{run.policy.to_text().strip()}\n```"
    )


def _names(shares: pd.Series, count: int = 3) -> str:
    return ", ".join(f"{name} ({value:+.0%})" for name, value in shares.iloc[:count].items())


def _top(run: Run) -> str:
    done = run.evaluated
    if done.empty:
        return ""
    best = done.sort_values("reward", ascending=False, kind="stable").head(TOP)
    table = pd.DataFrame(
        {
            "batch, slot": [f"{row.batch}, {row.slot}" for row in best.itertuples()],
            "reward": best["reward"].map(lambda value: f"{value:.4f}"),
            "± (standard error)": best["stderr"].map(lambda value: tables.number(value, 4)),
            "accuracy (%)": (100 * best["accuracy"]).map(tables.number),
            "policy": best["policy"].map(_short),
        }
    )
    return f"## Best {len(best)} candidates\n\n{tables.markdown(table)}"


def _short(policy: object) -> str:
    """A policy on one line, sub-policies joined by ';'."""
    if not isinstance(policy, tuple):
        return str(policy)
    return "; ".join(
        " + ".join(
            f"{name} {probability:g}" + ("" if magnitude is None else f" {magnitude}")
            for name, probability, magnitude in sub
        )
        for sub in policy
    )


def _failures(run: Run) -> str:
    failed = run.trials[run.trials["status"] == "failed"]
    if failed.empty:
        return ""
    reasons = failed["error"].fillna("unknown").map(lambda text: str(text).strip().split("\n")[-1])
    table = reasons.value_counts().rename_axis("reason").reset_index(name="evaluations")
    return f"## Failures\n\n{tables.markdown(table.astype(str))}"


def _costs(run: Run) -> str:
    done = run.evaluated
    spent = done[done["status"] != "duplicate"]
    if spent.empty:
        return ""
    seconds = spent["seconds"]
    rows = [
        ("evaluations that were computed", str(len(spent))),
        ("seconds per evaluation, mean (largest)", f"{seconds.mean():.2f} ({seconds.max():.2f})"),
        ("time in evaluations", tables.duration(seconds.sum())),
        ("image passes", f"{spent['image_passes'].sum():,.0f}"),
    ]
    if pd.api.types.is_numeric_dtype(run.trials["started"]):
        wall = run.trials["finished"].max() - run.trials["started"].min()
        rows.append(("from the first start to the last result", tables.duration(wall)))
    return "## Cost\n\n" + tables.markdown(pd.DataFrame(rows, columns=["what", "value"]))


def _configuration(run: Run) -> str:
    if not run.config:
        return ""
    text = json.dumps(run.config, indent=1, sort_keys=True)
    machine = run.environment.get("processor"), run.environment.get("cpu_count")
    where = f"\n\nRun on {machine[0]}, {machine[1]} cores." if machine[0] else ""
    return f"## Configuration\n\n```json\n{text}\n```{where}"
