"""Transforms: draw for every image, hand the drawn program to the kernels.

One dispatch serves them all. A transform only says how it turns uniform random numbers into
operations; reading PIL images and tensors, drawing, choosing kernels and returning the same kind
is done here once.
"""

from __future__ import annotations

import copy
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from .errors import InputError
from .ops import OPS, RANDAUGMENT_OPS, UNIFORMAUGMENT_OPS, get_convention
from .policy import Policy, check_bins
from .program import Program, Table, build_table

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
        fill: value 0..255 of pixels without a source (shear, translate, rotate), or one a channel.
        generator: source of random numbers.
        threads: CPU threads a batch is divided among; 1 unless asked for.
    """

    def __init__(
        self,
        fill: int | Sequence[int] = 0,
        generator: torch.Generator | None = None,
        threads: int = 1,
    ) -> None:
        self.fill = _check_fill(fill)
        self.generator = _check_generator(generator)
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
            raise InputError("threads", "must be an integer in 1..1024", threads, "e.g. 1")
        self.threads = threads
        self._kernels = "auto"
        self._worker: tuple | None = None

    # -------------------------------------------------------------- what subclasses say

    @abstractmethod
    def _parameters(self) -> dict[str, object]:
        """Constructor arguments that define the distribution, for repr and equality."""

    @abstractmethod
    def _columns(self) -> int:
        """Uniform random numbers needed for one image."""

    @abstractmethod
    def _decode(self, uniform: np.ndarray, height: int, width: int) -> tuple[Table, np.ndarray]:
        """Table and steps int64 [N, K] for uniform numbers float64 [N, columns]."""

    def _drawn_kernels(self) -> frozenset[str]:
        """Kernels that may be drawn."""
        return frozenset(OPS[name].kernel for name in self._names())

    @abstractmethod
    def _names(self) -> frozenset[str]:
        """Operations that may be drawn."""

    # -------------------------------------------------------------- the call

    def __call__(self, images: Images) -> Images:
        if isinstance(images, Image.Image):
            return self._call_pil(images)
        if isinstance(images, np.ndarray):
            batch = _check_batch(images, images.dtype == np.uint8)
            result = self._call_numpy(np.ascontiguousarray(batch))
            return result.reshape(images.shape)
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
        if not width or not height:
            return image.copy()
        channels = len(image.getbands())
        pixels = np.asarray(image)
        if self._kernels != "auto":
            planes = torch.from_numpy(pixels.reshape(height, width, channels).copy())
            out = self._call_torch(planes.permute(2, 0, 1)[None])
            result = out[0].permute(1, 2, 0).reshape(pixels.shape).contiguous().numpy()
            return Image.fromarray(result)
        program = self._draw(1, channels, height, width)
        if not program.steps.any():
            return image.copy()
        from . import kernels_cpu

        if channels == 1:
            return Image.fromarray(_run_cpu(pixels.reshape(1, 1, -1), program, height, width, 1)
                                   .reshape(height, width))
        planes = np.empty((1, 3, height * width), np.uint8)
        kernels_cpu.split_channels(pixels.reshape(-1), planes)
        planes = _run_cpu(planes, program, height, width, 1)
        out = np.empty((height, width, 3), np.uint8)
        kernels_cpu.join_channels(planes, out.reshape(-1))
        return Image.fromarray(out)

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
        generator = self._current_generator()
        columns = self._columns()
        kernels = self._drawn_kernels()
        placed = "cutout" in kernels or "pairing" in kernels
        slots = self._slots()
        uniform = torch.rand(
            n, columns + (2 * slots if placed else 0), dtype=torch.float64, generator=generator
        ).numpy()
        table, steps = self._decode(uniform[:, :columns], height, width)
        extra = np.zeros((n, slots, 2), np.int64)
        if placed:
            extra = _place(uniform[:, columns:], table, steps, height, width)
        return Program(table, np.ascontiguousarray(steps), extra, self._fill_of(channels))

    def _slots(self) -> int:
        raise NotImplementedError

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
            seed = np.random.SeedSequence([own, info.seed % 2**64]).generate_state(1, np.uint64)
            derived = torch.Generator().manual_seed(int(seed[0]) & (2**63 - 1))
            self._worker = (key, derived)
        return self._worker[1]

    def with_generator(self, generator: torch.Generator | None) -> Transform:
        """A copy that draws from ``generator``."""
        new = copy.copy(self)
        new.generator = _check_generator(generator)
        new._worker = None
        return new

    # -------------------------------------------------------------- being an object

    def _identity(self) -> tuple:
        return type(self), tuple(self._parameters().items()), self.fill

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transform):
            return NotImplemented
        a, b = _state(self.generator), _state(other.generator)
        return self._identity() == other._identity() and a == b

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        arguments = [f"{k}={v!r}" for k, v in self._parameters().items()]
        if self.fill != 0:
            arguments.append(f"fill={self.fill!r}")
        if self.generator is not None:
            arguments.append(f"generator=<seed {self.generator.initial_seed()}>")
        if self.threads != 1:
            arguments.append(f"threads={self.threads}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __getstate__(self) -> dict:
        state = dict(self.__dict__, _worker=None)
        if self.generator is not None:
            state["generator"] = self.generator.get_state().numpy().tobytes()
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.generator is not None:
            saved = torch.frombuffer(bytearray(state["generator"]), dtype=torch.uint8)
            self.generator = torch.Generator()
            self.generator.set_state(saved)

    def __copy__(self) -> Transform:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new


class PolicyTransform(Transform):
    """Applies a policy (AutoAugment, arXiv:1805.09501): each image draws one sub-policy uniformly,
    then each of its operations is applied with its probability, signed ones with a random sign.

    Args:
        policy: a Policy or any nested sequence of (name, probability, magnitude).
        convention: what magnitude indices mean, a name in CONVENTIONS; "paper" is torchvision's.
        fill, generator, threads: see Transform.
    """

    def __init__(
        self,
        policy: Policy | Sequence,
        convention: str = "paper",
        fill: int | Sequence[int] = 0,
        generator: torch.Generator | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(fill, generator, threads)
        bins = get_convention(convention).bins
        self.policy = policy if isinstance(policy, Policy) else Policy(policy, bins)
        check_bins(self.policy, convention)
        self.convention = convention
        width = max(len(row) for row in self.policy)
        self._probability = np.zeros((len(self.policy), width))
        for i, row in enumerate(self.policy):
            self._probability[i, : len(row)] = [op.probability for op in row]

    def _parameters(self) -> dict[str, object]:
        return {"policy": self.policy, "convention": self.convention}

    def _names(self) -> frozenset[str]:
        return frozenset(op.name for row in self.policy for op in row)

    def _slots(self) -> int:
        return self._probability.shape[1]

    def _columns(self) -> int:
        return 1 + 2 * self._slots()

    def _decode(self, uniform: np.ndarray, height: int, width: int) -> tuple[Table, np.ndarray]:
        rows, slots = self._probability.shape
        row = (uniform[:, 0] * rows).astype(np.int64)
        applied = uniform[:, 1 : 1 + slots] < self._probability[row]
        negative = uniform[:, 1 + slots :] < 0.5
        place = row[:, None] * slots + np.arange(slots)
        return (
            _policy_table(self.policy, self.convention, slots, height, width),
            np.where(applied, 1 + 2 * place + negative, 0),
        )


@lru_cache(maxsize=64)
def _policy_table(
    policy: Policy, convention: str, slots: int, height: int, width: int
) -> Table:
    """Entry 1 + 2 * (row * slots + slot) + negative."""
    scale = get_convention(convention)
    entries = []
    for row in policy:
        for slot, negative in itertools.product(range(slots), (False, True)):
            if slot >= len(row):
                entries.append(("identity", 0.0))
                continue
            op = row[slot]
            value = scale.parameter(op.name, op.magnitude, negative, height, width)
            entries.append((OPS[op.name].kernel, value))
    return build_table(entries, height, width)


@lru_cache(maxsize=64)
def _grid_table(
    names: tuple[str, ...], magnitudes: tuple[int, ...], convention: str, height: int, width: int
) -> Table:
    """Entry 1 + 2 * (operation * len(magnitudes) + magnitude) + negative."""
    scale = get_convention(convention)
    return build_table(
        [
            (OPS[name].kernel, scale.parameter(name, m, negative, height, width))
            for name, m, negative in itertools.product(names, magnitudes, (False, True))
        ],
        height,
        width,
    )


class _Uniform(Transform):
    """Draws ``slots`` operations uniformly from a list, each with a random magnitude and sign."""

    _operations: tuple[str, ...] = RANDAUGMENT_OPS
    convention = "randaugment"
    _count = 1
    _magnitudes: tuple[int, ...] = ()

    def _names(self) -> frozenset[str]:
        return frozenset(self._operations)

    def _slots(self) -> int:
        return self._count

    def _columns(self) -> int:
        return 3 * self._count

    def _decode(self, uniform: np.ndarray, height: int, width: int) -> tuple[Table, np.ndarray]:
        n = len(self._magnitudes)
        u = uniform.reshape(len(uniform), self._count, 3)
        operation = (u[..., 0] * len(self._operations)).astype(np.int64)
        magnitude = (u[..., 1] * n).astype(np.int64)
        table = _grid_table(self._operations, self._magnitudes, self.convention, height, width)
        return table, 1 + 2 * (operation * n + magnitude) + (u[..., 2] < 0.5)

    def _as_policy(self) -> Policy:
        bins = get_convention(self.convention).bins
        choices = [
            (name, 1.0, m if OPS[name].has_magnitude else None)
            for name, m in itertools.product(self._operations, self._magnitudes)
        ]
        return Policy(tuple(itertools.product(choices, repeat=self._count)), bins=bins)


class RandAugment(_Uniform):
    """RandAugment (arXiv:1909.13719): ``n`` operations of 14, with replacement, all applied at
    magnitude ``m`` of 0..30, signed ones with a random sign. Scales as in torchvision.

    Args:
        n: number of operations, 0..16.
        m: magnitude index 0..30.
        fill, generator, threads: see Transform.
    """

    def __init__(
        self,
        n: int = 2,
        m: int = 9,
        fill: int | Sequence[int] = 0,
        generator: torch.Generator | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(fill, generator, threads)
        for name, value, high in (("n", n, 16), ("m", m, 30)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
                raise InputError(
                    name, f"must be an integer in 0..{high}", value, "e.g. RandAugment(n=2, m=9)"
                )
        self.n, self.m = n, m
        self._count, self._magnitudes = n, (m,)

    def _parameters(self) -> dict[str, object]:
        return {"n": self.n, "m": self.m}

    def as_policy(self) -> Policy:
        """The same distribution as a policy of 14**n sub-policies (convention "randaugment")."""
        if not 1 <= self.n <= 4:
            raise InputError("n", "must be in 1..4 to be written as a policy", self.n,
                             "14**n sub-policies would be too many")
        return self._as_policy()


class TrivialAugmentWide(_Uniform):
    """TrivialAugment, wide space (arXiv:2103.10158): one operation of 14, its magnitude uniform
    over 31 indices, always applied, signed ones with a random sign. Scales as in torchvision.

    Args:
        fill, generator, threads: see Transform.
    """

    convention = "trivialaugment"
    _magnitudes = tuple(range(31))

    def _parameters(self) -> dict[str, object]:
        return {}

    def as_policy(self) -> Policy:
        """The same distribution as a policy of 14 * 31 sub-policies (convention
        "trivialaugment")."""
        return self._as_policy()


class UniformAugment(Transform):
    """UniformAugment (arXiv:2003.14348): two operations of 15, with replacement, each applied with
    a probability drawn uniformly from 0..1, at a magnitude uniform and continuous over the paper's
    range, signed ones with a random sign.

    The paper draws from signed ranges; a uniform distance and a random sign are the same
    distribution. Whole-number parameters (pixels, bits) are rounded as in the "paper" convention.

    Args:
        fill, generator, threads: see Transform.
    """

    def _parameters(self) -> dict[str, object]:
        return {}

    def _names(self) -> frozenset[str]:
        return frozenset(UNIFORMAUGMENT_OPS)

    def _slots(self) -> int:
        return 2

    def _columns(self) -> int:
        return 10

    def _decode(self, uniform: np.ndarray, height: int, width: int) -> tuple[Table, np.ndarray]:
        scale = get_convention("paper")
        u = uniform.reshape(-1, 5)
        entries = []
        for operation, probability, test, fraction, sign in u.tolist():
            if test >= probability:
                entries.append(("identity", 0.0))
                continue
            name = UNIFORMAUGMENT_OPS[int(operation * len(UNIFORMAUGMENT_OPS))]
            value = scale.parameter_at(name, fraction, sign < 0.5, height, width)
            entries.append((OPS[name].kernel, value))
        steps = np.arange(1, len(u) + 1).reshape(len(uniform), 2)
        return build_table(entries, height, width), steps


# ---------------------------------------------------------------------------------- helpers


def _place(
    uniform: np.ndarray, table: Table, steps: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Where Cutout's centre lies, and whom SamplePairing blends with."""
    from .program import CODE

    n, slots = steps.shape
    u = uniform.reshape(n, slots, 2)
    centre = (u * (height, width)).astype(np.int64)
    others = (u[..., 0] * (n - 1)).astype(np.int64)
    partner = (np.arange(n)[:, None] + 1 + others) % n  # any image but this; itself when alone
    pairing = table.codes[steps] == CODE["pairing"]
    centre[..., 0] = np.where(pairing, partner, centre[..., 0])
    return centre


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
        for future in [
            pool.submit(run, *arguments, a, b) for a, b in zip(edges, edges[1:], strict=False)
        ]:
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
