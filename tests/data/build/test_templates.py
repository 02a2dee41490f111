"""Templates of questions, the outline of masks, and the even draw."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from interp.data import build
from interp.data.build import ATTRIBUTE, LOCALIZATION, Question, Structure
from interp.data.build.sources import shares_of, shares_of_sources
from interp.data.samples import Samples
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


def test_shares_are_of_all_samples_and_the_largest_comes_first() -> None:
    about = [("CT", "liver")] * 2 + [("MR", "spleen")] + [("CT", "x")]
    samples = Samples([Sample("a.png", "?", meta={"modality": one, "label": label}) for one, label in about])
    found = shares_of(samples, "mine")
    assert found.to_numpy().tolist() == [
        ["mine", "modality", "CT", 3, 0.75],
        ["mine", "modality", "MR", 1, 0.25],
        ["mine", "region", "Abdomen", 3, 0.75],
        ["mine", "region", "not stated", 1, 0.25],
    ]


def test_shares_of_the_papers_sets_add_up_to_one() -> None:
    found = shares_of_sources()
    assert found.groupby("of").share.sum().tolist() == pytest.approx([1, 1])
    ct = found[(found.of == "modality") & (found.value == "CT")].iloc[0]
    own = [one for one in build.SOURCES if "CT" in one.modalities]
    assert ct.n == len(own)
    assert ct.share == pytest.approx(sum(1 / len(one.modalities) for one in own) / 44)
    assert found.share[found.of == "region"].is_monotonic_decreasing


def test_the_other_choice_is_one_that_is_away() -> None:
    away = [f"organ {i}" for i in range(6)]
    others = set()
    for i in range(30):
        question = LOCALIZATION["identity"](Structure(f"label {i}", 0.1, None, away))
        assert question is not None
        (other,) = set(question.options) - {f"label {i}"}
        others.add(other)
        assert (
            question.text
            == f"Which of these is visible: the {question.options[0]} or the {question.options[1]}?"
        )
    assert others == set(away)


def test_finer_levels_are_even_within_coarser_ones() -> None:
    levels = [("CT", "liver", "p1")] * 9 + [("CT", "liver", "p2")] * 9 + [("CT", "spleen", "p1")] * 9
    drawn = [levels[i] for i in build.diverse(levels, 12, seed=4)]
    assert Counter(label for _, label, _ in drawn) == {"liver": 6, "spleen": 6}
    assert Counter(group for _, label, group in drawn if label == "liver") == {"p1": 3, "p2": 3}
    assert build.diverse(levels, 99) == build.diverse(levels)
    assert build.diverse([], 3) == []
