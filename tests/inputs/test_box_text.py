"""What a text states: every convention by a box worked out by hand, and everything that is no box with its reason."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import BoxError
from interp.inputs.box_conventions import BOX_CONVENTIONS, BoxConvention, convention_of
from interp.inputs.box_text import parse_boxes, written
from interp.inputs.boxes import Box
from interp.inputs.prompt import Prompt

SIZE = (200, 100)
BY_HAND = {
    "qwen2_5_vl": ('[{"bbox_2d": [28, 14, 56, 28], "label": "cyst"}]', (50, 25, 100, 50), "cyst"),
    "qwen3_vl": (
        '```json\n[{"bbox_2d": [250, 100, 500, 900], "label": "cyst"}]\n```',
        (50, 10, 100, 90),
        "cyst",
    ),
    "qwen2_vl": (
        "<|object_ref_start|>the cyst<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>",
        (20, 20, 60, 40),
        "the cyst",
    ),
    "qwen_vl": ("<ref>the cyst</ref><box>(100,200),(300,400)</box>", (20, 20, 60, 40), "the cyst"),
    "internvl": ("<ref>the cyst</ref><box>[[100, 200, 300, 400]]</box>", (20, 20, 60, 40), "the cyst"),
    "medmo": ("Fractures <box>[[100, 200, 300, 400]]</box>", (20, 20, 60, 40), "Fractures"),
    "paligemma": ("<loc0256><loc0128><loc0512><loc0896> cyst", (25, 25, 175, 50), "cyst"),
    "kosmos2": (  # cells (row 2, column 4) and (row 10, column 20) of 32 × 32, from centre to centre
        "<phrase>a cyst</phrase><object><patch_index_0068><patch_index_0340></object>",
        (4.5 * 6.25, 2.5 * 3.125, 20.5 * 6.25, 10.5 * 3.125),
        "a cyst",
    ),
    "llava": ("[0.25, 0.5, 0.75, 0.7]", (50, 50, 150, 90), ""),  # of 200 × 200, with 50 pixels above
    "shikra": ("it is at [0.25, 0.5, 0.75, 0.7].", (50, 50, 150, 90), ""),
    "fractions": ("[0.25,0.5,0.75,0.7]", (50, 50, 150, 70), ""),
}


def test_every_convention_has_a_box_by_hand_and_a_source() -> None:
    assert set(BY_HAND) == set(BOX_CONVENTIONS)
    for name, rule in BOX_CONVENTIONS.items():
        assert rule.name == name
        assert rule.source
        assert isinstance(rule.prompt, Prompt)
        assert "{question}" in rule.prompt.template


def test_pixels_of_a_padded_image_are_of_its_square() -> None:
    rule = BoxConvention("padded", "lists", None, frame="padded")
    (box,) = parse_boxes("[50, 100, 150, 140]", rule, SIZE).boxes  # of 200 × 200, with 50 pixels above
    assert box.as_tuple() == (50, 50, 150, 90)
    assert written(box, rule, SIZE) == "[50, 100, 150, 140]"


def test_resized_counts_in_its_own_frame_alone() -> None:
    """A size that is passed of every convention alike changes nothing where numbers are of the image, or scaled."""
    pixels = BoxConvention("image", "lists", None, frame="image")
    (box,) = parse_boxes("[50, 10, 150, 90]", pixels, SIZE, resized=(112, 56)).boxes
    assert box.as_tuple() == (50, 10, 150, 90)
    assert written(box, pixels, SIZE, resized=(112, 56)) == "[50, 10, 150, 90]"
    scaled = BoxConvention("scaled", "lists", 1000, frame="resized")
    assert parse_boxes(written(box, scaled, SIZE), scaled, SIZE).boxes == (box,)


def test_a_label_with_quotes_is_read_back() -> None:
    said = 'the "ring" \\ of the cyst'
    text = written(Box(50, 25, 100, 50), "qwen3_vl", SIZE, label=said)
    assert [one.label for one in parse_boxes(text, "qwen3_vl", SIZE).found] == [said]


def test_a_label_that_does_not_end_takes_no_time() -> None:
    text = '[{"bbox_2d": [250, 100, 500, 900], "label": "' + "\\" * 40
    start = time.perf_counter()
    parse_boxes(text, "qwen3_vl", SIZE)
    assert time.perf_counter() - start < 2  # years, where each backslash can be read in two ways


@pytest.mark.parametrize("name", BY_HAND)
def test_a_box_by_hand_is_read(name: str) -> None:
    text, edges, label = BY_HAND[name]
    found = parse_boxes(f"Sure.\n{text}", name, SIZE, resized=(112, 56))
    assert not found.unparsed
    (one,) = found.found
    assert np.allclose(one.box.as_tuple(), edges)
    assert one.label == label


def test_kosmos_boxes_are_those_of_transformers() -> None:
    from transformers.models.kosmos2.processing_kosmos2 import patch_index_to_coordinate

    for first, last in ((68, 340), (68, 70), (5, 69), (33, 33), (0, 1023)):
        text = f"<object><patch_index_{first:04d}><patch_index_{last:04d}></object>"
        (box,) = parse_boxes(text, "kosmos2", (320, 64)).boxes
        x0, y0, x1, y1 = patch_index_to_coordinate(first, last, 32)
        assert np.allclose(box.as_tuple(), (x0 * 320, y0 * 64, x1 * 320, y1 * 64))


REASONS = {
    '[{"bbox_2d": [10, 20, 30, 50]}, {"bbox_2d": [10, 20, 30': "the list of its edges does not end",
    '{"bbox_2d": [30, 20, 10, 50]}': "x1 is not larger than x0",
    '{"bbox_2d": [10, 50, 30, 20]}': "y1 is not larger than y0",
    '{"bbox_2d": [10, 20, 10, 50]}': "x1 is not larger than x0",
    '{"bbox_2d": [10, 20, 113, 40]}': "an edge lies outside the image (112×56 pixels)",
    '{"bbox_2d": [-1, 20, 30, 40]}': "an edge lies outside the image (112×56 pixels)",
    '{"bbox_2d": [NaN, 20, 30, 40]}': "an edge is not a finite number",
    '{"bbox_2d": [1, 2, 1e999, 40]}': "an edge is not a finite number",
    '{"bbox_2d": [1, 2, 3]}': "a box has four numbers, not 3",
    '{"bbox_2d": [1, 2, 3, 4, 5]}': "a box has four numbers, not 5",
    '{"bbox_2d": [1, 2, 3, "x"]}': "its edges are no list of numbers",
    '{"bbox_2d": []}': "its edges are no list of numbers",
    '{"bbox_2d": [[1, 2, 3, 4]]}': "its edges are no list of four numbers",
    '{"bbox_2d": "1, 2, 3, 4"}': "its edges are no list of four numbers",
    '{"bbox_2d": null}': "its edges are no list of four numbers",
}


@pytest.mark.parametrize("text", REASONS)
def test_what_is_no_box_is_kept_with_the_reason(text: str) -> None:
    found = parse_boxes(text, "qwen2_5_vl", SIZE, resized=(112, 56))
    assert [one.reason for one in found.unparsed] == [REASONS[text]]
    assert len(found.found) == text.count('"bbox_2d"') - 1  # a whole object before it is read all the same


@pytest.mark.parametrize(
    "text",
    [
        "{'bbox_2d': [28, 14, 56, 28], 'label': 'cyst'}",
        '```json\n[\n\t{"bbox_2d": [28, 14, 56, 28,], "label": "cyst",},\n]\n``` as you can see',
        'boxes: {"objects": [{"label": "cyst", "bbox_2d": [28.0, 14, 5.6e1, 28]}]',
    ],
)
def test_json_that_is_none_is_read_object_by_object(text: str) -> None:
    found = parse_boxes(text, "qwen2_5_vl", SIZE, resized=(112, 56))
    assert [(one.box.as_tuple(), one.label) for one in found.found] == [((50, 25, 100, 50), "cyst")]


def test_labels_belong_to_their_own_objects() -> None:
    text = '[{"label": "a {b}", "bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}, '
    text += '{"bbox_2d": [1, 2, 9, 9], "label": "c \\"d\\""}]'
    found = parse_boxes(text, "qwen3_vl", (1000, 1000))
    assert [one.label for one in found.found] == ["a {b}", "", 'c "d"']


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("<box>[[1, 2, 3, 4]", "internvl", "there is no </box>"),
        ("<box>nowhere</box>", "internvl", "its edges are no list of numbers"),
        ("<box></box>", "internvl", "its edges are no list of four numbers"),
        ("<box>[[1, 2, 3, 1001]]</box>", "internvl", "an edge lies outside the image (0 to 1000)"),
        (
            "<loc0001><loc0002><loc0003> cyst",
            "paligemma",
            "a box has four location tokens; here are 3 in a row",
        ),
        ("<object><patch_index_0001></object>", "kosmos2", "a box has two patch tokens, not 1"),
        (
            "<object><patch_index_0001><patch_index_2000></object>",
            "kosmos2",
            "a patch token is not on the grid of 32 × 32",
        ),
        ("[12, 30, 60, 80]", "llava", "an edge lies outside the image (0 to 1)"),
        ("[0.1, 0.0, 0.3, 0.2]", "llava", "it lies in the padding alone"),
        ("[0.1, 0.2, 0.3", "fractions", "the list of its edges does not end"),
    ],
)
def test_other_conventions_say_what_is_wrong_too(text: str, name: str, reason: str) -> None:
    found = parse_boxes(text, name, SIZE)
    assert not found.found
    assert [one.reason for one in found.unparsed] == [reason]


def test_numbers_are_never_taken_for_another_convention() -> None:
    """The same text under two conventions is two boxes; fractions under pixels are not rescaled."""
    text = '{"bbox_2d": [0.1, 0.2, 0.5, 0.6]}'
    assert parse_boxes(text, "qwen2_5_vl", SIZE, resized=SIZE).boxes[0].as_tuple() == (0.1, 0.2, 0.5, 0.6)
    assert np.allclose(parse_boxes(text, "qwen3_vl", SIZE).boxes[0].as_tuple(), (0.02, 0.02, 0.1, 0.06))


@pytest.mark.parametrize("text", ["", None, "There is no nodule.", "{}", "[]", "see [1] and [2, 3"])
def test_a_text_without_a_box_states_none(text: str | None) -> None:
    found = parse_boxes(text, "qwen3_vl", SIZE)
    assert found.boxes == ()
    assert found.unparsed == ()


def test_several_boxes_of_one_tag_share_its_label() -> None:
    found = parse_boxes(
        "Fractures <box>[[156, 516, 231, 607], [240, 529, 296, 581]]</box>", "medmo", (1000, 1000)
    )
    assert [(one.label, one.box.as_tuple()) for one in found.found] == [
        ("Fractures", (156, 516, 231, 607)),
        ("Fractures", (240, 529, 296, 581)),
    ]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('{"label": "cyst", "bbox_2d": [1, 2, 3, 4]}', ["cyst"]),  # the object begins the text
        ('"bbox_2d": [1, 2, 3, 4], "label": "cyst"', ["cyst"]),
        ('{"label": "cyst"} "bbox_2d": [1, 2, 3, 4]', [""]),  # of another object
    ],
)
def test_an_object_begins_at_its_brace(text: str, labels: list[str]) -> None:
    assert [one.label for one in parse_boxes(text, "qwen3_vl", (1000, 1000)).found] == labels


def test_several_boxes_in_a_row_and_one_that_does_not_end() -> None:
    text = "<loc0000><loc0000><loc0512><loc0256><loc0512><loc0256><loc0768><loc1023> cysts"
    boxes = parse_boxes(text, "paligemma", (1024, 1024)).boxes
    assert [box.as_tuple() for box in boxes] == [(0, 0, 256, 512), (256, 512, 1023, 768)]
    found = parse_boxes("a <box>[[1, 2, 3, 4]] b <box>[[5, 6, 7, 8]]</box>", "internvl", (1000, 1000))
    assert [box.as_tuple() for box in found.boxes] == [(5, 6, 7, 8)]
    assert [one.reason for one in found.unparsed] == ["there is no </box>"]
    found = parse_boxes("<box>[[1, 2, 3, x], [5, 6, 7, 8]]</box>", "internvl", (1000, 1000))
    assert [one.reason for one in found.unparsed] == ["its edges are no list of numbers"]
    assert len(found.boxes) == 1


def test_numbers_are_rounded_as_a_model_writes_them() -> None:
    box = Box(50, 50, 150, 66.66)
    assert written(box, "fractions", SIZE) == "[0.25, 0.5, 0.75, 0.67]"
    assert written(box, "internvl", SIZE) == "<ref></ref><box>[[250, 500, 750, 667]]</box>"
    assert (
        written(Box(0, 0, 200, 100), "paligemma", SIZE, label="a") == "<loc0000><loc0000><loc1023><loc1023> a"
    )


@pytest.mark.parametrize("name", ["fractions", "llava", "qwen3_vl"])
def test_boxes_that_are_read_are_in_pixels(name: str) -> None:
    """Of one pixel and less, without being taken for fractions."""
    (box,) = parse_boxes(written(Box(0, 0, 1, 1), name, (20, 20)), name, (20, 20)).boxes
    assert box.pixels


EDGES = st.tuples(*[st.floats(0, 1) for _ in range(4)]).map(lambda e: (sorted(e[::2]), sorted(e[1::2])))


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([n for n in BOX_CONVENTIONS if n != "kosmos2"]),
    edges=EDGES,
    size=st.tuples(*[st.integers(40, 900)] * 2),
)
def test_what_is_written_is_read_back(name: str, edges: tuple, size: tuple[int, int]) -> None:
    (x0, x1), (y0, y1) = edges
    if min(x1 - x0, y1 - y0) < 0.1:
        return
    box = Box(x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1], pixels=True)
    resized = (size[0] // 28 * 28 + 28, size[1] // 28 * 28 + 28)
    found = parse_boxes(
        written(box, name, size, label="a cyst", resized=resized), name, size, resized=resized
    )
    rule = BOX_CONVENTIONS[name]
    side = max(size) if rule.frame == "padded" else np.array([*size, *size])
    steps = np.array([*resized, *resized]) if rule.scale is None else (100 if rule.scale == 1 else rule.scale)
    assert not found.unparsed
    assert (np.abs(np.array(found.boxes[0].as_tuple()) - box.as_tuple()) <= 1.01 * side / steps + 1e-6).all()


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet="[]{}()<>,:\"'0123456789.eE-+ boxlcrefpath_2d/|", max_size=80),
    name=st.sampled_from(sorted(BOX_CONVENTIONS)),
)
def test_no_text_breaks_the_parser(text: str, name: str) -> None:
    found = parse_boxes(text, name, SIZE, resized=(112, 56))
    for box in found.boxes:
        box.check_inside(SIZE)
    assert all(one.reason for one in found.unparsed)


def test_families_have_conventions_where_their_training_does() -> None:
    assert convention_of(None, "qwen2_5_vl").frame == "resized"
    assert convention_of(None, "qwen3_vl_moe").scale == 1000
    of = {"qwen2_vl": "qwen2_vl", "qwen2_5_vl": "qwen2_5_vl", "qwen3_vl": "qwen3_vl", "qwen3_vl_moe": "qwen3_vl",
          "internvl": "internvl", "paligemma": "paligemma"}  # fmt: skip
    assert {family: convention_of(None, family).name for family in of} == of
    own = BoxConvention("mine", "json", 100)
    for change in (
        {"name": "other"},
        {"syntax": "tags"},
        {"scale": None},
        {"frame": "padded"},
        {"order": "yxyx"},
    ):
        assert replace(own, **change).to_dict() != own.to_dict(), change
    assert convention_of(own) is own
    with pytest.raises(BoxError, match="models of the family 'llava' have no convention of their own"):
        convention_of(None, "llava")
    with pytest.raises(BoxError, match=r"convention is one of 'qwen2_5_vl', .*; got 'qwen'"):
        convention_of("qwen")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: parse_boxes("x", "qwen2_5_vl", SIZE), r"Pass resized=\(width, height\)"),
        (
            lambda: parse_boxes("x", "internvl", (10, 0)),
            r"size is \(width, height\) in pixels, two whole numbers above 0",
        ),
        *(
            (
                lambda size=size: parse_boxes("x", "internvl", size),
                r"size is \(width, height\) in pixels, two whole",
            )
            for size in ((10, True), (10.0, 5), (10,), (10, 5, 3), 10)
        ),
        (
            lambda: parse_boxes(5, "internvl", SIZE),
            "expected the text that a model wrote, or None for nothing; got 5",
        ),
        (lambda: BoxConvention("x", "xml", 1), "syntax of a box convention is one of 'json', 'tags'"),
        *(
            (
                lambda scale=scale: BoxConvention("x", "json", scale),
                "a number above 0, or None for pixels; got",
            )
            for scale in (0, -1, True, "1000", float("inf"), float("nan"))
        ),
        (
            lambda: BoxConvention("x", "json", 1, "square"),
            "frame of a box convention is one of 'image', 'resized'",
        ),
        (
            lambda: BoxConvention("x", "json", 1, order="yx"),
            "order of a box convention is one of 'xyxy', 'yxyx'",
        ),
        (lambda: written(Box(1, 2, 3, 4), "kosmos2", SIZE), "boxes as patch tokens are read, not written"),
        (lambda: written(Box(1, 2, 3, 4), "qwen2_5_vl", SIZE), r"Pass resized=\(width, height\)"),
    ],
)
def test_what_cannot_be_read_at_all_is_refused(call, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BoxError, match=said):
        call()


@pytest.mark.parametrize(
    ("size", "text", "edges"),
    [
        ((100, 200), "[0.25, 0.5, 0.75, 0.7]", (0, 100, 100, 140)),  # 50 pixels on either side
        ((100, 200), "[0.0, 0.5, 0.5, 0.7]", (0, 100, 50, 140)),  # the part in the padding is cut off
        ((100, 200), "[0.5, 0.9, 1.0, 1.0]", (50, 180, 100, 200)),
        ((3, 8), "[0.25, 0, 0.5, 1]", (0, 0, 2, 8)),  # of 5 pixels of padding, 2 lie on the left
        ((8, 3), "[0, 0.25, 1, 0.5]", (0, 0, 8, 2)),
    ],
)
def test_padding_is_cut_off_on_every_side(size, text: str, edges) -> None:
    (box,) = parse_boxes(text, "llava", size).boxes
    assert box.as_tuple() == pytest.approx(edges)


def test_each_box_of_several_has_its_own_label() -> None:
    text = "<loc0000><loc0000><loc0512><loc0512> cat ; <loc0512><loc0256><loc1023><loc0768><seg001> dog\nmore"
    found = parse_boxes(text, "paligemma", (1024, 1024)).found
    assert [(one.label, one.box.as_tuple()) for one in found] == [
        ("cat", (0, 0, 512, 512)),
        ("dog", (256, 512, 768, 1023)),
    ]
    assert found[0].text == "<loc0000><loc0000><loc0512><loc0512>"
    text = "<ref>left</ref><box>(0,0),(100,100)</box> and <ref> right </ref><box>(500,0),(1000,100)</box>"
    found = parse_boxes(text, "qwen_vl", (1000, 1000)).found
    assert [(one.label, one.text) for one in found] == [
        ("left", "<box>(0,0),(100,100)</box>"),
        ("right", "<box>(500,0),(1000,100)</box>"),
    ]
    text = "Findings\n- Mass: <box>[[1, 2, 3, 4]]</box>, cyst <box>[[5, 6, 7, 8]]</box>"
    assert [one.label for one in parse_boxes(text, "medmo", SIZE).found] == ["Mass", "cyst"]


def test_several_objects_of_one_phrase_share_it() -> None:
    """Cells (0, 0) to (1, 1) from centre to centre, and cell (0, 5) whole; cells are 10 × 2 pixels."""
    text = "<phrase> two cysts </phrase><object><patch_index_0000><patch_index_0033>"
    text += "</delimiter_of_multi_objects/><patch_index_0005><patch_index_0005></object>"
    found = parse_boxes(text, "kosmos2", (320, 64)).found
    assert [(one.label, one.box.as_tuple()) for one in found] == [
        ("two cysts", (5, 1, 15, 3)),
        ("two cysts", (50, 0, 60, 2)),
    ]


@pytest.mark.parametrize("key", ["label", "sub_label", "text_content"])
def test_a_label_has_one_of_several_keys(key: str) -> None:
    text = f"{{'{key}': 'n\u00e9vus', 'bbox': [1, 2, 3, 4]}}"
    (found,) = parse_boxes(text, "qwen3_vl", (1000, 1000)).found
    assert (found.label, found.text) == ("névus", text)


def test_a_long_part_of_a_text_is_shown_cut() -> None:
    (cut,) = parse_boxes("<box>" + "[1, 2" * 99, "internvl", SIZE).unparsed
    assert cut.text == ("<box>" + "[1, 2" * 99)[:199] + "…"


def test_edges_are_written_within_the_frame() -> None:
    beyond = Box(-0.4, 0, 200.4, 100.4)
    assert written(beyond, "qwen2_5_vl", SIZE, resized=(112, 56)) == (
        '```json\n[{"bbox_2d": [0, 0, 112, 56], "label": ""}]\n```'
    )
    assert written(Box(50, 10, 100, 90), "paligemma", SIZE) == "<loc0102><loc0256><loc0922><loc0512> "
    assert (
        written(Box(50, 10, 100, 90), "llava", (100, 200)) == "[0.5, 0.05, 0.75, 0.45]"
    )  # 50 pixels on the left
    assert (
        written(Box(50, 10, 100, 90), "qwen2_vl", SIZE, label="é")
        == "<ref>é</ref><box>(250,100),(500,900)</box>"
    )
    assert '"label": "é"' in written(Box(50, 10, 100, 90), "qwen3_vl", SIZE, label="é")
