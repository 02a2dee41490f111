from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.inputs.footprints import squash
from interp.inputs.masks import Mask
from interp.inputs.sample import Box, Sample
from interp.study.baselines import (
    _joined,
    centre_prior,
    has_one_image,
    moved_boxes,
    moved_masks,
    partners,
    with_image_of,
)


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=40), st.integers(0, 5))
def test_each_sample_borrows_outside_its_group(groups: list[str], seed: int) -> None:
    found = partners(groups, [True] * len(groups), seed=seed)
    assert all(partner != index for index, partner in enumerate(found))
    if len(set(groups)) > 1:
        assert all(groups[int(partner)] != groups[index] for index, partner in enumerate(found))
    if max(groups.count(group) for group in groups) <= len(groups) // 2 or len(set(groups)) == 1:
        assert sorted(map(int, found)) == list(range(len(groups)))


def test_nobody_borrows_from_the_same_picture() -> None:
    groups = ["a", "b", "c", "d", "e", "f"]
    shown = [["1"], ["1", "2"], ["2"], ["3"], ["4"], ["5"]]  # a, b and c are joined by pictures 1 and 2
    for seed in range(20):
        found = partners(groups, [True] * 6, shown, seed=seed)
        assert {int(found[index]) for index in (0, 1, 2)} == {3, 4, 5}
        assert sorted(map(int, found)) == list(range(6))


def test_a_picture_alone_has_no_boxes_to_borrow() -> None:
    assert partners(["a", "b", "c"], [True] * 3, [["1"]] * 3) == (None,) * 3
    assert partners(["a"] * 3, [True] * 3, [["1"], ["1"], ["2"]])[:2] == (2, 2)


@pytest.mark.parametrize("groups", [["b", "a"], ["a", "b"]])
def test_joined_groups_have_the_first_of_their_names(groups: list[str]) -> None:
    assert _joined([*groups, "0"], [["1"], ["1"], ["2"]]) == ["a", "a", "0"]


def test_joined_groups_borrow_where_nothing_is_shared() -> None:
    found = partners(["a", "b", "c"], [True] * 3, [["1"], ["1", "2"], ["2"]])
    assert found == (2, None, 0)


def test_unusable_samples_neither_lend_nor_borrow() -> None:
    found = partners(["a", "b", "c", "d"], [True, False, True, True])
    assert found[1] is None
    assert {found[0], found[2], found[3]} == {0, 2, 3}


def test_one_usable_sample_has_nobody_to_borrow_from() -> None:
    assert partners(["a", "b"], [True, False]) == (None, None)
    assert partners([], []) == ()


def test_the_seed_decides_who_lends() -> None:
    groups = [f"g{index}" for index in range(20)]
    assert partners(groups, [True] * 20, seed=1) == partners(groups, [True] * 20, seed=1)
    assert partners(groups, [True] * 20, seed=1) != partners(groups, [True] * 20, seed=2)


def test_of_single_samples_each_borrows_from_the_next() -> None:
    """m is 1, so the way from borrower to lender leads through all of them."""
    found = partners(list("abcdef"), [True] * 6, seed=3)
    way = [0]
    while (lender := int(found[way[-1]])) != 0:
        way.append(lender)
    assert sorted(way) == list(range(6))


class Hashed(str):
    """A name with a hash of its own, as the same name has in another process."""

    def __new__(cls, name: str, salt: int) -> Hashed:
        made = super().__new__(cls, name)
        made.salt = salt
        return made

    def __hash__(self) -> int:
        return hash((self.salt, str(self)))


def test_who_lends_is_the_same_in_every_process() -> None:
    names = [f"g{i}" for i in range(12)]
    found = {partners([Hashed(name, salt) for name in names], [True] * 12, seed=5) for salt in range(4)}
    assert found == {partners(names, [True] * 12, seed=5)}


def test_a_moved_box_keeps_its_relative_place() -> None:
    moved = moved_boxes([Box(10, 20, 30, 40)], [(100, 80)], [(50, 160)])
    assert moved == (Box(5, 40, 15, 80),)
    (tiny,) = moved_boxes([Box(0, 0, 2, 2)], [(8, 8)], [(4, 4)])
    assert (tiny.as_tuple(), tiny.pixels) == ((0, 0, 1, 1), True)  # one pixel, not the whole image


def test_a_box_of_a_second_image_lands_on_the_last_there_is() -> None:
    boxes = [Box(10, 10, 20, 20, image=1), Box(0, 0, 10, 10)]
    sizes = [(10, 10), (40, 40)]
    assert moved_boxes(boxes, sizes, [(80, 80)]) == (Box(20, 20, 40, 40, image=0), Box(0, 0, 80, 80))
    assert moved_boxes(boxes, sizes, [(10, 10), (20, 20)])[0] == Box(5, 5, 10, 10, image=1)


def test_the_centre_prior_is_a_gaussian_of_a_quarter_side() -> None:
    footprints = np.array([[40, 30, 60, 50], [65, 30, 85, 50], [40, 50, 60, 70], [np.nan] * 4])
    found = centre_prior(footprints, np.zeros(4, int), [(100, 80)])
    # centres at (0.5, 0.5), (0.75, 0.5), (0.5, 0.75) of the sides: 0, 1 and 1 standard deviations away
    assert found == pytest.approx([1.0, np.exp(-0.5), np.exp(-0.5), 0.0])


def test_the_centre_prior_of_each_image_has_its_own_middle() -> None:
    small, large = squash((30, 30), (3, 3)), squash((300, 90), (3, 3))
    index = np.repeat([0, 1], 9)
    found = centre_prior(np.concatenate([small.boxes, large.boxes]), index, [(30, 30), (300, 90)])
    assert found[:9] == pytest.approx(found[9:])
    assert found[4] == found[:9].max() == 1.0


def test_a_moved_box_of_a_video_is_of_its_frame() -> None:
    boxes = [Box(1, 1, 2, 2, image=1), Box(1, 1, 2, 2, image=3)]
    moved = moved_boxes(boxes, [(4, 4)] * 4, [(4, 4)] * 3, video=True)
    assert [(box.image, box.frame) for box in moved] == [(1, 1), (2, 2)]
    assert moved_boxes(boxes, [(4, 4)] * 4, [(4, 4)] * 3)[0].frame is None


def test_a_moved_mask_stays_on_its_image() -> None:
    mask = Mask(np.ones((2, 2), np.uint8), image=1)
    (moved,) = moved_masks([mask], [(4, 4), (8, 2)])
    assert (moved.image, moved.inside.shape) == (1, (2, 8))
    both = moved_masks([mask, Mask(np.eye(2, dtype=np.uint8))], [(4, 4), (8, 2)])
    assert [(one.image, int(one.inside.sum())) for one in both] == [(1, 16), (0, 8)]
    (alone,) = moved_masks([mask], [(4, 6)])
    assert (alone.image, alone.inside.shape) == (0, (6, 4))


def test_a_borrowed_image_brings_no_boxes_of_the_borrower() -> None:
    own, other = (np.full((8, 8, 3), shade, np.uint8) for shade in (1, 2))
    sample = Sample(own, "where?", boxes=[(1, 1, 4, 4)], answer="left", group="g", id="one")
    lender = Sample(other, "what?", boxes=[(2, 2, 4, 4)], answer="right", id="two")
    found = with_image_of(sample, lender)
    assert (found.question, found.answer, found.boxes, found.masks) == ("where?", "left", (), ())
    assert found.group != "g"
    assert found.id != "one"
    assert np.asarray(found.load()).max() == 2
    assert has_one_image(found)
    assert not has_one_image(Sample(images=[own, other], question="?"))
