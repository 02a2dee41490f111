"""The later stages of an organism's training, each from the half-precision weights of the one before:

    python studies/organism/refine.py third --recipe.seed 1 --start WEIGHTS
    python studies/organism/refine.py fourth --recipe.seed 1 --start WEIGHTS

The third goes on from what studies/organism/train.py ends in, on scenes and on the medical training slices, the
balanced ones among them; the fourth adds drawn nuclei. 12 and 6 minutes on one free CPU core. Stop one and run it
again: it goes on. The environment in studies/organism/train.py's docstring spares the allocator here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from transformers import LlavaProcessor

from interp.data import bundled
from studies.organism.lessons import medical_pictures
from studies.organism.refine import NUCLEI, REFINE, RefineTrainer
from studies.organism.training import Recipe


@dataclass(frozen=True)
class Options:
    """What to go on from, how, and where to put the result."""

    start: Path
    """A folder with an organism's weights."""
    recipe: Recipe
    out: Path = Path("runs/refined")
    until: int | None = None
    """Stop after this step; run again to go on."""


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
