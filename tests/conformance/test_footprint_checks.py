"""Where paint goes, which tokens are probed, and the groups they are judged by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.conformance import Subject, footprint_checks
from interp.conformance.footprint_checks import (
    Probed,
    _meets,
    _widest_gap,
    choose,
    groups_of,
    image_tokens,
    locality,
    movement,
    several_images,
    tiling,
)
from interp.conformance.subject import inner_box, photo, repainted, shapes, smooth
from interp.errors import ModelError
from interp.inputs.footprints import Footprints, concatenate, lay
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Mllm


def tokens_of(found: Footprints, size: tuple[int, int]) -> TokenMap:
    n = len(found)
    return TokenMap(
        image=np.arange(n),
        footprints=found.boxes,
        grid=found.grid,
        views=found.views,
        image_index=found.image,
        sizes=(size,) * (int(found.image.max()) + 1),
        length=n,
    )


def test_shapes_are_square_wide_tall_and_tiny_with_odd_sides():
    found = shapes(100)
    assert found == [(101, 101), (241, 91), (81, 211), (31, 23)]
    assert smooth((81, 211), 0).shape == (211, 81, 3)
    assert not np.array_equal(smooth((9, 9), 0), smooth((9, 9), 1))


@pytest.mark.parametrize(
    ("footprint", "box"),
    [
        ([0, 0, 10, 20], (1, 2, 9, 18)),
        ([3.5, 3.5, 9.5, 9.5], (5, 5, 8, 8)),  # whole pixels, a tenth of a side away
        ([2.2, 4.0, 2.9, 5.0], (2, 4, 3, 5)),  # less than a pixel: that of the centre
        ([2.6, 0.0, 3.4, 9.0], (3, 1, 4, 8)),
    ],
)
def test_paint_stays_well_inside_the_footprint(footprint, box):
    assert inner_box(np.array(footprint, float)) == box


def test_paint_is_unlike_what_was_there_and_only_in_the_box():
    picture = np.full((6, 8, 3), (30, 200, 128), np.uint8)
    painted = repainted(picture, (2, 1, 5, 4))
    assert painted[1:4, 2:5].reshape(-1, 3).tolist() == [[255, 0, 0]] * 9
    painted[1:4, 2:5] = picture[1:4, 2:5]
    assert np.array_equal(painted, picture)
    with pytest.raises(ModelError, match=r"pixels \(6, 1, 9, 4\).*outside its image of 8×6.*the right image"):
        repainted(picture, (6, 1, 9, 4))


def test_tokens_without_area_and_slivers_are_not_probed():
    cells = lay((40, 40), (4, 4), (-1.0, 0.0, 55.0, 40.0))  # the last column sees nothing, the third a sliver
    boxes = cells.boxes
    assert np.isnan(boxes[3]).all()
    chosen = choose(tokens_of(cells, (40, 40)), 64, 0)
    widths = boxes[chosen, 2] - boxes[chosen, 0]
    assert len(chosen) == 12
    assert (widths > 4).all()


def test_only_tokens_of_the_asked_image_are_probed():
    parts = [lay((40, 40), (3, 3), (0.0, 0.0, 40.0, 40.0)), lay((40, 40), (2, 2), (0.0, 0.0, 40.0, 40.0))]
    tokens = tokens_of(concatenate(parts), (40, 40))
    assert [choose(tokens, 64, 0, image=i).tolist() for i in range(2)] == [[*range(9)], [*range(9, 13)]]


def test_many_tokens_are_probed_evenly():
    tokens = tokens_of(lay((240, 240), (24, 24), (0.0, 0.0, 240.0, 240.0)), (240, 240))
    chosen = choose(tokens, 64, 0)
    assert len(chosen) == 72  # three in each row and column
    assert np.bincount(chosen // 24).tolist() == [3] * 24
    assert np.bincount(chosen % 24).tolist() == [3] * 24


def test_groups_are_rows_columns_and_tiles():
    left = lay((40, 20), (2, 2), (0.0, 0.0, 20.0, 20.0), view="tile")
    right = lay((40, 20), (2, 2), (20.0, 0.0, 40.0, 20.0), view="tile")
    whole = lay((40, 20), (2, 2), (0.0, 0.0, 40.0, 20.0), view="base")
    tokens = tokens_of(concatenate([left, right, whole], one_image=True), (40, 20))
    found = {name: at.tolist() for name, at in groups_of(tokens, np.arange(8)).items()}
    assert found == {
        "row 0": [0, 1, 4, 5],
        "row 1": [2, 3, 6, 7],
        "column 0": [0, 2],
        "column 1": [1, 3],
        "column 2": [4, 6],
        "column 3": [5, 7],
        "run 0": [0, 1, 2, 3],
        "run 1": [4, 5, 6, 7],
    }


def test_the_widest_gap_is_a_missing_token_or_a_strip():
    boxes = lay((40, 40), (4, 4), (0.0, 0.0, 40.0, 40.0)).boxes
    assert _widest_gap(boxes) == 0
    assert _widest_gap(np.delete(boxes, 5, axis=0)) == pytest.approx(1)
    strips = np.concatenate(
        [lay((50, 20), (2, 2), (x, 0.0, x + 20.0, 20.0)).boxes for x in (0.0, 24.0)]  # 4 of 10 px stay free
    )
    assert _widest_gap(strips) == pytest.approx(0.4)


def subject_of(**own: Any) -> Any:
    """A model under test that has these attributes and no model."""
    kind: Any = type("Given", (Subject,), {"seed": 0, "trained": False, "probes": 8, **own})
    return kind.__new__(kind)


def probed(hits: list[bool], **groups: list[int]) -> Probed:
    return Probed("square", np.array(hits), {name: np.array(at) for name, at in groups.items()})


@pytest.mark.parametrize(
    ("hits", "groups", "trained", "passed"),
    [
        ([True] * 9 + [False], {}, False, True),
        ([True] * 8 + [False] * 2, {}, False, False),
        ([True] * 7 + [False] * 3, {}, True, True),
        ([True] * 6 + [False] * 4, {}, True, False),
        ([True] * 9 + [False], {"row": [8, 9]}, False, True),  # half of a row
        ([True] * 18 + [False] * 2, {"row": [18, 19]}, False, False),
        ([True] * 9 + [False], {"row": [9]}, False, True),  # a single probe says little
        ([True] * 7 + [False] * 3, {"row": [7, 8]}, True, True),  # as two do of a trained tower
        ([True] * 7 + [False] * 3, {"row": [7, 8, 9]}, True, False),
        ([True] * 7 + [False] * 3, {"row": [6, 7, 8, 9]}, True, True),  # a quarter of a row
        ([], {}, False, False),
    ],
)
def test_probes_must_hit_in_the_whole_and_in_each_line(hits, groups, trained, passed, monkeypatch) -> None:
    found = [probed(hits, **groups)] if hits else []
    monkeypatch.setattr(footprint_checks, "probe", lambda *_: found)
    measured = locality(subject_of(pictures=[np.zeros((2, 2, 3), np.uint8)], trained=trained))
    assert measured.passed is passed
    assert np.isnan(measured.value) if not hits else measured.value == pytest.approx(np.mean(hits))


def test_the_three_worst_lines_are_named(monkeypatch) -> None:
    lines = {"a": [0, 1], "b": [0, 1, 2], "c": [0, 1, 2, 3], "d": [0, 1, 2, 3, 4]}
    monkeypatch.setattr(footprint_checks, "probe", lambda *_: [probed([False] * 5, **lines)])
    detail = locality(subject_of(pictures=[np.zeros((2, 2, 3), np.uint8)])).detail
    assert detail.endswith("in 4 groups, such as square, d: 0 of 5; square, c: 0 of 4; square, b: 0 of 3")


def model_of(**own: Any) -> Any:
    """A model that has these attributes and nothing else; functions take no `self`."""
    made = {name: staticmethod(one) if callable(one) else one for name, one in own.items()}
    kind: Any = type("Given", (Mllm,), {"maps": "self", **made})
    return kind.__new__(kind)


def batch_of(*tokens: TokenMap) -> Any:
    kind: Any = type("Given", (Batch,), {"tokens": list(tokens)})
    return kind.__new__(kind)


def seeing(*maps: TokenMap, **own: Any) -> Any:
    """A model that encodes each of its pictures as the next of these maps."""
    left = list(maps)
    return model_of(encode=lambda _: batch_of(left.pop(0)), **own)


def test_a_missing_token_of_any_view_or_picture_is_a_gap() -> None:
    whole = lay((40, 40), (4, 4), (0.0, 0.0, 40.0, 40.0))
    pictures = [np.zeros((40, 40, 3), np.uint8)] * 2
    holed = Footprints(np.delete(whole.boxes, 5, axis=0), None, np.full(15, ""), np.zeros(15, int))
    view = lay((40, 40), (2, 2), (0.0, 0.0, 40.0, 20.0), view="upper")
    both = concatenate([whole, view], one_image=True)
    for maps, gap, said in (
        ((whole, whole), 0, "from 100% to 100%"),
        ((holed, whole), 1, "from 94% to 100%"),
        ((whole, both), 0, "from 50% to 100%"),
    ):
        found = tiling(
            subject_of(mllm=seeing(*(tokens_of(one, (40, 40)) for one in maps)), pictures=pictures)
        )
        assert found.value == pytest.approx(gap)
        assert found.passed is (gap == 0)
        assert said in found.detail
    nowhere = Footprints(np.full((2, 4), np.nan), None, np.full(2, ""), np.zeros(2, int))
    found = tiling(subject_of(mllm=seeing(tokens_of(nowhere, (40, 40))), pictures=pictures[:1]))
    assert not found.passed
    assert found.detail == "no token has an area"


def test_a_footprint_meets_a_box_if_they_share_area() -> None:
    tokens = tokens_of(lay((30, 10), (1, 3), (0.0, 0.0, 20.0, 10.0)), (30, 10))
    box = (0, 0, 7, 10)
    assert [_meets(tokens, token, box) for token in range(3)] == [True, True, False]
    assert not _meets(tokens, 1, (0, 0, 6, 10))
    nowhere = Footprints(np.full((1, 4), np.nan), None, np.full(1, ""), np.zeros(1, int))
    assert not _meets(tokens_of(nowhere, (9, 9)), 0, box)


def test_slivers_are_of_the_median_of_each_view() -> None:
    """Cells of 10, 10, 10 and 3 pixels, then 2.9; another view's are smaller than any of these."""
    boxes = np.array([[0, 0, 10, 1], [10, 0, 20, 1], [20, 0, 30, 1], [30, 0, 33, 1], [33, 0, 35.9, 1]], float)
    small = boxes / 2
    views = np.array(["a"] * 5 + ["b"] * 5)
    cells = Footprints(np.concatenate([boxes, small]), None, views, np.zeros(10, int))
    assert choose(tokens_of(cells, (40, 9)), 64, 0).tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert len(choose(tokens_of(cells, (40, 9)), 2, 0, per_line=0)) == 4  # two of each view
    assert len(choose(tokens_of(cells, (40, 9)), 1, 0, per_line=1)) == 8  # one of each of four columns


