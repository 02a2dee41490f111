"""Stand-ins for the kernels of flash and flex attention, written out: what their documentation says, on a CPU."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
import transformers.integrations.flex_attention as flex
import transformers.masking_utils as masking
import transformers.modeling_flash_attention_utils as flash
from torch.nn.attention.flex_attention import create_block_mask, create_mask


def attended(q: Any, k: Any, v: Any, seen: Any, scale: float | None, cap: Any = None) -> torch.Tensor:
    """Attention of (…, head, position, dim), keys and values of fewer heads, `cap` applied to the scores."""
    share = q.shape[-3] // k.shape[-3]
    k, v = (x.repeat_interleave(share, dim=-3) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if cap is None else cap(scores)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1).nan_to_num(0.0)
    return weights @ v


def flash_attn_func(
    q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, deterministic=False, **_
):
    """Queries are the last of the keys; the window's ends belong to it."""
    ago = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1] - torch.arange(k.shape[1])
    seen = ago >= 0 if causal else torch.ones_like(ago, dtype=torch.bool)
    seen &= (ago <= window_size[0]) if window_size[0] >= 0 else seen
    seen &= (-ago <= window_size[1]) if window_size[1] >= 0 else seen
    cap = (lambda scores: softcap * torch.tanh(scores / softcap)) if softcap else None
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return attended(q, k, v, seen, softmax_scale, cap).transpose(1, 2).contiguous()


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    deterministic=False,
):
    """Sequences that follow each other, each on its own."""
    options = {
        "softmax_scale": softmax_scale,
        "causal": causal,
        "window_size": window_size,
        "softcap": softcap,
    }
    parts = []
    ends = zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)
    start_q, start_k = next(ends)
    for end_q, end_k in ends:
        part = (q[None, start_q:end_q], k[None, start_k:end_k], v[None, start_k:end_k])
        parts.append(flash_attn_func(*part, **options)[0])
        start_q, start_k = end_q, end_k
    return torch.cat(parts)


def flex_attention(
    q, k, v, score_mod, block_mask, enable_gqa, scale, kernel_options=None, training=False, **_
):
    """One mask for all heads; `score_mod` works element by element."""
    seen = create_mask(block_mask.mask_mod, *block_mask.shape, device="cpu")
    return attended(q, k, v, seen, scale, lambda scores: score_mod(scores, 0, 0, 0, 0))


def install(monkeypatch: Any) -> None:
    """Puts the stand-ins where transformers finds the kernels."""
    for name in ("flash_attn", "flash_attn_interface"):
        module = ModuleType(name)
        module.flash_attn_func, module.flash_attn_varlen_func = flash_attn_func, flash_attn_varlen_func  # type: ignore
        module.flash_attn_with_kvcache = None  # type: ignore
        monkeypatch.setitem(sys.modules, name, module)
    padding = ModuleType("flash_attn.bert_padding")
    padding.pad_input, padding.unpad_input = flash._pad_input, flash._unpad_input  # type: ignore
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    monkeypatch.setattr(flash, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(flash, "is_flash_attn_3_available", lambda: True)
    monkeypatch.setattr(flash, "_loaded_implementation", None)
    monkeypatch.setattr(flex, "compile_friendly_flex_attention", flex_attention)
    plain = lambda _compile, **options: create_block_mask(**options)  # noqa: E731
    monkeypatch.setattr(masking, "create_block_mask", plain)
