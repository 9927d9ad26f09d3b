"""How people's data lie on disk, recognised: folders of classes, tables of labels, MedMNIST files.

    train/<class>/…  [val|valid|validation/<class>/…]  [test/<class>/…]    or training, testing
    <class>/…                                  all parts are cut from it
    train/metadata.csv  [validation/metadata.csv]  [test/metadata.csv]     as Hugging Face has it
    NAME.npz                                                               as MedMNIST has it

Whatever is decided or left out is said in the notes of the pools.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from policies.errors import InputError

from .images import EXTENSIONS
from .medmnist import open_arrays
from .names import PARTS
from .pools import ALIASES, Pools, held_out, make_pools
from .sources import FolderSource, Source, ignored_text, known_labels, list_images, printable

TABLE = "metadata.csv"
SUMMARY = "a folder train/<class>/… [val|test]/<class>/…, a folder <class>/…, or a MedMNIST .npz"


@dataclass(frozen=True)
class Entries:
    """Images of one part before classes have numbers: files, the class of each, what to say.

    tabled: the classes come from a table, where they may be numbers; else from folders' names.
    """

    files: list[str]
    classes: list[str]
    notes: tuple[str, ...] = ()
    tabled: bool = False

    def names(self) -> list[str]:
        """The classes in order: by number where a table has numbers, else as text."""
        names = set(self.classes)
        numbers = self.tabled and all(n.isdecimal() and str(int(n)) == n for n in names)
        return sorted(names, key=int) if numbers else sorted(names)


def open_any(root: Path, seed: int) -> Pools:
    """The pools of a folder or file, whatever its layout. Raises InputError for none of them."""
    if root.is_file():
        return open_arrays(root)
    folders = part_folders(root)
    if "train" in folders:
        return _open_parts(root, folders)
    if (root / TABLE).is_file():
        return _open_whole(root, _table(root, ""), f"no train/: all parts are cut from {TABLE}")
    classes = subfolders(root)
    if folders or len(classes) < 2:
        inner = [name for name in classes if "train" in part_folders(root / name)]
        raise InputError(
            "data",
            "must be a folder with train/<class>/ and, optionally, test/ or val/, or with <class>/",
            f"{root} without train/",
            f"give {root / inner[0]}" if inner else "give the folder that holds train/",
        )
    shown = ", ".join(f"{printable(name)}/" for name in classes[:3])
    more = f" and {len(classes) - 3} more" if len(classes) > 3 else ""
    return _open_whole(
        root, classes_below(root, ""),
        f"no train/: the folders {shown}{more} are the classes, and all parts are cut from them",
    )  # fmt: skip


def subfolders(folder: Path) -> list[str]:
    """Sorted names, hidden ones aside."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name[0] != "." and e.is_dir())
    except OSError as error:
        raise InputError(
            "data", "must be folders that can be read",
            f"{printable(str(folder))} ({error.strerror})", "check their permissions",
        ) from None  # fmt: skip


def part_folders(root: Path) -> dict[str, str]:
    """The folder of each part that there is one for."""
    found: dict[str, str] = {}
    for name in subfolders(root):
        part = next((p for p, names in ALIASES.items() if name.lower() in names), None)
        if part in found:
            raise InputError(
                "data", f"must have one folder for {part}", f"{found[part]}/ and {name}/",
                "merge them, or move one away",
            )  # fmt: skip
        if part is not None:
            found[part] = name
    return found


def classes_below(root: Path, part: str, names: Sequence[str] | None = None) -> Entries:
    """Images of `root/part/<class>/**`; with `names` of exactly these classes.

    Raises InputError for a class without a folder or without any image.
    """
    below = subfolders(root / part)
    prefix, where = (f"{part}/", f"{part}/") if part else ("", "the folder")
    if not below:
        raise InputError(
            "data", f"{where} must hold one folder per class", str(root / part),
            f"sort the images into {prefix}<class>/",
        )  # fmt: skip
    files: list[str] = []
    classes: list[str] = []
    ignored: Counter[str] = Counter()
    for name in below if names is None else names:
        if name not in below:
            raise InputError(
                "data", f"{where} must hold every class of train/",
                f"no folder {prefix}{printable(name)}",
                f"add {prefix}{printable(name)}/ or take the class out of train/",
            )  # fmt: skip
        found = list_images(root / part / name, f"{prefix}{name}")
        if not found.files:
            _no_images(f"{prefix}{printable(name)}/", found.ignored)
        files += found.files
        classes += [name] * len(found.files)
        ignored += found.ignored
    notes = [] if names is None else [
        f"{prefix}{printable(name)}/ is left out: train/ has no such class"
        for name in below if name not in names
    ]  # fmt: skip
    if ignored:
        notes.append(f"ignored in {where}: {ignored_text(ignored)}")
    loose = _loose_images(root / part)
    if loose:
        notes.append(f"{loose} images lie in {where} itself, in no class, and are left out")
    return Entries(files, classes, tuple(notes))


