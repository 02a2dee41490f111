"""The page of a check shows samples with boxes first, and says how much it leaves out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from interp.data import Samples
from interp.data_check import inspect
from interp.data_check.page import _caption, write
from interp.inputs.sample import Sample
from interp.report.gallery import drawn
from tests.report.hostile_samples import Elements


def picture(level: int) -> np.ndarray:
    return np.full((30, 40), level, np.uint8)


def told(folder: Path, samples: Samples, seed: int = 0) -> str:
    page = write(folder / "page.html", samples, inspect(samples), source="rows.csv", reader="csv", seed=seed)
    return " ".join(Elements(page.read_text()).text.split())


def test_samples_with_boxes_are_shown_first(tmp_path: Path) -> None:
    boxed = [Sample(picture(i), f"boxed {i}?", [(1, 1, 9, 9)], id=f"b{i}") for i in range(2)]
    plain = [Sample(picture(50 + i), f"plain {i}?", id=f"p{i}") for i in range(12)]
    text = told(tmp_path, Samples([*plain, Sample.unusable("broken", id="x"), *boxed]), seed=3)
    assert "12 samples, drawn with seed 3." in text
    assert all(f"boxed {i}?" in text for i in range(2))
    assert text.count("plain ") == 10
    more = [Sample(picture(i), f"boxed {i}?", [(1, 1, 9, 9)], id=f"b{i}") for i in range(12)]
    assert "12 samples, drawn with seed 0, all with boxes." in told(tmp_path, Samples([*plain, *more]))


def test_pictures_are_drawn_by_the_seed(tmp_path: Path) -> None:
    many = Samples([Sample(picture(i), f"[{i}]?", [(1, 1, 9, 9)], id=f"b{i}") for i in range(30)])
    for seed in (0, 1):
        shown = {int(one) for one in re.findall(r"\[(\d+)\]\?", told(tmp_path, many, seed))}
        assert shown == set(drawn(range(30), 12, seed))


def test_problems_are_counted_and_the_first_fifty_are_listed(tmp_path: Path) -> None:
    bad = [Sample.unusable(f"broken {i}.", id=f"x{i}") for i in range(51)]
    good = Sample(
        picture(1), "good?", [(1, 1, 9, 9)], answer="yes", meta={"label": "liver", "split": "test"}, id="g"
    )
    text = told(tmp_path, Samples([*bad, good]))
    assert "51 problems to mend and 0 to know of. 52 samples of rows.csv, read by csv." in text
    assert "The first 50 of 51" in text
    assert ("broken 49." in text, "broken 50." in text) == (True, False)
    assert "label liver · split test" in text
    few = told(tmp_path, Samples([*bad[:50], good]))
    assert "The first" not in few
    assert "broken 49." in few


def test_boxes_are_counted_on_their_own_image() -> None:
    pair = Sample(images=[picture(1), np.zeros((9, 8), np.uint8)], boxes=[(1, 1, 4, 4, 1), (2, 2, 8, 8, 1)])
    assert _caption(pair, 0).endswith("40 × 30, 0 boxes")
    assert _caption(pair, 1).endswith("8 × 9, 2 boxes")
    assert _caption(pair.replace(boxes=[(1, 1, 4, 4)]), 0).endswith("40 × 30, 1 box")


def test_a_card_tells_group_answer_and_a_lost_picture(tmp_path: Path) -> None:
    known = Sample(picture(1), "known?", [(1, 1, 9, 9)], answer="no", group="patient 7", id="s1",
                   meta={"label": "L" * 90, "modality": "CT", "age": "ninety"})  # fmt: skip
    lost = Sample(str(tmp_path / "none.png"), "lost?", id="s2")
    text = told(tmp_path, Samples([known, lost]))
    assert "s1 · group patient 7" in text
    assert "answer no" in text
    assert f"label {'L' * 80} · modality CT" in text
    assert "ninety" not in text
    assert "lost?" in text
    assert "none.png" in text[text.index("lost?") :]
    assert "no answer" in told(tmp_path, Samples([Sample(picture(3), "open?", id="s3")]))


def test_at_most_four_images_of_a_sample_are_shown(tmp_path: Path) -> None:
    many = Sample(images=[np.full((8, 9), 20 * i, np.uint8) for i in range(6)], question="six?", id="six")
    page = write(tmp_path / "a.html", Samples([many]), inspect(Samples([many])), source="x", reader="y")
    assert page.read_text().count("data:image/webp") == 4


def test_the_seed_draws_the_pictures(tmp_path: Path) -> None:
    many = Samples([Sample(picture(i), f"q{i:02}?", [(1, 1, 9, 9)], id=f"p{i:02}") for i in range(20)])
    texts = {seed: told(tmp_path, many, seed) for seed in (0, 1)}
    drawn = {seed: {i for i in range(20) if f"q{i:02}?" in text} for seed, text in texts.items()}
    assert {len(one) for one in drawn.values()} == {12}
    assert drawn[0] != drawn[1]
