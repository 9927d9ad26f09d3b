"""The settings of `augsearch train`: whose child, under which policy, by which recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from policies.errors import InputError
from policies.options import Option
from proxy_tasks.presets import LOSSES, OPTIMIZERS, Preset

from .seeds import LARGEST_SEED
from .settings import ARMS, Settings

PRESETS = "the preset's"


def _number(
    what: str, unit: str = "X", unset: str = PRESETS, example: float | None = None, **bounds: float
) -> Option:
    return Option(what, unit=unit, unset=unset, example=example, **bounds)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TrainSettings(Settings):
    """What is trained. What is None is as in the preset.

    arm: what `policy` means, filled in before the first epoch (`arms.Arm.to_json`).
    """

    policy: Annotated[str, Option(ARMS, unit="ARM", example="imagenet")]
    seed: Annotated[
        int,
        Option("seed of the child's weights, image order and augmentation", unit="N", least=0,
               most=LARGEST_SEED),
    ] = 0  # fmt: skip
    model: Annotated[
        str | None,
        Option(
            "convnet, wrn-40-2, torchvision:NAME, timm:NAME, or a model of your own as "
            "package.module:name, a callable of num_classes and channels",
            unit="NAME", unset=PRESETS, example="torchvision:resnet18",
        ),
    ] = None  # fmt: skip
    batch_size: Annotated[
        int | None, _number("images of a batch, over all processes", "N", example=128, least=2)
    ] = None
    lr: Annotated[float | None, _number("peak learning rate", example=0.1, above=0)] = None
    schedule: Annotated[
        Literal["cosine", "one-cycle", "step"] | None,
        Option("how the learning rate falls from its peak", unit="NAME", unset=PRESETS,
               example="cosine"),
    ] = None  # fmt: skip
    warmup: Annotated[
        float | None,
        _number("share of the training in which the learning rate rises to its peak", "SHARE",
                example=0.05, least=0, below=1),
    ] = None  # fmt: skip
    final_lr: Annotated[
        float | None, _number("learning rate at the end", example=1e-5, least=0)
    ] = None
    optimizer: Annotated[
        str | None,
        Option(f"{', '.join(OPTIMIZERS)}, or package.module:name", unit="NAME", unset=PRESETS,
               example="sgd"),
    ] = None  # fmt: skip
    optimizer_options: Annotated[
        dict | None,
        Option("further arguments of the optimiser as JSON", unit="JSON", unset="none",
               rule='an object, e.g. {"betas": [0.9, 0.95]}'),
    ] = None  # fmt: skip
    weight_decay: Annotated[float | None, _number("weight decay", example=5e-4, least=0)] = None
    momentum: Annotated[float | None, _number("momentum of sgd", example=0.9, least=0, below=1)] = (
        None
    )
    loss: Annotated[
        str | None,
        Option(f"{', '.join(LOSSES)}, or package.module:name", unit="NAME", unset=PRESETS,
               example="cross-entropy"),
    ] = None  # fmt: skip
    smoothing: Annotated[
        float | None, _number("label smoothing", "SHARE", example=0.1, least=0, below=1)
    ] = None
    threshold: Annotated[
        float | None,
        _number("binary-cross-entropy: a mixed image's classes count as wholly present above this "
                "share", "SHARE", "shares are kept", example=0.2, least=0, below=1),
    ] = None  # fmt: skip
    mixup: Annotated[
        float | None, _number("MixUp with shares from Beta(X, X); 0: none", example=0.2, least=0)
    ] = None
    cutmix: Annotated[
        float | None, _number("CutMix with shares from Beta(X, X); 0: none", example=1.0, least=0)
    ] = None
    erase: Annotated[
        float | None,
        _number("probability of erasing a rectangle of an image", "P", example=0.25, least=0,
                most=1),
    ] = None  # fmt: skip
    copies: Annotated[
        int | None,
        _number("differently augmented copies of an image in a batch (repeated augmentation)", "N",
                example=3, least=1),
    ] = None  # fmt: skip
    ema: Annotated[
        float | None,
        _number("judge and keep an average of the weights that keeps this share of itself in every "
                "step; 0: none", "SHARE", example=0.999, least=0, below=1),
    ] = None  # fmt: skip
    pad: Annotated[
        int | None,
        _number("pixels of zero padding around the random crop", "PIXELS", example=4, least=0),
    ] = None
    tensorboard: Annotated[
        bool, Option("also write event files for TensorBoard into DIR/tensorboard")
    ] = False
    arm: dict[str, Any] | None = None

    def recipe(self, preset: Preset) -> Preset:
        """The preset with what is set here in its place."""
        if self.momentum is not None and (self.optimizer or preset.optimizer) != "sgd":
            raise InputError(
                "momentum", "is a setting of sgd only", self.momentum,
                "say it in --optimizer-options, as the optimiser calls it",
            )  # fmt: skip
        names = [field.name for field in dataclasses.fields(preset)]
        given = {name: getattr(self, name, None) for name in names}
        return dataclasses.replace(preset, **{k: v for k, v in given.items() if v is not None})

    def grown_from(self, saved: TrainSettings) -> TrainSettings:
        """The policy must be what it was, not only be called so."""
        if saved.arm is not None and self.arm != saved.arm:
            raise InputError(
                "policy", "must be what it was when the run was started", self.policy,
                "restore the file, or start a new run in another folder",
            )  # fmt: skip
        return self
