"""Images decoded once: faster JPEG decoding where simplejpeg is installed, and a cache of pixels.

    photographs = ImageFolder("train", loader=decode_image)
    photographs = DecodedImages(photographs, 256, "train-256")  # says how large first; once

Decoding a JPEG of usual size takes longer than all else that training does with it on a CPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import mmap
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .bars import tqdm
from .collate import _pixels
from .errors import InputError, check_integer
from .images import MAX_PIXELS, Unreadable, decode, free_memory, orientation, upright

FORMAT = 1
PROBES = 32  # images decoded for an estimate
CHUNK = 2**28  # bytes of a piece of memory
_JPEG = b"\xff\xd8\xff"


def decode_image(source: str | os.PathLike | bytes) -> torch.Tensor:
    """An image file, or its bytes, as uint8 [3, H, W]: for ``ImageFolder(..., loader=...)``.

    Upright, and by the same rules as proxy tasks and reports (`policies.images`). By simplejpeg
    where that is installed and can, else by Pillow. The pixels lie together in memory ([H, W, 3]),
    as decoders and PolicyCollate have them. Raises OSError, naming the file, for what is no such
    image.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if data[:3] == _JPEG and importlib.util.find_spec("simplejpeg"):
        import simplejpeg

        # Pillow knows more kinds (CMYK), and says more about broken files.
        with contextlib.suppress(ValueError):
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours in ("YCbCr", "Gray") and height * width <= MAX_PIXELS:
                return _stored(simplejpeg.decode_jpeg(data), data)
    try:
        return _tensor(decode(data).convert("RGB"))
    except Unreadable as error:
        if isinstance(source, bytes):
            raise
        raise Unreadable(f"{os.fspath(source)}: {error}") from error


def _stored(pixels: np.ndarray, data: bytes) -> torch.Tensor:
    """The pixels of a JPEG file as they are stored in `data`, upright."""
    turn = None
    if b"Exif" in data or b"tiff:Orientation" in data:  # Pillow reads that of XMP too
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            turn = orientation(image)
    if turn is not None:
        return _tensor(Image.fromarray(pixels).transpose(turn))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class Estimate(NamedTuple):
    """What keeping all images decoded will take: bytes, and seconds of one process."""

    bytes: int
    seconds: float


