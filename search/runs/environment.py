"""What a run was made with: versions and machine, for environment.json and for comparisons."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

from policies.errors import InputError
from proxy_tasks.run_format import ENVIRONMENT_NAME

# Versions of these can change a result.
PACKAGES = (
    "augsearch",
    "torch",
    "torchvision",
    "numpy",
    "numba",
    "pillow",
    "scipy",
    "optuna",
    "ray",
)
SOURCES = ("policies", "proxy_tasks", "search", "analysis")


def package_versions() -> dict[str, str | None]:
    """Installed versions by distribution name; None when absent."""
    return {name: _version(name) for name in PACKAGES}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def source_digest() -> str:
    """16 hex digits of the toolkit's source: of a checkout the version alone tells too little."""
    sha256 = hashlib.sha256()
    for package in SOURCES:
        spec = importlib.util.find_spec(package)  # which imports nothing
        for folder in map(Path, spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(folder.rglob("*.py")):
                content = path.read_bytes()
                name = f"{package}/{path.relative_to(folder).as_posix()}"
                sha256.update(f"{name} {len(content)}\n".encode() + content)
    return sha256.hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Python, packages, platform, processors and GPUs of the driver, as plain JSON data."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": package_versions(),
        "source": source_digest(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
    }


def _processor() -> str:
    """The processor's name where Linux tells it, else what Python knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def differences(then: Any, now: dict[str, Any]) -> list[str]:
    """What changed between two environments that can change a result, as "name old -> new".

    Raises InputError when `then`, read from a file, is none.
    """
    if not isinstance(then, dict) or not isinstance(then.get("packages"), dict):
        raise InputError(
            ENVIRONMENT_NAME,
            "must list the versions of packages",
            type(then).__name__,
            "restore it from a copy",
        )
    old = {"python": then.get("python"), **then["packages"], "source": then.get("source")}
    new = {"python": now["python"], **now["packages"], "source": now.get("source")}
    if old["source"] is None:  # as earlier versions wrote it
        del new["source"]
    return [f"{name} {old.get(name)} -> {new[name]}" for name in new if old.get(name) != new[name]]
