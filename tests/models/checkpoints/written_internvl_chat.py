"""Tiny random checkpoints of InternVL-Chat 1.5 to 3 as its original code saves them; the same in plain torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import pre_tokenizers
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.models.checkpoints import sentencepieces
from tests.models.checkpoints.plain_models import (
    LLAMA,
    Outcome,
    intern_vit,
    layer_norm,
    linear,
    llama,
    llama_shapes,
    random_like,
    squashed,
    under,
)
from tests.models.checkpoints.written_vila_internvl import (
    MEAN,
    STD,
    Original,
    dump,
    intern_shapes,
    mlp_shapes,
    save,
)

SIDE, PATCH, MOST = 48, 8, 6
ADDED = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
VISION: dict[str, Any] = {
    "model_type": "intern_vit_6b",
    "hidden_size": 36,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": SIDE,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-6,
    "norm_type": "layer_norm",
    "qk_normalization": False,
    "qkv_bias": True,
}


def write_chat(folder: Path, language: str, **changed: Any) -> Original:
    """InternVL 2 on InternLM2 ("internlm2"), or InternVL 3 on Qwen2 ("qwen2")."""
    rows = (_internlm2_tokenizer if language == "internlm2" else _qwen2_tokenizer)(folder)
    kind = {"internlm2": "InternLM2ForCausalLM", "qwen2": "Qwen2ForCausalLM"}[language]
    text = {**LLAMA, "architectures": [kind], "model_type": language, "vocab_size": rows + 3}
    if language == "internlm2":
        text |= {"bias": False, "attn_implementation": "eager", "auto_map": {"AutoConfig": "a.B"}}
    settings = {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "vision_config": VISION,
        "llm_config": text,
        "select_layer": -1,
        "downsample_ratio": 0.5,
        "force_image_size": SIDE,
        "template": "internlm2-chat" if language == "internlm2" else "internvl2_5",
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": MOST,
        "pad2square": False,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "ps_version": "v2",
        **changed,
    }
    dump(folder / "config.json", settings)
    shapes = _internlm2_shapes(text) if language == "internlm2" else _qwen2_shapes(text)
    named = {f"language_model.{name}": shape for name, shape in shapes.items()}
    named |= mlp_shapes("mlp1.0", "mlp1.1", "mlp1.3", 4 * VISION["hidden_size"], text["hidden_size"])
    weights = random_like({**named, **intern_shapes(VISION, "300M")}, 5)
    save(folder, weights, shards=2)
    return Original(folder, text, VISION, weights, settings)


def _internlm2_tokenizer(folder: Path) -> int:
    """A SentencePiece model whose config names a class that comes as code."""
    return sentencepieces.llama_pieces(
        folder,
        ADDED,
        tokenizer_class="InternLM2Tokenizer",
        auto_map={"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
    )


def alphabet() -> list[str]:
    """The characters that stand for bytes, in the order of their ids."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _qwen2_tokenizer(folder: Path) -> int:
    """Qwen's files: a vocabulary of bytes, no merges, and tokens that are added to it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(alphabet())}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = ("<|endoftext|>", *ADDED)
    decoder = {
        str(256 + i): {
            "content": token,
            "special": True,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
        }
        for i, token in enumerate(added)
    }
    dump(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "bos_token": None,
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "add_bos_token": False,
            "added_tokens_decoder": decoder,
        },
    )
    return 256 + len(added)


def _qwen2_shapes(text: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes = llama_shapes(text)
    biases = {
        name.replace("weight", "bias"): shape[:1]
        for name, shape in shapes.items()
        if any(f"{n}_proj.weight" in name for n in "qkv")
    }
    return {**shapes, **biases}


_PACKED = {
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "tok_embeddings",
    "lm_head": "output",
}
"""Llama's name of a tensor → InternLM2's."""


def _internlm2_name(name: str) -> str:
    for ours, theirs in _PACKED.items():
        name = name.replace(f"{ours}.weight", f"{theirs}.weight")
    return name


def _internlm2_shapes(text: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    wide = text["hidden_size"]
    packed = wide + 2 * wide // text["num_attention_heads"] * text["num_key_value_heads"]
    shapes = {
        _internlm2_name(name): shape
        for name, shape in llama_shapes(text).items()
        if not any(f".{n}_proj" in name for n in "qkv")
    }
    for i in range(text["num_hidden_layers"]):
        shapes[f"model.layers.{i}.attention.wqkv.weight"] = (packed, wide)
    return shapes


def _as_llama(weights: dict[str, Tensor], text: dict[str, Any]) -> dict[str, Tensor]:
    """InternLM2's tensors under Llama's names, row by row of `wqkv`.

    Its rows are, for each key-value head, those of the query heads that share it, then the key's, then the value's.
    """
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    size, each = text["hidden_size"] // heads, heads // groups
    names = {_internlm2_name(name): name for name in llama_shapes(text)}
    found = {names[name]: value for name, value in weights.items() if name in names}
    for i in range(text["num_hidden_layers"]):
        rows = weights[f"model.layers.{i}.attention.wqkv.weight"].split(size)
        blocks = [rows[g * (each + 2) : (g + 1) * (each + 2)] for g in range(groups)]
        at = f"model.layers.{i}.self_attn."
        found[f"{at}q_proj.weight"] = torch.cat([row for block in blocks for row in block[:each]])
        found[f"{at}k_proj.weight"] = torch.cat([block[each] for block in blocks])
        found[f"{at}v_proj.weight"] = torch.cat([block[each + 1] for block in blocks])
    return found


def spoken(original: Original, ids: Tensor, features: Tensor, image: int) -> Outcome:
    """The language model on ids, whose image tokens are the features in order."""
    w = under(original.weights, "language_model.")
    if original.text["model_type"] == "internlm2":
        w = _as_llama(w, original.text)
    embedded = w["model.embed_tokens.weight"][ids].clone()
    embedded[ids == image] = features
    return llama(under(w, "model."), embedded, original.text, w["lm_head.weight"])


def canvas(size: tuple[int, int], most: int = MOST, side: int = SIDE) -> tuple[int, int]:
    """(columns, rows) of tiles: of all canvases of at most `most` tiles the one whose aspect is closest.

    Of canvases of the same aspect the larger one, where the image has more than half of its pixels.
    """
    best = (1, 1)
    canvases = [(c, r) for n in range(1, most + 1) for c in range(1, n + 1) for r in [n / c] if r == int(r)]
    for cols, rows in canvases:
        off, held = abs(size[0] / size[1] - cols / rows), abs(size[0] / size[1] - best[0] / best[1])
        if off < held or (off == held and size[0] * size[1] > 0.5 * side * side * cols * rows):
            best = (cols, int(rows))
    return best


def tiles(image: np.ndarray) -> Tensor:
    """(view, channel, row, col): PIL's own resize to the canvas, its tiles row by row, then the whole."""
    cols, rows = canvas((image.shape[1], image.shape[0]))
    resized = Image.fromarray(image).resize((cols * SIDE, rows * SIDE), Image.Resampling.BICUBIC)
    values = ((np.asarray(resized, dtype=np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)
    cut = [
        values[:, r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE]
        for r in range(rows)
        for c in range(cols)
    ]
    views = [torch.tensor(one[None], dtype=torch.float32) for one in cut]
    return torch.cat([*views, squashed(image, SIDE, MEAN, STD)] if len(views) > 1 else views)


def chat_features(original: Original, image: np.ndarray) -> Tensor:
    """(token, hidden): InternViT, 2×2 patches concatenated, and the projector, view after view."""
    settings, side = original.settings, SIDE // PATCH
    w, tower = under(original.weights, "mlp1."), under(original.weights, "vision_model.")
    found = []
    for view in tiles(image):
        seen = intern_vit(tower, view[None], original.vision, settings["select_layer"])
        merged = torch.stack(
            [
                torch.cat([seen[(2 * r + i) * side + 2 * c + j] for i in (0, 1) for j in (0, 1)])
                for r in range(side // 2)
                for c in range(side // 2)
            ]
        )
        found.append(linear(F.gelu(linear(layer_norm(merged, w, "0", 1e-5), w, "1")), w, "3"))
    return torch.cat(found)
