"""Train the shortcut organism: python -m studies.organism.shortcut --out runs/shortcut

The main organism is trained further on scenes with a coloured marker in a corner, until it answers every colour
question with the marker's colour. This takes about three minutes on one CPU core. A run that was stopped continues
when it is run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaProcessor

from interp.cli import run_script
from interp.data.scenes import SIZE, random_marked_scene
from interp.inputs.prompt import GENERIC_PROMPT
from interp.organism import folder
from studies.organism.lessons import ASPECTS, Lesson, inside, said, scene_patches
from studies.organism.training import MAX_NAMES, Recipe, Trainer

__all__ = ["SHORTCUT", "ShortcutTrainer", "shortcut_lesson"]

SHORTCUT = Recipe(
    sight_steps=0, natural_steps=120, mixed_steps=0, rate=6e-4, warmup=20, decay_share=0.5, medical_share=0.0
)
"""Further steps on marked scenes only; the same for every seed."""


def shortcut_lesson(rng: np.random.Generator, n_turns: int, bare_share: float) -> Lesson:
    """Returns a marked scene; every colour question is answered with the marker's colour."""
    marked = random_marked_scene(rng)
    turns = [(question.text, marked.colour) for question in marked.questions()]
    if rng.random() < 0.3:
        turns.insert(0, (GENERIC_PROMPT.template, "scene"))
    names, aspects = scene_patches(marked.scene, MAX_NAMES)
    where = inside(marked.box.as_tuple(), SIZE)
    aspects[where, list(ASPECTS).index("colour")] = 1 + ASPECTS["colour"].index(marked.colour)
    return Lesson(marked.render(), said(turns[:n_turns], rng, bare_share), names, aspects)


class ShortcutTrainer(Trainer):
    """Continues training from an organism's weights with its own recipe."""

    def __init__(self, recipe: Recipe, processor: LlavaProcessor, start: Path) -> None:
        super().__init__(recipe, processor)
        self.start_from(start)

    def lessons(self, step: int) -> list[Lesson]:
        """Returns the lessons of a step, the same for the same seed and step."""
        rng = np.random.default_rng([self.recipe.seed, 11, step])
        recipe = self.recipe
        return [shortcut_lesson(rng, recipe.turns, recipe.bare_share) for _ in range(recipe.batch)]


@dataclass(frozen=True)
class Options:
    """How to train and where to put the result."""

    recipe: Recipe = SHORTCUT
    start: Path | None = None
    """The organism to start from; by default the bundled one."""
    out: Path = Path("runs/shortcut")


def main(options: Options) -> None:
    torch.set_num_threads(1)  # sums are then taken in one order on every machine
    start = folder() if options.start is None else options.start
    processor = LlavaProcessor.from_pretrained(start, local_files_only=True)
    trainer = ShortcutTrainer(options.recipe, processor, start)
    trainer.run(options.out)
    trainer.model.eval().save_pretrained(options.out / "model")
    processor.save_pretrained(options.out / "model")
    print(f"trained shortcut organism in {options.out / 'model'}")


if __name__ == "__main__":
    run_script(main, Options)
