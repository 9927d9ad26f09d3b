"""The report of `augsearch rederive`: was the published ImageNet policy found again?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from policies import CIFAR10, IMAGENET, PAPER_OPS, SVHN, Policy, get_convention
from policies.errors import as_written
from policies.files import read_json
from proxy_tasks.run_format import (
    COMPARE_CHILD,
    CONFIG_NAME,
    CONTROLLER,
    FINAL,
    GRID,
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
    agreement_power,
    agreement_with,
    policy_agreement,
)
from .asked import evaluations
from .compare import comparison_blocks, comparison_so_far, report_on
from .composition import policy_statistics
from .document import Part, Picture, Report, Section, Sentences, Table, Text, section
from .gallery import written
from .randaugment import grid_report
from .runs import Run, load_run
from .search import policy_section, search_report
from .traits import trait_table
from .worth import COMPARISONS, CONTROLLERS, KINDS, accuracies, differences, gains, worth

REFERENCES = {"CIFAR-10": CIFAR10, "SVHN": SVHN}
FEW = 3  # operations that a sentence names as used most
WORDS = {
    "re-derived": "The published policy was re-derived.",
    "partly": "The published policy was re-derived in part: what was found agrees with it beyond "
    "chance, and is another policy.",
    "not": "The published policy was not re-derived.",
}
CANNOT_SAY = (
    "The published policy is itself the result of one search: another one by its authors would "
    "have ended in another policy, and nobody knows how far the two would agree. Children smaller "
    "than the paper's may want another policy, so what is not found again may be due to the proxy "
    "as well as to the search. Signs of geometric operations and of enhancements are drawn, so "
    "their direction is not searched."
)


def rederivation_report(run: Run) -> Report:
    """The report of a re-derivation, finished or not."""
    stages = _stages(run)
    searches = {name: each for name, each in stages.items() if name not in (*COMPARISONS, GRID)}
    state = Text(_state(run, searches, stages))
    found = {name: search.policy for name, search in searches.items() if search.policy}
    if found:
        groups = _groups(found)
        method, first = next(iter(groups.items()))
        traits = trait_table(IMAGENET, first, _ops(run))
        comparisons = {
            name: comparison
            for name in COMPARISONS
            if name in stages and (comparison := comparison_so_far(stages[name])) is not None
        }
        won = {name: gains(comparison, found) for name, comparison in comparisons.items()}
        parts = [
            section("", state, *_verdict(run, groups, traits), worth(won, stages)),
            _agreement(run, found, groups),
            section("Traits of the published policy", Table(_traits(traits, method), _TRAIT_NOTE)),
            accuracies(comparisons, found),
            differences(won),
        ]
        parts += [_found(searches[name], name) for name in found]
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
        whole = search.with_stages(FINAL)
        told = Text(f"{len(whole.trials)} evaluations, its final choice included.")
        parts += [section(f"The run {name}", told, Part(search_report(search)))]
        parts += [sections.cost_section(whole)]
    parts += [_recipe(run), sections.data_section(run), sections.how_section(run)]
    return Report(
        title="The ImageNet policy, searched anew",
        run=run,
        name="rederive.md",
        sections=tuple(parts),
    )


def _found(search: Run, name: str) -> Section:
    """The policy of a search, and what it was chosen as."""
    part = _own(policy_section(search, f"The policy of {name}"), name)
    chosen = (search.provenance or {}).get("selection")
    told = (Text(f"The finalist that was chosen: {chosen}."),) if chosen else ()
    return replace(part, blocks=(*told, *part.blocks))


def _own(part: Section, folder: str) -> Section:
    """The section with pictures that are called by the folder of their run too."""
    blocks = (
        replace(block, name=f"{folder}-{block.name}") if isinstance(block, Picture) else block
        for block in part.blocks
    )
    return replace(part, blocks=tuple(blocks))


def _state(run: Run, searches: Mapping[str, Run], stages: Mapping[str, Run]) -> str:
    """How far the searches are: in evaluations, or in searches where a budget counts."""
    if run.option("settings", "budget"):
        done, asked = sum(each.chosen is not None for each in searches.values()), _searches(run)
        told = sections.state(done, len(asked), "searches")
    else:
        total = run.number("settings", "evaluations") * len(_searches(run))
        done = sum(len(each.trials) for each in searches.values())
        told = sections.state(done, total, "evaluations of the searches")
    missing = [name for name in _judges(run) if not _ended(stages.get(name))]
    return f"{told} Still to come: {', '.join(missing)}." if missing else told


def _judges(run: Run) -> list[str]:
    """The folders of what is to judge the policies found."""
    grid = [GRID] if run.number("settings", "grid") else []
    if not run.number("settings", "seeds"):
        return grid
    child = run.option("settings", "other_child", "none")
    return [*grid, *(name for name in COMPARISONS if name != COMPARE_CHILD or child != "none")]


def _ended(stage: Run | None) -> bool:
    if stage is None or stage.kind != "compare":
        return stage is not None and stage.chosen is not None
    return 0 < evaluations(stage) <= len(stage.trials)


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
    head, lines = "No search by the controller has ended yet: there is no verdict.", []
    for method, policies in groups.items():
        agreement = agreement_with(IMAGENET, policies, _ops(run))
        near = _near(policies)
        if method == CONTROLLERS:
            head = WORDS[agreement.verdict]
            nearest = max(near, key=lambda name: near[name])
            if agreement.verdict != "not" and near[nearest] >= agreement.mean:
                head += f" It is at least as much like the policy published for {nearest}."
            if len(policies) < run.number("settings", "searches"):
                head = f"So far: {head}"
        lines += [_sentence(run, method, policies, agreement, near), _used(method, policies)]
        if len(policies) > 1:
            lines.append(_together(run, method, policies))
    theirs = traits[traits["p_known"] <= ALPHA]
    holding = theirs.loc[theirs["p_holm"] <= ALPHA, "trait"]
    lines.append(
        f"Of {len(traits)} traits that are said of the published policy it shows {len(theirs)} "
        "more than random policies do (p not corrected); of these were found again, by "
        f"{next(iter(groups))}: " + (", ".join(holding) if len(holding) else "none") + "."
    )
    lines.append(CANNOT_SAY)
    return [Text(head), Sentences(tuple(lines))]


def _near(policies: list[Policy]) -> dict[str, float]:
    """Mean agreement with the policies that were published for other data."""
    return {
        name: float(np.mean([policy_agreement(policy, other) for policy in policies]))
        for name, other in REFERENCES.items()
    }


def _sentence(
    run: Run, method: str, policies: list[Policy], agreement: Agreement, near: dict[str, float]
) -> str:
    low, high = agreement.chance
    quarter, half = agreement_power(IMAGENET, policies, _ops(run))
    many = f"{len(policies)} searches" if len(policies) > 1 else "one search"
    others = " and ".join(f"{name}'s {value:.2f}" for name, value in near.items())
    return (
        f"{method} ({many}): agreement {agreement.mean:.2f} with the published policy, {low:.2f} "
        f"to {high:.2f} (95 %) with other operations in their places, p "
        f"{tables.p_clause(agreement.p)}; with {others}. A policy of which "
        f"{100 * agreement.share:.0f} % of the sub-policies are published and the rest random "
        f"agrees as much. A quarter would be told from chance in {100 * quarter.told:.0f} % of "
        f"cases; a half in {100 * half.told:.0f} %, and called re-derived in "
        f"{100 * half.called:.0f} %."
    )


def _used(method: str, policies: list[Policy]) -> str:
    """What is used most, and which of it the published policy does not use at all."""
    ours, theirs = _usage(policies), _usage([IMAGENET])
    most, published = (
        usage.sort_values(ascending=False, kind="stable").head(FEW) for usage in (ours, theirs)
    )
    new = [name for name in most.index if theirs[name] < 0.005]
    never = f"; {' and '.join(new)} the published policy hardly ever uses" if new else ""
    return f"{method} uses most {_shares(most)}, the published policy {_shares(published)}{never}."


def _shares(usage: pd.Series) -> str:
    return ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in usage.items())


def _usage(policies: list[Policy]) -> pd.Series:
    """Mean over policies of the shares in which operations are applied."""
    each = [policy_statistics([policy]).operations for policy in policies]
    return pd.concat(each, axis=1).mean(axis=1)


def _together(run: Run, method: str, policies: list[Policy]) -> str:
    between = agreement_between(policies, _ops(run))
    answer = "" if between.p <= ALPHA else (
        ": they have no answer in common, so whether it would be the paper's cannot be asked"
    )  # fmt: skip
    return (
        f"Searches by {method} agree {between.mean:.2f} among themselves (chance "
        f"{between.chance[0]:.2f} to {between.chance[1]:.2f}, p {tables.p_clause(between.p)})"
        f"{answer}."
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
        "in which strength, and which operations stand together; 1 is the same policy. Chance and "
        "p: of the same policies with the names of their operations exchanged at random, by the "
        "same exchange in all searches of a method; between searches, by one of its own in each. "
        "In this table p is not corrected. Re-derived: p at most 0.01 over the searches by the "
        f"controller, and the agreement of a policy that is {100 * AGAIN:.0f} % published. In "
        "part: p at most 0.05."
    )
    return section(
        "Agreement with the published policy",
        Table(_agreements(run, found, groups), note),
        Picture(
            "rederive",
            "operations, probabilities and magnitudes",
            lambda path: plots.policy_histograms({**shown, **theirs}, path),
        ),
        Table(
            _operations(run, groups),
            "Shares count how often an operation is applied; means over policies.",
        ),
    )


_TRAIT_NOTE = (
    "Mean shares of what is applied; chance: 95 % of as many random policies of the same form; p "
    "one-sided, corrected by Holm over the traits. The last column, not corrected, is of the "
    "published policy alone: where it is large, that policy does not show the trait more than a "
    "random one of its size may, and none can be asked of others."
)


def _agreements(
    run: Run, found: Mapping[str, Policy], groups: Mapping[str, list[Policy]]
) -> pd.DataFrame:
    """Each policy found, what other policies have, and what the searches have in common."""
    others = {f"published for {name}": policy for name, policy in REFERENCES.items()}
    rows = []
    for name, policy in {**found, **others}.items():
        agreement = agreement_with(IMAGENET, [policy], _ops(run) if name in found else PAPER_OPS)
        near = [tables.number(value) for value in _near([policy]).values()]
        share = f"{100 * agreement.share:.0f}"
        p = tables.p_value(agreement.p)
        rows.append((name, tables.number(agreement.mean), _range(agreement), p, share, *near))
    for method, policies in groups.items():
        if len(policies) > 1:
            between = agreement_between(policies, _ops(run))
            name, p = f"between searches by {method}", tables.p_value(between.p)
            blank = [""] * (1 + len(REFERENCES))
            rows.append((name, tables.number(between.mean), _range(between), p, *blank))
    columns = ["policy", "agreement", "chance (95 %)", "p", "as if published (%)"]
    columns += [f"with {name}'s" for name in REFERENCES]
    return pd.DataFrame(rows, columns=columns)


def _range(agreement: Agreement | Between) -> str:
    low, high = agreement.chance
    return f"{low:.2f} … {high:.2f}"


def _operations(run: Run, groups: Mapping[str, list[Policy]]) -> pd.DataFrame:
    everyone = {**groups, "published": [IMAGENET]}
    usage = {name: _usage(policies) for name, policies in everyone.items()}
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
        (probability / len(policy), magnitude / (policy.bins - 1))
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


def _traits(table: pd.DataFrame, method: str) -> pd.DataFrame:
    percent = {name: [f"{100 * value:.0f}" for value in table[name]] for name in ("found", "known")}
    chance = [
        f"{100 * a:.0f} … {100 * b:.0f}" for a, b in zip(table["low"], table["high"], strict=True)
    ]
    return pd.DataFrame(
        {
            "trait": table["trait"],
            f"{method} (%)": percent["found"],
            "published (%)": percent["known"],
            "chance (%)": chance,
            "p (Holm)": table["p_holm"].map(tables.p_value),
            "p, published": table["p_known"].map(tables.p_value),
        }
    )


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
    note = Text("Search cost is in image passes of these children, whatever one of them costs.")
    blocks = comparison_blocks(comparison)
    return section(title, *blocks, note, Part(report_on(compared, comparison)))
