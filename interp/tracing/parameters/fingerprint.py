"""What a live model's numbers depend on, and a hash of it: weights, settings, hooks, adapters, processor."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import packages_distributions, version
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from interp.tracing.parameters.weights import execution_device, modules_of, named_modules, offloaded

__all__ = ["content", "fingerprint", "hook_names", "identity", "identity_elsewhere", "named_tensors"]

_UNSTABLE = (
    *("_name_or_path", "name_or_path", "transformers_version"),
    *("_attn_implementation", "attn_implementation", "architectures", "dtype", "torch_dtype"),
)
"""Config entries that say where a model came from or how it is run, or that its class and weights say too."""

_PASSING = (
    *(
        "training",
        "gradient_checkpointing",
        "supports_gradient_checkpointing",
        "warnings_issued",
        "model_tags",
    ),
    *("is_parallelizable", "model_parallel", "hf_device_map", "forward", "layer_path"),
    *("to", "cuda", "xpu", "npu", "mlu", "sdaa", "musa"),  # accelerate's, which warn of moving what it placed
)
"""Attributes of modules that no number depends on (every pass is run in evaluation mode)."""

_KEPT = ("_active_adapter", "_disable_adapters", "_forward_method")
"""Private attributes of modules that numbers depend on: PEFT's."""

_HARMLESS = ("interp", "transformers", "accelerate", "nnsight", "torch")
"""Packages whose functions are known by their names; their hooks observe or move what passes, and change none of it."""

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

_WORDS = {"cpu": 2**15, "cuda": 2**22}
"""8-byte words hashed at once: on a CPU, what its cache holds."""
_GOLDEN = -7046029254386353131  # 2⁶⁴/φ, odd
_FACTOR = -4658895280553007687  # of the splitmix64 generator, odd


def fingerprint(described: Mapping[str, Any]) -> str:
    """Hex SHA-256 of an `identity`."""
    return hashlib.sha256(_json(described)).hexdigest()


def identity(
    hf: Any,
    processor: Any,
    adapter: Any,
    forwards: Mapping[nn.Module, Any] | None = None,
    *,
    weights: str | None = None,
    hooks: str | None = None,
) -> dict[str, str]:
    """Everything that a model's numbers depend on, by name; two models with equal identities give the same numbers.

    Computed anew at each call, since weights, adapters and hooks may change between any two: every byte of the
    weights is read once, where it lies, at about the speed of memory. It does not depend on the device, the attention
    implementation, or where the files lie.

    Args:
        hf: The transformers model.
        processor: The model's processor.
        adapter: The adapter of the model's family.
        forwards: Module → its own `forward` in place of its class's, for modules whose `forward` was replaced since.
        weights: An earlier entry "weights" that is known to hold still; the weights are then not read again.
        hooks: An earlier entry "hooks" that is known to hold still; the hooks are then not described again.

    Raises:
        ModelError: Weights that are on the meta device and nowhere else.
    """
    ends = getattr(getattr(hf, "generation_config", None), "eos_token_id", None)
    device = execution_device(hf).type
    cast = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else "off"
    return {
        "class": type(hf).__name__,
        "config": _digest([hf.config.to_dict(), ends]),
        "weights": weights or _digest({name: content(value) for name, value in _tensors(hf)}),
        "modules": _digest([[name, *_settings(one)] for name, one in _modules(hf)]),
        "hooks": hooks or "; ".join(_hooks(hf, forwards or {})) or "none",
        "peft": "; ".join(_adapters(hf)) or "none",
        "processor": _processor(processor),
        "family": _family(adapter),
        "autocast": cast,
    }


def identity_elsewhere(known: Mapping[str, str], processor: Any, adapter: Any) -> dict[str, str]:
    """The `identity` of a model that runs on a server: the server's entries, and the processor and the adapter here.

    Args:
        known: The entries that identify the model where it runs.
        processor: The model's processor.
        adapter: The adapter of the model's family.
    """
    return {**known, "processor": _digest(_processor(processor)), "family": _family(adapter)}


