"""Pictures by hand: which pixels a box, an outline, heat and a tint change, and into which colour."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from interp.inputs.boxes import Box
from interp.inputs.footprints import concatenate, squash
from interp.inputs.masks import Mask
from interp.inputs.overlays import overlay, picture
from interp.inputs.pictures import (
    BOX_COLOUR,
    bounded,
    data_uri,
    grid_lines,
    heated,
    marked_image,
    overlaid,
    strengths,
    tinted,
    with_truth,
)
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap


def grey(width: int, height: int, level: int = 90) -> Image.Image:
    return Image.new("RGB", (width, height), (level,) * 3)


def marked(shown: Image.Image) -> np.ndarray:
    """(row, col): which pixels have the colour of boxes."""
    return (np.asarray(shown) == BOX_COLOUR).all(axis=-1)


def frame(shape: tuple[int, int], y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    """(row, col): the outermost two pixels of a rectangle."""
    found = np.zeros(shape, bool)
    found[y0:y1, x0:x1] = True
    found[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = False
    return found


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((400, 300), 300, (300, 225)), ((30, 60), 90, (45, 90)), ((900, 1), 300, (300, 1)), ((4, 3), 5, (5, 4))],
)
def test_the_longer_side_has_the_pixels_asked_for(size, side: int, expected) -> None:
    assert bounded(size, side) == expected


def test_a_box_is_framed_inside_its_edges_with_a_dark_rim() -> None:
    base = grey(40, 20)
    shown = marked_image(base, [Box(10, 5, 20, 15), Box(30, 1, 36, 19)], [], side=80)
    assert shown.size == (80, 40)
    np.testing.assert_array_equal(
        marked(shown), frame((40, 80), 10, 20, 30, 40) | frame((40, 80), 2, 60, 38, 72)
    )
    rim = (np.asarray(shown) == 0).all(axis=-1)
    assert rim[9, 19:41].all()
    assert rim[9:31, 40].all()
    assert (np.asarray(base) == 90).all()  # the image given stays as it was
    assert (np.asarray(marked_image(base, [Box(0, 0, 9, 9)], [], side=40))[0, 0] == BOX_COLOUR).all()
    assert (np.asarray(base) == 90).all()


def test_masks_are_outlined_in_place_of_boxes() -> None:
    one, two = np.zeros((20, 40), bool), np.zeros((20, 40), np.uint8)
    one[4:16, 10:18] = True
    two[4:16, 18:30] = 1  # beside the first: their union has one outline
    shown = with_truth(grey(40, 20), (40, 20), [Box(0, 0, 40, 20)], [Mask(one), Mask(two)])
    np.testing.assert_array_equal(marked(shown), frame((20, 40), 4, 10, 16, 30))
    larger = with_truth(grey(80, 40), (40, 20), [], [Mask(one), Mask(two)])
    np.testing.assert_array_equal(marked(larger), frame((40, 80), 8, 20, 32, 60))
    whole = with_truth(grey(40, 20), (40, 20), [], [Mask(np.ones((20, 40), bool))])
    np.testing.assert_array_equal(marked(whole), frame((20, 40), 0, 0, 20, 40))


def test_heat_lies_over_grey_and_leaves_the_unseen() -> None:
    """Grey 90 is shown as 81. Heat 0 takes 15 % of #000004, heat 1 80 % of #fcffa4, which is (252, 255, 164)."""
    heat = np.array([[np.nan, 0.0, 1.0]])
    shown = np.asarray(overlaid(grey(3, 1), heat, (3, 1)))
    assert shown.tolist() == [[[81, 81, 81], [69, 69, 69], [218, 220, 147]]]
    red = overlaid(Image.new("RGB", (2, 2), (255, 0, 0)), np.full((2, 2), np.nan), (2, 2))
    assert np.asarray(red)[0, 0].tolist() == [68, 68, 68]  # 0.9 of the luma, 76
    tall = np.asarray(overlaid(grey(2, 3), np.array([[1.0, 0], [0, 0], [0, 0]]), (4, 6)))
    hot = tall.sum(axis=-1) > 400
    assert np.argwhere(hot).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_heat_without_an_image_lies_on_paper() -> None:
    shown = np.asarray(heated(np.array([[np.nan, 1.0]]), (4, 2)))
    assert shown.shape == (2, 4, 3)
    assert shown[0, 0].tolist() == [245, 245, 245]
    assert shown[0, 3].tolist() == [251, 253, 180]  # a fifth of the paper, 49, and four of the colour


