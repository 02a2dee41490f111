"""Train the bundled model organism: python -m studies.organism.train --out runs/organism

Under 90 minutes on two CPU cores, one thread used. Stop it at any time and run it again: it goes on from its
checkpoint and ends in the same weights. The bundled main organisms then went on with refine.py.
docs/organism.md says what the result is, what it is not, and how it was certified.
MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_MMAP_THRESHOLD_=2147483648 in the environment spare the allocator (glibc)
from giving memory back at every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

from interp.data import bundled
from interp.organism.parts import build_processor
from studies.organism.lessons import medical_pictures
from studies.organism.training import Recipe, Trainer


@dataclass(frozen=True)
class Options:
    """How to train and where to put the result."""

    recipe: Recipe = field(default_factory=Recipe)
    out: Path = Path("runs/organism")
    until: int | None = None
    """Stop after this step; run again to go on."""


def main(options: Options) -> None:
    torch.set_num_threads(1)  # sums are then taken in one order on every machine
    samples = bundled("medical", split="train")
    words = sorted({word for sample in samples for word in str(sample.meta["label"]).split()})
    processor = build_processor(words)
    trainer = Trainer(options.recipe, processor)
    trainer.teach_medical(medical_pictures(samples))
    trainer.run(options.out, until=options.until)
    if trainer.step == options.recipe.steps:
        trainer.model.eval().save_pretrained(options.out / "model")
        processor.save_pretrained(options.out / "model")
        print(f"trained organism in {options.out / 'model'}")


if __name__ == "__main__":
    main(tyro.cli(Options))
