"""What all transforms share: reading images, drawing, choosing kernels, returning the same kind.

A concrete transform only says how uniform random numbers become operations (transforms.py).
"""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from .errors import InputError, check_integer
from .ops import OPS
from .program import CODE, Program, Table

Images = Image.Image | torch.Tensor | np.ndarray


class Transform(ABC):
    """Augments images; every image draws for itself.

    Call it with a PIL image (mode L or RGB), a uint8 tensor [C, H, W] or a batch [N, C, H, W]
    (C 1 or 3); numpy arrays of these shapes work too. The same kind comes back, new, contiguous;
    the input is never written. CPU images go through compiled kernels, tensors on an accelerator
    through torch kernels, with the same bytes as result: Pillow's.

    Random numbers come from ``generator`` (a CPU torch.Generator), or from torch's global one
    when it is None: equal generator state, equal bytes, whatever the number of threads. In a
    DataLoader worker an explicit generator is combined with the worker's seed, so that workers
    (and epochs) do not repeat each other.

    Transforms pickle, with their generator's state, and compare equal when parameters and
    generator states are equal.

    Args:
        operations: names of the operations that may be drawn.
        slots: most operations one image passes through.
        columns: uniform random numbers one image takes.
        fill: value 0..255 of pixels without a source (shear, translate, rotate), or one a channel.
        generator: source of random numbers.
        threads: CPU threads a batch is divided among; 1 unless asked for.

    Raises:
        InputError: for anything but such images, in the constructor for a wrong argument.
    """

    def __init__(
        self,
        operations: Iterable[str],
        slots: int,
        columns: int,
        fill: int | Sequence[int],
        generator: torch.Generator | None,
        threads: int,
    ) -> None:
        self.fill = _check_fill(fill)
        self.generator = _check_generator(generator)
        self.threads = check_integer("threads", threads, 1, 1024)
        kernels = {OPS[name].kernel for name in operations}
        self._placed = not kernels.isdisjoint(("cutout", "pairing"))
        self._slots, self._columns = slots, columns
        self._kernels = "auto"  # tests set "torch": the accelerator's path on CPU tensors
        self._forget()

    def _forget(self) -> None:
        """Drop what a copy or another process must not inherit."""
        self._tables: dict[tuple[int, int], Table | None] = {}
        self._worker: tuple | None = None

    # -------------------------------------------------------------- what subclasses say

    @abstractmethod
    def arguments(self) -> dict[str, object]:
        """The constructor's arguments that define the distribution; fill and generator aside."""

    @abstractmethod
    def _decode(self, uniform: np.ndarray, height: int, width: int) -> tuple[Table, np.ndarray]:
        """What uniform numbers float64 [N, columns] in [0, 1) stand for: a table, and entries of
        it int64 [N, slots]."""

    # -------------------------------------------------------------- the call

    def __call__(self, images: Images) -> Images:
        if isinstance(images, Image.Image):
            return self._call_pil(images)
        if isinstance(images, np.ndarray):
            batch = _check_batch(images, images.dtype == np.uint8)
            return self._call_numpy(np.ascontiguousarray(batch)).reshape(images.shape)
        if isinstance(images, torch.Tensor):
            batch = _check_batch(images, images.dtype == torch.uint8)
            if images.device.type == "cpu" and self._kernels == "auto":
                result = torch.from_numpy(self._call_numpy(batch.contiguous().numpy()))
            else:
                result = self._call_torch(batch)
            result = result.reshape(images.shape)
            kind = type(images)
            return result if kind is torch.Tensor else result.as_subclass(kind)
        raise InputError(
            "images", "must be a PIL image or a uint8 tensor [C, H, W] or [N, C, H, W]",
            type(images).__name__, "convert it, e.g. with torch.from_numpy",
        )  # fmt: skip

    def _call_pil(self, image: Image.Image) -> Image.Image:
        if image.mode not in ("L", "RGB"):
            raise InputError(
                "images", "a PIL image must have mode L or RGB", image.mode,
                'convert it: image.convert("RGB")',
            )  # fmt: skip
        width, height = image.size
        channels = 1 if image.mode == "L" else 3
        if not width or not height:
            return image.copy()
        program = self._draw(1, channels, height, width)
        if not program.table.codes[program.steps].any():  # nothing but identities
            return image.copy()
        pixels = np.asarray(image)
        if self._kernels == "torch":
            from .kernels_torch import run

            planes = torch.from_numpy(pixels.reshape(1, height, width, channels).copy())
            result = run(planes.permute(0, 3, 1, 2), program).permute(0, 2, 3, 1)
            return Image.fromarray(result.reshape(pixels.shape).numpy())
        if channels == 1:
            flat = _run_cpu(pixels.reshape(1, 1, -1), program, height, width, 1)
            return Image.fromarray(flat.reshape(height, width))
        from .kernels_cpu import join_channels, split_channels

        planes = np.empty((1, 3, height * width), np.uint8)
        split_channels(pixels.reshape(-1), planes)
        planes = _run_cpu(planes, program, height, width, 1)
        result = np.empty((height, width, 3), np.uint8)
        join_channels(planes, result.reshape(-1))
        return Image.fromarray(result)

    def _call_numpy(self, batch: np.ndarray) -> np.ndarray:
        n, channels, height, width = batch.shape
        if batch.size == 0:
            return batch.copy()
        program = self._draw(n, channels, height, width)
        flat = batch.reshape(n, channels, height * width)
        return _run_cpu(flat, program, height, width, self.threads).reshape(batch.shape)

    def _call_torch(self, batch: torch.Tensor) -> torch.Tensor:
        from .kernels_torch import run

        if batch.numel() == 0:
            return batch.clone()
        n, channels, height, width = batch.shape
        return run(batch, self._draw(n, channels, height, width))

    # -------------------------------------------------------------- drawing

    def _draw(self, n: int, channels: int, height: int, width: int) -> Program:
        columns, slots = self._columns, self._slots
        uniform = torch.rand(
            n, columns + (2 * slots if self._placed else 0),
            dtype=torch.float64, generator=self._current_generator(),
        ).numpy()  # fmt: skip
        table, steps = self._decode(uniform[:, :columns], height, width)
        if self._placed:
            extra = _place(uniform[:, columns:], table, steps, height, width)
        else:
            extra = np.zeros((n, slots, 2), np.int64)
        return Program(table, np.ascontiguousarray(steps), extra, self._fill_of(channels))

    def _fill_of(self, channels: int) -> np.ndarray:
        fill = self.fill if isinstance(self.fill, tuple) else (self.fill,) * channels
        if len(fill) != channels:
            raise InputError(
                "fill", f"must have one value for each of the {channels} channels", self.fill,
                "give a single number, or one a channel",
            )  # fmt: skip
        return np.array(fill, np.uint8)

    def _current_generator(self) -> torch.Generator | None:
        """The explicit generator; in a DataLoader worker, one derived from it and the worker.

        Every worker holds a copy of the generator in the same state, and a new epoch starts from
        that state again. The worker's seed differs between workers and between epochs, and is
        itself reproducible (torch.manual_seed, or the loader's own generator).
        """
        info = torch.utils.data.get_worker_info()
        if self.generator is None or info is None:
            return self.generator
        key = (os.getpid(), info.id, info.seed)
        if self._worker is None or self._worker[0] != key:
            own = torch.randint(2**62, (), generator=self.generator).item()
            words = np.random.SeedSequence([own, info.seed % 2**64]).generate_state(1, np.uint64)
            derived = torch.Generator().manual_seed(int(words[0]) % 2**63)
            self._worker = (key, derived)
        return self._worker[1]

    def with_generator(self, generator: torch.Generator | None) -> Transform:
        """A copy that draws from ``generator`` (None: torch's global one)."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.generator = _check_generator(generator)
        new._forget()
        return new

    # -------------------------------------------------------------- being an object

    def _identity(self) -> tuple:
        return type(self), tuple(self.arguments().items()), self.fill

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transform):
            return NotImplemented
        same_generator = _state(self.generator) == _state(other.generator)
        return self._identity() == other._identity() and same_generator

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        arguments = [f"{k}={v!r}" for k, v in self.arguments().items()]
        if self.fill != 0:
            arguments.append(f"fill={self.fill!r}")
        if self.generator is not None:
            arguments.append(f"generator=<seed {self.generator.initial_seed()}>")
        if self.threads != 1:
            arguments.append(f"threads={self.threads}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _tables={}, _worker=None, generator=_state(self.generator))

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.generator is not None:
            saved = torch.frombuffer(bytearray(self.generator), dtype=torch.uint8)
            self.generator = torch.Generator()
            self.generator.set_state(saved)


# ---------------------------------------------------------------------------------- helpers


def _place(
    uniform: np.ndarray, table: Table, steps: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Where Cutout's centre lies, and whom SamplePairing blends with."""
    n, slots = steps.shape
    u = uniform.reshape(n, slots, 2)
    extra = (u * (height, width)).astype(np.int64)
    others = (u[..., 0] * (n - 1)).astype(np.int64)
    partner = (np.arange(n)[:, None] + 1 + others) % n  # any image but this; itself when alone
    extra[..., 0] = np.where(table.codes[steps] == CODE["pairing"], partner, extra[..., 0])
    return extra


