"""Refuses settings of a config with which transformers would fetch code from the hub and run it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from transformers import modeling_flash_attention_utils as flash

from interp.errors import ModelError

__all__ = ["import_bitsandbytes", "refuse_kernels"]

_EXPERTS = (None, "eager", "grouped_mm", "batched_mm")
_QUANTISERS = ("mxfp4", "fp8", "nvfp4", "fbgemm_fp8", "eetq", "metal", "gguf")
"""Quantisation methods whose kernels transformers takes from the hub."""
_TRUST = "or, if you trust that code, load the model with transformers and use interp.wrap(model, processor)."
_WAY = f"Pass attn_implementation='sdpa' to load it with the attention that comes with torch; {_TRUST}"


def refuse_kernels(where: str, config: Any) -> None:
    """Raise ModelError where a config, or a part of it, names code that transformers would fetch from the hub.

    Args:
        where: The folder or hub id, for messages.
        config: The config as transformers made it, with the attention implementation that the caller asked for.
    """
    for part, own in _parts(config):
        attention = getattr(own, "_attn_implementation", None)
        for name in attention.values() if isinstance(attention, dict) else (attention,):
            _check_attention(f"{where}{part}", name)
        experts = getattr(own, "_experts_implementation", None)
        if experts not in _EXPERTS:
            raise ModelError(
                f"{where}{part} asks for experts_implementation={experts!r}, code that is fetched from the hub. "
                f"Nothing was fetched. Change the entry to one of {', '.join(map(str, _EXPERTS[1:]))}; {_TRUST}"
            )
        quantiser = getattr(own, "quantization_config", None)
        method = quantiser.get("quant_method") if isinstance(quantiser, dict) else quantiser
        method = str(getattr(method, "quant_method", method)).rpartition(".")[2].lower()
        if method in _QUANTISERS:
            raise ModelError(
                f"{where}{part} is quantised by {method!r}, whose kernels are fetched from the hub. Nothing was "
                f"fetched. Take a copy that is not quantised so; {_TRUST}"
            )
        if "bitsandbytes" in method:
            import_bitsandbytes()


def import_bitsandbytes() -> None:
    """Imports bitsandbytes, where it is installed, without the kernel that it fetches from the hub for some CPUs."""
    name = "kernels"
    before, log = sys.modules.get(name), logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]
    log.setLevel(logging.CRITICAL)
    try:
        with suppress(ImportError):
            import_module("bitsandbytes")
    finally:
        log.setLevel(level)
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def _parts(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """A config and the configs inside it, each with where it is."""
    yield name, config
    for key in getattr(config, "sub_configs", {}):
        inner = getattr(config, key, None)
        if inner is not None:
            yield from _parts(inner, f"{name} ({key})" if not name else f"{name[:-1]}.{key})")


def _check_attention(where: str, name: Any) -> None:
    if name is None:
        return
    bare = str(name).removeprefix("paged|")
    known = flash.FLASH_ATTENTION_COMPATIBILITY_MATRIX
    versions = {f"flash_attention_{version}": about for version, about in known.items()}
    if bare in versions:
        if not versions[bare]["general_availability_check"]():
            raise ModelError(
                f"{where} asks for attn_implementation={name!r}, whose package is not installed here, so that "
                f"transformers would fetch a kernel from the hub. Nothing was fetched. {_WAY}"
            )
    elif bare not in ("sdpa", "eager", "flex_attention"):
        raise ModelError(
            f"{where} asks for attn_implementation={str(name)[:100]!r}, which is not part of transformers: it would be "
            f"fetched from the hub and run. Nothing was fetched. {_WAY}"
        )
