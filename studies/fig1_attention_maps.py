"""Figure 1: where does a model look when it answers about natural and about medical images?

    python studies/fig1_attention_maps.py
    python studies/fig1_attention_maps.py --model llava-hf/llava-1.5-7b-hf --device cuda --data VGMED_FOLDER

The page shows a few test samples, drawn with the seed and not by their score, with their boxes, the attention of the
last prompt token, and the same relative to a generic prompt, at the best layer of the validation split. The page is
`fig1.html` under `--out`; the runs are beside it, and the same command resumes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.study import Grid, LayerSweep, ModelSpec, Result, choose_layer
from interp.study.layer_sweep.page import write_maps

PLAIN, RELATIVE = Attention(), Attention(relative_to=GENERIC_PROMPT)


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 6, n_validation: int = 80, batch_size: int = 8, device: str = "cpu",
    dtype: str = "float32",
) -> None:  # fmt: skip
    """Show where the model looks.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and fig1.html.
        seed: Draws the samples.
        workers: How many workers compute, and where.
        n: Samples shown of each data set.
        n_validation: Samples of each data set's validation split on which the layer is chosen.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    spec = ModelSpec(model, device=device, dtype=dtype)

    def run(read: dict[str, Samples], indicator: Attention) -> Result:
        first = next(iter(read.values()))
        options: dict[str, Any] = {"seed": seed, "batch": batch_size}
        base = LayerSweep(model=spec, data=first, indicator=indicator, metrics=("ar",), **options)
        return Grid(base, data=read).run(out, workers=workers)

    validation = sets(data, split="validation", n=n_validation, seed=seed)
    shown = sets(data, n=n, seed=seed, needed=True)
    results = {"attention": run(shown, PLAIN), "relative to a generic prompt": run(shown, RELATIVE)}
    relative = results["relative to a generic prompt"]
    choice = choose_layer(run(validation, RELATIVE)) if validation else relative.best_layer(descriptive=True)
    print(choice.sentence(relative))
    print_failures(results)
    print(f"Page: {write_maps(results, choice, out / 'fig1.html')}")


def print_failures(results: dict[str, Result]) -> None:
    for result in results.values():
        if len(result.failures):
            print(result.failures[["sample", "error", "reason"]].to_string(index=False))


if __name__ == "__main__":
    run_script(main)
