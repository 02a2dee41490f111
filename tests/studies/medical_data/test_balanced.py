"""The rules of the balanced questions on small synthetic masks: no download."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from interp.data import build
from studies.medical_data import absence, balanced, nuclei, readers


@pytest.fixture
def field() -> np.ndarray:
    """A field of 256 pixels: a large nucleus (1), a smaller one (2), and one cut by the border (3)."""
    marks = np.zeros((256, 256), int)
    marks[100:124, 100:126] = 1
    marks[100:116, 200:220] = 2
    marks[0:30, 0:40] = 3
    return marks


def test_sides_come_in_pairs_of_one_nucleus(field: np.ndarray) -> None:
    pairs = nuclei.side_pairs(field)
    assert [left.nucleus for left, _ in pairs] == [1, 2]
    for left, right in pairs:
        assert left.nucleus == right.nucleus
        assert left.side == right.side == 64
        assert left.offset < -build.MIDLINE
        assert right.offset > build.MIDLINE
        for tile in (left, right):
            assert abs(abs(tile.offset) - 0.2) < 8 / 64 / 2 + 1e-9  # nearest of tiles 8 pixels apart
            ys, xs = np.nonzero(field[tile.at] == tile.nucleus)
            assert tile.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    crowded = field.copy()
    crowded[20:100, 60:170], crowded[124:200, 60:170] = 4, 5  # in every tile that holds the first whole
    assert 1 not in {left.nucleus for left, _ in nuclei.side_pairs(crowded)}


def test_sizes_come_in_pairs_and_wide_tiles_show_small_ones(field: np.ndarray) -> None:
    field[field == 3] = 0
    pairs = nuclei.size_pairs(field)
    assert [large.nucleus for large, _ in pairs] == [1]  # beside the first the second is never the largest
    for large, small in pairs:
        assert large.nucleus == small.nucleus
        assert large.share >= build.LARGE
        assert small.share <= build.SMALL
        assert small.side == 160  # the narrowest wide tile
    ((_, before),) = pairs
    line = np.arange(100)
    field[before.y + line, before.x + line] = 6  # less area than the nucleus, a box that is not small
    assert 1 not in field[before.y + line, before.x + line]
    ((_, after),) = nuclei.size_pairs(field)
    assert after != before
    for value in (1, 6):
        ys, xs = np.nonzero(field[after.at] == value)
        if xs.size:
            assert (np.ptp(xs) + 1) * (np.ptp(ys) + 1) <= build.SMALL * after.side**2


def test_empty_tiles_hold_nothing_marked_and_nothing_bright() -> None:
    grey, marks = np.full((96, 96), 20, np.uint8), np.zeros((96, 96), int)
    assert [(t.y, t.x) for t in nuclei.empty_tiles(grey, marks)] == [(0, 0), (0, 48), (48, 0), (48, 48)]
    marks[10, 10] = 1
    assert (0, 0) not in [(t.y, t.x) for t in nuclei.empty_tiles(grey, marks)]
    grey[60:75, 60:75] = 45  # a faint nucleus nobody marked
    assert [(t.y, t.x) for t in nuclei.empty_tiles(grey, marks * 0)] == [(0, 0), (0, 48), (48, 0)]
    grey[60:75, 60:75] = 20
    grey[60, 60] = 255  # one hot pixel is noise
    assert len(nuclei.empty_tiles(grey, marks * 0)) == 4


def volume(shown: list[list[int]], spacing: float = 4.0) -> list:
    """Slices of a model's labels 1 liver, 2 colon, 3 vertebra, `spacing` mm apart."""
    names = {1: "liver", 2: "colon", 3: "vertebra"}
    items = []
    for k, values in enumerate(shown):
        labels = np.zeros((8, 8), int)
        labels[: len(values), 0] = values
        slice_ = build.Slice(labels.astype(np.uint8), labels, names, (1.0, 1.0))
        items.append(readers.Item(f"v-axi-{k:03d}", "test", "model", slice_, k * spacing))
    return items


def test_absence_is_certain_12_mm_on_or_in_another_region() -> None:
    source = readers.Source("ct-abdomen", "CT", "p", "l", "model", "test")
    items = volume([[1, 2], [1], [1], [1], [1]])
    asked = {"liver", "colon", "bladder", "left hemisphere", "largest nucleus", "spleen", "vertebra"}
    found = [absence.certainly_absent(source, item, items, asked) for item in items]
    assert [own for own, _ in found] == [set(), set(), set(), set(), {"colon"}]  # 16 mm away, not 12
    others = {"bladder", "left hemisphere", "largest nucleus"}
    assert all(elsewhere == others for _, elsewhere in found)  # a spleen may be there unmarked
    head = replace(source, key="mr-head", mask_origin="derived")
    assert absence.certainly_absent(head, items[4], items[1:], asked | {"left back muscle"}) == (
        set(),
        {"colon", "bladder", "largest nucleus", "spleen"},
    )  # held by the volume: the liver; a neck may show vertebrae and back muscles


def test_presence_questions_are_half_yes_and_half_no() -> None:
    source = readers.Source("ct-abdomen", "CT", "p", "l", "model", "test")
    items = volume([[1, 2, 3], [1, 3], [1], [1], [1, 3], [1]])
    plain = [
        {"image": f"images/{item.name}.png", "label": label, "boxes": [[0, 0, 1, 1]], "question": "Which"}
        for item in items
        for label in sorted(item.labels)
    ]
    presence = balanced.Presence(lambda *words: len("".join(words)))
    labels = {"liver", "colon", "vertebra", "left hemisphere"}
    asked = list(presence.rows(source, items, plain, labels))
    by_slice: dict[str, list] = {}
    for like, question, label, boxes in asked:
        assert bool(boxes) == (question.answer == "yes")
        assert question.text == f"Is the {label} visible?"
        by_slice.setdefault(like["image"], []).append(question.answer)
    assert all(Counter(said)["yes"] == Counter(said)["no"] for said in by_slice.values())
    own = {(like["image"][-7:-4], label) for like, q, label, _ in asked if q.answer == "no"}
    assert ("004", "colon") in own
    assert ("000", "left hemisphere") in own
    train = [replace(item, split="train") for item in items]
    only = list(balanced.Presence(lambda *words: 0).rows(source, train, plain, labels))
    assert {(q.answer, label) for _, q, label, _ in only} == {("no", "left hemisphere")}
