"""Table F.4 on the benchmarks: VGRefine beside PAI, AdaptVis and ViCrop on four medical VQA sets.

    python studies/tableF4_benchmarks.py
    python studies/tableF4_benchmarks.py --model FreedomIntelligence/HuatuoGPT-Vision-7B-hf --device cuda --tokens 1 \
        --split all all test test --n None \
        --data vqa_rad,closed=answer_type:FOLDER slake:FOLDER path_vqa:FOLDER pmc_vqa:FOLDER

Every method has its published defaults and answers the same questions; differences are paired, with Holm's p over all
lines and each pair of methods compared. Heads and the masked layer are those published, or chosen on the validation
split of `--choose-on`, which has boxes. Without data it runs on the organism and on bundled data, whose numbers are
not the paper's. `tableF4_methods.py` is the same on samples with boxes, with what each method looks at. Runs are
stored under `--out`, and the same command resumes them; `tableF4_benchmarks.html` is the result.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from interp.cli import WorkerOptions, run_script
from interp.methods import PAI, AdaptVis, ViCrop
from interp.paper_options import HeadChoice, HeadOptions
from interp.study.benchmark.model_rows import question_sets, refined_row, run_rows, show


def main(
    model: str = "organism", data: tuple[str, ...] = ("medical",), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, split: tuple[str, ...] = ("test",), way: HeadOptions = HeadChoice(), n: int | None = 40,
    n_validation: int = 40, k: int | None = None, layers: tuple[int, ...] = (), tokens: int = 8, batch_size: int = 8,
    device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Compare methods on benchmarks of answers.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: Benchmarks such as vqa_rad:FOLDER, bundled names, files or folders; questions need answers.
        out: Folder for runs and tableF4_benchmarks.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        split: The split to report on, one for all data or one for each: test, validation, train or all.
        way: Choices in which paper and toolkit differ; and data to choose heads and layer on (default: natural scenes).
        n: The maximum number of questions per data set, drawn with the seed; None for all.
        n_validation: The maximum number of samples to choose on.
        k: The number of VGRefine's heads; by default 20, or an eighth of a small model's heads.
        layers: The layers that VGRefine masks; by default the published or the chosen one.
        tokens: The maximum number of tokens of an answer; the paper's official code generates one.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    samples = question_sets(data, split, n=n, seed=seed)
    spec = way.model(model, device=device, dtype=dtype)
    own, found = refined_row(
        spec, out=out, n=n_validation, k=k, layers=layers, seed=seed, workers=workers, batch=batch_size,
        **way.choosing(spec),
    )  # fmt: skip
    print(found.said, end="\n\n")
    row = replace(own, methods={**own.methods, "PAI": PAI(), "AdaptVis": AdaptVis(), "ViCrop": ViCrop()})
    result = run_rows(
        [row], samples, out=out, workers=workers, max_new_tokens=tokens, seed=seed, batch=batch_size
    )
    print(result.pairs_table(), end="\n\n")
    show(result, out / "tableF4_benchmarks.html", beside=["F.4"])


if __name__ == "__main__":
    run_script(main)
