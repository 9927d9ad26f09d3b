"""A network in training: what one step needs, and what a checkpoint of it must hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from policies.errors import InputError, check_choice
from policies.imports import is_import_path, resolve

from .graphs import Replayed
from .mixing import erase, make_loss, make_mix
from .presets import OPTIMIZERS, Preset
from .stacked import each


class Learner:
    """One network, its optimiser, its loss, and the average of its weights, as a preset says.

    Args:
        network: any module from float images [N, C, H, W] to logits [N, classes]; trained in place.
        preset: what the recipe is; `model`, `epochs` and the learning rate's schedule aside.
        classes: number of classes.
        device: where network and batches are.
        precision: what the forward pass computes in (`training.pick_precision`).
        forward: what a training step calls instead of the network (a DistributedDataParallel
            around it).
        children: how many the network is a stack of (`stacked.stack`); the losses are then one of
            each.
        graphs: whether steps are to be recorded (`graphs.Replayed`): the rate is then a tensor.
    """

    def __init__(
        self,
        network: nn.Module,
        preset: Preset,
        classes: int,
        device: torch.device,
        precision: torch.dtype,
        forward: Callable[[Tensor], Tensor] | None = None,
        children: int = 1,
        graphs: bool = False,
    ) -> None:
        self.network, self.forward = network, network if forward is None else forward
        self.device, self.precision, self.erase = device, precision, preset.erase
        self.replayed: Replayed | None = None
        rate = torch.tensor(preset.lr, device=device) if graphs else preset.lr
        self.optimizer = make_optimizer(preset, network, rate)
        loss = make_loss(preset.loss, preset.smoothing, preset.threshold, device)
        self.loss = loss if children == 1 else each(loss)
        self.mix = make_mix(preset.mixup, preset.cutmix, classes)
        self.average: AveragedModel | None = None
        if preset.ema:
            update = get_ema_multi_avg_fn(preset.ema)
            self.average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate and keep: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps to come."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def step(self, batch: Tensor, labels: Tensor, rate: float | None, share: float = 1.0) -> Tensor:
        """Train on one normalised batch [N, C, H, W] with labels int64 [N], at a learning rate.

        rate: None for the one that was set. share: what the mean over this batch weighs in the
        step, where processes train together.
        Returns the mean loss, a scalar without gradient; of a stack of children that of each, from
        a batch [N, children * C, H, W] with labels [N, children].
        """
        if rate is not None:
            self.set_rate(rate)
        if self.erase:
            erase(batch, self.erase)
        targets = labels
        if self.mix is not None:
            batch, targets = self.mix(batch, labels)
        with autocast(self.device, self.precision):
            logits = self.forward(batch)
        # Outside of it, as a loss of a user's own may be of operations that it makes imprecise.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = self.loss(logits, targets)
        loss.backward(torch.full_like(loss, share))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and text only: it survives torch.load(..., weights_only=True)."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The surroundings in which a network computes in `precision`."""
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32)


def make_optimizer(
    preset: Preset, network: nn.Module, rate: float | Tensor
) -> torch.optim.Optimizer:
    """The preset's optimiser for all parameters; the rate is set before every step.

    rate: a tensor where steps are recorded.

    Raises InputError for an unknown one, and for arguments that it does not take.
    """
    if "lr" in preset.optimizer_options:
        raise InputError(
            "optimizer_options", "must leave the learning rate to the schedule",
            preset.optimizer_options["lr"], "say it as lr",
        )  # fmt: skip
    settings: dict[str, Any] = {"lr": rate, "weight_decay": preset.weight_decay}
    if preset.optimizer == "sgd":
        kind: Callable = torch.optim.SGD
        settings |= {"momentum": preset.momentum, "nesterov": preset.momentum > 0, "fused": True}
    elif preset.optimizer == "adamw":
        kind = torch.optim.AdamW
        settings |= {"fused": True, "capturable": isinstance(rate, Tensor) and rate.is_cuda}
    else:
        if not is_import_path(preset.optimizer):
            check_choice("optimizer", preset.optimizer, (*OPTIMIZERS, "package.module:name"))
        kind = resolve("optimizer", preset.optimizer)
    try:
        made = kind(network.parameters(), **{**settings, **preset.optimizer_options})
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "optimizer_options", f"must be arguments of {preset.optimizer}",
            {**settings, **preset.optimizer_options}, str(error),
        ) from error  # fmt: skip
    if not isinstance(made, torch.optim.Optimizer):
        raise InputError(
            "optimizer", "must make a torch.optim.Optimizer",
            f"{preset.optimizer}, a {type(made).__name__}", "name its class",
        )  # fmt: skip
    return made
