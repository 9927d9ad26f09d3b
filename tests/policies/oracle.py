"""The independent oracle: each operation written with Pillow alone.

Parameters are computed here from the published formulas (torchvision's reading of the paper:
index i of 10 stands i/9 of the way), not taken from the code under test.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageOps

PILLOW_OPS = (
    "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "AutoContrast", "Invert", "Equalize",
    "Solarize", "Posterize", "Contrast", "Color", "Brightness", "Sharpness",
)  # fmt: skip
SIGNED = (
    "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate",
    "Contrast", "Color", "Brightness", "Sharpness",
)  # fmt: skip


def linspace(low: float, high: float, index: int) -> float:
    """torch.linspace(low, high, 10)[index] as a Python float: float32 arithmetic."""
    import torch

    return float(torch.linspace(low, high, 10)[index])


def apply(image: Image.Image, name: str, index: int | None, negative: bool) -> Image.Image:
    sign = -1 if negative else 1
    width, height = image.size
    affine = Image.Transform.AFFINE
    if name == "ShearX":
        return image.transform(image.size, affine, (1, sign * linspace(0, 0.3, index), 0, 0, 1, 0))
    if name == "ShearY":
        return image.transform(image.size, affine, (1, 0, 0, sign * linspace(0, 0.3, index), 1, 0))
    if name == "TranslateX":
        pixels = sign * int(linspace(0, 150 / 331 * width, index))
        return image.transform(image.size, affine, (1, 0, -pixels, 0, 1, 0))
    if name == "TranslateY":
        pixels = sign * int(linspace(0, 150 / 331 * height, index))
        return image.transform(image.size, affine, (1, 0, 0, 0, 1, -pixels))
    if name == "Rotate":
        return image.rotate(sign * linspace(0, 30, index))
    if name == "AutoContrast":
        return ImageOps.autocontrast(image)
    if name == "Invert":
        return ImageChops.invert(image)
    if name == "Equalize":
        return ImageOps.equalize(image)
    if name == "Solarize":
        return ImageOps.solarize(image, linspace(255, 0, index))
    if name == "Posterize":
        return ImageOps.posterize(image, 8 - round(index / 2.25))
    enhancer = getattr(ImageEnhance, name)
    return enhancer(image).enhance(1.0 + sign * linspace(0, 0.9, index))


def cutout(image: Image.Image, side: int, row: int, column: int) -> Image.Image:
    image = image.copy()
    if side:
        left, top = column - side // 2, row - side // 2
        box = (left, top, left + side - 1, top + side - 1)  # Pillow's rectangles include the end
        ImageDraw.Draw(image).rectangle(box, fill=(128,) * len(image.getbands()))
    return image


def to_chw(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def to_pil(chw: np.ndarray) -> Image.Image:
    pixels = chw[0] if len(chw) == 1 else chw.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))
