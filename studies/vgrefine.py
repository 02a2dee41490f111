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
from interp.paper_options import HeadChoice, HeadOptions
from interp.study import Grid, Refinement, RefinementResult


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 120, n_validation: int = 80, k: int | None = None,
    layers: tuple[int, ...] = (), way: HeadOptions = HeadChoice(), tokens: int = 8,
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Answer with and without VGRefine.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files; samples need answers.
        out: Folder for runs and vgrefine.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        n: The maximum number of test samples per data set, drawn with the seed.
        n_validation: The maximum number of validation samples per data set, to choose heads and the layer on.
        k: The number of heads; by default 20, as in the paper, or an eighth of a small model's heads.
        layers: The masked layers; by default the published or the chosen one.
        way: Choices in which paper and toolkit differ; and the data on which heads and layer are chosen.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    spec = way.model(model, device=device, dtype=dtype)
    held_out = way.held_out(data, spec, n=n_validation, seed=seed)
    results = []
    for label, samples in sets(data, n=n, seed=seed, needed=True).items():
        check_answers(label, samples)
        options: dict[str, Any] = {"seed": seed, "batch": batch_size}
        found = way.grounding(spec, held_out.get(label), out=out, k=k, workers=workers, **options)
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
        print(result.failure_counts())
    print(f"Report: {result.report(page)}")


if __name__ == "__main__":
    run_script(main)
