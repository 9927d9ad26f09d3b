"""The arms of a comparison: what `--policy` accepts, as augmentations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from policies import (
    PUBLISHED,
    Policy,
    RandAugment,
    TrivialAugmentWide,
    UniformAugment,
    load_policy_file,
)
from policies.augmentations import encode_augmentation
from policies.errors import InputError
from policies.policy_files import PolicyFile
from policies.schedule import ScheduleTransform
from proxy_tasks import Augmentation
from search.spaces import PolicySpace

NAMES = ("none", *PUBLISHED, "trivialaugment", "uniform")
FORMS = (
    f"a policy or schedule file, {', '.join(NAMES)}, randaugment:N,M, random:K or "
    "NAME=FILE,FILE,..."
)
# Keeps the random policies of an arm apart from everything else drawn from the same seed.
STREAM_RANDOM_ARM = 101


@dataclass(frozen=True)
class Arm:
    """One arm: `augmentations[i]` is trained with the i-th seed.

    All are the same but for arms that stand for a way of making policies: random:K has a new
    random policy for every seed, NAME=FILE,FILE,... takes the files by turns (several searches by
    one method). Their scatter contains that between policies. `search` is what finding a policy
    has cost, from the provenance of its file (the mean over files).
    """

    name: str
    augmentations: tuple[Augmentation, ...]
    search: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        encoded = [encode_augmentation(a) for a in self.augmentations]
        same = all(policy == encoded[0] for policy in encoded)
        return {"name": self.name, "policy": encoded[0] if same else encoded, "search": self.search}


def parse_arm(text: str, seeds: Sequence[int]) -> Arm:
    """The arm that `text` (FORMS) means. Raises InputError."""
    if text == "none":
        return Arm(text, (None,) * len(seeds))
    if "=" in text and not Path(text).exists():
        return _method(text, seeds)
    if text.startswith("random:"):
        count = _count(text)
        return Arm(text, tuple(random_policy(count, seed) for seed in seeds))
    file = load_named(text)
    if file is not None:
        return Arm(_file_name(text), (file.augmentation,) * len(seeds), _cost(file))
    return Arm(text, (_transform(text),) * len(seeds))


def parse_arms(texts: Sequence[str], seeds: Sequence[int]) -> list[Arm]:
    """All arms, with distinct names."""
    if not texts:
        raise InputError("policy", f"must name at least one arm ({FORMS})", (), "pass --policy")
    arms = [parse_arm(text, seeds) for text in texts]
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                "policy",
                "must not name an arm twice",
                name,
                "drop one, or give the files or their folders different names",
            )
    return arms


def load_named(text: str) -> PolicyFile | None:
    """What `text` names, a published policy or a file; None for a transform's name."""
    if text in PUBLISHED:
        return PolicyFile(PUBLISHED[text])
    if text in NAMES or text.startswith("randaugment:"):
        return None
    path = Path(text)
    if not path.is_file() and path.suffix not in (".json", ".txt"):
        raise InputError("policy", f"must be {FORMS}", text, "check the spelling or the path")
    return load_policy_file(path)


def random_policy(subpolicies: int, seed: int) -> Policy:
    """A uniform policy of AutoAugment's space, the same for the same arguments."""
    rng = np.random.default_rng([STREAM_RANDOM_ARM, subpolicies, seed])
    return PolicySpace(num_subpolicies=subpolicies).sample(rng)


def _method(text: str, seeds: Sequence[int]) -> Arm:
    name, _, files = text.partition("=")
    members = [parse_arm(file, seeds) for file in files.split(",") if file]
    if not name or not members:
        raise InputError("policy", "must be NAME=FILE,FILE,...", text, "e.g. ppo=a.json,b.json")
    if len(seeds) % len(members):
        raise InputError(
            "seeds",
            f"must be a multiple of the {len(members)} files of {name}",
            len(seeds),
            f"use {len(members) * math.ceil(len(seeds) / len(members))}",
        )
    turns = [members[place % len(members)] for place in range(len(seeds))]
    costs = {key: sum(m.search.get(key, 0) for m in members) / len(members) for key in _cost(None)}
    return Arm(name, tuple(arm.augmentations[i] for i, arm in enumerate(turns)), costs)


def _count(text: str) -> int:
    match = re.fullmatch(r"random:(\d{1,4})", text)
    if not match or not 1 <= int(match[1]) <= 1000:
        raise InputError(
            "policy", "must be random:K with 1 to 1000 sub-policies", text, "e.g. random:25"
        )
    return int(match[1])


def _transform(text: str) -> Augmentation:
    if text == "trivialaugment":
        return TrivialAugmentWide()
    if text == "uniform":
        return UniformAugment()
    match = re.fullmatch(r"randaugment:(\d{1,3}),(\d{1,3})", text)
    if not match:
        raise InputError(
            "policy", "must be randaugment:N,M with whole numbers", text, "e.g. randaugment:2,9"
        )
    return RandAugment(n=int(match[1]), m=int(match[2]))


def _file_name(text: str) -> str:
    """What tells files apart in a table: the folder too, as every run calls its file so."""
    path = Path(text)
    generic = path.stem in ("policy", "schedule")
    return f"{path.parent.resolve().name}/{path.name}" if generic else path.name


def _cost(file: PolicyFile | None) -> dict[str, Any]:
    """Evaluations and image passes of a search, as far as its file tells; of PBA, children."""
    provenance = (file.provenance if file else None) or {}
    counted, key = provenance.get("evaluations"), "finished"
    if file and isinstance(file.augmentation, ScheduleTransform):
        counted, key = provenance.get("pba"), "population"
    cost = provenance.get("cost")
    return {
        "evaluations": counted.get(key, 0) if isinstance(counted, dict) else 0,
        "image_passes": cost.get("image_passes", 0) if isinstance(cost, dict) else 0,
    }
