"""Sections that the reports of several kinds of run share: data, cost, and how to make it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from policies import Augmentation, Policy, PolicyTransform
from proxy_tasks.run_format import CONFIG_NAME, LOG_NAME, PREPARED_RECORD

from . import tables
from .document import Code, Gallery, Section, Sentences, Table, Text, section
from .runs import Run

FEW = 12  # classes, or warnings, that are named one by one


def closing(run: Run, *details: Section) -> tuple[Section, ...]:
    """What a report ends with: warnings, failures, `details` of its own, cost, data, how to make it
    again."""
    return (
        warnings_section(run), failures_section(run), *details, cost_section(run),
        data_section(run), how_section(run),
    )  # fmt: skip


def warnings_section(run: Run) -> Section:
    """What was warned of while it ran, such as test images that a search has seen."""
    told = run.warnings
    if not told:
        return section("Warnings")
    more = [f"{len(told) - FEW} more in {LOG_NAME}."] * (len(told) > FEW)
    return section("Warnings", Sentences((*told[:FEW], *more)))


def data_section(run: Run) -> Section:
    """Which images, from where, drawn how."""
    manifest = run.manifest
    if manifest is None:
        return section("Data", Text("The images had not been drawn yet."), details=True)
    names = manifest.class_names
    classes = ", ".join(names[:FEW]) + (", …" if len(names) > FEW else "")
    rows = [
        ("task", manifest.task),
        ("source", manifest.source),
        ("images", ", ".join(f"{len(rows)} {part}" for part, rows in manifest.parts.items())),
        ("channels, height, width", " × ".join(map(str, manifest.shape))),
        ("classes", f"{len(names)}: {classes}"),
        ("mirrored in training", "yes" if manifest.flip else "no"),
        ("seed of the draw", str(manifest.seed)),
        ("manifest", manifest.hash[:16]),
    ]
    if manifest.skipped:
        rows.append(("images that could not be read", str(len(manifest.skipped))))
    rows += [
        (f"duplicates, {kind}", str(count))
        for kind, count in manifest.duplicates.counts.items()
        if count
    ]
    return section("Data", facts(rows), details=True)


def cost_section(run: Run) -> Section:
    """What the evaluations have cost."""
    done = run.evaluated
    spent = done[done["status"] != "duplicate"]
    if spent.empty:
        return section("Cost")
    seconds = spent["seconds"]
    shared = (run.directory / PREPARED_RECORD).is_file()
    apart = ", without the one-off training that evaluations share" if shared else ""
    rows = [
        ("evaluations that were computed", str(len(spent))),
        ("seconds per evaluation, mean (largest)", f"{seconds.mean():.2f} ({seconds.max():.2f})"),
        ("time in evaluations", tables.duration(seconds.sum())),
        (f"image passes{apart}", f"{spent['image_passes'].sum():,.0f}"),
    ]
    wall = run.trials["finished"].max() - run.trials["started"].min()
    rows.append(("from the first start to the last result", tables.duration(wall)))
    return section("Cost", facts(rows), details=True)


def failures_section(run: Run) -> Section:
    """Why evaluations failed, by the last line of their errors."""
    failed = run.trials[run.trials["status"] == "failed"]
    if failed.empty:
        return section("Failures")
    reasons = failed["error"].map(lambda text: str(text).strip().split("\n")[-1])
    table = reasons.value_counts().rename_axis("reason").reset_index(name="evaluations")
    return section("Failures", Table(table.astype(str)))


def how_section(run: Run) -> Section:
    """The configuration, the machine, and the command that makes the run again."""
    words = ["augsearch", run.kind]
    searched = run.option("settings", "run")
    if run.kind == "select" and searched:
        words.append(str(searched))
    words += ["--config", str(run.directory / CONFIG_NAME), "--out", "NEW-FOLDER"]
    environment = run.environment
    packages = environment.get("packages", {})
    rows = [
        ("python", str(environment.get("python", ""))),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages.items())),
        ("digest of the toolkit's source", str(environment.get("source", ""))),
        ("platform", str(environment.get("platform", ""))),
        (
            "processor",
            f"{environment.get('processor', '')}, {environment.get('cpu_count', '?')} cores",
        ),
        ("accelerators", ", ".join(map(str, environment.get("gpus", []))) or "none"),
    ]
    return section(
        "How it was made, and how to make it again",
        Text("The same run, in another folder:"),
        Code(shlex.join(words), "console"),
        facts([row for row in rows if row[1]]) if environment else None,
        Text("config.json:"),
        Code(json.dumps(run.config, indent=1, ensure_ascii=False), "json"),
        details=True,
    )


def facts(rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values."""
    return Table(pd.DataFrame(list(rows), columns=["what", "value"]))


