"""Table 3: OmniMedVQA by modality, models as they are and under VGRefine.

    python studies/table3_omnimedvqa.py
    python studies/table3_omnimedvqa.py --model FreedomIntelligence/HuatuoGPT-Vision-7B-hf --device cuda \
        --data omnimedvqa:FOLDER --n None

Multiple-choice questions of the open-access part, 88,995 in eight modalities. The paper's average weighs questions
(“micro” here) for the models that it ran, and modalities (“macro”) for those whose numbers it copied. Without data it
runs on the organism and on bundled data in three modalities, whose numbers are not the paper's. Heads and the masked
layer are those published, or chosen on the validation split of `--choose-on`, which has boxes. MedPLIB and others
without weights at hand are quoted. Runs are stored under `--out`, and the same command resumes them;
`table3_omnimedvqa.html` is the result.
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
    """Answer multiple-choice questions as the model is and under VGRefine, by modality.

    Args:
        model: The model that VGRefine refines: "organism", a Hugging Face id or a local folder.
        data: Benchmarks such as omnimedvqa:FOLDER, bundled names, files or folders; questions need answers.
        out: Folder for runs and table3_omnimedvqa.html.
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
    show(result, out / "table3_omnimedvqa.html", beside=["3"], by=["modality"])


if __name__ == "__main__":
    run_script(main)
