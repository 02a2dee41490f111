"""Table 4: VGRefine's two parameters, k heads in triage × percentile p, as one Grid per data set.

    python studies/table4_ablation.py
    python studies/table4_ablation.py --model FreedomIntelligence/HuatuoGPT-Vision-7B-hf --device cuda --data FOLDER

The paper's table is k ∈ {1, 2, 5, 8, 10, 15, 20} × p ∈ {30, 40, …, 90}, the default for any model but the organism,
which gets k ∈ {1, 5, 20} × p ∈ {30, 50, 70, 90}. k is at most the number of heads. Heads are ranked once on the
validation split, and every cell uses the best k. All cells share the plain model's answers. The table shows the test
split, so its best cell is only a description: k and p would be chosen on validation samples.
Runs are stored under `--out`, and the same command resumes them; `table4.html` is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.methods import VGRefine
from interp.study import Grid, ModelSpec, Refinement, RefinementResult
from interp.study.model_spec import is_organism
from interp.study.refinement.method_choice import Grounding, grounding

PAPER = (1, 2, 5, 8, 10, 15, 20), (30, 40, 50, 60, 70, 80, 90)
ORGANISM = (1, 5, 20), (30, 50, 70, 90)


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 60, n_validation: int = 80, k: tuple[int, ...] = (), p: tuple[float, ...] = (),
    variant: Literal["code", "paper"] = "code", layers: tuple[int, ...] = (), metric: str = "kl",
    tokens: int = 8, batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """How much do the number of heads and the percentile matter?

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files; samples need answers.
        out: Folder for runs and table4.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: How many workers compute, and where.
        n: The maximum number of test samples per data set, drawn with the seed.
        n_validation: The maximum number of validation samples per data set, to choose heads and the layer on.
        k: Numbers of heads.
        p: Percentiles.
        variant: The source of VGRefine's other settings: the official code or the paper.
        layers: The masked layers; by default the published or the chosen one.
        metric: The metric that ranks the heads: a short name of interp.metrics.METRICS.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    spec = ModelSpec(model, device=device, dtype=dtype)
    usual = ORGANISM if is_organism(spec) else PAPER
    held_out = sets(data, split="validation", n=n_validation, seed=seed)
    results = []
    for label, samples in sets(data, n=n, seed=seed, needed=True).items():
        check_answers(label, samples)
        found = grounding(
            spec, held_out.get(label), out=out, metric=metric, seed=seed, workers=workers, batch=batch_size
        )
        print(found.said, end="\n\n")
        study = Refinement(model=spec, data=samples, max_new_tokens=tokens, seed=seed, batch=batch_size)
        methods = cells(found, k or usual[0], p or usual[1], layers, variant)
        results.append(Grid(study, method=methods).run(out, workers=workers))
    show(RefinementResult.join(results), out / "table4.html")


def cells(
    found: Grounding,
    k: tuple[int, ...],
    p: tuple[float, ...],
    layers: tuple[int, ...],
    variant: Literal["code", "paper"],
) -> dict[str, VGRefine]:
    """A method per number of heads and percentile."""
    masked = layers or (found.layer,)
    return {
        f"k = {heads}, p = {percentile:g}": VGRefine(
            heads=found.top(heads), layers=masked, variant=variant, percentile=percentile
        )
        for heads in sorted({min(one, found.n_heads) for one in k})
        for percentile in p
    }


def check_answers(label: str, samples: Samples) -> None:
    """End the script where no sample has an answer."""
    if all(sample.answer is None for sample in samples):
        raise SystemExit(f"{label}: samples need answers to be right or wrong about, and none has one.")


def show(result: RefinementResult, page: Path) -> None:
    """The table, failures and the report."""
    print(result.table(), end="\n\n")
    if len(result.failures):
        print(f"{len(result.failures)} failures: {result.failures.error.value_counts().to_dict()}")
    print(f"Report: {result.report(page)}")


if __name__ == "__main__":
    run_script(main)
