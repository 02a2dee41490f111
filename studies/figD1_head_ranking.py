"""Figure D.1: do natural and medical images rank a model's heads alike?

    python studies/figD1_head_ranking.py
    python studies/figD1_head_ranking.py --model llava-hf/llava-1.5-7b-hf --device cuda --data COCO_FOLDER VGMED_FOLDER

Every head is scored on the validation split of each data set, on which heads may be chosen. The script prints the top
heads, the rank correlation and the overlap of the top k, with intervals, chance level and the ceiling set by noise. By
KL, the paper's metric, heads that look everywhere can come first; the printed comparison with a uniform map shows this.
`--metric ar` ranks by attention ratio; `--paper` ranks by KL with boxes stretched over the grid, as the official code
does. Runs are stored under `--out`, and the same command resumes them; `figD1.html` is the result.
"""

from __future__ import annotations

from pathlib import Path

from interp.cli import WorkerOptions, run_script
from interp.data.open import BUNDLED, sets
from interp.paper_options import PaperChoice, PaperOptions
from interp.study import HeadResult
from interp.study.head_ranking.rank_agreement import head_agreement
from interp.study.head_ranking.study import HeadRanking


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 160, metric: str = "kl", way: PaperOptions = PaperChoice(),
    k: int | None = None, batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Rank heads on each data set and compare the rankings.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and figD1.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples per data set, drawn with the seed.
        metric: The metric that ranks the heads: a short name of interp.metrics.METRICS.
        way: Choices in which paper and toolkit differ.
        k: The number of top heads; by default 20, as in the paper, or an eighth of a small model's heads.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    read = sets(data, split="validation", n=n, seed=seed)
    if not read:
        raise SystemExit(
            f"none of {', '.join(data)} has validation samples, so there is nothing to rank heads on."
        )
    spec, rule = way.model(model, device=device, dtype=dtype), way.conventions().rule
    rankings = [
        HeadRanking(model=spec, data=samples, metric=metric, rule=rule, seed=seed, batch=batch_size)
        for samples in read.values()
    ]
    results = [ranking.run(out, workers=workers) for ranking in rankings]
    first, *others = results
    best = k or min(20, max(first.n_heads // 8, 1))
    print_rankings(results, best)
    for other in others:
        print(*head_agreement(first, other, best, seed=seed).sentences(), sep="\n", end="\n\n")
    print(f"Report: {first.report(out / 'figD1.html', k=best, against=others)}")


def print_rankings(results: list[HeadResult], k: int) -> None:
    for result in results:
        print(result.table(k), end="\n\n")
        if len(result.failures):
            print(result.failure_counts())


if __name__ == "__main__":
    run_script(main)
