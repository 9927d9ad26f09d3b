"""A user's own pipeline, any callable on an image, as a transform like the others."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from .base import Transform, instead
from .errors import InputError
from .images import check_mode
from .imports import import_path, is_import_path, resolve
from .program import Table


class OwnPipeline(Transform):
    """Calls a pipeline of the user's own on every image, and checks what comes back.

    The pipeline takes a uint8 tensor [C, H, W] and returns one of the same shape, as a ``Compose``
    of torchvision's v2 transforms does. It draws from the global generators of torch, numpy and
    ``random``, which are seeded for every image from this transform's own and put back after it; a
    pipeline with a generator of its own is as reproducible as that. It is imported where it is
    called, so in the worker.

    Args:
        pipeline: its import path ``package.module:name``, or the callable if it can be found under
            one. Equality, pickles and files go by the path.
        generator: source of random numbers; None: torch's global one.

    Raises:
        InputError: when it is not found, not callable, fails on an image, or returns anything but
            an image of the same form.
    """

    def __init__(self, pipeline: str | Callable, generator: torch.Generator | None = None) -> None:
        super().__init__((), 0, 0, 0, generator, 1)
        self.path = import_path("pipeline", pipeline)
        self._moving = (self.path,)  # for all that is known
        if not is_import_path(self.path):
            raise InputError(
                "pipeline", "must be an import path package.module:name", pipeline,
                "e.g. my_parts:pipeline",
            )  # fmt: skip

    def arguments(self) -> dict[str, object]:
        return {"pipeline": self.path}

    def _decode(self, uniform: np.ndarray, height: int, width: int) -> tuple[Table, np.ndarray]:
        raise InputError(
            "augmentation", "must consist of operations to be explained", self.path,
            "call it instead",
        )  # fmt: skip

    def _call_pil(self, image: Image.Image) -> Image.Image:
        check_mode(image)
        pixels = np.asarray(image)
        batch = pixels[None, None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)[None]
        made = self._call_numpy(np.ascontiguousarray(batch))[0]
        turned = np.ascontiguousarray(made.transpose(1, 2, 0))
        return instead(image, turned.reshape(pixels.shape))

    def _call_numpy(self, batch: np.ndarray, frames: int = 1) -> np.ndarray:
        call = resolve("pipeline", self.path)
        drawn = torch.randint(
            2**32, (len(batch) // frames,), generator=self._current_generator(), device="cpu"
        )
        made = np.empty_like(batch)
        for index, image in enumerate(batch):
            with _seeded(int(drawn[index // frames])):
                made[index] = self._checked(call, torch.from_numpy(image.copy()))
        return made

    def _call_torch(self, batch: torch.Tensor, frames: int = 1) -> torch.Tensor:
        made = self._call_numpy(batch.cpu().numpy(), frames)
        return torch.from_numpy(made).to(batch.device)

    def _checked(self, call: Callable, image: torch.Tensor) -> np.ndarray:
        form = f"uint8 {list(image.shape)}"
        try:
            made = call(image)
        except Exception as error:
            raise InputError(
                "pipeline", f"must take images as tensors {form}",
                f"{self.path}, which raised {type(error).__name__}: {error}",
                "call it on such a tensor in Python",
            ) from error  # fmt: skip
        if not isinstance(made, torch.Tensor):
            found = type(made).__name__
        elif made.dtype != torch.uint8 or made.shape != image.shape:
            found = f"{str(made.dtype).removeprefix('torch.')} {list(made.shape)}"
        else:
            return made.numpy(force=True)
        raise InputError(
            "pipeline", f"must return an image of the form that it was given, {form}",
            f"{found} from {self.path}",
            "leave out conversions, normalisation and crops to another size",
        )  # fmt: skip


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global generators (torch on the CPU, numpy, random) start at `seed`, and are put back."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
