"""Studies whose truth is the samples' masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.data import Samples
from interp.errors import SampleError, StudyError
from interp.inputs.masks import Mask
from interp.inputs.sample import Box, Sample
from interp.metrics import attention_ratio
from interp.study import IndicatorComparison
from interp.study.baselines import moved_masks
from interp.study.truth import (
    at_truth,
    check_truth,
    inside_of,
    lost_share,
    tokens_inside,
    truth_boxes,
    truth_identity,
)
from tests.study.planted import GRID, sample, samples, sweep, token_map


def outlined(one: Sample) -> Sample:
    """The sample with the lower left half of its box as a mask."""
    box = one.boxes[0]
    y, x = np.mgrid[:80, :100]
    return one.replace(masks=[(x >= box.x0) & (x < box.x0 + 20) & (y >= box.y0 + 10) & (y < box.y1)])


def outlined_samples(n: int = 12) -> Samples:
    data = samples(n)
    return data.like(outlined(one) for one in data)


def test_a_mask_counts_by_the_fraction_of_each_token() -> None:
    one = outlined(sample(0))
    tokens = token_map(one)
    fractions = inside_of(tokens, one, "masks")
    assert fractions.reshape(GRID)[0, :2].tolist() == [
        0.5,
        0.0,
    ]  # half of the first 20×20 token, none of the other
    assert fractions.sum() == 0.5
    assert np.flatnonzero(tokens_inside(tokens, one, "masks")).tolist() == [0]
    assert inside_of(tokens, one, "touch").sum() == 2
    assert lost_share(tokens, one, "masks") == 0


def test_the_worst_box_says_what_is_lost() -> None:
    """The model sees the left 40 of 100 columns: none of one box is lost, half of another, and a mask all."""
    one = sample(0, boxes=[(0, 0, 20, 20), (20, 0, 60, 20)])
    whole = token_map(one)
    seen = whole.footprints[:, 2] <= 40
    tokens = replace(whole, footprints=np.where(seen[:, None], whole.footprints, np.nan))
    assert lost_share(tokens, one, "touch") == 0.5
    inside = np.zeros((2, 80, 100), bool)
    inside[0, :20, :20] = inside[1, :20, 60:] = True
    assert lost_share(tokens, one.replace(masks=list(inside)), "masks") == 1


def test_a_sweep_scores_maps_against_the_masks(tmp_path: Path) -> None:
    result = sweep(data=outlined_samples(), rule="masks").run(tmp_path, progress=False)
    assert (result.samples.n_box_tokens == 1).all()
    scores = result.scores.query("metric == 'ar' and layer == 1")
    expected = attention_ratio([4.0, 4.0] + [1.0] * 18, [0.5, 0.0] + [0.0] * 18)
    own = scores[scores.control == "boxes"].value.to_numpy()
    np.testing.assert_allclose(own, float(expected))
    assert (scores[scores.control == "shuffled_boxes"].value < own.min()).any()


def test_another_rule_is_another_run(tmp_path: Path) -> None:
    by_boxes = sweep(data=outlined_samples(4)).run(tmp_path, progress=False)
    by_masks = sweep(data=outlined_samples(4), rule="masks").run(tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2
    assert not by_boxes.scores.value.equals(by_masks.scores.value)


def test_a_sample_without_a_readable_mask_is_a_failure(tmp_path: Path) -> None:
    data = list(outlined_samples(6))
    gone = tmp_path / "gone.png"
    data[1] = data[1].replace(masks=(), id="bare")
    data[3] = data[3].replace(masks=[gone], boxes=(), id="gone")
    result = sweep(data=data, rule="masks").run(tmp_path / "runs", progress=False)
    reasons = result.failures.set_index("sample").reason
    assert reasons["bare"].startswith(
        'rule="masks" scores maps against masks, and the sample has none. Give it'
    )
    assert str(gone) in reasons["gone"]
    assert len(result.samples) == 4


def test_without_masks_the_rule_is_refused() -> None:
    one = sample(0)
    with pytest.raises(SampleError, match=r"the sample has none. Give it masks"):
        inside_of(token_map(one), one, "masks")
    marked = [outlined(one).replace(meta={"marker": [0, 0, 20, 20]})]
    with pytest.raises(StudyError, match=r'the truths marker name boxes of the meta. Use rule="touch"'):
        IndicatorComparison(data=marked, truth=["marker"], rule="masks")


def test_moved_masks_keep_their_relative_place() -> None:
    inside = np.zeros((40, 40), bool)
    inside[10:20, 20:40] = True
    (moved,) = moved_masks([Mask(inside)], [(80, 20)])
    assert moved.box.as_tuple() == (40, 5, 80, 10)
    thin = np.zeros((40, 40), bool)
    thin[1] = True
    assert moved_masks([Mask(thin)], [(4, 4)]) == ()


def test_label_maps_from_files_score_as_arrays(tmp_path: Path) -> None:
    one = outlined(sample(0))
    labels = one.masks[0].inside.astype(np.uint8) * 3
    path = tmp_path / "labels.png"
    Image.fromarray(labels).save(path)
    from_file = one.replace(masks=[Mask(path, label=3)])
    tokens = token_map(one)
    assert inside_of(tokens, from_file, "masks").tolist() == inside_of(tokens, one, "masks").tolist()


def test_boxes_on_another_image_are_another_truth() -> None:
    first, same, second = (
        Samples([sample(0, meta={"organ": box})]) for box in ((0, 0, 4, 4), [(0, 0, 4, 4)], (0, 0, 4, 4, 1))
    )
    assert truth_identity(first, "organ") == truth_identity(same, "organ")
    assert truth_identity(first, "organ") != truth_identity(second, "organ")


def marked(marker: Any, number: int = 0) -> Sample:
    return sample(number, meta={"marker": marker})


@pytest.mark.parametrize(
    ("marker", "boxes"),
    [
        ([1, 2, 8, 9], [(1, 2, 8, 9)]),
        ((1, 2, 8, 9), [(1, 2, 8, 9)]),
        ([[1, 2, 8, 9], (3, 4, 5, 6)], [(1, 2, 8, 9), (3, 4, 5, 6)]),
        ([Box(1, 2, 8, 9)], [(1, 2, 8, 9)]),
    ],
)
def test_a_truth_is_one_box_or_several(marker: Any, boxes: list[Any]) -> None:
    assert [box.as_tuple() for box in truth_boxes(marked(marker), "marker")] == boxes
    assert truth_boxes(marked(marker), "boxes") == sample(0).boxes


def test_every_sample_needs_each_truth() -> None:
    good, bad = marked([1, 2, 8, 9]), marked("left", 1)
    check_truth(Samples([good, sample(1)]), ["boxes"])
    for data, truths in (
        ([good, bad], ["marker"]),
        ([good], ["boxes", "nodule"]),
        ([good, sample(1)], ["marker"]),
    ):
        with pytest.raises(
            StudyError, match=r"truth is 'boxes' or a key of each sample's meta that holds a box"
        ):
            check_truth(Samples(data), truths)
    gone = Sample.unusable("no row", id="gone")
    check_truth(Samples([good, gone]), ["marker"])  # it is a failure in any case


def test_samples_at_a_truth_have_its_boxes_and_their_ids() -> None:
    data = Samples([marked([1, 2, 8, 9]), marked([[3, 4, 5, 6]], 1)], "two")
    assert at_truth(data, "boxes") is data
    found = at_truth(data, "marker")
    assert [one.boxes[0].as_tuple() for one in found] == [(1, 2, 8, 9), (3, 4, 5, 6)]
    assert [one.id for one in found] == ["s0", "s1"]
    assert found.name == "two"
    assert [one.boxes for one in data] == [sample(0).boxes, sample(1).boxes]  # as they were
    assert truth_identity(data, "marker") == truth_identity(found, "boxes") != truth_identity(data, "boxes")
