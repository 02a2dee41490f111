"""A tiny random SAM: its point reaches the model, and its mask is transformers' own, in original pixels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.models.segmenter import Segmenter
from tests.models.tiny_sam import tiny_sam

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def sam() -> tuple[Any, Any]:
    return tiny_sam()


def by_transformers(sam: tuple[Any, Any], point: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(3, row, col) masks in original pixels and their scores, by hand: the point scaled, the padding cut off."""
    model, processor = sam
    pixels = processor.image_processor(PICTURE, return_tensors="pt")["pixel_values"]
    scale = 64 / 50  # the longer side fills the model's 64 pixels
    given = torch.tensor([[[[point[0] * scale, point[1] * round(30 * scale) / 30]]]], dtype=torch.float32)
    with torch.no_grad():
        out = model(pixel_values=pixels, input_points=given, multimask_output=True)
    large = torch.nn.functional.interpolate(out.pred_masks[0], (64, 64), mode="bilinear", align_corners=False)
    seen = large[..., : round(30 * scale), :64]
    small = torch.nn.functional.interpolate(seen, (30, 50), mode="bilinear", align_corners=False)
    return (small[0] > 0).numpy(), out.iou_scores[0, 0].numpy()


@pytest.mark.parametrize("point", [(10.0, 10.0), (40.5, 20.5)])
def test_the_mask_is_the_models_at_that_point(sam: tuple[Any, Any], point: tuple[float, float]) -> None:
    masks, scores = by_transformers(sam, point)
    found = Segmenter(*sam).mask(PICTURE, point)
    assert found.shape == (30, 50)
    assert found.dtype == bool
    assert np.mean(found == masks[-1]) > 0.99
    best = Segmenter(*sam, pick="best").mask(PICTURE, point)
    assert np.mean(best == masks[scores.argmax()]) > 0.99


def test_another_point_gives_another_mask(sam: tuple[Any, Any]) -> None:
    segmenter = Segmenter(*sam)
    assert (segmenter.mask(PICTURE, (10, 10)) != segmenter.mask(PICTURE, (40, 20))).any()


def test_a_folder_is_opened(sam: tuple[Any, Any], tmp_path: Path) -> None:
    for part in sam:
        part.save_pretrained(tmp_path)
    found = Segmenter.load(str(tmp_path))
    np.testing.assert_array_equal(found.mask(PICTURE, (10, 10)), Segmenter(*sam).mask(PICTURE, (10, 10)))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_sam_is_refused(sam: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"a segmenter is a SAM of transformers with its processor .*; got LlavaFor"
    ):
        Segmenter(*tiny("llava"))
    with pytest.raises(ModelError, match=r"a segmenter is a SAM of .*; got SamModel and SimpleNamespace"):
        Segmenter(sam[0], SimpleNamespace())
    with pytest.raises(ModelError, match=r'pick is "last" or "best"; got \'first\''):
        Segmenter(*sam, pick="first")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"inside the image of 50×30 pixels; got \(60, 10\)"):
        Segmenter(*sam).mask(PICTURE, (60, 10))
    with pytest.raises(ModelError, match=r"the segmenter '.*' cannot be opened: .*a folder with config.json"):
        Segmenter.load(str(tmp_path / "nowhere"))
    tiny("llava")[0].save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is of the type 'llava'. Name a SAM"):
        Segmenter.load(str(tmp_path))


@pytest.mark.usefixtures("unchecked")
def test_grey_pictures_and_points_on_the_rim_have_masks(sam: tuple[Any, Any]) -> None:
    segmenter, grey = Segmenter(*sam), PICTURE.convert("L")
    expected = segmenter.mask(grey.convert("RGB"), (10, 10))
    np.testing.assert_array_equal(segmenter.mask(grey, (10, 10)), expected)
    for corner in ((0, 0), [50, 30], (np.float64(50), np.int64(0))):
        assert segmenter.mask(PICTURE, corner).shape == (30, 50)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("point", "words"),
    [
        ((50.1, 3), r"50×30 pixels; got \(50\.1, 3\)"),
        ((3, 30.5), r"got \(3, 30\.5\)"),
        ((-0.5, 3), r"got \(-0\.5, 3\)"),
        ((3, -1), r"got \(3, -1\)"),
        ((float("nan"), 3), "lies inside the image"),
        ((1, 2, 3), "takes a PIL image and a point"),
        ((True, 2), "takes a PIL image and a point"),
        (("1", 2), "takes a PIL image and a point"),
        (None, "takes a PIL image and a point"),
    ],
)
def test_a_point_is_two_numbers_in_the_image(sam: tuple[Any, Any], point: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Segmenter(*sam).mask(PICTURE, point)


@pytest.mark.usefixtures("unchecked")
def test_an_array_is_no_picture_and_a_number_no_name(sam: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"takes a PIL image and a point .*; got ndarray"):
        Segmenter(*sam).mask(np.asarray(PICTURE), (1, 2))  # type: ignore[arg-type]
    for name in ("", 3):
        with pytest.raises(ModelError, match="opened by its id or folder, a text; got"):
            Segmenter.load(name)  # type: ignore[arg-type]
    for part in sam:
        part.save_pretrained(tmp_path)
    found = Segmenter.load(str(tmp_path), pick="best")
    assert (found.pick, found.model.training) == ("best", False)
    assert Segmenter.load(str(tmp_path), device="meta").model.device.type == "meta"


def test_a_mask_is_made_in_the_models_dtype(tmp_path: Path) -> None:
    model, processor = tiny_sam()
    found = Segmenter(model.to(torch.bfloat16), processor).mask(PICTURE, (10, 10))
    assert (found.shape, found.dtype) == ((30, 50), bool)
