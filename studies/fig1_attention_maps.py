"""Figure 1: where does a model look when it answers about natural and about medical images?

    python studies/fig1_attention_maps.py
    python studies/fig1_attention_maps.py --paper --model MODEL OTHER --device cuda --data COCO_FOLDER VGMED_FOLDER

The page shows a few test samples, drawn with the seed and not by their score, with their boxes, the attention of the
last prompt token, and the same relative to a generic prompt, at each model's best layer on the validation split: by
attention ratio, or with `--paper` by the lowest KL. The page is `fig1.html` under `--out`; the runs are beside it, and
the same command resumes them. Maps before and after VGRefine: `figJ2_before_after.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.paper_options import PaperChoice, PaperOptions
from interp.study import Grid, LayerSweep, Result, choose_layer
from interp.study.layer_choice import metrics_to_choose_by
from interp.study.layer_sweep.page import write_maps
from interp.study.study import words

PLAIN, RELATIVE = Attention(), Attention(relative_to=GENERIC_PROMPT)


def main(
    model: tuple[str, ...] = ("organism",), data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"),
    seed: int = 0, workers: WorkerOptions = 1, n: int = 6, n_validation: int = 80, way: PaperOptions = PaperChoice(),
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Show where the model looks.

    Args:
        model: One or more of "organism", Hugging Face ids, local folders.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and fig1.html.
        seed: Draws the samples.
        workers: The number of worker processes, and where they run.
        n: The number of samples shown of each data set.
        n_validation: The maximum number of validation samples per data set, on which the layer is chosen.
        way: Choices in which paper and toolkit differ.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    specs = way.models(words(model), device=device, dtype=dtype)
    rule, by = way.conventions().rule, way.conventions().choose_by

    def run(read: dict[str, Samples], indicator: Attention) -> Result:
        options: dict[str, Any] = {"rule": rule, "seed": seed, "batch": batch_size}
        first, metrics = next(iter(read.values())), metrics_to_choose_by(by)
        base = LayerSweep(data=first, indicator=indicator, metrics=metrics, **options)
        return Grid(base, model=specs, data=read).run(out, workers=workers)

    validation = sets(data, split="validation", n=n_validation, seed=seed)
    shown = sets(data, n=n, seed=seed, needed=True)
    results = {"attention": run(shown, PLAIN), "relative to a generic prompt": run(shown, RELATIVE)}
    relative = results["relative to a generic prompt"]
    chosen_on = run(validation, RELATIVE) if validation else relative
    choice = choose_layer(chosen_on, by, descriptive=not validation)
    print(choice.sentence(relative))
    print_failures(results)
    print(f"Page: {write_maps(results, choice, out / 'fig1.html')}")


def print_failures(results: dict[str, Result]) -> None:
    for result in results.values():
        if len(result.failures):
            print(result.failures[["sample", "error", "reason"]].to_string(index=False))


if __name__ == "__main__":
    run_script(main)
