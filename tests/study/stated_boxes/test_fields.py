"""What a study of stated boxes makes of the answers, layers and texts that it is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.errors import RunError, SampleError, StudyError
from interp.inputs.box_conventions import BOX_CONVENTIONS
from interp.metrics import boxes_iou
from interp.study import StatedBoxes
from interp.study.stated_boxes.task import MEASURES, StatedTask
from interp.tracing import Cost
from tests.study.planted import Model, sample, samples, token_map

pytestmark = pytest.mark.usefixtures("unchecked")


def test_given_answers_are_the_same_in_any_order() -> None:
    one, other = ({"s1": "b", "s0": None}, [["s0", None], ("s1", "b")])
    made = [StatedBoxes(data=samples(2), answers=given) for given in (one, other)]
    assert [study.answers for study in made] == [(("s0", None), ("s1", "b"))] * 2
    assert StatedBoxes(data=samples(2)).answers is None
    assert StatedBoxes(data=samples(2), answers={}).answers == ()
    for wrong in (["s0", "a"], [("s0", "a", "b")], "s0", 3):
        with pytest.raises(
            StudyError, match="answers is a dict from each sample's id to what the model wrote"
        ):
            StatedBoxes(data=samples(2), answers=wrong)


def test_layers_are_some_whole_numbers_each_once() -> None:
    assert StatedBoxes(data=samples(1), layers=[3, 0]).layers == (3, 0)
    for wrong in ([0.5], ["1"], 3, "01"):
        with pytest.raises(
            StudyError, match=r"layers are the maps' layers that are averaged, such as \[14, 15\]"
        ):
            StatedBoxes(data=samples(1), layers=wrong)


def task(**changes: Any) -> Any:
    made: Any = object.__new__(StatedTask)
    given = {
        "data": samples(3),
        "model": Model(),
        "convention": "fractions",
        "upsample": "nearest",
        "threshold": 0.9,
    }
    made.study = StatedBoxes(**given | changes)
    made._mllm = made.study.model
    made.__dict__["_partners"] = (1, None, 0)
    return made


def test_texts_are_found_by_their_samples_ids() -> None:
    own = task(answers={"s2": "two", "s0": None, "other": "x"})
    assert own._texts((2, 0, 1)) == ({2: "two", 0: None}, Cost())


def spoken(*ids: list[int], reasoning: int = 0) -> Any:
    rows = [SimpleNamespace(ids=one, n_reasoning=reasoning) for one in ids]

    class Trace(list):
        cost = Cost(forwards=4)

    return Trace(rows)


def test_generated_texts_keep_marks_and_lose_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token 9 ends an answer, 8 pads, and 1 and 2 begin as a thought."""
    tokenizer = SimpleNamespace(
        eos_token_id=9, pad_token_id=8, decode=lambda ids, skip_special_tokens: f"{ids} {skip_special_tokens}"
    )
    asked: dict[str, Any] = {}

    def trace(given: Any, **options: Any) -> Any:
        asked.update(options, n=len(given))
        return spoken([1, 2, 5, 7, 9, 8], [1, 2, 6, 9], reasoning=2)

    own = task(generate=33)
    own._mllm = SimpleNamespace(trace=trace, device="cpu", processor=SimpleNamespace(tokenizer=tokenizer))
    monkeypatch.setattr("interp.study.stated_boxes.task.ends", lambda _: {7})
    texts, cost = own._texts((0, 2))
    assert texts == {0: "[5] False", 2: "[6] False"}
    assert cost == Cost(forwards=4)
    assert asked == {"prompt": own.study.prompt, "generate": 33, "n": 2}


def maps(*arrays: Any) -> Any:
    tokens = tuple(token_map(sample(i)) for i in range(len(arrays)))

    class Maps(tuple):
        pass

    made: Any = Maps(arrays)
    made.tokens = tokens
    return made


def test_measures_of_one_sample_by_hand() -> None:
    """The map is 4 in the expert's box, the left two of 20 tokens, and 1 elsewhere; stated is the half on the left."""
    flat = np.ones(20)
    flat[:2] = 4
    own = task()
    found = own._all_rows((0,), maps(xr.DataArray(flat, dims="token")), {0: "[0, 0, 0.4, 1]"})
    scores = {row["measure"]: row["value"] for row in found["scores"]}
    assert list(scores) == list(MEASURES)
    assert (scores["stated"], scores["area_stated"]) == (1, pytest.approx(0.4))
    assert scores["area_expert"] == pytest.approx(0.1)
    assert scores["iou"] == pytest.approx(0.1 / 0.4)
    mean = (2 * 4 + 18) / 20
    assert scores["ar_expert"] == pytest.approx(4 / mean)
    assert scores["ar_stated"] == pytest.approx((2 * 4 + 6) / 8 / mean)
    assert scores["ar_gap"] == pytest.approx(scores["ar_stated"] - scores["ar_expert"])
    assert (scores["mask_expert"], scores["mask_stated"]) == (pytest.approx(1.0), pytest.approx(0.25))
    partner = own.study.data[1].boxes  # from 20 to 60 of 100 pixels
    assert scores["iou_shuffled"] == pytest.approx(
        boxes_iou([(0, 0, 40, 80)], [one.as_tuple() for one in partner])
    )
    (row,) = found["samples"]
    assert (row["n_stated"], row["n_unparsed"], row["said"], row["unparsed"]) == (1, 0, "[0, 0, 0.4, 1]", "")


def test_a_text_without_a_box_leaves_the_experts_measures() -> None:
    flat = xr.DataArray(np.arange(20.0), dims="token")
    scores = {r["measure"]: r["value"] for r in task()._all_rows((0,), maps(flat), {0: "none"})["scores"]}
    known = {name for name, value in scores.items() if not np.isnan(value)}
    assert known == {"stated", "ar_expert", "mask_expert", "area_expert"}
    assert scores["stated"] == 0


def test_maps_of_layers_that_are_not_there_stop_the_run() -> None:
    lines = xr.DataArray(np.ones((2, 20)), {"layer": [4, 6]}, dims=("layer", "token"))
    task(layers=[6])._check_dims(maps(lines))
    task(layers=[6])._check_dims(
        maps(xr.DataArray(np.ones(20), dims="token"))
    )  # one map has no layers to choose
    with pytest.raises(
        RunError, match=r"layers=\[5, 6\] are averaged, and the maps have 4 … 6, not \[5\]\. Leave"
    ):
        task(layers=[5, 6])._check_dims(maps(lines))
    with pytest.raises(RunError, match=r"the indicator gives \('head', 'token'\)"):
        task()._check_dims(maps(lines.rename(layer="head")))


def test_a_sample_needs_one_image_and_a_text() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    rows = [sample(0), sample(1, images=[picture] * 2, image=None, boxes=())]
    own = task(data=rows)
    caught: list[Exception] = []

    def each(indices: Any, make: Any) -> Any:
        for place, index in enumerate(indices):
            try:
                make(place, index)
            except SampleError as error:
                caught.append(error)

    own.each = each
    flat = xr.DataArray(np.ones(20), dims="token")
    own._all_rows((1, 0), maps(flat, flat), {1: "x"})
    said = [str(one) for one in caught]
    assert said[0].endswith("this one has 2 images or frames.")
    assert said[1] == "answers hold no text for the sample 's0'."


def test_the_convention_is_the_familys_unless_named() -> None:
    own = task(convention=None)
    own._mllm = Model(family="qwen2_5_vl")
    assert own._convention == BOX_CONVENTIONS["qwen2_5_vl"]
    assert task(convention="fractions")._convention == BOX_CONVENTIONS["fractions"]
