"""Head attribution: which heads write the answer, and are they those that look at the box?

    python studies/head_attribution.py
    python studies/head_attribution.py --model llava-hf/llava-1.5-7b-hf --device cuda --data VGMED_FOLDER

The direct effect of each head on the answer's logit (TransformerLens; `pip install "interp[lens]"`), the total effect
of knocking it out at the last token, and its attention ratio, on the same samples, with rank correlations over the
heads and intervals over groups. Heads are described here, not chosen. Runs are stored under `--out`, and the same
command resumes them; `head_attribution.html` beside them is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.report.tables import number
from interp.study import Grid, HeadAttribution, HeadRanking, HeadResult, ModelSpec
from interp.study.dataframes import records
from interp.study.head_attribution.page import COLUMNS, agreements, head_table, said, write_page


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 40, target: Literal["greedy", "answer"] = "greedy", batch_size: int = 8,
    device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Direct and total effects of heads on the answer, and where they look.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and head_attribution.html.
        seed: Draws the samples.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples per data set, drawn with the seed.
        target: The answer whose first token is used: the model's or the sample's own.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    read = sets(data, n=n, seed=seed, needed=True)
    spec = ModelSpec(model, device=device, dtype=dtype)
    first = next(iter(read.values()))
    base = HeadAttribution(model=spec, data=first, target=target, seed=seed, batch=batch_size)
    result = Grid(base, data=read).run(out, workers=workers)
    rankings = {
        name: ranked(spec, samples, out, workers, seed, batch_size) for name, samples in boxed(read).items()
    }
    for row in records(agreements(result, rankings)):
        print(f"  {row['data']:>10}  {COLUMNS[row['first']]} – {COLUMNS[row['second']]}: rho {said(row)}")
    for name, heads in head_table(result, rankings).groupby("data", sort=False):
        for row in records(heads.sort_values("direct", ascending=False).head(3)):
            effects = ", ".join(f"{column} {number(row[column])}" for column in COLUMNS if column in row)
            print(f"  {name:>10}  layer {row['layer']}, head {row['head']}: {effects}")
    if len(result.failures):
        print(result.failure_counts())
    print(f"Page: {write_page(result, out / 'head_attribution.html', rankings=rankings)}")


def ranked(
    model: ModelSpec, samples: Samples, out: Path, workers: WorkerOptions, seed: int, batch: int
) -> HeadResult:
    """Every head's attention ratio on these samples."""
    split = samples.split or "test"
    study = HeadRanking(model=model, data=samples, metric="ar", split=split, seed=seed, batch=batch)
    return study.run(out, workers=workers)


def boxed(read: dict[str, Samples]) -> dict[str, Samples]:
    """The sets some of whose samples have boxes."""
    return {name: samples for name, samples in read.items() if any(sample.boxes for sample in samples)}


if __name__ == "__main__":
    run_script(main)