class DecodedImages(Dataset):
    """A data set's images, decoded once, with a shorter side of at most ``size`` pixels.

    ``[i]`` is (uint8 tensor [C, H, W], target). With a folder the pixels are written there once and
    mapped into memory ever after, by all processes together; without one they are kept in memory.
    Random crops of less than ``size`` pixels have less detail than those of the original image.

    Args:
        dataset: of (PIL image or uint8 tensor [C, H, W], number) by index: ImageFolder and the
            like, without a random transform. PIL images are turned upright.
        size: shorter side in pixels; larger images are made smaller (bilinear, antialiased).
        folder: where the pixels are or will be; None: in memory.
        workers: processes that decode.
        progress: say on stderr how large it will be, and how far it is.

    Raises:
        InputError: before anything is decoded but a few samples, where memory or disk will not
            do; for a folder that holds another size or number of images, or whose first, middle
            or last one is not the data set's.
    """

    def __init__(
        self,
        dataset: Dataset,
        size: int,
        folder: str | os.PathLike | None = None,
        *,
        workers: int = 0,
        progress: bool = True,
    ) -> None:
        check_integer("size", size, 1)
        self.size = size
        check_integer("workers", workers, 0)
        small = _Small(dataset, size)
        self._file: Path | None = None
        if folder is None:
            self._chunks, index = self._decode(small, None, workers, progress)
        else:
            path = Path(folder)
            if not path.exists():
                self._write(small, path, workers, progress)
            self._chunks, index = self._read(small, path)
            self._file = path.resolve() / "pixels"
        self._starts, self._shapes, self.targets = index

    def __getstate__(self) -> dict[str, Any]:
        """A spawned worker maps the file too, instead of being sent what is in it."""
        return self.__dict__ if self._file is None else {**self.__dict__, "_chunks": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self._file is not None:
            self._chunks = [_mapped(self._file)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        height, width, channels = self._shapes[index].tolist()
        chunk, start = self._starts[index].tolist()
        pixels = self._chunks[chunk][start : start + height * width * channels]
        image = torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1)
        return image, self.targets[index].item()

    @staticmethod
    def estimate(dataset: Dataset, size: int) -> Estimate:
        """From a few samples, spread over the data set."""
        return _Small(dataset, size).estimate()

    def _decode(
        self, small: _Small, file: Any, workers: int, progress: bool
    ) -> tuple[list[np.ndarray], tuple]:
        """All images, into `file` or into pieces of memory; and where each begins, its shape, its
        target."""
        count, chunks, used = len(small), [np.empty(0, np.uint8)], 0
        starts, shapes = np.empty((count, 2), np.int64), np.empty((count, 3), np.int32)
        targets = []
        self._announce(small, file, workers, progress)
        for i, (pixels, target) in enumerate(tqdm(
            small.all(workers), "decoding", count, disable=not progress, unit=" images"
        )):  # fmt: skip
            flat = pixels.reshape(-1)
            if file is not None:
                starts[i] = 0, used
                file.write(flat)
            else:
                if used + flat.size > chunks[-1].size:
                    chunks[-1] = chunks[-1][:used].copy()
                    chunks.append(np.empty(max(CHUNK, flat.size), np.uint8))
                    used = 0
                starts[i] = len(chunks) - 1, used
                chunks[-1][used : used + flat.size] = flat
            shapes[i] = pixels.shape
            targets.append(target)
            used += flat.size
        if file is None:
            chunks[-1] = chunks[-1][:used].copy()
        return chunks, (starts, shapes, _numbers(targets))

    def _announce(self, small: _Small, file: Any, workers: int, progress: bool) -> None:
        need = small.estimate()
        place = "memory" if file is None else "on disk"
        minutes = need.seconds / max(workers, 1) / 60
        said = f"{len(small):,} images of {self.size} pixels: about {need.bytes / 1e9:.2f} GB"
        if progress:
            print(f"{said} {place}, {minutes:.0f} minutes", file=sys.stderr)
        free = free_memory() if file is None else shutil.disk_usage(Path(file.name).parent).free
        if need.bytes > free:
            raise InputError(
                "size", f"must be so small that the images fit {place}",
                f"{self.size}: about {need.bytes / 1e9:.2f} of {free / 1e9:.2f} GB",
                "give a smaller size" + (", or a folder" if file is None else ""),
            )  # fmt: skip

    def _write(self, small: _Small, path: Path, workers: int, progress: bool) -> None:
        """The folder as a whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as name:
            new = Path(name) / "new"
            new.mkdir()
            with open(new / "pixels", "wb") as file:
                _, (starts, shapes, targets) = self._decode(small, file, workers, progress)
            np.savez(new / "index.npz", starts=starts, shapes=shapes, targets=targets)
            facts = {"format": FORMAT, "size": self.size, "images": len(small)}
            (new / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            try:
                os.rename(new, path)
            except OSError:  # another process was the first; what it wrote is looked at as ever
                if not path.is_dir():
                    raise

    def _read(self, small: _Small, path: Path) -> tuple[list[np.ndarray], tuple]:
        wanted = {"format": FORMAT, "size": self.size, "images": len(small)}
        fix = "name another folder, or delete this one to decode again"
        try:
            found = json.loads((path / "facts.json").read_text(encoding="utf-8"))
            with np.load(path / "index.npz", allow_pickle=False) as index:
                starts, shapes, targets = index["starts"], index["shapes"], index["targets"]
            pixels = _mapped(path / "pixels")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                "folder", "must hold decoded images", f"{path} ({error})", fix
            ) from error
        if found != wanted:
            raise InputError("folder", f"must hold {wanted}", f"{path} with {found}", fix)
        end = int(starts[-1, 1] + np.prod(shapes[-1].astype(np.int64))) if len(starts) else 0
        if end != pixels.size:
            raise InputError("folder", f"must hold {end} bytes of pixels", pixels.size, fix)
        for i in {0, len(targets) // 2, len(targets) - 1}:
            image, target = small[i]
            size = image.size
            same = np.array_equal(shapes[i], image.shape) and target == targets[i]
            if not same or not np.array_equal(
                pixels[starts[i, 1] : starts[i, 1] + size], image.reshape(-1)
            ):
                raise InputError("folder", "must hold the images of this data set",
                                 f"{path}: image {i} is another", fix)  # fmt: skip
        return [pixels], (starts, shapes, targets)


def _mapped(path: Path) -> np.ndarray:
    """Copies on writing: what writes to an image, which nothing here does, keeps the file.

    No memory is set aside for that, which a file larger than it could not have (numpy's does).
    """
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return np.empty(0, np.uint8)
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's, before 3.13
        held = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    return np.frombuffer(held, np.uint8)


def _numbers(targets: list[Any]) -> np.ndarray:
    try:
        numbers = np.array(targets)
    except ValueError:  # of unlike lengths
        numbers = np.empty((0, 0))
    if numbers.dtype.kind not in "iufb" or numbers.shape != (len(targets),):
        raise InputError(
            "dataset", "must have numbers as targets", targets[:1], "map them to class numbers"
        )
    return numbers


class _Small(Dataset):
    """Samples (uint8 [H, W, C], target), made small."""

    def __init__(self, dataset: Any, size: int) -> None:
        self.dataset, self.size = dataset, size
        if not len(dataset):
            raise InputError("dataset", "must have images", 0, "look at its folder")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        try:
            image, target = self.dataset[index]
            pixels = _pixels(upright(image) if isinstance(image, Image.Image) else image)
        except OSError as error:
            raise Unreadable(f"image {index}: {error}") from error
        height, width, channels = pixels.shape
        if channels not in (1, 3):
            raise InputError(
                "dataset", "must have images [C, H, W] of 1 or 3 channels",
                f"{[channels, height, width]} at {index}", "bring the channels to the front",
            )  # fmt: skip
        short = min(height, width)
        if short > self.size:
            grey = channels == 1
            picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
            shape = (round(width * self.size / short), round(height * self.size / short))
            pixels = np.asarray(picture.resize(shape, Image.Resampling.BILINEAR))
            pixels = pixels.reshape(*pixels.shape[:2], channels)
        return np.ascontiguousarray(pixels), target

    def all(self, workers: int) -> Iterator[tuple[np.ndarray, Any]]:
        own = torch.Generator()  # what is drawn for the workers must not move the global one
        return iter(
            DataLoader(
                self, batch_size=None, num_workers=workers, collate_fn=_as_it_is, generator=own
            )
        )

    def estimate(self) -> Estimate:
        count = len(self)
        chosen = np.unique(np.linspace(0, count - 1, min(PROBES, count)).astype(int)).tolist()
        started = time.perf_counter()
        probes = [self[i] for i in chosen]
        _numbers([target for _, target in probes])
        total = sum(pixels.size for pixels, _ in probes)
        seconds = time.perf_counter() - started
        return Estimate(round(total * count / len(chosen)), seconds * count / len(chosen))


def _as_it_is(sample: Any) -> Any:
    return sample
