"""Writes golden files anew: `python -m tests.golden.rewrite studies` or `… values`. Read the diff before committing."""

from __future__ import annotations

import sys
import tempfile

import torch

from tests.golden import examples, golden


def main(parts: list[str]) -> None:
    """Writes what every study is, or what it finds."""
    torch.set_num_threads(1)
    if "studies" in parts:
        for name, study in examples.described().items():
            golden.write_study(name, study)
    if "values" in parts:
        with tempfile.TemporaryDirectory() as out:
            found = golden.results(lambda study: study.run(out, progress=False))
            for name, frame in golden.frames(found).items():
                golden.write_frame(name, frame)


if __name__ == "__main__":
    main(sys.argv[1:])
