"""Drawn nuclei: the box is the largest one's, small and large come alike often, only the fourth stage shows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from interp.data import build
from studies.organism import augment, drawn_nuclei
from studies.organism.augment import viewed
from studies.organism.drawn_nuclei import drawn
from studies.organism.lessons import MedicalPicture
from studies.organism.refine import NUCLEI, REFINE, refine_lesson

pytestmark = pytest.mark.slow

NUCLEUS = "largest nucleus"
REAL = MedicalPicture(
    np.full((96, 96, 3), 20, np.uint8), {NUCLEUS: (0.2, 0.2, 0.5, 0.5)}, {"liver"}, "microscopy"
)


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows the nuclei as evenly lit masks, so that they can be read off the pixels."""
    monkeypatch.setattr(drawn_nuclei, "_lit", lambda light, radius, rng: 255.0 * (light > 0))


def test_the_box_is_the_largest_nucleus_own_by_a_clear_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    plain(monkeypatch)
    others, made = drawn_nuclei._others, []

    def kept(rng, look, radius, largest):
        made.append((largest, others(rng, look, radius, largest)))
        return made[-1][1]

    monkeypatch.setattr(drawn_nuclei, "_others", kept)
    for seed in range(20):
        picture = drawn(REAL, np.random.default_rng(seed))
        largest, rest = made[-1]
        box = tuple(v * drawn_nuclei.SIDE for v in picture.boxes[NUCLEUS])
        assert np.allclose(box, build.box_of(largest))
        assert min(box) > 0
        assert max(box) < drawn_nuclei.SIDE  # whole
        assert all(1.3 * mask.sum() <= largest.sum() for mask in rest)
        assert not any((mask & largest).any() for mask in rest)
        assert np.array_equal(picture.pixels[..., 0] > 0, np.any([largest, *rest], axis=0))
    assert np.mean([len(rest) > 2 for _, rest in made]) > 0.5


def test_small_and_large_are_alike_often_and_as_bright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn_nuclei, "_others", lambda *_: [])  # the slow part
    made = [drawn(REAL, np.random.default_rng([1, seed])) for seed in range(240)]
    shares = np.array([(x1 - x0) * (y1 - y0) for p in made for x0, y0, x1, y1 in p.boxes.values()])
    answers = [build.size(share) for share in shares]
    assert 0.3 < answers.count("small") / len(made) < 0.6
    assert 0.3 < answers.count("large") / len(made) < 0.6
    small = np.array([answer == "small" for answer in answers])
    brightness = np.array([p.pixels.max() for p in made], float)
    assert abs(np.corrcoef(small, brightness)[0, 1]) < 0.25
    assert all(p.absent == {"liver"} and p.modality == "microscopy" for p in made)


def test_nuclei_are_drawn_in_the_fourth_stage_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[MedicalPicture] = []
    monkeypatch.setattr(augment, "drawn", lambda picture, rng: seen.append(picture) or drawn(picture, rng))
    empty, organ = replace(REAL, boxes={}), replace(REAL, modality="CT")
    for picture, share in ((REAL, REFINE.drawn_share), (empty, 1.0), (organ, 1.0)):
        for seed in range(5):
            viewed(picture, np.random.default_rng(seed), share)
    assert not seen
    for seed in range(40):
        viewed(REAL, np.random.default_rng(seed), NUCLEI.drawn_share)
    assert 15 < len(seen) < 33


def test_lessons_on_drawn_nuclei_ask_for_side_size_and_presence() -> None:
    turns = [
        turn
        for seed in range(24)
        for turn in refine_lesson(REAL, np.random.default_rng([2, seed]), 4, 1.0, [NUCLEUS], 1.0).turns
    ]
    assert {"left", "right", "small", "large", "yes", "no"} <= {reply for _, reply in turns}
