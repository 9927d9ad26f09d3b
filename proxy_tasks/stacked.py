"""Several children of one architecture as one network: their channels side by side.

Small children leave a GPU waiting for launches. A stack has the launches of one child: grouped
convolutions, batch norm over all channels, one batched product for a linear layer; what has no
weights (ReLU, pooling) works on each channel anyway. This was preferred to `torch.func.vmap` over
stacked weights, which autocast does not see through, so that children at once would compute in
other number formats than a child alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .mixing import Loss


class Linears(nn.Module):
    """The linear layers of `count` children: [N, count * I] or [N, count, I] -> [N, count, O].

    weight [count * O, I] and bias [count * O], as in all other layers of a stack.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), self.count, -1).transpose(0, 1)
        weight = self.weight.view(self.count, -1, x.shape[2]).transpose(1, 2)
        if self.bias is None:
            return torch.bmm(x, weight).transpose(0, 1)
        return torch.baddbmm(self.bias.view(self.count, 1, -1), x, weight).transpose(0, 1)


def stack(children: Sequence[nn.Module]) -> nn.Module:
    """One network of them, [N, count * C, H, W] -> logits [N, count, classes]; one child alone is
    its own stack.

    It holds copies of their weights, joined along the first dimension. Raises ValueError for a
    layer with weights that is no convolution, batch norm or linear layer. Layers without weights
    are taken to keep channels apart: `keeps_apart` finds out.
    """
    count = len(children)
    if count == 1:
        return children[0]
    network = copy.deepcopy(children[0])
    joined: dict[int, Any] = {id(None): None}  # so that what is shared stays shared
    layer: Any  # its attributes are numbers
    for (name, _), *layers in zip(
        list(network.named_modules()), *(child.modules() for child in children), strict=True
    ):
        first, layer = layers[0], network.get_submodule(name)
        own = {**first._parameters, **first._buffers}
        if not own:
            continue
        if type(first) is nn.Conv2d:
            layer.in_channels *= count
            layer.out_channels *= count
            layer.groups *= count
        elif type(first) is nn.BatchNorm2d:
            layer.num_features *= count
        elif type(first) is nn.Linear:
            layer = Linears(count).train(first.training)
            network.set_submodule(name, layer)
        else:
            raise ValueError(f"{name or 'the network'} is a {type(first).__name__}")
        for key, value in own.items():
            if id(value) not in joined:
                joined[id(value)] = _join([getattr(each, key) for each in layers])
            if key in first._parameters:
                layer.register_parameter(key, joined[id(value)])
            else:
                layer.register_buffer(key, joined[id(value)])
    return nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)


def _join(values: Sequence[Tensor]) -> Tensor:
    """A number, such as batch norm's count of batches, is the same in all."""
    with torch.no_grad():
        made = torch.cat(list(values)) if values[0].ndim else values[0].clone()
    return nn.Parameter(made) if isinstance(values[0], nn.Parameter) else made


def unstack(network: nn.Module, children: Sequence[nn.Module]) -> None:
    """Load into each child its part of the stack's weights."""
    states: list[dict[str, Tensor]] = [{} for _ in children]
    for name, value in network.state_dict().items():
        parts = value.chunk(len(children)) if value.ndim else [value] * len(children)
        for state, part in zip(states, parts, strict=True):
            state[name] = part
    for child, state in zip(children, states, strict=True):
        child.load_state_dict(state)


def side_by_side(batch: Tensor, count: int) -> Tensor:
    """Of images [N * count, C, H, W], child by child within each place of the batch: the batch
    [N, count * C, H, W] of a stack, channels-last in memory."""
    if count == 1:
        return batch
    _, c, h, w = batch.shape
    joined = batch.reshape(-1, count * c, h, w)
    return joined.contiguous(memory_format=torch.channels_last)


def each(loss: Loss) -> Loss:
    """A loss of logits [N, count, classes] and targets [N, count]: [count], one of each child."""
    return torch.vmap(loss, in_dims=1)


# Logits are of order 1. Rounding moves them by less (TF32 on a GPU: 1e-3), dropout or a layer
# that mixes channels by more.
ROUNDING = 0.02


def keeps_apart(children: Sequence[nn.Module], batch: Tensor) -> str:
    """Why a stack of these is something else than each of them alone, judged on a batch
    [N, C, H, W] in training mode; "" when it is not. The children stay as they are."""
    alone = [copy.deepcopy(child).train() for child in children]
    try:
        with torch.no_grad():
            # Other images for each: a layer that mixes equal ones would be seen by nobody.
            own = [batch.roll(number, 0) for number in range(len(alone))]
            together = stack(alone).train()(torch.cat(own, 1))
            expected = torch.stack([child(b) for child, b in zip(alone, own, strict=True)], 1)
        if together.shape != expected.shape:
            return f"together they give {list(together.shape)}, not {list(expected.shape)}"
    except (ValueError, RuntimeError, TypeError) as error:
        return str(error)
    gap = (together - expected).abs().max().item()
    if not gap <= ROUNDING * max(1.0, expected.abs().max().item()):
        return f"together their logits differ by {gap:.2g}"
    return ""
