"""Figure J.2: where does a model look before and after VGRefine?

    python studies/figJ2_before_after.py
    python studies/figJ2_before_after.py --paper --model MODEL OTHER --choose-on COCO_FOLDER --data VGMED_FOLDER

A few test samples of each data set, drawn with the seed and not by their score, for several models on one page: the map
before VGRefine, the map of its triage, the tokens that it hides, and the map after it. Maps are of the layer that
VGRefine masks: the published one, or the best on the validation split, with `--paper` the lowest by KL. At that layer
the edit itself makes the change, so the change is no evidence of grounding; `vgrefine.py` reads the next layer. Runs
are stored under `--out`, and the same command resumes them; `figJ2.html` is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from interp.cli import WorkerOptions, run_script
from interp.data.open import BUNDLED, sets
from interp.methods import VGRefine
from interp.paper_options import HeadChoice, HeadOptions
from interp.study import Grid, Refinement, RefinementResult
from interp.study.study import words


def main(
    model: tuple[str, ...] = ("organism",), data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"),
    seed: int = 0, workers: WorkerOptions = 1, n: int = 6, n_validation: int = 80, k: int | None = None,
    layers: tuple[int, ...] = (), way: HeadOptions = HeadChoice(),
    variant: Literal["", "code", "paper"] = "", batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Show maps before and after VGRefine.

    Args:
        model: One or more of "organism", Hugging Face ids, local folders.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and figJ2.html.
        seed: Draws the samples.
        workers: The number of worker processes, and where they run.
        n: The number of samples shown of each data set.
        n_validation: The maximum number of validation samples per data set, to choose heads and layer on.
        k: The number of heads; by default 20, as in the paper, or an eighth of a small model's heads.
        layers: The masked layers, of which the first is shown; by default the published or the chosen one.
        way: Choices in which paper and toolkit differ; and the data on which heads and layer are chosen.
        variant: VGRefine as the official code or as the paper; by default code, with --paper paper.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    source = way.conventions(variant=variant).variant
    read, results = sets(data, n=n, seed=seed, needed=True), []
    for spec in way.models(words(model), device=device, dtype=dtype):
        held_out = way.held_out(data, spec, n=n_validation, seed=seed)
        for label, samples in read.items():
            options: dict[str, Any] = {"seed": seed, "batch": batch_size}
            found = way.grounding(spec, held_out.get(label), out=out, k=k, workers=workers, **options)
            print(found.said, end="\n\n")
            masked = layers or (found.layer,)
            study = Refinement(model=spec, data=samples, max_new_tokens=1, read_layer=masked[0], **options)
            method = VGRefine(found.heads, masked, variant=source)
            results.append(Grid(study, method={f"VGRefine, {source}": method}).run(out, workers=workers))
    result = RefinementResult.join(results)
    if len(result.failures):
        print(result.failure_counts())
    print(f"Page: {result.report(out / 'figJ2.html')}")


if __name__ == "__main__":
    run_script(main)
