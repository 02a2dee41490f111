"""Masks of an answer's words: their tokens, their pixels, several images, a SAM, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.errors import MapError, SampleError
from interp.indicators import otsu_threshold
from interp.indicators.answer_maps import answer_maps
from interp.metrics import pixel_iou
from tests.models.tiny_sam import tiny_sam
from tests.study.saying import saying

ANSWER = ("the", "nodule", "in", "the", "left", "lung", ".")


def picture(seed: int = 0, width: int = 96, height: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mllm() -> interp.Mllm:
    return saying("llava", *ANSWER)


@pytest.fixture(scope="module")
def one() -> interp.Sample:
    return interp.Sample(picture(), "where is the nodule ?", boxes=[(10, 10, 40, 40)])


def test_words_and_phrases_of_one_answer_are_numbered(mllm: interp.Mllm, one: interp.Sample) -> None:
    found = interp.ground(mllm, one, ["left lung", "THE NODULE", "lung", "heart"])
    assert found.answer == "the nodule in the left lung ."
    assert found.text == "the nodule [1] in the left lung [2] ."
    assert interp.ground(mllm, one, ["heart", "big lung"]).missing == ("heart", "big lung")
    assert found.missing == ("lung", "heart")  # "lung" lies only in "left lung", which has its mask
    assert [one.generated for one in found.phrases] == [(0, 1), (4, 5)]
    assert "".join(part for part, _ in found.parts()) == found.answer
    assert interp.ground(mllm, one).text == "the nodule [1] in the left [2] lung [3] ."


def test_a_phrase_has_the_mean_of_its_tokens_maps(mllm: interp.Mllm, one: interp.Sample) -> None:
    """By transformers' eager attention over the whole forced answer, without a cache."""
    found = interp.ground(mllm, one, ["left lung"])
    eager = saying("llava", *ANSWER, attention="eager")
    batch = eager.encode([one])
    ids = torch.cat([batch.inputs["input_ids"], torch.tensor([found.maps.ids[:-1]])], dim=1)
    inputs = {
        k: v for k, v in batch.inputs.items() if k not in ("position_ids", "input_ids", "attention_mask")
    }
    with torch.no_grad():
        out = eager.hf(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True, **inputs)
    first = batch.tokens[0].length - 1
    rows = np.stack([layer[0, :, first:].numpy()[..., batch.tokens[0].image] for layer in out.attentions])
    maps = rows.mean(axis=(0, 1))  # (generated, token)
    wanted = maps[[4, 5]].mean(axis=0) - maps.mean(axis=0)
    np.testing.assert_allclose(found.phrases[0].map.values, wanted, atol=1e-6)


def test_layers_and_length_are_those_asked_for(mllm: interp.Mllm, one: interp.Sample) -> None:
    found = interp.ground(mllm, one, "nodule", layers=[1], generate=3, prompt=interp.GENERIC_PROMPT)
    assert found.answer == "the nodule in"
    assert found.prompt == interp.GENERIC_PROMPT
    maps = answer_maps(mllm, one, prompt=interp.GENERIC_PROMPT, generate=3, layers=[1])
    np.testing.assert_allclose(found.phrases[0].map.values, maps.of_span(4, 10)[1], atol=1e-7)
    whole = interp.ground(mllm, one, "nodule", generate=3, prompt=interp.GENERIC_PROMPT)
    assert not np.allclose(found.phrases[0].map.values, whole.phrases[0].map.values, atol=1e-5)


def test_a_mask_is_the_upsampled_map_above_the_threshold(mllm: interp.Mllm, one: interp.Sample) -> None:
    found = interp.ground(mllm, one, "nodule", upsample="nearest")
    (phrase,) = found.phrases
    pixels = found.tokens.to_pixels(phrase.map.values)
    (mask,) = phrase.masks
    np.testing.assert_array_equal(mask.inside, pixels > otsu_threshold(pixels[np.isfinite(pixels)]))
    column, row = (int(edge) for edge in phrase.point or ())
    assert pixels[row, column] == np.nanmax(pixels)
    assert phrase.point == (column + 0.5, row + 0.5)
    assert not phrase.refined
    more = interp.ground(mllm, one, "nodule", upsample="nearest", threshold="positive").phrases[0]
    np.testing.assert_array_equal(more.masks[0].inside, pixels > 0)


def test_the_organism_grounds_its_answer_on_the_object() -> None:
    mllm = interp.load("organism")
    overlaps = []
    for sample in interp.data.bundled("natural", n=4):
        found = interp.ground(mllm, sample)
        truth = np.zeros(found.phrases[0].masks[0].inside.shape, bool)
        x0, y0, x1, y1 = (int(edge) for edge in sample.boxes[0].as_tuple())
        truth[y0:y1, x0:x1] = True
        overlaps.append(pixel_iou(found.phrases[0].masks[0], truth))
    assert np.mean(overlaps) > 0.35  # a mask of the whole image has 0.06


