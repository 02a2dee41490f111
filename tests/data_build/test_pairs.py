"""Which structures are asked about, what is asked, and in which order: by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.data_build.pairs import Settings, Target, asked, chosen, targets
from interp.inputs.images import LazyImage
from interp.inputs.sample import Sample

PICTURE = np.zeros((100, 100), np.uint8)


def boxed(*boxes: Any, label: str = "cyst", image: Any = PICTURE, **fields: Any) -> Sample:
    return Sample(image, "?", boxes=list(boxes), meta={"label": label, **fields.pop("meta", {})}, **fields)


def masked(*corners: tuple[int, int, int, int], label: str = "cyst") -> Sample:
    """A sample with one mask for each rectangle."""
    masks = []
    for x0, y0, x1, y1 in corners:
        masks.append(np.zeros((100, 100), np.uint8))
        masks[-1][y0:y1, x0:x1] = 1
    return Sample(PICTURE, "?", masks=masks, meta={"label": label})


def found(*samples: Sample, **rules: Any) -> tuple[list[Target], dict[str, int]]:
    dropped: Counter[str] = Counter()
    return targets(samples, Settings(**rules), dropped), dict(dropped)


@pytest.mark.parametrize(("stray", "kept"), [(20, True), (21, False)])
def test_the_largest_box_stands_for_all_from_its_share_on(stray: int, kept: bool) -> None:
    made, dropped = found(boxed((90, 90, 90 + stray / 10, 100), (0, 0, 8, 10)), area=(0.0, 1.0))
    assert [one.box for one in made] == ([(0, 0, 8, 10)] if kept else [])
    assert dropped == ({} if kept else {"in several pieces": 1})


def test_a_box_that_comes_twice_counts_once() -> None:
    made, dropped = found(boxed((0, 0, 20, 20)), boxed((0, 0, 20, 20), label="cyst"))
    assert ([one.box for one in made], dropped) == ([(0, 0, 20, 20)], {})


def test_masks_of_all_samples_of_a_label_are_joined() -> None:
    made, _ = found(masked((10, 10, 20, 40)), masked((20, 10, 40, 40)))
    assert [one.box for one in made] == [(10, 10, 40, 40)]
    assert made[0].known.fraction == pytest.approx(0.09)
    assert made[0].known.outline == "round"
    small, _ = found(masked((10, 10, 40, 40), (90, 90, 95, 95)))
    assert [(one.box, one.known.outline) for one in small] == [((10, 10, 40, 40), "round")]


@pytest.mark.parametrize(
    ("side", "outcome"), [(9, "box too small"), (10, None), (50, None), (51, "box too large")]
)
def test_both_limits_of_the_area_belong_to_it(side: int, outcome: str | None) -> None:
    made, dropped = found(boxed((0, 0, side, side)), area=(0.01, 0.25))
    assert (len(made), dropped) == ((1, {}) if outcome is None else (0, {outcome: 1}))


def test_only_the_kinds_of_the_settings_make_an_attribute_clear() -> None:
    medium = boxed((0, 0, 25, 25))  # neither small nor large, but a cyst is abnormal
    assert len(found(medium)[0]) == 1
    assert found(medium, attribute=("size",))[1] == {"no attribute has a clear answer": 1}


def test_pictures_are_told_apart_by_their_files_or_content(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(PICTURE).save(tmp_path / folder / "x.png")
    small = (0, 0, 12, 12)
    paths = [boxed(small, image=str(tmp_path / one / "x.png")) for one in ("a", "b", "a")]
    assert [one.picture for one in found(*paths)[0]] == [0, 1]
    held = [
        boxed(small, image=PICTURE.copy()),
        boxed(small, image=PICTURE.copy()),
        boxed(small, image=PICTURE + 1),
    ]
    assert [one.picture for one in found(*held)[0]] == [0, 1]
    lazy = LazyImage(lambda: Image.fromarray(PICTURE), "slice", (100, 100))
    both = [boxed(small, image=lazy), boxed((0, 0, 30, 30), image=lazy, label="liver")]
    assert [(one.picture, one.known.label) for one in found(*both)[0]] == [(0, "cyst"), (0, "liver")]


def test_what_is_present_without_a_sample_is_not_absent() -> None:
    first = boxed((0, 0, 12, 12), meta={"present": ["cyst", "spleen_left"]})
    other = boxed((0, 0, 30, 30), label="spleen left", image=PICTURE + 1)
    third = boxed((0, 0, 30, 30), label="liver", image=PICTURE + 2, meta={"present": ["never asked"]})
    made, _ = found(first, other, third, complete=True)
    assert [one.known.away for one in made] == [("liver",), ("cyst", "liver"), ("cyst", "spleen left")]
    assert {one.known.away for one in found(first, other, third)[0]} == {()}


def many(n: int = 12) -> list[Target]:
    """Small round cysts, of which size, shape and abnormality can be asked."""
    made, _ = found(*(masked((10, 10, 28, 28)).replace(image=PICTURE + i) for i in range(n)))
    return made


def test_kinds_take_turns_and_pairs_keep_the_reading_order() -> None:
    listed = many()
    settings = Settings(seed=1)
    order = chosen(listed, settings, Counter())
    pairs = asked(listed, order, settings)
    assert sorted(order) == list(range(12)) != order
    assert [pair.target.picture for pair in pairs] == list(range(12))
    assert Counter(pair.attribute.about for pair in pairs) == {"size": 4, "shape": 4, "abnormality": 4}
    other = Settings(seed=2)
    again = asked(listed, chosen(listed, other, Counter()), other)
    assert [pair.attribute.about for pair in again] != [pair.attribute.about for pair in pairs]


def test_a_draw_is_even_over_regions_and_counts_the_rest() -> None:
    regions = ["Thorax"] * 8 + ["Abdomen"] * 2
    listed = [
        boxed((0, 0, 12, 12), image=PICTURE + i, meta={"modality": "CT", "region": region}, group=f"g{i % 4}")
        for i, region in enumerate(regions)
    ]
    made, _ = found(*listed)
    dropped: Counter[str] = Counter()
    order = chosen(made, Settings(n=6, seed=3), dropped)
    assert Counter(regions[i] for i in order) == {"Thorax": 4, "Abdomen": 2}
    assert len({made[i].sample.group for i in order if regions[i] == "Thorax"}) == 4
    assert dropped == {"not drawn": 4}
    orders = {tuple(chosen(made, Settings(n=6, seed=seed), Counter())) for seed in range(5)}
    assert len(orders) > 1


def test_numbers_of_numpy_become_plain(unchecked: None) -> None:
    given: Any = {
        "n": np.int64(3),
        "seed": np.int64(4),
        "share": np.float64(0.5),
        "area": [np.float64(0.1), 1],
    }
    rules = Settings(**given)
    assert [type(one) for one in (rules.n, rules.seed, rules.share, *rules.area)] == [
        int,
        int,
        float,
        float,
        float,
    ]
    assert isinstance(rules.area, tuple)


def test_the_seed_decides_between_kinds_that_were_used_alike() -> None:
    listed = many()
    told = {
        tuple(pair.attribute.about for pair in asked(listed, list(range(12)), Settings(seed=seed)))
        for seed in range(4)
    }
    assert len(told) > 1
