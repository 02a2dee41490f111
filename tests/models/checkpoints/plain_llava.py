"""LLaVA's kind of model written out in plain torch, from the layout's description, over the original tensor names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – its usual name

Weights = Mapping[str, Tensor]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _linear(t: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(
        x, t[f"{name}.weight"].float(), t[f"{name}.bias"].float() if f"{name}.bias" in t else None
    )


def _norm(t: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"].float(), t[f"{name}.bias"].float(), eps)


def _patches(weight: Tensor, pixels: Tensor) -> Tensor:
    """(image, patch, hidden): each patch times the kernel, row by row."""
    p = weight.shape[-1]
    n, _, rows, cols = pixels.shape
    cut = pixels.reshape(n, 3, rows // p, p, cols // p, p).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(n, -1, 3 * p * p) @ weight.float().flatten(1).T


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(…, row, head, size) each; the mixture with heads joined, and the weights (…, head, row, key)."""
    scores = torch.einsum("...qhd,...khd->...hqk", q, k) / math.sqrt(q.shape[-1])
    weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)
    return torch.einsum("...hqk,...khd->...qhd", weights, v).flatten(-2), weights


def clip(t: Weights, prefix: str, pixels: Tensor, heads: int, until: int = -2) -> Tensor:
    """A CLIP tower's hidden state `until` (counted from the last layer's), without the class token."""
    t = {name.removeprefix(prefix): value for name, value in t.items() if name.startswith(prefix)}
    layers = 1 + max(int(n.split(".")[2]) for n in t if n.startswith("encoder.layers"))
    x = _patches(t["embeddings.patch_embedding.weight"], pixels)
    first = t["embeddings.class_embedding"].float().expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + t["embeddings.position_embedding.weight"].float()
    x = _norm(t, "pre_layrnorm", x, 1e-5)
    for i in range(layers + 1 + until):
        at = f"encoder.layers.{i}."
        y = _norm(t, at + "layer_norm1", x, 1e-5)
        q, k, v = (_linear(t, f"{at}self_attn.{w}_proj", y).unflatten(-1, (heads, -1)) for w in "qkv")
        x = x + _linear(t, at + "self_attn.out_proj", _attend(q, k, v)[0])
        y = _linear(t, at + "mlp.fc1", _norm(t, at + "layer_norm2", x, 1e-5))
        x = x + _linear(t, at + "mlp.fc2", y * torch.sigmoid(1.702 * y))
    return x[:, 1:]


def vit(t: Weights, prefix: str, pixels: Tensor, heads: int, until: int = -2) -> Tensor:
    """A timm ViT's blocks up to `until`, without the class token; with layer scales where it has them."""
    t = {name.removeprefix(prefix): value for name, value in t.items() if name.startswith(prefix)}
    layers = 1 + max(int(n.split(".")[1]) for n in t if n.startswith("blocks"))
    x = _patches(t["patch_embed.proj.weight"], pixels) + t["patch_embed.proj.bias"].float()
    x = torch.cat([t["cls_token"].float().expand(len(x), -1, -1), x], 1) + t["pos_embed"].float()
    for i in range(layers + 1 + until):
        at = f"blocks.{i}."
        y = _linear(t, at + "attn.qkv", _norm(t, at + "norm1", x, 1e-6))
        q, k, v = y.unflatten(-1, (3, heads, -1)).unbind(-3)
        y = _linear(t, at + "attn.proj", _attend(q, k, v)[0])
        x = x + y * t.get(at + "ls1.gamma", torch.ones(1)).float()
        y = F.gelu(_linear(t, at + "mlp.fc1", _norm(t, at + "norm2", x, 1e-6)))
        x = x + _linear(t, at + "mlp.fc2", y) * t.get(at + "ls2.gamma", torch.ones(1)).float()
    return x[:, 1:]


