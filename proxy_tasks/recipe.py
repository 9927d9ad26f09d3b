"""How a child is trained where that differs from its preset: each option declared once.

A recipe is the options of `augsearch train`, an option of every evaluator that trains children, so
that a policy can be searched for the recipe it will be used in, and a part of a comparison's arm:

    augsearch search --evaluator-options '{"recipe": {"cutmix": 1.0, "erase": 0.25}}' ...
    augsearch compare --policy none imagenet+cutmix:1.0+erase:0.25 ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from policies.errors import InputError
from policies.options import Configuration, Option, checked_options, options_of

from .presets import LOSSES, OPTIMIZERS, Preset

_PRESETS = "the preset's"


@dataclass(frozen=True)
class Recipe(Configuration):
    """Fields of a `Preset` by their names. None: as in the preset."""

    batch_size: Annotated[
        int | None,
        Option("images of a batch, over all processes", unit="N", unset=_PRESETS, example=128,
               least=2),
    ] = None  # fmt: skip
    lr: Annotated[
        float | None, Option("peak learning rate", unset=_PRESETS, unit="X", example=0.1, above=0)
    ] = None
    schedule: Annotated[
        Literal["cosine", "one-cycle", "step"] | None,
        Option("how the learning rate falls from its peak", unit="NAME", unset=_PRESETS,
               example="cosine"),
    ] = None  # fmt: skip
    warmup: Annotated[
        float | None,
        Option("share of the training in which the learning rate rises to its peak", unit="SHARE",
               unset=_PRESETS, example=0.05, least=0, below=1),
    ] = None  # fmt: skip
    final_lr: Annotated[
        float | None,
        Option("learning rate at the end", unit="X", unset=_PRESETS, example=1e-5, least=0),
    ] = None
    optimizer: Annotated[
        str | None,
        Option(f"optimiser: {', '.join(OPTIMIZERS)}, or package.module:name", unit="NAME",
               unset=_PRESETS, example="sgd"),
    ] = None  # fmt: skip
    optimizer_options: Annotated[
        dict | None,
        Option("further arguments of the optimiser as JSON", unit="JSON", unset="none",
               rule='an object, e.g. {"betas": [0.9, 0.95]}'),
    ] = None  # fmt: skip
    weight_decay: Annotated[
        float | None, Option("weight decay", unit="X", unset=_PRESETS, example=5e-4, least=0)
    ] = None
    momentum: Annotated[
        float | None,
        Option("momentum of sgd", unit="X", unset=_PRESETS, example=0.9, least=0, below=1),
    ] = None
    loss: Annotated[
        str | None,
        Option(f"loss: {', '.join(LOSSES)}, or package.module:name", unit="NAME", unset=_PRESETS,
               example="cross-entropy"),
    ] = None  # fmt: skip
    smoothing: Annotated[
        float | None,
        Option("label smoothing", unit="SHARE", unset=_PRESETS, example=0.1, least=0, below=1),
    ] = None
    threshold: Annotated[
        float | None,
        Option("of binary-cross-entropy: a mixed image's classes count as wholly present above "
               "this share", unit="SHARE", unset="shares are kept", example=0.2, least=0, below=1),
    ] = None  # fmt: skip
    mixup: Annotated[
        float | None,
        Option("MixUp with shares from Beta(X, X); 0: none", unit="X", unset=_PRESETS,
               example=0.2, least=0),
    ] = None  # fmt: skip
    cutmix: Annotated[
        float | None,
        Option("CutMix with shares from Beta(X, X); 0: none", unit="X", unset=_PRESETS,
               example=1.0, least=0),
    ] = None  # fmt: skip
    erase: Annotated[
        float | None,
        Option("probability of erasing a rectangle of an image", unit="P", unset=_PRESETS,
               example=0.25, least=0, most=1),
    ] = None  # fmt: skip
    copies: Annotated[
        int | None,
        Option("differently augmented copies of an image in a batch (repeated augmentation)",
               unit="N", unset=_PRESETS, example=3, least=1),
    ] = None  # fmt: skip
    ema: Annotated[
        float | None,
        Option("judge and keep an average of the weights that keeps this share of itself in every "
               "step; 0: none", unit="SHARE", unset=_PRESETS, example=0.999, least=0, below=1),
    ] = None  # fmt: skip
    pad: Annotated[
        int | None,
        Option("pixels of zero padding around the random crop", unit="PIXELS", unset=_PRESETS,
               example=4, least=0),
    ] = None  # fmt: skip

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str = "a recipe") -> Recipe:
        """The recipe with these options. Raises InputError that names `where` and the option."""
        if not isinstance(values, Mapping):
            raise InputError(
                f"recipe of {where}", "must be an object", values, 'e.g. {"cutmix": 1.0}'
            )
        return cls(**checked_options(values, options_of(Recipe), where))

    def applied(self, preset: Preset) -> Preset:
        """The preset with what is set here in its place."""
        if self.momentum is not None and (self.optimizer or preset.optimizer) != "sgd":
            raise InputError(
                "momentum", "is a setting of sgd only", self.momentum,
                "say it in optimizer_options, as the optimiser calls it",
            )  # fmt: skip
        if self.final_lr is not None and (self.schedule or preset.schedule) == "step":
            raise InputError(
                "final_lr", "is no setting of the schedule step, which ends at 1 % of lr",
                self.final_lr, "use cosine or one-cycle, or leave it out",
            )  # fmt: skip
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(Recipe)}
        return dataclasses.replace(preset, **{k: v for k, v in given.items() if v is not None})
