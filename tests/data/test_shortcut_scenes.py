from __future__ import annotations

import numpy as np
import pytest

from interp.data.scenes import COLOURS
from interp.data.shortcut_scenes import CORNERS, marked_samples, marked_scenes, random_marked_scene
from interp.errors import DataError


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixels that differ, bool (row, col)."""
    return (a != b).any(-1)


@pytest.mark.parametrize("seed", range(8))
def test_the_marker_is_its_colour_in_a_black_frame_and_alone(seed):
    marked = random_marked_scene(np.random.default_rng(seed))
    x0, y0, x1, y1 = (int(v) for v in marked.box.as_tuple())
    patch = marked.render()[y0:y1, x0:x1]
    assert (patch[4:-4, 4:-4] == COLOURS[marked.colour]).all()
    frame = np.ones(patch.shape[:2], bool)
    frame[4:-4, 4:-4] = False
    assert (patch[frame] == 0).all()
    outside = changed(marked.render(), marked.scene.render())
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    for thing in marked.scene.things:
        box = thing.box
        assert box.x1 <= x0 or box.x0 >= x1 or box.y1 <= y0 or box.y0 >= y1
    assert marked.scene.things


@pytest.mark.parametrize("seed", range(8))
def test_recolouring_changes_the_marker_alone(seed):
    rng = np.random.default_rng(seed)
    marked = random_marked_scene(rng)
    other = marked.recoloured(rng)
    assert other.colour != marked.colour
    where = changed(marked.render(), other.render())
    x0, y0, x1, y1 = (int(v) for v in marked.box.as_tuple())
    assert where[y0:y1, x0:x1].any()
    where[y0:y1, x0:x1] = False
    assert not where.any()


@pytest.mark.parametrize("seed", range(8))
def test_changing_all_else_keeps_the_marker(seed):
    rng = np.random.default_rng(seed)
    marked = random_marked_scene(rng)
    thing = marked.scene.things[0]
    other = marked.elsewhere_changed(thing.shape, rng)
    x0, y0, x1, y1 = (int(v) for v in marked.box.as_tuple())
    where = changed(marked.render(), other.render())
    assert not where[y0:y1, x0:x1].any()
    assert where.mean() > 0.5
    moved = other.scene.find(thing.shape)
    assert moved.box == thing.box
    assert moved.colour != thing.colour
    assert len({t.shape for t in other.scene.things}) == len(other.scene.things)


def test_marker_and_object_differ_and_every_corner_occurs():
    samples = marked_samples("test", 80)
    assert all(sample.answer != sample.meta["marker_answer"] for sample in samples)
    assert {tuple(sample.meta["marker"][:2]) for sample in samples} == set(CORNERS.values())
    assert {sample.meta["marker_answer"] for sample in samples} == set(COLOURS)
    assert len({sample.id for sample in samples}) == 80


def test_splits_and_seeds_share_no_scene():
    drawn = [marked_scenes(split, 5, seed) for split, seed in (("test", 0), ("train", 0), ("test", 1))]
    pictures = [marked.render().tobytes() for pairs in drawn for marked, _ in pairs]
    assert len(set(pictures)) == 15
    assert [m.render().tobytes() for m, _ in marked_scenes("test", 5, 0)] == pictures[:5]


@pytest.mark.parametrize(
    ("split", "n", "message"),
    [
        ("dev", 3, r"split must be one of \['test', 'train', 'validation'\], not 'dev'"),
        ("test", 0, "at least 1 scene, not 0"),
    ],
)
def test_wrong_requests_are_explained(split, n, message):
    with pytest.raises(DataError, match=message):
        marked_scenes(split, n)