def hook_names(hf: Any, forwards: Mapping[nn.Module, Any]) -> tuple[str, ...]:
    """The user's hooks by place, name and code, without what they hold: a hook that records fills its own lists."""
    return tuple(_hooks(hf, forwards, _code_name))


def _tensors(hf: Any) -> Iterator[tuple[str, Any]]:
    """The model's tensors. Rotary frequencies, which devices compute a little differently, to three digits.

    Those that a pass may change, to suit the longest prompt, are left out: they follow from the config.
    """
    for name, value in named_tensors(hf):
        if not name.endswith("inv_freq"):
            yield name, value
        elif str(getattr(hf.get_submodule(name.rpartition(".")[0]), "rope_type", "default")) in (
            "default",
            "linear",
            "llama3",
        ):
            yield name, value.to(torch.bfloat16)


def _modules(hf: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The model's modules by name, without those that wrapping added."""
    return (
        (name, module)
        for module, name in named_modules(hf).items()
        if not type(module).__module__.startswith("interp.tracing")
    )


def _settings(module: nn.Module) -> list[Any]:
    """A module's class and its plain settings: numbers, texts, functions."""
    found = {
        name: value if type(value) in (bool, int, float, str) else _plain(value)
        for name, value in vars(module).items()
        if (name[0] != "_" or name in _KEPT) and name not in _PASSING
    }
    return [
        _class_name(type(module)),
        {name: found[name] for name in sorted(found) if found[name] is not None},
    ]


def _class_name(kind: type[nn.Module]) -> str:
    """A module's class; of an attention implementation's own subclass (SAM's), the class that it is of."""
    plain = kind.__qualname__.replace("SdpaAttention", "Attention")
    return next((one.__qualname__ for one in kind.__mro__ if one.__qualname__ == plain), kind.__qualname__)


def _plain(value: Any, depth: int = 3) -> Any:
    """A value as JSON that is the same in every process; None for what has no such form."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, Tensor):
        return content(value)
    if isinstance(value, Mapping) and depth:
        return {str(key): _plain(one, depth - 1) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple) and depth:
        return [_plain(one, depth - 1) for one in value]
    if callable(value) and depth and not isinstance(value, type | nn.Module):
        return _function(value, depth - 1)
    return None


def _function(function: Any, depth: int = 2) -> str:
    """`_described_function`; of functions that a module holds in C, such as torch's, computed once per process."""
    owner = getattr(function, "__self__", None)
    described = _builtin_function if isinstance(owner, ModuleType) else _described_function
    return described(function, depth)


@functools.lru_cache(maxsize=1024)
def _builtin_function(function: Any, depth: int) -> str:
    return _described_function(function, depth)


def _described_function(function: Any, depth: int) -> str:
    """A function by its name and a hash of its code and of what it holds: defaults, closure, attributes.

    The code is that of the Python that runs; functions of well-known packages go without.
    """
    if isinstance(function, functools.partial):
        held = [
            _function(function.func, depth),
            _plain(function.args, depth),
            _plain(function.keywords, depth),
        ]
        return f"partial {_digest(held)[:12]}"
    inner = getattr(function, "__func__", function)
    owner = getattr(function, "__self__", None)
    code = getattr(inner, "__code__", None)
    if code is None and not hasattr(function, "__name__"):  # an object that can be called
        owner, inner = function, type(function).__call__
        code = getattr(inner, "__code__", None)
    code = None if _root(inner) in _HARMLESS else code
    name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(function).__qualname__)}"
    closure, defaults, keywords = (
        getattr(inner, own, None) for own in ("__closure__", "__defaults__", "__kwdefaults__")
    )
    if owner is None and not closure and defaults is None and keywords is None:
        return f"{name} {_bare_function(code)}"
    held = [
        _code(code),
        _plain([_held(cell) for cell in closure or ()], depth),
        _plain([defaults, keywords], depth),
        _plain({k: v for k, v in getattr(owner, "__dict__", {}).items() if not k.startswith("_")}, depth)
        if owner is not None and not isinstance(owner, nn.Module)
        else None,
    ]
    return f"{name} {_digest(held)[:12]}"


