"""VGRefine before and after: are more answers right, and where does the model look?

    python studies/vgrefine.py
    python studies/vgrefine.py --model FreedomIntelligence/HuatuoGPT-Vision-7B-hf --device cuda --data FOLDER --tokens 1
    python studies/vgrefine.py --paper --model MODEL --choose-on COCO_FOLDER --data VGMED_FOLDER

The plain model and the model under VGRefine answer every sample, in two variants: that of the official code and that of
the paper. HuatuoGPT-Vision-7B uses the published heads and layer. For any other model both are chosen on the validation
split and reported on the test split. `--paper` chooses as the paper does: heads by KL on other data (COCO), the layer
with the lowest KL. The paper's official code generates exactly one token.
Runs are stored under `--out`, and the same command resumes them; `vgrefine.html` is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.methods import VGRefine
from interp.study import Grid, ModelSpec, Refinement, RefinementResult
from interp.study.conventions import conventions, held_out_sets, paper_model
from interp.study.refinement.method_choice import grounding


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 120, n_validation: int = 80, k: int | None = None,
    layers: tuple[int, ...] = (), metric: str = "kl", choose_by: str = "", choose_on: tuple[str, ...] = (),
    published_heads: str = "", paper: bool = False, tokens: int = 8, batch_size: int = 8, device: str = "cpu",
    dtype: str = "float32",
) -> None:  # fmt: skip
    """Answer with and without VGRefine.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files; samples need answers.
        out: Folder for runs and vgrefine.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: How many workers compute, and where.
        n: The maximum number of test samples per data set, drawn with the seed.
        n_validation: The maximum number of validation samples per data set, to choose heads and the layer on.
        k: The number of heads; by default 20, as in the paper, or an eighth of a small model's heads.
        layers: The masked layers; by default the published or the chosen one.
        metric: The metric that ranks the heads: a short name of interp.metrics.METRICS.
        choose_by: The metric that chooses the layer; by default ar, with --paper kl (the lowest).
        choose_on: Data to choose heads and layer on for all of --data; by default each one's own validation split.
        published_heads: A published set to take for a copy of its checkpoint: huatuogpt-vision-7b.
        paper: Choose as the paper does; Qwen models get the official code's limits of pixels.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    spec = paper_model(ModelSpec(model, device=device, dtype=dtype), paper)
    way = conventions(paper, choose_by=choose_by)
    reference = spec if paper and not published_heads else None
    held_out = held_out_sets(data, choose_on, n=n_validation, seed=seed, paper_model=reference)
    results = []
    for label, samples in sets(data, n=n, seed=seed, needed=True).items():
        check_answers(label, samples)
        options: dict[str, Any] = {"seed": seed, "batch": batch_size}
        found = grounding(
            spec, held_out.get(label), out=out, k=k, metric=metric, layer_by=way.choose_by, rule=way.rule,
            rank=bool(choose_on), published=published_heads, workers=workers, **options,
        )  # fmt: skip
        print(found.said, end="\n\n")
        options |= {"data": samples, "read_layer": found.read_layer}
        study = Refinement(model=spec, max_new_tokens=tokens, **options)
        methods = {
            f"VGRefine, {one}": VGRefine(found.heads, layers or (found.layer,), variant=one)
            for one in ("code", "paper")
        }
        results.append(Grid(study, method=methods).run(out, workers=workers))
    show(RefinementResult.join(results), out / "vgrefine.html")


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