def test_a_later_tint_lies_over_an_earlier_one() -> None:
    """Grey 90 is shown as 81; a tint leaves 45 % of what lies under it."""
    first, second = np.zeros((2, 3), bool), np.zeros((2, 3), bool)
    first[:, 1:], second[:, 2] = True, True
    shown = np.asarray(tinted(grey(3, 2), [(first, "#0072B2"), (second, "#ff0000")], side=3))
    assert shown.tolist() == [[[81, 81, 81], [36, 99, 134], [157, 45, 60]]] * 2
    assert tinted(grey(3, 2), [], side=30).size == (30, 20)


def test_strength_is_the_share_of_the_top_to_the_power() -> None:
    found = strengths(np.array([0.25, -0.25, 0.0, *np.ones(997)]))
    np.testing.assert_allclose(found[:4], [0.25**0.7, 0.0, 0.0, 1.0])


def test_footprints_are_drawn_to_scale() -> None:
    cells = squash((20, 10), (1, 2)).boxes
    shown = np.asarray(grid_lines(np.concatenate([cells, np.full((1, 4), np.nan)]), (20, 10), 40))
    lines = np.zeros((20, 40), bool)
    lines[[0, -1]] = True
    lines[:, [0, 19, 20, 39]] = True
    np.testing.assert_array_equal((shown != 245).any(axis=-1), lines)
    tiny = np.asarray(grid_lines(np.array([[5.0, 4.0, 5.1, 4.1]]), (20, 10), 40))
    assert (tiny[8, 10] != 245).any()


@pytest.mark.parametrize("kind", ["webp", "jpeg", "png"])
def test_an_address_names_its_kind_and_holds_pixels_alone(kind: str) -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5)
    image.info["icc_profile"] = b"who made it"
    head, _, data = data_uri(image, kind).partition(",")
    assert head == f"data:image/{kind};base64"
    read = Image.open(BytesIO(base64.b64decode(data)))
    assert (read.format or "").lower() == kind
    assert read.info.get("icc_profile") is None
    if kind == "png":
        np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


def two_images() -> tuple[Sample, TokenMap]:
    """A 40×20 image of one token with a box, and a 20×40 image of two with another."""
    cells = concatenate([squash((40, 20), (1, 1)), squash((20, 40), (2, 1))])
    sample = Sample(
        images=[grey(40, 20), grey(20, 40, 200)],
        question="?",
        boxes=[Box(10, 5, 20, 15), Box(4, 4, 16, 14, image=1)],
    )
    return sample, TokenMap(
        np.arange(3), cells.boxes, None, cells.views, cells.image, ((40, 20), (20, 40)), 4
    )


def test_an_image_is_shown_with_its_own_boxes() -> None:
    sample, _ = two_images()
    np.testing.assert_array_equal(marked(picture(sample, side=40)), frame((20, 40), 5, 10, 15, 20))
    second = picture(sample, 1, 40)
    np.testing.assert_array_equal(marked(second), frame((40, 20), 4, 4, 14, 16))
    assert np.asarray(second)[30, 10].tolist() == [200] * 3


def test_a_map_is_laid_over_the_image_asked_for() -> None:
    sample, tokens = two_images()
    values = np.array([0.5, 0.0, 1.0])
    first, second = (np.asarray(overlay(sample, tokens, values, i, 40), int) for i in (0, 1))
    assert (first.shape, second.shape) == ((20, 40, 3), (40, 20, 3))
    np.testing.assert_array_equal(
        marked(Image.fromarray(second.astype(np.uint8))), frame((40, 20), 4, 4, 14, 16)
    )
    assert second[38, 2].tolist() == [238, 240, 167]  # heat 1 over 0.9 · 200
    assert second[18, 2].tolist() == [153, 153, 154]  # heat 0
    assert 69 * 3 < first[18, 2].sum() < 218 + 220 + 147  # half of the sample's largest, not of the image's