@functools.lru_cache(maxsize=1024)
def _bare_function(code: Any) -> str:
    """The hash of a function that holds nothing but its code; equal code objects do the same."""
    return _digest([_code(code), [], [None, None], None])[:12]


def _code_name(function: Any) -> str:
    """A function by its name and a hash of its code alone."""
    inner = getattr(getattr(function, "func", function), "__func__", function)
    name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
    return f"{name} {_code_digest(getattr(inner, '__code__', None))}"


@functools.lru_cache(maxsize=1024)
def _code_digest(code: Any) -> str:
    return _digest(_code(code))[:12]


def _held(cell: Any) -> Any:
    """What a closure's cell holds; None while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _code(code: Any) -> Any:
    """A code object as JSON: what it does, not where it was written."""
    if code is None:
        return None
    consts = [_constant(one) for one in code.co_consts]
    return [code.co_code.hex(), consts, list(code.co_names), list(code.co_varnames)]


def _constant(one: Any) -> Any:
    """A constant of a code object as JSON; a set in an order that is the same in every process."""
    if isinstance(one, frozenset):
        return ["frozenset", *sorted(map(repr, one))]
    return _code(one) if hasattr(one, "co_code") else repr(one)


def _hooks(
    hf: nn.Module, forwards: Mapping[nn.Module, Any], name_of: Callable[[Any], str] = _function
) -> Iterator[str]:
    """The hooks, and forwards put in the place of a class's own, that are the user's."""
    for kind in _HOOKS:
        every = getattr(global_hooks, f"_global{kind}", {})
        yield from _named(f"all modules {kind.strip('_')}", every.values(), name_of)
    for name, module in _modules(hf):
        for kind in _HOOKS:
            held = getattr(module, kind, None)
            if held:
                yield from _named(f"{name} {kind.strip('_')}", held.values(), name_of)
        own = vars(module).get("forward")
        if own is not None and _root(type(own)) == "nnsight":
            own = forwards.get(module)
        hook = getattr(module, "_hf_hook", None)
        if own is not None and hook is None:
            yield from _named(f"{name} forward", [own], name_of)
        for one in getattr(hook, "hooks", (hook,)) if hook is not None else ():
            yield from _named(f"{name} accelerate", [type(one).pre_forward, type(one).post_forward], name_of)


def _named(what: str, functions: Iterable[Any], name_of: Callable[[Any], str]) -> Iterator[str]:
    return (f"{what}: {name_of(one)}" for one in functions if _root(one) not in _HARMLESS)


def _root(function: Any) -> str:
    """The package that a function or an object comes from."""
    function = getattr(function, "func", function)
    home = getattr(function, "__module__", None) or type(function).__module__
    return str(home).partition(".")[0]


def _adapters(hf: nn.Module) -> Iterator[str]:
    """The state of the PEFT adapters: which are active, off or merged, one text for each different state."""
    seen: dict[str, int] = {}
    for module in modules_of(hf):
        if hasattr(module, "merged_adapters"):
            active = ", ".join(map(str, getattr(module, "active_adapters", []))) or "none"
            merged = ", ".join(map(str, getattr(module, "merged_adapters", []))) or "none"
            off = " (off)" if getattr(module, "disable_adapters", False) else ""
            said = f"active {active}{off}, merged {merged}"
            seen[said] = seen.get(said, 0) + 1
    return (f"{said} in {n} modules" for said, n in sorted(seen.items()))


_FIRST_HOMES = {
    "Qwen2Vl": "qwen",
    "Qwen25Vl": "qwen",
    "Qwen3Vl": "qwen",
    "Qwen3VlMoe": "qwen",
    "Qwen35": "qwen3_5",
    "Qwen35Moe": "qwen3_5",
    "VipLlava": "vipllava",
    "FastVlm": "fast_vlm",
    "LlavaNext": "llava_next",
    "LlavaNextVideo": "llava_next",
    "LlavaOnevision": "llava_next",
    "Vila": "vila",
    "Glm4v": "glm",
    "Glm46V": "glm",
    "Glm4vMoe": "glm",
    "Gemma3": "gemma3",
    "Gemma3n": "gemma3n",
    "Gemma4": "gemma4",
    "Gemma4Unified": "gemma4",
    "PaliGemma": "paligemma",
    "Idefics2": "idefics2",
    "Llama4": "llama4",
    "Mllama": "mllama",
    "GotOcr2": "got_ocr2",
    "LightOnOcr": "lighton_ocr",
    "AnswersOnly": "answers_only",
}
"""Families that moved: the module of each when its first runs were stored, whose hashes name it."""


def _family(adapter: Any) -> str:
    """The adapter: its class, and of others' its package's version, its code and its settings."""
    kind = type(adapter)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if _root(kind) == "interp":
        home = _FIRST_HOMES.get(kind.__name__)
        name = f"interp.models.{home}.{kind.__name__}" if home else name.replace(".families.", ".")
        own = getattr(adapter, "identity", None)
        return name if own is None else f"{name} ({own})"
    package = next(iter(_distributions().get(_root(kind), ())), None)
    about = f"{package} {version(package)}" if package else "no package"
    code = [
        [key, _function(getattr(value, "__func__", value)) if callable(value) else _plain(value)]
        for owner in kind.__mro__
        if owner is not object and _root(owner) != "interp"
        for key, value in sorted(vars(owner).items())
        if not key.startswith("__")
    ]
    return f"{name} ({about}) {_digest([code, _plain(getattr(adapter, '__dict__', {}))])[:12]}"


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _processor(processor: Any) -> str:
    """A hash of the processor: its image processor, its chat template, its settings and its tokenizer."""
    tokenizer = processor.tokenizer
    found = {
        "images": processor.image_processor.to_dict() if hasattr(processor, "image_processor") else None,
        **_video_settings(processor),
        "template": getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None),
        "settings": {
            k: _plain(v) for k, v in vars(processor).items() if k != "chat_template" and not callable(v)
        },
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _digest({**found, "tokenizer": sorted(tokenizer.get_vocab().items())})
    # the JSON of {**found, "tokenizer": …}, whose keys are sorted
    whole = _json(found)[:-1] + b', "tokenizer": ' + _tokenizer_json(backend.to_str()) + b"}"
    return hashlib.sha256(whole).hexdigest()


def _video_settings(processor: Any) -> dict[str, Any]:
    """The settings of the processor's video processor; nothing where it has none."""
    own: Any = getattr(processor, "video_processor", None)
    return {"frames": own.to_dict()} if hasattr(own, "to_dict") else {}


@functools.lru_cache(maxsize=2)
def _tokenizer_json(text: str) -> bytes:
    """A fast tokenizer's text as JSON; kept, because reading a vocabulary takes longer than a forward pass."""
    # padding and truncation are set anew by every call
    return _json({k: v for k, v in json.loads(text).items() if k not in ("padding", "truncation")})


def _digest(value: Any) -> str:
    return hashlib.sha256(_json(value)).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(_stable(value), sort_keys=True, default=str).encode()


def _stable(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): _stable(v) for k, v in value.items() if k not in _UNSTABLE}
    return [_stable(v) for v in value] if isinstance(value, list | tuple) else value


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


@functools.cache
def _places(size: int, device: torch.device) -> Tensor:
    """The number that is mixed into each word, different for each place."""
    return torch.arange(1, size + 1, device=device) * _GOLDEN


def _mixed(words: Tensor, places: Tensor, first: int) -> Tensor:
    """The words mixed with their places, in place: murmur's finaliser."""
    shift = (first * _GOLDEN + 2**63) % 2**64 - 2**63
    words ^= places + shift
    words ^= (words >> 33) & 0x7FFFFFFF
    words *= _FACTOR
    words ^= (words >> 33) & 0x7FFFFFFF
    return words
