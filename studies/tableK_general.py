"""Appendix K: does VGRefine cost anything on general questions, and at other image sizes?

    python studies/tableK_general.py
    python studies/tableK_general.py --model Qwen/Qwen2.5-VL-7B-Instruct --device cuda --pixels 50176 200704 802816 \
        --data GENERAL.jsonl

Models as they are and under VGRefine on questions about natural images, at each limit of pixels that `--pixels` names;
heads and layer are chosen anew for each, because tokens and attention change with the size. Only processors that take
`max_pixels`, as those of Qwen2-VL and later, have several sizes; others run at their own. The appendix's numbers were
not at hand, so none is printed. General benchmarks come as files (`interp.data.jsonl`, `csv`) or by `python -m
interp.lmms_eval`, which runs the tasks of lmms-eval. Without data it runs on the organism and on rendered scenes. Runs
are stored under `--out`, and the same command resumes them; `tableK_general.html` is the result.
"""

from __future__ import annotations

from pathlib import Path

from interp.cli import WorkerOptions, run_script
from interp.paper_options import HeadChoice, HeadOptions
from interp.study.benchmark.model_rows import question_sets, refined_row, run_rows, show


def main(
    model: str = "organism", data: tuple[str, ...] = ("natural",), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, split: tuple[str, ...] = ("test",),
    way: HeadOptions = HeadChoice(), n: int | None = 64, n_validation: int = 40, k: int | None = None,
    layers: tuple[int, ...] = (), tokens: int = 8, batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Answer general questions at several image sizes, as the model is and under VGRefine.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: Bundled names, files or folders of general questions with answers.
        out: Folder for runs and tableK_general.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        split: The split to report on, one for all data or one for each: test, validation, train or all.
        way: Choices in which paper and toolkit differ; and data to choose heads and layer on (default: natural scenes).
        n: The maximum number of questions per data set, drawn with the seed; None for all.
        n_validation: The maximum number of samples to choose on.
        k: The number of heads; by default 20, as in the paper, or an eighth of a small model's heads.
        layers: The masked layers; by default the published or the chosen one.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    samples = question_sets(data, split, n=n, seed=seed)
    rows = []
    for spec in way.models([model], device=device, dtype=dtype):
        own, found = refined_row(
            spec, out=out, n=n_validation, k=k, layers=layers, seed=seed, workers=workers, batch=batch_size,
            **way.choosing(spec),
        )  # fmt: skip
        print(found.said, end="\n\n")
        rows.append(own)
    show(
        run_rows(rows, samples, out=out, workers=workers, max_new_tokens=tokens, seed=seed, batch=batch_size),
        out / "tableK_general.html",
    )


if __name__ == "__main__":
    run_script(main)
