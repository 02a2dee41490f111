"""Train the third and the fourth stage of an organism, each from the half-precision weights of the one before:

    python -m studies.organism.refine third --recipe.seed 1 --start WEIGHTS
    python -m studies.organism.refine fourth --recipe.seed 1 --start WEIGHTS

The third stage starts from the weights that `studies.organism.train` ends with. It trains on scenes and on the
medical training slices, the balanced ones included; the fourth stage adds drawn nuclei. They take 12 and 6 minutes on
one free CPU core. A stage that was stopped continues when it is run again. The allocator settings in the docstring of
`studies/organism/train.py` help here too.

The recipe is the same for every seed. CT, MR and microscopy are drawn equally often. Slices are shown with other
contrasts; nuclei are turned, cut, shrunk and placed in fields. For each picture, every kind of question and every
answer that it allows is equally frequent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from transformers import LlavaProcessor

from interp.data import bundled
from interp.data.scenes import TEMPLATES
from interp.inputs.prompt import GENERIC_PROMPT
from interp.organism.parts import GRID
from studies.organism.augment import viewed
from studies.organism.lessons import (
    ASPECTS,
    Lesson,
    MedicalPicture,
    box_questions,
    inside,
    jitter,
    medical_pictures,
    mirrored_name,
    natural_lesson,
    said,
)
from studies.organism.training import MAX_NAMES, Recipe, Trainer

__all__ = ["NUCLEI", "REFINE", "RefineTrainer", "refine_lesson"]

REFINE = Recipe(
    sight_steps=0, natural_steps=0, mixed_steps=300, medical_share=0.625, turns=10, rate=6e-4, warmup=20,
    decay_share=0.25,
)  # fmt: skip
"""The third stage: further steps on scenes and medical training slices; `seed` is the organism's."""

NUCLEI = replace(REFINE, mixed_steps=160, medical_share=0.5, rate=5e-4, decay_share=0.5, drawn_share=0.75)
"""The fourth stage: fewer steps and a lower rate; most nuclei are drawn, and more of the batch is scenes."""

BARE = 0.15
"""Share of empty pictures in a modality that has some."""
GENERIC, ABSENT = 0.03, 0.25
"""Shares of the turns with the generic prompt and about absent structures; the rest is presence, side and size."""


def refine_lesson(
    picture: MedicalPicture, rng: np.random.Generator, n_turns: int, bare_share: float, names: Sequence[str],
    drawn_share: float = 0.0,
) -> Lesson:  # fmt: skip
    """Returns one view of a slice with `n_turns` turns; the auxiliary task is naming patches."""
    view = viewed(picture, rng, drawn_share)
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
    """Returns one (question, answer); each kind of question and then each possible answer is equally frequent."""
    draw = rng.random()
    if draw < GENERIC or not (found or absent):
        return GENERIC_PROMPT.template, "scan"
    if absent and (draw < GENERIC + ABSENT or not found):
        return TEMPLATES["visible"].format(absent[rng.integers(len(absent))]), "no"
    asked = [turn for label, box in found for turn in box_questions(label, box)]
    asked = [turn for turn in asked if sides or turn[1] not in ASPECTS["side"]]
    for key in (lambda turn: turn[0].split()[0], lambda turn: turn[1], lambda turn: turn[0]):
        values = sorted({key(turn) for turn in asked})
        value = values[rng.integers(len(values))]
        asked = [turn for turn in asked if key(turn) == value]
    return asked[0]


def widened(pictures: Sequence[MedicalPicture]) -> list[MedicalPicture]:
    """Returns the pictures, those of MR and microscopy with every name known to be absent from all of its modality.

    The rows of a slice name only two or three absent structures, which the model would memorise per picture. CT slices
    show different parts of a body, so absence in one slice says nothing about another. Questions on an empty tile name
    only what other tiles show.
    """
    named: dict[str, set[str]] = {}
    shown: dict[str, set[str]] = {}
    for picture in pictures:
        named.setdefault(picture.modality, set()).update(picture.absent)
        shown.setdefault(picture.modality, set()).update(picture.boxes)
    return [
        picture
        if picture.modality == "CT" or not picture.boxes
        else replace(picture, absent=picture.absent | (named[picture.modality] - shown[picture.modality]))
        for picture in pictures
    ]


class RefineTrainer(Trainer):
    """Continues training from an organism's weights with its own recipe."""

    def __init__(self, recipe: Recipe, processor: LlavaProcessor, start: Path) -> None:
        super().__init__(recipe, processor)
        self.start_from(start)

    def teach_medical(self, pictures: Sequence[MedicalPicture]) -> None:
        """Adds the medical training slices; see `widened`."""
        super().teach_medical(widened(pictures))

    def lessons(self, step: int) -> list[Lesson]:
        """Returns the lessons of a step, the same for the same seed and step."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, 17 if recipe.drawn_share else 13, step])
        n_medical = round(recipe.medical_share * recipe.batch)
        lessons = [
            natural_lesson(rng, recipe.turns, recipe.bare_share, MAX_NAMES)
            for _ in range(recipe.batch - n_medical)
        ]
        padded = [*self.names, *[""] * (MAX_NAMES - len(self.names))]
        for _ in range(n_medical):
            picture = self.draw(rng)
            lessons.append(
                refine_lesson(picture, rng, recipe.turns, recipe.bare_share, padded, recipe.drawn_share)
            )
        return lessons

    def draw(self, rng: np.random.Generator) -> MedicalPicture:
        """Returns a training slice; all modalities are equally frequent, and a share of the tiles is empty."""
        kinds = sorted({picture.modality for picture in self.pictures})
        kind = kinds[rng.integers(len(kinds))]
        mine = [picture for picture in self.pictures if picture.modality == kind]
        bare = rng.random() < BARE
        among = [picture for picture in mine if bool(picture.boxes) != bare] or mine
        return among[rng.integers(len(among))]


@dataclass(frozen=True)
class Options:
    """The weights to start from, the recipe, and the folder for the result."""

    start: Path
    """A folder with an organism's weights."""
    recipe: Recipe
    out: Path = Path("runs/refined")
    until: int | None = None
    """Stop after this step; run again to continue."""


def main(options: Options) -> None:
    torch.set_num_threads(1)  # sums are then taken in one order on every machine
    processor = LlavaProcessor.from_pretrained(options.start, local_files_only=True)
    trainer = RefineTrainer(options.recipe, processor, options.start)
    samples = [s for name in ("medical", "balanced") for s in bundled(name, split="train")]
    trainer.teach_medical(medical_pictures(samples))
    trainer.run(options.out, until=options.until)
    if trainer.step == options.recipe.steps:
        trainer.model.eval().save_pretrained(options.out / "model")
        processor.save_pretrained(options.out / "model")
        print(f"refined organism in {options.out / 'model'}")


if __name__ == "__main__":
    stages = {
        "third": ("Medical lessons.", Options(tyro.MISSING, REFINE)),
        "fourth": ("The size of nuclei.", Options(tyro.MISSING, NUCLEI)),
    }
    main(tyro.extras.overridable_config_cli(stages))
