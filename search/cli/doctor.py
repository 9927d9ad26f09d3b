"""Is everything in place? One check after the other, none of which changes anything."""

from __future__ import annotations

import fcntl
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from policies.errors import InputError
from search.runs.environment import package_versions

MINIMUM_PYTHON = (3, 11)
# Everything that setup.cfg asks for.
MODULES = (
    "click", "jinja2", "lazy_loader", "matplotlib", "numba", "numpy", "optuna", "pandas", "PIL",
    "pyarrow", "ray", "rich", "scipy", "sklearn", "sqlalchemy", "tabulate",
    "tensorboardX", "torch", "torchvision", "tqdm",
)  # fmt: skip
# Below this, Ray moves shared task data from memory to the disk, and small disks fill up.
FEW_BYTES = 2**29


class Check(NamedTuple):
    """name: what was looked at. ok: whether it will do. detail: what was found, or the fix."""

    name: str
    ok: bool
    detail: str


def doctor(drawn: Mapping[str, Any] | None = None, out: str | Path = ".") -> list[Check]:
    """Check Python, packages, kernels, device, Ray, Optuna, the folder for runs, and the data.

    Args:
        drawn: options of a search that decide its images (`task`, `data`, `train_images`, ...):
            they are drawn as the search would draw them. With `data` alone it is only seen
            whether an image there can be read.
        out: folder that runs will be created in.
    """
    drawn = drawn or {}
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", _packages),
        ("kernels", _kernels),
        ("device", _device),
        ("optuna", _optuna),
        ("ray", _ray),
        ("memory", _shared_memory),
        ("folder", lambda: _folder(Path(out))),
    ]
    if drawn.keys() == {"data"}:
        checks.append(("data", lambda: _images(Path(drawn["data"]))))
    elif drawn:
        checks.append(("data", lambda: _task(drawn)))
    return [_checked(name, check) for name, check in checks]


class Unwell(Exception):
    """A check that found something wrong; says what and what to do."""