def scaled(t: Weights, prefix: str, pixels: Tensor, heads: int, sides: list[int]) -> Tensor:
    """S²: at each side, tiles one by one, their features put together and averaged down; joined along channels."""
    found = []
    for side in sides:
        n = side // sides[0]
        sized = F.interpolate(pixels, size=side, mode="bicubic")
        rows = []
        for r in range(n):
            tiles = [
                sized[:, :, r * sides[0] : (r + 1) * sides[0], c * sides[0] : (c + 1) * sides[0]]
                for c in range(n)
            ]
            seen = [clip(t, prefix, tile, heads) for tile in tiles]
            along = math.isqrt(seen[0].shape[1])
            rows.append(torch.cat([one.unflatten(1, (along, along)) for one in seen], dim=2))
        grid = torch.cat(rows, dim=1)
        cells = grid.unflatten(1, (-1, n)).unflatten(3, (-1, n))
        found.append(cells.mean(dim=(2, 4)).flatten(1, 2))
    return torch.cat(found, dim=-1)


def projector(t: Weights, features: Tensor, prefix: str = "model.mm_projector.") -> Tensor:
    """Linear, GELU, Linear."""
    return _linear(t, prefix + "2", F.gelu(_linear(t, prefix + "0", features)))


@dataclass(frozen=True)
class Decoder:
    """A Llama, Mistral or Qwen2: what its config says."""

    heads: int
    kv: int
    theta: float
    eps: float

    def run(self, t: Weights, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """From (token, hidden) to the last row's logits, and each layer's last row of attention (head, key)."""
        layers = 1 + max(int(n.split(".")[2]) for n in t if n.startswith("model.layers"))
        size = t["model.layers.0.self_attn.q_proj.weight"].shape[0] // self.heads
        rates = self.theta ** (-torch.arange(0, size, 2).float() / size)
        angle = torch.outer(torch.arange(len(x)).float(), torch.cat([rates, rates]))[:, None]
        causal = torch.ones(len(x), len(x), dtype=torch.bool).tril()
        rows = []
        for i in range(layers):
            at = f"model.layers.{i}."
            y = self._rms(t, at + "input_layernorm", x)
            q, k, v = (
                _linear(t, f"{at}self_attn.{w}_proj", y).unflatten(-1, (n, size))
                for w, n in (("q", self.heads), ("k", self.kv), ("v", self.kv))
            )
            q, k = (
                z * angle.cos() + torch.cat([-z[..., size // 2 :], z[..., : size // 2]], -1) * angle.sin()
                for z in (q, k)
            )
            k, v = (z.repeat_interleave(self.heads // self.kv, dim=1) for z in (k, v))
            y, weights = _attend(q, k, v, causal)
            rows.append(weights[:, -1])
            x = x + _linear(t, at + "self_attn.o_proj", y)
            y = self._rms(t, at + "post_attention_layernorm", x)
            y = F.silu(_linear(t, at + "mlp.gate_proj", y)) * _linear(t, at + "mlp.up_proj", y)
            x = x + _linear(t, at + "mlp.down_proj", y)
        return _linear(t, "lm_head", self._rms(t, "model.norm", x[-1])), rows

    def _rms(self, t: Weights, name: str, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * t[f"{name}.weight"].float()


def embedded(t: Weights, ids: list[int | None], tokens: Tensor) -> Tensor:
    """(token, hidden): the ids' embeddings, and the image's tokens where None stands."""
    table = t["model.embed_tokens.weight"].float()
    return torch.cat([tokens if one is None else table[[one]] for one in ids])


def padded_pixels(image: Image.Image, side: int) -> Tensor:
    """On a square of the mean colour at ⌊d/2⌋, resized, normalised."""
    most = max(image.size)
    square = Image.new("RGB", (most, most), tuple(int(255 * m) for m in MEAN))
    square.paste(image, ((most - image.width) // 2, (most - image.height) // 2))
    return _normalised(square.resize((side, side), Image.Resampling.BICUBIC))


def cropped_pixels(image: Image.Image, side: int) -> Tensor:
    """The shorter edge resized, the middle cut out, normalised."""
    least = min(image.size)
    sized = image.resize(
        (side * image.width // least, side * image.height // least), Image.Resampling.BICUBIC
    )
    left, top = (sized.width - side) // 2, (sized.height - side) // 2
    return _normalised(sized.crop((left, top, left + side, top + side)))


def _normalised(image: Image.Image) -> Tensor:
    values = (np.asarray(image, np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(values).permute(2, 0, 1)[None]
