"""The third stage: an organism goes on from its weights with more, and more varied, medical lessons.

The same for every seed. CT, MR and microscopy are drawn alike; slices are seen under other contrasts, nuclei turned,
cut, shrunk and in fields; and every second question about presence is about something that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import LlavaProcessor

from interp.data.scenes import TEMPLATES
from interp.organism.augment import viewed
from interp.organism.lessons import (
    ASPECTS,
    Lesson,
    MedicalPicture,
    box_questions,
    inside,
    jitter,
    mirrored_name,
    natural_lesson,
    said,
)
from interp.organism.parts import GRID
from interp.organism.training import MAX_NAMES, Recipe, Trainer
from interp.prompt import GENERIC_PROMPT

__all__ = ["REFINE", "RefineTrainer", "refine_lesson"]

REFINE = Recipe(
    sight_steps=0, natural_steps=0, mixed_steps=300, medical_share=0.625, turns=10, rate=6e-4, warmup=20,
    decay_share=0.5,
)  # fmt: skip
"""Further steps on scenes and medical training slices; `seed` is the organism's."""

BARE = 0.15
"""Of the pictures of a modality that has some without any structure."""
GENERIC, ABSENT = 0.03, 0.25
"""Shares of the turns: the generic prompt, and what is not there. One in three of the rest asks for presence."""


def refine_lesson(
    picture: MedicalPicture, rng: np.random.Generator, n_turns: int, bare_share: float, names: Sequence[str]
) -> Lesson:
    """Returns one view of a slice with `n_turns` turns; the auxiliary task is naming patches."""
    view = viewed(picture, rng)
    pixels, boxes, mirrored = jitter(view.picture, rng)
    found = [(view.field_of or label, box) for label, box in sorted(boxes.items())]
    absent = sorted(mirrored_name(label) if mirrored else label for label in picture.absent)
    shown = np.zeros((GRID * GRID, len(names)), dtype=bool)
    for label, box in found:
        if label in names:
            shown[inside(box), names.index(label)] = True
    turns = [_turn(found, absent, view.field_of is None, rng) for _ in range(n_turns)]
    aspects = np.full((GRID * GRID, len(ASPECTS)), -1, dtype=np.int64)
    return Lesson(pixels, said(turns, rng, bare_share), shown, aspects)


def _turn(
    found: list[tuple[str, tuple[float, float, float, float]]],
    absent: list[str],
    sides: bool,
    rng: np.random.Generator,
) -> tuple[str, str]:
    """Returns one (question, answer)."""
    draw = rng.random()
    if draw < GENERIC or not (found or absent):
        return GENERIC_PROMPT.template, "scan"
    if absent and (draw < GENERIC + ABSENT or not found):
        return TEMPLATES["visible"].format(absent[rng.integers(len(absent))]), "no"
    label, box = found[rng.integers(len(found))]
    choices = [turn for turn in box_questions(label, box) if sides or turn[1] not in ASPECTS["side"]]
    return choices[rng.integers(len(choices))]


class RefineTrainer(Trainer):
    """Goes on from an organism's weights under a recipe of its own."""

    def __init__(self, recipe: Recipe, processor: LlavaProcessor, start: Path) -> None:
        super().__init__(recipe, processor)
        self.start_from(start)

    def lessons(self, step: int) -> list[Lesson]:
        """Returns the lessons of a step, the same for the same seed and step."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, 13, step])
        n_medical = round(recipe.medical_share * recipe.batch)
        lessons = [
            natural_lesson(rng, recipe.turns, recipe.bare_share, MAX_NAMES)
            for _ in range(recipe.batch - n_medical)
        ]
        padded = [*self.names, *[""] * (MAX_NAMES - len(self.names))]
        for _ in range(n_medical):
            picture = self.draw(rng)
            lessons.append(refine_lesson(picture, rng, recipe.turns, recipe.bare_share, padded))
        return lessons

    def draw(self, rng: np.random.Generator) -> MedicalPicture:
        """Returns a training slice: each modality as often as the others, tiles that show nothing now and then."""
        kinds = sorted({picture.modality for picture in self.pictures})
        kind = kinds[rng.integers(len(kinds))]
        mine = [picture for picture in self.pictures if picture.modality == kind]
        bare = rng.random() < BARE
        among = [picture for picture in mine if bool(picture.boxes) != bare] or mine
        return among[rng.integers(len(among))]