def _checked(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except Exception as error:  # whatever is broken is the finding
        text = str(error) if isinstance(error, (Unwell, InputError)) else repr(error)
        return Check(name, False, " ".join(text.split()))


def _python() -> str:
    if sys.version_info < MINIMUM_PYTHON:
        raise Unwell(f"{platform.python_version()} is too old; use 3.11 or newer")
    return f"{platform.python_version()} at {sys.executable}"


def _packages() -> str:
    broken = []
    for module in MODULES:
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken installation can raise anything
            broken.append(f"{module} ({type(error).__name__}: {error})")
    if broken:
        raise Unwell(f"cannot import {', '.join(broken)}; reinstall with `make venv`")
    versions = package_versions()
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _kernels() -> str:
    """A tiny image through compiled kernels and through Pillow: every byte must agree."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    from policies import Policy, PolicyTransform

    # Of low contrast and enough pixels, so that no operation leaves it as it is.
    pixels = np.random.default_rng(0).integers(60, 140, (21, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    # Operation and magnitude -> what Pillow may answer; the sign of a rotation is random.
    expected = {
        ("Invert", None): [ImageOps.invert(image)],
        ("AutoContrast", None): [ImageOps.autocontrast(image)],
        ("Equalize", None): [ImageOps.equalize(image)],
        ("Posterize", 9): [ImageOps.posterize(image, 4)],
        ("Rotate", 9): [image.rotate(30.0), image.rotate(-30.0)],
    }
    for (name, magnitude), answers in expected.items():
        transform = PolicyTransform(Policy([[(name, 1.0, magnitude)]]))
        batch = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
        found = transform(batch)[0].numpy().transpose(1, 2, 0)
        if not any(np.array_equal(found, np.asarray(answer)) for answer in answers):
            raise Unwell(f"{name} differs from Pillow; reinstall numba, torch and pillow")
    return f"{len(expected)} operations equal Pillow to the last bit"


def _device() -> str:
    import torch

    from search.engine.resources import cores

    usable = f"{cores()} CPU cores"
    if not torch.cuda.is_available():
        return f"{usable}, no CUDA device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    torch.ones(1, device="cuda").add_(1).item()  # a driver that is too old fails here
    return f"{', '.join(names)}; {usable}"


def _optuna() -> str:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.tell(study.ask(), 0.0)
    return f"optuna {optuna.__version__} asks and tells"


def _ray() -> str:
    """Starts a worker as a search would, and has it answer."""
    from search.engine import cluster, remote
    from search.engine.pool import folders
    from search.engine.resources import PoolConfig

    started = cluster.connect(PoolConfig())
    try:
        import ray

        ray.cloudpickle.register_pickle_by_value(remote)
        worker: Any = ray.remote(remote.WorkerActor).remote({}, *folders())
        where = ray.get(worker.where.remote(), timeout=120)
        place = "a worker of its own" if started else "the Ray that is running"
        return f"ray {ray.__version__}: {place} answered ({where})"
    finally:
        if started:
            cluster.disconnect()


def _shared_memory() -> str:
    place = Path("/dev/shm")
    if not place.is_dir():
        return "no /dev/shm; Ray uses the temporary folder"
    free = shutil.disk_usage(place).free
    if free < FEW_BYTES:
        raise Unwell(
            f"/dev/shm has {free / 2**20:.0f} MB; give it {FEW_BYTES / 2**20:.0f} MB or more "
            "(docker run --shm-size=2g)"
        )
    return f"{free / 2**30:.1f} GB of shared memory"


def _folder(folder: Path) -> str:
    """The journal needs fsync, atomic renames and locks; network folders may lack the last."""
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryDirectory(prefix=".augsearch-doctor-", dir=folder) as temporary:
        path = Path(temporary) / "a"
        with open(path, "wb") as stream:
            stream.write(b"x" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(path, Path(temporary) / "b")
    free = shutil.disk_usage(folder).free
    return f"{folder.resolve()} is writable, {free / 2**30:.1f} GB free"


def _task(drawn: Mapping[str, Any]) -> str:
    from search.studies.config import Config
    from search.studies.study import task_of

    found = task_of(Config.of("search", **drawn))
    channels, height, width = found.train.images.shape[1:]
    counted = (
        f"{found.name}: {len(found.train)} training, {len(found.validation)} validation and "
        f"{len(found.test)} test images of {found.num_classes} classes, each the middle of a "
        f"picture as {channels} × {height} × {width} (--resolution), "
        f"{'' if found.flip else 'never '}mirrored at random in training (--flip)"
    )
    return "; ".join((counted, *_uneven(found), *found.notes))


def _uneven(task: Any) -> list[str]:
    """Parts that have more of one class than of another: what is measured there is weighted so."""
    import numpy as np

    from proxy_tasks.names import PARTS

    said = []
    for name in PARTS:
        counts = np.bincount(getattr(task, name).labels, minlength=task.num_classes)
        if counts.min() < counts.max():
            said.append(f"{name} has {counts.min()} to {counts.max()} images of a class")
    return said


def _images(data: Path) -> str:
    """An image below a folder must decode, as a search would decode it."""
    from policies.images import Unreadable, decode
    from proxy_tasks.images import read_bytes
    from proxy_tasks.medmnist import open_arrays
    from proxy_tasks.sources import ignored_text, list_images

    if data.suffix == ".npz":
        pools = open_arrays(data)
        counts = ", ".join(
            f"{len(source.labels)} of {part}" for part, source in pools.sources.items()
        )
        return f"{data} is readable: {counts}; name the task too to have them drawn"
    if not data.is_dir():
        raise Unwell(f"{data} is no folder")
    found = list_images(data, ".")
    if not found.files:
        ignored = f"; ignored: {ignored_text(found.ignored)}" if found.ignored else ""
        raise Unwell(f"no image file below {data}{ignored}")
    path = data / found.files[0]
    try:
        image = decode(read_bytes(path))
    except Unreadable as error:
        raise Unwell(f"{path}: {error}") from None
    return (
        f"{path} is a readable {image.mode} image of {image.size}, the first of "
        f"{len(found.files)}; name the task too to have them drawn"
    )
