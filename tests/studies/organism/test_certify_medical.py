"""The table of medical answers against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

import interp
from studies.organism import certify_medical


def sides(answers: str, modality: str, group: str) -> list[interp.Sample]:
    return [
        interp.Sample(
            image=np.zeros((4, 4, 3), np.uint8),
            question="Which side is the liver on?",
            answer={"l": "left", "r": "right"}[letter],
            group=group,
            id=f"{group}{k}",
            meta={"modality": modality},
        )
        for k, letter in enumerate(answers)
    ]


def test_shares_intervals_and_baselines() -> None:
    samples = sides("lllllrrr", "CT", "a") + sides("llrr", "MR", "b") + sides("llll", "MR", "c")
    right = np.array([True] * 8 + [True, True, False, False] + [False] * 4)
    said = np.array([1, 1, 1, 1, 1, 2, 2, 2] + [1] * 4 + [2] * 4)
    found = certify_medical.table("toy", samples, right, said).set_index("of")
    assert list(found.index) == ["CT", "MR", "b", "c"]
    assert found.loc["CT", "right"] == 1
    assert found.loc["CT", "low"] == pytest.approx(0.025 ** (1 / 8))  # all of n right
    assert found.loc["c", "high"] == pytest.approx(1 - 0.025 ** (1 / 4))  # none of n
    assert found.loc["CT", "most frequent"] == pytest.approx(5 / 8)
    assert found.loc["CT", "name alone"] == pytest.approx(5 / 8)  # in training the liver is on the left
    assert found.loc["CT", "said most"] == pytest.approx(5 / 8)
    assert found.loc["CT", "above chance"]
    assert found.loc["CT", "above most frequent"]  # 0.631 against 0.625
    assert found.loc["MR", "volumes"] == 2
    assert found.loc["MR", "n"] == found.loc["b", "n"] + found.loc["c", "n"]
    assert not found.loc["MR", "above chance"]
    assert not found.loc["c", "above most frequent"]


def test_what_is_asked_covers_every_set() -> None:
    found = certify_medical.sets()
    assert len(found["medical"]) == 718
    assert {certify_medical.asked(s) for s in found["balanced"]} == {"side", "size", "visible"}
    mirrored = found["with its mirror image"]
    assert len(mirrored) == 2 * len({s.id.removesuffix(":mirrored") for s in mirrored})
    answers = [s.answer for s in mirrored]
    assert answers.count("left") == answers.count("right")
    assert not any({"left", "right"} & set(s.question.split()) for s in mirrored)
