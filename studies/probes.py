"""Probes: from which layer on, and where, can the answer be read linearly from the residual stream?

    python studies/probes.py
    python studies/probes.py --model llava-hf/llava-1.5-7b-hf --device cuda --data mine.jsonl --about ""

Logistic probes are fitted at the last token, the question, the image and the boxes. They are scored on held-out groups
and compared with probes of random classes (the control task). By default only questions about colour are used: with
several kinds of questions a probe could read the kind instead of the answer. Runs are stored under `--out`;
`probes.html` beside them is the result. docs/probes.md says what a probe shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data.open import sets
from interp.report.tables import number
from interp.study import Grid, ModelSpec, ProbeSweep
from interp.study.dataframes import records, where


def main(
    model: str = "organism", data: tuple[str, ...] = ("natural",), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 360, about: str = "colour", target: str = "answer", control: str = "group",
    positions: tuple[str, ...] = ("last", "question", "image", "box"), folds: int = 5, batch_size: int = 8,
    device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Where a property can be read linearly.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and probes.html.
        seed: Draws the samples and the folds.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples per data set, drawn with the seed.
        about: Keep only the samples whose meta["about"] is this; "" for all.
        target: The property that is probed: "answer", or a key of meta.
        control: What decides a sample's random class in the control task.
        positions: Some of "last", "question", "image", "box".
        folds: The number of folds.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    read = {
        name: samples.filter(lambda sample: not about or sample.meta.get("about") == about)
        for name, samples in sets(data, n=n, seed=seed, needed=True).items()
    }
    what = {"target": target, "control": control, "positions": positions, "folds": folds}
    spec = ModelSpec(model, device=device, dtype=dtype)
    base = ProbeSweep(model=spec, data=next(iter(read.values())), seed=seed, batch=batch_size, **what)
    result = Grid(base, data=read).run(out, workers=workers)
    summary = result.summary()
    parts: Any = where(summary, summary.measure == "accuracy").groupby(["data", "position"], sort=False)
    for (name, position), own in parts:
        line = ", ".join(f"{row['layer']}: {number(row['mean'])}" for row in records(own))
        print(f"  {name:>10}  {position:>8}, accuracy by layer  {line}")
    if len(result.failures):
        print(result.failure_counts())
    print(f"Page: {result.report(out / 'probes.html')}")


if __name__ == "__main__":
    run_script(main)
