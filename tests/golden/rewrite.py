"""Writes all golden files anew: `python -m tests.golden.rewrite`. Read the diff before you commit it."""

from __future__ import annotations

import tempfile

import torch

from tests.golden import examples, golden


def main() -> None:
    """Runs every study and writes what it is and what it found."""
    torch.set_num_threads(1)
    for name, study in examples.described().items():
        golden.write_study(name, study)
    with tempfile.TemporaryDirectory() as out:
        found = golden.results(lambda study: study.run(out, progress=False))
        for name, frame in golden.frames(found).items():
            golden.write_frame(name, frame)


if __name__ == "__main__":
    main()
