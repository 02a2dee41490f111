"""Processors without the packages they ask for, saved and loaded."""

from __future__ import annotations

import sys

import transformers
from transformers.models.smolvlm import processing_smolvlm

from interp.conformance.tiny import tiny
from interp.models.processors import pixtral_processor, smolvlm_processor


def test_pixtral_is_transformers_own_and_leaves_no_stand_in_behind(tmp_path):
    kind = pixtral_processor()
    assert kind.__module__ == "transformers.models.pixtral.processing_pixtral"
    stand_in = sys.modules.get("transformers.models.pixtral.image_processing_pixtral")
    assert stand_in is None or stand_in.__name__.endswith(".image_processing_pixtral")
    tiny("mistral3")[1].save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert (loaded.patch_size, loaded.spatial_merge_size) == (14, 2)
    assert type(loaded.image_processor).__name__.startswith("PixtralImageProcessor")


def test_smolvlm_fills_its_template_without_videos(tmp_path):
    words = processing_smolvlm.num2words
    tiny("smolvlm")[1].save_pretrained(tmp_path)
    loaded = smolvlm_processor().from_pretrained(tmp_path)
    assert processing_smolvlm.num2words is words
    assert isinstance(loaded, transformers.SmolVLMProcessor)
    assert loaded.image_seq_len == 9
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}
    assert loaded.apply_chat_template([turn], add_generation_prompt=True) == "user : <image> Why? assistant :"
