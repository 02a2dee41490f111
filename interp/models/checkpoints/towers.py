"""Vision towers of original checkpoints: CLIP's, and timm's ViTs from open_clip (BiomedCLIP)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, CLIPVisionConfig, Dinov2Config, LlavaConfig, PreTrainedConfig

from interp.errors import ModelError
from interp.models.checkpoints.tensors import IGNORED, Part, Rule, Tensors, read_file, read_folder

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "Tower",
    "clip_tower",
    "known_clip",
    "open_clip_tower",
    "read_tower",
    "vit_tower",
]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HOME = "model.vision_tower."
_OPEN_CLIP = ("open_clip_config.json", "open_clip_model_config.json")
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HEAD = 64
"""The width of an attention head in all timm ViTs of open_clip."""


@dataclass(frozen=True, eq=False)
class Tower:
    """A vision tower.

    Attributes:
        config: The transformers config.
        part: The files and the rules for their names.
        pixels: The side of the input square.
        mean: The mean of the normalisation, per channel.
        std: The standard deviation of the normalisation, per channel.
    """

    config: PreTrainedConfig
    part: Part
    pixels: int
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD


def read_tower(folder: Path) -> Tower:
    """Returns the tower in a folder: CLIP as transformers saves it, or an open_clip folder with a timm ViT.

    Raises:
        ModelError: The tower is of another kind.
    """
    for name in _OPEN_CLIP:
        if (folder / name).is_file():
            return open_clip_tower(_json(folder / name), _first(folder, _OPEN_CLIP_WEIGHTS))
    return clip_tower(folder, read_folder(folder), "")


def clip_tower(folder: Path, tensors: Tensors, prefix: str) -> Tower:
    """Returns a CLIP tower whose config is in a folder and whose tensors have names with this prefix.

    The text part of a whole CLIP is left out.

    Raises:
        ModelError: The config is not that of a CLIP.
    """
    config = _clip_config(folder)
    settings = _json(folder / "preprocessor_config.json")
    side = settings.get("crop_size", config.image_size)
    side = side["height"] if isinstance(side, Mapping) else side
    mean, std = settings.get("image_mean", CLIP_MEAN), settings.get("image_std", CLIP_STD)
    return Tower(config, Part(tensors, _clip_rules(prefix)), int(side), tuple(mean), tuple(std))


def known_clip(name: str, tensors: Tensors, prefix: str) -> Tower | None:
    """Returns OpenAI's CLIP ViT-L/14 at 336 pixels, whose sizes are known without its config; None for other names."""
    if not name.rstrip("/").replace("_", "-").endswith("clip-vit-large-patch14-336"):
        return None
    config: Any = LlavaConfig().vision_config  # transformers' default is this tower
    return Tower(config, Part(tensors, _clip_rules(prefix)), config.image_size)


def open_clip_tower(config: Mapping[str, Any], weights: Path) -> Tower:
    """Returns the image part of an open_clip model that is a timm ViT.

    Args:
        config: open_clip's config, with or without "model_cfg" around it.
        weights: The file of the weights.

    Raises:
        ModelError: The image part is another model, or the file holds none.
    """
    model = config.get("model_cfg", config)
    vision = model.get("vision_cfg", {})
    trunk = str(vision.get("timm_model_name", ""))
    if not trunk.startswith("vit_"):
        raise ModelError(
            f"the open_clip tower beside {weights.name} is {trunk or 'no timm model'!r}; known are timm's ViTs "
            "(BiomedCLIP: vit_base_patch16_224). Pass vision_tower= with another."
        )
    settings = config.get("preprocess_cfg", {})
    mean, std = settings.get("mean", CLIP_MEAN), settings.get("std", CLIP_STD)
    return vit_tower(read_file(weights), "visual.trunk.", tuple(mean), tuple(std), vision.get("image_size"))


