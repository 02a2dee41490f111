"""Gemma 4 without a tower: its cells against transformers' own image processor and projection."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.models.adapter import find
from interp.models.families.gemma import Gemma4Unified
from tests.models.footprint_checks import Bench, assert_counts, picture
from tests.tracing.reference_attention import attention_of

SHAPES = {"square": (90, 90), "wide": (200, 60), "tall": (60, 190), "tiny": (30, 22)}


@pytest.mark.parametrize("sizes", [[size] for size in SHAPES.values()] + [[(90, 60), (40, 80)]], ids=str)
def test_the_middle_of_a_footprint_changes_its_token(sizes):
    """A cell's pixels are normalised first, so that a cell all of one grey is like another: a part is painted."""
    bench = Bench("gemma4_unified", Gemma4Unified(), sizes)
    found, blank = assert_counts(bench), bench.entering()
    for token in range(0, len(found), 5):
        low, high = found.boxes[token, :2], found.boxes[token, 2:]
        first = np.floor((low + high) / 2 - (high - low) / 5).astype(int)
        last = np.maximum(first + 1, np.floor((low + high) / 2 + (high - low) / 5)).astype(int)
        change = (bench.entering((*first, *last), int(found.image[token])) - blank).norm(dim=-1).numpy()
        assert change[token] > 0
        if min(high - low) > 6:
            assert change.argmax() == token
        else:  # the image is enlarged, by a kernel that reaches two of its pixels
            near = (found.boxes[:, :2] < last + 3).all(axis=1) & (found.boxes[:, 2:] > first - 3).all(axis=1)
            assert not change[~near].any()
        assert not change[found.image != found.image[token]].any()


def test_a_wide_image_by_hand():
    """Cells of 8 px, at most 70: √(70·64 / 200·60) = 0.61 gives 122×36.7, cut to 120×32: 15×4 tokens of 13.3×15."""
    found = Bench("gemma4_unified", Gemma4Unified(), [(200, 60)]).footprints()
    assert found.grid == (4, 15)
    assert_allclose(found.boxes[17], [2 * 200 / 15, 15, 40, 30])


def test_a_token_is_its_own_pixels():
    """There is no tower: what is painted inside a cell changes this token alone, to the bit."""
    bench = Bench("gemma4_unified", Gemma4Unified(), [(120, 32)])
    found = bench.footprints()
    assert found.grid == (4, 16)
    low, high = found.boxes[21, :2] + 3, found.boxes[21, 2:] - 3
    change = bench.entering((*np.floor(low).astype(int), *np.ceil(high).astype(int))) - bench.entering()
    assert np.flatnonzero(change.norm(dim=-1).numpy()).tolist() == [21]


def test_settings_that_are_not_understood():
    bench = Bench("gemma4_unified", Gemma4Unified(), [(200, 60)])
    (model, processor), inputs = bench.parts, bench.encode()
    with pytest.raises(ModelError, match=r"grids of cells .*, but the inputs hold \[\(4, 15\)\]"):
        Gemma4Unified().footprints([(30, 22)], inputs, processor, model.config)
    with pytest.raises(ModelError, match="gemma4_unified cannot be read or edited: it has none"):
        Gemma4Unified().patches([(200, 60)], inputs, processor, model.config)


def test_who_is_who():
    model, _ = tiny("gemma4_unified")
    assert type(find(model.config)) is Gemma4Unified
    assert Gemma4Unified().attends_in(model.config) == "image_blocks"
    assert interp.wrap(*tiny("gemma4_unified")).key_layers == (0, 1, 2, 2, 1)


@pytest.mark.parametrize("family", ["gemma4", "gemma4_unified"])
def test_each_layers_rows_see_what_is_said(family):
    """Eager attention is 0 exactly where a row sees nothing; the two families differ in full layers and windows."""
    mllm, eager = interp.wrap(*tiny(family)), tiny(family, "eager")[0]
    batch = mllm.encode(interp.Sample(images=[picture((90, 60)), picture((60, 90))], question="where is it?"))
    tokens = batch.tokens[0]
    assert tokens.n > 2 * min(filter(None, mllm.visibility.windows)), "an image is wider than the window"
    for layer, weights in enumerate(attention_of(eager, batch.inputs)):
        for row, seen in enumerate(weights.max(axis=0) > 0):
            said = mllm.visibility.seen(tokens, row, layer)
            assert np.flatnonzero(seen).tolist() == said.tolist(), (layer, row)


@pytest.mark.slow
def test_it_loads_from_a_folder_without_torchvision(tmp_path):
    model, processor = tiny("gemma4_unified")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mllm = interp.load(str(tmp_path))
    sample = interp.Sample(picture((200, 60)), "where is the nodule?")
    loaded, given = (one.trace(sample).logits for one in (mllm, interp.wrap(*tiny("gemma4_unified"))))
    assert_allclose(loaded, given, atol=1e-6)
