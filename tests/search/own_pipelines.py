"""Pipelines as users write them: named by import path in test_own_pipeline.py."""

from __future__ import annotations

import random

import numpy as np
import torch
from torchvision.transforms import v2

pipeline = v2.Compose([v2.RandomAffine(20), v2.ColorJitter(0.4, 0.4)])
unlike = v2.Compose([v2.RandomErasing(1.0)])
normalising = v2.Compose([v2.ToDtype(torch.float32, scale=True)])
cropping = v2.Compose([v2.CenterCrop(5)])
constant = 7


def drawing(image):
    """A number of each global generator in the first three pixels."""
    image = image.clone()
    image[0, 0, 0] = int(torch.randint(256, ()))
    image[0, 0, 1] = np.random.randint(256)
    image[0, 0, 2] = random.randrange(256)
    return image


def brighten(image):
    return (image.int() + 40).clamp(max=255).to(torch.uint8)


def to_picture(image):
    return v2.functional.to_pil_image(image)


def failing(image):
    raise ValueError("no such image")
