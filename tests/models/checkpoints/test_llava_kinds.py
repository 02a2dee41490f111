"""Each layout of LLaVA's kind against plain torch written from its description."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import interp
from interp.conformance import check
from interp.inputs.footprints import Footprints
from tests.models.checkpoints import plain_llava
from tests.models.checkpoints.layout_checks import BREAKABLE
from tests.models.checkpoints.llava_cases import CASES, Case
from tests.models.pixel_impulses import assert_impulses_land

QUESTION = "Is the nodule in the left lung?"
ASKED = interp.Prompt(template="{question}")


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory) -> Case:
    return CASES[request.param](tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Wide, every pixel different; no edge is where a cell's edge is."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 74, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def sample(picture) -> interp.Sample:
    return interp.Sample(picture, QUESTION)


def test_a_tower_given_stands_before_the_one_beside_a_lora(tmp_path):
    folder, other = CASES["llava_lora"](tmp_path).folder, tmp_path / "other"
    named = {"mm_vision_tower_config": "cxr.json", "mm_vision_tower_checkpoint": "cxr.pt"}
    other.mkdir()
    (other / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": json.loads((folder / "cxr.json").read_text())})
    )
    found = torch.load(folder / "cxr.pt", weights_only=True)["state_dict"]
    torch.save(
        {name.removeprefix("module."): 2 * weight for name, weight in found.items()},
        other / "open_clip_pytorch_model.bin",
    )
    for name in named.values():
        (folder / name).unlink()
    mllm = interp.load(folder, vision_tower=other)
    weights = dict(mllm.hf.named_parameters())
    (patches,) = (
        weight for name, weight in weights.items() if "patch_embed" in name and name.endswith("weight")
    )
    torch.testing.assert_close(
        patches.data.float().cpu(), 2 * found["module.visual.trunk.patch_embed.proj.weight"]
    )


def test_the_prompt_and_its_tokens(case, sample):
    batch = case.mllm.encode(sample, prompt=ASKED)
    prompt = case.prompt.format(question=QUESTION)
    assert batch.prompts == (prompt,)
    image = case.mllm.image_token_id
    expected = []
    for one in case.ids(prompt):
        expected += [image] * batch.tokens[0].n if one is None else [one]
    assert batch.inputs["input_ids"][0].tolist() == expected
    asked = batch.tokens[0].positions("question")
    decoded = case.mllm.processor.tokenizer.decode(batch.inputs["input_ids"][0][asked])
    assert decoded.strip() == QUESTION


def test_an_answer_ends_with_its_turn(case):
    tokenizer, stop = case.mllm.processor.tokenizer, "<|eot_id|>"
    ends = {2, tokenizer.eos_token_id}  # the config's, the tokenizer's
    if stop in case.prompt:
        ends.add(tokenizer.convert_tokens_to_ids(stop))
    told = case.mllm.hf.generation_config.eos_token_id
    assert set(told if isinstance(told, list) else [told]) == ends


def test_pixels_features_logits_and_rows(case, sample, picture):
    batch = case.mllm.encode(sample, prompt=ASKED)
    pixels = case.pixels(picture)
    torch.testing.assert_close(batch.inputs["pixel_values"], pixels, atol=1e-5, rtol=0)
    tokens = plain_llava.projector(case.weights, case.tower(pixels))[0]
    with torch.no_grad():
        found = case.mllm.hf.get_image_features(pixel_values=pixels).pooler_output[0]
    torch.testing.assert_close(found, tokens, atol=1e-4, rtol=1e-4)
    ids = case.ids(case.prompt.format(question=QUESTION))
    logits, rows = case.decoder.run(case.weights, plain_llava.embedded(case.weights, ids, tokens))
    trace = case.mllm.trace(batch, reads=[interp.Rows(interp.Site(queries="last", keys="image"))])
    mine = np.asarray(trace.logits)[0]
    np.testing.assert_allclose(mine[: len(logits)], logits, atol=1e-3, rtol=1e-4)
    if case.padded_rows:  # the row appended for the image token: never the answer
        np.testing.assert_allclose(mine[len(logits) :], [logits.mean()], atol=1e-3)
    else:
        assert len(mine) == len(logits)
    place = ids.index(None)
    expected = torch.stack(rows)[..., place : place + len(tokens)]
    np.testing.assert_allclose(np.asarray(trace[0].rows).reshape(expected.shape), expected, atol=1e-5)


def test_tokens_lie_where_their_pixels_are(case):
    found = case.mllm.encode(interp.Sample(Image.new("RGB", (90, 140)), QUESTION)).tokens[0]
    along = found.grid[0]
    assert found.grid == (along, along)
    if case.mllm.processor.image_processor.do_pad:  # 90 wide in a square of 140, from 25 on
        edges = np.unique(np.clip(np.arange(along + 1) * 140 / along - 25, 0, 90))
        np.testing.assert_allclose(np.unique(found.footprints[:, [0, 2]]), edges)
    else:  # the middle 90 of 140 rows, to a pixel of the 56
        np.testing.assert_allclose(np.nanmin(found.footprints[:, 1]), 25, atol=90 / 56)
        np.testing.assert_allclose(np.nanmax(found.footprints[:, 3]), 115, atol=90 / 56)
    footprints = Footprints(found.footprints, found.grid, found.views, found.image_index)
    mllm = case.mllm
    assert_impulses_land(mllm.hf, mllm.processor, mllm.adapter, [(90, 140)], footprints, every=3)


WHOLE = ("huatuogpt_vision_7b",)


@pytest.mark.by_default(case=["llava_tri_s2", "llava_lora"])
def test_the_suite_passes(case, request):
    name = request.node.callspec.params["case"]
    result = check(case.mllm, probes=4, checks=None if name in WHOLE else BREAKABLE)
    assert result.passed, result.failures
