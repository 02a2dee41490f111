"""Templates of questions, the outline of masks, and the even draw."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from interp.data import build
from interp.data.build import ATTRIBUTE, LOCALIZATION, Question, Structure
from interp.inputs.sample import Sample

ROWS, COLUMNS = np.mgrid[:80, :80] - 40.0


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.hypot(ROWS, COLUMNS) < 20, "round"),
        ((abs(ROWS) < 15) & (abs(COLUMNS) < 15), "round"),
        (np.hypot(ROWS / 2.5, COLUMNS) < 10, "elongated"),
        (np.hypot(ROWS + COLUMNS, (ROWS - COLUMNS) / 3) < 10, "elongated"),  # across both axes
        (np.hypot(ROWS / 1.6, COLUMNS) < 12, None),  # in between
        (abs(np.hypot(ROWS, COLUMNS) - 20) < 4, None),  # a ring is not round
        (ROWS > 99, None),
    ],
    ids=["disc", "square", "upright", "diagonal", "between", "ring", "empty"],
)
def test_outline_is_clear_or_not_given(mask: np.ndarray, expected: str | None) -> None:
    assert build.outline(mask) == expected


def test_questions_about_a_structure() -> None:
    tumor = Structure("liver tumor", 0.02, "round", ("spleen",))
    assert [ask(tumor) for ask in ATTRIBUTE.values()] == [
        Question("attribute", "What size is the liver tumor, small or large?", "small", "size", ("small", "large")),
        Question(
            "attribute", "What shape is the liver tumor, round or elongated?", "round", "shape", ("round", "elongated")
        ),
        Question(
            "attribute",
            "Is the liver tumor normal or abnormal tissue?",
            "abnormal",
            "abnormality",
            ("normal", "abnormal"),
        ),
    ]  # fmt: skip
    identity = LOCALIZATION["identity"](tumor)
    assert identity is not None
    assert identity.answer == "liver tumor"
    assert set(identity.options) == {"liver tumor", "spleen"}
    unclear = Structure("liver", 0.06)
    assert [ask(unclear) for ask in ATTRIBUTE.values()] == [None, None, None]
    assert LOCALIZATION["identity"](unclear) is None


def test_the_first_choice_is_not_always_the_answer() -> None:
    labels = [f"organ {i}" for i in range(40)]
    asked = [
        LOCALIZATION["identity"](Structure(label, 0.1, None, labels[:i] + labels[i + 1 :]))
        for i, label in enumerate(labels)
    ]
    first = sum(question is not None and question.options[0] == question.answer for question in asked)
    assert 8 < first < 32


def test_the_draw_is_even_over_strata_and_labels() -> None:
    levels = [("CT", "liver")] * 50 + [("CT", "spleen")] * 10 + [("MR", "brain")] * 5
    drawn = build.diverse(levels, 20, seed=1)
    assert len(set(drawn)) == 20
    assert Counter(levels[i] for i in drawn) == {
        ("MR", "brain"): 5,
        ("CT", "liver"): 8,
        ("CT", "spleen"): 7,
    } or (Counter(levels[i] for i in drawn) == {("MR", "brain"): 5, ("CT", "liver"): 7, ("CT", "spleen"): 8})
    assert build.diverse(levels, 20, seed=1) == drawn
    assert build.diverse(levels, 20, seed=2) != drawn
    alike = [("CT", "liver")] * 60
    assert set(build.diverse(alike, 5, seed=1)) != set(build.diverse(alike, 5, seed=2))
    assert sorted(build.diverse(levels)) == list(range(65))
    assert {levels[i][0] for i in build.diverse(levels, 2)} == {"CT", "MR"}


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"modality": "MRI", "label": "left hemisphere"}, ("MR", "Head & neck")),
        ({"modality": "ct", "label": "urinary_bladder"}, ("CT", "Pelvic")),
        ({"modality": "fundus photography", "label": "vessels"}, ("Fundus", "Head & neck")),
        ({"modality": "microscopy", "label": "largest nucleus"}, ("Microscopy", "Others")),
        ({"modality": "CT", "label": "vertebra"}, ("CT", "not stated")),
        ({"modality": "MRI T1", "label": "left kidney"}, ("MR", "Abdomen")),
        ({"label": "x", "region": "pelvic"}, ("not stated", "Pelvic")),
        ({"modality": "dermoscopy", "label": "head"}, ("Dermoscopy", "Skin")),
        ({"modality": "endoscopy", "label": "left kidney"}, ("Endoscopy", "Others")),
    ],
)  # fmt: skip
def test_modality_and_region_in_the_papers_words(meta: dict[str, str], expected: tuple[str, str]) -> None:
    sample = Sample("a.png", "?", meta=meta)
    assert (build.modality(sample), build.body_region(sample)) == expected


def test_the_registry_holds_the_papers_44_sources() -> None:
    assert len(build.SOURCES) == len({one.name for one in build.SOURCES}) == 44
    assert {region for one in build.SOURCES for region in one.regions} == set(build.REGIONS)
    slake = next(one for one in build.SOURCES if one.name == "SLAKE")
    assert slake.modalities == ("CT", "MR", "X-ray")
    assert sum(one.n_samples for one in build.RELATED) == 4370 + 1000 + 81 + 1500 + 2000 + 1000
