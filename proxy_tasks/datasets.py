"""A user's own torch Datasets as a source of images: whatever they hold is brought to one form."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from policies.errors import InputError
from policies.images import Unreadable, fit, upright

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
        """Raises InputError for what is no image of 8 bits."""
        image = as_image(self.dataset[index][0], self.name(index))
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
    else all items are read for them. They must be whole numbers; names are `class_names`, else
    `dataset.classes`, else the labels themselves, 0 to the greatest.

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
    named = class_names if class_names is not None else _classes(dataset)
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
    names, first = open_dataset(train, "train", class_names)
    sources = {"train": first}
    for part, dataset in zip(PARTS[1:], (validation, test), strict=True):
        if dataset is None:
            continue
        own = _classes(dataset)
        if class_names is None and own is not None and own != names:
            raise InputError(
                part, f"must have the classes of train, {', '.join(names[:5])}", list(own[:5]),
                "give all parts one class_to_idx",
            )  # fmt: skip
        sources[part] = open_dataset(dataset, part, names)[1]
    return make_pools("torch Datasets", names, sources, ())


def open_made(make: Callable[..., Any], data: str | None) -> Pools:
    """The pools of the data sets that a user's callable makes.

    make: called with the path `data` where one was given; returns a Dataset, or a tuple of up to
    three, train, validation and test.
    """
    made = make() if data is None else make(data)
    parts = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(parts) <= len(PARTS) or parts[0] is None:
        raise InputError(
            "task", "must make a Dataset, or a tuple of train, validation and test", made,
            "None stands for a part that is to be cut from train",
        )  # fmt: skip
    return dataset_pools(*parts)


def _check_fixed(dataset: Dataset, part: str, count: int) -> None:
    for index in {0, count // 2, count - 1}:
        first, again = (_item(dataset, index, part)[0] for _ in range(2))
        name = f"{part}/{index}"
        if as_image(first, name).tobytes() != as_image(again, name).tobytes():
            raise InputError(
                part, "must give the same image every time", f"two versions of {name}",
                "leave random transforms out: the search applies its own",
            )  # fmt: skip


def _classes(dataset: Dataset) -> tuple[str, ...] | None:
    """The names of the classes; some data sets call their number so, which says nothing."""
    names = getattr(dataset, "classes", None)
    if not isinstance(names, Iterable) or isinstance(names, str | bytes):
        return None
    return tuple(map(str, names))


def _labels(dataset: Dataset, part: str, count: int) -> np.ndarray:
    # torchvision's targets are those before `target_transform`.
    changed = getattr(dataset, "target_transform", None) is not None
    targets = None if changed else getattr(dataset, "targets", None)
    if targets is None or len(targets) != count:
        targets = [_item(dataset, index, part)[1] for index in range(count)]
    labels = np.empty(count, np.int64)
    for index, target in enumerate(targets):
        try:
            labels[index] = operator.index(target)
        except TypeError:
            raise InputError(
                part, "labels must be whole numbers", f"{target!r} at {part}/{index}",
                "return the number of the class",
            ) from None  # fmt: skip
    return labels


def _item(dataset: Dataset, index: int, part: str) -> tuple[Any, Any]:
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(
            part, f"items must be {_ITEM}", f"{type(item).__name__} at {part}/{index}",
            "return image, label",
        )  # fmt: skip
    return item[0], item[1]


def _no_image(name: str, got: str, fix: str) -> InputError:
    return InputError(name, "must be an image of 8 bits a channel, grey or RGB", got, fix)
