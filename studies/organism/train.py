"""Train the bundled model organism: python -m studies.organism.train --out runs/organism

Takes under 90 minutes on two CPU cores with one thread. You may stop it at any time: when it is run again, it continues
from its checkpoint and ends with the same weights. The bundled main organisms were then trained further with refine.py.
docs/organism.md describes the result, its limits and its certification. The environment variables
MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_MMAP_THRESHOLD_=2147483648 keep the allocator (glibc) from returning memory at
every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from interp.cli import run_script
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
    """Stop after this step; run again to continue."""


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
    run_script(main, Options)
