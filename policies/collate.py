"""Batches for training straight from uint8 images: crop, policy, flip and normalise in few passes.

    loader = DataLoader(
        ImageFolder("train", loader=decode_image), batch_size=128, shuffle=True, num_workers=8,
        collate_fn=PolicyCollate(IMAGENET, 224),
    )

What a pipeline of one transform after another does image by image, with a copy for each, happens
here to the whole batch: the policy costs a few hundredths of what decoding a JPEG does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils._pytree import tree_leaves
from torch.utils.data import default_collate, get_worker_info

from .base import as_numpy, contiguous, run_cpu
from .errors import InputError, check_integer
from .own import OwnPipeline
from .policy import Policy
from .samples import annotations_of
from .transforms import PolicyTransform, Transform

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GROUP = 8  # images that go through all steps together: what fits the second-level cache
_TRIES = 10  # torchvision's: then the largest central crop of a legal shape


class PolicyCollate:
    """A DataLoader's ``collate_fn``: samples (uint8 image, label...) -> (float32 batch, labels...).

    In this order: random resized crop to ``size`` (as torchvision's, antialiased bilinear, with
    Pillow's arithmetic), the augmentation, a horizontal flip, and
    (value / 255 - mean) / std. An image is a PIL image (L or RGB) or a uint8 tensor or array
    [C, H, W] of any memory layout; what else a sample holds is collated as PyTorch does it.

    Args:
        augmentation: a Policy (paper convention), a Transform, or None for crop and flip alone.
        size: side of the crops in pixels; None: the images come at one size, and are not cropped.
        mean, std: of the channels on a scale of 0 to 1; of one channel for grey images.
        flip: probability of a mirrored image; 0 where that would be of another class (digits).
        scale: the crop's share of the image's area, from and to.
        ratio: the crop's width by its height, from and to (uniform in its logarithm).
        channels_last: lay the batch out in memory as [N, H, W, C].
        generator: source of all random numbers, as in ``Transform``; by default the
            augmentation's own, else torch's global one.

    Raises:
        InputError: for a number out of its range, or a schedule, which does not know the epoch.
    """

    def __init__(
        self,
        augmentation: Policy | Transform | None,
        size: int | None = None,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        flip: float = 0.5,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        channels_last: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        known = isinstance(augmentation, Policy | Transform | None)
        if not known or isinstance(augmentation, OwnPipeline):
            raise InputError(
                "augmentation", "must be a Policy, a Transform of operations, or None",
                augmentation,
                "make a Policy of plain rows; of a schedule take ScheduleTransform(schedule)."
                "at_epoch(epoch, epochs), anew in each epoch; a pipeline of your own works image "
                "by image",
            )  # fmt: skip
        if size is not None:
            check_integer("size", size, 1)
        if not _numbers((flip,)) or not 0 <= flip <= 1:
            raise InputError("flip", "must be a probability in 0..1", flip, "e.g. 0.5")
        if not _numbers(scale, 2) or not 0 < scale[0] <= scale[1] <= 1:
            raise InputError("scale", "must be two shares with 0 < from <= to <= 1", scale,
                             "e.g. (0.08, 1)")  # fmt: skip
        if not _numbers(ratio, 2) or not 0 < ratio[0] <= ratio[1]:
            raise InputError("ratio", "must be two numbers with 0 < from <= to", ratio,
                             "e.g. (3 / 4, 4 / 3)")  # fmt: skip
        if not _numbers(mean, 1, 3) or not _numbers(std, len(mean)) or min(std) <= 0:
            raise InputError("std", "must have a positive number for each of 1 or 3 means", std,
                             f"mean is {mean}")  # fmt: skip
        self.augmentation = augmentation
        if isinstance(augmentation, Transform):
            self._transform = augmentation
            if generator is not None:
                self._transform = augmentation.with_generator(generator)
        else:
            policy = augmentation or [[("Identity", 1.0, None)]]
            self._transform = PolicyTransform(policy, generator=generator)
        self.size, self.flip, self.scale, self.ratio = size, flip, scale, ratio
        self.channels_last = channels_last
        deviations = 255 * np.array(std, np.float64)
        self._factors = (1 / deviations).astype(np.float32)
        self._offsets = (-np.array(mean) / np.array(std)).astype(np.float32)

    def __call__(self, samples: Sequence[Any] | torch.Tensor) -> Any:
        """float32 [N, C, H, W], or a tuple of it and what else the samples hold.

        samples: a list of them; or images alone as one uint8 tensor [N, C, H, W], which are
            augmented and normalised where they lie, with the same draws on every device. On
            others than the CPU they cannot be cropped.

        Raises InputError for images of another kind, and of unlike channels or sizes.
        """
        if isinstance(samples, torch.Tensor) and samples.device.type != "cpu":
            return self._on_device(samples)
        if not len(samples):
            return self._nothing(samples)
        if self.size is not None or self.flip > 0 or self._transform._moving:
            self._check_alone(samples[0])
        alone = not isinstance(samples[0], tuple | list)
        images, *others = [samples] if alone else zip(*samples, strict=True)
        pixels = [_pixels(image) for image in images]
        self._check_channels({p.shape[2] for p in pixels})
        batch = self._batch(pixels)
        return batch if alone else (batch, *(default_collate(list(other)) for other in others))

    def _check_alone(self, sample: Any) -> None:
        """As a transform does that moves pixels."""
        left = annotations_of(tree_leaves(sample))
        if left:
            raise InputError(
                "samples", f"must come without {' and '.join(left)}, as the image would be moved "
                "and leave them behind", type(sample).__name__,
                "pass size=None, flip=0 and operations that only change colours",
            )  # fmt: skip

    def _nothing(self, samples: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        if not isinstance(samples, torch.Tensor | np.ndarray) or samples.ndim != 4:
            raise InputError("samples", "must be at least one", samples, "leave empty batches out")
        _, channels, *sides = samples.shape
        self._check_channels({channels})
        return self._empty(0, channels, *(sides if self.size is None else [self.size] * 2))

    def _batch(self, pixels: list[np.ndarray]) -> torch.Tensor:
        from .kernels_batch import normalise

        generator, count = self._transform._current_generator(), len(pixels)
        mirrored = self._mirrored(count, generator).numpy()
        if self.size is None:
            height, width, channels = _only_shape(pixels)
            boxes = np.tile((0, 0, height, width), (count, 1))
        else:
            height, width, channels = self.size, self.size, pixels[0].shape[2]
            sizes = np.array([p.shape[:2] for p in pixels])
            uniform = torch.rand(
                count, _TRIES + 1, 2, generator=generator, dtype=torch.float64, device="cpu"
            ).numpy()
            boxes = crops(sizes, self.scale, self.ratio, uniform)
        program = self._transform._draw(count, channels, height, width)
        group = count if program.pairs else min(count, GROUP)
        planes = np.empty((group, channels, height, width), np.uint8)
        augmented = np.empty_like(planes)
        batch = self._empty(count, channels, height, width)
        values = batch.permute(0, 2, 3, 1).numpy() if self._interleaved else batch.numpy()
        for start in range(0, count, group):
            stop = min(start + group, count)
            size = stop - start
            for plane, image, box in zip(
                planes, pixels[start:stop], boxes[start:stop].tolist(), strict=False
            ):
                _crop(image, box, plane)
            result = planes[:size]
            if self.augmentation is not None:
                result = augmented[:size]
                run_cpu(
                    planes[:size].reshape(size, channels, -1), program.part(start, stop), height,
                    width, self._transform.threads, result.reshape(size, channels, -1),
                )  # fmt: skip
            normalise(
                result, mirrored[start:stop], self._factors, self._offsets,
                values[start:stop], self._interleaved,
            )  # fmt: skip
        return batch

    def _on_device(self, images: torch.Tensor) -> torch.Tensor:
        """What `_batch` makes of uint8 [N, C, H, W], computed by torch where they lie."""
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise InputError(
                "images", "must be uint8 [N, C, H, W]", f"{images.dtype} {list(images.shape)}",
                "leave conversion to float to the collate function",
            )  # fmt: skip
        if self.size is not None:
            raise InputError(
                "size", f"must be None for images on {images.device}", self.size,
                "crop on the CPU, or leave the crop out",
            )  # fmt: skip
        self._check_channels({images.shape[1]})
        generator = self._transform._current_generator()
        mirrored = self._mirrored(len(images), generator)
        images = self._transform._call_torch(images)
        rows = mirrored.to(images.device).nonzero()[:, 0]
        images[rows] = images[rows].flip(3)
        scale, shift = (
            torch.from_numpy(values).to(images.device)[:, None, None]
            for values in (self._factors, self._offsets)
        )
        batch = images.float().mul_(scale).add_(shift)
        layout = torch.channels_last if self._interleaved else torch.contiguous_format
        return batch.contiguous(memory_format=layout)

    def _mirrored(self, count: int, generator: torch.Generator | None) -> torch.Tensor:
        """Whether each image is, bool [count] on the CPU."""
        drawn = torch.rand(count, generator=generator, dtype=torch.float32, device="cpu")
        return drawn < self.flip

    def _check_channels(self, channels: set[int]) -> None:
        if channels != {len(self._factors)}:
            raise InputError(
                "images", f"must have {len(self._factors)} channels, as mean has", sorted(channels),
                'image.convert("RGB"), or one mean and std for grey images',
            )  # fmt: skip

    @property
    def _interleaved(self) -> bool:
        return self.channels_last and len(self._factors) == 3

    def _empty(self, *shape: int) -> torch.Tensor:
        n, c, h, w = shape
        shape = (n, h, w, c) if self._interleaved else shape
        if get_worker_info() is None:
            out = torch.empty(shape, dtype=torch.float32, device="cpu")
        else:  # where the main process will read it: no copy
            storage = torch.UntypedStorage._new_shared(4 * math.prod(shape))
            empty = torch.empty(0, dtype=torch.float32, device="cpu")
            out = empty.set_(storage).view(shape)
        return out.permute(0, 3, 1, 2) if self._interleaved else out


def crops(
    sizes: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float], uniform: np.ndarray
) -> np.ndarray:
    """Boxes of random resized crops, int64 [N, 4]: top, left, height, width.

    torchvision's RandomResizedCrop: an area and a shape are drawn up to ten times until they fit,
    else the largest central crop of a legal shape is taken.

    Args:
        sizes: of the images, [N, 2]: height, width.
        scale, ratio: as in PolicyCollate.
        uniform: numbers in [0, 1), [N, 11, 2]: for area and shape of each try, and for the place.
    """
    high, wide = sizes[:, :1], sizes[:, 1:]
    area = high * wide * (scale[0] + (scale[1] - scale[0]) * uniform[:, :-1, 0])
    low, top = math.log(ratio[0]), math.log(ratio[1])
    shape = np.exp(low + (top - low) * uniform[:, :-1, 1])
    width = np.rint(np.sqrt(area * shape)).astype(np.int64)
    height = np.rint(np.sqrt(area / shape)).astype(np.int64)
    fits = (width > 0) & (width <= wide) & (height > 0) & (height <= high)
    rows, tried = np.arange(len(sizes)), fits.argmax(1)
    h, w = height[rows, tried], width[rows, tried]
    room_h, room_w = sizes[:, 0], sizes[:, 1]
    place = uniform[:, -1]
    y, x = ((np.stack([room_h - h, room_w - w], 1) + 1) * place).astype(np.int64).T
    lost = ~fits.any(1)
    if lost.any():
        whole_h = np.minimum(room_h, np.rint(room_w / ratio[0]).astype(np.int64))
        whole_w = np.minimum(room_w, np.rint(room_h * ratio[1]).astype(np.int64))
        h, w = np.where(lost, np.maximum(whole_h, 1), h), np.where(lost, np.maximum(whole_w, 1), w)
        y, x = np.where(lost, (room_h - h) // 2, y), np.where(lost, (room_w - w) // 2, x)
    return np.stack([y, x, h, w], 1)


def _pixels(image: Any) -> np.ndarray:
    """A view [H, W, C] of a PIL image or of a uint8 tensor or array [C, H, W]."""
    if isinstance(image, Image.Image) and image.mode in ("L", "RGB"):
        pixels = np.asarray(image)
        return pixels[..., None] if pixels.ndim == 2 else pixels
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8:
        image = as_numpy(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        mode = f" of mode {image.mode}" if isinstance(image, Image.Image) else ""
        raise InputError(
            "images", "must be PIL images (L or RGB), or uint8 tensors or arrays [C, H, W]",
            f"{type(image).__name__}{mode}", "leave conversion to float to the collate function",
        )  # fmt: skip
    if not image.size:
        raise InputError(
            "images", "must have pixels", f"uint8 {list(image.shape)}", "leave empty images out"
        )
    return image.transpose(1, 2, 0)


def _numbers(values: Any, *counts: int) -> bool:
    """Whether it is a sequence of (so many) finite numbers."""
    return (
        isinstance(values, Sequence | np.ndarray)
        and all(isinstance(each, Real) and math.isfinite(each) for each in values)
        and (not counts or len(values) in counts)
    )


def _only_shape(pixels: list[np.ndarray]) -> tuple[int, int, int]:
    shapes = {p.shape for p in pixels}
    if len(shapes) > 1:
        raise InputError(
            "images", "must be of one size where no crop's size is given",
            sorted(shape[:2] for shape in shapes)[:3], "e.g. PolicyCollate(policy, 224)",
        )  # fmt: skip
    return shapes.pop()


def _crop(image: np.ndarray, box: tuple[int, int, int, int], plane: np.ndarray) -> None:
    """A part of an image [H, W, C], resized to `plane` [C, h, w] where it has another size."""
    if tuple(box) == (0, 0, *plane.shape[1:]) and image.shape[:2] == plane.shape[1:]:
        plane[...] = contiguous(image.transpose(2, 0, 1)[None])[0]
    elif len(plane) == 3:
        from .kernels_batch import resize

        resize(np.ascontiguousarray(image), *box, plane)
    else:  # rare enough to go the way of colours
        colours = np.empty((3, *plane.shape[1:]), np.uint8)
        _crop(image.repeat(3, 2), box, colours)
        plane[0] = colours[0]