def test_several_images_have_masks_of_their_own(mllm: interp.Mllm) -> None:
    two = interp.Sample(images=[picture(1), picture(2, 48, 80)], question="where is it ?")
    found = interp.ground(saying("qwen2_5_vl", *ANSWER), two, ["nodule"], threshold=0.8)
    (phrase,) = found.phrases
    sizes = [mask.inside.shape for mask in phrase.masks]
    assert sizes == [(64, 96), (80, 48)][: len(sizes)]
    inside = sum(int(phrase.inside(i, two.sizes[i]).sum()) for i in (0, 1))
    assert inside == pytest.approx(0.2 * (64 * 96 + 80 * 48), rel=0.02)  # one threshold for both
    assert not phrase.inside(0, two.sizes[0]).all()
    frame = found.to_dataframe()
    assert frame.image.tolist() == [mask.image for mask in phrase.masks]
    assert frame.x.notna().sum() == 1
    areas = [two.sizes[mask.image][0] * two.sizes[mask.image][1] for mask in phrase.masks]
    assert frame.share.tolist() == [
        mask.inside.sum() / area for mask, area in zip(phrase.masks, areas, strict=True)
    ]


def test_one_threshold_holds_for_all_images() -> None:
    two = interp.Sample(images=[picture(1), picture(2, 48, 80)], question="where is it ?")
    found = interp.ground(saying("qwen2_5_vl", *ANSWER), two, ["nodule"], threshold=0.8, upsample="nearest")
    (phrase,) = found.phrases
    pixels = [found.tokens.to_pixels(phrase.map.values, image=i) for i in (0, 1)]
    least = np.quantile(np.concatenate([one.ravel() for one in pixels]), 0.8)
    shares = [phrase.inside(i, two.sizes[i]).mean() for i in (0, 1)]
    assert shares == [(one > least).mean() for one in pixels]
    assert abs(shares[0] - shares[1]) > 0.1


def test_a_segmenter_makes_the_mask_at_the_largest_value(
    mllm: interp.Mllm, one: interp.Sample, tmp_path: Path
) -> None:
    model, processor = tiny_sam()
    segmenter = interp.Segmenter(model, processor)
    found = interp.ground(mllm, one, "nodule", refine=segmenter)
    (phrase,) = found.phrases
    assert phrase.refined
    assert phrase.point == interp.ground(mllm, one, "nodule").phrases[0].point
    wanted = segmenter.mask(one.load(), phrase.point or (0, 0))
    np.testing.assert_array_equal(phrase.masks[0].inside, wanted)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = interp.ground(mllm, one, "nodule", refine=str(tmp_path))
    np.testing.assert_array_equal(again.phrases[0].masks[0].inside, wanted)


def test_an_answer_of_one_token_has_no_mask(mllm: interp.Mllm, one: interp.Sample) -> None:
    found = interp.ground(mllm, one, ["the"], generate=1)
    assert found.masks == {1: ()}
    assert found.phrases[0].point is None
    assert found.to_dataframe()[["pixels", "share"]].values.tolist() == [[0, 0]]
    assert "one token" in found._repr_html_()


def test_the_page_shows_words_masks_and_escapes_text(
    mllm: interp.Mllm, one: interp.Sample, tmp_path: Path
) -> None:
    hostile = one.replace(question="<script>alert(1)</script> nodule ?")
    found = interp.ground(saying("llava", "<i>sly</i>", "nodule", "."), hostile)
    page = found.save(tmp_path / "grounded.html").read_text()
    body = page[page.index("<main") :]
    assert "<script>alert(1)" not in body
    for text in (body, found._repr_html_()):
        assert "<i>" not in text
        assert "&lt;" in text
    assert body.count("<mark") == len(found.phrases)
    assert body.count("<img ") == 2 + len(found.phrases)
    assert "Otsu" in body


def test_phrases_can_come_from_a_function(mllm: interp.Mllm, one: interp.Sample) -> None:
    seen = []

    def nouns(answer: str) -> list[str]:
        seen.append(answer)
        return ["lung"]

    assert interp.ground(mllm, one, nouns).text == "the nodule in the left lung [1] ."
    assert seen == ["the nodule in the left lung ."]


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_grounded_is_refused(mllm: interp.Mllm, one: interp.Sample) -> None:
    with pytest.raises(
        SampleError, match=r"this sample is a video. Choose frames of it: Sample\(images=\[…\]"
    ):
        interp.ground(mllm, interp.Sample(video=[picture(1), picture(2)], question="?", fps=1.0))
    with pytest.raises(SampleError, match=r"ground takes one interp.Sample; got list"):
        interp.ground(mllm, [one])  # type: ignore[arg-type]
    for phrases in (5, ["?"], [3], b"x"):
        with pytest.raises(MapError, match="phrases are words of the answer"):
            interp.ground(mllm, one, phrases)  # type: ignore[arg-type]
    with pytest.raises(MapError, match=r"Wrap a loaded one: interp.Segmenter\(model, processor\)"):
        interp.ground(mllm, one, refine=5)  # type: ignore[arg-type]
    with pytest.raises(MapError, match='threshold is "otsu"'):
        interp.ground(mllm, one, threshold=2)
