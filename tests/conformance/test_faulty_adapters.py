"""Adapters made wrong must each fail, and by the check that is there for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp.conformance import BREAKS, broken_adapter, check
from interp.conformance.subject import smooth
from interp.errors import ModelError
from interp.inputs.footprints import Footprints

FAMILIES = ("llava", "llava_next", "internvl", "qwen2_5_vl")
GEOMETRY = ["image tokens", "tiling", "locality"]
WIDE = [smooth((121, 77), 0), smooth((61, 83), 1)]


@pytest.mark.by_default(family=["internvl"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_good_adapter_passes(mllm, family):
    result = check(mllm(family), checks=[*GEOMETRY, "several images", "attends"], images=WIDE, probes=16)
    assert result.passed, result.failures


@pytest.mark.covering
@pytest.mark.parametrize("how", ["transposed", "shifted", "row-shifted", "tile-swapped", "row-flipped"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_permuted_map_fails_locality_and_nothing_else(mllm, family, how):
    result = check(mllm(family), checks=GEOMETRY, break_as=how, images=WIDE[:1], probes=16)
    assert [row.name for row in result.failures] == ["locality"]
    found = result["locality"]
    assert found.value is not None
    assert "groups, such as" in found.detail
    assert how in result.model


@pytest.mark.by_default(family=["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("family", FAMILIES)
def test_another_reach_of_attention_fails_attends(mllm, family):
    result = check(mllm(family), checks=["locality", "attends"], break_as="attends", images=WIDE, probes=9)
    assert [row.name for row in result.failures] == ["attends"]


@pytest.mark.by_default(family=["llava_next", "internvl"])
@pytest.mark.parametrize("family", FAMILIES)
def test_footprints_of_the_wrong_image_fail_several_images(mllm, family):
    result = check(
        mllm(family), checks=["locality", "several images"], break_as="images-swapped", images=WIDE, probes=9
    )
    assert [row.name for row in result.failures] == ["several images"]


def test_probes_miss_where_images_of_one_size_are_exchanged(mllm):
    pictures = [smooth((121, 77), seed) for seed in (0, 1)]
    options: dict[str, Any] = {"checks": ["several images"], "images": pictures, "probes": 9}
    assert check(mllm("llava"), **options)["several images"].value == 1
    broken = check(mllm("llava"), break_as="images-swapped", **options)["several images"]
    assert broken.value == 0
    assert not broken.passed


@pytest.mark.parametrize("family", ["llava", "internvl", "qwen2_5_vl"])
def test_one_footprint_too_few_fails_everything_with_the_counts(mllm, family):
    result = check(mllm(family), checks=GEOMETRY, break_as="count")
    assert not any(row.passed for row in result.rows)
    assert "the prompt holds" in result["image tokens"].detail


class _TwoTilesSwapped:
    """Two of the tiles of an InternVL image exchanged; everything else right."""

    def __init__(self, good: Any) -> None:
        self._good = good

    def __getattr__(self, name: str) -> Any:
        return getattr(self._good, name)

    def footprints(self, *arguments: Any) -> Footprints:
        found = self._good.footprints(*arguments)
        tiles = np.flatnonzero(found.views == "tile")
        boxes, n = found.boxes.copy(), 9
        if len(tiles) >= 2 * n:
            boxes[tiles[:n]], boxes[tiles[n : 2 * n]] = found.boxes[tiles[n : 2 * n]], found.boxes[tiles[:n]]
        return Footprints(boxes, found.grid, found.views, found.image)


def test_two_exchanged_tiles_fail_in_their_own_groups(mllm):
    good = mllm("internvl")
    result = check(replace(good, adapter=_TwoTilesSwapped(good.adapter)), checks=["tiling", "locality"])
    assert result["tiling"].passed
    assert not result["locality"].passed
    assert "tile → tile, run 0: 0 of" in result["locality"].detail


def test_one_reversed_row_fails_though_the_average_passes():
    """The trained tower mixes tokens, so its limits are laxer; the row still shows."""
    options: dict[str, Any] = {"checks": ["locality"], "images": [smooth((121, 121), 0)], "probes": 60}
    good = check("organism", **options)
    assert good.passed, good.failures
    found = check("organism", break_as="row-flipped", **options)["locality"]
    assert not found.passed
    assert found.value is not None
    assert found.limit == 0.7
    assert found.value > found.limit


def test_unknown_ways_are_named(mllm):
    with pytest.raises(
        ModelError, match=r"the fault of an adapter is one of transposed, shifted.*got 'upside-down'"
    ):
        broken_adapter(mllm("llava").adapter, "upside-down")
    assert len(BREAKS) == 8
