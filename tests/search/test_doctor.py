"""The doctor finds what is well, and what is not."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from policies.errors import InputError
from proxy_tasks import get_task
from search import Config, run_search
from search.cli import doctor as module
from search.cli.doctor import doctor
from search.cli.main import main
from search.studies import study
from tests.proxy_tasks.trees import write_tree


@pytest.fixture
def quick(monkeypatch):
    """Without starting Ray, which test_pool does often enough."""
    monkeypatch.setattr(module, "_ray", lambda: "skipped")


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_healthy_installation(quick, tmp_path):
    checks = doctor(out=tmp_path / "runs" / "new")
    assert [c.name for c in checks] == [
        "python",
        "packages",
        "kernels",
        "device",
        "optuna",
        "ray",
        "memory",
        "folder",
    ]
    assert all(check.ok for check in checks), checks
    assert list(tmp_path.iterdir()) == []


def test_cores_are_those_that_a_scheduler_gave(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    assert "3 CPU cores" in module._checked("device", module._device).detail


@pytest.mark.ray
def test_ray_answers():
    found = module._checked("ray", module._ray)
    assert found.ok and "a worker of its own answered" in found.detail


@pytest.mark.parametrize(
    "options",
    [
        {"task": "reduced-fashion"},  # the preset's number of images
        {"task": "reduced-fashion", "preset": "paper"},
        {"task": "folder", "shares": "capped", "train_images": 30, "resolution": 16},
        {"task": "folder", "task_seed": 3, "train_images": 6, "validation_images": 6},
    ],
)
def test_the_images_are_drawn_as_a_search_draws_them(quick, monkeypatch, tmp_path, options):
    if options["task"] == "folder":
        options = {**options, "data": str(long_tail(tmp_path))}
    drawn = []

    def noting(*arguments, **given):
        drawn.append(get_task(*arguments, **given).manifest_hash)
        raise InputError("data", "was drawn", "once", "stop here")

    monkeypatch.setattr(study, "get_task", noting)
    by_name(doctor(options))
    with pytest.raises(InputError, match="was drawn"):
        run_search(Config.of("search", **options), tmp_path / "run")
    assert len(drawn) == 2 and drawn[0] == drawn[1]


def test_how_a_search_sees_the_images_is_said(quick, tmp_path):
    options = {"task": "folder", "data": str(long_tail(tmp_path)), "resolution": 16,
               "train_images": 6}  # fmt: skip
    said = by_name(doctor(options))["data"].detail
    assert (
        "each the middle of a picture as 3 × 16 × 16" in said and "; validation has 1 to 12" in said
    )
    assert "16 (--resolution), mirrored at random" in said and "train has" not in said
    assert "never mirrored" in by_name(doctor({**options, "flip": "no"}))["data"].detail


def test_what_a_search_refuses_the_doctor_refuses_with_the_same_words(quick, tmp_path):
    options = {"task": "folder", "data": str(long_tail(tmp_path)), "train_images": 108}
    with pytest.raises(InputError) as caught:
        run_search(Config.of("search", **options), tmp_path / "run")
    found = by_name(doctor(options))["data"]
    assert not found.ok and found.detail == " ".join(str(caught.value).split())


def test_what_is_found_in_the_images_is_said(quick, tmp_path):
    root = write_tree(tmp_path / "images", {"train": 20}, side=16)
    for image in (root / "train/class0").iterdir():
        (root / "train/class1" / f"copy-{image.name}").write_bytes(image.read_bytes())
    (root / "train/class2/notes.gif").write_text("no image")
    found = by_name(doctor({"task": "folder", "data": str(root), "train_images": 15}))["data"]
    assert found.ok and "1 .gif" in found.detail
    assert "two labels" in found.detail or "different classes" in found.detail, found.detail


def long_tail(folder):
    """12, 6 and 3 images of three classes."""
    root = write_tree(folder / "images", {"train": 60}, side=16)
    for label, kept in enumerate((60, 12, 5)):
        for image in sorted((root / f"train/class{label}").iterdir())[kept:]:
            image.unlink()
    return root


def test_the_command_takes_the_options_of_a_search(quick, tmp_path):
    words = ["--task", "folder", "--data", long_tail(tmp_path), "--train-images", 9]
    done = CliRunner().invoke(main, ["doctor", "--out", str(tmp_path), *map(str, words)])
    assert done.exit_code == 0 and "ok   data      folder: " in done.output
    done = CliRunner().invoke(main, ["doctor", "--task", "folder", "--data", "/nowhere"])
    assert done.exit_code == 1 and "FAIL data" in done.output


@pytest.mark.parametrize(
    ("task", "data", "words"),
    [
        ("reduced-fasion", None, "did you mean"),
        ("folder", "/nowhere", "/nowhere"),
        (None, "/nowhere", "is no folder"),
    ],
)
def test_data_that_is_not_there(quick, task, data, words):
    found = by_name(doctor({k: v for k, v in (("task", task), ("data", data)) if v is not None}))[
        "data"
    ]
    assert not found.ok and words in found.detail and "\n" not in found.detail


def test_images_below_a_folder(tmp_path):
    def found():
        return module._checked("data", lambda: module._images(tmp_path))

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.gif").write_bytes(b"GIF89a")
    assert not found().ok and "no image file" in found().detail and "1 .gif" in found().detail
    Image.new("RGB", (3, 2)).save(tmp_path / "a" / "x.png")
    assert found().ok and "RGB image of (3, 2)" in found().detail
    (tmp_path / "a" / "x.png").write_bytes(b"\x89PNG")
    assert not found().ok


def test_a_file_of_arrays(tmp_path):
    images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "med.npz", train_images=images, train_labels=labels)
    found = module._checked("data", lambda: module._images(tmp_path / "med.npz"))
    assert found.ok and "20 of train" in found.detail
    (tmp_path / "bad.npz").write_bytes(b"no")
    assert not module._checked("data", lambda: module._images(tmp_path / "bad.npz")).ok


@pytest.mark.parametrize("content", ["EPS", "FIFO", "loop", "16 bits"])
def test_what_a_search_does_not_read_the_doctor_does_not_open(monkeypatch, tmp_path, content):
    """Neither Ghostscript nor a pipe nor a circle of links: one line, at once."""
    path = tmp_path / "x.png"
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("starts a program"))
    if content == "EPS":
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    elif content == "FIFO":
        os.mkfifo(path)
    elif content == "loop":
        (tmp_path / "again").symlink_to(tmp_path)
    else:
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    found = module._checked("data", lambda: module._images(tmp_path))
    assert not found.ok and "\n" not in found.detail, found


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    found = module._checked("python", module._python)
    assert not found.ok and "use 3.11 or newer" in found.detail


def test_every_requirement_is_imported():
    """A broken matplotlib, scikit-learn or tabulate would end a command after its work."""
    setup = configparser.ConfigParser()
    setup.read(Path(module.__file__).parents[2] / "setup.cfg")
    needed = re.findall(r"^([\w-]+)", setup["options"]["install_requires"], re.MULTILINE)
    assert {name.lower() for name in module.MODULES} == {
        {"pillow": "pil", "scikit-learn": "sklearn"}.get(name.lower(), name.lower())
        for name in needed
    }


@pytest.mark.parametrize("name", ["matplotlib", "sklearn", "tabulate", "pandas"])
def test_a_broken_package(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # its import fails
    found = module._checked("packages", module._packages)
    assert not found.ok and f"cannot import {name} (" in found.detail


@pytest.mark.parametrize("name", ["policies", "proxy_tasks", "analysis"])
def test_a_file_of_the_user_that_hides_a_package_is_named(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    root = Path(module.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", "from search.cli.main import main; main()", "doctor"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"}, cwd="/",
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert str(tmp_path / f"{name}.py") in done.stderr and len(done.stderr.splitlines()) == 1


def test_kernels_that_differ_are_found(monkeypatch):
    from PIL import ImageOps

    monkeypatch.setattr(ImageOps, "equalize", lambda image: image)
    found = module._checked("kernels", module._kernels)
    assert not found.ok and "Equalize differs from Pillow" in found.detail


def test_little_shared_memory(monkeypatch):
    monkeypatch.setattr(module, "FEW_BYTES", 2**60)
    assert "--shm-size" in module._checked("memory", module._shared_memory).detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    assert not module._checked("folder", lambda: module._folder(tmp_path)).ok


def test_a_folder_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    found = module._checked("folder", lambda: module._folder(tmp_path))
    assert not found.ok and "No locks available" in found.detail
    assert list(tmp_path.iterdir()) == []
