"""A disk that forgets what was not synced, to show that no fsync is missing.

The program under test writes to a real folder, undisturbed. `Disk` listens to `os.fsync` alone and
keeps what a file system must keep of it through a power cut: of a file its content when it was
last synced, of a folder the names in it when *it* was last synced. Everything else may be gone:
`Disk.after_power_cut` builds the folder as it would be found then, which is the worst case.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

Inode = int


class Disk:
    """Listens to fsync below `root` while it is entered; `root` itself is taken as durable.

    on_sync: called after every fsync below `root`.
    """

    def __init__(self, root: Path, on_sync: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.on_sync = on_sync
        self.contents: dict[Inode, bytes] = {}
        self.names: dict[Inode, dict[str, tuple[Inode, bool]]] = {}
        self._patch = pytest.MonkeyPatch()
        self._sync = os.fsync

    def __enter__(self) -> Disk:
        for folder in (self.root, *(p for p in self.root.rglob("*") if p.is_dir())):
            self._keep_names(folder)
        for path in self.root.rglob("*"):
            if path.is_file():
                self.contents[path.stat().st_ino] = path.read_bytes()
        self._patch.setattr(os, "fsync", self._fsync)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _fsync(self, handle: int) -> None:
        self._sync(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if not path.is_relative_to(self.root):
            return
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            self._keep_names(path)
        else:
            self.contents[os.fstat(handle).st_ino] = path.read_bytes()
        self.on_sync()

    def _keep_names(self, folder: Path) -> None:
        self.names[folder.stat().st_ino] = {
            entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False))
            for entry in os.scandir(folder)
        }

    def after_power_cut(self, copy: Path) -> Path:
        """Make the folder `copy` as `root` would be found; returns it."""
        copy.mkdir(parents=True)
        self._restore(self.root.stat().st_ino, copy)
        return copy

    def _restore(self, folder: Inode, copy: Path) -> None:
        for name, (inode, is_folder) in self.names.get(folder, {}).items():
            if is_folder:
                (copy / name).mkdir()
                self._restore(inode, copy / name)
            else:
                # A file whose content was never synced is found empty.
                (copy / name).write_bytes(self.contents.get(inode, b""))
