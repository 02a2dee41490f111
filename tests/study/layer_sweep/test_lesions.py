"""Lesion-wise hit rates against a hand-worked example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from interp.data import Samples, nifti
from interp.errors import StudyError
from interp.study.layer_sweep.lesions import lesion_hits
from tests.study.planted import Planted, sample, sweep

METRICS = ("ar", "pointing")


def slices() -> Samples:
    """Lesion "a" in three slices of a volume, "b" in one; and "a" of another volume in two."""
    lesions = [("one", "a"), ("one", "a"), ("one", "a"), ("one", "b"), ("two", "a"), ("two", "a")]
    return Samples(
        [sample(i, group=group, meta={"lesion": lesion}) for i, (group, lesion) in enumerate(lesions)],
        "slices",
    )


def run(folder: Path, **changes: Any) -> Any:
    return sweep(**({"data": slices(), "metrics": METRICS} | changes)).run(folder, progress=False)


def test_a_lesion_counts_once_whatever_its_slices(tmp_path: Path) -> None:
    found = lesion_hits(run(tmp_path)).set_index(["layer", "control"])
    assert found.loc[1, "boxes"].hits == 1.0
    assert found.loc[1, "boxes"].n == 3
    assert found.loc[1, "boxes"].n_groups == 2
    assert found.loc[1, "boxes"].slices == 2.0
    # layer 0 is a uniform map: every slice is hit with the chance 2 / 20
    by_hand = ((1 - 0.9**3) + (1 - 0.9) + (1 - 0.9**2)) / 3
    assert found.loc[0, "boxes"].hits == pytest.approx(by_hand)
    assert found.loc[0, "boxes"].chance == pytest.approx(by_hand)
    assert "shuffled_boxes" in found.loc[1].index


def test_one_slice_that_is_hit_is_enough(tmp_path: Path) -> None:
    data = list(slices())
    data[0] = data[0].replace(boxes=[(0, 0, 40, 20)])
    misses = [one.replace(boxes=[(60, 60, 100, 80)], id=f"m{i}") for i, one in enumerate(data)]
    indicator = Planted(gain=(0.0, 3.0, 1.0))

    class Fixed(Planted):
        """Looks at the first box whatever the sample's own is."""

        def _map(self, sample_: Any, tokens: Any) -> Any:
            return super()._map(data[0], tokens)

    result = run(
        tmp_path, data=Samples([data[0], *misses[1:]], "slices"), indicator=Fixed(gain=indicator.gain)
    )
    found = lesion_hits(result).set_index(["layer", "control"])
    assert found.loc[1, "boxes"].hits == pytest.approx(1 / 3)  # "a" of volume "one" alone


def test_samples_without_a_lesion_are_left_out(tmp_path: Path) -> None:
    data = list(slices())
    data[3] = data[3].replace(meta={})
    assert set(lesion_hits(run(tmp_path, data=data)).n) == {2}


def test_the_page_shows_lesions(tmp_path: Path) -> None:
    page = run(tmp_path).report(tmp_path / "page.html").read_text()
    assert "Lesion by lesion" in page
    assert "3 lesions in 2 volumes, 2.0 slices a lesion" in page
    assert "Lesion by lesion" not in run(tmp_path, metrics=("ar",)).report(tmp_path / "b.html").read_text()


def test_what_hit_rates_need_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"the sweep measured ar. Run it with metrics=\["):
        lesion_hits(run(tmp_path, metrics=("ar",)))
    with pytest.raises(StudyError, match=r"no sample names its lesion. Give the samples of each lesion"):
        lesion_hits(run(tmp_path, data=[sample(0), sample(1)]))


def test_lesions_of_a_volume_count_once(tmp_path: Path) -> None:
    marks = np.zeros((100, 80, 4), np.int16)
    marks[0:20, 60:80, 0:3] = 1  # one lesion in three slices
    marks[60:80, 0:20, 2] = 1
    scan = np.random.default_rng(0).integers(0, 99, marks.shape).astype(np.int16)
    for name, values in (("scan", scan), ("marks", marks)):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii.gz")
    data = nifti(tmp_path / "scan.nii.gz", tmp_path / "marks.nii.gz", {1: "tumor"}, lesions=True)
    found = lesion_hits(run(tmp_path / "runs", data=data)).set_index(["layer", "control"])
    assert (found.loc[1, "boxes"].n, found.loc[1, "boxes"].n_groups) == (2, 1)
    assert (found.loc[1, "boxes"].slices, found.loc[1, "boxes"].hits) == (2.0, 1.0)