def test_movement_is_over_what_all_probes_move(monkeypatch) -> None:
    """Six probes: the median 1 is leakage. Other pictures move the tokens by 4, 2 and not at all."""

    def embedded(_: Any, pictures: Any) -> Any:
        for (one,) in pictures:
            yield torch.from_numpy(np.atleast_2d(one).T.astype(float))

    monkeypatch.setattr(footprint_checks, "embedded", embedded)
    asked: list[Any] = []
    subject = subject_of(mllm=None, picture=lambda _, *given: asked.append(given) or np.array([4.0, 2, 0]))
    painted = [[np.array(one)] for one in ([1, 1, 0], [1, 1, 0], [3, 1, 0], [-5, 0, 5], [1, 2, 0], [1, 0, 0])]
    found = movement(subject, [np.zeros((3, 1))[:, 0].reshape(1, 3)], painted)
    assert found.tolist() == [[0, 0, 0], [0, 0, 0], [0.5, 0, 0], [1, 0, 0], [0, 0.5, 0], [0, 0, 0]]
    assert {size for size, _ in asked} == {(3, 1)}  # three pixels wide
    assert len({seed for _, seed in asked}) == len(asked) > 1
    few = movement(subject, [np.zeros((1, 3))], painted[:4])
    assert few[0].tolist() == [0.25, 0.5, 0]


