"""A user's own torch Datasets as a source of images: whatever they hold is brought to one form."""

from __future__ import annotations

import contextlib
import operator
import sys
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from policies.errors import InputError
from policies.images import Unreadable, fit, upright
from policies.imports import check_call, resolve

from .images import Decoded
from .manifest import content_id
from .names import PARTS
from .pools import Pools, make_pools

_ITEM = "an (image, label) pair, or a longer tuple that begins so"


class Dataset(Protocol):
    """A map-style torch Dataset of (image, label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class DatasetSource:
    """Images of a Dataset, in its own order. `part` is what names of images begin with."""

    dataset: Dataset
    part: str
    labels: np.ndarray

    def read(self, index: int, resolution: int) -> Decoded:
        """Raises InputError for what is no image of 8 bits; a file that cannot be read is none."""
        try:
            item = _item(self.dataset, index, self.part)
            image = as_image(item[0], self.name(index))  # where Pillow may read it only now
        except OSError as error:  # as Pillow raises of damaged files
            return Decoded(None, "", f"{type(error).__name__}: {error}")
        if _number(item[1]) not in (None, self.labels[index]):
            raise InputError(
                f"{self.part}.targets", "must be the labels of the items",
                f"{self.labels[index]}, where {self.name(index)} has {item[1]!r}",
                "give the data set's class `targets` as __getitem__ gives them, or none",
            )  # fmt: skip
        pixels = np.asarray(image)
        content = content_id(repr(pixels.shape).encode() + pixels.tobytes())
        return Decoded(np.asarray(fit(image, resolution)), content)

    def name(self, index: int) -> str:
        return f"{self.part}/{index}"


def as_image(image: Any, name: str) -> Image.Image:
    """A PIL image of mode L or RGB, from what data sets give.

    Args:
        image: PIL; a tensor [C, H, W] or [H, W] of bytes, or of floats in 0..1 as ToTensor makes
            them; an array [H, W], [H, W, C] of bytes. C = 1 or 3. Transparency is dropped.
        name: what errors call it.

    Raises:
        InputError: anything else.
    """
    if isinstance(image, Image.Image):
        try:
            return upright(image)
        except Unreadable:
            raise _no_image(
                name, f"a PIL image of mode {image.mode}", "convert it to RGB or L"
            ) from None
    # Nothing is a tensor before somebody has imported torch.
    if "torch" in sys.modules and isinstance(image, sys.modules["torch"].Tensor):
        image = image.detach().cpu()  # numpy has no bfloat16
        bfloat16 = image.dtype == sys.modules["torch"].bfloat16
        pixels = (image.float() if bfloat16 else image).numpy()
        if pixels.ndim == 3:
            pixels = pixels.transpose(1, 2, 0)
    elif isinstance(image, np.ndarray):
        pixels = image
    else:
        raise _no_image(name, type(image).__name__, "return a PIL image or a uint8 tensor")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.size == 0 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        shape = "x".join(map(str, image.shape))
        raise _no_image(name, f"shape {shape}", "tensors are [C, H, W], arrays [H, W, C], C 1 or 3")
    if pixels.dtype.kind == "f":
        scaled = pixels * 255.0
        if not ((scaled >= 0) & (scaled <= 255)).all():
            raise _no_image(
                name, f"floats in {pixels.min():.3g}..{pixels.max():.3g}",
                "floats must lie in 0..1: leave Normalize out, training does it",
            )  # fmt: skip
        pixels = np.rint(scaled).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise _no_image(name, f"{pixels.dtype} values", "return bytes 0..255, or floats in 0..1")
    return Image.fromarray(np.ascontiguousarray(pixels))


def open_dataset(
    dataset: Dataset, part: str, class_names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], DatasetSource]:
    """(class names, source) of a data set.

    Labels are taken from `dataset.targets` where that has one for every item, as in torchvision,
    and items have those; else all items are read for them. They must be whole numbers; names are
    `class_names`, else `dataset.classes` (of the labels in `targets`), else the labels themselves,
    0 to the greatest.

    Raises:
        InputError: no map-style data set, items of another form, a label without a name, and
            images that differ when they are read again, as they do under random transforms.
    """
    try:
        count = len(dataset)
    except TypeError:
        raise InputError(
            part, "must be a map-style torch Dataset, with a length", dataset,
            "give it __len__ and __getitem__, or list what it streams",
        ) from None  # fmt: skip
    if count == 0:
        raise InputError(part, "must hold images", "none", "check the path inside the data set")
    _check_fixed(dataset, part, count)
    labels = _labels(dataset, part, count)
    named = class_names if class_names is not None else _classes(dataset, part)
    names = tuple(map(str, range(int(labels.max()) + 1) if named is None else named))
    if labels.min() < 0 or labels.max() >= len(names):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(
            part, f"labels must be in 0..{len(names) - 1}, the classes are {', '.join(names[:5])}"
            + (", ..." if len(names) > 5 else ""), int(wrong), "number the classes from 0",
        )  # fmt: skip
    return names, DatasetSource(dataset, part, labels)


def dataset_pools(
    train: Dataset,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    class_names: Sequence[str] | None = None,
) -> Pools:
    """What a task of a user's data sets draws from; a part that is None is cut from train.

    Raises:
        InputError: what `open_dataset` raises, and parts whose classes are not those of train.
    """
    parts = zip(PARTS[1:], (validation, test), strict=True)
    others = {part: dataset for part, dataset in parts if dataset is not None}
    named = class_names
    if named is None and _classes(train, "train") is None:
        # A Subset says nothing of its classes, which the whole test set beside it does.
        held = (_classes(dataset, part) for part, dataset in others.items())
        named = next((found for found in held if found is not None), None)
    names, first = open_dataset(train, "train", named)
    sources = {"train": first}
    for part, dataset in others.items():
        own = _classes(dataset, part)
        if class_names is None and own is not None and own != names:
            raise InputError(
                part, f"must have the classes of train, {', '.join(names[:5])}", list(own[:5]),
                "give all parts one class_to_idx",
            )  # fmt: skip
        sources[part] = open_dataset(dataset, part, names)[1]
    return make_pools("torch Datasets", names, sources, ())


def open_made(named: str, data: str | None) -> Pools:
    """The pools of the data sets that a user's callable makes.

    named: its import path. It is called with the path `data` where one was given, and returns a
    Dataset, or a tuple of up to three, train, validation and test.
    """
    make, given = resolve("task", named), () if data is None else (data,)
    check_call(
        "task", named, make, *given,
        rule=f"must take {'no argument, as no data are given' if data is None else 'the data'}",
        fix="write it with one argument for --data, as in: def make(data=None)",
    )  # fmt: skip
    made = make(*given)
    parts = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(parts) <= len(PARTS) or parts[0] is None:
        raise InputError(
            "task", "must make a Dataset, or a tuple of train, validation and test", made,
            "None stands for a part that is to be cut from train",
        )  # fmt: skip
    return dataset_pools(*parts)


def _check_fixed(dataset: Dataset, part: str, count: int) -> None:
    """Three images, four times each: of random flips one of 500 data sets goes unseen."""
    for index in _some(count):
        name = f"{part}/{index}"
        try:
            read = {as_image(_item(dataset, index, part)[0], name).tobytes() for _ in range(4)}
        except OSError:  # which reading it will tell
            continue
        if len(read) > 1:
            raise InputError(
                part, "must give the same image every time", f"two versions of {name}",
                "leave random transforms out: the search applies its own",
            )  # fmt: skip


def _classes(dataset: Dataset, part: str) -> tuple[str, ...] | None:
    """The names of the classes; some data sets call their number so, which says nothing, and some
    give their items other labels than `targets`, which `classes` names."""
    names = getattr(dataset, "classes", None)
    if not isinstance(names, Iterable) or isinstance(names, str | bytes):
        return None
    return None if _relabels(dataset, part) else tuple(map(str, names))


def _some(count: int) -> list[int]:
    """The first, the middle and the last of so many, each once."""
    return sorted({0, count // 2, count - 1}) if count else []


def _labels(dataset: Dataset, part: str, count: int) -> np.ndarray:
    targets = None if _relabels(dataset, part) else _targets(dataset)
    if targets is None:
        targets = [_label(dataset, index, part) for index in range(count)]
    labels = np.empty(count, np.int64)
    for index, target in enumerate(targets):
        number = _number(target)
        if number is None:
            raise InputError(
                part, "labels must be whole numbers", f"{target!r} at {part}/{index}",
                "return the number of the class",
            )  # fmt: skip
        labels[index] = number
    return labels


def _label(dataset: Dataset, index: int, part: str) -> Any:
    try:
        return _item(dataset, index, part)[1]
    except OSError as error:
        raise InputError(
            f"{part}/{index}", "must be readable, to tell its label", repr(error),
            "mend or remove the file, or give the data set `targets`, and it is left out",
        ) from error  # fmt: skip


def _targets(dataset: Dataset) -> Any:
    """The labels that torchvision's data sets keep beside the items; None without one for each."""
    targets = getattr(dataset, "targets", None)
    if not isinstance(targets, Sized) or len(targets) != len(dataset):
        return None
    # By place: a pandas Series goes by numbers of its own.
    return targets.to_numpy() if hasattr(targets, "to_numpy") else targets


