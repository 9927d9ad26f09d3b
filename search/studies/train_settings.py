"""The settings of `augsearch train`: whose child, under which policy, by which recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from policies.errors import InputError
from policies.options import Option
from proxy_tasks.presets import Preset
from proxy_tasks.recipe import Recipe

from .settings import ARM, Settings, seed_option


@dataclass(frozen=True)
class _Trained(Settings):
    """What is trained, and under which policy."""

    policy: Annotated[str, Option(ARM, unit="ARM", example="imagenet")]
    seed: Annotated[
        int, seed_option("seed of the child's weights, image order and augmentation")
    ] = 0
    model: Annotated[
        str | None,
        Option(
            "what is trained: convnet, wrn-40-2, wrn-16-1, torchvision:NAME, timm:NAME, or "
            "one of your own as package.module:name, a callable of num_classes and channels",
            unit="NAME", unset="the preset's", example="torchvision:resnet18",
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class TrainSettings(Recipe, _Trained):
    """What is trained, and how. What is None is as in the preset.

    arm: what `policy` means, filled in before the first epoch (`arms.Arm.to_json`).
    """

    tensorboard: Annotated[
        bool, Option("also write event files for TensorBoard into DIR/tensorboard")
    ] = False
    arm: dict[str, Any] | None = None

    def applied(self, preset: Preset) -> Preset:
        """The preset with what is set here in its place, the model too."""
        changed = super().applied(preset)
        return changed if self.model is None else dataclasses.replace(changed, model=self.model)

    def joined(self, recipe: dict[str, Any]) -> TrainSettings:
        """With the pieces of a recipe that an arm names; InputError where an option differs."""
        for name, value in recipe.items():
            if getattr(self, name) not in (None, value):
                raise InputError(
                    name, f"must not differ from the {name} of the policy", getattr(self, name),
                    f"say it once: {self.policy} has {value}",
                )  # fmt: skip
        return dataclasses.replace(self, **recipe)

    def grown_from(self, saved: TrainSettings) -> TrainSettings:
        """The policy must be what it was, not only be called so."""
        if saved.arm is not None and self.arm != saved.arm:
            raise InputError(
                "policy", "must be what it was when the run was started", self.policy,
                "restore the file, or start a new run in another folder",
            )  # fmt: skip
        return self
