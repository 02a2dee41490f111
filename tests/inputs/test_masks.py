"""Masks against counting pixels, and what is refused."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from interp.errors import BoxError, ImageError, MapError
from interp.inputs.boxes import Box
from interp.inputs.footprints import pad_to_square, squash
from interp.inputs.images import LazyImage
from interp.inputs.masks import Mask, as_masks, covered_by, filled
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap


def tokens_of(cells, *sizes) -> TokenMap:
    image = np.arange(len(cells))
    return TokenMap(image, cells.boxes, cells.grid, cells.views, cells.image, sizes, len(cells) + 1)


def triangle(width: int = 12, height: int = 8) -> np.ndarray:
    """Inside below the diagonal of the left part."""
    y, x = np.mgrid[:height, :width]
    return (x <= y) & (x < 5)


def png(folder: Path, values: np.ndarray, mode: str = "L") -> Path:
    path = folder / "mask.png"
    Image.fromarray(values.astype(np.uint8)).convert(mode).save(path)
    return path


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_covered_area_equals_counting_subpixels(data) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    inside = np.array(bits).reshape(height, width)
    x0, y0 = data.draw(st.integers(0, 4 * width - 1)), data.draw(st.integers(0, 4 * height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, 4 * width)), data.draw(st.integers(y0 + 1, 4 * height))
    fine = np.kron(inside, np.ones((4, 4)))  # quarter pixels
    found = covered_by(np.array([[x0, y0, x1, y1]]) / 4, inside)
    assert found[0] == pytest.approx(fine[y0:y1, x0:x1].sum() / 16, abs=1e-9)


def test_a_box_fills_pixels_whose_centres_it_holds() -> None:
    """A centre on the left or upper edge is inside, one on the right or lower edge is not: neighbours share none."""
    width, height = 7, 6
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for x0, y0, x1, y1 in ((0.5, 1.5, 3.5, 4.5), (3.5, 1.5, 6.5, 4.5), (0.6, 0.4, 2.4, 5.9), (2, 1, 5, 3)):
        wanted = np.outer((y >= y0) & (y < y1), (x >= x0) & (x < x1))
        np.testing.assert_array_equal(filled([Box(x0, y0, x1, y1)], (width, height)), wanted)


@pytest.mark.parametrize("build", [squash, pad_to_square])
def test_coverage_of_a_mask_counts_its_pixels(build) -> None:
    inside = triangle()
    tokens = tokens_of(build((12, 8), (4, 4)), (12, 8))
    coverage = tokens.coverage([Mask(inside)])
    for value, (x0, y0, x1, y1) in zip(coverage, tokens.footprints, strict=True):
        if np.isnan(x0):
            assert value == 0
            continue
        cell = inside[int(y0) : int(y1), int(x0) : int(x1)]
        assert value == pytest.approx(cell.mean())
    assert ((coverage > 0) == tokens.mask([Mask(inside)])).all()


def test_rules_of_a_mask_follow_its_pixels() -> None:
    inside = np.zeros((8, 8), bool)
    inside[3, 3] = inside[0, 0] = True
    tokens = tokens_of(squash((8, 8), (2, 2)), (8, 8))
    assert tokens.mask([Mask(inside)]).tolist() == [True, False, False, False]
    assert tokens.mask([Mask(inside)], rule="center").tolist() == [False] * 4  # centres at (2, 2), …
    inside[2, 2] = True
    assert tokens.mask([Mask(inside)], rule="center").tolist() == [True, False, False, False]


def test_stretched_mask_ignores_padding() -> None:
    inside = np.zeros((4, 8), bool)
    inside[0, 0] = True
    tokens = tokens_of(pad_to_square((8, 4), (4, 4)), (8, 4))
    assert np.flatnonzero(tokens.mask([Mask(inside)])).tolist() == [4]  # the first row is padding
    assert np.flatnonzero(tokens.mask([Mask(inside)], rule="stretch")).tolist() == [0]


def test_full_mask_covers_what_its_box_covers() -> None:
    inside = np.zeros((8, 12), bool)
    inside[2:5, 3:9] = True
    tokens = tokens_of(squash((12, 8), (3, 5)), (12, 8))
    np.testing.assert_allclose(tokens.coverage([Mask(inside)]), tokens.coverage([(3, 2, 9, 5)]), atol=1e-12)


def test_lost_area_is_the_share_of_pixels_unseen() -> None:
    inside = np.zeros((4, 8), bool)
    inside[:, :2] = True
    cells = squash((8, 4), (2, 4))
    footprints = cells.boxes.copy()
    footprints[0] = np.nan  # x 0–2, y 0–2
    tokens = TokenMap(np.arange(8), footprints, None, cells.views, cells.image, ((8, 4),), 9)
    assert tokens.lost_area([Mask(inside)]).tolist() == [0.5]


def test_boxes_hold_the_masks_where_none_are_given(tmp_path: Path) -> None:
    path = png(tmp_path, triangle() * 7)
    sample = Sample(np.zeros((8, 12, 3), np.uint8), "?", masks=[path])
    assert [box.as_tuple() for box in sample.boxes] == [(0, 0, 5, 8)]
    given_too = sample.replace(boxes=[(1, 1, 4, 4)])
    assert [box.as_tuple() for box in given_too.boxes] == [(1, 1, 4, 4)]
    assert len(given_too.masks) == 1
    assert sample.replace(masks=()).boxes == ()


def test_label_picks_one_structure(tmp_path: Path) -> None:
    values = np.zeros((6, 6), np.uint8)
    values[0, 0], values[3:5, 2:4] = 1, 2
    assert Mask(png(tmp_path, values), label=2).box.as_tuple() == (2, 3, 4, 5)
    palette = Image.fromarray(values, mode="P")
    assert Mask(palette, label=1).box.as_tuple() == (0, 0, 1, 1)


def test_fingerprint_counts_pixels_and_label() -> None:
    image, inside = np.zeros((8, 12, 3), np.uint8), triangle()
    plain = Sample(image, "?", boxes=[(0, 0, 5, 8)])
    with_mask = plain.replace(masks=[inside])
    assert len({plain.fingerprint, with_mask.fingerprint}) == 2
    assert plain.replace(masks=[~inside]).fingerprint != with_mask.fingerprint
    assert plain.replace(masks=[Mask(inside.astype(int), label=1)]) != with_mask
    assert pickle.loads(pickle.dumps(with_mask)) == with_mask


def test_dict_round_trip_keeps_masks(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.new("RGB", (12, 8)).save(image)
    sample = Sample(image, "?", masks=[Mask(png(tmp_path, triangle()), label=1)])
    again = Sample.from_dict(sample.to_dict())
    assert again == sample
    assert again.masks[0].label == 1
    with pytest.raises(BoxError, match=r"has no path to write down. Save it as a PNG"):
        Sample(image, "?", masks=[triangle()]).to_dict()


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    image = np.zeros((8, 12, 3), np.uint8)
    with pytest.raises(BoxError, match=r"the mask is 8×12, image 0 is 12×8 \(width×height\). Resize"):
        Sample(image, "?", masks=[triangle().T]).check()
    with pytest.raises(BoxError, match=r"names image 1, but the sample has 1"):
        Sample(image, "?", masks=[Mask(triangle(), image=1)]).check()
    with pytest.raises(BoxError, match=r"has no pixel that is not 0, so nothing is inside"):
        Sample(image, "?", masks=[np.zeros((8, 12)) > 0]).check()
    with pytest.raises(BoxError, match=r"has no pixel of the value 9"):
        Sample(image, "?", masks=[Mask(triangle().astype(int), label=9)]).check()
    with pytest.raises(ImageError, match=r"gone.png"):
        Sample(image, "?", masks=[tmp_path / "gone.png"]).check()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((4, 4), bool), r"expected a list of masks, got one mask; write masks=\[mask\]"),
        ([np.zeros((4, 4), float)], r"whole numbers; got float64 of shape \(4, 4\). Threshold"),
        ([np.zeros((4, 4, 3), bool)], r"whole numbers; got bool of shape \(4, 4, 3\)"),
        ([3], "a mask is a path, a PIL image or an .* array; got 3"),
        ([{"file": "x.png"}], "a mask is written as path, image and label"),
        ([{"path": "x.png", "file": 1}], "a mask is written as path, image and label"),
        ([{"image": 1}], "a mask is written as path, image and label"),
        ({"path": "x.png"}, "expected a list of masks, got {'path'"),
        (b"x.png", "expected a list of masks, got b'x.png'"),
        ("x.png", r"got one mask; write masks=\[mask\]"),
        (None, "expected a list of masks, got None"),
    ],
    ids=str,
)
def test_other_values_are_no_masks(masks, message: str, unchecked) -> None:
    with pytest.raises(BoxError, match=message):
        as_masks(masks)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"image": -1}, "a mask's image is an index 0, 1, …"),
        ({"image": True}, "a mask's image is an index 0, 1, …"),
        ({"image": 1.0}, "a mask's image is an index 0, 1, …"),
        ({"label": True}, "a mask's label is a whole number, or None"),
        ({"label": "1"}, "a mask's label is a whole number, or None"),
    ],
)
def test_image_and_label_are_whole_numbers(where, message: str, unchecked) -> None:
    with pytest.raises(BoxError, match=message):
        Mask(triangle(), **where)


def test_masks_are_equal_by_pixels_label_and_image(tmp_path: Path) -> None:
    inside = triangle().astype(np.uint8)
    path = png(tmp_path, inside)
    for values in (inside, path):
        kinds = [Mask(values), Mask(values, image=1), Mask(values, label=1), Mask(values, image=1, label=1)]
        assert len({one.fingerprint for one in kinds}) == 4
        assert kinds[0] == Mask(values)
        assert kinds[0] != kinds[1]
    assert Mask(inside) == Mask(inside * 7)
    assert repr(Mask(path, 2, 1)) == f"Mask({str(path)!r}, image=2, label=1)"
    assert repr(Mask(inside)) == "Mask(array, image=0)"


def test_a_region_beyond_the_image_covers_what_is_inside() -> None:
    inside = np.ones((3, 4), bool)
    regions = np.array([[-2, -2, 9, 9], [3.5, 0, 9, 1], [0, 2.5, 1, 9], [5, 5, 9, 9], [np.nan] * 4])
    assert covered_by(regions, inside).tolist() == [12, 0.5, 0.5, 0, 0]


def test_colours_are_no_mask() -> None:
    with pytest.raises(ImageError, match=r"mode RGB; a mask has one whole number a pixel"):
        Mask(Image.new("RGB", (4, 4)))


def test_boxes_and_masks_together_are_refused() -> None:
    tokens = tokens_of(squash((12, 8), (2, 2)), (12, 8))
    with pytest.raises(
        BoxError, match=r"expected boxes or masks, got both. Pass sample.boxes or sample.masks"
    ):
        tokens.mask([Mask(triangle()), (0, 0, 4, 4)])


def test_footprints_in_millimetres() -> None:
    tokens = tokens_of(squash((12, 8), (2, 2)), (12, 8))
    assert tokens.millimetres((0.5, 2.0))[3].tolist() == [3.0, 8.0, 6.0, 16.0]
    assert tokens.millimetres(0.5)[3].tolist() == [3.0, 2.0, 6.0, 4.0]
    with pytest.raises(
        MapError, match=r"pixel_mm is the size of a pixel, one number above 0 or \(x, y\); got 0"
    ):
        tokens.millimetres(0)


def test_a_mask_is_immutable():
    mask = Mask(np.ones((2, 3), bool))
    with pytest.raises(AttributeError, match=r"make a new one: interp\.Mask\(values, image, label\)"):
        mask.label = 3
    with pytest.raises(AttributeError, match=r"make a new one"):
        del mask.label


def test_a_mask_does_not_change_with_the_array_it_was_made_of() -> None:
    inside = triangle()
    mask, before = Mask(inside), triangle().sum()
    inside[:] = True
    assert mask.inside.sum() == before
    with pytest.raises(ValueError, match="read-only"):
        mask.values[0, 0] = True


def test_a_box_beyond_the_image_fills_what_is_inside() -> None:
    found = filled([Box(-3, -2, 2, 1), Box(3, 1, 9, 9)], (4, 3))
    assert found.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_a_turned_mask_is_read_upright(tmp_path: Path) -> None:
    inside = np.zeros((3, 5), np.uint8)
    inside[0, 0] = inside[0, 1] = 1
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: upright after a quarter clockwise
    Image.fromarray(inside).save(tmp_path / "turned.png", exif=exif)
    for mask in (Mask(tmp_path / "turned.png"), Mask(Image.open(tmp_path / "turned.png"))):
        assert mask.size == (3, 5)
        assert mask.box.as_tuple() == (2, 0, 3, 2)


def test_written_masks_are_read_with_their_image_and_label(tmp_path: Path) -> None:
    path = str(png(tmp_path, triangle()))
    mask = Mask(path, image=2, label=1)
    assert mask.to_dict() == {"path": path, "image": 2, "label": 1}
    (read, plain) = as_masks([mask.to_dict(), {"path": path}])
    assert (read.image, read.label) == (2, 1)
    assert (plain.image, plain.label) == (0, None)
    again = pickle.loads(pickle.dumps(mask))
    assert (again.image, again.label, again.values) == (2, 1, path)


def test_each_mask_has_a_box_on_its_own_image() -> None:
    first, second = np.zeros((8, 12), bool), np.zeros((6, 6), bool)
    first[1:3, 2:7], second[4, 5] = True, True
    sample = Sample(
        images=[np.zeros((8, 12, 3), np.uint8), np.zeros((6, 6, 3), np.uint8)],
        question="?",
        masks=[Mask(second, image=1), first],
    )
    assert sample.boxes == (Box(5, 4, 6, 5, image=1), Box(2, 1, 7, 3))
    sample.check()
    with pytest.raises(BoxError, match="the mask is 6×6, image 0 is 12×8"):
        sample.replace(masks=[first, second]).check()


@pytest.mark.parametrize("kind", ["array", "picture", "bytes"])
def test_a_mask_that_is_read_later_has_its_pixels(kind: str) -> None:
    inside, file = triangle().astype(np.uint8) * 3, BytesIO()
    Image.fromarray(inside).save(file, "PNG")
    made = {"array": inside, "picture": Image.fromarray(inside), "bytes": file.getvalue()}[kind]
    mask = Mask(LazyImage(lambda: made, "slice 3"), label=3)
    np.testing.assert_array_equal(mask.inside, triangle())
    assert (mask.size, mask.in_memory) == ((12, 8), True)
    colours = LazyImage(lambda: np.zeros((8, 12, 3), np.uint8), "slice 4")
    with pytest.raises(ImageError, match="slice 4 is of mode RGB"):
        _ = Mask(colours).inside
