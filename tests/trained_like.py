"""Tiny LLaVAs with what trained weights have and random ones lack: other towers, sinks, huge residuals, odd groups."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, build, text_config
from interp.conformance.tiny.one_grid import llava_config, llava_processor
from interp.tracing import Mllm, wrap

LAYERS = 30
"""Layers of the deep model."""
MASSIVE = 25_000.0
"""The first token's residual in the deep model, from the second layer to the one before the last."""

TOWERS: dict[str, Any] = {
    "dinov2": lambda: transformers.Dinov2Config(**_tower()),
    "vit": lambda: transformers.ViTConfig(**_tower()),
    "internvit": lambda: transformers.InternVLVisionConfig(**_tower()),
    "siglip": lambda: transformers.SiglipVisionConfig(**_tower()),
}
"""Towers of 4×4 patches that a LLaVA may have instead of CLIP's."""


def _tower() -> dict[str, Any]:
    return {**VISION, "image_size": 56, "patch_size": 14}


def llava_with(tower: str, text: Any = None) -> tuple[Any, Any]:
    """A LLaVA with random weights and one of `TOWERS`, and its processor."""
    full = tower == "siglip"
    config = transformers.LlavaConfig(
        vision_config=TOWERS[tower](),
        text_config=text or text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full" if full else "default",
    )
    processor = llava_processor()
    if full:
        processor.vision_feature_select_strategy, processor.num_additional_image_tokens = "full", 0
    return build(transformers.LlavaForConditionalGeneration, config), processor


def grouped() -> tuple[Any, Any]:
    """A LLaVA with a DINOv2 tower whose nine heads share three key-value heads."""
    text = text_config(transformers.LlamaConfig, hidden_size=72, num_attention_heads=9, num_key_value_heads=3)
    return llava_with("dinov2", text)


def deep() -> tuple[Any, Any]:
    """A LLaVA of 30 layers whose first token carries a huge residual and takes about a third of every later row.

    Three dimensions of the stream are set aside: 0 marks the first token, 1 carries its residual, and 2 is 1 at every
    token. The second layer's MLP writes the residual where dimension 0 is large, the last but one takes it away. In
    the layers between, each head's slowest rotary dimension of the queries reads dimension 2 and that of the keys
    dimension 1, so that all rows see the first token.
    """
    config = llava_config()
    config.text_config = text_config(transformers.LlamaConfig, layers=LAYERS, head_dim=16)
    hf = build(transformers.LlavaForConditionalGeneration, config)
    with torch.no_grad():
        _plant(hf)
    return hf, llava_processor()


def _plant(hf: Any) -> None:
    decoder, bos = hf.get_decoder(), 1
    projector = hf.model.multi_modal_projector.linear_2
    for weight in (decoder.embed_tokens.weight.T, projector.weight, projector.bias):
        weight[:3] = 0
    projector.bias[2] = 1
    decoder.embed_tokens.weight[:, 2] = 1
    decoder.embed_tokens.weight[bos, 0] = 30
    for number, layer in enumerate(decoder.layers):
        attention, mlp = layer.self_attn, layer.mlp
        attention.o_proj.weight[:3] = 0
        mlp.down_proj.weight[:3] = 0
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            projection.weight[:, :3] = 0
        if 1 < number < LAYERS - 1:
            attention.q_proj.weight[7::16, 2] = SINK
            attention.k_proj.weight[7::16, 1] = 1
    _write(decoder.layers[1].mlp, 0, MASSIVE)
    _write(decoder.layers[LAYERS - 2].mlp, 1, -MASSIVE)


SINK = 0.185
"""How strongly queries look for the first token; set so that it takes about 31 % of the last row."""


def _write(mlp: Any, reads: int, value: float) -> None:
    """Lets an MLP's first unit add `value` to dimension 1 where, after the norm, dimension `reads` has all the mass."""
    full = 64**0.5
    for projection in (mlp.gate_proj, mlp.up_proj):
        projection.weight[0] = 0
        projection.weight[0, reads] = 1
    mlp.down_proj.weight[:, 0] = 0
    gate = torch.nn.functional.silu(torch.tensor(full))
    mlp.down_proj.weight[1, 0] = value / float(gate * full)


def wrapped(made: tuple[Any, Any]) -> Mllm:
    """The model, wrapped."""
    return wrap(*made, "llava")
