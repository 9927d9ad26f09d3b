"""What all transforms share: reading images, drawing, choosing kernels, returning the same kind.

A concrete transform only says how uniform random numbers become operations (transforms.py); which
part of a sample is its image, samples.py.
"""

from __future__ import annotations

import functools
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from .errors import InputError, check_integer
from .generators import state_of, travelling
from .images import check_mode
from .ops import OPS
from .program import CODE, Program, Table
from .samples import Images, Sample

Batch = TypeVar("Batch", torch.Tensor, np.ndarray)


class Transform(nn.Module, ABC):
    """Augments images; every image draws for itself.

    Call it with a PIL image (mode L or RGB), a uint8 tensor [C, H, W] or a batch [N, C, H, W]
    (C 1 or 3); numpy arrays of these shapes work too. The same kind comes back, new, contiguous;
    the input is never written. CPU images go through compiled kernels, tensors on an accelerator
    through torch kernels, with the same bytes as result: Pillow's. The frames of a
    ``tv_tensors.Video`` [..., T, C, H, W] share one draw.

    It is a module and works as torchvision's v2 transforms do: call it with a sample, alone or as
    several arguments, ``transform(image, label)``, and it comes back with its image transformed
    and all else untouched (samples.py says which part is the image). Where an operation that moves
    pixels can be drawn, masks, boxes and key points are refused. ``torch.compile`` stops at it and
    goes on behind; it cannot be scripted or traced. It is active in ``eval()`` too.

    Random numbers come from ``generator`` (a CPU torch.Generator), or from torch's global one
    when it is None: equal generator state, equal bytes, whatever the number of threads. In a
    DataLoader worker an explicit generator is combined with the worker's seed, so that workers
    (and epochs) do not repeat each other.

    Transforms pickle and deep-copy, with their generator's state, and compare equal when arguments
    and generator states are equal.

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
        super().__init__()
        self.fill = _check_fill(fill)
        self.generator = _check_generator(generator)
        self.threads = check_integer("threads", threads, 1, 1024)
        names = set(operations)
        self._placed = not {OPS[name].kernel for name in names}.isdisjoint(("cutout", "pairing"))
        self._moving = tuple(name for name in OPS if name in names and OPS[name].moves)
        self._slots, self._columns = slots, columns
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

    def forward(self, *inputs: Any) -> Any:
        """See the class; nn.Module calls this."""
        if torch.compiler.is_compiling():
            from .uncompiled import call

            return call(self._apply_to, inputs)
        return self._apply_to(inputs)

    def _apply_to(self, inputs: tuple) -> Any:
        given = inputs[0] if len(inputs) == 1 else inputs
        if isinstance(given, Image.Image | np.ndarray) or type(given) is torch.Tensor:
            return self._augment(given)
        sample = Sample(given)
        if sample.annotations and self._moving:
            raise InputError(
                "images", f"must come without {' and '.join(sample.annotations)}, as "
                f"{', '.join(self._moving)} would move the image and leave them behind",
                type(given).__name__,
                "augment with operations that only change colours, or pass the image alone",
            )  # fmt: skip
        image = sample.image
        if image is None:
            if sample.annotations:
                return given  # nothing here that changing colours would change
            raise InputError(
                "images", "must be a PIL image or a uint8 tensor [C, H, W] or [N, C, H, W], or a"
                " sample with one in it", type(given).__name__,
                "convert it, e.g. with torch.from_numpy",
            )  # fmt: skip
        return sample.with_image(self._augment(image))

    def _augment(self, images: Images) -> Images:
        if isinstance(images, Image.Image):
            return self._call_pil(images)
        if isinstance(images, np.ndarray):
            array = _check_batch(images, images.dtype == np.uint8)
            return self._call_numpy(contiguous(array)).reshape(images.shape)
        if torch.jit.is_tracing():
            raise InputError(
                "images", "must not be traced: a trace would repeat one draw for ever",
                type(self).__name__, "use torch.compile",
            )  # fmt: skip
        batch, frames = images, 1
        if _is_video(images):
            frames = max(1, images.shape[-4])
            batch = images.flatten(0, -4)
        batch = _check_batch(batch, images.dtype == torch.uint8)
        if images.device.type == "cpu":
            result = torch.from_numpy(self._call_numpy(contiguous(as_numpy(batch)), frames))
        else:
            result = self._call_torch(batch, frames)
        result = result.reshape(images.shape)
        kind = type(images)
        return result if kind is torch.Tensor else result.as_subclass(kind)

    def _call_pil(self, image: Image.Image) -> Image.Image:
        check_mode(image)
        width, height = image.size
        channels = 1 if image.mode == "L" else 3
        if not width or not height:
            return image.copy()
        program = self._draw(1, channels, height, width)
        if not program.table.codes[program.steps].any():  # nothing but identities
            return image.copy()
        pixels = np.asarray(image)
        if channels == 1:
            flat = run_cpu(pixels.reshape(1, 1, -1), program, height, width, 1)
            return instead(image, flat.reshape(height, width))
        from .kernels_cpu import join_channels

        planes = contiguous(pixels.transpose(2, 0, 1)[None]).reshape(1, 3, -1)
        planes = run_cpu(planes, program, height, width, 1)
        result = np.empty((height, width, 3), np.uint8)
        join_channels(planes, result.reshape(-1))
        return instead(image, result)

    def _call_numpy(self, batch: np.ndarray, frames: int = 1) -> np.ndarray:
        n, channels, height, width = batch.shape
        if batch.size == 0:
            return batch.copy()
        program = self._draw(n, channels, height, width, frames)
        flat = batch.reshape(n, channels, height * width)
        return run_cpu(flat, program, height, width, self.threads).reshape(batch.shape)

    def _call_torch(self, batch: torch.Tensor, frames: int = 1) -> torch.Tensor:
        from .kernels_torch import run

        if batch.numel() == 0:
            return batch.clone()
        n, channels, height, width = batch.shape
        return run(batch, self._draw(n, channels, height, width, frames))

    def explained(
        self, batch: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[tuple[str, float], ...]]]:
        """What a call makes of uint8 [N, C, H, W], and which operations each image underwent.

        Returns the batch, and for each image (name, kernel parameter, see ops.py) in order; an
        operation that was not applied is ("Identity", 0.0). The same draws as in a call.
        """
        array = contiguous(_check_batch(batch, batch.dtype == np.uint8))
        n, channels, height, width = array.shape
        program = self._draw(n, channels, height, width)
        flat = array.reshape(n, channels, height * width)
        images = run_cpu(flat, program, height, width, self.threads).reshape(array.shape)
        known = program.table.operations
        return images, [tuple(known[step] for step in steps) for steps in program.steps]

    # -------------------------------------------------------------- drawing

    def _draw(self, n: int, channels: int, height: int, width: int, frames: int = 1) -> Program:
        """What ``n`` images undergo; each ``frames`` that follow one another share a draw."""
        columns, slots = self._columns, self._slots
        uniform = torch.rand(
            n // frames, columns + (2 * slots if self._placed else 0),
            dtype=torch.float64, device="cpu", generator=self._current_generator(),
        ).numpy()  # fmt: skip
        table, steps = self._decode(uniform[:, :columns], height, width)
        if self._placed:
            extra = _place(uniform[:, columns:], table, steps, height, width)
        else:
            extra = np.zeros((*steps.shape, 2), np.int64)
        if frames > 1:
            steps, extra = np.repeat(steps, frames, 0), np.repeat(extra, frames, 0)
            # Whom SamplePairing blends with is a video now: a frame takes the same one of that.
            frame = np.arange(n)[:, None] % frames
            partner = extra[..., 0] * frames + frame
            paired = table.codes[steps] == CODE["pairing"]
            extra[..., 0] = np.where(paired, partner, extra[..., 0])
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
            own = int(torch.randint(2**62, (), generator=self.generator, device="cpu"))
            words = np.random.SeedSequence([own, info.seed % 2**64]).generate_state(1, np.uint64)
            derived = torch.Generator().manual_seed(int(words[0]) % 2**63)
            self._worker = (key, derived)
        return self._worker[1]

    def with_generator(self, generator: torch.Generator | None) -> Self:
        """A copy that draws from ``generator`` (None: torch's global one)."""
        new = object.__new__(type(self))
        # A module keeps its hooks and parts in dicts of its own.
        parts = {k: v.copy() if isinstance(v, dict) else v for k, v in self.__dict__.items()}
        new.__dict__.update(parts)
        new.generator = _check_generator(generator)
        new._forget()
        return new

    # -------------------------------------------------------------- being an object

    def _identity(self) -> tuple:
        return type(self), tuple(self.arguments().items()), self.fill

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transform):
            return NotImplemented
        same_generator = state_of(self.generator) == state_of(other.generator)
        return self._identity() == other._identity() and same_generator

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        arguments = [f"{k}={_short(v)}" for k, v in self.arguments().items()]
        if self.fill != 0:
            arguments.append(f"fill={self.fill!r}")
        if self.generator is not None:
            arguments.append(f"generator=<seed {self.generator.initial_seed()}>")
        if self.threads != 1:
            arguments.append(f"threads={self.threads}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __prepare_scriptable__(self) -> None:
        raise InputError(
            "transform", "must not be scripted: its kernels are not torch's", type(self).__name__,
            "use torch.compile",
        )  # fmt: skip

    def __copy__(self) -> Self:
        return self.with_generator(self.generator)

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _tables={}, _worker=None, generator=travelling(self.generator))


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