def _loose_images(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(Path(e.name).suffix.lower() in EXTENSIONS and not e.is_dir() for e in entries)


def pool(root: Path, entries: Entries, names: Sequence[str]) -> FolderSource:
    """The source of these images, with classes numbered as `names` are ordered."""
    labels = np.array(known_labels(entries.classes, tuple(names)), np.int64)
    return FolderSource(root, tuple(entries.files), labels)


def _no_images(folder: str, ignored: Counter[str]) -> None:
    images = "JPEG, PNG, WebP, BMP, TIFF or PPM"
    raise InputError(
        "data", f"{folder} must hold images ({images}, by their endings)",
        ignored_text(ignored) if ignored else "none",
        f"convert them to {images}" if ignored else "add images, or take the class out",
    )  # fmt: skip


# --- folders -------------------------------------------------------------------------------------


def _open_parts(root: Path, folders: Mapping[str, str]) -> Pools:
    """train/ with test/ or val/ as the test part; with both, val/ is the validation part."""
    whole = _table(root, "") if (root / TABLE).is_file() else None
    entries: dict[str, Entries] = {}
    names: list[str] = []
    for part in (p for p in PARTS if p in folders):  # train's classes are the classes
        folder = folders[part]
        if (root / folder / TABLE).is_file():
            entries[part] = _table(root, folder)
        elif whole is not None:
            entries[part] = _below(whole, f"{folder}/")
        else:
            entries[part] = classes_below(root, folder, names or None)
        names = names or entries[part].names()
    notes = [note for found in entries.values() for note in found.notes]
    if whole is not None:
        notes += [*whole.notes, *_outside(whole, [folders[part] for part in entries])]
    sources: dict[str, Source] = {}
    for part, found in entries.items():
        known, left_out = _only(found, names)
        notes += [f"{folders[part]}/: {text}" for text in left_out]
        sources[part] = pool(root, known, names)
    notes += held_out(sources, {part: f"{folder}/" for part, folder in folders.items()})
    others = [name for name in subfolders(root) if name not in folders.values()]
    if others:
        listed = ", ".join(f"{printable(name)}/" for name in others[:4])
        notes.append(f"not used: {listed}{' and others' if len(others) > 4 else ''}")
    return make_pools("folder", names, sources, notes)


def _open_whole(root: Path, entries: Entries, note: str) -> Pools:
    names = entries.names()
    return make_pools(
        "folder", names, {"train": pool(root, entries, names)}, [note, *entries.notes]
    )


def _below(table: Entries, prefix: str) -> Entries:
    """The rows of a table whose files lie below a folder."""
    rows = [r for r in zip(table.files, table.classes, strict=True) if r[0].startswith(prefix)]
    if not rows:
        raise InputError("data", f"{TABLE} must list images of {prefix}", "none", "add them")
    return Entries([file for file, _ in rows], [name for _, name in rows], tabled=True)


def _outside(table: Entries, folders: Sequence[str]) -> list[str]:
    """What a table over all parts names besides them, as a note."""
    below = tuple(f"{folder}/" for folder in folders)
    others = sum(not file.startswith(below) for file in table.files)
    return [f"{others} images of {TABLE} lie below none of {', '.join(below)}"] if others else []


def _only(found: Entries, names: Sequence[str]) -> tuple[Entries, list[str]]:
    """The entries of known classes, and a sentence for each class that is none of them."""
    unknown = Counter(name for name in found.classes if name not in names)
    kept = [(f, c) for f, c in zip(found.files, found.classes, strict=True) if c not in unknown]
    texts = [
        f"{count} images of class {name!r} are left out: train/ has no such class"
        for name, count in sorted(unknown.items())
    ]
    return Entries([f for f, _ in kept], [c for _, c in kept], found.notes), texts


# --- tables --------------------------------------------------------------------------------------


def _table(root: Path, part: str) -> Entries:
    """Images of `root/part/metadata.csv`: columns file_name (below its folder) and label."""
    path = root / part / TABLE
    where = f"{part}/{TABLE}" if part else TABLE
    fix = "write one line `file_name,label` for each image"
    prefix = f"{part}/" if part else ""
    rows: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = reader.fieldnames or []
            for column in ("file_name", "label"):
                if column not in columns:
                    raise InputError(
                        "data", f"{where} must have the columns file_name and label", columns, fix
                    )
            for row in reader:
                name, label = row["file_name"], row["label"]
                line = f"{where}, line {reader.line_num}"
                if not name or not label:
                    raise InputError("data", f"{line} must have a file and a label", row, fix)
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise InputError("data", f"{line} must name a file below it", name, fix)
                name = prefix + PurePosixPath(name).as_posix()
                if name in rows:
                    raise InputError("data", f"{line} must name a file once", name, fix)
                rows[name] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("data", f"{where} must be a CSV file in UTF-8", str(error), fix) from None
    if not rows:
        raise InputError("data", f"{where} must list images", "none", fix)
    there = {name.removeprefix("./") for name in list_images(root / part, part or ".").files}
    unlisted = there - rows.keys()
    notes = [f"{len(unlisted)} images are not in {where}, and left out"] if unlisted else []
    missing = [name for name in rows.keys() - there if not os.path.lexists(root / name)]
    if missing:
        first = printable(min(missing))
        if len(missing) == len(rows):
            raise InputError("data", f"{where} must name files that are there", first, fix)
        notes.append(f"{len(missing)} files that {where} names are not there: {first}")
    files = sorted(rows.keys() - set(missing))
    return Entries(files, [rows[name] for name in files], tuple(notes), tabled=True)
