"""Molmo 2's footprints against transformers' processor, tower and pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.inputs.sample import Sample
from interp.models.families.molmo2 import Molmo2
from interp.tracing import wrap
from tests.models.footprint_checks import Bench, assert_counts, assert_local

SAMPLES = [[(90, 90)], [(230, 60)], [(50, 170)], [(23, 15)], [(101, 57), (60, 90)]]


def bench(*sizes: tuple[int, int]) -> Bench:
    return Bench("molmo2", Molmo2(), list(sizes))


def with_area(one: Bench, found: Footprints) -> tuple[Bench, Footprints]:
    """The tokens that stand for a place, and a bench that looks at these alone."""
    seen = ~np.isnan(found.boxes[:, 0])
    entering = one.entering
    one.entering = lambda box=None, image=0: entering(box, image)[seen]  # type: ignore[method-assign]
    return one, Footprints(found.boxes[seen], None, found.views[seen], found.image[seen])


@pytest.mark.covering
@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(sizes):
    one = bench(*sizes)
    assert_local(*with_area(one, assert_counts(one)), every=5)


def test_the_views_by_hand():
    """90×60 px, views of 7×7 patches, margins of one: 2×2 windows of 5 patches and both margins make 12×12 patches.

    Pooled 2×2, a view of seven patches has four cells; the last is half outside. Before each view comes its start
    token, behind each row its column token, behind the view its end token.
    """
    found = bench((90, 60)).footprints()
    base, crop = (found.boxes[found.views == view] for view in ("base", "crop"))
    assert (len(base), len(crop)) == (2 + 4 * 5, 2 + 6 * 7)
    assert np.flatnonzero(np.isnan(base[:, 0])).tolist() == [0, 5, 10, 15, 20, 21]
    assert np.flatnonzero(np.isnan(crop[:, 0])).tolist() == [0, 7, 14, 21, 28, 35, 42, 43]
    np.testing.assert_allclose(base[[1, 4]], [[0, 0, 180 / 7, 120 / 7], [540 / 7, 0, 90, 120 / 7]])
    np.testing.assert_allclose(crop[[1, 6, 36]], [[0, 0, 15, 10], [75, 0, 90, 10], [0, 50, 15, 60]])


@pytest.mark.parametrize(
    ("columns", "alone", "base", "crop"),
    [
        (False, None, [0, 17], [0, 37]),
        (True, False, [0, 17], [0, 7, 14, 21, 28, 35, 42, 43]),
        (False, True, [0, 5, 10, 15, 20, 21], [0, 37]),
    ],
)
def test_column_tokens_are_only_in_the_views_that_have_them(columns, alone, base, crop):
    """4×4 tokens of the whole and 6×6 of the crops, each view between its start and its end."""
    one = bench((90, 60))
    processor = one.parts[1]
    processor.image_use_col_tokens, processor.use_single_crop_col_tokens = columns, alone
    found = assert_counts(one)
    for view, nothing in (("base", base), ("crop", crop)):
        assert np.flatnonzero(np.isnan(found.boxes[found.views == view][:, 0])).tolist() == nothing


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "alone", "nothing"), [(False, None, 4), (True, False, 10)])
def test_column_tokens_are_where_the_processor_puts_them(columns, alone, nothing):
    one = bench((90, 60))
    processor = one.parts[1]
    processor.image_use_col_tokens, processor.use_single_crop_col_tokens = columns, alone
    found = assert_counts(one)
    assert np.isnan(found.boxes[:, 0]).sum() == nothing
    assert_local(*with_area(one, found), every=9)


@pytest.mark.slow
def test_a_wrong_layout_fails_the_impulses():
    one, found = with_area(bench((90, 90)), bench((90, 90)).footprints())
    with pytest.raises(AssertionError):
        assert_local(
            one, Footprints(np.roll(found.boxes, 1, axis=0), None, found.views, found.image), every=3
        )


def test_every_image_token_sees_those_of_other_images():
    """On the model itself: a change in the second image moves the first one's tokens, and no text before them."""
    one = bench((90, 60), (60, 90))
    model, blank, changed = one.parts[0], one.encode(), one.encode((30, 60, 60, 90), image=1)
    at = Molmo2().image_positions(blank["input_ids"], model.config)
    with torch.no_grad():
        first, two = (
            model(**each, output_hidden_states=True).hidden_states[1][0] for each in (blank, changed)
        )
    change = (two - first).norm(dim=-1)
    assert change[at].min() > 0
    assert change[: at[0]].max() == 0
    assert (blank["mm_token_type_ids"][0].numpy().nonzero()[0] == at).all()


def test_samples_in_a_batch_are_pooled_from_their_own_patches():
    mllm = wrap(*bench((9, 9)).parts)
    rng = np.random.default_rng(0)
    samples = [
        Sample(rng.integers(0, 255, (*size, 3)).astype(np.uint8), "where ?") for size in ((60, 90), (80, 40))
    ]
    batch = mllm.encode(samples)
    assert batch.inputs["image_token_pooling"].max() + 1 == batch.inputs["pixel_values"].shape[0] * 49
    for i, sample in enumerate(samples):
        own = batch.tokens[i].image + int(batch.pad[i])
        alone = mllm.encode(sample)
        np.testing.assert_allclose(
            mllm.embeddings(batch)[i, own], mllm.embeddings(alone)[0, alone.tokens[0].image], atol=1e-5
        )


def test_settings_that_are_not_understood():
    one = bench((90, 60))
    (model, processor), inputs = one.parts, one.encode()
    processor.image_processor.max_crops = 1
    with pytest.raises(
        ModelError, match=r"pooled grids .* \[\[4, 4, 4, 4\]\], but the inputs hold \[\[4, 4, 6, 6\]\]"
    ):
        Molmo2().footprints(one.sizes, inputs, processor, model.config)
    processor.image_processor.patch_size = 7
    with pytest.raises(
        ModelError, match=r"patches of \(42, 42, 7\) px, but the model's config has \(42, 42, 6\)"
    ):
        Molmo2().footprints(one.sizes, inputs, processor, model.config)


def test_the_prompt():
    assert Molmo2().fallback_prompt("Why?", 1, "Be brief.") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|image|>Why?<|im_end|>\n<|im_start|>assistant\n"
    )
    processor = bench((9, 9)).parts[1]
    assert Molmo2().begun("a", processor) == Molmo2().begun("<s>a", processor) == "<s>a"