def _run_cpu(
    flat: np.ndarray, program: Program, height: int, width: int, threads: int
) -> np.ndarray:
    from .kernels_cpu import run

    out = np.empty_like(flat)
    table = program.table
    arguments = (
        flat, out, height, width, program.steps, program.extra,
        table.codes, table.values, table.matrices, program.fill,
    )  # fmt: skip
    n = len(flat)
    threads = min(threads, n)
    if threads == 1:
        run(*arguments, 0, n)
        return out
    edges = [n * t // threads for t in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(run, *arguments, a, b) for a, b in itertools.pairwise(edges)]:
            future.result()
    return out


def _check_batch(images, is_uint8: bool):
    if not is_uint8:
        raise InputError(
            "images", "must have dtype uint8 (values 0..255)", str(images.dtype),
            "augment before converting to float",
        )  # fmt: skip
    if images.ndim not in (3, 4):
        raise InputError(
            "images", "must have shape [C, H, W] or [N, C, H, W]", tuple(images.shape),
            "add or drop dimensions",
        )  # fmt: skip
    if images.shape[-3] not in (1, 3):
        raise InputError(
            "images", "must have 1 or 3 channels, in dimension -3", tuple(images.shape),
            "permute to [..., C, H, W], or drop the alpha channel",
        )  # fmt: skip
    return images if images.ndim == 4 else images[None]


def _check_fill(fill: int | Sequence[int]) -> int | tuple[int, ...]:
    values = tuple(fill) if isinstance(fill, list | tuple) else (fill,)
    if len(values) not in (1, 3) or any(
        isinstance(v, bool) or not isinstance(v, int) or not 0 <= v <= 255 for v in values
    ):
        raise InputError("fill", "must be an integer in 0..255, or three", fill, "e.g. fill=128")
    return fill if isinstance(fill, int) else values


def _check_generator(generator: torch.Generator | None) -> torch.Generator | None:
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise InputError(
            "generator", "must be a CPU torch.Generator or None (drawing happens on the host)",
            generator, "use torch.Generator().manual_seed(0)",
        )  # fmt: skip
    return generator


def _state(generator: torch.Generator | None) -> bytes | None:
    return None if generator is None else generator.get_state().numpy().tobytes()
