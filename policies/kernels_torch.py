"""The same kernels in torch, for batches that live on an accelerator.

Images are grouped by operation: whatever the batch size, each step of the program costs at most
one group a kernel, each with a fixed number of launches. Which image goes where is known on the
host, so indices and parameters travel in one upload and nothing is ever read back: no host
synchronisation. Bit-exact with Pillow: integers where Pillow has integers, products and sums as
separate launches where it rounds in between (a fused multiply-add would not).
"""

from __future__ import annotations

import numpy as np
import torch

from .errors import InputError
from .program import CODE, KERNELS, Program

_GREY = 128  # Cutout's filling


def run(images: torch.Tensor, program: Program) -> torch.Tensor:
    """What becomes of uint8 images [N, C, H, W] under ``program``: a new contiguous tensor."""
    if images.device.type == "mps":
        raise InputError(
            "images", "must be on the CPU or a CUDA device (MPS has no float64)",
            str(images.device), "move them with images.cpu()",
        )  # fmt: skip
    current = images.clone(memory_format=torch.contiguous_format)
    codes = program.table.codes[program.steps]
    groups = [
        (k, KERNELS[code], np.flatnonzero(codes[:, k] == code))
        for k in range(codes.shape[1])
        for code in np.unique(codes[:, k])
        if code != CODE["identity"]
    ]
    if not groups:
        return current
    upload = _upload(program, groups, images.device)
    fill = _to_device(program.fill, images.device).view(-1, 1, 1)
    start = 0
    for _, name, members in groups:
        rows = upload[start : start + len(members)]
        start += len(members)
        index = rows[:, 0]
        argument = _Argument(rows, images, fill)
        current.index_copy_(0, index, _KERNELS[name](current.index_select(0, index), argument))
    return current


def _upload(program: Program, groups: list, device: torch.device) -> torch.Tensor:
    """int64 [T, 10], one row per applied operation: image, value (bits of a float64), matrix,
    extra."""
    table, parts = program.table, []
    for k, _, members in groups:
        entries = program.steps[members, k]
        part = np.empty((len(members), 10), np.int64)
        part[:, 0] = members
        part[:, 1] = table.values[entries].view(np.int64)
        part[:, 2:8] = table.matrices[entries]
        part[:, 8:] = program.extra[members, k]
        parts.append(part)
    return _to_device(np.concatenate(parts), device)


def _to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    host = torch.from_numpy(array)
    if device.type == "cuda":
        host = host.pin_memory()  # otherwise the copy would wait for the device
    return host.to(device, non_blocking=True)


class _Argument:
    """The parameters of one group, shaped to broadcast over [M, C, H, W]."""

    def __init__(self, rows: torch.Tensor, images: torch.Tensor, fill: torch.Tensor) -> None:
        self.value = rows[:, 1].contiguous().view(torch.float64).view(-1, 1, 1, 1)
        self.factor = self.value.to(torch.float32)
        self.matrix = rows[:, 2:8].view(-1, 6, 1, 1)
        self.row, self.column = (rows[:, k].view(-1, 1, 1, 1) for k in (8, 9))
        self.partner = rows[:, 8]
        self.images = images
        self.fill = fill


