"""Where the parts of a model run, and tensors brought to where they are needed.

A model may lie on several devices (`device_map`). Each layer then computes on its own, so what is planned for a layer
goes to that layer's device, and what layers give is brought together on one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["execution_device", "hooks_of", "together"]


def hooks_of(module: nn.Module) -> Iterator[Any]:
    """accelerate's hooks of a module, those in sequences one by one."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is not None:
        yield from getattr(hook, "hooks", (hook,))


def execution_device(module: nn.Module) -> torch.device:
    """Where a module's inputs go: where its first weights are, or where accelerate brings them when it runs."""
    first = next(_weights(module))
    if not first.is_meta:
        return first.device
    for part in module.modules():
        for hook in hooks_of(part):
            device = getattr(hook, "execution_device", None)
            if device is not None and torch.device(device).type != "meta":
                return torch.device(device)
    return first.device


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """The parameters in torch's order; to begin torch's own list takes several times as long."""
    yield from (weight for weight in module._parameters.values() if weight is not None)
    for part in module._modules.values():
        if part is not None:
            yield from _weights(part)


def together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the device of the first."""
    return [one.to(tensors[0].device) for one in tensors]
