"""A model as wrapping may change it."""

from __future__ import annotations

from typing import Any


def state_of(hf: Any) -> dict[str, Any]:
    """Everything of a model that wrapping may touch."""
    return {
        "modules": [(name, type(module)) for name, module in hf.named_modules()],
        "attributes": {name: set(module.__dict__) for name, module in hf.named_modules()},
        "configs": {name: id(getattr(module, "config", None)) for name, module in hf.named_modules()},
        "names": [hf.config._attn_implementation, hf.config.text_config._attn_implementation],
        "training": {name: module.training for name, module in hf.named_modules()},
        "gradients": {name: p.requires_grad for name, p in hf.named_parameters()},
        "parameters": {name: id(p) for name, p in hf.named_parameters()},
    }
