"""BLIP-2 and InstructBLIP: patches by impulses, both factors of a composed map against transformers' own attention."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.models.adapter import find
from interp.models.families.blip2 import Blip2, InstructBlip
from interp.tracing import Mllm, Rows, Site, wrap
from interp.tracing.vision_tower import patch_attention, patch_tokens

QUERIES, SIDE = 6, 6


@pytest.fixture(scope="module", params=["blip-2", "instructblip"])
def mllm(request) -> Mllm:
    return wrap(*tiny(request.param))


def samples() -> list[interp.Sample]:
    noise = np.random.default_rng(5)
    sizes = {"where is the nodule?": (150, 60), "what is there in the left lung, a circle?": (70, 96)}
    return [
        interp.Sample(noise.integers(0, 255, (h, w, 3), dtype=np.uint8), text)
        for text, (w, h) in sizes.items()
    ]


def plain(mllm: Mllm, sample: interp.Sample, prompt: interp.Prompt = interp.PAPER_PROMPT) -> dict[str, Any]:
    batch = mllm.encode(sample, prompt)
    return {name: value for name, value in batch.inputs.items() if name != "position_ids"}


def eager_factors(mllm: Mllm, inputs: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The last row over the queries, (layer, query), and theirs over the class token and the patches, (query, key).

    Without a hook and without the model's own `forward`: its parts one after another, as transformers' own `generate`
    runs them, each asked for its attention.
    """
    hf = tiny(mllm.family, "eager")[0]
    with torch.no_grad():
        seen = hf.vision_model(inputs["pixel_values"]).last_hidden_state
        words = {}
        if "qformer_input_ids" in inputs:
            own = torch.ones(1, QUERIES, dtype=torch.long)
            mask = torch.cat([own, inputs["qformer_attention_mask"]], dim=1)
            words = {"input_ids": inputs["qformer_input_ids"], "attention_mask": mask}
        made = hf.qformer(
            query_embeds=hf.query_tokens, encoder_hidden_states=seen, output_attentions=True, **words
        )
        embedded = hf.get_input_embeddings()(inputs["input_ids"])
        features = hf.language_projection(made.last_hidden_state[:, :QUERIES])
        embedded[inputs["input_ids"] == hf.config.image_token_id] = features[0]
        read = hf.language_model(inputs_embeds=embedded, output_attentions=True)
    crossed = [one for one in made.cross_attentions if one is not None]
    assert len(crossed) == 2, "every second of four layers"
    rows = torch.stack([one[0, :, -1, :QUERIES].mean(0) for one in read.attentions])
    return rows.numpy(), torch.stack(crossed)[:, 0].mean((0, 1)).numpy()


def test_composed_maps_are_the_product_of_eager_factors(mllm):
    """Alone and left-padded."""
    together = interp.indicators.Attention()(mllm, samples())
    for i, sample in enumerate(samples()):
        rows, latents = eager_factors(mllm, plain(mllm, sample))
        found = together[i]
        np.testing.assert_allclose(found.values, rows @ latents, atol=1e-6)
        assert (found.name, found.attrs["map"]) == ("composed attention", "composed")
        tokens = together.tokens[i]
        assert tokens.n == 1 + SIDE**2
        assert np.isnan(tokens.footprints).any(axis=1).tolist() == [True] + [False] * SIDE**2
        factor = patch_attention(mllm, mllm.encode(sample))[0]
        np.testing.assert_allclose(factor.sum(axis=1), 1, atol=1e-6)
        assert factor.std(axis=1).min() > 0.005, "rows too even to show a mistake"


def test_the_generic_map_is_of_the_generic_prompt(mllm):
    """InstructBLIP's queries read the prompt, so those under the generic prompt look elsewhere."""
    one = samples()[0]
    found = interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT)(mllm, one)[0].values
    (a, b), (c, d) = (
        eager_factors(mllm, plain(mllm, one, prompt))
        for prompt in (interp.PAPER_PROMPT, interp.GENERIC_PROMPT)
    )
    np.testing.assert_allclose(found, (a @ b) / (c @ d), rtol=1e-4)
    assert (np.abs(b - d).max() > 1e-3) == (mllm.family == "instructblip")


def test_no_prefix_serves_a_prompt_that_the_image_reads(mllm):
    prefix = mllm.prefix(samples())
    assert bool(prefix.keys) == (mllm.family == "blip-2")
    for prompt in (interp.PAPER_PROMPT, interp.GENERIC_PROMPT):
        after = mllm.trace(prefix, prompt=prompt, reads=[Rows(Site())], generate=2)
        whole = mllm.trace(samples(), prompt=prompt, reads=[Rows(Site())], generate=2)
        np.testing.assert_allclose(after.logits, whole.logits, atol=3e-5)
        assert after.answers == whole.answers


