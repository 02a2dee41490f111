"""Table 2: the five Health & Medicine subjects of MMMU, models as they are and under VGRefine.

    python studies/table2_mmmu.py
    python studies/table2_mmmu.py --model FreedomIntelligence/HuatuoGPT-Vision-7B-hf --device cuda --n None \
        --data mmmu:FOLDER

Multiple-choice questions with lettered options; by default the test split, whose answers are public since 2026, as the
paper's average is weighted by its size. Without data it runs on the organism and on bundled data, which have no
subjects and whose numbers are not the paper's. Heads and the masked layer are those published, or chosen on the
validation split of `--choose-on`, which has boxes. `--scorer huatuo` reads answers as HuatuoGPT-Vision's own code
does. Models without weights at hand are quoted from the paper. Runs are stored under `--out`, and the same command
resumes them; `table2_mmmu.html` is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from interp.cli import WorkerOptions, run_script
from interp.metrics.scorers import HuatuoCompat, OptionLogProbability, Strict
from interp.paper_options import HeadChoice, HeadOptions
from interp.study.benchmark.model_rows import baselines, question_sets, refined_row, run_rows, show

SCORERS = {"strict": Strict(), "huatuo": HuatuoCompat(), "options": OptionLogProbability()}


def main(
    model: str = "organism", data: tuple[str, ...] = ("medical",), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, baseline: tuple[str, ...] = (), answers_only: tuple[str, ...] = (),
    split: tuple[str, ...] = ("test",), way: HeadOptions = HeadChoice(), n: int | None = 64, n_validation: int = 40,
    k: int | None = None, layers: tuple[int, ...] = (), tokens: int = 8, batch_size: int = 8, device: str = "cpu",
    dtype: str = "float32", scorer: Literal["strict", "huatuo", "options"] = "strict",
) -> None:  # fmt: skip
    """Answer multiple-choice questions as the model is and under VGRefine, by subject.

    Args:
        model: The model that VGRefine refines: "organism", a Hugging Face id or a local folder.
        data: Benchmarks such as mmmu:FOLDER, bundled names, files or folders; questions need answers.
        out: Folder for runs and table2_mmmu.html.
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
        scorer: What marks an answer: its whole text, HuatuoGPT-Vision's way, or the most likely option's letter.
        batch_size: Samples per forward pass.
        device: Where models run.
        dtype: The models' floating-point type.
    """
    samples = question_sets(data, split, n=n, seed=seed)
    spec = way.model(model, device=device, dtype=dtype)
    more: dict[str, Any] = {"seed": seed, "batch": batch_size}
    chosen = {"n": n_validation, "k": k, "layers": layers, **way.choosing(spec)}
    own, found = refined_row(spec, out=out, workers=workers, **chosen, **more)
    print(found.said, end="\n\n")
    rows = [*baselines(baseline, answers_only, device=device, dtype=dtype), own]
    result = run_rows(
        rows, samples, out=out, workers=workers, scorer=SCORERS[scorer], max_new_tokens=tokens, **more
    )
    show(result, out / "table2_mmmu.html", beside=["2"], by=["subject"])


if __name__ == "__main__":
    run_script(main)
