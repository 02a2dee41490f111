from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import interp
from interp.errors import SampleError, SiteError, StudyError
from interp.study.knockout_sweep.flows import Flow, as_flows, control_of, default_flows, usual_width, windows
from tests.study.planted import sample, token_map

OPTIONS = {"index": 1, "n_samples": 3, "rule": "touch", "seed": 0}


def test_a_box_and_as_many_tokens_elsewhere() -> None:
    one = sample(5)
    tokens = token_map(one)
    inside = tokens.image[tokens.mask(one.boxes)]
    queries, keys = Flow("box", "last").places(tokens, one, **OPTIONS)
    assert (queries.tolist(), keys.tolist()) == ([tokens.length - 1], inside.tolist())
    _, other = Flow("elsewhere", "last").places(tokens, one, **OPTIONS)
    assert len(other) == len(inside) == 2
    assert not set(other) & set(inside)
    assert set(other) <= set(tokens.image)


def test_elsewhere_depends_on_seed_and_sample_alone() -> None:
    def drawn(number: int, **changes: int) -> tuple[int, ...]:
        one = sample(number)
        return tuple(Flow("elsewhere", "last").places(token_map(one), one, **{**OPTIONS, **changes})[1])

    assert drawn(5) == drawn(5, index=0, n_samples=9)
    assert len({drawn(5, seed=seed) for seed in range(20)}) > 10
    assert len({drawn(number) for number in (1, 5, 9, 13)}) > 1  # boxes at the same column
    counts = np.bincount([at for seed in range(400) for at in drawn(5, seed=seed)])
    assert (counts[counts > 0] > 20).all()  # 18 free tokens, about 44 times each
    assert (counts > 0).sum() == 18


def test_tokens_without_a_footprint_are_not_elsewhere() -> None:
    one, tokens = sample(0), token_map(sample(0))
    footprints = tokens.footprints.copy()
    footprints[10:] = np.nan
    half = replace(tokens, footprints=footprints)
    for seed in range(20):
        _, keys = Flow("elsewhere", "last").places(half, one, **{**OPTIONS, "seed": seed})
        assert (keys < tokens.image[10]).all()


def test_masks_are_one_per_sample_of_the_data() -> None:
    masks = [np.arange(20) == number for number in range(3)]
    flow = Flow(interp.image_mask(masks), ("last", interp.positions([3])))
    queries, keys = flow.places(token_map(sample(0)), sample(0), **OPTIONS)
    assert (queries.tolist(), keys.tolist()) == ([3, 23], [3])


def test_what_a_sample_lacks_is_said() -> None:
    one = sample(0)
    tokens = token_map(one)
    with pytest.raises(SampleError, match="the sample has no box"):
        Flow("box", "last").places(tokens, sample(0, boxes=()), **OPTIONS)
    whole = sample(0, boxes=[(0, 0, 100, 80)])
    with pytest.raises(SampleError, match="cover 20 image tokens, and 0 are left elsewhere"):
        Flow("elsewhere", "last").places(tokens, whole, **OPTIONS)
    with pytest.raises(SiteError, match="this prompt has the groups"):
        Flow("image", "question").places(tokens, one, **OPTIONS)
    with pytest.raises(SiteError, match=r"the keys .* name no token of this sample"):
        Flow(interp.image_mask(np.zeros(20, bool)), "last").places(tokens, one, **OPTIONS)


def test_flows_are_written_as_texts_or_pairs() -> None:
    assert as_flows(["image->last", "question → last"]) == (
        ("image→last", Flow("image", "last")),
        ("question→last", Flow("question", "last")),
    )
    assert as_flows({"mine": ("image", ("last", "question"))}) == (
        ("mine", Flow(("image",), ["last", "question"])),
    )
    assert as_flows(as_flows(["image→last"])) == as_flows(["image→last"])
    for wrong in (
        "image→last",
        3,
        ["image"],
        {"a": "image"},
        {"a": "ab"},
        {"a": ("image",)},
        [("a", "b", "c")],
    ):
        with pytest.raises(StudyError, match="flows= is a mapping such as"):
            as_flows(wrong)
    for wrong in ({}, ["image→last", "image->last"]):
        with pytest.raises(StudyError, match="at least one flow, each with its own name"):
            as_flows(wrong)


