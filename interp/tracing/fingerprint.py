"""A content hash of a model and its processor."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

__all__ = ["fingerprint"]

_UNSTABLE = (
    *("_name_or_path", "name_or_path", "transformers_version"),
    *("_attn_implementation", "attn_implementation", "architectures", "dtype", "torch_dtype"),
)
"""Config entries that say where a model came from or how it is run, or that its class and weights say too."""


def fingerprint(hf: Any, processor: Any) -> str:
    """Hex SHA-256 of a model's config and weights and of its processor's settings and vocabulary.

    It does not depend on the device, the attention implementation, or where the files lie. It reads every
    weight
    once: seconds for a 7B model.
    """
    digest = hashlib.sha256()
    digest.update(_json([type(hf).__name__, hf.config.to_dict()]))
    for name, tensor in sorted(hf.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(memoryview(flat.numpy()))  # pyright: ignore[reportArgumentType]
    digest.update(_json(_processor(processor)))
    return digest.hexdigest()


def _processor(processor: Any) -> dict[str, Any]:
    tokenizer = processor.tokenizer
    found = {
        "images": processor.image_processor.to_dict() if hasattr(processor, "image_processor") else None,
        "template": getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None),
        "patch_size": getattr(processor, "patch_size", None),
        "extra": getattr(processor, "num_additional_image_tokens", None),
        "strategy": getattr(processor, "vision_feature_select_strategy", None),
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {**found, "tokenizer": sorted(tokenizer.get_vocab().items())}
    # padding and truncation are set anew by every call
    settings = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("padding", "truncation")}
    return {**found, "tokenizer": settings}


def _json(value: Any) -> bytes:
    return json.dumps(_stable(value), sort_keys=True, default=str).encode()


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _stable(v) for k, v in value.items() if k not in _UNSTABLE}
    return [_stable(v) for v in value] if isinstance(value, list | tuple) else value
