"""What wrapping mends in transformers' models, and what the smallest and thinnest images give in every family."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp import Rows, Sample, Site
from interp.conformance.tiny import tiny
from interp.errors import InterpError
from interp.models.repairs import (
    _keep_single_token,
    _visual_words,
    _with_image_outputs,
    _without_pixels,
    repair,
)
from interp.tracing import wrap
from interp.tracing.copies import second_instance
from tests.covering import every_family


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_an_image_of_one_token_is_the_same_beside_another() -> None:
    mllm = wrap(*tiny("mistral3"))
    small, large = Sample(noise(20, 20), "where?"), Sample(noise(90, 60), "where?")
    alone, beside = mllm.encode([small]), mllm.encode([small, large])
    assert alone.tokens[0].n == 1
    position = int(alone.tokens[0].image[0])
    expected = mllm.embeddings(beside)[0, position + int(beside.pad[0])]
    np.testing.assert_allclose(mllm.embeddings(alone)[0, position], expected, atol=1e-6)
    reads = [Rows(Site(keys="image"))]
    found, other = mllm.trace(alone, reads=reads), mllm.trace(beside, reads=reads)
    np.testing.assert_allclose(found.logits[0], other.logits[0], atol=1e-4)
    np.testing.assert_allclose(found[0].rows, other[0].rows, atol=1e-5)


def test_unwrapping_takes_the_repair_out() -> None:
    model, processor = tiny("mistral3")
    mllm = wrap(model, processor)
    projector = model.model.multi_modal_projector
    assert projector._forward_hooks
    mllm.unwrap()
    assert not projector._forward_hooks


def test_llama_4s_result_has_what_its_forward_asks_for() -> None:
    """transformers 5.24 reads `image_outputs` of a result without that field; no pass would run."""
    mllm = wrap(*tiny("llama4"))
    ids = mllm.encode([Sample(noise(30, 30), "where?")]).inputs["input_ids"]
    for model in (mllm.hf, second_instance(mllm.hf, "eager")):
        assert model.language_model(input_ids=ids).image_outputs is None


def test_other_families_need_no_repair() -> None:
    assert repair(tiny("llava")[0]) == []


NOTHING: Any = torch.nn.Identity()


@pytest.mark.parametrize(("shape", "kept"), [((1, 4), (1, 1, 4)), ((2, 4), (2, 4)), ((1, 1, 4), (1, 1, 4))])
def test_an_axis_is_put_before_a_single_token(shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
    assert _keep_single_token(NOTHING, None, torch.ones(shape)).shape == kept


def test_a_field_is_added_only_where_it_is_missing() -> None:
    assert _with_image_outputs(NOTHING, None, SimpleNamespace()).image_outputs is None
    assert _with_image_outputs(NOTHING, None, SimpleNamespace(image_outputs=3)).image_outputs == 3
    assert _with_image_outputs(NOTHING, None, (1,)) == (1,)


def test_visual_words_are_from_the_end_of_their_table() -> None:
    """Words 7 and 9 are the last two rows of the table of visual words, in this order; others stay."""
    table = SimpleNamespace(weight=torch.arange(10.0).reshape(5, 2))
    model = SimpleNamespace(visual_indicator_token_ids=[7, 9], visual_embeddings_table=table)
    ids = torch.tensor([[9, 3, 7]])
    found = _visual_words(model, NOTHING, (ids,), torch.full((1, 3, 2), -1.0))
    assert found.tolist() == [[[8, 9], [-1, -1], [6, 7]]]


def test_a_pass_without_pixels_takes_the_words_of_the_image() -> None:
    words = torch.nn.Embedding(4, 2)

    def forward(input_ids: Any, pixel_values: Any, other: Any = None) -> None: ...

    config = SimpleNamespace(image_token_id=3)
    model = SimpleNamespace(get_input_embeddings=lambda: words, config=config, forward=forward)
    ids = torch.tensor([[3, 1, 3]])
    given, named = _without_pixels(model, (), {"input_ids": ids})
    assert given == ()
    assert set(named) == {"input_ids", "pixel_values", "mm_encoder_outputs"}
    assert named["pixel_values"] is None
    assert torch.equal(named["mm_encoder_outputs"]["image"].pooler_output, words.weight[[3, 3]])
    for own in ({"pixel_values": ids}, {"mm_encoder_outputs": {}}):
        kept = {"input_ids": ids, **own}
        assert _without_pixels(model, (), kept) == ((), kept)
    assert _without_pixels(model, (ids,), {}) == ((ids,), {})


@pytest.mark.slow
@pytest.mark.parametrize("family", every_family())
def test_tiny_and_thin_images_are_right_or_refused(family: str) -> None:
    """Each alone equals itself beside another image, or is refused."""
    mllm = wrap(*tiny(family))
    other = Sample(noise(90, 60), "where?")
    for size in [(1, 1), (1, 500), (500, 1), (20, 20), (2, 3), (29, 28)]:
        sample = Sample(noise(*size), "where?", id=str(size))
        try:
            alone = mllm.trace([sample], reads=[Rows(Site())])
        except InterpError:
            continue
        beside = mllm.trace([sample, other], reads=[Rows(Site())])
        np.testing.assert_allclose(alone.logits[0], beside.logits[0], atol=2e-3, err_msg=str(size))
        assert alone.tokens[0].n == alone[0].tokens.n >= 1
