"""A model's tensors wherever they lie, and a hash of their content that reads each byte once.

Modules are listed in one walk: torch's own generators take two to five times as long, and these run often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from interp.errors import ModelError
from interp.tracing.parameters.placement import hooks_of

__all__ = [
    "check_weights",
    "content",
    "modules_of",
    "named_modules",
    "named_tensors",
    "offloaded",
    "refuse_offloaded",
    "versions",
]


_WORDS = {"cpu": 2**15, "cuda": 2**22}
"""8-byte words hashed at once: on a CPU, what its cache holds."""
_GOLDEN = -7046029254386353131  # 2⁶⁴/φ, odd
_FACTOR = -4658895280553007687  # of the splitmix64 generator, odd


def named_tensors(hf: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every entry of a model's state, then its buffers that are not saved, each with its name.

    Weights that accelerate keeps elsewhere (offloaded to the CPU or to disk) are read from there.

    Raises:
        ModelError: Weights that are on the meta device and nowhere else.
    """
    saved = hf.state_dict()
    rest = {name: buffer for name, buffer in hf.named_buffers() if name not in saved}
    for name, value in sorted({**saved, **rest}.items()):
        if isinstance(value, Tensor) and value.is_meta:
            value = offloaded(hf, name)
        yield name, value


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
            f"{what} works on the weights, and some of them are offloaded. Load the model without that."
        )
    if getattr(hf, "is_quantized", False) or getattr(hf, "hf_quantizer", None) is not None:
        raise ModelError(
            f"{what} works on the weights, and these are quantised. Load the model without that."
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


def content(value: Any) -> str:
    """A hash of a tensor's values, dtype and shape; the same on every device. Each byte is read once, where it lies.

    Quantised tensors are hashed by what they are made of. Values that are no tensors are hashed by their text.
    """
    if not isinstance(value, Tensor):
        parts = value if isinstance(value, tuple | list) else ()
        return " ".join(map(content, parts)) or hashlib.sha256(repr(value).encode()).hexdigest()
    about = f"{value.dtype} {tuple(value.shape)}"
    if hasattr(value, "__tensor_flatten__"):  # a tensor made of others, such as torchao's
        names, settings = value.__tensor_flatten__()  # pyright: ignore[reportAttributeAccessIssue]
        inner = " ".join(content(getattr(value, name)) for name in names)
        return f"{type(value).__name__} {about} {inner} {content(str(settings))}"
    if value.is_quantized:
        scale = f"{value.qscheme()} {_scale(value)}"
        return f"{about} {scale} {content(value.int_repr())}"
    return f"{about} {_sum(value.detach()):016x}"


def _scale(value: Tensor) -> str:
    """The scale and zero point of a tensor of torch's own quantisation."""
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return f"{value.q_scale()} {value.q_zero_point()}"
    return f"{content(value.q_per_channel_scales())} {content(value.q_per_channel_zero_points())}"


def _sum(tensor: Tensor) -> int:
    """Σ mix(word, its place) modulo 2⁶⁴ over a tensor's 8-byte words, the last one filled up with zeros.

    `mix` is one-to-one in the word for each place, so no change of a single word goes unseen, and two that cancel
    out are as rare as chance allows. Sums of integers do not depend on their order, so every device gives the same.
    """
    if tensor.device.type not in ("cpu", "cuda"):
        tensor = tensor.cpu()
    data = tensor.contiguous().reshape(-1).view(torch.uint8)
    return _sum_by_numpy(data.numpy()) if data.device.type == "cpu" else _sum_by_torch(data)


def _sum_by_numpy(data: UInt8[np.ndarray, " byte"]) -> int:
    """`_sum` on a CPU. Torch takes 1.7 times as long: its words are signed, and each step makes a new tensor."""
    n, size = data.size // 8, _WORDS["cpu"]
    words, last = data[: 8 * n].view(np.uint64), np.zeros(8, np.uint8)
    last[: data.size - 8 * n] = data[8 * n :]
    places = _places(size, torch.device("cpu")).numpy().view(np.uint64)
    parts = [(start, words[start : start + size]) for start in range(0, n, size)]
    total, spare = 0, np.empty((2, size), np.uint64)
    for first, part in parts if data.size == 8 * n else [*parts, (n, last.view(np.uint64))]:
        mixed, other = spare[:, : len(part)]
        np.add(places[: len(part)], np.uint64(first * _GOLDEN % 2**64), out=other)
        np.bitwise_xor(part, other, out=mixed)
        mixed ^= np.right_shift(mixed, 33, out=other)
        mixed *= np.uint64(_FACTOR % 2**64)
        mixed ^= np.right_shift(mixed, 33, out=other)
        total += int(mixed.sum())
    return total % 2**64


def _sum_by_torch(data: UInt8[Tensor, " byte"]) -> int:
    """`_sum` on a GPU."""
    size = _WORDS[data.device.type]
    words = max(1, min(size, -(-data.numel() // 8)))
    places, buffer = _places(size, data.device)[:words], data.new_zeros(words, dtype=torch.int64)
    total = torch.zeros((), dtype=torch.int64, device=data.device)
    for start in range(0, data.numel(), 8 * words):
        part = data[start : start + 8 * words]
        n = -(-part.numel() // 8)
        buffer[n - 1] = 0
        buffer[:n].view(torch.uint8)[: part.numel()].copy_(part)
        total += _mixed(buffer[:n], places[:n], start // 8).sum()
    return int(total) % 2**64


@cache
def _places(size: int, device: torch.device) -> Tensor:
    """What is mixed into each word, different for each place."""
    return torch.arange(1, size + 1, device=device) * _GOLDEN


def _mixed(words: Tensor, places: Tensor, first: int) -> Tensor:
    """The words mixed with their places, in place: murmur's finaliser."""
    shift = (first * _GOLDEN + 2**63) % 2**64 - 2**63
    words ^= places + shift
    words ^= (words >> 33) & 0x7FFFFFFF
    words *= _FACTOR
    words ^= (words >> 33) & 0x7FFFFFFF
    return words


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
