"""Grids and sizes of resized images, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import ModelError
from interp.inputs.footprints import squash
from interp.models.resizing import (
    agree,
    blank,
    check_views,
    cropped_window,
    down_columns,
    halved_twice,
    in_corner,
    merged_patches,
    one_image,
    pan_and_scan,
    patch_sides,
    pixel_size,
    resized_sizes,
    seen_part,
    setting,
    squashed_size,
    tile_windows,
    whole,
    without_area,
)


def test_tokens_down_columns_have_their_cells_in_that_order() -> None:
    """Two rows of three columns of 10 × 20 pixels."""
    found = down_columns(squash((30, 40), (2, 3)))
    corners = [(x, y) for x in (0, 10, 20) for y in (0, 20)]
    assert found.boxes[:, :2].tolist() == [list(corner) for corner in corners]


def test_a_grid_of_patches_is_a_width_and_a_height() -> None:
    """`image_grid_thw` counts frames, rows and columns."""
    processor = SimpleNamespace(image_processor=SimpleNamespace(patch_size=14))
    grids = torch.tensor([[1, 4, 6], [1, 10, 2]])
    assert resized_sizes({"image_grid_thw": grids}, processor) == [(84, 56), (28, 140)]
    assert resized_sizes({}, processor) == []


def processor_of(own: Any = None, **images: Any) -> Any:
    """A processor with settings of its own, and its image processor's."""
    return SimpleNamespace(image_processor=SimpleNamespace(**images), images_kwargs=own)


def test_a_processors_own_setting_is_used_in_a_call() -> None:
    """The class's defaults come first, then the processor's own, then the image processor's."""
    assert setting(processor_of(patch_size=14), "patch_size") == 14
    assert setting(processor_of({"patch_size": 16}, patch_size=14), "patch_size") == 16
    assert setting(processor_of({"do_pad": False}, do_pad=True), "do_pad") is False
    assert setting(processor_of(), "do_pad") is None
    made = processor_of({"patch_size": 16, "merge_size": 3}, patch_size=14)
    made.valid_processor_kwargs = SimpleNamespace(_defaults={"images_kwargs": {"patch_size": 32}})
    assert (setting(made, "patch_size"), setting(made, "merge_size")) == (32, 3)
    assert resized_sizes({"image_grid_thw": torch.tensor([[1, 2, 3]])}, made) == [(96, 64)]


def test_a_squashed_image_has_the_processors_size() -> None:
    plain: dict[str, Any] = {"do_resize": True, "size": {"height": 20, "width": 30}}
    assert squashed_size((7, 9), processor_of(**plain), "x") == (30, 20)
    assert squashed_size((7, 9), processor_of(**plain | {"do_resize": False}), "x") == (7, 9)
    for step in ("do_center_crop", "do_pad"):
        with pytest.raises(ModelError, match=f"has {step}=True"):
            squashed_size((7, 9), processor_of(**plain, **{step: True}), "x")
    for size in ({"shortest_edge": 3}, {"height": 3}, {"height": 3, "width": 3, "longest_edge": 3}):
        with pytest.raises(ModelError, match='the x adapter expects the size as "height" and "width"'):
            squashed_size((7, 9), processor_of(**plain | {"size": size}), "x")


def test_views_agree_in_number_size_and_order() -> None:
    inputs = {"pixel_values": [torch.zeros(3, 4, 6), torch.zeros(3, 2, 6)]}
    check_views(inputs, [(6, 4), (6, 2)], [(9, 9)], None)
    check_views({}, [], [], None)
    for wrong in ([(6, 4)], [(6, 2), (6, 4)], [(4, 6), (2, 6)], [(6, 4), (6, 2), (6, 2)]):
        with pytest.raises(ModelError, match=r"images of 9×9 into .*pixel_values hold 2 views of 6×4, 6×2"):
            check_views(inputs, wrong, [(9, 9)], None)


