"""Contact sheets: what every sub-policy does to example images, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from policies import Policy, PolicyTransform
from policies.files import write_atomically

SIDE = 96  # pixels of one thumbnail
GAP = 4
HEAD = 22
TEXT, BACKGROUND, LINE = (32, 32, 32), (255, 255, 255), (222, 222, 222)


def policy_sheet(
    policy: Policy,
    images: np.ndarray,
    path: str | Path,
    *,
    convention: str = "paper",
    certain: bool = False,
    seed: int = 0,
    title: str = "",
    fill: int | tuple[int, ...] = 0,
) -> Path:
    """Draw one row per sub-policy over the images, the untouched images above.

    `images`: uint8 [N, C, H, W], C = 1 or 3. Each cell is one draw, as in training, so that an
    operation of probability 0.2 is mostly not seen; with `certain` every operation is applied.
    Small images are enlarged without smoothing: what is seen are the pixels the child is given.
    """
    font = ImageFont.load_default(13)
    labels = [_label(sub) for sub in policy]
    rows = [images]
    batch = torch.from_numpy(np.array(images))
    for index, sub in enumerate(policy):
        if certain:
            sub = [(name, 1.0, magnitude) for name, _, magnitude in sub]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        one = Policy([sub], bins=policy.bins)
        drawn_by = PolicyTransform(one, convention=convention, fill=fill, generator=generator)
        rows.append(drawn_by(batch).numpy())
    margin = 10 + max(int(font.getlength(line)) for label in labels for line in label)
    step = SIDE + GAP
    width = margin + len(images) * step + GAP
    sheet = Image.new("RGB", (width, HEAD + len(rows) * step + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    heading = title or f"{len(policy)} sub-policies"
    drawn = "every operation applied" if certain else "one draw per image, as in training"
    draw.text((6, 4), f"{heading} ({drawn})", TEXT, font)
    for row, (pictures, label) in enumerate(zip(rows, [("original",), *labels], strict=True)):
        top = HEAD + row * step
        draw.line((0, top - GAP // 2, width, top - GAP // 2), LINE)
        for line, text in enumerate(label):
            draw.text((6, top + SIDE / 2 + (line - len(label) / 2) * 17), text, TEXT, font)
        for column, picture in enumerate(pictures):
            sheet.paste(_thumbnail(picture), (margin + column * step, top))
    picture_file = io.BytesIO()
    sheet.save(picture_file, format="PNG")
    write_atomically(Path(path), picture_file.getvalue())
    return Path(path)


def _label(sub: Sequence[tuple]) -> tuple[str, ...]:
    return tuple(
        f"{name}  p {probability:g}" + ("" if magnitude is None else f"  m {magnitude}")
        for name, probability, magnitude in sub
    )


def _thumbnail(picture: np.ndarray) -> Image.Image:
    channels, height, width = picture.shape
    array = picture[0] if channels == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
    smooth = max(height, width) > SIDE
    method = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(array).convert("RGB").resize(size, method)