def _blend(a: torch.Tensor, b: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Image.blend: float32, clipped, truncated."""
    a = a.to(torch.float32)
    return (b.to(torch.float32).sub_(a).mul_(factor).add_(a)).clamp_(0, 255).to(torch.uint8)


def _grey(x: torch.Tensor) -> torch.Tensor:
    if x.shape[1] == 1:
        return x
    r, g, b = (x[:, c : c + 1].to(torch.int32) for c in range(3))
    return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16


def _look_up(x: torch.Tensor, lut: torch.Tensor) -> torch.Tensor:
    """``lut`` [M, C, 256] applied to x [M, C, H, W]."""
    return lut.to(torch.uint8).gather(2, x.flatten(2).long()).view(x.shape)


def _counts(x: torch.Tensor) -> torch.Tensor:
    """Histograms int64 [M, C, 256]."""
    flat = x.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=x.device)
    return counts.scatter_add_(2, flat, counts.new_ones(()).expand(flat.shape))


def _invert(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    return 255 - x


def _solarize(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    return torch.where(x.to(torch.int16) < a.value.ceil().to(torch.int16), x, 255 - x)


def _posterize(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    unit = torch.bitwise_left_shift(torch.ones_like(a.row), 8 - a.value.long())
    return x & (256 - unit).to(torch.uint8)


def _brightness(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    return _blend(torch.zeros_like(x), x, a.factor)


def _contrast(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    total = _grey(x).sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
    mean = (total.to(torch.float64) / (x.shape[2] * x.shape[3]) + 0.5).floor()
    return _blend(mean.expand(x.shape), x, a.factor)


def _color(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    return x if x.shape[1] == 1 else _blend(_grey(x).expand(x.shape), x, a.factor)


def _sharpness(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    height, width = x.shape[2:]
    out = x.clone()
    if height < 3 or width < 3:
        return out
    wide = x.to(torch.int16)
    centre = wide[:, :, 1:-1, 1:-1]
    total = 4 * centre
    for dy in range(3):
        for dx in range(3):
            total += wide[:, :, dy : dy + height - 2, dx : dx + width - 2]
    smooth = (2 * total + 13).div_(26, rounding_mode="floor")
    out[:, :, 1:-1, 1:-1] = _blend(smooth, centre, a.factor)
    return out


def _autocontrast(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    low, high = (f(x.flatten(2), dim=2, keepdim=True) for f in (torch.amin, torch.amax))
    low, high = low.to(torch.float64), high.to(torch.float64)
    values = torch.arange(256, device=x.device, dtype=torch.float64)
    # A true division: 255.0 / tensor would multiply by the rounded reciprocal.
    scale = torch.full_like(low, 255.0) / (high - low).clamp(min=1)
    lut = (values * scale).add_(-low * scale).clamp_(0, 255).trunc_()
    return _look_up(x, torch.where(high > low, lut, values))


def _equalize(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    counts = _counts(x)
    values = torch.arange(256, device=x.device)
    highest = x.flatten(2).amax(dim=2, keepdim=True).long()
    step = (x.shape[2] * x.shape[3] - counts.gather(2, highest)) // 255
    below = counts.cumsum(2) - counts
    lut = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    return _look_up(x, torch.where(step > 0, lut, values))


def _affine(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device).view(-1, 1)
    columns = torch.arange(width, device=x.device)
    m = a.matrix
    column = (m[:, 0] * columns + m[:, 1] * rows + m[:, 2]) >> 16
    row = (m[:, 3] * columns + m[:, 4] * rows + m[:, 5]) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = torch.where(inside, row * width + column, 0).flatten(1)[:, None]
    moved = x.flatten(2).gather(2, source.expand(-1, x.shape[1], -1)).view(x.shape)
    return torch.where(inside[:, None], moved, a.fill)


def _cutout(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    rows = torch.arange(x.shape[2], device=x.device).view(-1, 1)
    columns = torch.arange(x.shape[3], device=x.device)
    side = a.value.long()
    top, left = a.row - side // 2, a.column - side // 2
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return x.masked_fill(inside, _GREY)


def _pairing(x: torch.Tensor, a: _Argument) -> torch.Tensor:
    return _blend(x, a.images.index_select(0, a.partner), a.factor)


_KERNELS = {
    "invert": _invert, "solarize": _solarize, "posterize": _posterize,
    "brightness": _brightness, "autocontrast": _autocontrast, "equalize": _equalize,
    "contrast": _contrast, "color": _color, "sharpness": _sharpness, "affine": _affine,
    "cutout": _cutout, "pairing": _pairing,
}  # fmt: skip
