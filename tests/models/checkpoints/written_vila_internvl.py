"""Tiny random checkpoints as the original code of VILA-M3 and MedRegA saves them; their features in plain torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.models.checkpoints import sentencepieces
from tests.models.checkpoints.plain_models import (
    LLAMA,
    Outcome,
    Weights,
    intern_vit,
    layer_norm,
    linear,
    llama,
    llama_shapes,
    random_like,
    siglip,
    squashed,
    under,
)

SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "architectures": ["SiglipVisionModel"],
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 60,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
    "_name_or_path": "/home/of/whoever/trained/it/vision_tower",
}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Original:
    """A folder, what its config.json files hold, and its tensors as they were written."""

    folder: Path
    text: dict[str, Any]
    vision: dict[str, Any]
    weights: dict[str, Tensor]
    settings: dict[str, Any]

    def language(self, ids: Tensor, features: Tensor, image: int, prefix: str) -> Outcome:
        """The language model on ids, whose image tokens are the features in order."""
        w = under(self.weights, prefix)
        embedded = w["model.embed_tokens.weight"][ids].clone()
        embedded[ids == image] = features
        return llama(under(w, "model."), embedded, self.text, w["lm_head.weight"])


def dump(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def save(folder: Path, weights: Weights, shards: int = 1) -> None:
    """safetensors: one file, or shards with an index."""
    if shards == 1:
        return save_file(dict(weights), folder / "model.safetensors")
    names = sorted(weights)
    where = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: weights[name] for name in names if where[name] == file}, folder / file)
    return dump(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})


def _siglip_shapes() -> dict[str, tuple[int, ...]]:
    wide, inner, patch = SIGLIP["hidden_size"], SIGLIP["intermediate_size"], SIGLIP["patch_size"]
    top = "vision_model."
    found: dict[str, tuple[int, ...]] = {
        f"{top}embeddings.patch_embedding.weight": (wide, 3, patch, patch),
        f"{top}embeddings.patch_embedding.bias": (wide,),
        f"{top}embeddings.position_embedding.weight": ((SIGLIP["image_size"] // patch) ** 2, wide),
        f"{top}head.probe": (1, 1, wide),
        f"{top}head.attention.in_proj_weight": (3 * wide, wide),
        f"{top}head.attention.in_proj_bias": (3 * wide,),
    }
    blocks = [f"{top}encoder.layers.{i}." for i in range(SIGLIP["num_hidden_layers"])]
    for at in blocks:
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= {f"{at}self_attn.{name}.weight": (wide, wide), f"{at}self_attn.{name}.bias": (wide,)}
        found |= {f"{at}mlp.fc1.weight": (inner, wide), f"{at}mlp.fc1.bias": (inner,)}
        found |= {f"{at}mlp.fc2.weight": (wide, inner), f"{at}mlp.fc2.bias": (wide,)}
    for at in (*(f"{b}layer_norm{n}" for b in blocks for n in (1, 2)), f"{top}post_layernorm"):
        found |= {f"{at}.weight": (wide,), f"{at}.bias": (wide,)}
    return found


def mlp_shapes(norm: str, first: str, second: str, wide: int, out: int) -> dict[str, tuple[int, ...]]:
    return {
        **{f"{norm}.{n}": (wide,) for n in ("weight", "bias")},
        f"{first}.weight": (out, wide),
        f"{first}.bias": (out,),
        f"{second}.weight": (out, out),
        f"{second}.bias": (out,),
    }


def write_vila(folder: Path, speech: str = "llama_3", spare: int = 0, **changed: Any) -> Original:
    """VILA-M3: three folders, and configs that name the paths of the machine that trained it; `spare` unused rows."""
    llm = folder / "llm"
    rows = sentencepieces.llama3(llm) if speech == "llama_3" else sentencepieces.llama_pieces(llm)
    text = {**LLAMA, "vocab_size": rows + spare}
    parts = {
        "llm": random_like(llama_shapes(text), 0),
        "vision_tower": random_like(_siglip_shapes(), 1),
        "mm_projector": random_like(
            mlp_shapes("layers.1", "layers.2", "layers.4", 4 * SIGLIP["hidden_size"], text["hidden_size"]), 2
        ),
    }
    configs = {
        "llm": text,
        "vision_tower": SIGLIP,
        "mm_projector": {"model_type": "v2l_projector", "mm_projector_type": "mlp_downsample"},
    }
    for name, weights in parts.items():
        dump(folder / name / "config.json", configs[name])
        save(folder / name, weights, shards=2 if name == "llm" else 1)
    pixels = {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 60, "width": 60},
        "resample": 3,
    }
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "do_normalize": True}
    dump(folder / "vision_tower" / "preprocessor_config.json", {**pixels, **half, "do_resize": True})
    settings = {
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaModel"],
        "llm_cfg": text,
        "vision_tower_cfg": SIGLIP,
        "mm_projector_cfg": configs["mm_projector"],
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "cls_patch",
        "image_aspect_ratio": "resize",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "vision_resolution": -1,
        "s2": False,
        "_name_or_path": "/home/of/whoever/trained/it",
        **changed,
    }
    dump(folder / "config.json", settings)
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\nA model.\n")
    flat = {f"{part}.{name}": value for part, found in parts.items() for name, value in found.items()}
    return Original(folder, text, SIGLIP, flat, settings)


def vila_features(original: Original, image: np.ndarray) -> Tensor:
    """(token, hidden): SigLIP, 2×2 patches concatenated, down the columns, and the projector: by the description."""
    side = SIGLIP["image_size"] // SIGLIP["patch_size"]
    tower = under(original.weights, "vision_tower.vision_model.")
    seen = siglip(tower, squashed(image, SIGLIP["image_size"], 0.5, 0.5), SIGLIP, -2)
    empty = torch.zeros(seen.shape[1])
    half = (side + 1) // 2

    def patch(row: int, col: int) -> Tensor:
        return seen[row * side + col] if row < side and col < side else empty

    merged = torch.stack(
        [
            torch.cat([patch(2 * r + i, 2 * c + j) for i in (0, 1) for j in (0, 1)])
            for c in range(half)
            for r in range(half)
        ]
    )
    w = under(original.weights, "mm_projector.layers.")
    return linear(F.gelu(linear(layer_norm(merged, w, "1", 1e-5), w, "2")), w, "4")


def write_internvl(
    folder: Path, version: str | None, tower: str = "6B", layer: int = -1, **changed: Any
) -> Original:
    """MedRegA: one folder, sharded; `version` None leaves `ps_version` out."""
    added = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    rows = sentencepieces.llama_pieces(folder, added, add_bos_token=False) + 3
    text = {**LLAMA, "vocab_size": rows}
    vision: dict[str, Any] = {
        "model_type": "intern_vit_6b",
        "hidden_size": 36,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 48,
        "patch_size": 8,
        "layer_norm_eps": 1e-6,
        "use_flash_attn": True,
    }  # of the 6B tower: RMS norm, normalised queries and keys, no bias, as where the config says nothing
    if tower == "300M":
        vision |= {"norm_type": "layer_norm", "qk_normalization": False, "qkv_bias": True}
    settings = {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "vision_config": vision,
        "llm_config": text,
        "select_layer": layer,
        "downsample_ratio": 0.5,
        "force_image_size": 48,
        "template": "Hermes-2",
        "dynamic_image_size": False,
        "use_thumbnail": False,
        "pad2square": False,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        **({} if version is None else {"ps_version": version}),
        **changed,
    }
    dump(folder / "config.json", settings)
    shapes = {f"language_model.{name}": shape for name, shape in llama_shapes(text).items()}
    shapes |= mlp_shapes("mlp1.0", "mlp1.1", "mlp1.3", 4 * vision["hidden_size"], text["hidden_size"])
    weights = random_like({**shapes, **intern_shapes(vision, tower)}, 3)
    save(folder, weights, shards=3)
    (folder / "LICENSE").write_text("MIT License\n")
    return Original(folder, text, vision, weights, settings)


def intern_shapes(vision: Mapping[str, Any], tower: str) -> dict[str, tuple[int, ...]]:
    wide, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    top = "vision_model."
    found: dict[str, tuple[int, ...]] = {
        f"{top}embeddings.class_embedding": (1, 1, wide),
        f"{top}embeddings.position_embedding": (1, (vision["image_size"] // patch) ** 2 + 1, wide),
        f"{top}embeddings.patch_embedding.weight": (wide, 3, patch, patch),
        f"{top}embeddings.patch_embedding.bias": (wide,),
    }
    for at in (f"{top}encoder.layers.{i}." for i in range(vision["num_hidden_layers"])):
        found |= {f"{at}attn.qkv.weight": (3 * wide, wide), f"{at}attn.proj.weight": (wide, wide)}
        found |= {f"{at}mlp.fc1.weight": (inner, wide), f"{at}mlp.fc2.weight": (wide, inner)}
        found |= {f"{at}attn.proj.bias": (wide,), f"{at}mlp.fc1.bias": (inner,), f"{at}mlp.fc2.bias": (wide,)}
        found |= {f"{at}{name}": (wide,) for name in ("ls1", "ls2", "norm1.weight", "norm2.weight")}
        if tower == "300M":
            found |= {
                f"{at}attn.qkv.bias": (3 * wide,),
                f"{at}norm1.bias": (wide,),
                f"{at}norm2.bias": (wide,),
            }
        else:
            found |= {f"{at}attn.{n}_norm.weight": (wide,) for n in "qk"}
    return found


def internvl_features(original: Original, image: np.ndarray) -> Tensor:
    """(token, hidden): InternViT, 2×2 patches concatenated, and the projector; down the columns in "v1"."""
    raw, settings = original.vision, original.settings
    side = raw["image_size"] // raw["patch_size"]
    pixels = squashed(image, raw["image_size"], MEAN, STD)
    seen = intern_vit(under(original.weights, "vision_model."), pixels, raw, settings["select_layer"])
    half = [(r, c) for r in range(side // 2) for c in range(side // 2)]
    places = [(r, c) for c, r in half] if settings.get("ps_version", "v1") == "v1" else half
    merged = torch.stack(
        [torch.cat([seen[(2 * r + i) * side + 2 * c + j] for i in (0, 1) for j in (0, 1)]) for r, c in places]
    )
    w = under(original.weights, "mlp1.")
    return linear(F.gelu(linear(layer_norm(merged, w, "0", 1e-5), w, "1")), w, "3")
