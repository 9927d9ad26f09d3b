"""The report of `augsearch rederive`: was the published ImageNet policy found again?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from policies import CIFAR10, IMAGENET, PAPER_OPS, SVHN, Policy, get_convention
from policies.errors import as_written
from policies.files import read_json
from proxy_tasks.run_format import (
    COMPARE,
    COMPARE_CHILD,
    COMPARE_OTHER,
    CONFIG_NAME,
    CONTROLLER,
    GRID,
    POLICY_NAME,
    RANDOM,
    RECIPE_NAME,
    numbered,
)

from . import plots, sections, tables
from .agreement import (
    AGAIN,
    ALPHA,
    Agreement,
    Between,
    agreement_between,
    agreement_with,
    trait_table,
)
from .compare import comparison_blocks, comparison_so_far, report_on
from .composition import policy_statistics
from .document import Part, Picture, Report, Section, Sentences, Table, Text, section
from .gallery import written
from .randaugment import grid_report
from .runs import Run, load_run
from .search import policy_section, search_report

KINDS = {"the controller": CONTROLLER, "random search": RANDOM}
COMPARISONS = {
    COMPARE: "Children on the images that were searched",
    COMPARE_OTHER: "Children on another draw of images",
    COMPARE_CHILD: "Children of another model on that draw",
}
WORDS = {
    "re-derived": "The published policy was re-derived",
    "partly": "The published policy was re-derived in part",
    "not": "The published policy was not re-derived",
}
CANNOT_SAY = (
    "The published policy is itself the result of one search: another one by its authors would "
    "have ended in another policy, and nobody knows how far the two would agree. Children smaller "
    "than the paper's may want another policy, so what is not found again may be due to the proxy "
    "as well as to the search. Signs of geometric operations and of enhancements are drawn, so "
    "their direction is not searched. Two draws of a tree with few more than 120 classes share "
    "most of them: judging on the other draw rules out luck with images, not with classes."
)


def rederivation_report(run: Run) -> Report:
    """The report of a re-derivation, finished or not."""
    stages = _stages(run)
    searches = {name: each for name, each in stages.items() if name not in (*COMPARISONS, GRID)}
    state = Text(_state(run, searches))
    found = {name: search.policy for name, search in searches.items() if search.policy}
    if found:
        groups = _groups(found)
        first = next(iter(groups.values()))
        traits = trait_table(IMAGENET, first, _ops(run))
        parts = [
            section("", state, *_verdict(run, groups, traits)),
            _agreement(run, found, groups),
            section("Traits of the published policy", Table(_traits(traits), _TRAIT_NOTE)),
            _accuracies(stages, found),
        ]
        parts += [
            _own(policy_section(searches[name], f"The policy of {name}"), name) for name in found
        ]
    else:
        parts = [section("", state), section("", Text("No search has exported a policy yet."))]
    parts += [
        _own(_children(stages[name], title), name)
        for name, title in COMPARISONS.items()
        if name in stages
    ]
    if GRID in stages:
        parts.append(section("RandAugment's grid", Part(grid_report(stages[GRID]))))
    for name, search in searches.items():
        told = Text(f"{len(search.trials)} evaluations.")
        parts += [section(f"The run {name}", told, Part(search_report(search)))]
        parts += [sections.cost_section(search)]
    parts += [_recipe(run), sections.data_section(run), sections.how_section(run)]
    return Report(
        title="The ImageNet policy, searched anew",
        run=run,
        name="rederive.md",
        sections=tuple(parts),
    )


def _own(part: Section, folder: str) -> Section:
    """The section with pictures that are called by the folder of their run too."""
    blocks = (
        replace(block, name=f"{folder}-{block.name}") if isinstance(block, Picture) else block
        for block in part.blocks
    )
    return replace(part, blocks=tuple(blocks))


def _state(run: Run, searches: Mapping[str, Run]) -> str:
    """How far the searches are: in evaluations, or in searches where a budget counts."""
    if run.option("settings", "budget"):
        done = sum(search.chosen is not None for search in searches.values())
        return sections.state(done, len(_searches(run)), "searches")
    asked = run.number("settings", "evaluations") * len(_searches(run))
    done = sum(len(search.trials) for search in searches.values())
    return sections.state(done, asked, "evaluations of the searches")


def _searches(run: Run) -> list[str]:
    """The searches that it makes, by the name of their folder."""
    counts = {CONTROLLER: "searches", RANDOM: "random_searches"}
    return [
        name
        for kind, option in counts.items()
        for name in numbered(kind, run.number("settings", option) or (kind == CONTROLLER))
    ]


def _stages(run: Run) -> dict[str, Run]:
    """The runs in this folder that were begun, by the name of their folder."""
    folders = [run.directory / name for name in (*_searches(run), GRID, *COMPARISONS)]
    return {folder.name: load_run(folder) for folder in folders if (folder / CONFIG_NAME).exists()}


def _groups(found: Mapping[str, Policy]) -> dict[str, list[Policy]]:
    """Policies by the method that found them."""
    groups = {
        method: [policy for name, policy in found.items() if name.split("-")[0] == kind]
        for method, kind in KINDS.items()
    }
    return {method: policies for method, policies in groups.items() if policies}


def _ops(run: Run) -> Sequence[str]:
    return run.choices("ops") or PAPER_OPS


def _verdict(
    run: Run, groups: Mapping[str, list[Policy]], traits: pd.DataFrame
) -> list[Text | Sentences]:
    """What the evidence says, and what it cannot."""
    lines, head = [], ""
    for method, policies in groups.items():
        agreement = agreement_with(IMAGENET, policies, _ops(run))
        head = head or WORDS[agreement.verdict] + "."
        lines.append(_sentence(method, policies, agreement))
    theirs = traits[traits["p_known"] <= ALPHA]
    holding = theirs.loc[theirs["p_holm"] <= ALPHA, "trait"]
    lines.append(
        f"Of {len(traits)} traits that are said of the published policy it shows {len(theirs)} "
        "beyond chance; of these were found again, beyond chance: "
        + (", ".join(holding) if len(holding) else "none")
        + "."
    )
    lines.append(CANNOT_SAY)
    return [Text(head), Sentences(tuple(lines))]


def _sentence(method: str, policies: list[Policy], agreement: Agreement) -> str:
    low, high = agreement.chance
    quarter, half = agreement.power[0.25], agreement.power[0.5]
    many = f"{len(policies)} searches" if len(policies) > 1 else "one search"
    return (
        f"{method} ({many}): agreement {agreement.mean:.2f} with the published policy, of random "
        f"policies {low:.2f} to {high:.2f} (95 %), p = {agreement.p:.2g}. A policy of which "
        f"{100 * agreement.share:.0f} % of the sub-policies are published and the rest random "
        f"agrees as much; a quarter would be told from chance in {100 * quarter:.0f} % of cases, "
        f"a half in {100 * half:.0f} %."
    )


def _agreement(
    run: Run, found: Mapping[str, Policy], groups: Mapping[str, list[Policy]]
) -> Section:
    shown = {
        f"found by {method}": policy_statistics(policies) for method, policies in groups.items()
    }
    theirs = {"published ImageNet policy": policy_statistics([IMAGENET])}
    note = (
        "Agreement is the mean cosine of two tables of shares: how often each operation is applied "
        "in which strength, and which operations stand together; 1 is the same policy. p: how "
        "often random policies of the same form agree as much. Re-derived: p at most 0.01, and the "
        f"agreement of a policy that is {100 * AGAIN:.0f} % published. In part: p at most 0.05."
    )
    return section(
        "Agreement with the published policy",
        Table(_agreements(run, found, groups), note),
        Picture(
            "rederive",
            "operations, probabilities and magnitudes",
            lambda path: plots.policy_histograms({**shown, **theirs}, path),
        ),
        Table(_operations(run, groups), "Shares count how often an operation is applied."),
    )


_TRAIT_NOTE = (
    "Mean shares of what is applied; chance: 95 % of as many random policies; p one-sided, "
    "corrected by Holm over the traits. A trait that the published policy does not show itself "
    "beyond chance (last column, not corrected) cannot be expected to come again."
)


def _agreements(
    run: Run, found: Mapping[str, Policy], groups: Mapping[str, list[Policy]]
) -> pd.DataFrame:
    """Each policy found, what other policies have, and what the searches have in common."""
    others = {"published for CIFAR-10": CIFAR10, "published for SVHN": SVHN}
    rows = []
    for name, policy in {**found, **others}.items():
        agreement = agreement_with(IMAGENET, [policy], _ops(run) if name in found else PAPER_OPS)
        share = f"{100 * agreement.share:.0f}"
        rows.append((name, agreement.mean, _range(agreement), f"{agreement.p:.2g}", share))
    for method, policies in groups.items():
        if len(policies) > 1:
            between = agreement_between(policies, _ops(run))
            name = f"between searches by {method}"
            rows.append((name, between.mean, _range(between), f"{between.p:.2g}", ""))
    columns = ["policy", "agreement", "chance (95 %)", "p", "as if published (%)"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(agreement=tables.numbers(table["agreement"]))


def _range(agreement: Agreement | Between) -> str:
    low, high = agreement.chance
    return f"{low:.2f} … {high:.2f}"


def _operations(run: Run, groups: Mapping[str, list[Policy]]) -> pd.DataFrame:
    everyone = {**groups, "published": [IMAGENET]}
    usage = {name: policy_statistics(policies).operations for name, policies in everyone.items()}
    order = usage["published"].sort_values(ascending=False, kind="stable").index
    size = run.manifest.shape[1:] if run.manifest else (32, 32)
    columns = {"operation": list(order)}
    for name, policies in everyone.items():
        columns[f"{name} (%)"] = [tables.number(100 * usage[name][op], 0) for op in order]
        columns[f"strength, {name}"] = [_strength(policies, op, size) for op in order]
    return pd.DataFrame(columns)


def _strength(policies: list[Policy], name: str, size: tuple[int, ...]) -> str:
    """The mean magnitude of an operation where it is applied, in its unit; "" where it has none."""
    applied = [
        (probability, magnitude / (policy.bins - 1))
        for policy in policies
        for sub in policy
        for op, probability, magnitude in sub
        if op == name and magnitude is not None and probability > 0
    ]
    if not applied:
        return ""
    weights, fractions = zip(*applied, strict=True)
    mean = float(np.average(fractions, weights=weights))
    return written(name, get_convention("paper").parameter_at(name, mean, False, *size)).lstrip("+")


def _traits(table: pd.DataFrame) -> pd.DataFrame:
    percent = {name: [f"{100 * value:.0f}" for value in table[name]] for name in ("found", "known")}
    chance = [
        f"{100 * a:.0f} … {100 * b:.0f}" for a, b in zip(table["low"], table["high"], strict=True)
    ]
    return pd.DataFrame(
        {
            "trait": table["trait"],
            "found (%)": percent["found"],
            "published (%)": percent["known"],
            "chance (%)": chance,
            "p (Holm)": [f"{p:.2g}" for p in table["p_holm"]],
            "p, published": [f"{p:.2g}" for p in table["p_known"]],
        }
    )


def _accuracies(stages: Mapping[str, Run], found: Iterable[str]) -> Section:
    """Test accuracy under every arm, all comparisons side by side; means over a method's searches.

    The search is the unit there: their scatter is not that of children.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, title in COMPARISONS.items():
        comparison = comparison_so_far(stages[name]) if name in stages else None
        if comparison is None:
            continue
        means = comparison.table.set_index("arm")["mean"]
        cells = dict(
            zip(
                means.index,
                (
                    f"{tables.number(row.mean)} {tables.interval(row.low, row.high)}"
                    for row in comparison.table[["mean", "low", "high"]].itertuples()
                ),
                strict=True,
            )
        )
        for method, kind in KINDS.items():
            arms = [f"{each}/{POLICY_NAME}" for each in found if each.split("-")[0] == kind]
            values = means.reindex(arms).dropna()
            if len(values) > 1:
                spread = tables.number(values.std(ddof=1))
                cells[f"mean of {len(values)} searches by {method}"] = (
                    f"{tables.number(values.mean())} (sd {spread})"
                )
        for arm, cell in cells.items():
            rows.setdefault(arm, {})[title] = cell
    if not rows:
        return section("Accuracy under every policy")
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    note = (
        "Test accuracy in %, with 95 % intervals over children; of several searches their mean and "
        "the standard deviation between them. What was searched favours what was found there."
    )
    shown = frame.rename_axis("policy").reset_index()
    return section("Accuracy under every policy", Table(shown, note))


def _recipe(run: Run) -> Section:
    """What the paper did, what was done here, and why, as the run says itself."""
    title, path = "The paper's search, and this one", run.directory / RECIPE_NAME
    if not path.is_file():
        return section(title)
    rows = read_json(path)
    with as_written(str(path), "must hold what the run wrote into it"):
        texts = [(r["what"], f"{r['paper']} ({r['source']})", r["ours"], r["why"]) for r in rows]
    note = "*: as quoted by later papers and the authors' code; the rest is from memory."
    return section(title, Table(pd.DataFrame(texts, columns=["", "paper", "ours", "why"]), note))


def _children(compared: Run, title: str) -> Section:
    comparison = comparison_so_far(compared)
    return section(title, *comparison_blocks(comparison), Part(report_on(compared, comparison)))
