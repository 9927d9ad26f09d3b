"""`augsearch export`: a policy in the format of another library."""

from __future__ import annotations

from pathlib import Path

from policies.errors import InputError
from policies.policy_files import PolicyFile
from search.studies.arms import load_named


def file_named(text: str) -> PolicyFile:
    """A policy file or a published policy, not one of the random transforms."""
    file = load_named(text)
    if file is None:
        raise InputError(
            "policy",
            "must be a policy file or a published policy",
            text,
            "this transform has no file, and needs none",
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