def run_cpu(
    flat: np.ndarray,
    program: Program,
    height: int,
    width: int,
    threads: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """What becomes of images [N, C, H*W], divided among threads; written to `out` if given."""
    from .kernels_cpu import run

    out = np.empty_like(flat) if out is None else out
    table = program.table
    arguments = (
        flat, out, height, width, program.steps, program.extra,
        table.codes, table.values, table.matrices, program.fill,
    )  # fmt: skip
    n = len(flat)
    asked, threads = threads, max(1, min(threads, n))
    if threads == 1:
        run(*arguments, 0, n)
        return out
    edges = [n * t // threads for t in range(threads + 1)]
    parts = list(itertools.pairwise(edges))
    pool = _pool(asked - 1, os.getpid())
    others = [pool.submit(run, *arguments, first, last) for first, last in parts[1:]]
    run(*arguments, *parts[0])
    for other in others:
        other.result()
    return out


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads for the calls to come; a forked process has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="augmentation")


def instead(image: Image.Image, pixels: np.ndarray) -> Image.Image:
    """Pixels [H, W] or [H, W, 3] as an image that keeps what Pillow's own operations would: a later
    step may turn it upright by its EXIF data."""
    made = Image.fromarray(pixels)
    made.info = image.info.copy()
    return made


def contiguous(batch: np.ndarray) -> np.ndarray:
    """A batch [N, C, H, W] in that order in memory; pixels that lie together are split quickly."""
    last = batch.transpose(0, 2, 3, 1)
    if batch.shape[1] != 3 or batch.flags.c_contiguous or not last.flags.c_contiguous:
        return np.ascontiguousarray(batch)
    from .kernels_cpu import split_channels

    planes = np.empty((len(batch), 3, last[0, ..., 0].size), np.uint8)
    split_channels(last.reshape(len(batch), -1), planes)
    return planes.reshape(batch.shape)


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A view of its values. Raises InputError where none are in memory."""
    try:
        return tensor.numpy()
    except (RuntimeError, TypeError) as error:
        raise InputError(
            "images", "must be ordinary tensors, whose values are in memory", str(error),
            "call the transform outside of vmap, export or fake tensors; make sparse ones dense",
        ) from None  # fmt: skip


def _is_video(images: torch.Tensor) -> bool:
    if type(images) is torch.Tensor:
        return False
    from torchvision import tv_tensors

    return isinstance(images, tv_tensors.Video)


def _check_batch(images: Batch, is_uint8: bool) -> Batch:
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
    several = isinstance(fill, Sequence)
    try:
        given: Sequence = fill if isinstance(fill, Sequence) else (fill,)
        values = tuple(check_integer("fill", value, 0, 255) for value in given)
    except InputError:
        values = ()
    if len(values) not in (1, 3):
        raise InputError("fill", "must be an integer in 0..255, or three", fill, "e.g. fill=128")
    return values if several else values[0]


def _check_generator(generator: torch.Generator | None) -> torch.Generator | None:
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise InputError(
            "generator", "must be a CPU torch.Generator or None (drawing happens on the host)",
            generator, "use torch.Generator().manual_seed(0)",
        )  # fmt: skip
    return generator


def _short(value: object) -> str:
    """repr, but of a policy that would fill screens only its size."""
    text = repr(value)
    if len(text) <= 200 or not isinstance(value, tuple):
        return text
    return f"<{len(value)} sub-policies>"
