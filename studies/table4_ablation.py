"""Table 4: VGRefine's two parameters, k heads in triage × percentile p, as one Grid per data set.

    python studies/table4_ablation.py
    python studies/table4_ablation.py --model FreedomIntelligence/HuatuoGPT-Vision-7B-hf --device cuda --data FOLDER
    python studies/table4_ablation.py --paper --sweeps --model MODEL --choose-on COCO_FOLDER --data FOLDER

The paper's table is two sweeps: k ∈ {1, 2, 5, 8, 10, 15, 20} at p = 50, and p ∈ {30, 40, …, 90} at k = 20. Here it is
the whole grid of both, of which the sweeps are one row and one column, on a page of their own beside the paper's
numbers; `--sweeps` runs them alone. The organism gets k ∈ {1, 5, 20} × p ∈ {30, 50, 70, 90}. k is at most the number of
heads. Heads are ranked once on the validation split, and every cell uses the best k. All cells share the plain model's
answers. The table shows the test split, so its best cell is only a description: k and p would be chosen on validation
samples. `--paper` chooses heads and layer as the paper does and takes its variant of VGRefine. Runs are stored under
`--out`, and the same command resumes them; `table4.html` and `table4_sweeps.html` are the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.methods import VGRefine
from interp.paper_options import HeadChoice, HeadOptions
from interp.study import Grid, ModelSpec, Refinement, RefinementResult, paper_table
from interp.study.model_spec import is_organism
from interp.study.refinement.method_choice import Grounding
from interp.study.refinement.parameter_sweeps import fixed_values, write_sweeps

PAPER = (1, 2, 5, 8, 10, 15, 20), (30, 40, 50, 60, 70, 80, 90)
ORGANISM = (1, 5, 20), (30, 50, 70, 90)
FIXED = {"k": 20, "percentile": 50}
PUBLISHED = {"k": paper_table("4k"), "percentile": paper_table("4p")}


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 60, n_validation: int = 80, k: tuple[int, ...] = (), p: tuple[float, ...] = (),
    sweeps: bool = False, variant: Literal["", "code", "paper"] = "", layers: tuple[int, ...] = (),
    way: HeadOptions = HeadChoice(), tokens: int = 8,
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """How much do the number of heads and the percentile matter?

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files; samples need answers.
        out: Folder for runs, table4.html and table4_sweeps.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        n: The maximum number of test samples per data set, drawn with the seed.
        n_validation: The maximum number of validation samples per data set, to choose heads and the layer on.
        k: Numbers of heads.
        p: Percentiles.
        sweeps: Only the paper's two sweeps, without the rest of the grid.
        variant: The source of VGRefine's other settings; by default code, with --paper paper.
        layers: The masked layers; by default the published or the chosen one.
        way: Choices in which paper and toolkit differ; and the data on which heads and layer are chosen.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    spec, results, fixed = way.model(model, device=device, dtype=dtype), [], dict[str, float]()
    held_out = way.held_out(data, spec, n=n_validation, seed=seed)
    for label, samples in sets(data, n=n, seed=seed, needed=True).items():
        check_answers(label, samples)
        more: dict[str, Any] = {"seed": seed, "batch": batch_size}
        found = way.grounding(spec, held_out.get(label), out=out, workers=workers, **more)
        print(f"{found.said}\n")
        study = Refinement(model=spec, data=samples, max_new_tokens=tokens, **more)
        options = {"layers": layers or (found.layer,), "variant": way.conventions(variant=variant).variant}
        methods, fixed = cells(found, *numbers(spec, k, p), options, sweeps)
        results.append(Grid(study, method=methods).run(out, workers=workers))
    show(RefinementResult.join(results), fixed, out)


def numbers(
    model: ModelSpec, k: tuple[int, ...], p: tuple[float, ...]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The numbers of heads and the percentiles: those given, else the paper's, or few for the organism."""
    usual = ORGANISM if is_organism(model) else PAPER
    return k or usual[0], p or usual[1]


def cells(
    found: Grounding, k: tuple[int, ...], p: tuple[float, ...], options: dict[str, Any], sweeps: bool
) -> tuple[dict[str, VGRefine], dict[str, float]]:
    """A method per number of heads and percentile, and the two values that the sweeps hold."""
    heads = sorted({min(one, found.n_heads) for one in k})
    fixed = fixed_values(FIXED, {"k": set(heads), "percentile": set(p)})
    shown = [(h, q) for h in heads for q in p if not sweeps or h == fixed["k"] or q == fixed["percentile"]]
    made = {f"k = {h}, p = {q:g}": VGRefine(heads=found.top(h), percentile=q, **options) for h, q in shown}
    return made, fixed


def check_answers(label: str, samples: Samples) -> None:
    """End the script where no sample has an answer."""
    if all(sample.answer is None for sample in samples):
        raise SystemExit(f"{label}: samples need answers to be right or wrong about, and none has one.")


def show(result: RefinementResult, fixed: dict[str, float], out: Path) -> None:
    """The table, failures, the report, and the sweeps where there are two parameters to sweep."""
    print(result.table(), end="\n\n")
    if len(result.failures):
        print(result.failure_counts())
    print(f"Report: {result.report(out / 'table4.html')}")
    if set(result.parameters) >= set(fixed):
        print(f"Sweeps: {write_sweeps(result, out / 'table4_sweeps.html', fixed=fixed, published=PUBLISHED)}")


if __name__ == "__main__":
    run_script(main)