@pytest.mark.parametrize("taken", [True, False])
def test_two_images_are_refused_where_one_is_all(taken: bool) -> None:
    def encode(sample: Any) -> None:
        assert len(sample.images) == 2
        if not taken:
            raise ModelError("one image, please.")

    mllm = model_of(adapter=SimpleNamespace(several_images=False), encode=encode)
    found = several_images(subject_of(mllm=mllm, pictures=[smooth((8, 8), 0)]))
    assert (found.passed, found.value) == (not taken, taken)


def test_probes_of_two_images_must_move_their_own(monkeypatch) -> None:
    """Four cells each; every probe of the second image moves the same cell of the first most."""
    pictures = [smooth((40, 40), 0), smooth((40, 40), 1)]
    tokens = tokens_of(concatenate([lay((40, 40), (2, 2), (0.0, 0.0, 40.0, 40.0))] * 2), (40, 40))
    for order, value in (
        ([0, 1, 2, 3, 4, 5, 6, 7], 1),
        ([0, 1, 2, 3, 0, 1, 2, 3], 0.5),
        ([1, 1, 2, 3, 4, 5, 6, 6], 0.75),
    ):
        monkeypatch.setattr(footprint_checks, "movement", lambda *_, order=order: np.eye(8)[order])
        mllm = seeing(tokens, adapter=SimpleNamespace())
        found = several_images(subject_of(mllm=mllm, pictures=pictures))
        assert found.value == value
        assert found.passed is (value == 1)