def vit_tower(
    tensors: Tensors,
    prefix: str,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    pixels: int | None = None,
) -> Tower:
    """Returns a timm ViT as transformers' DINOv2, which computes the same; the sizes are read from its tensors.

    DINOv2 also has a mask token, which is zero here and never used, and scales for the two additions of each layer,
    which are one for a ViT without them.

    Raises:
        ModelError: There is no ViT under the prefix.
    """
    names = {n.removeprefix(prefix): n for n in tensors.names() if n.startswith(prefix)}
    needed = ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
    if any(name not in names for name in needed):
        raise ModelError(
            f"expected a timm ViT in tensors named {prefix}…; found none with {', '.join(needed)}. Is it another tower?"
        )
    places, patches, inner = (tensors.meta(names[name]).shape for name in needed)
    patch, hidden = int(patches[-1]), int(patches[0])
    side = round((places[1] - 1) ** 0.5) * patch
    blocks = [int(found[1]) for n in names if (found := re.match(r"blocks\.(\d+)\.", n))]
    config = Dinov2Config(
        hidden_size=hidden,
        num_hidden_layers=max(blocks) + 1,
        num_attention_heads=max(1, hidden // _HEAD),
        mlp_ratio=int(inner[0]) // hidden,
        image_size=side,
        patch_size=patch,
        layer_norm_eps=1e-6,
        hidden_act="gelu",
        layerscale_value=1.0,
    )
    if pixels not in (None, side):
        raise ModelError(
            f"the tower's config says {pixels} pixels, its positions {side}; take matching files."
        )
    scaled = "blocks.0.ls1.gamma" in names
    return Tower(config, Part(tensors, _vit_rules(prefix, scaled)), side, mean, std)


def _clip_config(folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a foreign config raises
        raise ModelError(
            f"the vision tower in {folder} has no config that transformers reads ({type(error).__name__}: {error}). "
            "Pass vision_tower= with the folder or hub id of a CLIP."
        ) from error
    vision: Any = getattr(config, "vision_config", config)
    if not isinstance(vision, CLIPVisionConfig):
        raise ModelError(
            f"the vision tower in {folder} is of the model type {config.model_type!r}; known are CLIP's and "
            "open_clip's timm ViTs. Pass vision_tower= with one of them."
        )
    return vision


def _clip_rules(prefix: str) -> tuple[Rule, ...]:
    inside = re.escape(prefix)
    return (
        *IGNORED,
        Rule(
            rf"{inside}(?:vision_model\.)?((?:embeddings|encoder|pre_layrnorm|post_layernorm)\..+)",
            _HOME + r"\1",
        ),
        Rule(rf"{inside}(?:text_model\..+|text_projection\.weight|visual_projection\.weight|logit_scale)"),
    )


def _vit_rules(prefix: str, scaled: bool) -> tuple[Rule, ...]:
    start, block = re.escape(prefix), rf"{re.escape(prefix)}blocks\.(\d+)\."
    layer = rf"{_HOME}encoder.layer.\1."
    heads = tuple(rf"{layer}attention.{which}_proj.\2" for which in "qkv")
    norms: tuple[Rule, ...] = (Rule(block + r"(norm[12]\..+)", layer + r"\2"),)
    if not scaled:
        to = (layer + r"norm\2.weight", layer + r"layer_scale\2.lambda1")
        norms = (Rule(block + r"norm([12])\.weight", to, _with_ones), *norms)
    return (
        Rule(start + "cls_token", (_HOME + "embeddings.cls_token", _HOME + "embeddings.mask_token"), _with_zeros),
        Rule(start + "pos_embed", _HOME + "embeddings.position_embeddings"),
        Rule(start + r"patch_embed\.proj\.(.+)", _HOME + r"embeddings.patch_embeddings.projection.\1"),
        *norms,
        Rule(block + r"attn\.qkv\.(.+)", heads, _in_three),
        Rule(block + r"attn\.proj\.(.+)", layer + r"attention.o_proj.\2"),
        Rule(block + r"ls([12])\.gamma", layer + r"layer_scale\2.lambda1"),
        Rule(block + r"(mlp\.fc[12]\..+)", layer + r"\2"),
        Rule(start + r"norm\.(.+)", _HOME + r"layernorm.\1"),
        Rule(r"visual\.head\..+|text\..+|logit_scale|logit_bias"),
    )  # fmt: skip


def _with_ones(weight: Tensor) -> Sequence[Tensor]:
    return weight, torch.ones_like(weight)


def _with_zeros(token: Tensor) -> Sequence[Tensor]:
    return token, torch.zeros_like(token[0])


def _in_three(stacked: Tensor) -> Sequence[Tensor]:
    return stacked.chunk(3)


def _first(folder: Path, names: Sequence[str]) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ModelError(f"{folder} holds none of {', '.join(names)}. Is the download complete?")
    return found


def _json(path: Path) -> dict[str, Any]:
    """Returns the content of a JSON file; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (UnicodeDecodeError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is not a JSON object ({error}). Copy it again.") from error
