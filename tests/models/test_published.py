"""Real sizes without weights: each model's config as its hub folder has it, built on the meta device."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

from interp.conformance.tiny import recipe
from interp.errors import ModelError
from interp.inputs.footprints import check_layout
from interp.models.adapter import built_in, find
from interp.tracing.layers.decoder_layers import layer_kinds, mixer
from tests.covering import REPRESENTATIVES
from tests.models.published import PUBLISHED, Published
from tests.models.real_processors import PROCESSORS
from tests.models.real_sizes import CONFIGS

HYBRID = ("minicpmv4_6", "qwen3_5", "qwen3_5_moe")
"""Three of four layers are gated DeltaNets, and attention has an output gate."""

ATTENTION = {**dict.fromkeys(HYBRID, 0.25), "lfm2_vl": 6 / 16}
"""The share of layers that have attention, where not all do."""

FIRST = {known.family: known for known in reversed(PUBLISHED) if known.family in REPRESENTATIVES}
each = pytest.mark.parametrize(
    "known",
    [
        pytest.param(
            known,
            id=known.hub_id.split("/")[1],
            marks=[] if known is FIRST.get(known.family) else pytest.mark.ci,
        )
        for known in PUBLISHED
    ],
)
"""Every published model; a default run takes one of each of the families that stand for the others."""


@cache
def config_of(hub_id: str) -> Any:
    told = dict(CONFIGS[hub_id])
    return AutoConfig.for_model(told.pop("model_type"), **told)


def processor_of(known: Published) -> Any:
    """The family's processor with the checkpoint's settings, on the tiny models' vocabulary."""
    processor = recipe(known.family).processor()
    images, settings = PROCESSORS.get(known.hub_id) or PROCESSORS[known.family]
    images.image_seq_length = settings.get("image_seq_length")
    processor.image_processor = images
    for name, value in settings.items():
        assert hasattr(processor, name), name
        setattr(processor, name, value)
    return processor


def encoded(known: Published, processor: Any) -> Any:
    picture = Image.new("RGB", known.image)
    content = [{"type": "image"}, {"type": "text", "text": "where ?"}]
    text = "where ?" if getattr(find(config_of(known.hub_id)), "leading_images", False) else "<image> where ?"
    if processor.chat_template is not None:
        text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    return processor(text=[text], images=[picture], return_tensors="pt")


def test_every_family_has_a_published_model():
    assert {known.family for known in PUBLISHED} == {adapter.name for adapter in built_in()}
    assert [known.hub_id for known in PUBLISHED] == list(CONFIGS)


@each
def test_the_adapter_finds_the_published_decoder(known):
    if known.needs is not None:
        pytest.importorskip(known.needs)
    config = config_of(known.hub_id)
    adapter = find(config)
    assert adapter.name == known.family
    with torch.device("meta"):
        model: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)](config)
    layers = adapter.layers(model)
    assert len(layers) == known.layers
    soft = [
        one for one, kind in zip(layers, layer_kinds(layers), strict=True) if kind in ("attention", "cross")
    ]
    attentions = [mixer(one) for one in soft]
    assert len(attentions) == known.layers * ATTENTION.get(known.family, 1)
    for attention in attentions:
        if hasattr(attention, "kv_b_proj"):  # keys and values are made of latents
            wide = attention.qk_nope_head_dim + attention.v_head_dim
            assert attention.q_b_proj.weight.shape[0] == known.heads * attention.qk_head_dim
            assert attention.kv_b_proj.weight.shape[0] == known.key_value_heads * wide
            continue
        size = attention.head_dim
        if known.family == "gemma4_unified" and size == 512:
            continue  # layers that see everything have one key-value head, and it is their values too
        packed = 2 if known.family in HYBRID else 1  # a gate beside each query
        assert attention.q_proj.weight.shape == (packed * known.heads * size, known.hidden)
        if getattr(attention, "is_kv_shared_layer", False):
            continue  # it uses an earlier layer's keys
        assert attention.k_proj.weight.shape == (known.key_value_heads * size, known.hidden)
    total = sum(weight.numel() for weight in model.parameters()) / 1e9
    assert total == pytest.approx(known.parameters, rel=0.01)


@each
def test_footprints_have_the_published_number_of_tokens(known):
    config, processor = config_of(known.hub_id), processor_of(known)
    adapter = find(config)
    inputs = encoded(known, processor)
    found = adapter.footprints([known.image], inputs, processor, config)
    assert len(found) == known.tokens
    assert found.grid == known.grid
    ids: Any = recipe(known.family).config()  # the tokens have the tiny vocabulary's ids
    positions = adapter.image_positions(inputs["input_ids"], ids)
    if adapter.maps == "cross":
        positions = adapter.cross_keys(inputs, positions, config)[0]
    assert len(positions) == len(found)
    check_layout(found, [known.image])


def test_another_checkpoints_processor_is_noticed():
    """SmolVLM's tiles of 512 pixels in the place of Idefics3's of 364."""
    known = next(k for k in PUBLISHED if k.hub_id == "HuggingFaceTB/SmolVLM-256M-Instruct")
    processor = processor_of(known)
    inputs = encoded(known, processor)
    processor.image_processor = PROCESSORS["HuggingFaceM4/Idefics3-8B-Llama3"][0]
    with pytest.raises(ModelError, match="tiles"):
        find(config_of(known.hub_id)).footprints([known.image], inputs, processor, config_of(known.hub_id))
