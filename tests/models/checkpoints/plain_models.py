"""The original models in plain torch, from their descriptions; no modelling class of transformers' or ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """Logits (row, token_id); attention of each layer (layer, head, row, key)."""

    logits: Tensor
    attention: Tensor


def squashed(image: np.ndarray, side: int, mean: Any, std: Any) -> Tensor:
    """(1, channel, row, col): PIL's own bicubic resize to a square, then the normalisation."""
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    values = np.asarray(resized, dtype=np.float32) / 255
    return torch.tensor(((values - mean) / std).transpose(2, 0, 1)[None], dtype=torch.float32)


def under(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """The tensors below a name, by the rest of theirs."""
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def layer_norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def rms_norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"]


def heads_of(x: Tensor, n: int) -> Tensor:
    """(row, hidden) → (head, row, width)."""
    return x.reshape(len(x), n, -1).transpose(0, 1)


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """(head, row, width) each → (row, hidden), (head, row, key)."""
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
    weights = scores.softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1), weights


def llama(w: Weights, embedded: Tensor, raw: Mapping[str, Any], head: Tensor) -> Outcome:
    """A Llama's layers on embeddings (row, hidden); `w` by the names under `model.`."""
    n, groups, eps = raw["num_attention_heads"], raw["num_key_value_heads"], raw["rms_norm_eps"]
    width = raw["hidden_size"] // n
    frequencies = raw["rope_theta"] ** (-torch.arange(0, width, 2) / width)
    angles = torch.outer(torch.arange(len(embedded)), frequencies).repeat(1, 2)

    def turned(x: Tensor) -> Tensor:
        half = torch.cat([-x[..., width // 2 :], x[..., : width // 2]], -1)
        return x * angles.cos() + half * angles.sin()

    x, maps = embedded, []
    for i in range(raw["num_hidden_layers"]):
        at = under(w, f"layers.{i}.")
        y = rms_norm(x, at, "input_layernorm", eps)
        q, k, v = (linear(y, at, f"self_attn.{name}_proj") for name in "qkv")
        k, v = (heads_of(part, groups).repeat_interleave(n // groups, 0) for part in (k, v))
        mixed, weights = attention(turned(heads_of(q, n)), turned(k), v, causal=True)
        maps.append(weights)
        x = x + linear(mixed, at, "self_attn.o_proj")
        y = rms_norm(x, at, "post_attention_layernorm", eps)
        x = x + linear(
            F.silu(linear(y, at, "mlp.gate_proj")) * linear(y, at, "mlp.up_proj"), at, "mlp.down_proj"
        )
    return Outcome(rms_norm(x, w, "norm", eps) @ head.T, torch.stack(maps))


def patches(pixels: Tensor, w: Weights, name: str, patch: int) -> Tensor:
    """(patch, hidden), row by row; pixels that fill no patch are left out."""
    rows, cols = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    cut = pixels[0, :, : rows * patch, : cols * patch].reshape(3, rows, patch, cols, patch)
    flat = cut.permute(1, 3, 0, 2, 4).reshape(rows * cols, -1)
    return flat @ w[f"{name}.weight"].flatten(1).T + w[f"{name}.bias"]


def siglip(w: Weights, pixels: Tensor, raw: Mapping[str, Any], layer: int) -> Tensor:
    """(patch, hidden): SigLIP's hidden state of that index, counted as transformers counts them (0: embeddings)."""
    x = patches(pixels, w, "embeddings.patch_embedding", raw["patch_size"])
    x = x + w["embeddings.position_embedding.weight"]
    states = [x]
    for i in range(raw["num_hidden_layers"]):
        at = under(w, f"encoder.layers.{i}.")
        y = layer_norm(x, at, "layer_norm1", raw["layer_norm_eps"])
        q, k, v = (heads_of(linear(y, at, f"self_attn.{n}_proj"), raw["num_attention_heads"]) for n in "qkv")
        x = x + linear(attention(q, k, v)[0], at, "self_attn.out_proj")
        y = layer_norm(x, at, "layer_norm2", raw["layer_norm_eps"])
        x = x + linear(F.gelu(linear(y, at, "mlp.fc1"), approximate="tanh"), at, "mlp.fc2")
        states.append(x)
    return states[layer]


def intern_vit(w: Weights, pixels: Tensor, raw: Mapping[str, Any], layer: int) -> Tensor:
    """(patch, hidden): InternViT's hidden state of that index, without its class token."""
    eps, n = raw["layer_norm_eps"], raw["num_attention_heads"]
    norm = layer_norm if raw.get("norm_type") == "layer_norm" else rms_norm
    x = patches(pixels, w, "embeddings.patch_embedding", raw["patch_size"])
    x = torch.cat([w["embeddings.class_embedding"][0], x]) + w["embeddings.position_embedding"][0]
    states = [x]
    for i in range(raw["num_hidden_layers"]):
        at = under(w, f"encoder.layers.{i}.")
        q, k, v = linear(norm(x, at, "norm1", eps), at, "attn.qkv").reshape(len(x), 3, -1).unbind(1)
        if raw.get("qk_normalization", True):
            q, k = rms_norm(q, at, "attn.q_norm", eps), rms_norm(k, at, "attn.k_norm", eps)
        mixed = attention(heads_of(q, n), heads_of(k, n), heads_of(v, n))[0]
        x = x + linear(mixed, at, "attn.proj") * at["ls1"]
        x = x + linear(F.gelu(linear(norm(x, at, "norm2", eps), at, "mlp.fc1")), at, "mlp.fc2") * at["ls2"]
        states.append(x)
    return states[layer][1:]


def random_like(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Random tensors of these shapes, of a size at which every one of them shows in the output."""
    generator = torch.Generator().manual_seed(seed)

    def one(name: str, shape: tuple[int, ...]) -> Tensor:
        values = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            return values * 0.1 + (0.0 if name.endswith("bias") else 1.0)
        scale = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
        return values * scale / shape[-1] ** 0.5

    return {name: one(name, shape) for name, shape in shapes.items()}


def llama_shapes(raw: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a LlamaForCausalLM, by name."""
    wide, inner, rows = raw["hidden_size"], raw["intermediate_size"], raw["vocab_size"]
    narrow = wide // raw["num_attention_heads"] * raw["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (rows, wide),
        "lm_head.weight": (rows, wide),
    }
    for i in range(raw["num_hidden_layers"]):
        at = f"model.layers.{i}."
        found |= {f"{at}self_attn.{n}_proj.weight": (wide, wide) for n in "qo"}
        found |= {f"{at}self_attn.{n}_proj.weight": (narrow, wide) for n in "kv"}
        found |= {f"{at}mlp.{n}_proj.weight": (inner, wide) for n in ("gate", "up")}
        found |= {f"{at}mlp.down_proj.weight": (wide, inner)}
        found |= {f"{at}{n}_layernorm.weight": (wide,) for n in ("input", "post_attention")}
    return {**found, "model.norm.weight": (wide,)}


LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "_name_or_path": "/home/of/whoever/trained/it",
}
"""The config.json of a tiny Llama, as original checkpoints have them."""
