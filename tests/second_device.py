"""Devices that a CPU pretends to have: tensors there refuse to meet tensors of another device, as on several GPUs.

A tensor "on" `lazy:1` is a wrapper that reports this device and holds its values on the CPU. Inside `second_devices`,
what is made on or moved to such a device becomes one; every operation checks that its tensors are on one device, with
the exceptions that CUDA makes (scalars, and indices that are on the CPU), and calls the CPU's own kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

FIRST, SECOND = torch.device("lazy:0"), torch.device("lazy:1")
_COPIES = ("copy_", "_to_copy", "_copy_from", "set_data")
_INDEXING = ("index.Tensor", "index_put", "_unsafe_index", "_index_put_impl_")


class Elsewhere(torch.Tensor):
    """A tensor that reports another device and holds its values on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: Any = None, requires_grad: bool = False) -> Elsewhere:
        """accelerate makes a parameter of the class that the old one has, as of a plain parameter's."""
        values = inner.inner if isinstance(inner, Elsewhere) else inner
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=inner.device if device is None else device,
            requires_grad=requires_grad,
        )
        made.inner = values
        made._is_param = requires_grad
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.inner}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()


WAITS: list[str] = []
"""The operations for which the CPU had to wait for a device, in order: values read, and copies from or to the CPU."""
_READING = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "item", "unique_consecutive", "_unique2")


def _note(name: str, args: Any, target: torch.device) -> None:
    first = next((one for one in args if isinstance(one, torch.Tensor)), torch.zeros(0))
    own = first.device
    crossing = name.startswith(_COPIES) and "cpu" in (own.type, target.type) and own != target
    reading = name.partition(".")[0] in _READING and own.type == "lazy"
    masks = name.startswith(_INDEXING) and any(
        isinstance(one, Elsewhere) and one.dtype == torch.bool for one in args[1]
    )
    if first.numel() and (crossing or reading or masks):
        WAITS.append(name)


def _called(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = f"{func._schema.name.removeprefix('aten::')}.{func._overloadname}"
    given = kwargs.get("device")
    device = None if given is None else torch.device(given)
    places = _places(name, args, kwargs)
    if len(places) > 1:
        raise RuntimeError(
            f"{name}: expected all tensors to be on the same device; got {sorted(map(str, places))}"
        )
    target = device if device is not None else next(iter(places), torch.device("cpu"))
    if name.partition(".")[0] in _COPIES and device is None:
        target = args[0].device
    _note(name, args, target)
    if device is not None and device.type == "lazy":
        kwargs = kwargs | {"device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map(_inner, (args, kwargs))
    made = func(*plain_args, **plain_kwargs)
    written = func._schema.arguments[0].alias_info if func._schema.arguments else None
    if written is not None and written.is_write and isinstance(args[0], torch.Tensor):
        return args[0]
    return tree_map(lambda one: _placed(one, target), made)


def _places(name: str, args: Any, kwargs: Any) -> set[torch.device]:
    if name.partition(".")[0] in _COPIES:
        return set()
    if name.startswith(_INDEXING):
        own = {args[0].device}
        indices = {one.device for one in args[1] if isinstance(one, torch.Tensor)} - {torch.device("cpu")}
        return own | indices
    found: list[torch.Tensor] = []
    tree_map(lambda one: found.append(one) if isinstance(one, torch.Tensor) else None, (args, kwargs))
    wide = {one.device for one in found if one.ndim}
    return wide or {one.device for one in found}


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


def _placed(value: Any, device: torch.device) -> Any:
    plain = isinstance(value, torch.Tensor) and not isinstance(value, Elsewhere)
    return Elsewhere(value, device) if plain and device.type == "lazy" else value


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


class _FromData(TorchFunctionMode):
    """torch makes tensors from lists without asking a dispatch mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        makes = func in (torch.tensor, torch.as_tensor) and device is not None
        if not makes or torch.device(device).type != "lazy":
            return func(*args, **kwargs)
        del kwargs["device"]
        return func(*tree_map(_inner, args), **kwargs).to(device)


class _Autocast(torch.autocast):
    """torch knows no autocast for the devices."""

    def __new__(cls, kind: str, *_: Any, **__: Any) -> Any:
        return nullcontext() if kind == "lazy" else super().__new__(cls)


@contextmanager
def second_devices() -> Iterator[None]:
    """The block in which `lazy:0` and `lazy:1` are devices."""
    known, autocast = torch.is_autocast_enabled, torch.autocast
    torch.is_autocast_enabled = lambda kind="cpu": kind != "lazy" and known(kind)
    torch.autocast = _Autocast
    try:
        with _Operations(), _FromData():
            yield
    finally:
        torch.is_autocast_enabled, torch.autocast = known, autocast
