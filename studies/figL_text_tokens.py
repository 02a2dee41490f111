"""Figure L: do the question's words, the object's word and the first answer token look at the object?

    python studies/figL_text_tokens.py
    python studies/figL_text_tokens.py --paper --model llava-hf/llava-1.5-7b-hf --device cuda --data VGMED_FOLDER

The page shows the attention ratio of five kinds of rows, layer by layer: plain, and relative to the last row of the
generic prompt. The kind “every row after the image” (`Q=True` of the official code) is divided by the mean of the same
rows of the generic prompt. At its own layer, chosen on the validation split, each kind is compared with the last token
on the same test samples. The object's word is left out unless every sample has a `label`. The page is `figL.html` under
`--out`; the runs are beside it, and the same command resumes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.paper_options import PaperChoice, PaperOptions
from interp.report.tables import number
from interp.study import Grid, LayerChoice, LayerSweep, Result, choose_layer
from interp.study.dataframes import records
from interp.study.layer_sweep.text_tokens import against_last, own_layer_scores, write_page

LAST, OBJECT = "last token", "object's word"
KINDS = {
    LAST: "last",
    "question's words": "question",
    OBJECT: "label",
    "first answer token": "answer",
    "every row after the image": "after_image",
}
DIVISORS: dict[str, Prompt | None] = {
    "relative to the generic prompt": GENERIC_PROMPT,
    "plain attention": None,
}


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 72, n_validation: int = 48, way: PaperOptions = PaperChoice(),
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Compare where kinds of text tokens look.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and figL.html.
        seed: Draws the samples, and the other samples whose boxes are the shuffled-boxes baseline.
        workers: The number of worker processes, and where they run.
        n: The maximum number of test samples per data set.
        n_validation: The maximum number of validation samples per data set, on which layers are chosen.
        way: Choices in which paper and toolkit differ.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    spec, chosen = way.model(model, device=device, dtype=dtype), way.conventions(metrics=("ar",))
    test = sets(data, n=n, seed=seed, needed=True)
    validation = sets(data, split="validation", n=n_validation, seed=seed, needed=True)
    kinds = answerable(test)
    if OBJECT not in kinds:
        print(f"Left out, {OBJECT}: not every sample has a label.")

    def run(read: dict[str, Samples], divisor: Prompt | None) -> Result:
        indicators = {kind: Attention(relative_to=divisor, queries=rows) for kind, rows in kinds.items()}
        options: dict[str, Any] = {"metrics": chosen.measured, "rule": chosen.rule, "seed": seed}
        base = LayerSweep(model=spec, data=next(iter(read.values())), batch=batch_size, **options)
        return Grid(base, indicator=indicators, data=read).run(out, workers=workers)

    results = {name: run(test, divisor) for name, divisor in DIVISORS.items()}
    choices = {
        name: own_layers(run(validation, divisor), chosen.choose_by) for name, divisor in DIVISORS.items()
    }
    for name, result in results.items():
        print_gaps(result, choices[name], seed, name)
    print(f"\nPage: {write_page(results, out / 'figL.html', choices=choices, last=LAST)}")


def print_gaps(result: Result, chosen: dict[str, LayerChoice], seed: int, name: str) -> None:
    choice = next(iter(chosen.values()))
    print(f"\nAR, {name}; layers chosen on {choice.split} samples. {choice.caution}".rstrip())
    for said in records(against_last(own_layer_scores(result, chosen), LAST, seed=seed)):
        gap = "" if said["last"] is None else f"   minus last {number(said['last'].mean)}, p {said['p']:.2g}"
        print(
            f"  {said['data']:>10} {said['indicator']:<25} layer {said['layer']}: {number(said['mean'])}{gap}"
        )


def answerable(read: dict[str, Samples]) -> dict[str, str]:
    """The kinds of token that these samples have."""
    labelled = all(sample.meta.get("label") for samples in read.values() for sample in samples)
    return {kind: rows for kind, rows in KINDS.items() if labelled or kind != OBJECT}


def own_layers(validation: Result, by: str) -> dict[str, LayerChoice]:
    """Each kind of token's best layer by a metric, all data sets counting the same."""
    kinds = dict.fromkeys(cell.labels["indicator"] for cell in validation.cells)
    return {
        kind: choose_layer(
            Result(
                validation.study,
                tuple(cell for cell in validation.cells if cell.labels["indicator"] == kind),
                validation.folder,
            ),
            by,
        )
        for kind in kinds
    }


if __name__ == "__main__":
    run_script(main)