@pytest.mark.parametrize(("sides", "found"), [(14, (14, 14)), ((14, 16), (14, 16)), ([2, 3], (2, 3))])
def test_a_patch_has_a_height_and_a_width(sides: Any, found: tuple[int, int]) -> None:
    assert patch_sides(SimpleNamespace(vision_config=SimpleNamespace(patch_size=sides))) == found


def test_pixels_that_fill_no_cell_are_not_seen() -> None:
    """Two of 2½ cells across, three of 3⅓ down."""
    assert seen_part((10, 20), (4, 6), (3, 2), (10, 20, 110, 220)) == pytest.approx((10, 20, 90, 200))


def test_merged_patches_are_of_the_model() -> None:
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=14, spatial_merge_size=2))
    whole: dict[str, Any] = {"patch_size": 14, "merge_size": 2, "do_resize": True}
    whole["size"] = {"shortest_edge": 7, "longest_edge": 900}
    asked: list[Any] = []

    def resize(*given: int) -> tuple[int, int]:
        asked.append(given)
        return 28, 84

    assert merged_patches((50, 60), processor_of(**whole), config, resize) == (2, 6)
    assert asked == [(60, 50, 28, 7, 900)]
    assert merged_patches((84, 29), processor_of(**whole | {"do_resize": False}), config) == (2, 6)
    for wrong in ({"patch_size": 16}, {"merge_size": 1}):
        with pytest.raises(ModelError, match="Pass the processor of this checkpoint"):
            merged_patches((84, 28), processor_of(**whole | wrong), config)
    for size in ({"shortest_edge": 7}, {"longest_edge": 7}, {}):
        with pytest.raises(ModelError, match="the fewest and the most pixels"):
            merged_patches((84, 28), processor_of(**whole | {"size": size}), config)


