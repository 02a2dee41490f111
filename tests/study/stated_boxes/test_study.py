"""Stated boxes, from a model that is made to write them to the page; every measure beside one worked out apart."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image, ImageColor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

import interp
from interp.data import Samples
from interp.errors import RunError, StudyError
from interp.indicators import Attention, CentrePrior
from interp.metrics import attention_ratio, boxes_iou
from interp.study import GridResult, StatedBoxes
from interp.study.stated_boxes.page import COLOUR, _with_stated
from interp.study.stated_boxes.task import MEASURES
from tests.golden.parsed import Page
from tests.study.saying import saying

SIZES = [(80, 64), (120, 56), (64, 96), (150, 150)]
PIECES = ("Sure:", '[{"bbox_2d":', "[14,", "28,", "42,", "56],", '"label":', '"nodule"}]')


def picture(i: int) -> np.ndarray:
    width, height = SIZES[i]
    return np.random.default_rng(i).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def data() -> Samples:
    return Samples(
        [interp.Sample(picture(i), "where is the nodule ?", [(8, 8, 40, 48)], id=f"s{i}") for i in range(4)],
        "four",
    )


@pytest.fixture(scope="module")
def mllm() -> interp.Mllm:
    return saying("qwen2_5_vl", *PIECES)


@pytest.fixture(scope="module")
def result(mllm: interp.Mllm, data: Samples, tmp_path_factory: pytest.TempPathFactory) -> GridResult:
    study = StatedBoxes(data=data, model=mllm, generate=12, batch=2)
    return study.run(tmp_path_factory.mktemp("runs"), progress=False)


def values(result: GridResult, measure: str) -> np.ndarray:
    found = result.values[result.values.measure == measure]
    return found.sort_values("index")["value"].to_numpy()


def resized(mllm: interp.Mllm, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) by transformers' own rule."""
    images = mllm.processor.image_processor
    limits = (images.size["shortest_edge"], images.size["longest_edge"])
    height, width = smart_resize(size[1], size[0], images.patch_size * images.merge_size, *limits)
    return width, height


def test_what_the_model_writes_is_mapped_back(mllm: interp.Mllm, data: Samples, result: GridResult) -> None:
    frame = result.samples.set_index("index")
    for i, (width, height) in enumerate(SIZES):
        across, down = resized(mllm, (width, height))
        wanted = [14 * width / across, 28 * height / down, 42 * width / across, 56 * height / down]
        (box,) = json.loads(frame.boxes[i])
        assert_allclose(box, wanted)
        assert frame.said[i].startswith("Sure: [{")
        assert json.loads(frame["labels"][i]) == ["nodule"]
        inside = max(min(wanted[2], 40) - max(wanted[0], 8), 0) * max(
            min(wanted[3], 48) - max(wanted[1], 8), 0
        )
        union = 32 * 40 + (wanted[2] - wanted[0]) * (wanted[3] - wanted[1]) - inside
        assert values(result, "iou")[i] == pytest.approx(inside / union)
        candidates = [(8 / w, 8 / h, 40 / w, 48 / h) for w, h in SIZES if (w, h) != (width, height)]
        moved = [(a * width, b * height, c * width, d * height) for a, b, c, d in candidates]
        scores = [boxes_iou([(wanted[0], wanted[1], wanted[2], wanted[3])], [one]) for one in moved]
        assert any(values(result, "iou_shuffled")[i] == pytest.approx(score) for score in scores)
    assert frame.n_stated.tolist() == [1] * 4
    assert values(result, "stated").tolist() == [1] * 4


def test_ratios_are_of_the_mean_map_over_layers(mllm: interp.Mllm, data: Samples, result: GridResult) -> None:
    boxes = [json.loads(one)[0] for one in result.samples.sort_values("index").boxes]
    for i, sample in enumerate(data):
        maps = Attention()(mllm, [sample], prompt=result.cells[0].study.prompt)
        mean, tokens = maps[0].values.mean(axis=0), maps.tokens[0]
        stated = attention_ratio(mean, tokens.mask([boxes[i]]))
        expert = attention_ratio(mean, tokens.mask(sample.boxes))
        assert values(result, "ar_stated")[i] == pytest.approx(float(stated), rel=1e-4)
        assert values(result, "ar_gap")[i] == pytest.approx(float(stated - expert), rel=1e-3, abs=1e-4)


