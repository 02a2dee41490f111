"""Aya Vision's and Command A Vision's footprints against transformers' processors and towers."""

from __future__ import annotations

import numpy as np
import pytest

from interp.errors import ModelError
from interp.inputs.footprints import Footprints
from interp.models.families.cohere import AyaVision, Cohere2Vision
from tests.models.footprint_checks import Bench, assert_counts, assert_covered, assert_local, grids_of_views

SAMPLES = [[(90, 90)], [(230, 60)], [(50, 170)], [(17, 13)], [(101, 57), (60, 90)]]
FAMILIES = {"aya_vision": AyaVision(), "cohere2_vision": Cohere2Vision()}
CELL = 16  # processed pixels of a token: patches of 8 px, shuffled 2×2


def bench(family: str, *sizes: tuple[int, int]) -> Bench:
    return Bench(family, FAMILIES[family], list(sizes))


@pytest.mark.covering
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", SAMPLES, ids=str)
def test_a_footprints_pixels_change_its_token(family, sizes):
    one = bench(family, *sizes)
    found = assert_counts(one)
    assert_local(one, found, every=5)
    assert_covered(one, found, grids_of_views(CELL), tolerance=0.1, boxes=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_tiles_and_thumbnail_by_hand(family):
    """160×48 px: 3×1 tiles of 48 px fit best; each has 3×3 tokens, and so has the thumbnail behind them."""
    found = bench(family, (150, 48)).footprints()
    assert [str(view) for view in found.views[::9]] == ["tile", "tile", "tile", "thumbnail"]
    np.testing.assert_allclose(found.boxes[[0, 8, 9, 27]], [
        [0, 0, 50 / 3, 16],
        [100 / 3, 32, 50, 48],
        [50, 0, 200 / 3, 16],
        [0, 0, 50, 16],
    ])  # fmt: skip


@pytest.mark.slow
def test_a_wrong_layout_fails_the_impulses():
    one = bench("cohere2_vision", (90, 90))
    found = one.footprints()
    order = np.arange(len(found)).reshape(-1, 3, 3).swapaxes(1, 2).ravel()
    with pytest.raises(AssertionError):
        assert_local(one, Footprints(found.boxes[order], None, found.views, found.image))


def test_settings_that_are_not_understood():
    one = bench("aya_vision", (90, 90))
    (model, processor), inputs = one.parts, one.encode()
    model.config.downsample_factor = 4
    with pytest.raises(
        ModelError, match=r"aya_vision's model takes square tiles .* shuffle evenly \(ratio 0.25\)"
    ):
        AyaVision().footprints(one.sizes, inputs, processor, model.config)
    model.config.vision_feature_select_strategy = "default"
    with pytest.raises(ModelError, match=r"every patch of the tower .* this config has 'default'"):
        AyaVision().footprints(one.sizes, inputs, processor, model.config)


def test_the_prompts():
    found = AyaVision().fallback_prompt("Why?", 1, "Be brief.")
    assert found == (
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|><image>Why?<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    )
    assert "<|IMG_PATCH|>Why?" in Cohere2Vision().fallback_prompt("Why?", 1, None)