def _relabels(dataset: Dataset, part: str) -> bool:
    """Whether `__getitem__` gives other labels than `targets`: torchvision's are those before
    `target_transform`."""
    if getattr(dataset, "target_transform", None) is not None:
        return True
    targets = _targets(dataset)
    if targets is None:
        return False
    for index in _some(len(dataset)):
        with contextlib.suppress(OSError):
            number = _number(_item(dataset, index, part)[1])
            if number is not None and number != _number(targets[index]):
                return True
    return False


def _number(label: Any) -> int | None:
    """None for what is no whole number."""
    try:
        return operator.index(label)
    except TypeError:
        return None


def _item(dataset: Dataset, index: int, part: str) -> tuple[Any, Any]:
    """Raises OSError for a file that cannot be read, InputError for whatever else goes wrong."""
    try:
        item = dataset[index]
    except (OSError, InputError):
        raise
    except Exception as error:
        raise InputError(
            f"{part}/{index}", "must be readable", repr(error), "mend the data set, or leave it out"
        ) from error
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(
            part, f"items must be {_ITEM}", f"{type(item).__name__} at {part}/{index}",
            "return image, label",
        )  # fmt: skip
    return item[0], item[1]


def _no_image(name: str, got: str, fix: str) -> InputError:
    return InputError(name, "must be an image of 8 bits a channel, grey or RGB", got, fix)