def test_stored_texts_are_read_and_unreadable_ones_counted(data: Samples, tmp_path: Path) -> None:
    texts = {"s0": "<box>[[100, 125, 500, 750]]</box>", "s1": "<box>[[500, 125, 100, 750]]</box>", "s2": None}
    study = StatedBoxes(data=data, model=saying("llava", "no"), convention="internvl", answers=texts, batch=2)
    found = study.run(tmp_path, progress=False)
    assert found.failures.reason.tolist() == ["answers hold no text for the sample 's3'."]
    frame = found.samples.set_index("sample")
    assert frame.n_stated.to_dict() == {"s0": 1, "s1": 0, "s2": 0}
    assert frame.n_unparsed.to_dict() == {"s0": 0, "s1": 1, "s2": 0}
    assert frame.unparsed["s1"].startswith("x1 is not larger than x0: <box>")
    assert values(found, "iou")[0] == pytest.approx(1)  # 8, 8, 40, 48 of 80 × 64
    assert np.isnan(values(found, "iou")[1:]).all()
    assert values(found, "stated").tolist() == [1, 0, 0]
    for measure in ("ar_stated", "ar_gap", "mask_stated", "area_stated", "iou_shuffled"):
        assert np.isnan(values(found, measure)).tolist() == [False, True, True], measure
    np.testing.assert_allclose(values(found, "area_expert"), [32 * 40 / (w * h) for w, h in SIZES[:3]])
    assert np.isfinite(values(found, "ar_expert")).all()
    assert int(found.summary().set_index("measure").n_undefined["iou"]) == 2
    page = found.report(tmp_path / "page.html").read_text("utf-8")
    assert "1 part in 1 of 3 samples. 1 other sample without any box." in page


def test_masks_are_compared_pixel_by_pixel(data: Samples, tmp_path: Path) -> None:
    """With a centre prior of one map the mask and its overlaps are known without a model's attention."""
    texts = {one.id: "[0.25, 0.25, 0.75, 0.75]" for one in data}
    study = StatedBoxes(
        data=data, model=saying("llava", "no"), convention="fractions", answers=texts, indicator=CentrePrior(),
        upsample="nearest", threshold=0.75,
    )  # fmt: skip
    found = study.run(tmp_path, progress=False)
    maps = CentrePrior()(saying("llava", "no"), list(data))
    for i, sample in enumerate(data):
        pixels = maps.tokens[i].to_pixels(maps[i].values)
        mask = np.nan_to_num(pixels, nan=-1) > np.nanquantile(pixels, 0.75)
        width, height = SIZES[i]
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        for measure, (x0, y0, x1, y1) in (
            ("mask_stated", (width / 4, height / 4, width * 3 / 4, height * 3 / 4)),
            ("mask_expert", sample.boxes[0].as_tuple()),
        ):
            inside = np.outer((y >= y0) & (y < y1), (x >= x0) & (x < x1))
            wanted = (mask & inside).sum() / (mask | inside).sum()
            assert values(found, measure)[i] == pytest.approx(wanted)
        assert values(found, "area_stated")[i] == pytest.approx(0.25, abs=0.01)