@pytest.mark.parametrize("size", [(84, 84), (150, 60), (61, 200), (40, 33)])
def test_impulses_reach_their_patches(mllm, size):
    picture = np.full((size[1], size[0], 3), 60, np.uint8)
    one = interp.Sample(picture, "where ?")
    tokens, before = patch_tokens(mllm, mllm.encode(one))[0], mllm.image_features(mllm.encode(one))[0]
    for token in range(1, tokens.n, 5):
        low = np.ceil(tokens.footprints[token, :2]).astype(int)
        high = np.maximum(low + 1, np.floor(tokens.footprints[token, 2:]).astype(int))
        bright = picture.copy()
        bright[low[1] : high[1], low[0] : high[0]] = 200
        after = mllm.image_features(mllm.encode(interp.Sample(bright, one.question)))[0]
        assert int((after - before).norm(dim=-1).argmax()) == token


def test_a_wide_image_by_hand(mllm):
    """240×60 pixels squashed to 84×84, so 6×6 patches of 40×10; the class token comes first."""
    tokens = patch_tokens(mllm, mllm.encode(interp.Sample(np.zeros((60, 240, 3), np.uint8), "where ?")))[0]
    np.testing.assert_allclose(
        tokens.footprints[[1, 8, 36]], [[0, 0, 40, 10], [40, 10, 80, 20], [200, 50, 240, 60]]
    )


def test_an_image_need_not_be_squashed_to_a_square(mllm):
    """42×28 px in patches of 14: each sees 30×40 pixels of 90×80."""
    processor = tiny(mllm.family)[1]
    processor.image_processor.size = {"height": 28, "width": 42}
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=14))
    inputs = processor.image_processor(images=[np.zeros((80, 90, 3), np.uint8)], return_tensors="pt")
    found = mllm.adapter.latent_patches([(90, 80)], inputs, processor, config)
    assert len(found) == 7
    np.testing.assert_allclose(found.boxes[[2, 4]], [[30, 0, 60, 40], [0, 40, 30, 80]])


def test_generated_tokens_need_no_pixels(mllm):
    """Against transformers' own `generate`, which goes past the model's `forward`."""
    trace = mllm.trace(samples(), generate=4)
    hf = tiny(mllm.family)[0]
    for i, sample in enumerate(samples()):
        inputs = plain(mllm, sample)
        with torch.no_grad():
            ids = hf.generate(**inputs, max_new_tokens=4, do_sample=False)[0]
        new = ids[inputs["input_ids"].shape[1] :] if len(ids) > 4 else ids
        assert trace.answers[i] == mllm.processor.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_the_image_stands_before_the_prompt(mllm):
    for one in samples():
        batch = mllm.encode(one)
        tokens, ids = batch.tokens[0], batch.inputs["input_ids"][0]
        assert tokens.image.tolist() == list(range(QUERIES))
        asked = ids[tokens.positions("question").tolist()]
        assert mllm.processor.tokenizer.decode(asked) == one.question.replace("?", " ?").replace(",", " ,")
        assert tokens.views.tolist() == ["latent"] * QUERIES


def test_several_images_are_refused(mllm):
    two = interp.Sample(images=[samples()[0].load()] * 2, question="where ?")
    with pytest.raises(
        ModelError, match=rf"{mllm.family} takes one image a sample: .*got 2\. Ask about each"
    ):
        mllm.encode(two)


def test_latents_are_edited_and_the_rest_is_refused(mllm):
    one = samples()[0]
    edited = mllm.trace(one, edits=[interp.Knockout(Site(layers=[1], keys="image"))]).logits
    assert np.abs(edited - mllm.trace(one).logits).max() > 1e-4
    with pytest.raises(ModelError, match=r"are latents of a resampler.*composes maps over patches"):
        interp.indicators.Rollout()(mllm, one)


def test_settings_that_are_not_understood(mllm):
    inputs = mllm.encode(samples()[0]).singles[0].inputs
    processor = tiny(mllm.family)[1]
    processor.image_processor.size = {"height": 42, "width": 42}
    with pytest.raises(ModelError, match=r"into 1 view of 42×42, but pixel_values hold"):
        mllm.adapter.latent_patches([(30, 30)], inputs, processor, mllm.hf.config)
    assert len(mllm.adapter.latent_patches([], {}, None, None)) == 0


def test_those_with_an_encoder_decoder_are_refused():
    for config in (transformers.Blip2Config, transformers.InstructBlipConfig):
        with pytest.raises(ModelError, match="encoder-decoder"):
            find(config(text_config=transformers.T5Config().to_dict()))


def test_prompts():
    assert Blip2().fallback_prompt("Why?", 1, "Be brief.") == "Be brief. Question: Why? Answer:"
    assert InstructBlip().fallback_prompt("Why?", 1, None) == "Why?"
