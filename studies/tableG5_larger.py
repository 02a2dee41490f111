"""Table G.5: larger models on closed questions, MMMU by subject and OmniMedVQA by modality.

    python studies/tableG5_larger.py
    python studies/tableG5_larger.py --model FreedomIntelligence/HuatuoGPT-Vision-34B-hf --layers 36 38 \
        --device cuda --dtype bfloat16 --baseline MODEL … \
        --data vqa_rad:FOLDER slake:FOLDER mmmu:FOLDER omnimedvqa:FOLDER

The 34B model's heads are not published: they are ranked on the validation split of `--choose-on`, and `--layers` takes
several masked layers. The paper names them in its Appendix P, but the numbers are missing in the copy that we had.
BLEU-1, BERTScore and recall of open questions: `tableE3_open.py` with the same model. Averages are micro and macro; the
paper mixes them. Without data it runs on the organism and on bundled data, whose numbers are not the paper's. Runs are
stored under `--out`, and the same command resumes them; `tableG5_larger.html` is the result.
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
    split: tuple[str, ...] = ("test",), way: HeadOptions = HeadChoice(), n: int | None = 40,
    n_validation: int = 40, k: int | None = None, layers: tuple[int, ...] = (), tokens: int = 8,
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Answer benchmarks with a larger model, as it is and under VGRefine at several layers.

    Args:
        model: The model that VGRefine refines: "organism", a Hugging Face id or a local folder.
        data: Benchmarks such as mmmu:FOLDER, bundled names, files or folders; questions need answers.
        out: Folder for runs and tableG5_larger.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        baseline: Other models, which answer as they are.
        answers_only: Models that only answer; interp reads no attention of them.
        split: The split to report on, one for all data or one for each: test, validation, train or all.
        way: Choices in which paper and toolkit differ; and data to choose heads and layer on (default: natural scenes).
        n: The maximum number of questions per data set, drawn with the seed; None for all.
        n_validation: The maximum number of samples to choose on.
        k: The number of heads; by default 20, as in the paper, or an eighth of a small model's heads.
        layers: The masked layers; by default the chosen one.
        tokens: The maximum number of tokens of an answer.
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
    show(result, out / "tableG5_larger.html", beside=["G.5"], by=["subject", "modality"])


if __name__ == "__main__":
    run_script(main)
