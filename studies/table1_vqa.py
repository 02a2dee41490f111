"""Table 1: closed questions of VQA-RAD, SLAKE, PathVQA and PMC-VQA, models as they are and under VGRefine.

    python studies/table1_vqa.py
    python studies/table1_vqa.py --model FreedomIntelligence/HuatuoGPT-Vision-7B-hf --device cuda --tokens 1 \
        --split all all test test --n None \
        --data vqa_rad,closed=answer_type:FOLDER slake:FOLDER path_vqa:FOLDER pmc_vqa:FOLDER

Without data it runs on the organism and on bundled data, whose numbers are not the paper's. The paper's sizes (1299,
2781, 3370, 2000) are closed questions of all splits of VQA-RAD and SLAKE and of the test splits of the others, hence
`--split`, one for each; N is printed. Heads and the masked layer are those published, or chosen on the validation
split of `--choose-on`, which has boxes. `--baseline` models answer as they are; `--answers-only` models, such as a
converted Qwen-VL-Chat, answer too; those without weights at hand are quoted. Runs are stored under `--out`, and the
same command resumes them; `table1_vqa.html` is the result.
"""

from __future__ import annotations

from pathlib import Path

from interp.cli import WorkerOptions, run_script
from interp.data.open import BUNDLED
from interp.paper_options import HeadChoice, HeadOptions
from interp.study.benchmark.model_rows import baselines, question_sets, refined_row, run_rows, show


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, baseline: tuple[str, ...] = (), answers_only: tuple[str, ...] = (),
    split: tuple[str, ...] = ("test",), way: HeadOptions = HeadChoice(), n: int | None = 64,
    n_validation: int = 40, k: int | None = None, layers: tuple[int, ...] = (), tokens: int = 8,
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Answer closed questions as the model is and under VGRefine.

    Args:
        model: The model that VGRefine refines: "organism", a Hugging Face id or a local folder.
        data: Benchmarks such as vqa_rad:FOLDER, bundled names, files or folders; questions need answers.
        out: Folder for runs and table1_vqa.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        baseline: Other models, which answer as they are.
        answers_only: Models that only answer; interp reads no attention of them.
        split: The split to report on, one for all data or one for each: test, validation, train or all.
        way: Choices in which paper and toolkit differ; and data to choose heads and layer on (default: natural scenes).
        n: The maximum number of questions per data set, drawn with the seed; None for all.
        n_validation: The maximum number of samples to choose on.
        k: The number of heads; by default 20, as in the paper, or an eighth of a small model's heads.
        layers: The masked layers; by default the published or the chosen one.
        tokens: The maximum number of tokens of an answer; the paper's official code generates one.
        batch_size: Samples per forward pass.
        device: Where models run.
        dtype: The models' floating-point type.
    """
    samples = question_sets(data, split, n=n, seed=seed)
    spec = way.model(model, device=device, dtype=dtype)
    own, found = refined_row(
        spec, out=out, n=n_validation, k=k, layers=layers, seed=seed, workers=workers, batch=batch_size,
        **way.choosing(spec),
    )  # fmt: skip
    print(found.said, end="\n\n")
    rows = [*baselines(baseline, answers_only, device=device, dtype=dtype), own]
    result = run_rows(
        rows, samples, out=out, workers=workers, max_new_tokens=tokens, seed=seed, batch=batch_size
    )
    show(result, out / "table1_vqa.html", beside=["1"])


if __name__ == "__main__":
    run_script(main)
