from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from interp.inputs.footprints import center_crop, squash
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.report.gallery import BOX_COLOUR, data_uri, overlay, picture, strengths


def tokens_over(size: tuple[int, int], grid: tuple[int, int]) -> TokenMap:
    found = squash(size, grid)
    return TokenMap(np.arange(len(found)), found.boxes, grid, found.views, found.image, (size,), len(found))


def grey(width: int, height: int, **changes: object) -> Sample:
    return Sample(image=np.full((height, width, 3), 90, np.uint8), question="?", **changes)  # pyright: ignore


def test_strengths_are_the_share_of_the_top_to_a_power() -> None:
    assert np.allclose(strengths(np.array([0.0, 1.0, -3.0])), [0.0, 1.0, 0.0])
    assert strengths(np.zeros(0)).shape == (0,)
    values = np.concatenate([np.linspace(0, 1, 999), [1000.0]])
    found = strengths(values)
    assert found[-1] == 1.0
    assert found[499] > 0.5  # one outlier does not hide the rest
    assert not strengths(np.zeros(4)).any()
    assert strengths(np.array([0.0] * 999 + [2.0])).max() == 1.0  # the percentile itself is zero


def test_the_heat_is_where_the_token_is() -> None:
    values = np.zeros(12)
    values[1 * 4 + 3] = 1.0  # row 1 of 3, column 3 of 4
    shown = np.asarray(overlay(grey(400, 300), tokens_over((400, 300), (3, 4)), values), int)
    assert shown.shape == (225, 300, 3)
    hot, cold = shown[112, 262], shown[112, 37]
    assert hot.sum() > cold.sum() + 200
    assert np.abs(shown[37, 262] - cold).max() < 12  # above it, the same column of another row is cold


def test_what_no_token_sees_stays_grey() -> None:
    found = center_crop((300, 100), (2, 2))
    tokens = TokenMap(np.arange(4), found.boxes, (2, 2), found.views, found.image, ((300, 100),), 4)
    shown = np.asarray(overlay(grey(300, 100), tokens, np.ones(4)), int)
    assert np.ptp(shown[50, 20]) <= 3
    assert np.ptp(shown[50, 150]) > 60


def test_boxes_are_drawn_to_scale_on_their_own_image() -> None:
    shown = np.asarray(picture(grey(150, 100, boxes=[(30, 20, 90, 80)])), int)
    assert shown.shape == (200, 300, 3)
    assert tuple(shown[100, 60]) == BOX_COLOUR
    assert tuple(shown[40, 120]) == BOX_COLOUR
    assert tuple(shown[159, 179]) == BOX_COLOUR
    assert tuple(shown[100, 120]) == (90, 90, 90)


def test_a_picture_travels_inside_its_address() -> None:
    kind, _, data = data_uri(Image.new("RGB", (20, 10), (200, 10, 10))).partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(BytesIO(base64.b64decode(data))).size == (20, 10)
