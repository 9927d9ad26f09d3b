"""The arms of a comparison: what `--policy` accepts, as augmentations, and recipes beside them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policies import (
    PUBLISHED,
    Augmentation,
    OwnPipeline,
    Policy,
    RandAugment,
    SampleAware,
    TrivialAugmentWide,
    UniformAugment,
    load_policy_file,
)
from policies.augmentations import decode_augmentation, encode_augmentation
from policies.errors import InputError, check_choice, located
from policies.files import digest
from policies.imports import is_import_path, resolve
from policies.ops import PAPER_OPS
from policies.options import options_of
from policies.policy_files import PolicyFile
from policies.schedule import ScheduleTransform
from proxy_tasks import ProxyTask
from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.evaluators.registry import check_config
from proxy_tasks.manifest import Manifest
from proxy_tasks.recipe import Recipe
from proxy_tasks.run_format import MANIFEST_NAME, POLICY_NAME, PROPOSALS, SCHEDULE_NAME
from proxy_tasks.sources import printable
from proxy_tasks.trials import MAX_LINE_BYTES
from search.errors import kind_of_run
from search.spaces import PolicySpace

from .study import OpenRun

NAMES = ("none", *PUBLISHED, "trivialaugment", "uniform", "sample-aware")
FILES = f"a policy or schedule file, {', '.join(NAMES[1:])} or randaugment:N,M"
FORMS = (
    f"a policy or schedule file, {', '.join(NAMES)}, randaugment:N,M, random:K, a pipeline of your "
    "own as package.module:name or NAME=FILE,FILE,...; each may be followed by pieces of a "
    "recipe, as in none+cutmix:1.0"
)
# What `+NAME:VALUE` may set: every option of a recipe that is one number or one name.
PIECES = {o.name: o for o in options_of(Recipe) if o.type in (int, float, str)}
_WITH_PIECES = re.compile(r"(.*?)((?:\+[a-z_]+:[^+]*)+)", re.DOTALL)
# Keeps the random policies of an arm apart from everything else drawn from the same seed.
STREAM_RANDOM_ARM = 101
MOST_RANDOM = 1000


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison.

    Attributes:
        text: as the user named it. name: what reports call it.
        members: trained by turns, seed by seed; one, but for NAME=FILE,FILE,... (several searches
            by one method), whose scatter contains that between policies.
        random: instead of members: every seed has a new random policy of so many sub-policies.
        ops: that random policies are drawn from.
        recipe: options of `Recipe` that its children are trained with, over the evaluator's own.
        search: what finding a policy has cost, from the provenance of its file (mean over files).
    """

    text: str
    name: str
    members: tuple[Augmentation, ...] = ()
    random: int = 0
    search: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    ops: tuple[str, ...] = PAPER_OPS

    def augmentation(self, seed: int, index: int) -> Augmentation:
        """What is trained as the `index`-th child, whose number is `seed`."""
        if self.random:
            return random_policy(self.random, seed, self.ops)
        return self.members[index % len(self.members)]

    @property
    def scorer(self) -> str:
        """The name of its evaluator in a run; arms with the same recipe share one."""
        if not self.recipe:
            return "main"
        text = json.dumps(self.recipe, sort_keys=True)
        return "recipe-" + digest(text.encode())[:16]

    def evaluator(self, config: EvaluatorConfig) -> EvaluatorConfig:
        """`config` with the arm's recipe. Raises InputError, naming the arm, where it has none."""
        if not self.recipe:
            return config
        recipe = {**config.options.get("recipe", {}), **self.recipe}
        changed = replace(config, options={**config.options, "recipe": recipe})
        with located(f"policy {self.text}"):
            check_config(changed)
        return changed

    def to_json(self) -> dict[str, Any]:
        data = {
            "text": self.text,
            "name": self.name,
            "members": [encode_augmentation(member) for member in self.members],
            "random": self.random,
            "search": self.search,
        }
        further: dict[str, Any] = {"recipe": self.recipe} if self.recipe else {}
        if self.ops != PAPER_OPS:
            further["ops"] = list(self.ops)
        return {**data, **further}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Arm:
        """The arm that `to_json` wrote. Raises InputError for anything else."""
        try:
            members = tuple(decode_augmentation(member) for member in data["members"])
            arm = cls(
                data["text"], data["name"], members, data["random"], data["search"],
                data.get("recipe", {}), tuple(data.get("ops", PAPER_OPS)),
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise _no_arm(data) from error
        kinds = (str, str, tuple, int, dict, dict)
        parts = (arm.text, arm.name, arm.members, arm.random, arm.search, arm.recipe)
        if not all(isinstance(part, kind) for part, kind in zip(parts, kinds, strict=True)):
            raise _no_arm(data)
        if not members and not 1 <= arm.random <= MOST_RANDOM:
            raise _no_arm(data)
        return arm


def _no_arm(data: object) -> InputError:
    return InputError("arms", "must be arms as a comparison writes them", data, "restore the file")


def warn_of_files_changed(run: OpenRun, arms: Sequence[Arm]) -> None:
    """Tell of arms whose files say something else than when the run was begun, which keeps them."""
    for arm in arms if run.resumed else ():
        try:
            changed = bool(_files(arm.text)) and parse_arm(arm.text).members != arm.members
        except InputError:
            changed = True
        if changed:
            run.log.warning(
                f"{arm.name}: its file has changed since this run was begun, which goes on with "
                "what it held then; to judge what it holds now, begin another run"
            )


def parse_arm(text: str) -> Arm:
    """The arm that `text` (FORMS) means. Raises InputError."""
    plain, pieces = _pieces(text)
    if pieces:
        arm = parse_arm(plain)
        recipe = _recipe(text, pieces)
        return replace(arm, text=text, name="+".join([arm.name, *pieces]), recipe=recipe)
    if text == "none":
        return Arm(text, text, (None,))
    if (files := _members(text)) is not None:
        return _method(text, files)
    if text.startswith("random:"):
        return Arm(text, text, random=_count(text))
    if is_import_path(text) and not text.startswith("randaugment:"):
        resolve("policy", text)  # the mistakes that are seen without an image
        return Arm(text, text, (OwnPipeline(text),))
    file = load_named(text)
    if file is not None:
        return _fitting(Arm(text, _file_name(text), (file.augmentation,), search=_cost(file, text)))
    return Arm(text, text, (_transform(text),))


def _recipe(text: str, pieces: Sequence[str]) -> dict[str, Any]:
    """The options of a recipe that NAME:VALUE pieces mean; errors name the arm, `text`."""
    recipe: dict[str, Any] = {}
    for piece in pieces:
        name, _, value = piece.partition(":")
        argument = f"policy {text}: {name}"
        try:
            check_choice(argument, name, tuple(PIECES))
            if name in recipe:
                raise InputError(argument, "must be given once", piece, "drop one of the two")
            recipe[name] = PIECES[name].checked(_number(value))
        except InputError as error:
            raise InputError(argument, error.rule, error.got, error.fix) from None
    return recipe


def _number(value: str) -> int | float | str:
    """The number that a text says; the text itself where it is none."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _fitting(arm: Arm) -> Arm:
    """InputError unless its evaluations can be journalled, one a line."""
    size = len(json.dumps(encode_augmentation(arm.members[0])))
    if size > MAX_LINE_BYTES // 2:
        raise InputError(
            "policy",
            f"must be at most {MAX_LINE_BYTES // 2} bytes long, written out",
            f"{arm.text} ({size} bytes)",
            "compare one with fewer sub-policies or ranges",
        )
    return arm


def parse_arms(
    texts: Sequence[str], seeds: int, known: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Arm]:
    """All arms, with distinct names. known: arms as JSON by their text, not read in again."""
    known = known or {}
    arms = [Arm.from_json(known[text]) if text in known else parse_arm(text) for text in texts]
    names = [arm.name for arm in arms]
    for arm in arms:
        if names.count(arm.name) > 1:
            raise InputError(
                "policy",
                "must not name an arm twice",
                arm.name,
                "drop one, or give the files or their folders different names",
            )
        if arm.members and seeds % len(arm.members):
            raise InputError(
                "seeds",
                f"must be a multiple of the {len(arm.members)} files of {arm.name}",
                seeds,
                f"use {len(arm.members) * math.ceil(seeds / len(arm.members))}",
            )
    return arms


def check_pipelines(arms: Sequence[Arm], images: np.ndarray) -> None:
    """Call every pipeline of a user's own on one of the images that it is meant for.

    Args:
        images: uint8 [N, C, H, W].

    Raises:
        InputError: naming the arm, for one that fails or returns anything but such an image.
    """
    for arm in arms:
        for member in arm.members:
            if isinstance(member, OwnPipeline):
                with located(f"policy {arm.text}"):
                    member.with_generator(torch.Generator().manual_seed(0))(images[:1])


def warn_of_images_seen(run: OpenRun, arms: Sequence[Arm]) -> None:
    """Tell of arms whose search has trained or been rewarded on images of the run's test part.

    Of policy files in the folder of their run, or of its proposals; elsewhere a file tells at least
    whether the images were the same. It happens where there is no test folder: another number of
    validation images moves what is cut from train.
    """
    tested = set(run.task.manifest.parts["test"].contents)
    for arm in arms:
        unknown = f"{arm.name}: whether its search has seen test images is not known: "
        read: set[Path] = set()
        for file in _files(arm.text):
            place = _run_of(file)
            if kind_of_run(place) is None or not (place / MANIFEST_NAME).is_file():
                if _on_other_images(file, run.task):
                    run.log.warning(
                        f"{unknown}it had other images, and {file} is not in the folder of its run"
                    )
                continue
            if place in read:
                continue
            read.add(place)
            try:
                parts = Manifest.read(place / MANIFEST_NAME).parts
            except InputError as error:
                run.log.warning(f"{unknown}{error}")
                continue
            seen = tested & {*parts["train"].contents, *parts["validation"].contents}
            if seen:
                run.log.warning(
                    f"{arm.name}: {len(seen)} of the {len(tested)} test images here are among "
                    f"those that the search in {place} used, so its accuracy flatters; use the "
                    "numbers of images and the task seed of the search, or a test folder"
                )


def _on_other_images(policy: Path, task: ProxyTask) -> bool:
    """Whether a file says that it was found on another draw of the task's images."""
    try:
        found = load_policy_file(policy).provenance or {}
    except InputError:  # another than the arm was made of: `warn_of_files_changed` tells
        return False
    return found.get("task") == task.name and found.get("manifest_hash") != task.manifest_hash


def _run_of(policy: Path) -> Path:
    """Where the run is that a policy file may be of."""
    return policy.parent.parent if policy.parent.name == PROPOSALS else policy.parent


def _pieces(text: str) -> tuple[str, list[str]]:
    """An arm without the pieces of a recipe, and these."""
    found = _WITH_PIECES.fullmatch(text)
    if found is None or os.path.exists(text):
        return text, []
    return found[1], found[2][1:].split("+")


def _members(text: str) -> list[str] | None:
    """The files of NAME=FILE,FILE,...; None for an arm of another form."""
    if "=" not in text or os.path.exists(text):
        return None
    return [file for file in text.partition("=")[2].split(",") if file]


def _files(text: str) -> list[Path]:
    """The files that an arm names, of those that are there."""
    plain, _ = _pieces(text)
    named = [plain] if (several := _members(plain)) is None else several
    return [Path(each) for each in named if each not in NAMES and os.path.isfile(each)]


def file_named(text: str) -> PolicyFile:
    """What `text` names: a published policy, a file, or a transform as the file that it would be.

    Raises InputError for what names none of these.
    """
    if text == "none":
        raise InputError("policy", f"must be {FILES}", text, "name one that augments")
    return load_named(text, FILES) or PolicyFile(_transform(text))


def load_named(text: str, forms: str = FORMS) -> PolicyFile | None:
    """What `text` names, a published policy or a file; None for a transform's name.

    forms: what is legal, for the error.
    """
    if text in PUBLISHED:
        return PolicyFile(PUBLISHED[text])
    if text in NAMES or text.startswith("randaugment:"):
        return None
    path = Path(text)
    if not os.path.isfile(text) and path.suffix not in (".json", ".txt"):
        inside = [path / name for name in (POLICY_NAME, SCHEDULE_NAME)]
        inside = [file for file in inside if os.path.isfile(file)]
        fix = f"name {inside[0]}" if inside else "check the spelling or the path"
        raise InputError("policy", f"must be {forms}", text, fix)
    return load_policy_file(path)


def random_policy(subpolicies: int, seed: int, ops: tuple[str, ...] = PAPER_OPS) -> Policy:
    """A uniform policy of AutoAugment's space, of `ops`; the same for the same arguments."""
    rng = np.random.default_rng([STREAM_RANDOM_ARM, subpolicies, seed])
    return PolicySpace(num_subpolicies=subpolicies, ops=ops).sample(rng)


def _method(text: str, files: Sequence[str]) -> Arm:
    name = text.partition("=")[0]
    arms = [parse_arm(file) for file in files]
    if not name or not arms or any(arm.random for arm in arms):
        raise InputError("policy", "must be NAME=FILE,FILE,...", text, "e.g. ppo=a.json,b.json")
    members = tuple(arm.members[0] for arm in arms)
    keys = dict.fromkeys(key for arm in arms for key in arm.search)
    costs = {key: sum(arm.search.get(key, 0) for arm in arms) / len(arms) for key in keys}
    return Arm(text, printable(name), members, search=costs)


def _count(text: str) -> int:
    match = re.fullmatch(r"random:(\d{1,4})", text)
    if not match or not 1 <= int(match[1]) <= MOST_RANDOM:
        raise InputError(
            "policy",
            f"must be random:K with 1 to {MOST_RANDOM} sub-policies",
            text,
            "e.g. random:25",
        )
    return int(match[1])


def _transform(text: str) -> Augmentation:
    if text == "trivialaugment":
        return TrivialAugmentWide()
    if text == "uniform":
        return UniformAugment()
    if text == "sample-aware":
        return SampleAware()
    match = re.fullmatch(r"randaugment:(\d{1,3}),(\d{1,3})", text)
    if not match:
        raise InputError(
            "policy", "must be randaugment:N,M with whole numbers", text, "e.g. randaugment:2,9"
        )
    with located(f"policy {text}"):
        return RandAugment(n=int(match[1]), m=int(match[2]))


def _file_name(text: str) -> str:
    """What tells files apart in a table: the folder too, as every run calls its file so."""
    path = Path(text)
    generic = path.stem in ("policy", "schedule")
    return printable(f"{path.parent.resolve().name}/{path.name}" if generic else path.name)


def _cost(file: PolicyFile, text: str) -> dict[str, Any]:
    """Evaluations and image passes of a search, as far as its file tells; of PBA, children."""
    provenance = file.provenance or {}
    counted = ("evaluations", "finished")
    if isinstance(file.augmentation, ScheduleTransform):
        counted = ("pba", "population")
    found = {}
    for name, (section, entry) in (
        ("evaluations", counted), ("image_passes", ("cost", "image_passes")),
    ):  # fmt: skip
        part = provenance.get(section)
        value = part.get(entry, 0) if isinstance(part, dict) else 0
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 <= value < 2**53:
            raise InputError(
                f"{text}: provenance.{section}.{entry}",
                "must be a whole number, at least 0",
                value,
                "mend the file, or take `provenance` out of it",
            )
        found[name] = value
    return found
