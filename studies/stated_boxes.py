"""Stated boxes: does the model say that the finding is where it is, and where its attention lies?

    python studies/stated_boxes.py
    python studies/stated_boxes.py --model Qwen/Qwen2.5-VL-7B-Instruct --device cuda --data mine.jsonl
    python studies/stated_boxes.py --model DIR --data mine.jsonl --answers said.jsonl --convention medmo

The model is asked for boxes, and what it writes is read by the convention of its family or of `--convention`
(docs/masks.md); with `--convention` the model is also asked in the words of that convention. With `--answers` stored
texts are read instead: lines {"sample": id, "said": text}. **The bundled organism cannot write boxes** (its vocabulary
has no digits). Therefore its texts are planted without `--answers`, and page and script say so. What they state is
known: the sample's own box, another sample's box, or a box that cannot be read. Runs are stored under `--out`;
`stated_boxes.html` beside them is the result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import interp
from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import sets
from interp.indicators.map_masks import threshold_named
from interp.inputs.box_conventions import ASK, BOX_CONVENTIONS
from interp.inputs.box_text import written
from interp.report.tables import count, estimate, number
from interp.study import ModelSpec, StatedBoxes
from interp.study.dataframes import records, where

KINDS = ("own box", "another's box", "unreadable")
SHARES = (0.5, 0.3, 0.2)
SHOWN = ("stated", "iou", "iou_shuffled", "ar_stated", "ar_expert", "mask_stated", "mask_expert")


def main(
    model: str = "organism", data: tuple[str, ...] = ("natural",), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 60, convention: str = "", answers: str = "", generate: int = 128,
    layers: tuple[int, ...] = (), threshold: str = "otsu", batch_size: int = 8, device: str = "cpu",
    dtype: str = "float32",
) -> None:  # fmt: skip
    """The boxes that a model states, the expert's, and where attention lies.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files; the first is used.
        out: Folder for runs and the page.
        seed: Draws the samples, the planted texts, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples, drawn with the seed.
        convention: A name of interp.BOX_CONVENTIONS; "" for that of the model's family.
        answers: A .jsonl file of stored texts; "" to ask the model.
        generate: The maximum number of tokens of an answer.
        layers: The layers whose attention is averaged; by default all.
        threshold: "otsu", "positive", or the share of pixels that lie below the threshold, such as 0.9.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    samples = next(iter(sets(data, n=n, seed=seed, needed=True).values()))
    planted = model == "organism" and not answers
    named = convention or ("internvl" if planted else None)
    kinds, texts = plant(samples, str(named), seed) if planted else ((), stored(answers))
    study = StatedBoxes(
        model=ModelSpec(model, device=device, dtype=dtype), data=samples, convention=named, answers=texts,
        prompt=interp.PAPER_PROMPT if planted else asking(named), generate=generate, layers=layers or None,
        threshold=threshold_named(threshold), seed=seed, batch=batch_size,
    )  # fmt: skip
    told(study.run(out, workers=workers), kinds, out / "stated_boxes.html")


def asking(named: str | None) -> interp.Prompt:
    """The prompt that asks for boxes, in the words of the convention where one is named."""
    return (
        BOX_CONVENTIONS[named].prompt if named and named in BOX_CONVENTIONS else interp.Prompt(template=ASK)
    )


def told(result: Any, kinds: Sequence[str], page: Path) -> None:
    """Prints the means, what was read of planted texts, and where the page is."""
    if kinds:
        print(f"PLANTED: the organism cannot write boxes; {count(len(kinds), 'text')} made up by the script.")
    for row in records(where(result.summary(), result.summary().measure.isin(SHOWN))):
        print(f"  {row['measure']:>12}: {estimate(row)}, {count(row['n'], 'sample')}")
    if kinds:
        check(result, kinds)
    if len(result.failures):
        print(result.failure_counts())
    print(f"Page: {result.report(page)}")


def stored(path: str) -> dict[str, str | None] | None:
    """The texts of a .jsonl file by sample; None without a file."""
    if not path:
        return None
    file = Path(path)
    if not file.is_file():
        raise interp.InterpError(
            f'no answers {path!r}: it is no file. Each line is {{"sample": id, "said": text}}.'
        )
    try:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
        return {str(row["sample"]): row["said"] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise interp.InterpError(
            f'{path} holds no stored answers ({type(error).__name__}: {error}). Each line is {{"sample": id, "said": '
            "text}."
        ) from error


def plant(samples: Samples, convention: str, seed: int) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """What is planted of each sample, drawn with the seed, and its text."""
    rng = np.random.default_rng(seed)
    kinds = tuple(KINDS[i] for i in rng.choice(len(KINDS), size=len(samples), p=SHARES))
    texts: dict[str, str | None] = {}
    for place, (kind, sample) in enumerate(zip(kinds, samples, strict=True)):
        lender = samples[(place + 1) % len(samples)] if kind == "another's box" else sample
        text = written(lender.boxes[0], convention, lender.sizes[0], label="planted")
        texts[sample.id] = text[: len(text) // 2] if kind == "unreadable" else text
    return kinds, texts


def check(result: Any, kinds: Sequence[str]) -> None:
    """Prints what was read of each kind of planted text, whose truth is known."""
    frame, scores = result.cells[0].frame("samples"), result.values
    overlap = where(scores, scores.measure == "iou").set_index("index").value
    for kind in KINDS:
        own = [i for i in frame["index"] if kinds[i] == kind]
        read = int((frame.set_index("index").n_stated.loc[own] > 0).sum())
        mean = number(float(overlap.loc[own].mean())) if read else "–"
        print(
            f"  planted {kind}: {count(len(own), 'sample')}, {read} read, mean IoU with the expert's {mean}"
        )


if __name__ == "__main__":
    run_script(main)
