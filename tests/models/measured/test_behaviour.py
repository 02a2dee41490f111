"""What a model shows of itself, where that has no name or cannot be told."""

import numpy as np
import pytest
import torch

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.models.measured.behaviour import _attends
from interp.models.measured.embedder import Embedder, prompt_text


def test_an_attention_without_a_name_is_refused() -> None:
    felt = np.array([True, False, False, False, True])
    with pytest.raises(
        ModelError, match=r"none of causal, image_blocks and prefix: .* by 0 of 6 earlier rows"
    ):
        _attends(np.zeros(6, bool), felt, np.array([2, 3, 4, 5]))
    assert _attends(np.zeros(6, bool), np.zeros(5, bool), np.array([2, 3, 4, 5])) == "causal"
    assert _attends(np.ones(6, bool), felt, np.array([2, 3, 4, 5])) == "prefix"
    block = np.array([False, False, True, True, True])
    assert _attends(np.zeros(6, bool), block, np.array([2, 3, 4, 5])) == "image_blocks"
    second_run = np.array(
        [False, False, False, True]
    )  # of two runs of image tokens only the last one sees itself
    assert _attends(np.zeros(6, bool), second_run, np.array([0, 1, 3, 4])) == "image_blocks"


def test_pictures_that_give_other_shapes_are_refused() -> None:
    model, processor = tiny("qwen2_vl")
    embedder = Embedder(model, processor, model.get_decoder().layers[0], prompt_text(processor, 1, ""))
    pictures = [[np.zeros((height, 112, 3), np.uint8)] for height in (112, 224)]
    with pytest.raises(ModelError, match="pictures of one size do not give inputs of one shape"):
        list(embedder(pictures))


def test_what_enters_the_decoder_is_transformers_own() -> None:
    """The image's features, from `get_image_features`, stand at the image's positions."""
    model, processor = tiny("llava")
    embedder = Embedder(model, processor, model.get_decoder().layers[0], prompt_text(processor, 1, ""))
    picture = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    (entering,) = embedder([[picture]])
    inputs = embedder.inputs([picture])
    with torch.no_grad():
        features = model.get_image_features(pixel_values=inputs["pixel_values"])
    features = getattr(features, "pooler_output", features)[0]
    at = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
    np.testing.assert_allclose(entering[at], features.reshape(-1, entering.shape[1]).numpy(), atol=1e-6)
