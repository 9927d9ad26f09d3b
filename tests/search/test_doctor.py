"""The doctor finds what is well, and what is not."""

from __future__ import annotations

import os
import sys

import pytest
from PIL import Image

from search.cli import doctor as module
from search.cli.doctor import doctor


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


@pytest.mark.ray
def test_ray_answers():
    found = module._checked("ray", module._ray)
    assert found.ok and "a worker of its own answered" in found.detail


def test_the_task_is_drawn(quick):
    found = by_name(doctor(task="reduced-fashion"))["data"]
    assert found.ok and "4000 training" in found.detail and "10 classes" in found.detail


@pytest.mark.parametrize(
    ("task", "data", "words"),
    [
        ("reduced-fasion", None, "did you mean"),
        ("folder", "/nowhere", "/nowhere"),
        (None, "/nowhere", "is no folder"),
    ],
)
def test_data_that_is_not_there(quick, task, data, words):
    found = by_name(doctor(task=task, data=data))["data"]
    assert not found.ok and words in found.detail and "\n" not in found.detail


def test_images_below_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    found = module._checked("data", lambda: module._images(tmp_path))
    assert not found.ok and "no image file" in found.detail
    Image.new("RGB", (3, 2)).save(tmp_path / "a" / "x.png")
    found = module._checked("data", lambda: module._images(tmp_path))
    assert found.ok and "RGB image of (3, 2)" in found.detail
    (tmp_path / "a" / "x.png").write_bytes(b"\x89PNG")
    assert not module._checked("data", lambda: module._images(tmp_path)).ok


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    found = module._checked("python", module._python)
    assert not found.ok and "use 3.11 or newer" in found.detail


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr(module, "MODULES", ("torch", "no_such_module"))
    found = module._checked("packages", module._packages)
    assert not found.ok and "no_such_module" in found.detail


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
