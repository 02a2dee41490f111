"""The reasons against transformers' own classes: what each says must be there, on the meta device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import DeepseekOcr2VisionModel

from interp.errors import ModelError
from interp.models.adapter import built_in
from interp.models.refusals import _REASONS, AnswersOnly, answers, refusal, without_maps

# Words of the reason → a part of a parameter's name that is there if and only if the reason is true.
EVIDENCE = {
    "idefics": ("cross-attention layers", "gated_cross_attn_layers"),
    "blip": ("cross-attention layers", ".crossattention."),
    "kosmos-2": ("latent queries", "latent_query"),
    "kosmos-2.5": ("latent queries", "latent_query"),
    "deepseek_ocr2": ("vision encoder", "query_1024_resolution"),
    "florence2": ("encoder-decoder", "decoder.layers.0.encoder_attn"),
    "pix2struct": ("encoder-decoder", "encoder_decoder_attention"),
    "pp_formulanet": ("encoder-decoder", "encoder_attn"),
    "udop": ("encoder-decoder", "EncDecAttention"),
    "t5gemma2": ("encoder-decoder", "encoder.vision_tower"),
    "git": ("the prompt's ids hold no image tokens", "visual_projection"),
    "diffusion_gemma": ("refining a whole canvas", "decoder.self_conditioning"),
    "pi0": ("actions", "action_in_proj"),
    "evolla": ("proteins", "protein_encoder"),
    "instructblipvideo": ("clips of frames", "query_tokens"),
}
FOREIGN = {"flamingo", "qwen", "minicpmv", "vision-encoder-decoder"}
"""Not in transformers' mapping, or without a default size: nothing to build."""


def default_model(kind: str) -> torch.nn.Module:
    """The model of a config's defaults, without weights; the defaults of two are complete only for a part."""
    config = CONFIG_MAPPING[kind]()
    with torch.device("meta"):
        if kind == "deepseek_ocr2":
            return DeepseekOcr2VisionModel(config.vision_config)
        if kind == "diffusion_gemma":
            config.text_config.num_experts, config.text_config.moe_intermediate_size = 2, 64
            config.text_config.top_k_experts = 1
        return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)](config)


def test_every_reason_has_its_evidence():
    assert set(EVIDENCE) | FOREIGN == set(_REASONS)


@pytest.mark.parametrize("kind", sorted(EVIDENCE))
def test_a_reason_is_what_transformers_code_does(kind):
    words, part = EVIDENCE[kind]
    message = refusal(CONFIG_MAPPING[kind]())
    assert message is not None
    assert words in message
    assert message.startswith(f"{kind!r} models have no spatial map here: ")
    assert " Instead: " in message
    assert any(part in name for name, _ in default_model(kind).named_parameters()), part


@pytest.mark.parametrize("kind", ["florence2", "pix2struct", "pp_formulanet", "udop", "t5gemma2"])
def test_encoder_decoders_say_so_in_their_config(kind):
    assert CONFIG_MAPPING[kind]().is_encoder_decoder


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "internvl", "gemma3", "glm4v", "deepseek_vl"])
def test_what_the_evidence_is_not_found_in(kind):
    """The parts named above are peculiar: models with a spatial map have none of them."""
    names = [name for name, _ in default_model(kind).named_parameters()]
    assert not [name for name in names for _, part in EVIDENCE.values() if part in name]


def test_families_with_a_map_are_not_refused():
    for adapter in built_in():
        assert refusal(SimpleNamespace(model_type=adapter.name)) is None
    for kind in ("aya_vision", "glm4v", "janus", "video_llava", "granite4_vision", "deepseek_vl"):
        assert refusal(CONFIG_MAPPING[kind]()) is None


def test_qwen_vl_chat_and_the_language_model_of_the_same_name():
    seeing = SimpleNamespace(model_type="qwen", visual={"n_queries": 256})
    assert "resampler" in str(refusal(seeing))
    assert refusal(SimpleNamespace(model_type="qwen")) is None


def test_any_encoder_decoder():
    config = transformers.EncoderDecoderConfig(
        encoder=transformers.BertConfig().to_dict(), decoder=transformers.BertConfig().to_dict()
    )
    assert "encoder-decoder" in str(refusal(config))
    assert refusal(SimpleNamespace()) is None
    two_parts = SimpleNamespace(model_type="new", use_decoder_only_language_model=False)
    assert "'new' models have no spatial map here: it is an encoder-decoder" in str(refusal(two_parts))


def test_robots_canvases_and_clips_give_no_answer():
    silent = {"diffusion_gemma", "evolla", "instructblipvideo", "pi0"}
    assert {kind for kind in _REASONS if not answers(SimpleNamespace(model_type=kind))} == silent
    assert answers(SimpleNamespace(model_type="llava"))
    assert without_maps() == sorted(set(_REASONS) - silent)
    assert without_maps()[0] == "blip"


def test_an_adapter_of_answers_refuses_the_rest_with_the_reason():
    one = AnswersOnly("It has no places.")
    assert not one.matches(SimpleNamespace(model_type="answers_only"))
    for asked, call in (
        ("decoder layers", lambda: one.layers(None)),
        ("image positions", lambda: one.image_positions([], None)),
        ("footprints", lambda: one.footprints([], {}, None, None)),
        ("rows", lambda: one.refuse("rows")),
    ):
        with pytest.raises(
            ModelError, match=rf"{asked} need image tokens that are places\. It has no places"
        ):
            call()
    assert one.fallback_prompt("Why?", 3, None) == "Why?"
    assert one.fallback_prompt("Why?", 1, "Be brief.") == "Be brief.\nWhy?"
