"""Which parts of a sample are the image: torchvision v2's rules, as for its own AutoAugment.

A sample is anything that a data set returns: (image, label), a dict, nested tuples. Its one image
is the PIL image, ``tv_tensors.Image`` or ``tv_tensors.Video`` in it; where there is none of these,
the first plain tensor; where there is no tensor either, the first numpy array. Everything else,
further tensors included, is passed on untouched. Masks, boxes and key points are named, since what
moves an image would have to move them too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from .errors import InputError

Images = Image.Image | torch.Tensor | np.ndarray


def annotations_of(leaves: Any) -> tuple[str, ...]:
    """Kinds of the masks, boxes and key points among the parts of a sample."""
    from torchvision import tv_tensors

    return tuple(
        dict.fromkeys(
            type(leaf).__name__
            for leaf in leaves
            if isinstance(leaf, tv_tensors.TVTensor)
            and not isinstance(leaf, tv_tensors.Image | tv_tensors.Video)
        )
    )


class Sample:
    """A sample taken apart.

    Attributes:
        image: the image in it, or None where there is none.
        annotations: kinds of the masks, boxes and key points in it.

    Raises:
        InputError: for more than one image: whether they should share a draw, nobody has said.
    """

    def __init__(self, sample: Any) -> None:
        from torchvision import tv_tensors

        self._leaves: list[Any]
        self._structure: TreeSpec
        self._leaves, self._structure = tree_flatten(sample)
        explicit, tensors, arrays = [], [], []
        for place, leaf in enumerate(self._leaves):
            if isinstance(leaf, Image.Image | tv_tensors.Image | tv_tensors.Video):
                explicit.append(place)
            elif isinstance(leaf, torch.Tensor) and not isinstance(leaf, tv_tensors.TVTensor):
                tensors.append(place)
            elif isinstance(leaf, np.ndarray):
                arrays.append(place)
        if len(explicit) > 1:
            raise InputError(
                "images", "must be only one in a sample", f"{len(explicit)} of them",
                "call the transform for each; a mask belongs into a tv_tensors.Mask",
            )  # fmt: skip
        self._place = next(iter(explicit or tensors or arrays), None)
        self.annotations = annotations_of(self._leaves)

    @property
    def image(self) -> Images | None:
        return None if self._place is None else self._leaves[self._place]

    def with_image(self, image: Images) -> Any:
        """The sample with another image in the place of its own; all else is the same objects."""
        if self._place is None:
            raise ValueError("the sample has no image to replace")
        leaves = list(self._leaves)
        leaves[self._place] = image
        return tree_unflatten(leaves, self._structure)