def state(done: int, asked: int, what: str = "evaluations") -> str:
    """How far a run is, in a sentence."""
    if done >= asked > 0:
        return f"Complete: {done} {what}."
    of = f" of {asked}" if asked else ""
    return f"Unfinished: {done}{of} {what}; the same command with --resume goes on."


def reward_name(run: Run) -> str:
    """The reward that was maximised, in words."""
    return str(run.option("evaluator", "reward") or "reward").replace("_", " ")


def listing(augmentation: Augmentation) -> str:
    """The augmentation as Python, to copy: a tuple list, or the transform's constructor."""
    if isinstance(augmentation, Policy):
        return augmentation.to_text()
    if isinstance(augmentation, PolicyTransform):
        rows = augmentation.policy.to_text().strip()
        return f"PolicyTransform(\n{rows},\nconvention={augmentation.convention!r},\n)"
    return repr(augmentation)


def shown(augmentation: Augmentation) -> tuple[Code, Gallery]:
    """The augmentation as a list to copy, and what it does to images."""
    return Code(listing(augmentation), "python"), Gallery(augmentation)


_SOUGHT = {
    "search": "policies of {subpolicies} sub-policies × {operations} operations",
    "select": "the final policy of a search",
    "randaugment": "RandAugment's N and M",
    "compare": "test accuracy under each arm",
    "fidelity": "how well cheap scores rank policies",
    "rederive": "policies of {subpolicies} sub-policies × {operations} operations",
    "pba": "a schedule of policies, by {population} children",
    "train": "a child under a policy",
    "tabulate": "a table of evaluations",
    "race": "the best searcher",
    "replicate": "the method that finds the best policies",
}


def about(run: Run) -> list[tuple[str, str]]:
    """What was sought, on which data, how, and what it has cost, in a few words each."""
    settings = {
        "subpolicies": run.number("settings", "subpolicies"),
        "operations": run.number("settings", "operations"),
        "population": run.number("settings", "population"),
    }
    table = run.option("settings", "table")  # of a race, which looks at no image
    rows = [("sought", _SOUGHT[run.kind].format(**settings)), ("data", str(table or run.task))]
    if run.manifest and not table:
        counts = ", ".join(f"{len(rows)} {part}" for part, rows in run.manifest.parts.items())
        rows.append(("images", counts))
    if run.config.get("searcher"):
        rows.append(("searcher", str(run.option("searcher", "name"))))
    rows.append(("evaluator", f"{run.option('evaluator', 'kind')}, by {reward_name(run)}"))
    cheap = run.option("settings", "cheap")
    if isinstance(cheap, dict) and cheap:
        rows.append(("cheap evaluator", str(cheap.get("kind", ""))))
    trials = run.trials
    if len(trials):
        rows.append(("evaluations", f"{len(trials):,}"))
        rows.append(("time in evaluations", tables.duration(trials["seconds"].sum())))
        begun = datetime.fromtimestamp(trials["started"].min(), UTC)
        rows.append(("begun", f"{begun:%Y-%m-%d %H:%M} UTC"))
    return [(name, value) for name, value in rows if value]