def test_a_run_in_parts_has_the_bytes_of_one(
    mllm: interp.Mllm, data: Samples, result: GridResult, tmp_path: Path
) -> None:
    study = result.cells[0].study.replace(model=mllm)
    for part in ((1, 2), (2, 2)):
        found = study.run(tmp_path, progress=False, part=part)
    for table in ("scores", "samples", "maps"):
        one, other = (cell.folder.read_table(table).to_pandas() for cell in (result.cells[0], found.cells[0]))
        assert one.astype(str).equals(other.astype(str))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"indicator": Attention(per_head=True)}, "Use per_head=False"), ({"layers": [0, 99]}, r"not \[99\]")],
)
def test_maps_that_fit_no_sample_stop_the_run(
    data: Samples, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    texts = {one.id: "" for one in data}
    study = StatedBoxes(data=data, model=saying("llava", "no"), convention="internvl", answers=texts, batch=2)
    with pytest.raises(RunError, match=said):
        study.replace(**changes).run(tmp_path, progress=False)


def test_it_has_a_page_with_its_convention(result: GridResult, tmp_path: Path) -> None:
    page = html.unescape(result.report(tmp_path / "page.html").read_text())
    body = page[page.index("<main") :]
    assert "Does the model say that the finding is where it is" in body
    assert all(measure in body for measure in MEASURES)
    assert "0 parts in 0 of 4 samples. 0 other samples without any box." in body
    assert "QwenLM/Qwen3-VL#931" in body
    assert set(result.figures()) == {"overlap", "attention"}
    assert set(result.scores.measure) == set(MEASURES)


def test_each_point_of_a_figure_is_the_mean_of_its_name(result: GridResult) -> None:
    shown = {
        "overlap": {
            "stated and expert's boxes": "iou",
            "stated and another sample's": "iou_shuffled",
            "attention mask and stated boxes": "mask_stated",
            "attention mask and expert's": "mask_expert",
        },
        "attention": {"inside the stated boxes": "ar_stated", "inside the expert's boxes": "ar_expert"},
    }
    for name, measures in shown.items():
        (trace,) = (one for one in result.figures()[name].data if one.mode == "markers")
        points = {
            " ".join(html.unescape(text).replace("<br>", " ").split()): x
            for x, text in zip(trace.x, trace.y, strict=True)
        }
        assert points == pytest.approx({text: values(result, own).mean() for text, own in measures.items()})


def test_a_stated_box_is_drawn_where_it_was_stated() -> None:
    """A picture of 120 × 60 shown at half its size: the outline is of 2 pixels, inside the box."""
    drawn = _with_stated(lambda _: Image.new("RGB", (60, 30)), [[20, 10, 80, 50]], [(120, 60)], 0)
    rows, columns = np.nonzero((np.asarray(drawn) == ImageColor.getrgb(COLOUR)).all(axis=-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (10, 5, 40, 25)


def test_each_card_shows_the_overlap_with_its_own_expert(result: GridResult, tmp_path: Path) -> None:
    page = Page(result.report(tmp_path / "page.html"))
    for i, value in enumerate(values(result, "iou")):
        (card,) = page.cards(f"s{i}")
        assert f"IoU {value:.2f}" in card.text


def test_what_the_numbers_depend_on_is_in_the_hash(mllm: interp.Mllm, result: GridResult) -> None:
    study = result.cells[0].study
    own = study.task(mllm).to_dict()
    assert own["convention"]["name"] == "qwen2_5_vl"
    for change in (
        {"convention": "qwen3_vl"}, {"answers": {"s0": "x"}}, {"layers": [0]}, {"threshold": 0.9},
        {"upsample": "nearest"}, {"generate": 3}, {"rule": "center"}, {"indicator": CentrePrior()}, {"seed": 3},
    ):  # fmt: skip
        assert study.replace(**change).task(mllm).to_dict() != own


def test_several_images_and_wrong_settings_are_refused(
    data: Samples, mllm: interp.Mllm, tmp_path: Path
) -> None:
    two = interp.Sample(images=[picture(0), picture(1)], question="?", boxes=[(1, 2, 30, 40)])
    found = StatedBoxes(data=[*data[:1], two], model=mllm, generate=12).run(tmp_path, progress=False)
    assert found.failures.reason.tolist() == [
        "a stated box does not say which image it is on, so a sample must have one image; this one has 2 images or "
        "frames."
    ]
    with pytest.raises(
        interp.InterpError, match="models of the family 'llava' have no convention of their own"
    ):
        StatedBoxes(data=data, model="organism").run(tmp_path, progress=False)
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"convention": "yolo"}, r"convention is one of .*; got 'yolo'"),
        ({"answers": ["x"]}, r"answers is a dict from each sample's id"),
        ({"answers": [("a", "x"), ("a", "y")]}, r"an id comes twice"),
        ({"answers": {"a": 3}}, r"answers is a dict from each sample's id"),
        ({"answers": {3: "a"}}, r"answers is a dict from each sample's id"),
        ({"layers": []}, r"layers are the maps' layers that are averaged"),
        ({"layers": [True]}, r"layers are the maps' layers that are averaged"),
        ({"layers": [1, 1]}, r"layers are the maps' layers that are averaged"),
        ({"layers": [-1]}, r"layers are the maps' layers that are averaged"),
        ({"generate": 0}, r"generate is a whole number ≥ 1"),
        ({"threshold": 3}, r'threshold is "otsu"'),
        ({"upsample": "cubic"}, r"upsample is one of"),
        ({"rule": "stretch"}, r"rule is one of touch, center"),
    )
    for fields, said in refused:
        with pytest.raises(StudyError, match=said):
            StatedBoxes(data=data, **fields)
