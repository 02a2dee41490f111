"""Train the shortcut organism: python studies/organism/shortcut.py --out runs/shortcut

The main organism goes on learning on scenes with a coloured marker in a corner, until it answers every colour
question with the marker's colour. About three minutes on one CPU core. Stop it and run it again: it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from transformers import LlavaProcessor

from interp.organism import folder
from studies.organism.shortcut import SHORTCUT, ShortcutTrainer
from studies.organism.training import Recipe


@dataclass(frozen=True)
class Options:
    """How to train and where to put the result."""

    recipe: Recipe = SHORTCUT
    start: Path | None = None
    """The organism to go on from; the bundled one by default."""
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
    main(tyro.cli(Options))
