"""Grey ranges, names and masks of slices, against values worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import nifti
from interp.data.volume_slices import grey_range, label_names
from interp.data.volumes import Volume
from interp.errors import DataError
from tests.data.volume_files import NAMES, SHAPE, marked_pair, marks, saved_volume


def volume(values: Any) -> Volume:
    return Volume(np.asarray(values).reshape(-1, 1, 1), np.eye(4))


def test_percentiles_leave_out_what_is_rare() -> None:
    assert grey_range(volume(np.arange(1001)), "percentiles") == pytest.approx((5, 995))
    rare = np.zeros(1000)
    rare[[3, 4]] = 9, -2
    assert grey_range(volume(rare), "percentiles") == (
        -2,
        9,
    )  # both percentiles are 0: from the least to the most
    assert grey_range(volume([5, 5]), "percentiles") == (5, 6)
    assert grey_range(volume([np.nan, 1.0, 3.0, np.inf]), "percentiles") == pytest.approx((1.01, 2.99))
    assert grey_range(volume([np.nan]), "percentiles") == (0, 1)


def test_a_range_of_grey_is_two_numbers_that_grow() -> None:
    assert grey_range(volume([1]), [0, 2]) == (0.0, 2.0)
    assert grey_range(volume([1]), "lung") != grey_range(volume([1]), "bone")
    for wrong in ((2, 2), (3, 1), (1,), (1, 2, 3), (0, "1"), "brain", None):
        with pytest.raises(DataError, match=r"grey is \(low, high\) in the volume's unit"):
            grey_range(volume([1]), wrong)


@pytest.mark.parametrize(
    "names",
    [{}, [1], {1: "liver", 0: "background"}, {1: "liver", 2: " "}, {1: "liver", "2": "x"}, {1: "a", 2: 3}],
)
def test_each_value_above_0_has_a_name(names: Any) -> None:
    with pytest.raises(DataError, match="names maps the values of the label map to names"):
        label_names(names)


@pytest.mark.parametrize("wrong", [-1, 1.5, np.nan, 2e9])
def test_one_wrong_value_makes_no_label_map(tmp_path: Path, wrong: float) -> None:
    held = marks().astype(np.float64)
    held[0, 0, 0] = wrong
    with pytest.raises(DataError, match=r"labels\.nii\.gz' holds values .*Is it a label map"):
        nifti(*marked_pair(tmp_path, held), NAMES)


def test_masks_come_on_demand_and_a_lost_one_is_counted(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert {len(one.masks) for one in nifti(*marked_pair(tmp_path / "plain"), NAMES)} == {0}
    held = marks()
    held[held == 2] = 0
    held[-1, 3, 2] = 2  # one pixel, in the first column of 20: the nearest of 8 columns are 1, 3, 6, …
    found = nifti(*marked_pair(tmp_path, held), NAMES, masks=True, least=1, longest=8, slices=[2])
    assert [one.meta["label"] for one in found] == ["liver"]
    assert found.skipped == {"masks without a pixel in a picture of this size": 1}
    whole = nifti(*marked_pair(tmp_path, held), NAMES, masks=True, least=1, slices=[2])
    assert [one.meta["label"] for one in whole] == ["liver", "tumor"]
    assert whole[1].meta["present"] == ["liver", "tumor"]
    assert whole[1].boxes[0].as_tuple() == (0, SHAPE[1] - 4, 1, SHAPE[1] - 3)


def test_a_label_map_that_was_corrected_is_read_anew(tmp_path: Path) -> None:
    """In one process, under the same name, as in a notebook."""
    first = nifti(*marked_pair(tmp_path), NAMES, masks=True)
    held = marks()
    held[held == 2] = 0
    assert {one.meta["label"] for one in first} == {"liver", "tumor"}
    assert {one.meta["label"] for one in nifti(*marked_pair(tmp_path, held), NAMES)} == {"liver"}


def test_unknown_pixels_are_black_and_meta_names_the_cut(tmp_path: Path) -> None:
    image, held = marked_pair(tmp_path)
    ramp = np.full(SHAPE, 50, np.float32)
    ramp[-1, -1, 2] = np.nan  # the upper left corner of slice 2
    saved_volume(image, ramp)
    found = nifti(image, held, NAMES, slices=[2], grey=(0, 100))[0]
    shown = np.asarray(found.load())[..., 0]
    assert (shown[0, 0], shown[0, 1], shown[-1, -1]) == (0, 128, 128)
    assert dict(found.meta) == {
        "label": "liver", "modality": None, "plane": "axial", "slice": 2, "pixel_mm": 1.0,
        "present": ["liver", "tumor"],
    }  # fmt: skip