@pytest.mark.parametrize(
    ("still", "said"), [(None, "6 image tokens in 2 images"), (0, "1 in a 9×8 image"), (2, "6 image tokens")]
)
def test_image_tokens_with_area_move_and_texts_do_not(still: int | None, said: str) -> None:
    """Three image tokens, the last a newline; one does not change with the first picture."""
    boxes = np.array([[0, 0, 4, 8], [4, 0, 9, 8], [np.nan] * 4])
    tokens = TokenMap(np.arange(3), boxes, None, np.full(3, ""), np.zeros(3, int), ((9, 8),), 5)
    calls = []

    def features(_: Any) -> torch.Tensor:
        calls.append(0)
        moved = torch.tensor([[[0.0, 2]] * 3, [[1.0, 2]] * 3])  # in one of two numbers
        if still is not None and len(calls) == 1:
            moved[1, still] = moved[0, still]
        return moved

    def encode(samples: Any) -> Any:
        first, other = (one.load() for one in samples)
        assert first.size == other.size == (9, 8)
        assert np.any(np.asarray(first) != np.asarray(other))
        return batch_of(tokens, tokens)

    mllm = model_of(
        encode=encode,
        embeddings=lambda _: torch.zeros(2, 5, 1),
        image_features=features,
    )
    found = image_tokens(
        subject_of(mllm=mllm, pictures=[smooth((9, 8), 0)] * 2, picture=staticmethod(smooth))
    )
    assert found.passed is (still != 0)
    assert found.value == (still == 0)
    assert said in found.detail


@pytest.mark.parametrize(
    ("dtype", "exact", "tolerance"),
    [
        (torch.float64, True, 1e-5),
        (torch.float32, True, 1e-5),
        (torch.float16, False, 2**-7),
        (torch.bfloat16, False, 2**-4),
    ],
)
def test_half_precision_is_judged_by_its_epsilon(dtype, exact, tolerance) -> None:
    subject = subject_of(mllm=model_of(dtype=dtype))
    assert (subject.exact, subject.tolerance) == (exact, tolerance)


def test_three_samples_differ_in_length_and_question() -> None:
    """More image tokens come with a longer question; one picture alone is shown three times."""
    mllm = model_of(encode=lambda sample: SimpleNamespace(tokens=[SimpleNamespace(n=sample.load().width)]))
    three = [smooth((width, 8), 0) for width in (30, 10, 20, 5)]
    for given, widths in ((three, [10, 20, 30]), (three[:1], [30] * 3), (three[:2], [10, 30, 30])):
        made = subject_of(mllm=mllm, given=tuple(given)).samples
        assert [one.load().width for one in made] == widths
        lengths = [len(one.question) for one in made]
        assert lengths == sorted(set(lengths))


def test_pictures_have_cells_of_ten_pixels_or_twenty() -> None:
    """Cells of a picture of 256×256 are 32 px wide, the narrowest: 80 is too small; trained, 160."""
    for trained, width, side in ((False, 32, 97), (False, 16, 161), (True, 32, 161), (True, 2, 641)):
        boxes = np.array([[0, 0, width, 9], [0, 0, 200, 9], [np.nan] * 4])
        tokens = TokenMap(np.arange(3), boxes, None, np.full(3, ""), np.zeros(3, int), ((256, 256),), 3)
        mllm = seeing(tokens)
        found = subject_of(mllm=mllm, given=(), trained=trained).pictures
        assert len(found) == 4
        assert found[0].shape == (side, side, 3)


def test_photographs_differ_by_seed_and_fit_the_size() -> None:
    found = [photo((60, 40), seed) for seed in (0, 0, 1, 2)]
    assert {one.shape for one in found} == {(40, 60, 3)}
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[3])
    assert (
        min(one.std(axis=(0, 1)).max() for one in found) > 5
    )  # a piece with something to see, not one pixel


def test_paint_may_fill_a_picture_and_no_more() -> None:
    picture = np.full((6, 8, 3), 127, np.uint8)
    assert (repainted(picture, (0, 0, 8, 6)) == 255).all()
    for box in ((0, 0, 9, 6), (0, 0, 8, 7), (-1, 0, 8, 6), (0, -1, 8, 6), (3, 0, 3, 6), (0, 4, 8, 4)):
        with pytest.raises(ModelError, match="outside its image of 8×6"):
            repainted(picture, box)
