"""Table F.4: VGRefine and other methods under one protocol: accuracy with paired intervals, flips, cost.

    python studies/tableF4_methods.py
    python studies/tableF4_methods.py --model llava-hf/llava-1.5-7b-hf --device cuda --data FOLDER

Plain, VGRefine (code and paper), PAI, AdaptVis, ScalingVis, HGAI and ViCrop answer the same test samples, greedily.
Heads, the layer that VGRefine masks and ScalingVis' weight, for which nothing is published, are chosen on the
validation split. `--choose-on`, `--choose-by` and `--paper` choose heads and layer as the paper does, on other data by
KL. All other parameters are the methods' published defaults. The script prints each method's difference
from the plain model and from every other method, with Holm's p. Seconds and passes are multiples of the plain
model's. A method that a model cannot run is left out with the reason, and its samples are in the table of failures.
Runs are stored under `--out`, and the same command resumes them; `tableF4.html` is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from interp.cli import WorkerOptions, run_script
from interp.data.open import BUNDLED, sets
from interp.inputs.sample import Sample
from interp.methods import HGAI, PAI, AdaptVis, Plain, ScalingVis, VGRefine, ViCrop
from interp.paper_options import HeadChoice, HeadOptions
from interp.study import Grid, Refinement, RefinementResult
from interp.study.refinement.method_choice import Grounding, best_method

WEIGHTS = (0.5, 0.8, 1.2, 1.5, 2.0)


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 64, n_validation: int = 40, k: int | None = None,
    way: HeadOptions = HeadChoice(),
    crop: Literal["both", "crop"] = "both", tokens: int = 8, batch_size: int = 8, device: str = "cpu",
    dtype: str = "float32",
) -> None:  # fmt: skip
    """Compare methods on the same samples.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files; samples need answers.
        out: Folder for runs and tableF4.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        n: The maximum number of test samples per data set, drawn with the seed.
        n_validation: The maximum number of validation samples per data set, to choose heads, layer and weight on.
        k: The number of VGRefine's heads; by default 20, or an eighth of a small model's heads.
        way: Choices in which paper and toolkit differ; and the data on which heads and layer are chosen.
        crop: The images ViCrop answers from: image and crop, or the crop alone.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    spec, results = way.model(model, device=device, dtype=dtype), []
    held_out = sets(data, split="validation", n=n_validation, seed=seed)
    chosen_on = way.held_out(data, spec, n=n_validation, seed=seed)
    for label, samples in sets(data, n=n, seed=seed, needed=True).items():
        check_answers(label, [*samples, *held_out.get(label, ())] if label in held_out else [])
        options: dict[str, Any] = {"seed": seed, "batch": batch_size}
        found = way.grounding(spec, chosen_on[label], out=out, k=k, workers=workers, **options)
        print(found.said)
        study = Refinement(model=spec, data=held_out[label], max_new_tokens=tokens, **options)
        weights = {f"w = {weight:g}": ScalingVis(weight) for weight in WEIGHTS}
        scaling, _ = best_method(study, weights, out=out, workers=workers)
        print(f"{label}: ScalingVis with weight {scaling.weight:g}, the best accuracy there.", end="\n\n")
        tested = study.replace(data=samples, read_layer=found.read_layer)
        results.append(Grid(tested, method=methods(found, scaling, crop)).run(out, workers=workers))
    show(RefinementResult.join(results), out)


def check_answers(label: str, samples: list[Sample]) -> None:
    """End the script where there is nothing to choose on, or no sample has an answer."""
    if all(sample.answer is None for sample in samples):
        raise SystemExit(f"{label}: methods are chosen on validation samples, and need answers.")


def methods(found: Grounding, scaling: ScalingVis, crop: Literal["both", "crop"]) -> dict[str, Any]:
    """Every method at its published parameters, or at those chosen."""
    return {
        "Plain": Plain(),
        "VGRefine, code": VGRefine(heads=found.heads, layers=(found.layer,), variant="code"),
        "VGRefine, paper": VGRefine(heads=found.heads, layers=(found.layer,), variant="paper"),
        "PAI": PAI(),
        "AdaptVis": AdaptVis(),
        "ScalingVis": scaling,
        "HGAI": HGAI(),
        "ViCrop": ViCrop(images=crop),
    }


def show(result: RefinementResult, out: Path) -> None:
    """Tables, failures and the report."""
    print(result.table(), end="\n\n")
    print(result.pairs_table(), end="\n\n")
    if len(result.failures):
        counts = result.failures.groupby(["data", "method", "error", "reason"]).size()
        print(f"Failures:\n{counts.to_string()}", end="\n\n")
    print(f"Report: {result.report(out / 'tableF4.html')}")


if __name__ == "__main__":
    run_script(main)
