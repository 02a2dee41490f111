"""Logit lens: at which layer do the tokens of the box read as the object's word, or as the answer?

    python studies/logit_lens.py
    python studies/logit_lens.py --model llava-hf/llava-1.5-7b-hf --device cuda --dtype bfloat16 --data VGMED_FOLDER

The final norm and the unembedding are applied after every layer at every image token (TransformerLens; `pip install
"interp[lens]"`). The word's log-probability inside the boxes is compared with that outside, and with another sample's
word at the same tokens, with intervals over groups. Data sets are split by the kind of question. Runs are stored under
`--out`, and the same command resumes them; `logit_lens.html` beside them is the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.report.tables import count, number
from interp.stats import MIN_GROUPS
from interp.study import Grid, LensSweep, ModelSpec
from interp.study.dataframes import records
from interp.study.logit_lens.page import lens_gaps, peaks, write_page


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 96, words: tuple[str, ...] = ("label", "answer"), batch_size: int = 8,
    device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Read words at the image tokens.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and logit_lens.html.
        seed: Draws the samples and decides whose word is the control.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples per data set, drawn with the seed.
        words: The words to look for: "label" (the object's word), "answer".
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    read = by_question(sets(data, n=n, seed=seed, needed=True))
    spec = ModelSpec(model, device=device, dtype=dtype)
    first = next(iter(read.values()))
    base = LensSweep(model=spec, data=first, words=words, seed=seed, batch=batch_size)
    result = Grid(base, data=read).run(out, workers=workers)
    print(
        "Log p of the word inside the boxes − outside, own word minus another's, at its best layer (a description)"
    )
    for row in records(peaks(lens_gaps(result))):
        few = row["n_groups"] < MIN_GROUPS
        ends = "(too few groups for an interval)" if few else f"[{number(row['low'])}, {number(row['high'])}]"
        said = f"{number(row['mean'])} nats {ends}, {count(row['n'], 'sample')} in {count(row['n_groups'], 'group')}"
        print(f"  {row['data']:>24}  {row['word']:<7} layer {row['layer']:>2}: {said}")
    if len(result.failures):
        print(result.failure_counts())
    print(f"Page: {write_page(result, out / 'logit_lens.html')}")


def by_question(read: dict[str, Samples]) -> dict[str, Samples]:
    """Each set split by the kind of question (`meta["about"]`, else "kind"), as "natural · colour"."""
    parts = {}
    for name, samples in read.items():
        for asked in dict.fromkeys(_asked(sample.meta) for sample in samples):
            label = f"{name} · {asked}" if asked else name
            parts[label] = Samples((s for s in samples if _asked(s.meta) == asked), label)
    return parts


def _asked(meta: Mapping[str, Any]) -> str | None:
    return meta.get("about") or meta.get("kind")


if __name__ == "__main__":
    run_script(main)
