"""Figure 3: at which layers does a model look at the box, on natural and on medical images?

    python studies/fig3_layer_sweep.py
    python studies/fig3_layer_sweep.py --model llava-hf/llava-1.5-7b-hf --device cuda --dtype bfloat16

The layer to feature is chosen on the validation split and reported on the test split. Each run stays under
`--out` and is resumed by running the same command again; `report.html` beside them is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from interp.data import Samples, bundled, jsonl
from interp.indicators import Attention
from interp.prompt import GENERIC_PROMPT
from interp.study import Grid, LayerSweep, ModelSpec, Result, choose_layer

BUNDLED = ("natural", "medical")
INDICATOR = Attention(relative_to=GENERIC_PROMPT)
METRICS = ("ar", "kl_gain", "js")


def main(
    model: str = "organism",
    data: tuple[str, ...] = BUNDLED,
    out: Path = Path("runs"),
    seed: int = 0,
    workers: int = 1,
    n: Annotated[
        int, tyro.conf.arg(help="At most so many samples per data set; half choose the layer.")
    ] = 160,
    device: str = "cpu",
    dtype: str = "float32",
) -> None:
    """Where does the model look, layer by layer?

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: Names of bundled data ("natural", "medical") or .jsonl files.
        out: Folder for runs and report.html.
        seed: Draws the samples and decides whose boxes each sample borrows.
        workers: Processes, each with its own copy of the model.
        n: At most so many samples per data set, drawn with the seed.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    labels = [Path(name).stem for name in data]
    if not data or len(set(labels)) < len(labels):
        raise SystemExit(f"--data takes one or more sets of different names; got {labels}. Rename a file.")
    spec = ModelSpec(model, device=device, dtype=dtype)

    def run(split: str, n_samples: int, names: tuple[str, ...]) -> Result:
        read = {Path(name).stem: samples(name, split, n_samples, seed) for name in names}
        base = LayerSweep(
            model=spec, data=read[Path(names[0]).stem], indicator=INDICATOR, metrics=METRICS, seed=seed
        )
        return Grid(base, data=read).run(out, workers=workers)

    with_splits = tuple(name for name in data if name in BUNDLED)
    choice = choose_layer(run("validation", max(n // 2, 1), with_splits)) if with_splits else None
    result = run("test", n, data)
    for metric in METRICS:
        print(result.table(metric, choice=choice), end="\n\n")
    print((choice or result.best_layer()).sentence(result))
    if len(result.failures):
        print(f"{len(result.failures)} failures: {result.failures.error.value_counts().to_dict()}")
    print(f"Report: {result.report(out / 'report.html', choice=choice)}")


def samples(name: str, split: str, n: int, seed: int) -> Samples:
    """Bundled samples by name, or rows of a file; at most `n`, drawn with the seed and kept in order."""
    if name == "natural":
        return bundled(name, split=split, n=n, seed=seed)
    rows = bundled(name, split=split) if name in BUNDLED else jsonl(name)
    if n >= len(rows):
        return rows
    print(f"{name}: {n} of {len(rows)} samples, drawn with seed {seed}")
    drawn = sorted(np.random.default_rng(seed).choice(len(rows), n, replace=False).tolist())
    return Samples((rows[i] for i in drawn), rows.name)


if __name__ == "__main__":
    tyro.cli(main)