@pytest.mark.usefixtures("unchecked")
def test_a_selector_that_is_none_names_its_flow() -> None:
    with pytest.raises(StudyError, match="the flow 'a': keys= takes group names"):
        as_flows({"a": ([3], "last")})


def test_the_control_of_a_box_is_elsewhere_to_the_same_tokens() -> None:
    flows = default_flows(boxes=True)
    assert {name: control_of(name, flows) for name in flows if control_of(name, flows)} == {
        "box→last": "elsewhere→last",
        "box→after_image": "elsewhere→after_image",
    }
    assert list(default_flows(boxes=False)) == ["image→question", "image→last", "question→last"]
    assert [name for name, flow in flows.items() if flow.is_control] == [
        "elsewhere→last",
        "elsewhere→after_image",
    ]


def test_a_flow_is_json() -> None:
    assert Flow(("box", interp.word("nodule")), "last").to_dict() == {
        "keys": ["box", {"word": "nodule"}],
        "queries": ["last"],
    }


@pytest.mark.parametrize("width", range(1, 8))
def test_windows_are_gevas(width: int) -> None:
    n = 7
    expected = [tuple(range(max(0, i - width // 2), min(n, i - (-width // 2)))) for i in range(n)]
    assert [window.layers for window in windows(n, width)] == expected
    assert [window.layer for window in windows(n, width)] == list(range(n))


def test_an_even_window_has_one_more_layer_below() -> None:
    assert [(w.layer, w.first, w.last) for w in windows(12, 4, 5)] == [(0, 0, 1), (5, 3, 6), (10, 8, 11)]


@pytest.mark.parametrize("n", range(1, 81))
def test_the_usual_width_is_odd_and_fits(n: int) -> None:
    width = usual_width(n)
    assert 1 <= width <= n
    assert width % 2 == 1 or n == 2
    assert n < 12 or abs(width - 9 * n / 32) <= 1


def test_a_window_wider_than_the_model_is_refused() -> None:
    with pytest.raises(StudyError, match="window is at most the model's 6 layers; got 7"):
        windows(6, 7)


def test_places_of_several_selectors_are_in_order_and_once() -> None:
    one = sample(0)
    tokens = token_map(one)
    inside = tokens.image[tokens.mask(one.boxes)]
    flow = Flow(("image", "box"), ("last", interp.positions([3, 23, 0])))
    queries, keys = flow.places(tokens, one, **OPTIONS)
    assert queries.tolist() == [0, 3, 23]
    assert keys.tolist() == tokens.image.tolist()
    assert set(inside) < set(keys)


def test_boxes_that_no_token_sees_are_said_so() -> None:
    one, tokens = sample(0), token_map(sample(0))
    blind = replace(tokens, footprints=np.full_like(tokens.footprints, np.nan))
    with pytest.raises(SampleError, match="cover no image token: the model does not see that part"):
        Flow("box", "last").places(blind, one, **OPTIONS)


def test_a_control_has_all_else_in_common_with_its_flow() -> None:
    flows = {
        "a": Flow(("box", "question"), "last"),
        "b": Flow(("elsewhere", "question"), "question"),
        "c": Flow(("elsewhere", "question"), "last"),
        "d": Flow("elsewhere", "last"),
        "e": Flow("image", "box"),
    }
    assert {name: control_of(name, flows) for name in flows} == {**dict.fromkeys("bcde"), "a": "c"}
    assert control_of("a", {"a": flows["a"], "d": flows["d"]}) is None
    assert Flow("image", "elsewhere").is_control


@pytest.mark.parametrize(("rule", "inside"), [("touch", [0, 1, 5, 6]), ("center", [0])])
def test_a_box_holds_the_tokens_of_the_rule(rule: str, inside: list[int]) -> None:
    """Tokens are 20 × 20 pixels, five in a row: a box of 25 × 25 touches four and holds one centre."""
    one = sample(0, boxes=[(0, 0, 25, 25)])
    tokens = token_map(one)
    _, keys = Flow("box", "last").places(tokens, one, **{**OPTIONS, "rule": rule})
    assert keys.tolist() == tokens.image[inside].tolist()
    _, other = Flow("elsewhere", "last").places(tokens, one, **{**OPTIONS, "rule": rule})
    assert len(other) == len(inside)