def test_pan_and_scan_needs_every_setting() -> None:
    """An image of 200×100 is cut into two squares; one that is nearly square is not cut."""
    whole: dict[str, Any] = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 10}
    whole |= {"pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2}
    assert pan_and_scan((200, 100), processor_of(**whole)) == [(0, 0, 100, 100), (100, 0, 200, 100)]
    assert pan_and_scan((100, 200), processor_of(**whole)) == [(0, 0, 100, 100), (0, 100, 100, 200)]
    assert pan_and_scan((110, 100), processor_of(**whole)) == []
    assert pan_and_scan((200, 100), processor_of(**whole | {"do_pan_and_scan": False})) == []
    for name in list(whole)[1:]:
        with pytest.raises(ModelError, match=f"a value for each of its settings; .*'{name}': None"):
            pan_and_scan((200, 100), processor_of(**whole | {name: None}))


def test_tiles_are_row_by_row() -> None:
    assert tile_windows((40, 30), (2, 3)) == [
        (0, 0, 20, 10), (20, 0, 40, 10), (0, 10, 20, 20), (20, 10, 40, 20), (0, 20, 20, 30), (20, 20, 40, 30)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("patches", "edges"),
    [(1, [0, 1]), (4, [0, 4]), (5, [0, 2.5, 5]), (8, [0, 2.5, 8]), (9, [0, 2.5, 6.5, 9])],
)
def test_two_convolutions_see_a_quarter(patches: int, edges: list[float]) -> None:
    """Cells are centred on patches 0, 4, 8; halfway between the middles of patches 0 and 4 is 2½."""
    assert halved_twice(patches).tolist() == edges


@pytest.mark.parametrize(("partial", "rows", "bottom"), [(False, 1, [20]), (True, 2, [20, 30])])
def test_a_view_in_a_canvass_corner(partial: bool, rows: int, bottom: list[float]) -> None:
    """30×15 pixels show 60×30 of the image: three patches of 10 across, one and a half down; the canvas has 3×4."""
    found = in_corner((60, 30), (0, 0, 60, 30), (30, 15), 10, (3, 4), "v", partial=partial)
    boxes = found.boxes.reshape(3, 4, 4)
    assert boxes[0, :3].tolist() == [[0, 0, 20, 20], [20, 0, 40, 20], [40, 0, 60, 20]]
    assert boxes[:rows, 0, 3].tolist() == bottom
    assert np.isnan(boxes[rows:]).all()
    assert np.isnan(boxes[:, 3]).all()
    assert set(found.views) == {"v"}


def test_views_of_one_image_keep_a_grid_only_alone() -> None:
    view = squash((30, 40), (2, 3))
    assert one_image([view]).grid == (2, 3)
    both = one_image([view, without_area(2, "end")])
    assert (both.grid, len(both)) == (None, 8)
    assert both.image.tolist() == [0] * 8
    assert both.views.tolist() == [*view.views.tolist(), "end", "end"]
    assert np.isnan(both.boxes[6:]).all()


def test_a_size_is_of_the_keys_that_are_set() -> None:
    assert pixel_size(SimpleNamespace(size={"height": 3.0, "width": None})) == {"height": 3}


SQUARE = {"height": 20, "width": 20}


@pytest.mark.parametrize(
    ("size", "seen", "window", "settings"),
    [
        ((40, 60), (18, 20), (0, 0, 36, 60), {"size": SQUARE}),  # 18 of 20 pixels are in whole patches
        ((20, 20), (20, 20), (0, 0, 20, 20), {"size": {"height": 9, "width": 9}, "do_resize": False}),
        ((60, 40), (20, 20), (10, 0, 50, 40), {"size": {"shortest_edge": 20}, "do_center_crop": True}),
        ((40, 60), (20, 20), (0, 10, 40, 50), {"size": {"shortest_edge": 20}, "do_center_crop": True}),
        ((20, 20), (20, 20), (0, 0, 20, 20), {"size": SQUARE, "crop_size": {"height": 9, "width": 9}}),
        ((60, 40), (20, 20), (0, -10, 60, 50), {"size": SQUARE, "do_pad": True}),
        ((40, 60), (20, 20), (-10, 0, 50, 60), {"size": SQUARE, "do_pad": True}),
        # 15 pixels in a crop of 20: torchvision's backend puts 2 of the 5 in front, Pillow's 3
        ((15, 20), (20, 20), (-2, 0, 18, 20), {"size": SQUARE, "do_resize": False, "do_center_crop": True}),
        (
            (15, 20),
            (20, 20),
            (-3, 0, 17, 20),
            {"size": SQUARE, "do_resize": False, "do_center_crop": True, "backend": "pil"},
        ),
    ],
)
def test_a_crops_window_is_in_the_image(size: Any, seen: Any, window: Any, settings: dict[str, Any]) -> None:
    given = SimpleNamespace(**{"crop_size": SQUARE, **settings})
    assert cropped_window(size, (20, 20), seen, given) == pytest.approx(window)
    with pytest.raises(ModelError, match=r"into 20×20 pixels, but pixel_values are 20×21"):
        cropped_window(size, (20, 21), seen, given)


@pytest.mark.parametrize("size", [{"longest_edge": 20}, {"height": 20}, {**SQUARE, "shortest_edge": 20}])
def test_other_sizes_have_no_window(size: dict[str, int]) -> None:
    with pytest.raises(ModelError, match='"height" and "width" or as "shortest_edge"'):
        cropped_window((9, 9), (20, 20), (20, 20), SimpleNamespace(size=size))


def test_what_is_derived_agrees_with_what_is_found() -> None:
    agree("rows", [1, 2], [1, 2], None)
    with pytest.raises(ModelError, match=r"NoneType's settings give rows \[1\], but the inputs hold \[2\]"):
        agree("rows", [1], [2], None)
    assert whole((30, 40)) == (0, 0, 30, 40)
    assert blank((30, 40)).shape == (1, 40, 30)
