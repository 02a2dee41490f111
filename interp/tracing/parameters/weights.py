"""A model's weights: where they go as they are loaded, in which form, and where each lies afterwards.

Modules are listed in one walk, because torch's own generators take two to five times as long.

A model may lie on several devices (`device_map`). Each layer then computes on its own device: what is planned for a
layer goes there, and the results of layers are brought together on one device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.quantization import quantization_config

__all__ = [
    "DeviceMap",
    "Placement",
    "check_weights",
    "execution_device",
    "hooks_of",
    "modules_of",
    "named_modules",
    "offloaded",
    "refuse_offloaded",
    "together",
    "versions",
]


def versions(hf: nn.Module) -> tuple[Any, ...] | None:
    """Where each parameter and buffer lies and how often torch saw it change; None where it does not count changes.

    Equal values mean that the weights are the same, but for writes past torch: through `.data`, numpy or another
    process.
    """
    tensors = [
        (path, name, one)
        for module, path in named_modules(hf).items()
        for held in (module._parameters, module._buffers)
        for name, one in held.items()
        if one is not None
    ]
    if any(one.is_inference() or one.is_meta for _, _, one in tensors):
        return None
    return tuple((path, name, id(one), one.data_ptr(), one._version) for path, name, one in tensors)


def check_weights(hf: nn.Module) -> None:
    """Raise ModelError for weights that have no values, here or where accelerate keeps them."""
    for name, weight in hf.named_parameters():
        if weight.is_meta:
            offloaded(hf, name)


def refuse_offloaded(hf: nn.Module, what: str) -> None:
    """Raise ModelError where weights are offloaded or quantised, for `what`, which works on the weights themselves."""
    if any(weight.is_meta for weight in hf.parameters()):
        raise ModelError(
            f"{what} needs all weights in memory, but some are offloaded. Load the model without offloading."
        )
    if getattr(hf, "is_quantized", False) or getattr(hf, "hf_quantizer", None) is not None:
        raise ModelError(
            f"{what} needs weights that are not quantised, but these are. Load the model without quantization."
        )


def offloaded(hf: nn.Module, name: str) -> Tensor:
    """The value of a tensor that accelerate keeps elsewhere.

    Raises:
        ModelError: It is on the meta device and nowhere else.
    """
    path, _, own = name.rpartition(".")
    found: Any = None
    for hook in hooks_of(hf.get_submodule(path)):
        weights = getattr(hook, "weights_map", None)
        found = weights[own] if weights is not None and own in weights else found
    if found is None:
        raise ModelError(
            f"the weight {name} is on the meta device: it has a shape but no values. Load the model's weights before "
            "you wrap it."
        )
    return found


def modules_of(hf: nn.Module) -> list[nn.Module]:
    """Each module once, the model first; not in the order of `hf.modules()`."""
    found, seen = [hf], {hf}
    for module in found:  # which grows meanwhile
        for part in module._modules.values():
            if part is not None and part not in seen:
                seen.add(part)
                found.append(part)
    return found


def named_modules(hf: nn.Module) -> dict[nn.Module, str]:
    """Each module with its name; the entries, and their order, of `hf.named_modules()`."""
    found: dict[nn.Module, str] = {}
    waiting: list[tuple[str, nn.Module]] = [("", hf)]
    while waiting:
        name, module = waiting.pop()
        if module in found:
            continue
        found[module] = name
        parts = module._modules
        if parts:
            before = f"{name}." if name else ""
            waiting += [(before + own, part) for own, part in reversed(parts.items()) if part is not None]
    return found


DeviceMap: TypeAlias = str | Mapping[str, int | str | torch.device]
_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
_OTHER = "cpu, disk, a GPU's number, or a name such as cuda:1"


@dataclass(frozen=True)
class Placement:
    """Where the weights go and in which form. Made by `Placement.of`, which checks everything.

    Attributes:
        device: The device that the model runs on, without a device map.
        dtype: The dtype of the weights; "auto" keeps the checkpoint's.
        device_map: Part of the model → the device it lies on, or the name of a strategy.
        folder: The folder for weights that the map leaves on the disk.
        quantization: Settings of a quantisation as transformers takes them.
    """

    device: str | torch.device
    dtype: str | torch.dtype
    device_map: DeviceMap | None
    folder: Path | None
    quantization: Any

    @classmethod
    def of(
        cls,
        device: str | torch.device,
        dtype: str | torch.dtype,
        device_map: DeviceMap | None,
        offload_folder: str | Path | None,
        quantization: Any,
    ) -> Placement:
        """The placement for these arguments of `interp.load`.

        Raises:
            ModelError: A value that is none of those, or two that exclude each other.
        """
        kind = _dtype(dtype)
        if not isinstance(device, str | torch.device):
            raise ModelError(
                f'device is a name such as "cpu" or "cuda:0", or a torch.device; got {device!r}.'
            )
        if device_map is not None and str(device) != "cpu":
            raise ModelError(
                f"device_map= says where every part of the model goes, and device={str(device)!r} would say it again. "
                "Leave device out."
            )
        chosen = _checked(device_map)
        folder = _folder(chosen, offload_folder)
        return cls(device, kind, chosen, folder, quantization_config(quantization, kind))

    def options(self, config: Any) -> dict[str, Any]:
        """The options of transformers' `from_pretrained` for a checkpoint with this config.

        Quantised weights cannot be moved by transformers, so they are loaded to where they stay.
        """
        found: dict[str, Any] = {"dtype": self.dtype}
        if self.quantization is not None:
            found["quantization_config"] = self.quantization
        if self.device_map is not None:
            found["device_map"] = (
                self.device_map if isinstance(self.device_map, str) else dict(self.device_map)
            )
            found |= {} if self.folder is None else {"offload_folder": str(self.folder)}
        elif self.quantization is not None or getattr(config, "quantization_config", None) is not None:
            found["device_map"] = {"": self.device}
        return found

    def moved(self, hf: Any) -> Any:
        """A loaded model, moved to the device unless it lies where it stays.

        Raises:
            ModelError: The device is not there or full, or the map does not name every part of the model and no other.
        """
        if isinstance(self.device_map, Mapping):
            self._check_parts(hf, self.device_map)
        if self.device_map is not None or getattr(hf, "hf_device_map", None) is not None:
            return hf
        return self.on_device(lambda: hf.to(self.device))

    def on_device(self, make: Callable[[], Any]) -> Any:
        """The result of `make`, which puts something on the device.

        Raises:
            ModelError: The device is not there, or full.
        """
        try:
            return make()
        except (AssertionError, RuntimeError) as error:  # torch's words
            raise ModelError(
                f"device={str(self.device)!r} cannot be used ({error}). Is it there, and large enough?"
            ) from error

    def dispatched(self, hf: Any) -> Any:
        """A model on the CPU, spread as the device map says; for checkpoints that transformers does not load.

        Raises:
            ModelError: A device map that does not fit the model, or devices that are not there.
        """
        from accelerate import dispatch_model, infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        split = getattr(hf, "_no_split_modules", None)
        options: dict[str, Any] = {"no_split_module_classes": list(split or ())}
        try:
            if isinstance(self.device_map, str):
                memory = None
                if self.device_map != "sequential":
                    low = self.device_map == "balanced_low_0"
                    memory = get_balanced_memory(hf, low_zero=low, **options)
                where: Any = infer_auto_device_map(hf, max_memory=memory, **options)
            else:
                where = dict(self.device_map or {})
                self._check_parts(hf, where)
            return dispatch_model(hf, where, offload_dir=self.folder)
        except ModelError:
            raise
        except Exception as error:  # whatever accelerate raises
            raise self.misplaced(error) from error

    def _check_parts(self, hf: Any, parts: Mapping[str, Any]) -> None:
        """transformers leaves weights that no part names on the CPU, where no GPU finds them."""
        names = [name for name, _ in (*hf.named_modules(), *hf.named_parameters())]
        odd = [part for part in parts if part not in names]
        left = [
            name
            for name, _ in hf.named_parameters()
            if not any(part == "" or name == part or name.startswith(f"{part}.") for part in parts)
        ]
        if odd or left:
            said = [f"the model has no part {', '.join(map(repr, odd))}"] if odd else []
            said += [f"no part holds {', '.join(left[:4])}{' …' if len(left) > 4 else ''}"] if left else []
            raise self.misplaced(ValueError("; ".join(said)))

    def misplaced(self, error: Exception) -> ModelError:
        """The error for a device map that cannot be used."""
        return ModelError(
            f"device_map={self.device_map!r} cannot be used ({type(error).__name__}: {str(error)[:500]}). Each part of "
            f'the model goes to {_OTHER}; "" names the whole model, and device_map="auto" finds a place for each part.'
        )


def _checked(device_map: DeviceMap | None) -> DeviceMap | None:
    if device_map is None or (isinstance(device_map, str) and device_map in _STRATEGIES):
        return device_map
    wrong = f"device_map is {', '.join(map(repr, _STRATEGIES))}, or a dict of the model's parts → {_OTHER}"
    if not isinstance(device_map, Mapping) or not device_map:
        raise ModelError(f"{wrong}; got {device_map!r:.200}.")
    for name, place in device_map.items():
        number = isinstance(place, int) and not isinstance(place, bool) and place >= 0
        if not isinstance(name, str) or not (number or isinstance(place, torch.device) or _is_device(place)):
            raise ModelError(f"{wrong}; got {name!r:.100}: {place!r:.100}.")
    return device_map


def _is_device(place: Any) -> bool:
    if place == "disk":
        return True
    try:
        return isinstance(place, str) and torch.device(place).type != "meta"
    except RuntimeError:
        return False


def _folder(device_map: DeviceMap | None, folder: str | Path | None) -> Path | None:
    to_disk = isinstance(device_map, Mapping) and "disk" in device_map.values()
    if folder is None:
        if to_disk:
            raise ModelError(
                "device_map= leaves weights on the disk; say in which folder they go: offload_folder='offload'."
            )
        return None
    if not isinstance(folder, str | os.PathLike) or not str(folder):
        raise ModelError(f"offload_folder is a folder's path; got {folder!r}.")
    if device_map is None:
        raise ModelError(
            "offload_folder= is where device_map= leaves weights on the disk; give device_map='auto' as well."
        )
    return Path(folder)


def _dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    if isinstance(dtype, str) and dtype == "auto":
        return dtype
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(
            f'dtype is "auto", a name such as "bfloat16", or a floating torch.dtype; got {dtype!r}.'
        )
    return found


def hooks_of(module: nn.Module) -> Iterator[Any]:
    """accelerate's hooks of a module, those in sequences one by one."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is not None:
        yield from getattr(hook, "hooks", (hook,))


def execution_device(module: nn.Module) -> torch.device:
    """The device for a module's inputs: that of its first weights, or the one accelerate brings them to in a pass."""
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
