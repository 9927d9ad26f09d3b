"""`augsearch export`: a policy in the format of another library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policies.errors import InputError
from policies.formats import to_timm, to_torchvision
from policies.policy import PolicyFile, to_json_text
from proxy_tasks.evaluators.base import check_choice
from search.studies.arms import load_named

FORMATS: dict[str, Callable[[PolicyFile], str]] = {
    "text": lambda file: file.policy.to_text(),
    "json": to_json_text,
    "torchvision": to_torchvision,
    "timm": to_timm,
}


def convert(file: PolicyFile, form: str) -> str:
    """The policy as text in one of FORMATS. Raises InputError for what that cannot express."""
    check_choice("format", form, tuple(FORMATS))
    return FORMATS[form](file)


def policy_named(text: str) -> PolicyFile:
    """A policy file or a published policy, not one of the random transforms."""
    file = load_named(text)
    if file is None:
        raise InputError(
            "policy",
            "must be a policy file or a published policy",
            text,
            "this transform draws its operations anew for every image",
        )
    return file


def new_file(text: str, suffix: str = "") -> Path:
    """The path of a file to be written; InputError when it exists or its folder does not."""
    path = Path(text)
    if suffix and path.suffix.lower() != suffix:
        raise InputError("out", f"must be a name ending in {suffix}", text, f"use {text}{suffix}")
    if path.exists():
        raise InputError("out", "must be a new file", text, "choose another name")
    if not path.parent.is_dir():
        raise InputError("out", "must lie in an existing folder", text, "create the folder first")
    return path
